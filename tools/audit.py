"""`satchel audit`: from the log alone, that users asked for what was done in their name; rules did the rest.   [A-5]

For each command that only a user can bring in: the signature is the user's own, on these very bytes; the bytes ask for
this very command; they were sent within their window, and used once. Everything else must follow by replay.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from api.errors import ApiError
from api.requests import command_of, fields_of
from engine.commands import USER_COMMANDS, ClockMode, Command, RegisterKey, decode, encode
from engine.replay import Divergence
from engine.state import State
from ledger.blocks import LoggedCommand, SignedRequest
from ledger.signing import key_text, verify
from ledger.store import Store, StoreError
from tools.keys import public_key
from tools.node_data import reading
from tools.replaying import Replay, collect_seldom, number_of_commands, require_genesis_key
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, progress, say

UserKeys = dict[int, frozenset[bytes]]

_USER_KINDS = frozenset(kind.__name__ for kind in USER_COMMANDS)
MOST_DELAY_MS = 60_000
"""Between receiving a request and doing it: as long as the widest window of a request."""
_TAIL = re.compile(rb"&timestamp=([0-9]{1,19})&window=([0-9]{1,19})\Z")


def audit(data: Path, database: str | None, keys_file: Path | None, key: str | None, as_json: bool) -> int:
    """Audit the whole log; 1 when a command or a journal transaction has no right to be there."""
    collect_seldom()
    keys = None if keys_file is None else read_user_keys(keys_file)
    genesis_key = None if key is None else public_key(key)
    with reading(data, database) as engine:
        store = Store(engine)
        commands = number_of_commands(store)
        check = Audit(store, keys, genesis_key)
        with progress("auditing", commands) as show:
            for done in check.run():
                show(done)
    report = check.report()
    if as_json:
        print_json(report)
    else:
        for finding in check.findings:
            print(finding)
        print("clean" if not check.findings else f"{len(check.findings)} finding(s)")
        for note in check.notes:
            print(f"note: {note}")
        for name, count in report["covered"].items():
            print(f"  {name}: {count}")
    if keys is None:
        say("the users' keys are the log's own; --keys FILE holds it to keys that the users gave you")
    return FINDINGS if check.findings else FINE


class Finding(msgspec.Struct, frozen=True):
    """A command that the log cannot justify; `command` 0 is the log as a whole."""

    command: int
    kind: str
    user_id: int | None
    reason: str

    def __str__(self) -> str:
        what = f"command {self.command} {self.kind}" if self.command else "the log"
        whose = f" of user {self.user_id}" if self.user_id is not None else ""
        return f"{what}{whose}: {self.reason}"


class Audit:
    """One pass over the log. A user's keys are the given ones, or the log's own registrations where none are."""

    def __init__(self, store: Store, keys: UserKeys | None, genesis_key: bytes | None = None) -> None:
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        """What a devnet allows and an exchange would not: for the reader, no reason to doubt the log."""
        self._genesis_key = genesis_key
        self.covered: Counter[str] = Counter()
        self._store = store
        self._keys = keys
        self._without_keys: Counter[int] = Counter()
        """User without given keys, where some were given → commands held to the log's own keys instead."""
        self._used: dict[bytes, int] = {}
        """API key and signature → the command that had its effect."""
        self._replay = Replay(store)

    def run(self) -> Any:
        """Check command after command; yields how many are done."""
        try:
            require_genesis_key(self._store, self._genesis_key)
        except (Divergence, StoreError) as difference:
            self._find(0, "", None, str(difference))
        try:
            for _header, _outcomes in self._replay.blocks(before=self._before):
                yield self._replay.next_command - 1
            self.covered["journal transactions that follow from their commands"] = self._replay.covered[
                "journalTransactions"
            ]
        except (Divergence, StoreError) as difference:
            at = self._replay.state.sequence
            self._find(at, "", None, f"replay does not follow the log: {difference}")
            # What comes after has no state to be held against; whose signatures it bears can still be said.
            for logged in self._store.commands(at + 1):
                self._check_signature(logged)
                yield logged.seq
        # One note for each user, not a finding for each command: a list of some users' keys audits those users.
        for user_id, count in sorted(self._without_keys.items()):
            reason = f"no keys were given, {count} signed command(s) are held to the log's own keys"
            self.notes.append(Finding(0, "", user_id, reason))

    def report(self) -> dict[str, Any]:
        return {
            "clean": not self.findings,
            "findings": _listed(self.findings),
            "notes": _listed(self.notes),
            "keys": "given" if self._keys is not None else "the log's own",
            "covered": dict(sorted(self.covered.items())),
        }

    def _before(self, state: State, logged: LoggedCommand) -> None:
        """Judge a command against the state as it stands right before it."""
        try:
            command = decode(logged.payload)
        except msgspec.MsgspecError:
            # Replay names it in a moment; what cannot be read was asked for by nobody.
            return
        if isinstance(command, RegisterKey) and logged.outcome == 0:
            self._check_registration(state, logged, command)
        if not self._check_signature(logged) or logged.request is None:
            return
        if state.requests.get(logged.request.api_key + logged.request.signature) is not None:
            # The engine remembers the request and gives its first answer again: no second effect.  
            self.covered["repeated requests without a second effect"] += 1
        elif logged.outcome == 0:
            self._check_asked(state, logged, logged.request, command)
        else:
            self.covered["signed commands that were refused"] += 1

    def _check_signature(self, logged: LoggedCommand) -> bool:
        """The signature is this key's on these bytes. False when there is nothing more to judge."""
        request = logged.request
        if request is None:
            if logged.kind in _USER_KINDS and logged.outcome == 0:
                self._find(logged.seq, logged.kind, None, "no user's signature: only its user can bring it in")
            elif logged.kind in _USER_KINDS:
                self.covered["unsigned commands that were refused"] += 1
            return False
        if not verify(request.api_key, request.signature, request.text):
            reason = f"the signature is not key {key_text(request.api_key)}'s on the signed text"
            self._find(logged.seq, logged.kind, None, reason)
            return False
        tail = _TAIL.search(request.text)
        if tail is None or (int(tail[1]), int(tail[2])) != (request.timestamp_ms, request.window_ms):
            self._find(
                logged.seq,
                logged.kind,
                None,
                f"the log has timestamp {request.timestamp_ms} and window {request.window_ms}, the signed text others",
            )
            return False
        return True

    def _check_asked(self, state: State, logged: LoggedCommand, request: SignedRequest, command: Command) -> None:
        """An accepted command is what its signed text asks for, in time, once, by a key of the user's."""
        key = state.api_keys.get(request.api_key)
        user_id = None if key is None else key.user_id
        if logged.kind in _USER_KINDS:
            self._check_user_key(logged, request, user_id)
            self.covered["user commands, each signed by its user"] += 1
        else:
            self.covered["operator commands, each signed by an operator"] += 1
            if request.api_key not in state.operator_keys:
                self._find(logged.seq, logged.kind, None, f"key {key_text(request.api_key)} is no operator's")

        first = self._used.setdefault(request.api_key + request.signature, logged.seq)
        if first != logged.seq:
            self._find(logged.seq, logged.kind, user_id, f"its signature was used before, by command {first}")
        if abs(request.received_ms - request.timestamp_ms) > request.window_ms:
            self._find(
                logged.seq,
                logged.kind,
                user_id,
                f"received at {request.received_ms} ms, not within {request.window_ms} ms of {request.timestamp_ms}",
            )
        self._check_clock(state, logged, request, user_id)
        subaccount_id = 0 if key is None else key.subaccount_id
        try:
            groups = fields_of(request.text)
            derived = command_of(groups[0][0], [one for _, one in groups], subaccount_id, user_id or 0, state)
        except (ApiError, ValueError) as problem:
            self._find(logged.seq, logged.kind, user_id, f"the signed text asks for no command: {problem}")
            return
        if encode(derived) != logged.payload:
            self._find(logged.seq, logged.kind, user_id, f"the signed text asks for {derived}, the log has {command}")

    def _check_clock(self, state: State, logged: LoggedCommand, request: SignedRequest, user_id: int | None) -> None:
        """What was received is done at once: nobody may hold an order back until its price suits them.   [A-6]

        On a devnet whose clock was moved or stopped, exchange time says nothing about when a request came.   [W-9]
        """
        if state.clock_mode != ClockMode.REAL or state.clock_offset_us:
            return
        apart_ms = abs(logged.at_us // 1_000 - request.received_ms)
        if apart_ms > MOST_DELAY_MS:
            reason = f"done at {logged.at_us} µs, received at {request.received_ms} ms: {apart_ms} ms apart"
            self._find(logged.seq, logged.kind, user_id, f"{reason}, at most {MOST_DELAY_MS}")

    def _check_user_key(self, logged: LoggedCommand, request: SignedRequest, user_id: int | None) -> None:
        if user_id is None:
            self._find(logged.seq, logged.kind, None, f"key {key_text(request.api_key)} is no user's")
        elif self._keys is not None and user_id not in self._keys:
            self._without_keys[user_id] += 1
        elif self._keys is not None and request.api_key not in self._keys[user_id]:
            reason = f"signed by key {key_text(request.api_key)}, which is not among the user's keys"
            self._find(logged.seq, logged.kind, user_id, reason)

    def _check_registration(self, state: State, logged: LoggedCommand, command: RegisterKey) -> None:
        """The operator may open a user with a first key; a further key is the user's own command.   [A-5]"""
        if command.user_id not in state.users:
            self.covered["users opened with a first key"] += 1
            if logged.request is None and not state.devnet:
                self._find(logged.seq, logged.kind, command.user_id, "no operator signed the registration")
            return
        listed = None if self._keys is None else self._keys.get(command.user_id)
        if listed is not None and command.public_key in listed:
            self.covered["further keys without the user's signature that the user vouches for"] += 1
        elif state.devnet and listed is None:
            # A devnet registers keys for whoever asks, and this user gave no list that says otherwise.   [W-9]
            self.notes.append(
                Finding(
                    logged.seq,
                    logged.kind,
                    command.user_id,
                    f"key {key_text(command.public_key)} was added to an existing user through the devnet's own route",
                )
            )
        else:
            self._find(
                logged.seq,
                logged.kind,
                command.user_id,
                f"key {key_text(command.public_key)} was added to an existing user without a signature of that user's",
            )

    def _find(self, seq: int, kind: str, user_id: int | None, reason: str) -> None:
        self.findings.append(Finding(seq, kind, user_id, reason))


def _listed(findings: list[Finding]) -> list[dict[str, Any]]:
    return [
        {"command": one.command, "kind": one.kind, "userId": one.user_id, "reason": one.reason} for one in findings
    ]


def read_user_keys(file: Path) -> UserKeys:
    """The users' public keys from JSON {userId: [base64 keys]}."""
    try:
        document = json.loads(file.read_text())
        if not isinstance(document, dict):
            raise ValueError("not an object")
        keys = {}
        for user_id, listed in document.items():
            decoded = frozenset(b64decode(text, validate=True) for text in listed)
            if any(len(key) != 32 for key in decoded):
                raise ValueError(f"a key of user {user_id} has not 32 bytes")
            keys[int(user_id)] = decoded
        return keys
    except (ValueError, TypeError, Base64Error) as problem:
        raise CannotRun(
            f"{file} holds no users' keys: {problem}", 'write JSON {"userId": ["base64 of a 32-byte key", …]}'
        ) from None
