"""The whole ladder by itself: gaps over a crowd, on thick and on empty books, with and without providers and funds.

Whatever absorbs what, nothing is lost, nobody healthy is pushed under by ADL, and it ends.   [L-1 … L-10, A-13]
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import margin
from engine.commands import BorrowLend, LendingSide, OrderType, PlaceOrder, RegisterBackstop, UpdateAccount
from engine.events import LossShared
from engine.parameters import RATE_SCALE
from ledger.journal import JournalKind
from tests.engine.desk import ASK, BID
from tests.engine.ladder import Arena, Member, is_whole
from tests.engine.perps import USDC

USD = 10**8
KINDS = (JournalKind.BACKSTOP, JournalKind.ADL, JournalKind.LOSS_SHARED, JournalKind.INSURANCE, JournalKind.WRITE_OFF)

TRADER = st.tuples(
    st.integers(200, 6_000),
    st.integers(50, 4_000),
    st.booleans(),
    st.sampled_from(("usdc", "sol", "virtual", "lends", "owes")),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TRADER, min_size=2, max_size=7),
    st.lists(st.sampled_from((-90, -60, -30, -12, -4, 5, 20, 70, 140)), min_size=1, max_size=4),
    st.sampled_from(("empty", "thin", "thick")),
    st.sampled_from((0, 300, 20_000)),
    st.sampled_from((0, 4_000, 10**6)),
)
def test_the_ladder_ends_and_loses_nothing(
    traders: list[tuple[int, int, bool, str]], gaps: list[int], book: str, funds: int, capacity: int
) -> None:
    pit, maker, members = crowd(traders, funds, capacity)
    price = 150
    for gap in gaps:
        price = max(2, price * (100 + gap) // 100)
        pit.price(price)
        if book != "empty":
            quote(maker, price, 100 if book == "thin" else 30_000)
        for _second in range(25):
            for outcome in pit.exchange.advance(1):
                kinds = {entry.kind for entry in outcome.journal}
                assert not any(event.per_lot < 0 for event in outcome.events if isinstance(event, LossShared)), kinds
        assert is_whole(pit)
        for member in members:
            found = member.sums()
            known = member.subaccount in pit.state.liquidations
            assert known or not found.is_in_liquidation, (member.subaccount, found)
    stuck = {number: pit.state.subaccounts[number] for number in pit.state.liquidations}
    for number, account in stuck.items():
        # Only what nobody buys and nobody owes may wait: no position is left open in it with nothing behind.
        assert not any(held.lots for held in account.positions.values()) or margin.realizable(
            pit.state, account, pit.exchange.at_us
        ) > 0, number


def crowd(traders: list[tuple[int, int, bool, str]], funds: int, capacity: int) -> tuple[Arena, Member, list[Member]]:
    """Traders with up to 20 times leverage against a rich one, who lends USDC and SOL as well."""
    pit = Arena()
    if funds:
        pit.insure(funds)
    rich = pit.member("rich", 10**6, SOL=10**13)
    sol = pit.exchange.asset("SOL")
    rich.does(BorrowLend(rich.subaccount, sol, LendingSide.LEND, 5 * 10**12))
    rich.does(BorrowLend(rich.subaccount, pit.state.usdc, LendingSide.LEND, 10**5 * USDC))
    maker = pit.member("maker", 10**6, SOL=10**13)
    members = [rich, maker]
    if capacity:
        provider = pit.member("provider", 200_000)
        provider.does(RegisterBackstop(provider.subaccount, capacity * USD))
        members.append(provider)
    for number, (dollars, lots, is_long, kind) in enumerate(traders):
        atoms = dollars * 10**9 // 150
        name = f"trader{number}"
        member = pit.member(name, 0, SOL=atoms) if kind == "sol" else pit.member(name, dollars)
        members.append(member)
        member.does(UpdateAccount(member.subaccount, leverage_limit=20 * RATE_SCALE))
        if kind == "virtual":
            member.does(UpdateAccount(member.subaccount, auto_realize_pnl=False))
        if kind == "lends":
            member.does(BorrowLend(member.subaccount, pit.state.usdc, LendingSide.LEND, dollars * USDC * 9 // 10))
        if kind == "owes":
            member.tries(BorrowLend(member.subaccount, sol, LendingSide.BORROW, atoms // 4))
        rich.trade(ASK if is_long else BID, lots, 15_000)
        member.trade(BID if is_long else ASK, lots, 15_000)
        rich.cancels_all()
        member.cancels_all()
    return pit, maker, members


def quote(maker: Member, price: int, lots: int) -> None:
    """A maker's two quotes on the perpetual and on the spot market, a tenth of a dollar from the price."""
    pit = maker.desk
    maker.cancels_all()
    for market in (pit.market, pit.exchange.market("SOL_USDC")):
        for side, ticks in ((BID, price * 100 - 10), (ASK, price * 100 + 10)):
            command = PlaceOrder(maker.subaccount, market, side, OrderType.LIMIT, price_ticks=ticks, lots=lots)
            maker.tries(command)
