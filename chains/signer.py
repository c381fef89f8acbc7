"""The signer: the only holder of keys. It parses what it is asked to sign and enforces its own limits.   [D-10]

Keys are derived from one master seed that rests encrypted in a keystore file. They reach no adapter, no log, no
database. Limits come from the bytes that are signed, not from what the caller says about them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from chains import keys, simulated

DAY_US = 24 * 60 * 60 * 1_000_000
HOT_WALLET = 0
SIMULATED = "simulated"
EVM = "evm"
_TRANSFER_SELECTOR = bytes.fromhex("a9059cbb")
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
_CONTEXT = b"satchel keystore v1"


class SigningRefused(Exception):
    """The signer will not sign this transaction; says which limit, and both numbers."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The most base units of one coin that the hot wallet may pay in one transaction and in 24 hours."""

    per_transaction: int
    per_day: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be signed on one chain: the network it must be, the coins by contract, and the dearest fee."""

    family: str
    network: str
    limits: Mapping[str, Limit]
    most_fee: int


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an unsigned transaction really does, as read from its bytes."""

    network: str
    sender: str
    nonce: int
    contract: str
    recipient: str
    amount: int
    most_fee: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: its id on chain and the bytes to broadcast."""

    tx_id: str
    raw: bytes


@dataclass(slots=True)
class _Usage:
    """What was signed before, by (chain, wallet, nonce): a nonce pays one recipient one amount, ever.

    And by (chain, reference) → (wallet, nonce): a named payment has one nonce, ever.
    """

    path: Path | None
    signed: dict[tuple[int, int, int], tuple[int, str, str, int]] = field(default_factory=dict)
    references: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)


class Signer:
    """Signs transactions of the exchange's own wallets. `policies` is per chain id; what is not listed is refused.

    `usage` is a file that remembers what was signed, so that the 24-hour limits survive a restart.
    """

    def __init__(
        self,
        keystore: Path,
        *,
        passphrase: str | None,
        policies: Mapping[int, Policy],
        clock_us: Callable[[], int],
        usage: Path | None = None,
    ) -> None:
        self._seed = _open_keystore(keystore, passphrase)
        self._policies = policies
        self._clock_us = clock_us
        self._usage = _Usage(usage)
        self._load_usage()

    def __repr__(self) -> str:
        return f"Signer(chains={sorted(self._policies)})"

    def address(self, family: str, wallet: int) -> str:
        """The address of a wallet. Reveals no key."""
        if family == SIMULATED:
            return simulated.address_of(keys.ed25519_key(self._seed, wallet))
        from eth_account import Account

        return str(Account.from_key(keys.evm_key(self._seed, wallet)).address)

    def public_root(self, family: str) -> str:
        """The extended public key for watch-only derivation; only EVM has one."""
        assert family == EVM, f"{family} has no public derivation"
        return keys.evm_public_root(self._seed)

    def sign(self, chain_id: int, wallet: int, unsigned: bytes, reference: str = "") -> Signed:
        """Sign a transaction of a wallet, or raise `SigningRefused`.   [D-10]

        `reference` names the payment: it is signed for one nonce only, whatever becomes of the database.
        """
        policy = self._policies.get(chain_id)
        if policy is None:
            raise SigningRefused(f"chain {chain_id} has no policy")
        meaning = _parse_simulated(unsigned) if policy.family == SIMULATED else _parse_evm(unsigned)
        self._require_allowed(chain_id, wallet, meaning, policy)
        at = self._usage.references.get((chain_id, reference))
        if reference and at not in (None, (wallet, meaning.nonce)):
            raise SigningRefused(f"chain {chain_id} wallet {wallet} nonce {meaning.nonce}: {reference} was signed"
                                 f" before, (wallet, nonce) {at}")

        # From here the transaction is signed; it is remembered first, so that a crash can only make us stricter.
        self._remember(chain_id, wallet, meaning, reference)
        if policy.family == SIMULATED:
            return Signed(*simulated.sign(unsigned, keys.ed25519_key(self._seed, wallet)))
        return _sign_evm(unsigned, keys.evm_key(self._seed, wallet))

    def _require_allowed(self, chain_id: int, wallet: int, meaning: Meaning, policy: Policy) -> None:
        where = f"chain {chain_id} wallet {wallet} nonce {meaning.nonce}"
        own, hot = self.address(policy.family, wallet), self.address(policy.family, HOT_WALLET)
        if meaning.network != policy.network:
            raise SigningRefused(f"{where}: network {meaning.network}, policy says {policy.network}")
        if meaning.sender not in ("", own):
            raise SigningRefused(f"{where}: sender {meaning.sender} is not the wallet's {own}")
        if meaning.most_fee > policy.most_fee:
            raise SigningRefused(f"{where}: fee up to {meaning.most_fee}, at most {policy.most_fee}")
        limit = policy.limits.get(meaning.contract)
        if limit is None:
            raise SigningRefused(f"{where}: contract {meaning.contract} is not listed")
        if wallet != HOT_WALLET and meaning.recipient not in (hot, own):
            raise SigningRefused(f"{where}: a deposit address pays only the hot wallet, not {meaning.recipient}")

        cancels = meaning.recipient == own and meaning.amount == 0
        before = self._usage.signed.get((chain_id, wallet, meaning.nonce))
        same = before is not None and before[1:] == (meaning.contract, meaning.recipient, meaning.amount)
        if before is not None and not same and not cancels:
            raise SigningRefused(f"{where}: already signed for {before[3]} to {before[2]}, not {meaning.amount}"
                                 f" to {meaning.recipient}")
        if wallet == HOT_WALLET and not same and meaning.amount > limit.per_transaction:
            raise SigningRefused(f"{where}: {meaning.amount} in one transaction, at most {limit.per_transaction}")
        spent = self._spent(chain_id, meaning.contract)
        if wallet == HOT_WALLET and not same and spent + meaning.amount > limit.per_day:
            raise SigningRefused(f"{where}: {spent} + {meaning.amount} in 24 hours, at most {limit.per_day}")

    def _spent(self, chain_id: int, contract: str) -> int:
        """Base units of a coin that the hot wallet was made to pay in the last 24 hours."""
        since = self._clock_us() - DAY_US
        return sum(
            amount
            for (chain, wallet, _), (at_us, coin, _, amount) in self._usage.signed.items()
            if chain == chain_id and wallet == HOT_WALLET and coin == contract and at_us > since
        )

    def _remember(self, chain_id: int, wallet: int, meaning: Meaning, reference: str) -> None:
        key = (chain_id, wallet, meaning.nonce)
        if key in self._usage.signed and (not reference or (chain_id, reference) in self._usage.references):
            return
        row = self._usage.signed.get(key)
        if row is None:
            row = (self._clock_us(), meaning.contract, meaning.recipient, meaning.amount)
        if self._usage.path is not None:
            with open(self._usage.path, "a", encoding="utf-8") as file:
                file.write(json.dumps([*key, *row, reference]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._usage.signed[key] = row
        if reference:
            self._usage.references[chain_id, reference] = (wallet, meaning.nonce)

    def _load_usage(self) -> None:
        if self._usage.path is None or not self._usage.path.exists():
            return
        for line in self._usage.path.read_text(encoding="utf-8").splitlines():
            try:
                chain_id, wallet, nonce, at_us, contract, recipient, amount, *reference = json.loads(line)
            except ValueError:
                continue  # The last line of a crash: what it would have said was not signed.
            self._usage.signed[chain_id, wallet, nonce] = (at_us, contract, recipient, amount)
            for name in filter(None, reference):
                self._usage.references[chain_id, name] = (wallet, nonce)


def read_signed(raw: bytes) -> tuple[str, Meaning]:
    """(transaction id, what it does, with the sender that its signature proves) of signed bytes of either family.

    Raises `SigningRefused` when they are no signed plain payment: such bytes are not ours.   [D-10]
    """
    try:
        return _read_evm(raw) if raw[:1] == b"\x02" else _read_simulated(raw)
    except SigningRefused:
        raise
    except Exception as problem:  # Any decoder may fail in any way on bytes that somebody else wrote.
        raise SigningRefused(f"not a signed payment: {type(problem).__name__} {problem}") from None


def _read_simulated(raw: bytes) -> tuple[str, Meaning]:
    payload, signature = simulated.opened(raw)
    return signature, _parse_simulated(payload)


def _read_evm(raw: bytes) -> tuple[str, Meaning]:
    import rlp
    from eth_keys import keys as eth_keys
    from eth_utils import keccak

    fields = rlp.decode(raw[1:])
    if len(fields) != 12 or b"\x02" + rlp.encode(fields) != raw:
        raise SigningRefused("the transaction is not in its canonical encoding")
    unsigned = b"\x02" + rlp.encode(fields[:9])
    v, r, s = (int.from_bytes(part, "big") for part in fields[9:])
    signer = eth_keys.Signature(vrs=(v, r, s)).recover_public_key_from_msg_hash(keccak(unsigned))
    return "0x" + keccak(raw).hex(), replace(_parse_evm(unsigned), sender=str(signer.to_checksum_address()))


# ---- reading what is to be signed ------------------------------------------------------------------------------


def _parse_simulated(unsigned: bytes) -> Meaning:
    transaction = simulated.decode(unsigned)
    if simulated.encode(transaction) != unsigned:
        raise SigningRefused("the transaction is not in its canonical encoding")
    match transaction.action:
        case simulated.Pay(recipient=recipient, amount=amount):
            contract = ""
        case simulated.TransferToken(contract=contract, recipient=recipient, amount=amount):
            pass
        case _:
            raise SigningRefused("only payments are signed, not calls")
    return Meaning(
        transaction.network, transaction.sender, transaction.nonce, contract, recipient, amount,
        transaction.max_fee * transaction.gas,
    )  # fmt: skip


def _parse_evm(unsigned: bytes) -> Meaning:
    """A type-2 transaction with no access list, that sends coin or calls `transfer(address,uint256)`, nothing else."""
    import rlp
    from eth_utils import to_checksum_address

    if unsigned[:1] != b"\x02":
        raise SigningRefused("only EIP-1559 transactions are signed")
    fields = rlp.decode(unsigned[1:])
    if len(fields) != 9 or fields[8] or len(fields[5]) != 20:
        raise SigningRefused("the transaction is not a plain payment")
    chain, nonce, _, max_fee, gas, _, value, _, _ = (
        0 if isinstance(item, list) else int.from_bytes(item, "big") for item in fields
    )
    target, data = to_checksum_address(fields[5]), fields[7]
    if data == b"":
        contract, recipient, amount = "", target, value
    elif len(data) == 68 and data[:4] == _TRANSFER_SELECTOR and data[4:16] == bytes(12) and value == 0:
        contract, recipient, amount = target, to_checksum_address(data[16:36]), int.from_bytes(data[36:], "big")
    else:
        raise SigningRefused("the call is not a token transfer")
    return Meaning(str(chain), "", nonce, contract, recipient, amount, max_fee * gas)


def _sign_evm(unsigned: bytes, key: bytes) -> Signed:
    import rlp
    from eth_keys import keys as eth_keys
    from eth_utils import keccak

    signature = eth_keys.PrivateKey(key).sign_msg_hash(keccak(unsigned))
    fields = rlp.decode(unsigned[1:])
    signed = b"\x02" + rlp.encode([*fields, *(_quantity(part) for part in (signature.v, signature.r, signature.s))])
    return Signed("0x" + keccak(signed).hex(), signed)


def _quantity(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


# ---- the keystore ----------------------------------------------------------------------------------------------


def create_keystore(path: Path, passphrase: str | None, *, seed: bytes | None = None) -> None:
    """Write a new keystore, mode 0600: AES-256-GCM under scrypt, or in clear for a devnet without a passphrase."""
    seed = seed or secrets.token_bytes(64)
    if passphrase is None:
        body: dict[str, object] = {"version": 1, "kdf": "none", "seed": _text(seed)}
    else:
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        sealed = AESGCM(_stretch(passphrase, salt, _SCRYPT)).encrypt(nonce, seed, _CONTEXT)
        body = {"version": 1, "kdf": "scrypt", **_SCRYPT, "salt": _text(salt), "nonce": _text(nonce),
                "sealed": _text(sealed)}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())


def _open_keystore(path: Path, passphrase: str | None) -> bytes:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PermissionError(f"{path}: others may read it; make it mode 0600")
    body = json.loads(path.read_text(encoding="utf-8"))
    if body.get("version") != 1:
        raise ValueError(f"{path}: keystore version {body.get('version')}, this program reads 1")
    if body["kdf"] == "none":
        return base64.b64decode(body["seed"])
    if passphrase is None:
        raise ValueError(f"{path}: the keystore is encrypted and no passphrase was given")
    cost = {name: int(body[name]) for name in ("n", "r", "p")}
    key = _stretch(passphrase, base64.b64decode(body["salt"]), cost)
    try:
        return AESGCM(key).decrypt(base64.b64decode(body["nonce"]), base64.b64decode(body["sealed"]), _CONTEXT)
    except InvalidTag:
        raise ValueError(f"{path}: wrong passphrase, or the file was changed") from None


def _stretch(passphrase: str, salt: bytes, cost: Mapping[str, int]) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost["n"], r=cost["r"], p=cost["p"]).derive(passphrase.encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
