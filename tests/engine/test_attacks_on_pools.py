"""What was tried against liquidity pools, here and where they come from, and what defeats it.   [X-1 … X-15]

The field's own incidents come first; where a guard is a parameter, the attack is shown to pay without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from msgspec.structs import asdict, replace

from engine import margin, pool_positions, pools
from engine.commands import (
    BorrowLend,
    CloseLong,
    Command,
    ConfigurePool,
    LendingSide,
    OpenLong,
    RunPoolEpochs,
    SetPrices,
    SwapAssets,
)
from engine.events import LongClosed, LongNotClosed
from engine.parameters import DEC, PRICE_SCALE, PoolState
from engine.rejections import RejectReason
from ledger.chart import amm_pool
from tests.engine.amm import HOUR, ROWAN, SOL, USDC, Party, Pond, swapped

CHEAP = {"rate_min": DEC // 10**6, "rate_max": DEC // 10**6}
"""Interest that hardly matters."""


@pytest.fixture
def pond() -> Pond:
    return Pond()


@pytest.fixture
def lent() -> Pond:
    """A pool with a position on each side."""
    pond = Pond(**CHEAP)
    sally = pond.party("sally", rowan=10_000, usdc=10_000)
    sally.opens("ROWAN", 10_000 * USDC, 2 * DEC)
    sally.opens("USDC", 10_000 * ROWAN, 3 * DEC)
    pond.passes(120)
    return pond


# What pools count as theirs


@pytest.mark.parametrize(("pays", "gets"), [("USDC", "ROWAN"), ("ROWAN", "USDC")])
def test_a_swap_with_positions_open_moves_balances_by_what_was_swapped(lent: Pond, pays: str, gets: str) -> None:
    """2022-09-19: each swap wrote custody and debts into the balances, and whoever left took too much.

    [X-1, X-14, T-142]
    """
    trader = lent.party("trader", rowan=50_000, usdc=50_000)
    pool = lent.pool
    for atoms in (1, 999, 10**6, 10**10):
        before = pools.view(pool)
        swap = trader.swaps(pays, gets, atoms, min_received=0)
        after = pools.view(pool)
        native, external = (atoms, -swap.received_atoms) if pays == "ROWAN" else (-swap.received_atoms, atoms)
        assert after == replace(
            before, native_balance=before.native_balance + native, external_balance=before.external_balance + external
        )
        depths = (before.native_balance + before.native_owed, before.external_balance + before.external_owed)
        into, out = depths if pays == "ROWAN" else depths[::-1]
        assert (swap.received_atoms, swap.fee_atoms) == swapped(into, out, atoms)
        assert -lent.balance(amm_pool(lent.usdc), "USDC") == pool.external_balance + pool.external_custody
        assert -lent.balance(amm_pool(lent.usdc), "ROWAN") == pool.native_balance + pool.native_custody
    assert lent.is_conserved()


def test_a_provider_who_leaves_after_swaps_gets_its_share_and_no_custody(lent: Pond) -> None:
    """Of the depths, debts included and custody not, rounded down.   [X-4]"""
    other = lent.party("other", rowan=100_000, usdc=100_000)
    other.adds(100_000 * ROWAN, 100_000 * USDC)
    trader = lent.party("trader", usdc=50_000)
    trader.swaps("USDC", "ROWAN", 50_000 * USDC)
    pool, units, all_units = lent.pool, other.units, lent.pool.units
    native, external = pool.native_balance + pool.native_owed, pool.external_balance + pool.external_owed
    assert other.removes(units=units) == (native * units // all_units, external * units // all_units)
    assert lent.is_conserved()


def test_more_than_the_balance_cannot_be_swapped_out_although_the_depth_has_it() -> None:
    """Depth counts what is lent; coins that are not there are not paid.   [X-1, X-15]"""
    pond = Pond(lent_max=0, open_threshold=0, price_move_max=0, **CHEAP)
    sally = pond.party("sally", usdc=500_000)
    sally.opens("ROWAN", 500_000 * USDC, 2 * DEC)
    pool = pond.pool
    whale = pond.party("whale", rowan=4_000_000)
    native, external = pools.depths(pool)
    most = largest(lambda paid: swapped(native, external, paid)[0] < pool.external_balance, 4_000_000 * ROWAN)
    refused = whale.refusal(whale.swap("ROWAN", "USDC", most + 1))
    assert refused.reason is RejectReason.POOL_DEPTH
    assert refused.facts["asked"] == refused.facts["balance"] == pool.external_balance < external
    whale.swaps("ROWAN", "USDC", most)
    assert pool.external_balance == 1 and pond.is_conserved()
    # With one atom left on a side everything still is refused in words.
    assert whale.refusal(whale.swap("ROWAN", "USDC", ROWAN)).reason is RejectReason.POOL_DEPTH
    assert sally.refusal(sally.close()).reason is RejectReason.POOL_DEPTH
    assert pond.lp.refusal(pond.lp.removal(units=pond.lp.units // 2)).reason is RejectReason.POOL_DEPTH
    assert len(pond.until_epoch()) >= 1


def largest(is_fine: Callable[[int], bool], high: int) -> int:
    """The largest number up to `high` that is fine, of a row that is fine up to somewhere."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_fine(middle) else (low, middle - 1)
    return low


def test_more_than_the_balance_is_not_withdrawn() -> None:
    """The original stopped its chain over it.   [X-4]"""
    pond = Pond(lent_max=0, open_threshold=0, removal_threshold=0, price_move_max=0, **CHEAP)
    sally = pond.party("sally", usdc=500_000)
    sally.opens("ROWAN", 300_000 * USDC, 3 * DEC)
    pool, held = pond.pool, pond.lp.units
    share = pools.share(pool, held * 9 // 10)
    assert share[1] > pool.external_balance
    refused = pond.lp.refusal(pond.lp.removal(units=held * 9 // 10))
    assert refused.reason is RejectReason.POOL_DEPTH
    assert (refused.facts["asked"], refused.facts["balance"]) == (share[1], pool.external_balance)
    assert pond.lp.refusal(pond.lp.removal(basis_points=10_000)).reason is RejectReason.POOL_DEPTH


def test_a_removal_that_lowers_health_below_its_threshold_is_refused() -> None:
    """Measured on what would be left, not on a health of an hour ago.   [X-4, X-7]"""
    pond = Pond(removal_threshold=85 * DEC // 100, **CHEAP)
    sally = pond.party("sally", usdc=4_000)
    sally.opens("ROWAN", 4_000 * USDC, 6 * DEC)
    pool = pond.pool
    assert pool.health > 97 * DEC // 100
    before = pools.view(pool)
    refused = pond.lp.refusal(pond.lp.removal(basis_points=9_000))
    assert refused.reason is RejectReason.POOL_HEALTH
    _native, external = pools.share(pool, pond.lp.units * 9 // 10)
    left = Fraction(before.external_balance - external, before.external_balance - external + before.external_owed)
    assert refused.facts["least"] == 85 * DEC // 100 and abs(int(refused.facts["health"]) - left * DEC) < 10**6
    pond.lp.removes(basis_points=5_000)


# Which assets


def test_borrowing_the_collateral_asset_is_refused(pond: Pond) -> None:
    """Priced as if it were the native one, both ways: in the original that emptied the pool.   [X-5, X-15, T-139]"""
    sally = pond.party("sally", rowan=1_000, usdc=1_000)
    for symbol, atoms in (("USDC", 100 * USDC), ("ROWAN", 100 * ROWAN)):
        refused = sally.refusal(sally.long(symbol, atoms, 11 * DEC // 10, pays=symbol))
        assert refused.reason is RejectReason.POOL_PAIR
        assert sally.refusal(sally.swap(symbol, symbol, atoms)).reason in (
            RejectReason.POOL_PAIR, RejectReason.UNKNOWN_POOL,
        )  # fmt: skip


def test_a_pair_without_the_native_asset_is_refused(pond: Pond) -> None:
    """Both have a pool, and still: exactly one of the two is native.   [X-5, X-15]"""
    sol = pond.exchange.asset("SOL")
    assert sol in pond.state.amm_pools
    sally = pond.party("sally", sol=100, usdc=1_000)
    assert sally.refusal(sally.long("SOL", 100 * USDC, pays="USDC")).reason is RejectReason.POOL_PAIR
    assert sally.refusal(sally.long("USDC", SOL, pays="SOL")).reason is RejectReason.POOL_PAIR


@pytest.mark.parametrize("unknown", [0, -1, 999, 2**32, 2**63, 2**64])
def test_unknown_assets_and_pools_are_refused(pond: Pond, unknown: int) -> None:
    """Wherever an asset or a pool is named.   [X-5, X-15]"""
    lp = pond.lp
    for long in (
        OpenLong(lp.subaccount, pond.usdc, unknown, USDC, 2 * DEC),
        OpenLong(lp.subaccount, unknown, pond.rowan, USDC, 2 * DEC),
        OpenLong(lp.subaccount, unknown, unknown, USDC, 2 * DEC),
    ):
        assert lp.refusal(long).reason is RejectReason.UNKNOWN_ASSET
    for command in (
        SwapAssets(lp.subaccount, pond.usdc, unknown, USDC),
        SwapAssets(lp.subaccount, unknown, pond.usdc, USDC),
        SwapAssets(lp.subaccount, pond.rowan, unknown, USDC),
        replace(lp.addition(ROWAN, USDC), pool_id=unknown),
        replace(lp.removal(units=1), pool_id=unknown),
    ):
        assert lp.refusal(command).reason is RejectReason.UNKNOWN_POOL
    assert lp.refusal(CloseLong(lp.subaccount, unknown)).reason is RejectReason.UNKNOWN_POOL_POSITION


def test_an_asset_without_a_pool_is_refused(pond: Pond) -> None:
    """It exists, and nobody pools it: neither a swap nor a long.   [X-5]"""
    eth = pond.exchange.asset("ETH")
    assert eth not in pond.state.amm_pools
    pond.exchange.deposit(pond.lp.subaccount, "ETH", 10**12)
    lp = pond.lp
    assert lp.refusal(lp.swap("ETH", "ROWAN", 10**6)).reason is RejectReason.UNKNOWN_POOL
    assert lp.refusal(lp.swap("ETH", "USDC", 10**6)).reason is RejectReason.UNKNOWN_POOL
    assert lp.refusal(lp.long("ROWAN", 10**6, pays="ETH")).reason is RejectReason.POOL_PAIR


def test_native_collateral_can_be_switched_off() -> None:
    """As a migration of the original did.   [X-5]"""
    pond = Pond(takes_native_collateral=False)
    sally = pond.party("sally", rowan=1_000, usdc=1_000)
    assert sally.refusal(sally.long("USDC", 100 * ROWAN)).reason is RejectReason.NATIVE_COLLATERAL
    sally.opens("ROWAN", 100 * USDC)


# Prices pushed within an instant


def accomplices(guard: int) -> tuple[Pond, Party, Party]:
    pond = Pond(price_move_max=guard, lent_max=DEC, **CHEAP)
    return pond, pond.party("mallory", usdc=100_000), pond.party("accomplice", rowan=1_000_000, usdc=1_000_000)


def test_an_open_that_moves_the_price_for_an_accomplice_who_sells() -> None:
    """10x of a tenth of the pool: the accomplice sells what the open paid too much for, providers are left with it.

    [X-5, decision 0016, T-140]
    """
    pond, mallory, friend = accomplices(guard=0)
    wealth = mallory.worth() + friend.worth()
    long = mallory.opens("ROWAN", 60_000 * USDC, 9 * DEC)
    friend.swaps("ROWAN", "USDC", long.custody_atoms)
    # At the price that was and is again. The position is left where it is, owing more than it has.
    assert abs(pond.price - 1) < Fraction(1, 100)
    assert pool_positions.health(pond.pool, mallory.position) < DEC * 8 // 10
    assert mallory.worth() + friend.worth() - wealth > 100_000 * USDC
    # And at the epoch the providers have the loss.
    (closed, _ran) = pond.until_epoch()
    assert closed.bad_debt_atoms > 100_000 * USDC

    pond, mallory, _friend = accomplices(guard=5 * DEC // 100)
    refused = mallory.refusal(mallory.long("ROWAN", 60_000 * USDC, 9 * DEC))
    assert refused.reason is RejectReason.POOL_PRICE_MOVED
    assert int(refused.facts["price_after"]) > int(refused.facts["mean"]) * 105 // 100


def test_what_the_guard_lets_through_gains_nothing_at_an_open() -> None:
    """As much as it lets through, as often as one instant has room: the accomplice gains less than is lost.   [X-5]"""
    pond, mallory, friend = accomplices(guard=5 * DEC // 100)
    wealth = mallory.worth() + friend.worth()
    rounds = 0
    while rounds < 20:
        command = mallory.long("ROWAN", 2_300 * USDC, 10 * DEC)
        if mallory.tries(command).rejection is not None:
            break
        friend.swaps("ROWAN", "USDC", mallory.position.custody)
        rounds += 1
    assert rounds >= 5
    for position in list(pond.pool.positions.values()):
        mallory.tries(mallory.close(position.position_id))
    assert mallory.worth() + friend.worth() < wealth


def test_a_price_pushed_before_an_open_is_refused() -> None:
    """The sandwich: push, open, and let the pool pay for the way back.   [X-5, T-140]"""
    for pays, gets in (("USDC", "ROWAN"), ("ROWAN", "USDC")):
        pond, mallory, friend = accomplices(guard=5 * DEC // 100)
        friend.swaps(pays, gets, 100_000 * (USDC if pays == "USDC" else ROWAN))
        refused = mallory.refusal(mallory.long("ROWAN", 100 * USDC))
        assert refused.reason is RejectReason.POOL_PRICE_MOVED
        # Also a moment later; after the mean's time it is the price.
        pond.passes(1)
        assert mallory.refusal(mallory.long("ROWAN", 100 * USDC)).reason is RejectReason.POOL_PRICE_MOVED
        pond.passes(60)
        mallory.opens("ROWAN", 100 * USDC)


def test_an_open_that_brings_a_pushed_price_back_is_refused() -> None:
    """Both prices count, before and after: or a long would begin at what was cheap for a moment.   [X-5]"""
    pond, mallory, friend = accomplices(guard=5 * DEC // 100)
    friend.swaps("ROWAN", "USDC", 42_000 * ROWAN)
    pushed = pond.price
    refused = mallory.refusal(mallory.long("ROWAN", 4_000 * USDC, 9 * DEC))
    assert refused.reason is RejectReason.POOL_PRICE_MOVED and pushed < Fraction(95, 100)
    assert int(refused.facts["price"]) == pools.spot(pond.pool)
    pond.set(price_move_max=0)
    mallory.opens("ROWAN", 4_000 * USDC, 9 * DEC)
    assert abs(pond.price - 1) < Fraction(5, 100)


def test_pushing_there_and_back_does_not_move_the_mean(pond: Pond) -> None:
    """Swaps within one instant weigh nothing, however many they are.   [X-5]"""
    whale = pond.party("whale", rowan=2_000_000, usdc=2_000_000)
    mean = pools.mean_price(pond.pool, pond.exchange.at_us)
    for _round in range(50):
        paid = whale.swaps("USDC", "ROWAN", 1_000_000 * USDC)
        whale.swaps("ROWAN", "USDC", paid.received_atoms)
    moved = abs(pools.mean_price(pond.pool, pond.exchange.at_us) - mean)
    assert moved * 10_000 < mean


def dumping(guard: int) -> tuple[Pond, Party, Party]:
    """Mallory is long 90,000 with 10,000; an accomplice has ROWAN to push with."""
    pond = Pond(price_move_max=0, **CHEAP)
    mallory, friend = pond.party("mallory", usdc=10_000), pond.party("friend", rowan=1_000_000)
    mallory.opens("ROWAN", 10_000 * USDC, 9 * DEC)
    pond.passes(120)
    pond.set(price_move_max=guard)
    return pond, mallory, friend


def test_a_close_at_a_price_that_an_accomplice_pushed_down() -> None:
    """The accomplice sells before, buys back below what the close sold at: providers bear the debt.   [X-10, 0016]"""
    _pond, mallory, friend = dumping(guard=0)
    wealth = mallory.worth() + friend.worth()
    sold = friend.swaps("ROWAN", "USDC", 900_000 * ROWAN)
    closed = mallory.closes()
    friend.swaps("USDC", "ROWAN", sold.received_atoms)
    assert closed.bad_debt_atoms > 50_000 * USDC and closed.returned_atoms == 0
    gained = mallory.worth() + friend.worth() - wealth
    assert gained > 20_000 * USDC

    _pond, mallory, friend = dumping(guard=5 * DEC // 100)
    friend.swaps("ROWAN", "USDC", 900_000 * ROWAN)
    refused = mallory.refusal(mallory.close())
    assert refused.reason is RejectReason.POOL_PRICE_MOVED and mallory.position.owed == 80_000 * USDC


def test_a_price_pushed_down_before_the_epoch_closes_nobody() -> None:
    """To be liquidated, or to have others liquidated and buy what they had: neither within an instant.

    [X-11, T-140]
    """
    for guard, gains in ((0, True), (5 * DEC // 100, False)):
        pond, mallory, friend = dumping(guard)
        pond.until_epoch(seconds_before=1)
        wealth = friend.worth()
        sold = friend.swaps("ROWAN", "USDC", 900_000 * ROWAN)
        events = pond.until_epoch()
        friend.swaps("USDC", "ROWAN", sold.received_atoms)
        gained = friend.worth() - wealth
        if gains:
            assert isinstance(events[0], LongClosed) and events[0].forced and gained > 10_000 * USDC
        else:
            assert isinstance(events[0], LongNotClosed) and events[0].reason == "POOL_PRICE_MOVED"
            assert gained < 0 and mallory.position.custody > 0


@pytest.mark.parametrize("guard", [0, 5 * DEC // 100], ids=["off", "on"])
def test_interest_is_not_taken_at_a_price_that_a_provider_pushed(guard: int) -> None:
    """Made cheap for a moment, custody would pay the providers many times what is due; it stays unpaid.

    [X-9, T-141]
    """
    pond = Pond(price_move_max=0, rate_min=DEC // 1_000, rate_max=DEC // 1_000, interest_fund_share=0)
    sally = pond.party("sally", usdc=200_000)
    sally.opens("ROWAN", 200_000 * USDC, 2 * DEC)
    pond.passes(120)
    pond.set(price_move_max=guard, safety_factor=DEC)
    position, due = sally.position, 200 * USDC
    pond.exchange.deposit(pond.lp.subaccount, "ROWAN", 1_000_000 * ROWAN)
    pond.until_epoch(seconds_before=1)
    fair = swapped(*pools.depths(pond.pool)[::-1], due)[0]
    sold = pond.lp.swaps("ROWAN", "USDC", 700_000 * ROWAN)
    pond.until_epoch()
    pond.lp.swaps("USDC", "ROWAN", sold.received_atoms)
    if not guard:
        assert not pond.pool.positions or position.paid_custody > 3 * fair
        return
    assert (position.paid_custody, position.unpaid) == (0, due)
    pond.passes(120)
    pond.until_epoch()
    # Paid in full an hour later, with the interest on it.
    assert (position.paid, position.unpaid) == (due + (200_000 * USDC + due) // 1_000, 0)
    assert fair < position.paid_custody < 21 * fair // 10
    assert pond.is_conserved()


# Sizes


def fields_of(party: Party) -> Iterator[tuple[Command, str, bool]]:
    """A command that would be accepted, one of its fields, and whether that is an amount; not which account."""
    limits = ("min_units", "min_native_atoms", "min_external_atoms", "min_received", "min_custody")
    for command in (
        party.addition(10**9, 10**6),
        party.removal(units=10**9),
        party.removal(basis_points=100),
        party.swap("USDC", "ROWAN", 10**6),
        party.swap("ROWAN", "USDC", 10**9),
        party.swap("USDC", "SOL", 10**6),
        party.long("ROWAN", 10**9, 2 * DEC),
        party.long("USDC", 10**12, 2 * DEC),
        party.close(),
    ):
        for field, value in asdict(command).items():
            if field == "subaccount_id":
                continue
            if field in ("units", "basis_points") and not value:
                continue
            yield command, field, field not in limits


@pytest.mark.parametrize("size", [-(2**63), -1, 0, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**128])
def test_sizes_beyond_all_measure_are_refused_in_every_field(lent: Pond, size: int) -> None:
    """Nothing overflows, nothing stops; below zero is no amount, and 0 is none.   [X-1, X-3, X-4, X-5, X-10, T-144]"""
    sally = lent.party("other", rowan=100_000, usdc=100_000)
    fill_sol(lent)
    sally.adds(10_000 * ROWAN, 10_000 * USDC)
    sally.opens("ROWAN", 1_000 * USDC, 2 * DEC)
    lent.passes(120)
    for command, field, is_amount in fields_of(sally):
        if not is_amount and size <= 0:
            # Asks for nothing.
            continue
        if size == 0 and field in ("native_atoms", "external_atoms"):
            # One side alone is an addition.
            continue
        if field == "leverage" and DEC <= size <= 10 * DEC:
            continue
        refused = sally.refusal(replace(command, **{field: size}))
        assert refused.reason not in (RejectReason.UNKNOWN_KEY, RejectReason.UNSIGNED), (command, field)
    assert lent.is_conserved()


@pytest.mark.parametrize("size", [-(2**63), -1, 0])
def test_no_limit_makes_an_amount_of_nothing_or_less(lent: Pond, size: int) -> None:
    """Who asks for less than nothing gets what he pays: nothing below zero is paid.   [X-1, X-3, X-5]"""
    lp, least = lent.lp, -(2**63)
    for command in (
        lp.swap("USDC", "ROWAN", size, min_received=least), lp.swap("ROWAN", "USDC", size, min_received=least),
        lp.swap("USDC", "SOL", size, min_received=least), lp.long("ROWAN", size, min_custody=least),
        lp.addition(size, -1, min_units=least), lp.addition(-1, size, min_units=least),
    ):  # fmt: skip
        assert lp.refusal(command).reason is RejectReason.POOL_AMOUNT, command
    for removal in (lp.removal(units=size, min_native_atoms=least), lp.removal(basis_points=size)):
        assert lp.refusal(removal).reason is RejectReason.POOL_UNITS


def test_every_command_of_the_sizes_test_is_accepted_as_it_is(lent: Pond) -> None:
    """So that what is refused there is the size."""
    sally = lent.party("other", rowan=100_000, usdc=100_000)
    fill_sol(lent)
    sally.adds(10_000 * ROWAN, 10_000 * USDC)
    sally.opens("ROWAN", 1_000 * USDC, 2 * DEC)
    lent.passes(120)
    done: list[Command] = []
    for command, _field, _is_amount in list(fields_of(sally)):
        if command not in done:
            sally.does(command)
            done.append(command)
    assert len(done) == 9


def fill_sol(pond: Pond) -> None:
    """A second pool, ROWAN : SOL at 150."""
    other = pond.party("fills sol", rowan=150_000, sol=1_000)
    sol = pond.exchange.asset("SOL")
    other.does(replace(other.addition(150_000 * ROWAN, 1_000 * SOL), pool_id=sol))


def test_a_side_never_holds_more_than_a_command_can_carry() -> None:
    """Balance, debts and custody of a side together stay within 2⁶³ − 1, or what the pool says.   [X-1, X-3, X-5]"""
    most = 2_000_000 * ROWAN
    pond = Pond(max_atoms=most)
    whale = pond.party("whale", rowan=10_000_000, usdc=10_000_000)
    room = most - pond.pool.native_balance
    for command in (
        whale.addition(room + 1, 2_000_000 * USDC), whale.swap("ROWAN", "USDC", room + 1),
    ):  # fmt: skip
        refused = whale.refusal(command)
        assert refused.reason is RejectReason.POOL_LIMIT and refused.facts["maximum"] == most
    assert whale.refusal(whale.swap("ROWAN", "USDC", most + 1)).reason is RejectReason.POOL_AMOUNT
    whale.swaps("ROWAN", "USDC", room)
    assert pond.pool.native_balance == most
    pond.passes(120)
    assert whale.refusal(whale.long("USDC", ROWAN)).reason is RejectReason.POOL_LIMIT
    assert whale.refusal(whale.addition(1, USDC)).reason in (RejectReason.POOL_LIMIT, RejectReason.POOL_AMOUNT)


def test_a_pool_of_the_largest_amounts_still_adds_up() -> None:
    """2⁶³ − 1 atoms on each side: swaps, longs and an epoch, nothing wraps.   [X-1, X-14]"""
    desk = Pond()
    giant = Party(desk, "giant")
    sol = desk.exchange.asset("SOL")
    most = 2**63 - 1
    desk.exchange.deposit(giant.subaccount, "SOL", most)
    desk.exchange.deposit(giant.subaccount, "ROWAN", most)
    giant.does(replace(giant.addition(most // 2, most // 2), pool_id=sol))
    desk.passes(120)
    pool = desk.state.amm_pools[sol]
    half = most // 2
    swap = giant.does(SwapAssets(giant.subaccount, sol, desk.rowan, 10**17)).reply
    assert swap.received_atoms == swapped(half, half, 10**17)[0]
    desk.passes(120)
    giant.does(OpenLong(giant.subaccount, sol, desk.rowan, 10**15, 9 * DEC))
    desk.until_epoch()
    assert pool.positions and giant.position.paid > 0
    assert giant.tries(SwapAssets(giant.subaccount, sol, desk.rowan, most)).rejection is not None
    giant.closes()
    assert desk.is_conserved()


# Dust


def test_dust_positions_are_refused(pond: Pond) -> None:
    """What owes too little to be charged costs the pool a place and pays nothing.   [X-5, #3282, T-144]"""
    sally = pond.party("sally", rowan=1_000, usdc=1_000)
    for gets, atoms, leverage in (
        ("ROWAN", 1, 10 * DEC), ("ROWAN", 111_111, 10 * DEC), ("ROWAN", 100 * USDC, DEC),
        ("ROWAN", 10 * USDC, DEC + 1), ("USDC", 1, 2 * DEC), ("USDC", 10**6, 10 * DEC),
    ):  # fmt: skip
        refused = sally.refusal(sally.long(gets, atoms, leverage))
        assert refused.reason is RejectReason.BORROW_TOO_LOW, (gets, atoms, leverage)
    # 1,000,000 atoms owed are charged one an epoch.
    sally.opens("ROWAN", 111_112, 10 * DEC)
    assert sally.position.owed == 1_000_008


def test_the_least_interest_must_survive_its_swap(pond: Pond) -> None:
    """An atom of ROWAN is no atom of USDC: without one an epoch would take nothing.   [X-5, X-9, #3282]"""
    sally = pond.party("sally", rowan=1_000)
    refused = sally.refusal(sally.long("USDC", 111_112, 10 * DEC))
    assert refused.reason is RejectReason.BORROW_TOO_LOW and refused.facts["interest"] == 1


def test_a_rate_of_zero_lends_nothing() -> None:
    """With no least rate there is no least interest.   [X-5]"""
    pond = Pond(rate_min=0)
    sally = pond.party("sally", usdc=1_000)
    assert sally.refusal(sally.long("ROWAN", 1_000 * USDC)).reason is RejectReason.BORROW_TOO_LOW


# An emptied side


def test_nobody_empties_a_side() -> None:
    """Not even without a fee, and with all the coins that there can be: an atom stays.   [X-1, X-15, T-144]"""
    pond = Pond(fee_rate=0)
    whale = pond.party("whale")
    pond.exchange.deposit(whale.subaccount, "USDC", 2**63 - 1)
    room = 2**63 - 1 - pond.pool.external_balance
    whale.swaps("USDC", "ROWAN", room)
    assert 0 < pond.pool.native_balance < ROWAN
    assert whale.refusal(whale.swap("USDC", "ROWAN", 1, min_received=0)).reason is RejectReason.POOL_LIMIT
    assert len(pond.until_epoch()) == 1 and pond.is_conserved()


def test_an_empty_pool_divides_by_nothing() -> None:
    """After its last provider left: every question is refused, the epoch runs, and it can be filled again.   [X-15]"""
    pond = Pond()
    sally = pond.party("sally", rowan=1_000, usdc=1_000)
    pond.lp.removes(basis_points=10_000)
    pool = pond.pool
    assert (pool.units, pool.native_balance, pool.external_balance) == (0, 0, 0)
    assert pools.spot(pool) == 0 and pools.share(pool, 0) == (0, 0)
    for command, reason in (
        (sally.swap("USDC", "ROWAN", USDC), RejectReason.EMPTY_POOL),
        (sally.swap("ROWAN", "USDC", ROWAN), RejectReason.EMPTY_POOL),
        (sally.swap("SOL", "USDC", ROWAN), RejectReason.EMPTY_POOL),
        (sally.long("ROWAN", USDC), RejectReason.POOL_DEPTH),
        (sally.long("USDC", ROWAN), RejectReason.POOL_DEPTH),
        (sally.removal(units=1), RejectReason.POOL_UNITS),
        (sally.removal(basis_points=1), RejectReason.POOL_UNITS),
        (sally.addition(0, USDC), RejectReason.POOL_AMOUNT),
        (sally.addition(100 * ROWAN, 0), RejectReason.POOL_AMOUNT),
        (sally.addition(0, 0), RejectReason.POOL_AMOUNT),
    ):
        assert sally.refusal(command).reason is reason, command
    assert pond.passes(3 * HOUR) == [] and pool.next_epoch_us == 0
    assert pond.attempt(RunPoolEpochs()).rejection is not None
    pond.lp.adds(1_000 * ROWAN, 2_000 * USDC)
    pond.passes(120)
    sally.opens("ROWAN", USDC)
    assert len(pond.until_epoch()) == 1


def test_a_side_that_is_almost_lent_out_stops_no_epoch() -> None:
    """Health goes to nothing, the rate to its most, nobody divides by what is not there.   [X-7, X-8]"""
    pond = Pond(
        100, 100, lent_max=0, open_threshold=0, price_move_max=0, removal_threshold=0, safety_factor=DEC,
        rate_max=DEC // 100, rate_increase=DEC, gain_factor=DEC // 1_000,
    )  # fmt: skip
    sally = pond.party("sally", usdc=10_000)
    sally.opens("ROWAN", 50 * USDC, 199 * DEC // 100)
    for _round in range(30):
        if sally.tries(sally.long("ROWAN", 30 * USDC, 6 * DEC)).rejection is not None:
            break
    whale = pond.party("whale", rowan=10_000)
    native, external = pools.depths(pond.pool)
    balance = pond.pool.external_balance
    paid = largest(lambda atoms: swapped(native, external, atoms)[0] < balance, 10_000 * ROWAN)
    whale.swaps("ROWAN", "USDC", paid)
    assert pond.pool.external_balance == 1 and pond.pool.external_owed > 40 * USDC
    events = pond.passes(3 * HOUR)
    assert len(events) >= 3 and pond.pool.rate <= DEC // 100
    assert pond.is_conserved()


# Units


def test_one_atom_or_one_unit_back_and_forth_never_gains(lent: Pond) -> None:
    """What rounding gives, it gives to the pool.   [X-3, X-4, T-143]"""
    ants = lent.party("ants", rowan=1_000, usdc=1_000)
    ants.adds(10 * ROWAN, 10 * USDC)
    for rowan_atoms, usdc_atoms in ((1, 1), (1_000, 1), (1_500, 1), (0, 1), (1, 0), (2_000, 3), (999, 0)):
        before = ants.worth() + share_worth(lent, ants)
        for _round in range(20):
            outcome = ants.tries(ants.addition(rowan_atoms, usdc_atoms))
            if outcome.rejection is not None:
                break
            ants.tries(ants.removal(units=outcome.reply.units))
        assert ants.worth() + share_worth(lent, ants) <= before
    before = ants.worth() + share_worth(lent, ants)
    for _round in range(50):
        ants.tries(ants.removal(units=1))
        ants.tries(ants.removal(units=501))
        ants.tries(ants.removal(units=1_499))
    assert ants.worth() + share_worth(lent, ants) <= before
    assert lent.is_conserved()


def share_worth(pond: Pond, party: Party) -> Fraction:
    """Exact, at a fixed price of 1: a share of both sides."""
    native, external = pools.depths(pond.pool)
    return (Fraction(native * USDC, ROWAN) + external) * party.units / pond.pool.units


def test_the_first_provider_brings_enough() -> None:
    """And both sides; otherwise units would be worth so much that the next one's are rounded away.   [X-3]"""
    pond = Pond()
    pond.lp.removes(basis_points=10_000)
    assert pond.pool.parameters.min_native == ROWAN
    mallory = pond.party("mallory", rowan=10, usdc=10)
    refused = mallory.refusal(mallory.addition(ROWAN - 1, 10 * USDC))
    assert refused.reason is RejectReason.POOL_AMOUNT
    assert (refused.facts["native"], refused.facts["least"]) == (ROWAN - 1, ROWAN)
    mallory.adds(ROWAN, 1)


def test_the_first_provider_does_not_make_units_so_dear_that_the_next_ones_are_rounded_away() -> None:
    """All but one unit removed again, then swaps with oneself: their fees make the one worth thousands.

    [X-3, X-4, T-143]
    """
    pond = Pond(min_native=1)
    mallory, victim = alone_with_a_unit(pond)
    assert mallory.tries(mallory.removal(units=ROWAN - 1)).rejection is None
    for _round in range(3):
        mallory.swaps("USDC", "ROWAN", 300_000 * USDC, min_received=0)
        mallory.swaps("ROWAN", "USDC", 1_000 * ROWAN)
    pond.moves_to(Fraction(1), mallory)
    rowan_atoms, usdc_atoms = pools.share(pond.pool, 1)
    assert pond.pool.units == 1 and usdc_atoms > 1_000 * USDC
    before = mallory.worth() + share_worth(pond, mallory)
    assert victim.adds(rowan_atoms * 19 // 10, usdc_atoms * 19 // 10) == 1
    # Where one atom may begin a pool that is what happens; a limit of the victim's would have refused it.
    assert mallory.worth() + share_worth(pond, mallory) > before + 500 * USDC

    pond = Pond()
    mallory, _victim = alone_with_a_unit(pond)
    refused = mallory.refusal(mallory.removal(units=ROWAN - 1))
    assert refused.reason is RejectReason.POOL_UNITS
    assert (refused.facts["left"], refused.facts["least"]) == (1, 10**6)
    mallory.removes(units=ROWAN - 10**6)
    assert mallory.refusal(mallory.removal(units=1)).reason is RejectReason.POOL_UNITS
    # All of them, always.
    mallory.removes(basis_points=10_000)


def alone_with_a_unit(pond: Pond) -> tuple[Party, Party]:
    """Mallory is the first in an empty pool; a victim comes next."""
    pond.lp.removes(basis_points=10_000)
    mallory = pond.party("mallory", rowan=2_000_000, usdc=2_000_000)
    mallory.adds(ROWAN, USDC)
    return mallory, pond.party("victim", rowan=10_000, usdc=10_000)


def test_basis_points_are_exact(pond: Pond) -> None:
    """The original's 10,000 / 6,000 was 1: all of it.   [X-4]"""
    held = pond.lp.units
    pond.lp.removes(basis_points=6_000)
    assert abs(pond.lp.units - held * 4 // 10) <= 1
    for wrong in (-1, 10_001, 20_000):
        assert pond.lp.refusal(pond.lp.removal(basis_points=wrong)).reason is RejectReason.POOL_UNITS
    assert pond.lp.refusal(pond.lp.removal(units=1, basis_points=1)).reason is RejectReason.POOL_UNITS
    assert pond.lp.refusal(pond.lp.removal(units=pond.lp.units + 1)).reason is RejectReason.POOL_UNITS


def test_nobody_removes_the_units_of_another(pond: Pond) -> None:
    """Neither units one has not, nor with another's name.   [X-4, A-5]"""
    mallory = pond.party("mallory", rowan=1)
    assert mallory.refusal(mallory.removal(units=1)).reason is RejectReason.POOL_UNITS
    stolen = replace(mallory.removal(units=1), subaccount_id=pond.lp.subaccount)
    assert mallory.refusal(stolen).reason is RejectReason.NOT_OWNER


def test_the_last_provider_stays_while_somebody_has_a_position(lent: Pond) -> None:
    """Its coins are lent.   [X-4]"""
    assert lent.lp.refusal(lent.lp.removal(basis_points=10_000)).reason in (
        RejectReason.POOL_DEPTH, RejectReason.EMPTY_POOL,
    )  # fmt: skip


# Limits of positions


def test_a_leverage_over_the_maximum_is_refused_not_clamped(pond: Pond) -> None:
    """Whoever asked for 20x would not know what he has.   [X-5, X-15]"""
    sally = pond.party("sally", usdc=1_000)
    for leverage in (10 * DEC + 1, 18 * DEC, 0, DEC - 1, -DEC):
        refused = sally.refusal(sally.long("ROWAN", 100 * USDC, leverage))
        assert refused.reason is RejectReason.POOL_LEVERAGE
        assert (refused.facts["least"], refused.facts["most"]) == (DEC, 10 * DEC)
    assert sally.opens("ROWAN", 100 * USDC, 10 * DEC).leverage == 10 * DEC


def test_a_position_that_would_be_closed_at_once_is_not_opened() -> None:
    """Health after the open, with its own impact, must exceed the safety factor.   [X-5]"""
    pond = Pond(leverage_max=15 * DEC)
    sally = pond.party("sally", usdc=1_000)
    refused = sally.refusal(sally.long("ROWAN", 100 * USDC, 11 * DEC))
    assert refused.reason is RejectReason.POSITION_HEALTH and int(refused.facts["health"]) <= 11 * DEC // 10


def test_nobody_closes_the_position_of_another(lent: Pond) -> None:
    """Neither by its number nor in its owner's name.   [X-10, A-5]"""
    mallory = lent.party("mallory", usdc=1)
    number = next(iter(lent.pool.positions))
    assert mallory.refusal(mallory.close(number)).reason is RejectReason.UNKNOWN_POOL_POSITION
    owner = lent.pool.positions[number].subaccount_id
    assert mallory.refusal(CloseLong(owner, number)).reason is RejectReason.NOT_OWNER
    unsigned = lent.attempt(CloseLong(owner, number)).rejection
    assert unsigned is not None and unsigned.reason is RejectReason.UNSIGNED


def test_a_closed_position_does_not_close_again_and_numbers_are_not_given_twice(lent: Pond) -> None:
    """The original's export lost the counter: a new position overwrote an old one.   [X-10]"""
    sally = lent.party("late", usdc=100)
    first = sally.opens("ROWAN", 50 * USDC).position_id
    sally.closes(first)
    assert sally.refusal(sally.close(first)).reason is RejectReason.UNKNOWN_POOL_POSITION
    assert sally.opens("ROWAN", 40 * USDC).position_id == first + 1


def test_a_pool_takes_so_many_positions_and_no_more() -> None:
    """[X-5]"""
    pond = Pond(max_positions=3)
    sally = pond.party("sally", usdc=1_000)
    for _each in range(3):
        last = sally.opens("ROWAN", 100 * USDC).position_id
    refused = sally.refusal(sally.long("ROWAN", 100 * USDC))
    assert refused.reason is RejectReason.POOL_POSITIONS
    assert (refused.facts["positions"], refused.facts["most"]) == (3, 3)
    sally.closes(last)
    sally.opens("ROWAN", 100 * USDC)


def test_a_side_lends_a_share_of_its_depth_and_no_more() -> None:
    """The last atom that it lends, and the next one that it does not; each side for itself.   [X-13]"""
    pond = Pond(lent_max=DEC // 100, **CHEAP)
    sally = pond.party("sally", usdc=100_000, rowan=100_000)
    sally.opens("ROWAN", 4_000 * USDC, 2 * DEC)
    depth = pools.depths(pond.pool)[1]
    left = depth // 100 - 4_000 * USDC
    refused = sally.refusal(sally.long("ROWAN", left + 1, 2 * DEC))
    assert refused.reason is RejectReason.POOL_LENT_LIMIT
    assert (refused.facts["lent"], refused.facts["most"]) == (depth // 100 + 1, depth // 100)
    sally.opens("ROWAN", left, 2 * DEC)
    sally.opens("USDC", 4_000 * ROWAN, 2 * DEC)
    # Swaps and removals still work.
    sally.swaps("USDC", "ROWAN", 10_000 * USDC)
    pond.lp.removes(basis_points=5_000)


def test_an_open_that_one_side_cannot_pay_is_refused() -> None:
    """The original asked only whether both sides lacked it.   [X-5]"""
    pond = Pond(1_000, 1_000, lent_max=0, price_move_max=0, open_threshold=0, max_atoms=2**60)
    sally = pond.party("sally", usdc=10_000)
    refused = sally.refusal(sally.long("ROWAN", 501 * USDC, 2 * DEC))
    assert refused.reason is RejectReason.POOL_DEPTH
    assert (refused.facts["asked"], refused.facts["balance"]) == (1_002 * USDC, 1_000 * USDC)
    # Custody's side: most of its depth is lent out, so a quote exceeds what is there.
    other = pond.party("other", rowan=10_000)
    other.opens("USDC", 450 * ROWAN, 2 * DEC)
    whale = pond.party("whale", usdc=10_000)
    whale.swaps("USDC", "ROWAN", 1_400 * USDC)
    balance = pond.pool.native_balance
    into, out = pools.depths(pond.pool)[::-1]
    size = pond.pool.external_balance
    assert swapped(into, out, size)[0] >= balance
    refused = sally.refusal(sally.long("ROWAN", size // 2, 2 * DEC))
    assert refused.reason is RejectReason.CUSTODY_DEPTH and refused.facts["balance"] == balance


def test_a_pool_in_poor_health_opens_nothing() -> None:
    """[X-5, X-7]"""
    pond = Pond(open_threshold=99 * DEC // 100, **CHEAP)
    sally = pond.party("sally", usdc=10_000)
    sally.opens("ROWAN", 6_000 * USDC, 3 * DEC)
    refused = sally.refusal(sally.long("ROWAN", USDC))
    assert refused.reason is RejectReason.POOL_HEALTH and refused.facts["above"] == 99 * DEC // 100
    assert refused.facts["health"] == pond.pool.health < 99 * DEC // 100


def test_limits_of_the_trader_are_kept(lent: Pond) -> None:
    """What is received, minted, kept in custody and paid out at least; exactly that is enough.   [X-1 … X-5, X-10]"""
    sally = lent.party("anna", rowan=1_000, usdc=1_000)
    into, out = pools.depths(lent.pool)[::-1]
    custody = swapped(into, out, 200 * USDC)[0]
    refused = sally.refusal(sally.long("ROWAN", 100 * USDC, 2 * DEC, min_custody=custody + 1))
    assert refused.reason is RejectReason.MIN_RECEIVED
    assert (refused.facts["received"], refused.facts["least"]) == (custody, custody + 1)
    sally.opens("ROWAN", 100 * USDC, 2 * DEC, min_custody=custody)
    least = pool_positions.quote_close(lent.state, sally.position, lent.exchange.at_us + 1).returned
    assert sally.refusal(sally.close(min_received=least + 1)).reason is RejectReason.MIN_RECEIVED
    assert sally.closes(min_received=least - 1).returned_atoms in (least, least - 1)
    units = pools.quote_add(lent.state, lent.usdc, ROWAN, USDC).minted
    assert sally.refusal(sally.addition(ROWAN, USDC, min_units=units + 1)).reason is RejectReason.MIN_RECEIVED
    sally.adds(ROWAN, USDC, min_units=units)
    native, external = pools.share(lent.pool, units)
    for limits in ({"min_native_atoms": native + 2}, {"min_external_atoms": external + 2}):
        assert sally.refusal(sally.removal(units=units, **limits)).reason is RejectReason.MIN_RECEIVED
    sally.removes(units=units, min_native_atoms=native, min_external_atoms=external)


STATES: dict[PoolState, tuple[bool, bool, bool, bool, bool]] = {
    # adds, swaps, opens, removes, closes
    PoolState.OPEN: (True, True, True, True, True),
    PoolState.NO_OPENS: (True, True, False, True, True),
    PoolState.LEAVE_ONLY: (False, False, False, True, True),
    PoolState.HALTED: (False, False, False, False, False),
}


@pytest.mark.parametrize("state", STATES)
def test_each_state_takes_what_it_says(lent: Pond, state: PoolState) -> None:
    """Open, no opens, leave only, halted.   [X-5]"""
    party = lent.party("party", rowan=1_000, usdc=1_000)
    party.adds(ROWAN, USDC)
    party.opens("ROWAN", 10 * USDC)
    assert lent.set(state=state).rejection is None
    commands: tuple[Command, ...] = (
        party.addition(ROWAN, USDC), party.swap("USDC", "ROWAN", USDC), party.long("ROWAN", 10 * USDC),
        party.removal(units=ROWAN // 2), party.close(),
    )  # fmt: skip
    for command, is_taken in zip(commands, STATES[state], strict=True):
        if is_taken:
            party.does(command)
        else:
            refused = party.refusal(command)
            assert refused.reason is RejectReason.POOL_CLOSED and refused.facts["state"] == state.name
    if state is not PoolState.HALTED:
        assert lent.until_epoch()[-1].charged >= 2


def test_own_fees_are_not_looked_at_while_the_pool_lends() -> None:
    """Or a cheap side would make the longs' way through the pool cheaper than the swap.   [X-1, #3337]"""
    pond = Pond(native_fee_rate=0, external_fee_rate=DEC // 10)
    trader = pond.party("trader", rowan=1_000, usdc=1_000)
    for pays, gets, atoms in (("ROWAN", "USDC", ROWAN), ("USDC", "ROWAN", USDC)):
        native, external = pools.depths(pond.pool)
        into, out = (native, external) if pays == "ROWAN" else (external, native)
        assert trader.swaps(pays, gets, atoms).received_atoms == swapped(into, out, atoms)[0]
    usual = Pond()
    for one, other in ((100 * ROWAN, 0), (0, 100 * USDC)):
        mine, its = (pools.quote_add(each.state, each.usdc, one, other) for each in (Pond(native_fee_rate=0), usual))
        assert mine == its
    pond.set(is_margined=False)
    for pays, gets, atoms, fee in (("ROWAN", "USDC", ROWAN, Fraction(0)), ("USDC", "ROWAN", USDC, Fraction(1, 10))):
        native, external = pools.depths(pond.pool)
        into, out = (native, external) if pays == "ROWAN" else (external, native)
        assert trader.swaps(pays, gets, atoms).received_atoms == swapped(into, out, atoms, fee)[0]


def test_the_interest_of_the_running_epoch_is_charged_at_a_close() -> None:
    """Whoever closes a second before the hour pays for it.   [X-10, #3314]"""
    pond = Pond(rate_min=DEC // 100, rate_max=DEC // 100, interest_fund_share=0)
    sally = pond.party("sally", usdc=1_000)
    sally.opens("ROWAN", 100 * USDC, 6 * DEC)
    pond.until_epoch()
    pond.until_epoch(seconds_before=1)
    into, out = pools.depths(pond.pool)[::-1]
    before = sally.position.paid_custody
    elapsed = (pond.exchange.at_us + 1) % (HOUR * 10**6)
    due = 500 * USDC * elapsed // (100 * HOUR * 10**6)
    assert due > 499 * USDC // 100
    closed = sally.closes()
    assert closed.long.paid_custody_atoms - before == swapped(into, out, due)[0]


# Accounts that owe elsewhere


def test_money_that_is_not_final_does_not_go_into_a_pool(pond: Pond) -> None:
    """A provisional deposit buys nothing that could leave before it is gone.   [X-5b, D-5, M-12]"""
    mallory = pond.party("mallory", rowan=1)
    pond.exchange.deposit(mallory.subaccount, "USDC", 1_000 * USDC, final=False)
    pond.exchange.deposit(mallory.subaccount, "USDC", 10 * USDC)
    for command in (
        mallory.swap("USDC", "ROWAN", 11 * USDC), mallory.long("ROWAN", 11 * USDC), mallory.addition(ROWAN, 11 * USDC),
    ):  # fmt: skip
        refused = mallory.refusal(command)
        assert refused.reason is RejectReason.INSUFFICIENT_FUNDS
        assert (refused.facts["needed"], refused.facts["available"]) == (11 * USDC, 10 * USDC)


def test_more_than_is_available_is_not_paid(pond: Pond) -> None:
    """Nor what resting orders reserve.   [X-5b]"""
    sally = pond.party("sally", rowan=1, usdc=1_000)
    sally.buys(5, at=15_000)
    reserved = sally.has("USDC") - sally.can_spend("USDC")
    assert reserved > 0
    free = 1_000 * USDC - reserved
    for command in (
        sally.swap("USDC", "ROWAN", free + 1), sally.long("ROWAN", free + 1), sally.addition(ROWAN, free + 1),
    ):  # fmt: skip
        refused = sally.refusal(command)
        assert refused.reason is RejectReason.INSUFFICIENT_FUNDS and refused.facts["available"] == free
    sally.swaps("USDC", "ROWAN", free)


def with_debt(pond: Pond) -> Party:
    """Mallory has 1,000 USDC and owes 5 SOL at 100 USD each."""
    exchange = pond.exchange
    sol = exchange.asset("SOL")
    exchange.do(SetPrices(((sol, 100 * PRICE_SCALE), (pond.usdc, PRICE_SCALE))))
    lender = pond.party("lender", sol=1_000)
    lender.does(BorrowLend(lender.subaccount, sol, LendingSide.LEND, 1_000 * SOL))
    mallory = pond.party("mallory", rowan=1_000, usdc=1_000)
    mallory.does(BorrowLend(mallory.subaccount, sol, LendingSide.BORROW, 5 * SOL))
    return mallory


def test_an_account_with_debts_does_not_drain_its_collateral_through_a_pool(pond: Pond) -> None:
    """ROWAN, units and positions are no collateral: what goes there must not be needed.   [X-5b, M-12, T-146]"""
    fill_sol(pond)
    mallory = with_debt(pond)
    mallory.swaps("SOL", "ROWAN", 5 * SOL)
    for command in (
        mallory.swap("USDC", "ROWAN", 990 * USDC), mallory.long("ROWAN", 990 * USDC, 2 * DEC),
        mallory.addition(990 * ROWAN, 990 * USDC),
    ):  # fmt: skip
        assert mallory.refusal(command).reason is RejectReason.INSUFFICIENT_MARGIN, command
    # What it does not need it may put there; ROWAN carries nothing, so all of it.
    mallory.swaps("USDC", "ROWAN", 50 * USDC)
    mallory.opens("ROWAN", 50 * USDC, 2 * DEC)
    mallory.adds(900 * ROWAN, 1 * USDC)
    mallory.swaps("ROWAN", "USDC", 10 * ROWAN)
    mallory.closes()


def test_an_account_with_a_perpetual_does_not_drain_its_collateral_through_a_pool(pond: Pond) -> None:
    """Its position would be left to the ladder, and the loss to others.   [X-5b, M-12]"""
    exchange = pond.exchange
    sol = exchange.asset("SOL")
    exchange.do(SetPrices(((sol, 150 * PRICE_SCALE), (pond.usdc, PRICE_SCALE))))
    pond.market = exchange.market("SOL_USDC_PERP")
    mallory, maker = pond.party("mallory", rowan=1_000, usdc=1_000), pond.party("maker", usdc=100_000)
    maker.sells(2_000, at=15_000)
    mallory.buys(2_000, at=15_000)
    account = pond.state.subaccounts[mallory.subaccount]
    assert account.positions
    required = margin.sums(pond.state, account, exchange.at_us).initial
    assert required > 0
    for command in (
        mallory.swap("USDC", "ROWAN", 990 * USDC), mallory.long("ROWAN", 990 * USDC, 2 * DEC),
        mallory.addition(990 * ROWAN, 990 * USDC),
    ):  # fmt: skip
        assert mallory.refusal(command).reason is RejectReason.INSUFFICIENT_MARGIN, command
    mallory.opens("ROWAN", 50 * USDC, 2 * DEC)
    # The long is isolated: it neither carries nor burdens the account.
    before = margin.sums(pond.state, account, exchange.at_us)
    mallory.closes()
    after = margin.sums(pond.state, account, exchange.at_us)
    assert before.notional == after.notional and after.equity > before.equity


def test_an_account_in_liquidation_pays_nothing_into_a_pool(pond: Pond) -> None:
    """And gets nothing by a swap that it would not get otherwise.   [X-5b, M-12]"""
    fill_sol(pond)
    mallory = with_debt(pond)
    mallory.swaps("SOL", "ROWAN", 5 * SOL)
    sol = pond.exchange.asset("SOL")
    pond.exchange.do(SetPrices(((sol, 250 * PRICE_SCALE),)))
    account = pond.state.subaccounts[mallory.subaccount]
    assert margin.sums(pond.state, account, pond.exchange.at_us).is_in_liquidation
    for command in (
        mallory.swap("USDC", "ROWAN", USDC), mallory.long("ROWAN", USDC, 2 * DEC), mallory.addition(ROWAN, USDC),
        mallory.swap("ROWAN", "SOL", ROWAN),
    ):  # fmt: skip
        refused = mallory.tries(command).rejection
        assert refused is not None and refused.reason is RejectReason.INSUFFICIENT_MARGIN, command


def test_operators_alone_configure_pools_and_nobody_sends_an_epoch(pond: Pond) -> None:
    """[A-5, W-7]"""
    mallory = pond.party("mallory", usdc=1)
    known = pond.pool.parameters
    commands: tuple[Command, ...] = (ConfigurePool(replace(known, fee_rate=0)), RunPoolEpochs())
    for command in commands:
        refused = mallory.refusal(command)
        assert refused.reason is RejectReason.UNKNOWN_KEY
    pond.state.devnet = False
    refused_unsigned = pond.attempt(ConfigurePool(replace(known, fee_rate=0))).rejection
    assert refused_unsigned is not None and refused_unsigned.reason is RejectReason.UNSIGNED
    assert pond.pool.parameters is known
