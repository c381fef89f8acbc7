"""Loans, interest and hourly pools in the history: as they happened, and to the atom.   [B-4, B-12, B-13]"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from api.history.following import History
from api.history.lending import read_dust, read_interest, read_loans, read_movements, read_pool_hours
from api.rows import InterestRow, Page
from engine import lending
from engine.commands import AccrueInterest, BorrowLend, CancelAllOrders, LendingSide, SetPrices
from engine.events import DustConverted, LendingEvent, LendingSource
from engine.formulas.lending import RATE_ONE, lend_rate
from engine.parameters import PRICE_SCALE, GenesisParameters, LendingParameters
from ledger.database import open_engine, upgrade
from tests.api.exchange import ALICE, BOB, SOL, USDC, Exchange, genesis
from tests.api.money_market import FEE, HOUR_MS, RATE, MoneyMarket

EVERYTHING = Page(limit=1_000, ascending=True)


@pytest.fixture
def url(database_url: str) -> str:
    """A database with the newest schema."""
    engine = open_engine(database_url)
    upgrade(engine)
    engine.dispose()
    return database_url


class Log:
    """Blocks of a real engine, each with the loans' events of one moment beside its own."""

    def __init__(self, born: GenesisParameters | None = None) -> None:
        self.exchange = Exchange(born)
        self.exchange.at_us += 3_600_000_000 - self.exchange.at_us % 3_600_000_000
        self.markets = {
            asset_id: MoneyMarket(asset_id, self.exchange.at_us // 1_000) for asset_id in (USDC, SOL)
        }
        self.markets[SOL].next_position_id = 1_000

    def say(self, *events: Any) -> None:
        _block, outcomes = self.exchange.run(CancelAllOrders(ALICE))
        outcomes[-1].events.extend(events)

    def wait(self, ms: int) -> None:
        """Time passes, and each full hour is told as it is reached."""
        while ms:
            step = min(ms, HOUR_MS - self.exchange.at_us // 1_000 % HOUR_MS)
            self.exchange.at_us += step * 1_000
            for market in self.markets.values():
                market.accrue(step)
            if self.exchange.at_us // 1_000 % HOUR_MS == 0:
                self.say(*(market.hour() for market in self.markets.values()))
            ms -= step


@asynccontextmanager
async def following(url: str, log: Log) -> AsyncIterator[History]:
    kept = History(url)
    kept.start()
    for block, outcomes in log.exchange.blocks:
        kept.on_block(block, outcomes)
    try:
        yield kept
    finally:
        await asyncio.to_thread(kept.close)


async def test_movements_are_kept_with_source_position_and_order_of_the_log(url: str) -> None:
    """B-12"""
    log = Log()
    usdc = log.markets[USDC]
    log.say(usdc.lend(ALICE, 5_000_000, LendingSource.AUTO_LEND))
    log.say(usdc.borrow(BOB, 2_000_000, LendingSource.SPOT_MARGIN), usdc.redeem(ALICE, 1_000_000))
    log.wait(HOUR_MS // 2)
    log.say(usdc.repay(BOB, usdc.owned(BOB, is_debt=True), LendingSource.AUTO_BORROW_REPAY))
    log.say(log.markets[SOL].lend(ALICE, 7))
    async with following(url, log) as kept:
        alices, total = await read_movements(kept, ALICE, Page())
        bobs, _ = await read_movements(kept, BOB, EVERYTHING)
        automatic, _ = await read_movements(kept, ALICE, Page(), sources=[LendingSource.AUTO_LEND])
        redeemed, _ = await read_movements(kept, ALICE, Page(), event=LendingEvent.LEND_REDEEM)
        in_sol, _ = await read_movements(kept, ALICE, Page(), asset_id=SOL)
        of_position = await read_movements(kept, ALICE, Page(limit=1), position_id=bobs[0].position_id)

    assert total == 3
    assert [row.event for row in alices] == [LendingEvent.LEND, LendingEvent.LEND_REDEEM, LendingEvent.LEND]
    assert [row.asset_id for row in alices] == [SOL, USDC, USDC]
    assert [(row.atoms, row.position_atoms) for row in alices] == [
        (7, 7), (1_000_000, 4_000_000), (5_000_000, 5_000_000),
    ]
    assert [row.source for row in bobs] == [LendingSource.SPOT_MARGIN, LendingSource.AUTO_BORROW_REPAY]
    assert bobs[1].position_atoms == 0 and bobs[1].atoms > 2_000_000
    assert (automatic, redeemed, in_sol) == ([alices[2]], [alices[1]], [alices[0]])
    assert of_position == ([], 0)


async def test_a_loan_is_one_row_from_its_first_movement_to_its_last(url: str) -> None:
    """B-12"""
    log = Log()
    usdc = log.markets[USDC]
    opened_us = log.exchange.at_us
    log.say(usdc.lend(ALICE, 8_000_000), usdc.borrow(BOB, 4_000_000, LendingSource.SPOT_MARGIN))
    log.wait(HOUR_MS)
    log.say(usdc.lend(ALICE, 1_000_000, LendingSource.AUTO_LEND))
    log.wait(HOUR_MS // 4)
    log.say(usdc.repay(BOB, 1_000_000))
    log.wait(HOUR_MS // 4)
    owed = usdc.owned(BOB, is_debt=True)
    log.say(usdc.repay(BOB, owed))
    log.say(usdc.borrow(BOB, 3))
    async with following(url, log) as kept:
        (lent,), _ = await read_loans(kept, ALICE, Page())
        debts, total = await read_loans(kept, BOB, Page())
        closed, _ = await read_loans(kept, BOB, Page(), is_open=False, side=LendingSide.BORROW, asset_id=USDC)
        opened, _ = await read_loans(kept, BOB, Page(), is_open=True)
        nothing = await read_loans(kept, BOB, Page(), side=LendingSide.LEND)

    assert (lent.is_open, lent.is_debt, lent.source) == (True, False, LendingSource.MANUAL)
    assert (lent.opened_at_us, lent.flow_atoms) == (opened_us, 9_000_000)
    assert lent.position_shares == usdc.positions[lent.position_id].shares
    assert lent.atom_ms == 8_000_000 * HOUR_MS
    assert total == 2 and [debts[0]] == opened and [debts[1]] == closed and nothing == ([], 0)
    assert (closed[0].is_open, closed[0].largest_atoms, closed[0].position_atoms) == (False, 4_000_000, 0)
    assert closed[0].flow_atoms == 4_000_000 - 1_000_000 - owed
    after_repay = usdc.positions[closed[0].position_id]
    assert after_repay.flow == closed[0].flow_atoms and after_repay.shares == 0
    assert opened[0].position_id != closed[0].position_id


async def test_interest_of_an_hour_is_exact_for_both_sides(url: str) -> None:
    """B-4: an untouched pool charges borrowed × annual / 8760, and the lenders get it less the fee."""
    log = Log()
    usdc = log.markets[USDC]
    log.say(usdc.lend(ALICE, 876_000_000_000), usdc.borrow(BOB, 438_000_000_000))
    log.wait(2 * HOUR_MS)
    async with following(url, log) as kept:
        earned, earned_total = await read_interest(kept, ALICE, EVERYTHING)
        owed, _ = await read_interest(kept, BOB, EVERYTHING)

    first = 438_000_000_000 // 87_600
    assert owed[0].atoms == first == 5_000_000
    assert earned[0].atoms == first * 9 // 10
    second = (438_000_000_000 + first) * RATE // RATE_ONE // 8760
    assert owed[1].atoms == second
    assert earned_total == 2 and [row.hour for row in earned] == [row.hour for row in owed]
    assert all(row.rate == RATE for row in owed)
    assert all(row.hours == 1 for row in owed)
    assert earned[0].rate == lend_rate(
        RATE, 438_000_000_000 + first, 876_000_000_000 + first * 9 // 10, first // 10, FEE
    )


async def test_hours_add_up_to_what_every_loan_grew_by(url: str) -> None:
    """B-4: whatever moves, Σ interest = claim − net flow, for every loan, on every page."""
    log = Log()
    chance = random.Random(3)
    for _ in range(120):
        market = log.markets[chance.choice((USDC, SOL))]
        who = chance.choice((ALICE, BOB))
        log.say(*_some_movement(chance, market, who))
        log.wait(chance.choice((1, 700_000, HOUR_MS, 2 * HOUR_MS + 1)))
    log.wait(HOUR_MS - log.exchange.at_us // 1_000 % HOUR_MS)
    async with following(url, log) as kept:
        by_subaccount = {}
        for who in (ALICE, BOB):
            rows, total = await read_interest(kept, who, EVERYTHING)
            assert total == len(rows) > 100
            by_subaccount[who] = rows
            pages: list[InterestRow] = []
            for offset in range(0, total, 37):
                pages += (await read_interest(kept, who, Page(limit=37, offset=offset)))[0]
            assert pages == rows[::-1]
        of_sol, _ = await read_interest(kept, ALICE, EVERYTHING, asset_id=SOL)
        one = by_subaccount[ALICE][5].position_id
        of_one, _ = await read_interest(kept, ALICE, EVERYTHING, position_id=one)

    grown: dict[int, int] = defaultdict(int)
    for rows in by_subaccount.values():
        for row in rows:
            grown[row.position_id] += row.atoms
    for market in log.markets.values():
        for position in market.positions.values():
            assert grown.pop(position.position_id) == market.worth(position) - position.flow
    assert not grown
    assert of_sol == [row for row in by_subaccount[ALICE] if row.asset_id == SOL]
    assert of_one == [row for row in by_subaccount[ALICE] if row.position_id == one]


def _some_movement(chance: random.Random, market: MoneyMarket, who: int) -> list[Any]:
    claim, debt = market.owned(who, is_debt=False), market.owned(who, is_debt=True)
    idle = market.lent + market.fees - market.borrowed
    match chance.randint(0, 5):
        case 0 if min(claim, idle) > 0:
            return [market.redeem(who, chance.randint(1, min(claim, idle)))]
        case 1 if 0 < claim <= idle:
            # All of it, and a new loan in the same hour.
            return [market.redeem(who, claim), market.lend(who, chance.randint(1, 10**9))]
        case 2 if idle > 0:
            return [market.borrow(who, chance.randint(1, idle))]
        case 3 if debt > 0:
            return [market.repay(who, chance.choice((debt, chance.randint(1, debt))))]
        case _:
            return [market.lend(who, chance.randint(1, 10**12))]


async def test_hours_add_up_for_the_engines_own_loans(url: str) -> None:
    """B-4, B-12: of a real engine, with its roundings, dust and hourly ticks."""
    log = Log(_with_lending())
    exchange, state, chance = log.exchange, log.exchange.state, random.Random(8)
    exchange.run(SetPrices(((USDC, PRICE_SCALE), (SOL, 100 * PRICE_SCALE))))
    # So much that the throttle stays out of it: what it refuses is not what is tried here.
    exchange.run(*(BorrowLend(ALICE, asset_id, LendingSide.LEND, 10**12) for asset_id in (USDC, SOL)))
    for _ in range(150):
        who, asset_id = chance.choice((ALICE, BOB)), chance.choice((USDC, SOL))
        subaccount, now_us = state.subaccounts[who], exchange.at_us
        claim, debt = (worth(state, subaccount, asset_id, now_us) for worth in (lending.claim, lending.debt))
        side = chance.choice((LendingSide.LEND, LendingSide.BORROW))
        if side is LendingSide.LEND:
            atoms = chance.choice((debt, debt // 3, debt + 5, 10**9, 1)) or 10**8
        else:
            atoms = min(chance.choice((claim, claim // 3, claim + 10**9, 1)), 10**10)
        if atoms:
            exchange.run(BorrowLend(who, asset_id, side, atoms))
        until_hour = 3_600_000_000 - exchange.at_us % 3_600_000_000
        waited = chance.choice((1_000, 900_000_000, until_hour))
        exchange.at_us += min(waited, until_hour)
        if waited >= until_hour and state.last_interest_hour:
            exchange.run(AccrueInterest(exchange.at_us // 3_600_000_000))
    exchange.at_us += 3_600_000_000 - exchange.at_us % 3_600_000_000
    exchange.run(AccrueInterest(exchange.at_us // 3_600_000_000))
    async with following(url, log) as kept:
        for who in (ALICE, BOB):
            rows, total = await read_interest(kept, who, EVERYTHING)
            loans, _ = await read_loans(kept, who, EVERYTHING)
            grown: dict[int, int] = defaultdict(int)
            for row in rows:
                grown[row.position_id] += row.atoms
            assert total == len(rows) > 30
            assert {loan.position_id for loan in loans} == set(grown)
            assert who == ALICE or any(not loan.is_open for loan in loans)
            for loan in loans:
                subaccount = state.subaccounts[who]
                worth = lending.debt if loan.is_debt else lending.claim
                left = worth(state, subaccount, loan.asset_id, exchange.at_us) if loan.is_open else 0
                kept_loans = subaccount.debts if loan.is_debt else subaccount.lent
                assert grown[loan.position_id] == left - loan.flow_atoms
                assert not loan.is_open or kept_loans[loan.asset_id].flow_atoms == loan.flow_atoms
            assert sum(grown.values())


def _with_lending() -> GenesisParameters:
    market = LendingParameters(9 * 10**8, 10**7, 8 * 10**7, 6 * 10**8, 10**8, 92 * 10**7, 10**8, 10**9)
    born = genesis()
    return structs.replace(born, assets=tuple(structs.replace(asset, lending=market) for asset in born.assets))


async def test_dust_is_kept_with_the_sign_it_had(url: str) -> None:
    """S-3"""
    log = Log()
    log.say(DustConverted(ALICE, SOL, 7, 1), DustConverted(BOB, SOL, -3, -1), DustConverted(ALICE, USDC, 5, 5))
    log.say(DustConverted(ALICE, SOL, -9, -2))
    async with following(url, log) as kept:
        alices, total = await read_dust(kept, ALICE, EVERYTHING)
        in_sol, _ = await read_dust(kept, ALICE, Page(), asset_id=SOL)
        one, _ = await read_dust(kept, ALICE, Page(), dust_id=alices[1].dust_id)
        foreign = await read_dust(kept, BOB, Page(), dust_id=alices[1].dust_id)

    assert total == 3 and [(row.asset_id, row.atoms, row.usdc_atoms) for row in alices] == [
        (SOL, 7, 1), (USDC, 5, 5), (SOL, -9, -2),
    ]
    assert in_sol == [alices[2], alices[0]] and one == [alices[1]] and foreign == ([], 0)


async def test_a_restart_in_the_middle_changes_nothing(url: str) -> None:
    """A-7: loans and periods go on where the tables ended."""
    log = Log()
    usdc = log.markets[USDC]
    log.say(usdc.lend(ALICE, 10**12), usdc.borrow(BOB, 10**11))
    log.wait(3 * HOUR_MS + 5)
    async with following(url, log):
        pass
    log.say(usdc.lend(ALICE, 10**6))
    log.wait(2 * HOUR_MS)
    log.say(usdc.repay(BOB, usdc.owned(BOB, is_debt=True)))
    log.wait(HOUR_MS)
    async with following(url, log) as kept:
        earned, _ = await read_interest(kept, ALICE, EVERYTHING)
        (loan,), _ = await read_loans(kept, BOB, Page())
        owed, _ = await read_interest(kept, BOB, EVERYTHING)

    assert [row.hour - earned[0].hour for row in earned] == list(range(6))
    assert sum(row.atoms for row in earned) == usdc.worth(usdc.positions[1]) - usdc.positions[1].flow
    assert not loan.is_open and sum(row.atoms for row in owed) == -loan.flow_atoms
    assert loan.atom_ms == 10**11 * (5 * HOUR_MS + 5)


async def test_hours_of_the_markets(url: str) -> None:
    """B-13"""
    log = Log()
    usdc = log.markets[USDC]
    log.say(usdc.lend(ALICE, 10**12), usdc.borrow(BOB, 10**11))
    log.wait(5 * HOUR_MS)
    hour = log.exchange.at_us // 3_600_000_000
    async with following(url, log) as kept:
        rows = await read_pool_hours(kept, [USDC], hour - 2, lambda row: row)
        both = await read_pool_hours(kept, [USDC, SOL], hour, lambda row: row)

    assert [row.hour for row in rows] == [hour - 2, hour - 1, hour]
    assert (rows[-1].lent_atoms, rows[-1].borrowed_atoms, rows[-1].fee_atoms) == (usdc.lent, usdc.borrowed, usdc.fees)
    assert [row.asset_id for row in both] == [USDC, SOL]
