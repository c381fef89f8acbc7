"""Leaves of lenders and borrowers: claims and debts within dust of the pool, values as margins see them.

[R-2, R-6, R-7, B-4, C-3, M-6]
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from api.epochs import continued, image_of
from api.node import balance_totals
from engine import liabilities, margin
from engine.commands import (
    BorrowLend,
    CloseEpoch,
    LendingSide,
    OrphanDeposit,
    ReceiveYield,
    ReverseDeposit,
    SetPrices,
)
from engine.events import EpochClosed
from engine.parameters import PRICE_SCALE
from engine.state import ASSET_BITS, State
from ledger.blocks import Block, BlockHeader
from ledger.chart import POOL_FEES, AccountKind, account_id
from ledger.invariants import RunningTotals
from ledger.journal import JournalKind
from por import verifier
from por.epochs import build_epoch
from por.log import Log
from tests.engine.desk import ASK, Desk, Trader
from tests.por.samples import MASTER, proof_of

SOL, USDC = 10**9, 10**6
STEP = 10**5
"""SOL is lent and borrowed in multiples of this."""
DAY = 86_400


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    prices(desk, SOL=150, ETH=3_000, BTC=60_000, USDT=1)
    return desk


def prices(desk: Desk, **dollars: int) -> None:
    asset = desk.exchange.asset
    desk.exchange.do(SetPrices(tuple((asset(symbol), usd * PRICE_SCALE) for symbol, usd in dollars.items())))


def yields(desk: Desk, atoms: int, tx_id: str) -> None:
    desk.exchange.do(ReceiveYield(desk.exchange.asset("SOL"), 1, atoms, tx_id, "staking"))


def moves(trader: Trader, side: LendingSide, symbol: str, atoms: int) -> bool:
    """Lend or borrow by hand; whether it was accepted."""
    command = BorrowLend(trader.subaccount, trader.desk.exchange.asset(symbol), side, atoms)
    return trader.tries(command).rejection is None


def lines(state: State) -> dict[int, dict[str, Any]]:
    """Subaccount → its leaf's columns by name, and its detail."""
    names = liabilities.columns(state)
    return {
        number: {**dict(zip(names, amounts, strict=True)), "detail": json.loads(detail)}
        for number, _user, amounts, detail in liabilities.accounts(state)
    }


def closed(desk: Desk) -> EpochClosed:
    desk.exchange.at_us += 1
    outcome = desk.exchange.do(CloseEpoch(0))
    event = outcome.events[-1]
    assert isinstance(event, EpochClosed)
    return event


def block_at(at_us: int) -> Block:
    header = BlockHeader(
        height=1, previous_hash=bytes(32), at_us=at_us, first_command=1, command_count=1, commands_root=bytes(32),
        first_journal=1, journal_count=1, journal_root=bytes(32), journal_head=bytes(32), log_root=bytes(32),
        public_key=bytes(32),
    )  # fmt: skip
    return Block(header, bytes(32), bytes(64), [], [])


def lived(desk: Desk, seed: int, steps: int = 60) -> list[Trader]:
    """Six traders, the last of them short of SOL, who lend and borrow while yields arrive and time passes at random."""
    random = Random(seed)
    traders = [desk.trader(f"trader {number}", usdc=10**6 * USDC, sol=10**4 * SOL) for number in range(5)]
    traders.append(desk.trader("short", usdc=10**5 * USDC, sol=0))
    for trader in traders[:3]:
        assert moves(trader, LendingSide.LEND, "USDC", random.randrange(10**5, 10**6) * USDC + random.randrange(USDC))
        assert moves(trader, LendingSide.LEND, "SOL", random.randrange(10**7, 10**8) * STEP)
    assert moves(traders[5], LendingSide.BORROW, "SOL", 50 * SOL)
    traders[3].buys(5_000, at=15_000)
    traders[5].sells(5_000, at=15_000)
    for step in range(steps):
        trader, symbol = random.choice(traders[:5]), random.choice(("USDC", "SOL"))
        side = random.choice((LendingSide.LEND, LendingSide.BORROW))
        atoms = random.randrange(1, 10 ** random.randrange(3, 8)) * (STEP if symbol == "SOL" else 1)
        moves(trader, side, symbol, atoms)
        if random.random() < 0.3:
            desk.exchange.advance(random.randrange(1, 2 * DAY))
            prices(desk, SOL=random.randrange(100, 200))
        if random.random() < 0.2:
            yields(desk, random.randrange(1, SOL), f"reward {step}")
    yields(desk, SOL, "the last reward")
    desk.exchange.advance(8 * DAY)
    return traders


@pytest.mark.parametrize("seed", range(8))
def test_an_epoch_of_any_life_balances_and_everybody_verifies_it(desk: Desk, seed: int) -> None:
    """Conservation per asset, dust within the number of holders, each proof checked by the standalone verifier.

    [R-2, R-6, B-4, B-14]
    """
    traders = lived(desk, seed)
    event = closed(desk)
    state = desk.state
    image = image_of(state, block_at(state.at_us), event)

    epoch = build_epoch(continued(image, None), None, MASTER)

    pools = {pool.asset: pool for pool in epoch.header.pools}
    assert pools["SOL"].lenders >= 1 and pools["USDC"].borrowers + pools["SOL"].borrowers >= 1
    log = Log([epoch.header])
    for trader in traders:
        verifier.verify(proof_of(log, epoch, trader.subaccount))


@pytest.mark.parametrize("seed", range(8))
def test_a_leafs_values_are_those_that_margins_judge_by(desk: Desk, seed: int) -> None:
    """One source of truth: net equity and maintenance as `margin.sums` adds them up, whoever it is.   [C-3]"""
    lived(desk, seed)
    state = desk.state
    state.at_us = desk.exchange.at_us

    shown = lines(state)

    for number, line in shown.items():
        sums = margin.sums(state, state.subaccounts[number], state.at_us)
        assert line["net_equity_plus"] - line["net_equity_minus"] == sums.equity
        assert line["maintenance_margin"] == sums.maintenance
    assert any(line["maintenance_margin"] for line in shown.values())
    assert any(line["SOL.uncollected_yield"] for line in shown.values())


def test_an_epoch_posts_the_interest_that_its_leaves_show(desk: Desk) -> None:
    """What is owed in the middle of an hour is in the ledger, not only in the leaf.   [B-4, R-2]"""
    lender, borrower = desk.trader("lender"), desk.trader("borrower")
    assert moves(lender, LendingSide.LEND, "USDC", 100_000 * USDC)
    assert moves(borrower, LendingSide.BORROW, "USDC", 50_000 * USDC)
    desk.exchange.advance(30 * DAY + 1_234)
    before = lines(desk.state)[borrower.subaccount]["USDC.borrowed"]

    desk.exchange.at_us += 500_000
    closed(desk)

    journal = desk.exchange.outcomes[-1].journal
    assert [entry.kind for entry in journal] == [JournalKind.INTEREST, JournalKind.EPOCH_CLOSED]
    line, other = lines(desk.state)[borrower.subaccount], lines(desk.state)[lender.subaccount]
    assert line["USDC.borrowed"] > before > 50_000 * USDC
    assert other["USDC.lent"] > 100_000 * USDC
    closed(desk)
    assert len(desk.exchange.outcomes[-1].journal) == 1, "less than an atom in a microsecond"


def test_who_is_below_maintenance_or_below_zero_is_shown_in_liquidation(desk: Desk) -> None:
    """[R-7, M-6]"""
    lender, short = desk.trader("lender"), desk.trader("short", sol=0, usdc=1_000 * USDC)
    assert moves(lender, LendingSide.LEND, "SOL", 1_000 * SOL)
    assert moves(short, LendingSide.BORROW, "SOL", 10 * SOL)
    lender.buys(1_000, at=15_000)
    short.sells(1_000, at=15_000)
    prices(desk, SOL=100)
    assert lines(desk.state)[short.subaccount]["detail"]["status"] == "active"

    # 2,498.50 USDC against 10 SOL, of which 3 % are asked for as maintenance.
    prices(desk, SOL=245)
    line = lines(desk.state)[short.subaccount]
    assert line["net_equity_plus"] < line["maintenance_margin"] and not line["net_equity_minus"]
    assert line["detail"]["status"] == "in_liquidation"
    prices(desk, SOL=260)
    line = lines(desk.state)[short.subaccount]
    assert line["net_equity_minus"] > 0 and line["detail"]["status"] == "in_liquidation"
    assert line["detail"]["debtShares"]["SOL"] == str(10 * SOL * 10**9)


def test_what_a_reversed_deposit_left_owed_lowers_net_equity(desk: Desk) -> None:
    """[C-3, D-5]"""
    anna, bert = desk.trader("anna", usdc=0, sol=0), desk.trader("bert")
    tx_id = desk.exchange.deposit(anna.subaccount, "USDC", 1_500 * USDC)
    bert.sells(1_000, at=15_000)
    anna.buys(900, at=15_000)
    desk.exchange.do(OrphanDeposit(1, tx_id, 0))
    assert lines(desk.state)[anna.subaccount]["detail"]["status"] == "withdrawals_frozen"
    desk.exchange.do(ReverseDeposit(1, tx_id, 0))

    line = lines(desk.state)[anna.subaccount]

    # She has 150 USDC left, which the reversal takes; the rest of the 1,500 is owed.
    assert line["USDC.available"] == 0
    owed = desk.state.balances[account_id(AccountKind.RECEIVABLE, anna.subaccount) << ASSET_BITS | 1]
    assert owed == 1_350 * USDC
    assert line["net_equity_plus"] - line["net_equity_minus"] == line["collateral_value"] - owed * 100


def test_orders_alone_ask_for_no_maintenance(desk: Desk) -> None:
    """[M-1]"""
    anna = desk.trader("anna")
    anna.places(anna.order(ASK, 15_100, 500))

    line = lines(desk.state)[anna.subaccount]

    assert line["SOL.in_orders"] == 5 * SOL
    assert (line["maintenance_margin"], line["net_equity_plus"]) == (0, line["collateral_value"])


def test_what_fees_earn_when_nobody_lends_is_fees(desk: Desk) -> None:
    """The last lender leaves while part of the fees is borrowed: no atom may be lent that nobody has a share of.

    [B-4, B-14, A-13]
    """
    lender, borrower = desk.trader("lender"), desk.trader("borrower")
    assert moves(lender, LendingSide.LEND, "USDC", 100_000 * USDC)
    assert moves(borrower, LendingSide.BORROW, "USDC", 80_000 * USDC)
    desk.exchange.advance(300 * DAY)
    closed(desk)
    now = lines(desk.state)
    fees = -desk.state.balances[POOL_FEES << ASSET_BITS | 1]
    assert moves(borrower, LendingSide.LEND, "USDC", now[borrower.subaccount]["USDC.borrowed"] - fees // 2)
    assert moves(lender, LendingSide.BORROW, "USDC", now[lender.subaccount]["USDC.lent"])

    desk.exchange.advance(30 * DAY)
    event = closed(desk)

    pools = image_of(desk.state, block_at(desk.state.at_us), event).pools
    pool = next(each for each in pools if each.asset == "USDC")
    assert (pool.lent, pool.lenders, pool.borrowers) == (0, 0, 1)
    assert pool.borrowed > fees // 2 and pool.fees == fees + pool.borrowed - fees // 2
    assert RunningTotals(balance_totals(desk.state)).violations() == []
