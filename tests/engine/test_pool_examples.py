"""Both worked examples of the seed: 1,000 at 10x, 500 of 10,000 paid in interest, the price doubles, 9,000 gained.

The seed's round numbers leave out fees and slippage ("minus fees"); what they come to is worked out here by itself, in
fractions, and the engine must pay it to the atom.   [S3, X-5, X-9, X-10]
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from engine import pools
from engine.events import LongClosed
from engine.parameters import DEC
from ledger.chart import amm_book, amm_fund, amm_pool, external_custody, external_owed, in_custody, native_custody
from tests.engine.amm import FEE, HOUR, ROWAN, USDC, Party, Pond, swapped

DEEP = 10**9
"""Whole coins on each side: 10,000 of them move the price by 2 in 100,000."""
OWED = 9_000
"""What 1,000 at 10x borrow."""
PER_EPOCH = DEC // 18 + 1
"""The rate at which 9,000 owe 500 after one epoch."""


def seeded(fee: Fraction = FEE, fund_share: int = 0) -> tuple[Pond, Party, Party]:
    """A deep pool at 1, somebody to move its price, and Sally with 1,000 of each."""
    pond = Pond(
        DEEP, DEEP, rate_min=PER_EPOCH, rate_max=PER_EPOCH, fee_rate=int(fee * DEC), interest_fund_share=fund_share
    )
    whale = pond.party("whale", rowan=DEEP, usdc=DEEP)
    sally = pond.party("sally", rowan=1_000, usdc=1_000)
    pond.until_epoch(seconds_before=600)
    return pond, sally, whale


@pytest.mark.parametrize("fee", [FEE, Fraction(0)], ids=["fee", "no fee"])
@pytest.mark.parametrize("fund_share", [35 * DEC // 100, 0], ids=["35 % to the fund", "initial stage"])
def test_sally_is_long_rowan(fee: Fraction, fund_share: int) -> None:
    """Example 1: collateral 1,000 USDC, custody in ROWAN, the price goes from 1 to 2.   [S3, X-5, X-9, X-10]"""
    pond, sally, whale = seeded(fee, fund_share)
    native, external = pools.depths(pond.pool)

    # She provides 1,000, the pool lends 9,000, and 10,000 are swapped.
    opened = sally.opens("ROWAN", 1_000 * USDC, 10 * DEC)
    custody, open_fee = swapped(external, native, 10_000 * USDC, fee)
    assert (opened.owed_atoms, opened.custody_atoms) == (OWED * USDC, custody)
    assert sally.has("USDC") == 0
    native, external = native - custody, external + 10_000 * USDC
    assert pools.depths(pond.pool) == (native, external)

    # One epoch: 500 USDC are owed, and paid in ROWAN out of custody. In the seed 9,500 are left.
    (ran,) = pond.until_epoch()
    taken = swapped(external, native, 500 * USDC, fee)[0]
    to_fund = taken * fund_share // DEC
    assert sally.position.custody == custody - taken
    assert abs(sally.position.custody - 9_500 * ROWAN) <= (10_000 - 500) * ROWAN * fee + ROWAN
    assert (ran.charged, ran.native_interest, ran.native_to_fund) == (1, taken - to_fund, to_fund)
    assert pond.balance(amm_fund(pond.usdc), "ROWAN") == -to_fund
    custody -= taken

    pond.moves_to(Fraction(2), whale)
    assert abs(pond.price - 2) < Fraction(1, 100)
    shift = pond.price - 2
    closed, expected = close_in_time(pond, sally, custody, fee, fund_share, is_native=False)

    assert closed.returned_atoms == sally.has("USDC") == expected.returned
    gained = closed.returned_atoms - 1_000 * USDC
    # 19,000 − 9,000 − 1,000: fees are 0.3 % of 10,000 at the later price and of 19,000; interest was 0.3 % less.
    explained = fee * (10_000 * 2 - 500 * 2 + 19_000) * USDC
    slippage_and_price = (2 + abs(shift) * 9_500) * USDC
    running_epoch = expected.interest_of_epoch * 2 * USDC / ROWAN
    assert abs(9_000 * USDC - explained - running_epoch - gained) <= slippage_and_price
    if not fee:
        assert abs(gained + running_epoch - 9_000 * USDC) <= slippage_and_price
    assert_ended(pond, sally)

    # What the providers got: a fee in ROWAN at the open, interest in ROWAN, a fee in USDC at the close.
    fees_native, fees_external, interest_native, interest_external = pools.earned(
        pond.pool, pond.pool.holders[pond.lp.subaccount]
    )
    assert 0 <= taken - to_fund + expected.interest_of_epoch - expected.fund_of_epoch - interest_native <= 3
    assert interest_external == 0
    if fee:
        assert fees_native >= open_fee - 1 and fees_external >= expected.fee - 1
    assert pond.is_conserved()


@pytest.mark.parametrize("fee", [FEE, Fraction(0)], ids=["fee", "no fee"])
def test_sally_is_long_usdc(fee: Fraction) -> None:
    """Example 2, mirrored: collateral 1,000 ROWAN, custody in USDC, ROWAN falls from 1 to 0.5.   [S3, X-5, X-10]"""
    pond, sally, whale = seeded(fee)
    native, external = pools.depths(pond.pool)

    opened = sally.opens("USDC", 1_000 * ROWAN, 10 * DEC)
    custody, open_fee = swapped(native, external, 10_000 * ROWAN, fee)
    assert (opened.owed_atoms, opened.custody_atoms, opened.is_native_collateral) == (OWED * ROWAN, custody, True)
    assert sally.has("ROWAN") == 0
    native, external = native + 10_000 * ROWAN, external - custody

    (ran,) = pond.until_epoch()
    taken = swapped(native, external, 500 * ROWAN, fee)[0]
    assert sally.position.custody == custody - taken
    assert abs(sally.position.custody - 9_500 * USDC) <= (10_000 - 500) * USDC * fee + USDC
    assert (ran.external_interest, ran.native_interest) == (taken, 0)
    custody -= taken

    pond.moves_to(Fraction(1, 2), whale)
    assert abs(pond.price - Fraction(1, 2)) < Fraction(1, 400)
    shift = 1 / pond.price - 2
    closed, expected = close_in_time(pond, sally, custody, fee, 0, is_native=True)

    assert closed.returned_atoms == sally.has("ROWAN") == expected.returned
    gained = closed.returned_atoms - 1_000 * ROWAN
    explained = fee * (10_000 * 2 - 500 * 2 + 19_000) * ROWAN
    slippage_and_price = (2 + abs(shift) * 9_500) * ROWAN
    running_epoch = expected.interest_of_epoch * 2 * ROWAN / USDC
    assert abs(9_000 * ROWAN - explained - running_epoch - gained) <= slippage_and_price
    # "10,000 ROWAN at 0.5": her 1,000 became 10,000, a gain of 4,500 USD.
    assert abs(gained * pond.price / ROWAN - 4_500) <= fee * 20_000 + 2 * running_epoch / ROWAN + 30
    assert_ended(pond, sally)
    _native_fees, external_fees, _native_interest, external_interest = pools.earned(
        pond.pool, pond.pool.holders[pond.lp.subaccount]
    )
    assert 0 <= taken + expected.interest_of_epoch - external_interest <= 3
    assert external_fees >= open_fee - 1
    assert pond.is_conserved()


class Expected:
    """A close worked out by fractions.   [X-9, X-10]"""

    def __init__(self, returned: int, fee: int, interest_of_epoch: int, fund_of_epoch: int) -> None:
        self.returned = returned
        self.fee = fee
        self.interest_of_epoch = interest_of_epoch
        self.fund_of_epoch = fund_of_epoch


def close_in_time(
    pond: Pond, sally: Party, custody: int, fee: Fraction, fund_share: int, is_native: bool
) -> tuple[LongClosed, Expected]:
    """Sally closes; what she must get by X-9 for the part of the epoch and X-10."""
    native, external = pools.depths(pond.pool)
    own, other = (native, external) if is_native else (external, native)
    owed = OWED * (ROWAN if is_native else USDC)
    elapsed_us = (pond.exchange.at_us + 1) % (HOUR * 10**6)
    due = Fraction(PER_EPOCH, DEC) * elapsed_us / (HOUR * 10**6) * owed // 1
    taken = swapped(own, other, int(due), fee)[0]
    to_fund = taken * fund_share // DEC
    repaid, close_fee = swapped(other + custody - to_fund, own, custody - taken, fee)
    closed = sally.closes()
    assert (closed.repaid_atoms, closed.fee_atoms, closed.bad_debt_atoms) == (repaid, close_fee, 0)
    return closed, Expected(repaid - owed, close_fee, taken, to_fund)


def assert_ended(pond: Pond, sally: Party) -> None:
    """Nothing of the position is left in the state or in the ledger.   [X-14]"""
    assert not pond.state.amm_positions and not pond.pool.positions
    usdc = pond.usdc
    balances = pond.state.balances
    for account in (in_custody(sally.subaccount), amm_book(usdc)):
        for asset in (native_custody(usdc), external_custody(usdc), external_owed(usdc)):
            assert balances.get(account << 24 | asset, 0) == 0
    pool = pond.pool
    assert pond.balance(amm_pool(usdc), "USDC") == -pool.external_balance
    assert pond.balance(amm_pool(usdc), "ROWAN") == -pool.native_balance
