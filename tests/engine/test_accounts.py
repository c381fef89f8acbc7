"""Users, keys, subaccounts, transfers, settings, prices, repeats.   [U-1 … U-4, A-5, A-11, P-1, P-3]"""

from __future__ import annotations

from engine.commands import AddKey, OpenSubaccount, RegisterKey, RevokeKey, SetPrices, Transfer, UpdateAccount
from engine.parameters import PRICE_SCALE, RATE_SCALE
from engine.pricing import mark_price
from engine.rejections import RejectReason
from tests.engine.desk import ASK, BID, NEW, Desk, Trader


def reason_of(trader: Trader, command: object) -> RejectReason:
    rejection = trader.tries(command).rejection  # type: ignore[arg-type]
    assert rejection is not None, "accepted"
    return rejection.reason


def second_subaccount(trader: Trader, key: bytes = b"2" * 32) -> int:
    user = trader.desk.state.subaccounts[trader.subaccount].user
    number: int = trader.does(OpenSubaccount(user.user_id, key)).reply.subaccount_id
    return number


def test_a_user_has_at_most_ten_subaccounts_and_each_its_own_balances() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    user = desk.state.subaccounts[anna.subaccount].user
    for number in range(9):
        second_subaccount(anna, bytes([number]) * 32)

    assert len(user.subaccount_ids) == 10
    assert reason_of(anna, OpenSubaccount(user.user_id, b"z" * 32)) is RejectReason.SUBACCOUNT_LIMIT
    usdc = desk.exchange.asset("USDC")
    assert [desk.state.held(number, usdc) for number in user.subaccount_ids] == [10**12] + [0] * 9


def test_new_subaccounts_start_with_the_rule_books_settings() -> None:
    desk = Desk()
    subaccount = desk.state.subaccounts[desk.trader("anna").subaccount]

    assert (subaccount.auto_lend, subaccount.auto_repay_borrows) == (False, False)
    assert (subaccount.auto_borrow_settlements, subaccount.auto_realize_pnl) == (True, True)
    assert subaccount.leverage_limit == 10 * RATE_SCALE


def test_settings_change_one_by_one() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    anna.does(UpdateAccount(anna.subaccount, auto_lend=True))
    anna.does(UpdateAccount(anna.subaccount, leverage_limit=5 * RATE_SCALE))
    subaccount = desk.state.subaccounts[anna.subaccount]

    assert (subaccount.auto_lend, subaccount.leverage_limit, subaccount.auto_realize_pnl) == (
        True,
        5 * RATE_SCALE,
        True,
    )
    assert reason_of(anna, UpdateAccount(anna.subaccount, leverage_limit=0)) is RejectReason.INVALID_LEVERAGE


def test_a_transfer_is_instant_free_and_between_ones_own_subaccounts() -> None:
    desk = Desk()
    anna, bert = desk.trader("anna"), desk.trader("bert")
    target, usdc = second_subaccount(anna), desk.exchange.asset("USDC")
    anna.does(Transfer(anna.subaccount, target, usdc, 10**9))

    assert (anna.has("USDC"), desk.state.held(target, usdc)) == (10**12 - 10**9, 10**9)
    assert desk.is_balanced()
    assert reason_of(anna, Transfer(anna.subaccount, bert.subaccount, usdc, 1)) is RejectReason.NOT_OWNER
    assert reason_of(anna, Transfer(bert.subaccount, anna.subaccount, usdc, 1)) is RejectReason.NOT_OWNER
    assert reason_of(anna, Transfer(anna.subaccount, anna.subaccount, usdc, 1)) is RejectReason.SAME_SUBACCOUNT


def test_what_orders_lock_or_what_is_provisional_is_not_transferred() -> None:
    desk = Desk()
    anna = desk.trader("anna", usdc=3_000_000, sol=0)
    target, usdc = second_subaccount(anna), desk.exchange.asset("USDC")
    anna.buys(1, at=15_000)
    desk.exchange.deposit(anna.subaccount, "USDC", 5_000_000, final=False)

    assert reason_of(anna, Transfer(anna.subaccount, target, usdc, 1_500_001)) is RejectReason.INSUFFICIENT_FUNDS
    anna.does(Transfer(anna.subaccount, target, usdc, 1_500_000))
    assert anna.has("USDC") == 6_500_000


def test_nothing_in_one_subaccount_changes_another() -> None:
    desk = Desk()
    anna, bert = desk.trader("anna"), desk.trader("bert")
    other, usdc = second_subaccount(anna), desk.exchange.asset("USDC")
    desk.exchange.deposit(other, "USDC", 777)
    anna.buys(10, at=15_000)
    bert.sells(10, at=15_000)

    assert desk.state.held(other, usdc) == desk.state.free(other, usdc) == 777
    assert desk.state.subaccounts[other].orders == {}


def test_a_key_signs_for_its_own_subaccount_only() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    other = second_subaccount(anna)
    order = anna.order(BID, 15_000, 1)
    rejection = desk.attempt(order, desk.exchange.signed(b"2" * 32)).rejection

    assert rejection is not None and rejection.reason is RejectReason.NOT_OWNER
    assert rejection.facts["key_of"] == other


def test_keys_are_added_and_revoked_but_never_the_last() -> None:
    desk = Desk()
    anna = desk.trader("anna")

    assert reason_of(anna, RevokeKey(anna.subaccount, anna.key)) is RejectReason.KEY_LIMIT

    anna.does(AddKey(anna.subaccount, b"n" * 32))
    anna.does(RevokeKey(anna.subaccount, b"n" * 32))
    rejection = desk.attempt(anna.order(BID, 15_000, 1), desk.exchange.signed(b"n" * 32)).rejection

    assert rejection is not None and rejection.reason is RejectReason.UNKNOWN_KEY
    assert reason_of(anna, AddKey(anna.subaccount, anna.key)) is RejectReason.KEY_TAKEN


def test_a_command_of_a_user_needs_a_signature() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    rejection = desk.attempt(anna.order(BID, 15_000, 1)).rejection

    assert rejection is not None and rejection.reason is RejectReason.UNSIGNED


def test_a_repeated_request_gets_the_first_answer_and_has_no_second_effect() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    request = desk.exchange.signed(anna.key)
    first = desk.attempt(anna.order(ASK, 15_000, 1), request).reply
    again = desk.attempt(anna.order(ASK, 15_000, 1), request)

    assert first.status is NEW
    assert again.reply == first and again.events == [] and again.journal == []
    assert desk.asks() == [(15_000, 1)]


def test_a_request_is_refused_when_its_window_has_passed_and_forgotten_after_that() -> None:
    desk = Desk()
    anna = desk.trader("anna")
    early = desk.exchange.signed(anna.key, received_ms=1_000, window_ms=5_000)
    desk.attempt(anna.order(ASK, 15_000, 1), early)
    for received in (4_000, 8_000, 12_000):
        desk.attempt(anna.order(ASK, 15_000, 1), desk.exchange.signed(anna.key, received_ms=received))
    rejection = desk.attempt(anna.order(ASK, 15_000, 1), early).rejection

    assert rejection is not None and rejection.reason is RejectReason.REQUEST_EXPIRED
    assert early.api_key + early.signature not in desk.state.requests
    assert len(desk.state.requests) == 2


def test_a_fed_price_stays_live_until_replaced() -> None:
    desk = Desk()
    sol, usdc = desk.exchange.asset("SOL"), desk.exchange.asset("USDC")

    # USDC counts at 1 unless an index is fed.
    assert (mark_price(desk.state, sol), mark_price(desk.state, usdc)) == (0, PRICE_SCALE)

    desk.exchange.do(SetPrices(((sol, 150 * PRICE_SCALE), (usdc, 999 * PRICE_SCALE // 1_000))))
    desk.exchange.at_us += 10**15
    desk.trader("anna").buys(1, at=15_000)

    assert mark_price(desk.state, sol) == 150 * PRICE_SCALE
    assert mark_price(desk.state, usdc) == 999 * PRICE_SCALE // 1_000


def test_a_devnet_key_may_name_the_user_and_subaccount_it_opens() -> None:
    desk = Desk()
    added = desk.exchange.do(RegisterKey(b"k" * 32, 70, 71)).reply

    assert (added.user_id, added.subaccount_id) == (70, 71)
    assert desk.state.subaccounts[71].user is desk.state.users[70]
