"""Liquidity pools in the ledger: coins, units, custody and debts that hold, each way of breaking them by name, and what
statements, balances and receipts call them.

[A-2, A-12, A-13, X-3, X-5, X-14]
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from ledger.balances import STATEMENT_KINDS, assets, statement, subaccount_balances, trial_balance_json
from ledger.blocks import Block
from ledger.chart import (
    INSURANCE_FUND,
    AccountKind,
    account_id,
    amm_book,
    amm_fund,
    amm_pool,
    available,
    external_custody,
    external_owed,
    in_custody,
    native_custody,
    native_owed,
    owed_to_pools,
    pool_units,
    units_held,
)
from ledger.invariants import ConservationError, RunningTotals
from ledger.journal import JournalKind, JournalTransaction, Posting
from ledger.liquidity import depths
from tests.ledger.logs import SOL, USDC, LogBuilder, deposit, stored, transaction

ROWAN = 4
"""The native asset; one pool of it against USDC, one against SOL."""
ANNA, BOB = 1, 2
UNITS = pool_units(USDC)


def provided(who: int, pool: int, native: int, external: int) -> JournalTransaction:
    """The first provider of a pool: a unit for each native atom."""
    legs = [(available(who), ROWAN, native), (amm_pool(pool), ROWAN, -native)]
    legs += [(available(who), pool, external), (amm_pool(pool), pool, -external)]
    legs += [(units_held(who), pool_units(pool), -native), (amm_book(pool), pool_units(pool), native)]
    return transaction(JournalKind.LIQUIDITY_ADDED, legs)


def opened(who: int, collateral: int, owed: int, custody: int) -> JournalTransaction:
    """USDC as collateral in USDC's pool, ROWAN kept for it."""
    legs = [(available(who), USDC, collateral), (amm_pool(USDC), USDC, -collateral)]
    legs += [(in_custody(who), native_custody(USDC), -custody), (amm_book(USDC), native_custody(USDC), custody)]
    legs += [(owed_to_pools(who), external_owed(USDC), owed), (amm_book(USDC), external_owed(USDC), -owed)]
    return transaction(JournalKind.LONG_OPENED, legs)


def log_of(*entries: JournalTransaction) -> list[Block]:
    """Anna provides 1,000 ROWAN with 2,000 USDC, and 50 with 7 SOL; Bob owes 400 USDC for 300 ROWAN; interest of 20
    ROWAN is taken out of it, 7 of them for the fund. Then these."""
    log = LogBuilder()
    log.add(
        "genesis",
        *(
            transaction(JournalKind.ASSET_LISTED, [], each)
            for each in ((SOL, "SOL", 9), (USDC, "USDC", 6), (ROWAN, "ROWAN", 3))
        ),
        transaction(JournalKind.POOL_CONFIGURED, [], (USDC, ROWAN)),
        transaction(JournalKind.POOL_CONFIGURED, [], (SOL, ROWAN)),
        *(deposit(who, asset, 9_000) for who in (ANNA, BOB) for asset in (SOL, USDC, ROWAN)),
    )
    log.add("add", provided(ANNA, USDC, 1_000, 2_000), provided(ANNA, SOL, 50, 7))
    blocks = [log.commit()]
    log.add("open", opened(BOB, 100, 400, 300))
    taken = [(in_custody(BOB), native_custody(USDC), 20), (amm_book(USDC), native_custody(USDC), -20)]
    log.add(
        "epoch",
        transaction(JournalKind.POOL_INTEREST, [*taken, (amm_pool(USDC), ROWAN, 7), (amm_fund(USDC), ROWAN, -7)]),
    )
    log.add("more", *entries)
    return [*blocks, log.commit()]


def totals_of(*legs: Posting) -> RunningTotals:
    totals = RunningTotals()
    for block in log_of(transaction(JournalKind.LONG_CLOSED, legs)) if legs else log_of():
        totals.add(block.journal)
    return totals


def test_what_holds_passes_and_so_does_the_end_of_it() -> None:
    """X-14"""
    totals_of().require()
    legs = [(in_custody(BOB), native_custody(USDC), 280), (amm_book(USDC), native_custody(USDC), -280)]
    legs += [(owed_to_pools(BOB), external_owed(USDC), -400), (amm_book(USDC), external_owed(USDC), 400)]
    legs += [(amm_pool(USDC), USDC, 150), (available(BOB), USDC, -150)]
    legs += [(amm_fund(USDC), ROWAN, 7), (amm_pool(USDC), ROWAN, -7)]
    totals_of(*legs).require()


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        pytest.param(
            [(units_held(BOB), UNITS, -1)],
            f"asset {UNITS}: postings sum to -1 atoms, expected 0",
            id="units that no book has",
        ),
        pytest.param(
            [(units_held(ANNA), UNITS, 1_001), (amm_book(USDC), UNITS, -1_001)],
            f"asset {UNITS}: subaccount/*/pool-units is at 1 atoms, on the wrong side of zero",
            id="units below zero",
        ),
        pytest.param(
            [(in_custody(BOB), external_owed(USDC), -1), (owed_to_pools(BOB), external_owed(USDC), 1)],
            f"asset {external_owed(USDC)}: subaccount/*/pool-custody is at -1, and is no account for that asset",
            id="a debt kept in custody",
        ),
        pytest.param(
            [(owed_to_pools(BOB), native_owed(USDC), -1), (amm_book(USDC), native_owed(USDC), 1)],
            f"asset {native_owed(USDC)}: subaccount/*/pool-debt is at -1 atoms, on the wrong side of zero",
            id="a debt below zero",
        ),
        pytest.param(
            [(available(BOB), UNITS, -1), (amm_book(USDC), UNITS, 1)],
            f"asset {UNITS}: subaccount/*/available is at -1, and is no account for that asset",
            id="units among the atoms",
        ),
        pytest.param(
            [(amm_book(USDC), USDC, 1), (available(BOB), USDC, -1)],
            f"asset {USDC}: equity/pool/*/book is at 1, and is no account for that asset",
            id="coins on the book",
        ),
        pytest.param(
            [(INSURANCE_FUND, UNITS, -1), (amm_book(USDC), UNITS, 1)],
            f"asset {UNITS}: equity/insurance-fund is at -1, and is no account for that asset",
            id="units of the insurance fund",
        ),
        pytest.param(
            [(amm_fund(USDC), ROWAN, 8), (available(BOB), ROWAN, -8)],
            f"asset {ROWAN}: equity/pool/*/fund is at 1 atoms, on the wrong side of zero",
            id="a fund below zero",
        ),
        pytest.param(
            [(amm_pool(USDC), SOL, 8), (available(BOB), SOL, -8)],
            f"asset {SOL}: pool/* is at 1 atoms, on the wrong side of zero",
            id="a pool below zero",
        ),
        pytest.param(
            [(amm_pool(USDC), ROWAN, 764), (available(BOB), ROWAN, -764)],
            "liquidity pools: 279 native atoms are there, 280 are in custody for positions",
            id="custody without its coins",
        ),
        pytest.param(
            [
                (in_custody(BOB), external_custody(SOL), -8), (amm_book(SOL), external_custody(SOL), 8),
            ],
            f"liquidity pool {SOL}: 7 atoms are there, 8 are in custody for positions",
            id="external custody without its coins",
        ),
    ],
)  # fmt: skip
def test_each_broken_promise_is_found(legs: list[Posting], expected: str) -> None:
    """A-13, X-14"""
    totals = totals_of(*legs)

    assert expected in totals.violations()
    with pytest.raises(ConservationError):
        totals.require()


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return stored(database_url, log_of())


def test_a_pools_assets_have_names_and_the_decimals_of_what_they_count(engine: sa.Engine) -> None:
    """A-2: units and what is native are counted as ROWAN is, the rest as the external asset."""
    listed = assets(engine)

    of_usdc = (UNITS, native_custody(USDC), external_custody(USDC), native_owed(USDC), external_owed(USDC))
    assert [(listed[one].symbol, listed[one].decimals) for one in of_usdc] == [
        ("USDC.pool-units", 3), ("USDC.native-custody", 3), ("USDC.custody", 6), ("USDC.native-owed", 3),
        ("USDC.owed", 6),
    ]  # fmt: skip
    assert listed[external_custody(SOL)].decimals == 9
    assert all(listed[one].share == 0 for one in of_usdc) and pool_units(ROWAN) not in listed


def test_a_statement_shows_units_custody_and_debts_with_running_balances(engine: sa.Engine) -> None:
    """A-12"""

    def lines(who: int, *kinds: AccountKind) -> list[tuple[int, int, int, int]]:
        accounts = [account_id(kind, who) for kind in STATEMENT_KINDS if kind in kinds]
        return [(line.kind, line.asset, line.atoms, line.balance) for line in statement(engine, accounts)]

    assert lines(ANNA, AccountKind.AMM_UNITS) == [
        (JournalKind.LIQUIDITY_ADDED, UNITS, -1_000, -1_000),
        (JournalKind.LIQUIDITY_ADDED, pool_units(SOL), -50, -50),
    ]
    assert lines(BOB, AccountKind.AMM_CUSTODY, AccountKind.AMM_DEBT) == [
        (JournalKind.LONG_OPENED, native_custody(USDC), -300, -300),
        (JournalKind.LONG_OPENED, external_owed(USDC), 400, 400),
        (JournalKind.POOL_INTEREST, native_custody(USDC), 20, -280),
    ]


def test_balances_and_the_trial_balance_name_them_as_of_any_block(engine: sa.Engine) -> None:
    """A-1, A-12"""
    assert subaccount_balances(engine, BOB, 0) == {
        (AccountKind.AVAILABLE, asset): 9_000 for asset in (SOL, USDC, ROWAN)
    }
    now = subaccount_balances(engine, BOB)
    assert now[AccountKind.AMM_CUSTODY, native_custody(USDC)] == 280
    assert now[AccountKind.AMM_DEBT, external_owed(USDC)] == -400

    trial = trial_balance_json(engine)
    rows = {(row["account"], row["asset"]): (row["debit"], row["credit"]) for row in trial["rows"]}
    assert rows[f"pool/{USDC}", "ROWAN"] == ("0", "0.993")
    assert rows[f"equity/pool/{USDC}/fund", "ROWAN"] == ("0", "0.007")
    assert rows[f"subaccount/{ANNA}/pool-units", "USDC.pool-units"] == ("0", "1")
    assert rows[f"equity/pool/{USDC}/book", "USDC.pool-units"] == ("1", "0")
    assert rows[f"subaccount/{BOB}/pool-debt", "USDC.owed"] == ("0.0004", "0")
    assert all(total["debit"] == total["credit"] for total in trial["totals"].values())


def test_units_are_worth_their_part_of_the_depths_after_any_block(engine: sa.Engine) -> None:
    """A-12, X-4: balance and what positions owe, custody left out; rounded down."""
    before, now = depths(engine, USDC, 0), depths(engine, USDC)

    assert before == (ROWAN, 1_000, 2_000, 1_000) and before.part(999) == (999, 1_998)
    # 300 were kept for Bob's position, 20 of them paid back as interest, 7 of those to the fund; 100 brought, 400 owed.
    assert now == (ROWAN, 1_000 - 300 + 13, 2_500, 1_000)
    assert now.part(1_000) == (713, 2_500) and now.part(3) == (2, 7)
    with pytest.raises(LookupError, match=f"no liquidity pool {ROWAN}"):
        depths(engine, ROWAN)
