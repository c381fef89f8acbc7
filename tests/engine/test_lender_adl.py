"""Lent collateral that a pool cannot redeem: borrowers give it back for value, and nobody is worth less.   [L-8]"""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from engine import lender_adl, lending, margin
from engine.commands import BorrowLend, LendingSide
from engine.events import LendingMoved, LendingSource, LiquidationChanged
from engine.outcome import Outcome
from engine.state import State, Subaccount
from ledger.journal import JournalKind
from tests.engine.ladder import Arena, Member, entries, is_whole, parts
from tests.engine.perps import USDC

SOL, ETH = 10**9, 10**9


def lends(member: Member, atoms: int, symbol: str = "SOL") -> None:
    member.does(BorrowLend(member.subaccount, member.desk.exchange.asset(symbol), LendingSide.LEND, atoms))


def lent_by(member: Member, symbol: str = "SOL") -> int:
    state = member.state
    return lending.claim(state, member.account, member.desk.exchange.asset(symbol), member.desk.exchange.at_us)


def owed_by(member: Member) -> int:
    return lending.debt(member.state, member.account, member.desk.base, member.desk.exchange.at_us)


def borrows(arena: Arena, member: Member, atoms: int, symbol: str = "SOL") -> None:
    """A loan that nothing but idle bounds."""
    out, into = Outcome(arena.state.sequence, arena.exchange.at_us), lending.Movements()
    asset_id = arena.exchange.asset(symbol)
    lending.borrow(arena.state, out, into, member.account, asset_id, atoms, LendingSource.MANUAL)
    lending.post_alone(arena.state, out, into)
    arena.exchange.outcomes.append(out)


def recovered(arena: Arena, member: Member, atoms: int, symbol: str = "SOL") -> tuple[int, Outcome]:
    asset_id = arena.exchange.asset(symbol)

    def recover(state: State, outcome: Outcome, subaccount: Subaccount) -> int:
        return lender_adl.recover(state, outcome, subaccount, asset_id, atoms)

    return arena.step(recover, member)


def worth(arena: Arena, member: Member) -> int:
    """Everything at mark, in USD (1e-8): each asset by itself, so that roundings show."""
    total = 0
    for line in margin.holdings(arena.state, member.account, arena.exchange.at_us):
        unit = 10 ** arena.state.assets[line.asset_id].decimals
        total += (line.held + line.lent - line.owed) * line.mark // (unit * 10**4)
    return total


def scene(**pockets: int) -> tuple[Arena, Member, Member]:
    """A lender of 20 SOL of which a borrower has all, at 150, and whatever else the borrower has."""
    arena = Arena()
    dollars = pockets.pop("usdc", 0)
    lender, borrower = arena.member("lender", 0, SOL=20 * SOL), arena.member("borrower", dollars, **pockets)
    arena.price(3_000, "ETH")
    lends(lender, 20 * SOL)
    borrows(arena, borrower, 20 * SOL)
    return arena, lender, borrower


def test_idle_is_redeemed_first_and_then_a_borrower_pays_for_what_it_gives_back() -> None:
    arena, lender, borrower = scene(usdc=5_000)
    other = arena.member("other", 0, SOL=2 * SOL)
    lends(other, 2 * SOL)

    found, outcome = recovered(arena, lender, 10 * SOL)

    (entry,) = entries(outcome, JournalKind.LENDER_ADL)
    assert found == 10 * SOL and lent_by(lender) in (10 * SOL, 10 * SOL - 1)
    assert arena.state.held(lender.subaccount, arena.base) == 2 * SOL and lender.usdc == 8 * 150 * USDC
    assert owed_by(borrower) == 12 * SOL and borrower.usdc == 5_000 * USDC - 8 * 150 * USDC
    mark = arena.state.marks[arena.base]
    assert entry.memo[:5] == (arena.base, lender.subaccount, borrower.subaccount, 8 * SOL, mark)
    assert entry.memo[5] == 8 * 150 * USDC
    sources = [(each.subaccount_id, each.source) for each in parts(outcome, LendingMoved)][-2:]
    assert sources == [
        (lender.subaccount, LendingSource.LIQUIDATION_ADL), (borrower.subaccount, LendingSource.ADL_PROVIDER),
    ]  # fmt: skip
    assert [each.stage for each in parts(outcome, LiquidationChanged)] == ["lender_adl"]
    now = lending.totals(arena.state, arena.state.pools[arena.base], arena.exchange.at_us)
    assert now.idle == 0 and is_whole(arena)


def test_a_borrower_pays_with_cash_then_with_lent_usdc_as_shares_then_in_kind() -> None:
    arena, lender, borrower = scene(usdc=500, ETH=2 * ETH)
    lends(borrower, 200 * USDC, "USDC")

    found, outcome = recovered(arena, lender, 10 * SOL)

    (entry,) = entries(outcome, JournalKind.LENDER_ADL)
    eth = arena.exchange.asset("ETH")
    # 1,500 dollars: 300 available, 200 lent, 1,000 in ETH at 3,000.
    assert found == 10 * SOL and entry.memo[6:8] == (300 * USDC, 200 * USDC)
    assert [(asset, atoms, is_lent) for asset, atoms, _mark, is_lent in entry.memo[8]] == [(eth, -(-ETH // 3), 0)]
    assert lender.usdc == 300 * USDC and lent_by(lender, "USDC") == 200 * USDC
    assert arena.state.held(lender.subaccount, eth) == -(-ETH // 3)
    assert is_whole(arena)


def test_the_largest_debt_is_asked_first_and_nobody_in_liquidation() -> None:
    arena, lender, big = scene(usdc=5_000)
    small, sick = arena.member("small", 5_000), arena.member("sick", 5_000)
    other = arena.member("other", 0, SOL=30 * SOL)
    lends(other, 30 * SOL)
    borrows(arena, small, 5 * SOL)
    borrows(arena, sick, 25 * SOL)
    assert lender_adl.borrowers(arena.state, arena.base) == [sick.subaccount, big.subaccount, small.subaccount]
    arena.step(lambda _state, _outcome, _account: None, sick)

    found, outcome = recovered(arena, lender, 20 * SOL)

    met = [entry.memo[2] for entry in entries(outcome, JournalKind.LENDER_ADL)]
    assert found in (20 * SOL, 20 * SOL - 1) and met[0] == big.subaccount and sick.subaccount not in met
    assert owed_by(sick) == 25 * SOL


def test_who_cannot_pay_gives_back_what_it_can_pay_for() -> None:
    arena, lender, borrower = scene(usdc=450)

    found, outcome = recovered(arena, lender, 20 * SOL)

    # 450 dollars buy three; what it owes else is covered by what it holds.
    assert found == 3 * SOL and borrower.usdc == 0 and owed_by(borrower) == 17 * SOL
    assert entries(outcome, JournalKind.LENDER_ADL) and is_whole(arena)


def test_usdc_is_not_recovered_this_way() -> None:
    arena = Arena()
    lender, borrower = arena.member("lender", 1_000), arena.member("borrower", 0, SOL=100 * SOL)
    lends(lender, 1_000 * USDC, "USDC")
    borrows(arena, borrower, 1_000 * USDC, "USDC")

    assert recovered(arena, lender, 500 * USDC, "USDC")[0] == 0


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    st.lists(st.tuples(st.integers(1, 10**10), st.integers(0, 3_000), st.integers(0, 10**9), st.booleans()),
             min_size=1, max_size=3),
    st.integers(1, 3 * 10**10),
    st.integers(20, 900),
    st.integers(0, 3_600),
)
def test_nobodys_worth_changes_and_no_borrower_comes_nearer_to_liquidation(
    loans: list[tuple[int, int, int, bool]], wanted: int, price: int, wait: int
) -> None:
    arena = Arena()
    arena.price(3_000, "ETH")
    step = arena.state.assets[arena.base].step_atoms
    total = sum(atoms for atoms, *_rest in loans) // step * step + step * 3
    lender = arena.member("lender", 0, SOL=total)
    lends(lender, total)
    others = []
    for n, (atoms, dollars, ether, is_lent) in enumerate(loans):
        each = arena.member(f"b{n}", dollars, ETH=ether + 1)
        borrows(arena, each, atoms)
        if is_lent and dollars:
            lends(each, dollars * USDC // 2, "USDC")
        others.append(each)
    arena.price(price)
    arena.exchange.advance(wait)
    everybody = (lender, *others)
    before = {each.subaccount: worth(arena, each) for each in everybody}
    sums = {each.subaccount: each.sums() for each in others}

    found, outcome = recovered(arena, lender, wanted)

    at_us = arena.exchange.at_us
    for each in everybody:
        # An atom of whatever changed hands: of ETH it is 300 of these.
        assert abs(worth(arena, each) - before[each.subaccount]) <= 1_000 * (len(others) if each is lender else 1)
    for each in others:
        after = margin.sums(arena.state, each.account, at_us)
        was = sums[each.subaccount]
        if (each.subaccount in arena.state.liquidations) or after == was:
            continue
        assert not after.is_in_liquidation
        assert after.maintenance * was.equity <= was.maintenance * after.equity + was.maintenance * 1_000
    now = lending.totals(arena.state, arena.state.pools[arena.base], at_us)
    assert now.idle >= 0 and is_whole(arena)
    assert found <= wanted + 1 and len(entries(outcome, JournalKind.LENDER_ADL)) <= len(others)
