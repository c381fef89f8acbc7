"""The insurance fund, and what becomes of a loss that not even it can pay.   [L-5, L-6, S-13]"""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import deleveraging, insurance, losses, snapshot, standings
from engine.commands import FundCustody, FundInsurance, OrderType, PlaceOrder, Side
from engine.events import LiquidationChanged, LossShared, Outcome, SettlementMoved
from engine.posting import post
from engine.rejections import RejectReason
from engine.state import Liquidation
from ledger.chart import OPERATOR_EQUITY, ROUNDING_UNSETTLED, unsettled
from ledger.journal import JournalKind
from tests.engine.ladder import Arena, Member, cross, entries, is_whole, parts
from tests.engine.perps import USDC, Pit
from tests.engine.test_deleveraging import squeezed


def test_the_operator_moves_own_usdc_into_the_fund() -> None:
    pit = Arena()
    pit.exchange.do(FundCustody(1, "own", 0, pit.exchange.asset("USDC"), 700 * USDC))
    before = pit.insurance

    pit.exchange.do(FundInsurance(500 * USDC))

    assert pit.insurance - before == 500 * USDC
    assert pit.balance(OPERATOR_EQUITY, "USDC") == -200 * USDC
    refused = pit.exchange.attempt(FundInsurance(201 * USDC)).rejection
    assert refused is not None and refused.reason is RejectReason.INVALID_QUANTITY
    assert refused.facts == {"atoms": 201 * USDC, "operator_equity": 200 * USDC}
    assert is_whole(pit)


def test_only_an_operator_funds_it() -> None:
    pit = Pit()
    key = pit.member("user", 10).key

    refused = pit.exchange.attempt(FundInsurance(1), pit.exchange.signed(key)).rejection

    assert refused is not None and refused.reason is RejectReason.UNKNOWN_KEY


def indebted(sol: int = 0) -> tuple[Arena, Member, Member]:
    """A long of 100 SOL that sold out at 130 with 1,600 USDC behind it: about 400 are lacking, in its cost."""
    pit = Arena()
    long, short = pit.member("long", 1_600, **({"SOL": sol} if sol else {})), pit.member("short", 100_000)
    cross(long, short, 10_000, 15_000)
    maker = pit.member("maker", 100_000)
    pit.price(130)
    held = long.position
    assert held is not None
    pit.state.liquidations[long.subaccount] = Liquidation(0, sides={pit.market: 1})
    outcome = outcome_of(pit)
    frozen = deleveraging.freeze(pit.state, long.account, outcome.at_us)
    standings.put(pit.state, outcome, long.account, JournalKind.ADL, standings.Moment.FROZEN)
    deleveraging._fill(pit.state, outcome, held, short.account, 10_000, 130 * 10**4, frozen, True)
    cross(maker, short, 1_000, 13_000)
    return pit, long, short


def outcome_of(pit: Arena) -> Outcome:
    outcome = Outcome(pit.state.sequence, pit.exchange.at_us)
    pit.exchange.outcomes.append(outcome)
    return outcome


def lacks(pit: Arena, member: Member) -> int:
    return -insurance.own_usdc(pit.state, member.account, pit.exchange.at_us)


def test_the_fund_pays_what_an_account_without_position_lacks() -> None:
    pit, long, _short = indebted()
    pit.insure(1_000)
    lacking, funds = lacks(pit, long), pit.insurance

    is_done, outcome = pit.step(insurance.finish, long)

    assert is_done and lacks(pit, long) == 0
    assert funds - pit.insurance == lacking > 400 * USDC
    (entry,) = entries(outcome, JournalKind.INSURANCE)
    assert entry.memo[:3] == (long.subaccount, "remainder", lacking)
    (told,) = parts(outcome, LiquidationChanged)
    assert (told.stage, told.quantity, told.equity_after_usd) == ("insurance", lacking, 0)
    assert is_whole(pit)


def test_what_the_fund_lacks_the_opposite_side_bears_while_the_cost_is_not_settled() -> None:
    pit, long, short = indebted()
    lacking, funds = lacks(pit, long), pit.insurance
    before = short.sums().equity

    is_done, outcome = pit.step(insurance.finish, long)

    assert is_done and lacks(pit, long) == 0 and pit.insurance == 0
    (shared,) = parts(outcome, LossShared)
    assert (shared.is_long_side, shared.atoms) == (False, lacking - funds)
    assert before - short.sums().equity == shared.atoms * 100
    assert is_whole(pit)


def test_crumbs_pass_to_the_fund_and_collateral_waits_for_a_buyer() -> None:
    """Under a lot of SOL is the fund's to sell; a lot or more is the account's to sell first.   [L-5, S-12]"""
    pit, long, _short = indebted(sol=9_999_999)
    pit.insure(1_000)
    sol = pit.exchange.asset("SOL")

    is_done, outcome = pit.step(insurance.finish, long)

    assert is_done and long.has("SOL") == 0 and pit.state.taken == {sol: 9_999_999}
    assert entries(outcome, JournalKind.COLLATERAL_TAKEN)[0].memo[1:5] == ("crumbs", 0, sol, 9_999_999)
    assert is_whole(pit)

    pit, long, _short = indebted(sol=10_000_000)
    pit.insure(1_000)
    is_done, outcome = pit.step(insurance.finish, long)
    assert not is_done and long.has("SOL") == 10_000_000 and not outcome.journal


def test_an_account_that_owes_nothing_keeps_its_crumbs() -> None:
    pit, long, _short = indebted(sol=9_999)
    pit.exchange.deposit(long.subaccount, "USDC", 10_000 * USDC)

    is_done, outcome = pit.step(insurance.finish, long)

    assert is_done and not outcome.journal and long.has("SOL") == 9_999


def test_a_loss_of_nobody_is_written_off_what_winners_wait_for() -> None:
    """From the gap to the end by itself: no fund, no shorts left, so winners get that much less.   [L-5, S-13]"""
    pit, long, weak, _short = squeezed(0)
    fund = pit.insurance
    ran = [outcome for _second in range(20) for outcome in pit.exchange.advance(1)]

    assert long.lots == weak.lots == 0
    (written,) = (entry for outcome in ran for entry in entries(outcome, JournalKind.WRITE_OFF))
    assert written.memo[0] == long.subaccount and written.memo[1] > 100 * USDC
    assert pit.insurance == 0 <= fund
    assert not pit.state.liquidations and not pit.state.unsettled
    assert is_whole(pit)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=6),
    st.integers(-(10**6), 10**6),
    st.integers(1, 2 * 10**9),
)
def test_a_write_off_is_pro_rata_and_leaves_the_sum_of_unsettled_equity_at_zero(
    waiting: list[int], rounding: int, atoms: int
) -> None:
    """Each bears its part rounded down, rounding what that leaves; nobody more than it waits for.   [L-5]"""
    pit = Arena()
    loser = pit.member("loser", 1)
    winners = [pit.member(f"winner{number}", 1) for number in range(len(waiting))]
    owing = sum(waiting) + rounding
    if owing <= 0:
        return
    usdc = pit.state.usdc
    postings = [(unsettled(member.subaccount), usdc, -held) for member, held in zip(winners, waiting, strict=True)]
    postings += [(unsettled(loser.subaccount), usdc, owing)]
    if rounding:
        postings += [(ROUNDING_UNSETTLED, usdc, -rounding)]
    post(pit.state, outcome_of(pit), JournalKind.SETTLEMENT, (), postings)
    total = sum(waiting) + max(0, rounding)

    written, outcome = pit.step(lambda state, out, each: losses.write_off(state, out, each, atoms), loser)

    assert written == min(atoms, owing)
    assert loser.account.unsettled == written - owing
    for member, held in zip(winners, waiting, strict=True):
        assert held - member.account.unsettled == held * written // total
    told = {event.subaccount_id: event.atoms for event in parts(outcome, SettlementMoved)}
    assert told[loser.subaccount] == written
    assert is_whole(pit)


def test_what_the_fund_took_is_sold_at_a_tick_and_fills_its_purse() -> None:
    """Within the bounds of S-12 (4) only: a bid of half the price buys nothing.   [L-7, S-12]"""
    pit, long, _short = indebted(sol=9_999_999)
    pit.insure(1_000)
    pit.step(insurance.finish, long)
    sol = pit.exchange.asset("SOL")
    crumbs = pit.member("crumbs", 100, SOL=990_000_001)
    pit.step(lambda state, out, each: insurance.move(state, out, each, "crumbs", 0, sol, 990_000_001), crumbs)
    pit.state.liquidations.clear()
    pit.state.liquidation_due_us = 0
    buyer, funds = pit.member("buyer", 1_000), pit.insurance
    spot = pit.exchange.market("SOL_USDC")
    bid = PlaceOrder(buyer.subaccount, spot, Side.BID, OrderType.LIMIT, price_ticks=6_500, lots=500)
    buyer.does(bid)
    ran = pit.exchange.advance(10)
    assert pit.state.taken == {sol: 10**9} and pit.insurance == funds
    assert not any(entries(outcome, JournalKind.INSURANCE) for outcome in ran)

    buyer.does(msgspec.structs.replace(bid, price_ticks=12_900, lots=80))
    pit.exchange.advance(10)

    assert pit.state.taken == {sol: 2 * 10**8}
    assert pit.insurance - funds == 103_200_000 - 103_200
    assert pit.state.held(0, sol) == pit.state.held(0, pit.state.usdc) == 0
    assert snapshot.dump(snapshot.load(snapshot.dump(pit.state))) == snapshot.dump(pit.state)
    assert is_whole(pit)
