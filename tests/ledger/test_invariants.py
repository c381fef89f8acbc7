"""Conservation of the money markets: a pool that holds, and each way of breaking it found by name.   [A-13, B-14]"""

from __future__ import annotations

import pytest

from ledger.chart import (
    POOL_BORROWED,
    POOL_FEES,
    POOL_LENT,
    POOL_SHARES,
    POOL_YIELD,
    AccountKind,
    account_id,
    available,
    borrowed,
    debt_share,
    lend_share,
    lent,
)
from ledger.invariants import ConservationError, RunningTotals
from ledger.journal import JournalKind, JournalTransaction, Posting, PostingBatch
from tests.ledger.logs import HOT_SOL, SOL, USDC, LogBuilder, deposit, transaction

ONE = 10**9
"""Shares per atom in a new pool."""
STAKED = account_id(AccountKind.STAKED, 1)


def lend(subaccount: int, atoms: int) -> JournalTransaction:
    shares = atoms * ONE
    legs: list[Posting] = [(available(subaccount), SOL, atoms), (POOL_LENT, SOL, -atoms)]
    legs += [(lent(subaccount), lend_share(SOL), -shares), (POOL_SHARES, lend_share(SOL), shares)]
    return transaction(JournalKind.LEND, legs)


def borrow(subaccount: int, atoms: int) -> JournalTransaction:
    shares = atoms * ONE
    legs: list[Posting] = [(POOL_BORROWED, SOL, atoms), (available(subaccount), SOL, -atoms)]
    legs += [(borrowed(subaccount), debt_share(SOL), shares), (POOL_SHARES, debt_share(SOL), -shares)]
    return transaction(JournalKind.BORROW, legs)


def interest(atoms: int, fee: int) -> JournalTransaction:
    legs = [(POOL_BORROWED, SOL, atoms), (POOL_LENT, SOL, fee - atoms), (POOL_FEES, SOL, -fee)]
    return transaction(JournalKind.INTEREST, legs)


def totals_of(*entries: JournalTransaction) -> RunningTotals:
    """The sums after two deposits, 1,000 atoms of SOL lent, 400 borrowed, 20 of interest, 2 of them fees; and these."""
    log = LogBuilder()
    log.add("deposits", deposit(1, SOL, 1_000), deposit(2, USDC, 5_000))
    log.add("loans", lend(1, 1_000), borrow(2, 400), interest(20, 2))
    log.add("more", *entries)
    totals = RunningTotals()
    totals.add(log.commit().journal)
    return totals


def moved(*legs: Posting) -> JournalTransaction:
    return transaction(JournalKind.TRANSFER, legs)


def test_a_sound_pool_passes_and_so_does_an_empty_one() -> None:
    """B-14"""
    totals_of().require()
    everything_back = moved(
        (POOL_BORROWED, SOL, -420), (available(2), SOL, 420),
        (borrowed(2), debt_share(SOL), -400 * ONE), (POOL_SHARES, debt_share(SOL), 400 * ONE),
        (POOL_LENT, SOL, 1_018), (POOL_FEES, SOL, 2), (available(1), SOL, -1_020),
        (lent(1), lend_share(SOL), 1_000 * ONE), (POOL_SHARES, lend_share(SOL), -1_000 * ONE),
    )
    # Subaccount 2 owes 20 more than it borrowed.
    totals_of(deposit(2, SOL, 20), everything_back).require()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param(
            [moved((POOL_BORROWED, SOL, 601), (available(2), SOL, -601))],
            "asset 1: 1018 atoms lent and 2 of fees do not cover 1021 borrowed, 0 staked",
            id="more borrowed than there is",
        ),
        pytest.param(
            [moved((STAKED, SOL, 601), (HOT_SOL, SOL, -601))],
            "asset 1: 1018 atoms lent and 2 of fees do not cover 420 borrowed, 601 staked",
            id="more staked than is idle",
        ),
        pytest.param(
            [moved((lent(1), lend_share(SOL), 1_000 * ONE), (POOL_SHARES, lend_share(SOL), -1_000 * ONE))],
            "asset 1: 1018 atoms are lent, and nobody has a share of them",
            id="lent by nobody",
        ),
        pytest.param(
            [moved((borrowed(2), debt_share(SOL), -400 * ONE), (POOL_SHARES, debt_share(SOL), 400 * ONE))],
            "asset 1: 420 atoms are borrowed, and nobody has a share of the debt",
            id="owed by nobody",
        ),
        pytest.param(
            [moved((lent(1), lend_share(SOL), 1_001 * ONE), (POOL_SHARES, lend_share(SOL), -1_001 * ONE))],
            f"asset {lend_share(SOL)}: subaccount/*/lent is at {ONE} atoms, on the wrong side of zero",
            id="a negative claim",
        ),
        pytest.param(
            [moved((borrowed(2), debt_share(SOL), -401 * ONE), (POOL_SHARES, debt_share(SOL), 401 * ONE))],
            f"asset {debt_share(SOL)}: subaccount/*/borrowed is at {-ONE} atoms, on the wrong side of zero",
            id="a negative debt",
        ),
        pytest.param(
            [moved((POOL_LENT, SOL, 1_019), (available(1), SOL, -1_019))],
            "asset 1: money-market/lent is at 1 atoms, on the wrong side of zero",
            id="redeemed what was not lent",
        ),
        pytest.param(
            [moved((POOL_BORROWED, SOL, -421), (available(2), SOL, 421))],
            "asset 1: money-market/borrowed is at -1 atoms, on the wrong side of zero",
            id="repaid what was not owed",
        ),
        pytest.param(
            [moved((POOL_FEES, SOL, 3), (available(1), SOL, -3))],
            "asset 1: money-market/fees is at 1 atoms, on the wrong side of zero",
            id="fees that were not earned",
        ),
        pytest.param(
            [moved((POOL_YIELD, SOL, 1), (available(1), SOL, -1))],
            "asset 1: money-market/yield is at 1 atoms, on the wrong side of zero",
            id="yield that was not received",
        ),
        pytest.param(
            [moved((STAKED, SOL, -1), (HOT_SOL, SOL, 1))],
            "asset 1: staked/* is at -1 atoms, on the wrong side of zero",
            id="unstaked what was not staked",
        ),
        pytest.param(
            [moved((lent(1), lend_share(SOL), 7), (available(1), lend_share(SOL), -7))],
            f"asset {lend_share(SOL)}: subaccount/*/available is at -7, and is no account for that asset",
            id="shares among the atoms",
        ),
        pytest.param(
            [moved((available(1), USDC, 7), (lent(1), USDC, -7))],
            "asset 2: subaccount/*/lent is at -7, and is no account for that asset",
            id="atoms among the shares",
        ),
        pytest.param(
            [moved((borrowed(2), lend_share(SOL), 7), (POOL_SHARES, lend_share(SOL), -7))],
            f"asset {lend_share(SOL)}: subaccount/*/borrowed is at 7, and is no account for that asset",
            id="a claim booked as a debt",
        ),
    ],
)
def test_each_broken_promise_is_found(entries: list[JournalTransaction], expected: str) -> None:
    """A-13, B-14"""
    totals = totals_of(*entries)

    assert expected in totals.violations()
    with pytest.raises(ConservationError, match="asset"):
        totals.require()


def test_a_batch_counts_as_its_rows_do() -> None:
    """A-13, A-2"""
    batch = PostingBatch.of(AccountKind.LENT, lend_share(SOL), [1, 3], [1_000 * ONE, 0])
    entry = transaction(JournalKind.TRANSFER, [(POOL_SHARES, lend_share(SOL), -1_000 * ONE)], (), (batch,))

    assert totals_of(entry).violations() == ["asset 1: 1018 atoms are lent, and nobody has a share of them"]
