"""Conservation of perpetuals: positions, unsettled equity and claims that hold, and each way of breaking them by name.

[A-13, S-13, V-5]
"""

from __future__ import annotations

import pytest

from ledger.chart import (
    BACKSTOP_FUND,
    INSURANCE_FUND,
    INSURANCE_UNSETTLED,
    LIQUIDITY_FUND,
    POOL_LENT,
    POOL_SHARES,
    ROUNDING,
    ROUNDING_UNSETTLED,
    AssetId,
    available,
    claim,
    claim_debt,
    claim_lend,
    contracts,
    cost,
    debt_share,
    lend_share,
    position,
    unsettled,
)
from ledger.invariants import ConservationError, RunningTotals
from ledger.journal import JournalKind, JournalTransaction, Posting
from tests.ledger.logs import HOT_SOL, SOL, USDC, LogBuilder, deposit, transaction

MARKET, OTHER = 3, 4
LENDS, OWES = lend_share(USDC), debt_share(USDC)
CLAIMS, DEBTS = claim_lend(MARKET), claim_debt(MARKET)


def moved(*legs: Posting) -> JournalTransaction:
    return transaction(JournalKind.PERPETUAL_TRADE, legs)


def held(shares: AssetId, claims: AssetId, who: int, by: int) -> list[Posting]:
    """The fund's shares of the pool, and as many that it holds (`by` < 0) or is owed for a user."""
    legs = [(LIQUIDITY_FUND, shares, by), (POOL_SHARES, shares, -by)]
    return [*legs, (claim(who), claims, by), (LIQUIDITY_FUND, claims, -by)]


def totals_of(*entries: JournalTransaction) -> RunningTotals:
    """Two deposits; 1 is long of 500 that it bought below the mark, 2 short; 3 waits for 40 that 2 and roundings owe;
    the fund lends 900 shares for 1 and owes 700 for 2; the insurance fund has 10. And these."""
    log = LogBuilder()
    log.add("deposits", deposit(1, USDC, 9_000), deposit(2, USDC, 9_000), deposit(1, SOL, 9))
    log.add("fee", moved((available(2), USDC, 12), (INSURANCE_FUND, USDC, -10), (BACKSTOP_FUND, USDC, -2)))
    legs = [(position(1), contracts(MARKET), -500), (position(2), contracts(MARKET), 500)]
    legs += [(position(1), cost(MARKET), -70), (position(2), cost(MARKET), 71), (ROUNDING, cost(MARKET), -1)]
    log.add("trade", moved(*legs))
    log.add("tick", moved((unsettled(3), USDC, -40), (unsettled(2), USDC, 39), (ROUNDING_UNSETTLED, USDC, 1)))
    log.add("claims", moved(*held(LENDS, CLAIMS, 1, -900), *held(OWES, DEBTS, 2, 700)))
    log.add("more", *entries)
    totals = RunningTotals()
    totals.add(log.commit().journal)
    return totals


def test_what_holds_passes_and_so_does_the_end_of_it() -> None:
    """A-13"""
    totals_of().require()
    legs = [(position(1), contracts(MARKET), 500), (position(2), contracts(MARKET), -500)]
    legs += [(position(1), cost(MARKET), 70), (position(2), cost(MARKET), -71), (ROUNDING, cost(MARKET), 1)]
    legs += [(unsettled(3), USDC, 40), (unsettled(2), USDC, -39), (ROUNDING_UNSETTLED, USDC, -1)]
    legs += [*held(LENDS, CLAIMS, 1, 900), *held(OWES, DEBTS, 2, -700)]

    totals_of(moved(*legs)).require()


def test_positions_may_be_on_either_side_and_so_may_roundings() -> None:
    """A-2: of a market all rows together are zero, a single side says nothing."""
    legs = [(position(1), cost(MARKET), -7), (ROUNDING, cost(MARKET), 7), (position(3), contracts(OTHER), 1)]
    legs += [(position(4), contracts(OTHER), -1), (unsettled(3), USDC, 90), (ROUNDING_UNSETTLED, USDC, -90)]
    legs += [(INSURANCE_UNSETTLED, USDC, -5), (unsettled(2), USDC, 5)]

    totals_of(moved(*legs)).require()


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        pytest.param(
            [(position(1), contracts(MARKET), -1), (available(1), contracts(MARKET), 1)],
            f"market {MARKET}: positions sum to -1 atoms, longs are not shorts",
            id="a long without a short",
        ),
        pytest.param(
            [(position(1), contracts(MARKET), -1), (available(1), contracts(MARKET), 1)],
            f"asset {contracts(MARKET)}: subaccount/*/available is at 1, and is no account for that asset",
            id="contracts among the atoms",
        ),
        pytest.param(
            [(position(1), cost(MARKET), -1), (INSURANCE_FUND, cost(MARKET), 1)],
            f"market {MARKET}: the costs of positions sum to -1 atoms, expected 0",
            id="a gain that nobody loses",
        ),
        pytest.param(
            [(position(1), cost(MARKET), -1), (INSURANCE_FUND, cost(MARKET), 1)],
            f"asset {cost(MARKET)}: equity/insurance-fund is at 1, and is no account for that asset",
            id="a cost in the insurance fund",
        ),
        pytest.param(
            [(position(1), USDC, -1), (available(1), USDC, 1)],
            f"asset {USDC}: subaccount/*/position is at -1, and is no account for that asset",
            id="atoms among the positions",
        ),
        pytest.param(
            [(unsettled(1), USDC, -1), (available(1), USDC, 1)],
            f"asset {USDC}: unsettled equity sums to -1 atoms, expected 0",
            id="unsettled equity that nobody owes",
        ),
        pytest.param(
            [(INSURANCE_UNSETTLED, USDC, 1), (unsettled(1), USDC, -1)],
            f"asset {USDC}: equity/insurance-unsettled is at 1 atoms, on the wrong side of zero",
            id="an advance below zero",
        ),
        pytest.param(
            [(LIQUIDITY_FUND, LENDS, -1), (POOL_SHARES, LENDS, 1)],
            "the liquidity fund lends 901 shares, its users' claims are 900",
            id="a fund that lends more than it owes",
        ),
        pytest.param(
            [(LIQUIDITY_FUND, OWES, 1), (POOL_SHARES, OWES, -1)],
            "the liquidity fund owes 701 shares, its users' claims are 700",
            id="a fund that owes more than it is owed",
        ),
        pytest.param(
            [(claim(1), CLAIMS, -1), (LIQUIDITY_FUND, CLAIMS, 1)],
            "the liquidity fund lends 900 shares, its users' claims are 901",
            id="a claim on nothing",
        ),
        pytest.param(
            [(LIQUIDITY_FUND, USDC, -1), (available(1), USDC, 1)],
            f"asset {USDC}: liquidity-fund is at -1, and is no account for that asset",
            id="cash in the fund",
        ),
        pytest.param(
            held(LENDS, CLAIMS, 1, 901),
            f"asset {CLAIMS}: subaccount/*/claim is at 1 atoms, on the wrong side of zero",
            id="a negative positive claim",
        ),
        pytest.param(
            held(OWES, DEBTS, 2, -701),
            f"asset {OWES}: liquidity-fund is at -1 atoms, on the wrong side of zero",
            id="a negative debt of the fund",
        ),
        pytest.param(
            [(claim(1), LENDS, -1), (POOL_SHARES, LENDS, 1)],
            f"asset {LENDS}: subaccount/*/claim is at -1, and is no account for that asset",
            id="the pool's shares as a claim",
        ),
        pytest.param(
            [(INSURANCE_FUND, USDC, 11), (available(1), USDC, -11)],
            f"asset {USDC}: equity/insurance-fund is at 1 atoms, on the wrong side of zero",
            id="an insurance fund below zero",
        ),
        pytest.param(
            [(BACKSTOP_FUND, USDC, 3), (available(1), USDC, -3)],
            f"asset {USDC}: equity/backstop-fund is at 1 atoms, on the wrong side of zero",
            id="a backstop fund below zero",
        ),
        pytest.param(
            [(HOT_SOL, USDC, 1)],
            f"asset {USDC}: postings sum to 1 atoms, expected 0",
            id="custody that nobody is owed",
        ),
    ],
)
def test_each_broken_promise_is_found(legs: list[Posting], expected: str) -> None:
    """A-13, V-5"""
    totals = totals_of(moved(*legs))

    assert expected in totals.violations()
    with pytest.raises(ConservationError):
        totals.require()


def test_the_insurance_funds_shares_count_as_shares_in_the_pool() -> None:
    """L-8: what nobody else takes passes to the fund as a claim on the pool."""
    lent_by_fund = moved(
        (available(1), USDC, 5), (POOL_LENT, USDC, -5), (INSURANCE_FUND, LENDS, -5), (POOL_SHARES, LENDS, 5)
    )

    totals_of(lent_by_fund).require()
