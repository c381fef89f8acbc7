"""Leaves of perpetual traders: gross columns that sum to zero or to the fund, verified by each holder's own proof.

[R-2, R-5, R-6, R-7, C-5, S-13, V-5]
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from api.epochs import continued, image_of, insurance_value
from api.node import balance_totals
from engine import liabilities, margin
from engine.commands import BorrowLend, CancelAllOrders, CloseEpoch, LendingSide, Side, UpdateAccount
from engine.events import EpochClosed, Outcome
from engine.posting import post
from engine.state import State
from ledger.chart import INSURANCE_FUND, contracts, cost, lend_share, lent
from ledger.invariants import RunningTotals
from ledger.journal import JournalKind
from por import verifier
from por.epochs import Epoch, build_epoch
from por.log import Log
from tests.engine.perps import USDC, Member, Pit, cross
from tests.engine.test_liabilities import block_at
from tests.por.samples import MASTER, proof_of

PERP = "SOL_USDC_PERP"


def leaf(state: State, member: Member) -> dict[str, Any]:
    """The columns of one leaf by name, and its detail."""
    names = liabilities.columns(state)
    for number, _user, amounts, detail in liabilities.accounts(state):
        if number == member.subaccount:
            return {**dict(zip(names, amounts, strict=True)), "detail": json.loads(detail)}
    raise KeyError(member.subaccount)


def signed(line: dict[str, Any], column: str) -> int:
    plus, minus = line[f"{column}_plus"], line[f"{column}_minus"]
    assert not (plus and minus), f"{column} has both signs: {plus}, {minus}"
    return int(plus - minus)


def epoch_of(pit: Pit) -> Epoch:
    """Close an epoch and build it, as the node does."""
    pit.exchange.at_us += 1
    event = pit.exchange.do(CloseEpoch(0)).events[-1]
    assert isinstance(event, EpochClosed)
    image = image_of(pit.state, block_at(pit.state.at_us), event)
    return build_epoch(continued(image, None), None, MASTER)


@pytest.fixture
def pit() -> Pit:
    return Pit()


def test_a_leaf_shows_both_sides_of_a_trade_gross(pit: Pit) -> None:
    """[R-2, C-5] Ten SOL bought at 151 while the mark is 150, before any tick."""
    anna, bob = pit.member("anna", 10_000), pit.member("bob", 10_000)
    cross(anna, bob, 1_000, 15_100)

    long, short = leaf(pit.state, anna), leaf(pit.state, bob)

    assert (long[f"{PERP}.long"], long[f"{PERP}.short"]) == (10 * 10**9, 0)
    assert (short[f"{PERP}.long"], short[f"{PERP}.short"]) == (0, 10 * 10**9)
    assert signed(long, f"{PERP}.cost") == -1_510 * USDC and signed(short, f"{PERP}.cost") == 1_510 * USDC
    assert signed(long, f"{PERP}.pnl") == -10 * USDC and signed(short, f"{PERP}.pnl") == 10 * USDC
    assert long["detail"]["positions"][PERP]["entry"] == str(1_510 * USDC)
    for member, line in ((anna, long), (bob, short)):
        assert signed(line, "net_equity") == member.sums().equity
        assert line["maintenance_margin"] == member.sums().maintenance > 0


def test_a_tick_makes_pnl_cash_and_cost_the_position_at_its_mark(pit: Pit) -> None:
    """[S-10, C-5]"""
    anna, bob = pit.member("anna", 10_000), pit.member("bob", 10_000)
    cross(anna, bob, 1_000, 15_100)
    before = leaf(pit.state, anna)

    pit.exchange.advance(10)
    line = leaf(pit.state, anna)

    assert signed(line, f"{PERP}.pnl") == 0
    assert signed(line, f"{PERP}.cost") == -1_000 * pit.book_market.mark_lot
    assert line["USDC.available"] == before["USDC.available"] - 10 * USDC


def traded(pit: Pit, seed: int) -> list[Member]:
    """Traders in both modes, one who lends the pool, prices that move, ticks, closes."""
    random = Random(seed)
    bank = pit.member("bank", 2_000_000)
    bank.does(BorrowLend(bank.subaccount, pit.state.usdc, LendingSide.LEND, 1_000_000 * USDC))
    members = [pit.member(f"member {number}", random.randrange(3_000, 9_000)) for number in range(6)]
    for member in members[:3]:
        member.does(UpdateAccount(member.subaccount, auto_realize_pnl=False))
    price = 150.0
    for _step in range(12):
        buyer, seller = random.sample(members, 2)
        cross(buyer, seller, random.randrange(1, 300), round(price * 100) + random.randrange(-20, 20))
        price = round(price * (1 + random.uniform(-0.01, 0.01)), 2)
        pit.price(price)
        pit.exchange.advance(random.choice((1, 10, 31)))
    cross(members[4], members[5], 17, round(price * 100))
    return [bank, *members]


@pytest.mark.parametrize("seed", range(6))
def test_an_epoch_of_any_trading_balances_and_everybody_verifies_it(seed: int) -> None:
    """Longs are shorts, costs and PnL zero but for roundings, claims the fund's; nine proofs.   [R-6, V-5]"""
    pit = Pit()
    members = traded(pit, seed)
    epoch = epoch_of(pit)
    header, state = epoch.header, pit.state

    assert RunningTotals(balance_totals(state)).violations() == []
    line = next(each for each in header.markets if each.market == PERP)
    assert header.total(f"{PERP}.long") == header.total(f"{PERP}.short") > 0
    assert line.winners + line.losers > 0 and line.mark == pit.book_market.mark_lot
    log = Log([epoch.header])
    for member in members:
        report, _ = verifier.verify(proof_of(log, epoch, member.subaccount))
        assert any("longs are shorts" in each for each in report)
        shown = leaf(state, member)
        claims = sum(signed(shown, f"{each.market}.claim") for each in header.markets)
        assert claims == margin.claims_atoms(state, member.account, state.at_us)
        assert signed(shown, "net_equity") == member.sums().equity


def test_the_price_set_has_the_perps_marks_and_the_parameters_its_margins(pit: Pit) -> None:
    """[R-5] Every price and parameter that net equity follows from is committed to."""
    anna, bob = pit.member("anna", 10_000), pit.member("bob", 10_000)
    cross(anna, bob, 100, 15_000)
    epoch = epoch_of(pit)

    prices = {line["asset"]: line["price"] for line in json.loads(epoch.prices)}
    margins = json.loads(epoch.parameters)[PERP]

    assert prices[PERP] == str(pit.book_market.mark)
    assert margins["mmfBase"] == str(pit.book_market.parameters.perpetual.mmf_base)  # type: ignore[union-attr]
    assert (margins["base"], margins["quote"], margins["lot"]) == ("SOL", "USDC", str(10**7))


def test_the_epoch_has_the_ledgers_own_sums(pit: Pit) -> None:
    """[A-2, R-6] The header's costs are those of the position accounts; contracts sum to nothing."""
    anna, bob = pit.member("anna", 10_000), pit.member("bob", 10_000)
    cross(anna, bob, 100, 15_010)
    totals = balance_totals(pit.state)
    epoch = epoch_of(pit)

    market = pit.market
    assert not any(atoms for (_kind, asset), atoms in totals.items() if asset == contracts(market))
    users = sum(atoms for (kind, asset), atoms in totals.items() if asset == cost(market) and kind == 20)
    assert next(each for each in epoch.header.markets if each.market == PERP).cost == users == 0


def crashed(seed: int, gap: float) -> tuple[Pit, list[Member]]:
    """Traders at high leverage in both modes, lenders and borrowers of SOL and USDC, a gap on a thin book, a minute of
    the ladder."""
    random = Random(seed)
    pit = Pit()
    bank = pit.member("bank", 300_000, SOL=500 * 10**9)
    for asset, atoms in ((pit.state.usdc, 200_000 * USDC), (pit.base, 400 * 10**9)):
        bank.does(BorrowLend(bank.subaccount, asset, LendingSide.LEND, atoms))
    members = [pit.member(f"member {number}", random.randrange(2_000, 4_000)) for number in range(8)]
    for member in members[:3]:
        member.does(UpdateAccount(member.subaccount, auto_realize_pnl=False))
    for member in members[3:5]:
        member.does(BorrowLend(member.subaccount, pit.base, LendingSide.BORROW, random.randrange(5, 14) * 10**9))
    members[7].does(UpdateAccount(members[7].subaccount, auto_lend=True))
    for _trade in range(10):
        buyer, seller = random.sample(members, 2)
        lots = random.randrange(100, 9_000)
        if seller.trade(Side.ASK, lots, 15_000).rejection is None:
            buyer.trade(Side.BID, lots, 15_000)
        for each in (buyer, seller):
            each.tries(CancelAllOrders(each.subaccount))
    pit.exchange.advance(20)
    bank.trade(Side.BID, 700, round(15_000 * (1 + gap)) or 1)
    pit.price(150 * (1 + gap))
    pit.exchange.advance(61)
    return pit, [bank, *members]


@pytest.mark.parametrize("gap", [-0.6, -0.3, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_an_epoch_after_a_gap_balances_and_everybody_verifies_it(seed: int, gap: float) -> None:
    """Whatever the ladder did: bankrupt accounts, the fund's holdings, holes, what waits, is all in it.   [R-6, R-7]"""
    pit, members = crashed(seed, gap)
    epoch = epoch_of(pit)

    assert RunningTotals(balance_totals(pit.state)).violations() == []
    assert epoch.header.pool_holes == {
        pit.state.assets[asset_id].symbol: atoms for asset_id, atoms in pit.state.holes.items()
    }
    kinds = {entry.kind for outcome in pit.exchange.outcomes for entry in outcome.journal}
    assert JournalKind.LIQUIDATION_STARTED in kinds
    log = Log([epoch.header])
    for member in members:
        verifier.verify(proof_of(log, epoch, member.subaccount))
        shown, sums = leaf(pit.state, member), member.sums()
        assert (signed(shown, "net_equity"), shown["maintenance_margin"]) == (sums.equity, sums.maintenance)


def test_what_the_insurance_fund_was_left_with_of_a_loan_is_its_own_and_worth_something(pit: Pit) -> None:
    """[L-8, R-7] Shares that pass to the fund are no user's claim any more; they cover deficits."""
    bank = pit.member("bank", 1_000)
    bank.does(BorrowLend(bank.subaccount, pit.state.usdc, LendingSide.LEND, 600 * USDC))
    share, passed = lend_share(pit.state.usdc), 200 * USDC * 10**9
    before = insurance_value(pit.state)
    outcome = Outcome(pit.state.sequence, pit.exchange.at_us)
    legs = [(lent(bank.subaccount), share, passed), (INSURANCE_FUND, share, -passed)]
    post(pit.state, outcome, JournalKind.COLLATERAL_TAKEN, (), legs)

    epoch = epoch_of(pit)

    assert insurance_value(pit.state) - before == 200 * 10**8 == epoch.header.insurance_atoms - before
    assert epoch.header.total("USDC.lent") == 400 * USDC
    verifier.verify(proof_of(Log([epoch.header]), epoch, bank.subaccount))
