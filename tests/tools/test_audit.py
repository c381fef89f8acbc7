"""A-5: what a user signed is what was done; whatever an operator slips in is found, and named by its command."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine import transition
from engine.commands import CancelAllOrders, ClockMode, RegisterKey, SetClock, SetPrices
from ledger.signing import Signer
from ledger.store import Store
from tests.tools.conftest import Satchel
from tests.tools.sample import ALICE, BOB, MALLORY, OPERATOR, Exchange, trade
from tools.audit import Audit, Finding, read_user_keys

Forgery = Callable[[Exchange], Awaitable[None]]

BUY = {"symbol": "SOL_USDC", "side": "Bid", "orderType": "Limit", "price": "90", "quantity": "1"}


def found(data: Path, forge: Forgery | None = None, keys: dict[int, frozenset[bytes]] | None = None) -> list[Finding]:
    """What an audit says of the sample log with a forgery at its end."""

    async def run() -> list[Finding]:
        exchange = await Exchange(data).open()
        await trade(exchange)
        if forge is not None:
            await forge(exchange)
        audit = Audit(Store(exchange.engine), keys)
        for _ in audit.run():
            pass
        await exchange.close()
        return audit.findings

    return asyncio.run(run())


def test_an_honest_log_is_clean(tmp_path: Path) -> None:
    keys = {1: frozenset({ALICE.public_key}), 2: frozenset({BOB.public_key})}

    assert found(tmp_path / "own") == []
    assert found(tmp_path / "given", keys=keys) == []


def test_a_command_without_a_signature_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator runs an engine that does not ask for a signature; ours, replaying, does."""

    async def forge(exchange: Exchange) -> None:
        with monkeypatch.context() as operators_engine:
            operators_engine.setattr(transition, "_require_authority", lambda *_: None)
            await exchange.bring(exchange.derived(ALICE, "orderExecute", BUY))

    findings = found(tmp_path, forge)

    assert [one.command for one in findings] == [14, 14]
    assert "no user's signature" in findings[0].reason
    assert "outcome of command 14" in findings[1].reason


def test_a_signature_by_another_key_is_found(tmp_path: Path) -> None:
    async def forge(exchange: Exchange) -> None:
        genuine = exchange.request(MALLORY, "orderExecute", BUY)
        await exchange.bring(exchange.derived(ALICE, "orderExecute", BUY), genuine._replace(api_key=ALICE.public_key))

    (finding,) = found(tmp_path, forge)

    assert finding.command == 14
    assert "is not key" in finding.reason


def test_an_altered_payload_is_found(tmp_path: Path) -> None:
    """Alice signed for one SOL at 90; the log has her buying three."""

    async def forge(exchange: Exchange) -> None:
        altered = exchange.derived(ALICE, "orderExecute", {**BUY, "quantity": "3"})
        await exchange.bring(altered, exchange.request(ALICE, "orderExecute", BUY))

    (finding,) = found(tmp_path, forge)

    assert (finding.command, finding.kind, finding.user_id) == (14, "PlaceOrder", 1)
    assert "the signed text asks for" in finding.reason


def test_another_command_than_the_signed_one_is_found(tmp_path: Path) -> None:
    async def forge(exchange: Exchange) -> None:
        subaccount_id = exchange.subaccounts[ALICE.public_key][1]
        await exchange.bring(CancelAllOrders(subaccount_id), exchange.request(ALICE, "orderExecute", BUY))

    (finding,) = found(tmp_path, forge)

    assert finding.kind == "CancelAllOrders"


def test_a_reused_signature_is_found(tmp_path: Path) -> None:
    """A-11: the operator's engine forgets that it has seen the request; ours gives the first answer, without effect."""
    crossing = {**BUY, "price": "102", "quantity": "0.1"}

    async def forge(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", crossing)
        command = exchange.derived(ALICE, "orderExecute", crossing)
        await exchange.bring(command, signed)
        exchange.sequencer.state.requests.clear()
        second = await exchange.bring(command, signed)
        assert second.journal, "the forgery must have an effect"

    (finding,) = found(tmp_path, forge)

    assert finding.command == 15
    assert "command 15" in finding.reason


def test_a_signature_reused_when_the_engine_has_forgotten_it_is_found(tmp_path: Path) -> None:
    """A window that starts anew: the request's times are taken from a clock that the operator turned back."""
    crossing = {**BUY, "price": "102", "quantity": "0.1"}

    async def forge(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", crossing)
        command = exchange.derived(ALICE, "orderExecute", crossing)
        await exchange.bring(command, signed)
        exchange.now_us += 120_000_000
        later = exchange.request(BOB, "orderCancelAll", {"symbol": "SOL_USDC"})
        await exchange.bring(exchange.derived(BOB, "orderCancelAll", {"symbol": "SOL_USDC"}), later)
        assert signed.api_key + signed.signature not in exchange.sequencer.state.requests
        exchange.sequencer.state.wall_ms = 0
        await exchange.bring(command, signed)

    findings = found(tmp_path, forge)

    # 15 sampled the marks of the two minutes.
    assert findings[0].command == 17
    assert "used before, by command 14" in findings[0].reason or "outcome of command 17" in findings[0].reason


def test_a_repeat_that_had_no_second_effect_is_fine(tmp_path: Path) -> None:
    """A-11: a client that sent the same bytes twice did nothing wrong, nor did the exchange."""

    async def repeat(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", BUY)
        for _ in range(2):
            await exchange.bring(exchange.derived(ALICE, "orderExecute", BUY), signed)

    assert found(tmp_path, repeat) == []


def test_a_signature_kept_beyond_its_window_is_found(tmp_path: Path) -> None:
    async def forge(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", BUY)
        await exchange.bring(
            exchange.derived(ALICE, "orderExecute", BUY), signed._replace(received_ms=signed.received_ms - 60_000)
        )

    (finding,) = found(tmp_path, forge)

    assert "not within" in finding.reason


def test_a_timestamp_that_the_text_does_not_have_is_found(tmp_path: Path) -> None:
    async def forge(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", BUY)
        await exchange.bring(
            exchange.derived(ALICE, "orderExecute", BUY), signed._replace(window_ms=signed.window_ms + 1)
        )

    (finding,) = found(tmp_path, forge)

    assert "the signed text others" in finding.reason


def devnet_key(exchange: Exchange) -> Awaitable[None]:
    """POST /dev/v1/keys with Alice's userId: Mallory's key is put on Alice's account and used."""

    async def add() -> None:
        await exchange.register(MALLORY, user_id=1)
        await exchange.ask(MALLORY, "orderExecute", **BUY)

    return add()


def test_a_key_registered_on_a_devnet_is_a_note(tmp_path: Path, satchel: Satchel) -> None:
    """W-9: a devnet registers keys for existing users; without a list of keys nothing says that it should not."""

    async def run() -> None:
        exchange = await Exchange(tmp_path).open()
        await trade(exchange)
        await devnet_key(exchange)
        await exchange.close()

    asyncio.run(run())
    ran = satchel("audit", "--data", tmp_path, "--json")

    assert ran.code == 0, ran.out
    assert ran.json()["findings"] == []
    assert [(one["command"], one["kind"], one["userId"]) for one in ran.json()["notes"]] == [(14, "RegisterKey", 1)]
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"1": [_text(ALICE)], "2": [_text(BOB)]}))
    ran = satchel("audit", "--data", tmp_path, "--keys", keys, "--json")
    assert ran.code == 1
    assert [one["kind"] for one in ran.json()["findings"]] == ["RegisterKey", "PlaceOrder"]
    keys.write_text(json.dumps({"1": [_text(ALICE), _text(MALLORY)], "2": [_text(BOB)]}))
    assert satchel("audit", "--data", tmp_path, "--keys", keys).code == 0


def test_a_key_registered_by_the_operator_is_found_with_all_it_signed(tmp_path: Path) -> None:
    """Mallory's key is put on Alice's account: found from the keys that users gave."""
    given = {1: frozenset({ALICE.public_key}), 2: frozenset({BOB.public_key})}

    assert found(tmp_path / "alone", devnet_key) == []
    against_given = found(tmp_path / "given", devnet_key, given)

    assert [(one.command, one.kind) for one in against_given] == [(14, "RegisterKey"), (15, "PlaceOrder")]
    assert "without a signature of that user's" in against_given[0].reason


def test_outside_a_devnet_such_a_key_is_found_from_the_log_alone(tmp_path: Path) -> None:
    """The operator signs for it with an engine that lets them; it is not theirs to sign, and ours does not."""

    async def run() -> list[Finding]:
        exchange = await Exchange(tmp_path, devnet=False).open()
        for key, user_id in ((ALICE, 0), (MALLORY, 1)):
            registration = RegisterKey(key.public_key, user_id)
            asked = exchange.request(OPERATOR, "keyRegister", {"publicKey": _text(key), "userId": user_id})
            exchange.sequencer.state.devnet = user_id != 0
            outcome = await exchange.bring(registration, asked)
            assert outcome.rejection is None, outcome.rejection
        audit = Audit(Store(exchange.engine), None)
        for _ in audit.run():
            pass
        await exchange.close()
        assert audit.notes == []
        return audit.findings

    reasons = [one.reason for one in asyncio.run(run()) if one.command == 3]

    assert any("without a signature of that user's" in reason for reason in reasons), reasons
    assert any("outcome of command 3" in reason for reason in reasons), reasons


def test_an_order_held_back_by_the_exchange_is_found(tmp_path: Path) -> None:
    """Signed and received now, done six hours later: the window says nothing of it, exchange time does."""

    async def forge(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", BUY)
        command = exchange.derived(ALICE, "orderExecute", BUY)
        exchange.now_us += 6 * 3_600 * 1_000_000
        await exchange.bring(command, signed)

    async def slow(exchange: Exchange) -> None:
        signed = exchange.request(ALICE, "orderExecute", BUY)
        exchange.now_us += 50 * 1_000_000
        await exchange.bring(exchange.derived(ALICE, "orderExecute", BUY), signed)

    (finding,) = [one for one in found(tmp_path / "late", forge) if one.kind == "PlaceOrder"]

    assert finding.user_id == 1
    assert "21599998 ms apart" in finding.reason
    assert found(tmp_path / "slow", slow) == []


@pytest.mark.parametrize("clock", [SetClock(ClockMode.MANUAL, 0), SetClock(ClockMode.REAL, 7_200_000_000)], ids=str)
def test_a_devnet_clock_that_was_moved_says_nothing_of_delays(tmp_path: Path, clock: SetClock) -> None:
    """W-9."""

    async def moved(exchange: Exchange) -> None:
        await exchange.bring(clock)
        exchange.now_us += 3_000_000_000
        await exchange.ask(ALICE, "orderExecute", **BUY)

    assert found(tmp_path, moved) == []


def test_a_key_that_the_user_added_is_fine(tmp_path: Path) -> None:
    async def add(exchange: Exchange) -> None:
        await exchange.ask(ALICE, "keyAdd", publicKey=b64encode(MALLORY.public_key).decode())
        exchange.subaccounts[MALLORY.public_key] = exchange.subaccounts[ALICE.public_key]
        outcome = await exchange.ask(MALLORY, "orderExecute", **BUY)
        assert outcome.rejection is None, outcome.rejection

    assert found(tmp_path, add) == []


def test_a_journal_transaction_that_no_rule_makes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's engine moves Alice's funds to Bob on a price command; replay does not."""

    async def forge(exchange: Exchange) -> None:
        from engine import pricing
        from engine.posting import post
        from ledger.chart import available

        genuine = pricing.set_prices

        def stealing(state: Any, command: Any, outcome: Any) -> Any:
            usdc = next(one.asset_id for one in state.assets.values() if one.symbol == "USDC")
            post(state, outcome, 32, (1, 2), [(available(1), usdc, 5_000_000), (available(2), usdc, -5_000_000)])
            return genuine(state, command, outcome)

        with monkeypatch.context() as operators_engine:
            operators_engine.setattr(pricing, "set_prices", stealing)
            usdc = next(one.asset_id for one in exchange.sequencer.state.assets.values() if one.symbol == "USDC")
            await exchange.bring(SetPrices(((usdc, 10**12),)))

    (finding,) = found(tmp_path, forge)

    assert finding.command == 14
    assert "replay does not follow the log" in finding.reason


def test_the_command_reports_findings_and_exits_1(tmp_path: Path, satchel: Satchel) -> None:
    async def forge() -> None:
        exchange = await Exchange(tmp_path / "node").open()
        await trade(exchange)
        altered = exchange.derived(ALICE, "orderExecute", {**BUY, "quantity": "3"})
        await exchange.bring(altered, exchange.request(ALICE, "orderExecute", BUY))
        await exchange.close()

    asyncio.run(forge())
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"1": [_text(ALICE)], "2": [_text(BOB)]}))
    ran = satchel("audit", "--data", tmp_path / "node", "--keys", keys, "--json")

    assert ran.code == 1
    assert [(one["command"], one["userId"]) for one in ran.json()["findings"]] == [(14, 1)]


def test_a_keys_file_that_is_none_is_exit_2(kept_log: Path, satchel: Satchel, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"1": ["short"]}')
    ran = satchel("audit", "--data", kept_log, "--keys", keys)

    assert ran.code == 2
    assert "next:" in ran.err


def test_keys_are_read_by_user(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"7": [_text(ALICE), _text(BOB)]}))

    assert read_user_keys(keys) == {7: frozenset({ALICE.public_key, BOB.public_key})}


def _text(key: Signer) -> str:
    return b64encode(key.public_key).decode()
