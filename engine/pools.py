"""Liquidity pools: how they come to be, what providers bring and take, swaps.   [X-1 … X-4, X-14]

Every move of value is one journal transaction, and after each command the pools it touched are held against the
ledger. Positions and epochs are in `pool_positions` and `pool_epochs`.
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import NamedTuple

from engine import margin, pool_collateral
from engine.commands import AddLiquidity, ConfigurePool, RemoveLiquidity, SwapAssets
from engine.events import LiquidityMoved, Outcome, PoolChanged, PoolConfigured, PoolSwapped, PoolView
from engine.formulas import pools as formulas
from engine.formulas.pools import Units, Withdrawal
from engine.parameters import DEC, MAX_DEC, NO_LIMIT_ATOMS, RATE_SCALE, PoolParameters, PoolState
from engine.posting import post, record
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, AmmHolder, AmmPool, AmmPosition, State, Subaccount
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    SHARE_BITS,
    AssetId,
    amm_book,
    amm_fund,
    amm_pool,
    available,
    external_custody,
    external_owed,
    native_custody,
    native_owed,
    pool_units,
    units_held,
)
from ledger.journal import JournalKind

_OPEN_STATES = (PoolState.OPEN, PoolState.NO_OPENS)
_DAY_US = 86_400_000_000
_FEWEST_UNITS = 1_000_000
"""A removal leaves none or so many, unless the first provider may bring less: were there only one, worth thousands
through the fees of its owner's swaps, most of what the next one brings would be rounded away.   [X-3]"""


class Hop(NamedTuple):
    """A swap through one pool as it would be now; amounts in atoms.   [X-1]"""

    pool_id: int
    is_native_paid: bool
    paid: int
    received: int
    fee: int
    """In the asset received."""
    impact: int
    """How much worse than the spot price before, the fee left out: in 1e-18, rounded up."""


class SwapQuote(NamedTuple):
    received: int
    hops: tuple[Hop, ...]


def configure(state: State, command: ConfigurePool, outcome: Outcome) -> None:
    """Open a pool, or change its parameters; its two assets stay for ever.   [X-1]"""
    parameters = command.pool
    known = state.amm_pools.get(parameters.pool_id)
    for field, asset_id in (("external", parameters.pool_id), ("native", parameters.native_asset_id)):
        require(asset_id in state.assets, RejectReason.UNKNOWN_ASSET, field=field, asset_id=asset_id)
    require(parameters.pool_id != parameters.native_asset_id, RejectReason.POOL_PAIR, asset_id=parameters.pool_id)
    for other in state.amm_pools.values():
        native = other.parameters.native_asset_id
        if native != parameters.native_asset_id:
            raise Rejection(
                RejectReason.IMMUTABLE_PARAMETER, field="native", before=native, after=parameters.native_asset_id
            )
    _require_parameters(parameters)

    # From here the command succeeds.
    if known is None:
        known = state.amm_pools[parameters.pool_id] = AmmPool(parameters)
    known.parameters = parameters
    state.marks_version += 1
    pool_collateral.note(state)
    schedule(state, known, outcome.at_us)
    record(outcome, JournalKind.POOL_CONFIGURED, (parameters.pool_id, parameters.native_asset_id))
    outcome.events.append(PoolConfigured(parameters.pool_id))


def add(state: State, command: AddLiquidity, outcome: Outcome) -> LiquidityMoved:
    """Take both sides of what a provider brings, and give units for it.   [X-3]"""
    pool = open_pool(state, command.pool_id)
    subaccount = state.subaccounts[command.subaccount_id]
    native, external = command.native_atoms, command.external_atoms
    minted = quote_add(state, command.pool_id, native, external).minted
    require(minted >= command.min_units, RejectReason.MIN_RECEIVED, units=minted, least=command.min_units)
    native_id, number = pool.parameters.native_asset_id, subaccount.subaccount_id
    require_payment(state, subaccount, outcome.at_us, {native_id: native, command.pool_id: external})

    # From here the command succeeds.
    holder = pool.holders.get(number)
    if holder is None:
        holder = pool.holders[number] = AmmHolder(outcome.at_us, pool.earned)
    collect_earned(pool, holder)
    note_price(pool, outcome.at_us)
    pool.native_balance += native
    pool.external_balance += external
    pool.units += minted
    holder.units += minted
    holder.native_added += native
    holder.external_added += external
    if pool.mean_price == 0:
        pool.mean_price, pool.mean_at_us = spot(pool), outcome.at_us
    schedule(state, pool, outcome.at_us)
    postings = [
        (units_held(number), pool_units(command.pool_id), -minted),
        (amm_book(command.pool_id), pool_units(command.pool_id), minted),
    ]
    for asset_id, atoms in ((native_id, native), (command.pool_id, external)):
        if atoms:
            postings += [(available(number), asset_id, atoms), (amm_pool(command.pool_id), asset_id, -atoms)]
    post(state, outcome, JournalKind.LIQUIDITY_ADDED, (number, command.pool_id, pool.units), postings)
    moved = LiquidityMoved(number, command.pool_id, native, external, minted, holder.units)
    outcome.events.append(moved)
    changed(state, pool, outcome)
    return moved


def remove(state: State, command: RemoveLiquidity, outcome: Outcome) -> LiquidityMoved:
    """Take units back, and give out what they are of both sides.   [X-4]"""
    pool = find(state, command.pool_id)
    _require_not_halted(pool)
    number = command.subaccount_id
    holder = pool.holders.get(number)
    held = holder.units if holder is not None else 0
    by_units, basis_points = command.units, command.basis_points
    require(
        (by_units > 0) != (basis_points > 0) and by_units >= 0 and 0 <= basis_points <= formulas.BASIS_POINTS,
        RejectReason.POOL_UNITS, units=by_units, basis_points=basis_points, held=held,
    )  # fmt: skip
    require(by_units <= held and held > 0, RejectReason.POOL_UNITS, units=by_units, held=held)
    assert holder is not None
    taken = _removal(pool, held, by_units, basis_points)
    burned = held - taken.units_left
    sides = ((True, taken.native, command.min_native_atoms), (False, taken.external, command.min_external_atoms))
    for is_native, paid, least in sides:
        require(
            paid >= least, RejectReason.MIN_RECEIVED, asset_id=_side(pool, is_native), received=paid, least=least
        )
    _require_removal(pool, taken, burned)
    subaccount = state.subaccounts[number]
    if pool.parameters.collateral_weight and subaccount.margined:
        # What these units count for goes, and what comes out must make up for it.
        native_id = pool.parameters.native_asset_id
        changes = {native_id: (taken.native, 0, 0, 0), command.pool_id: (taken.external, 0, 0, 0)}
        counted = margin.pool_collateral_usd(state, number, outcome.at_us, only=command.pool_id)
        charges = mul_div_up(counted, burned, held)
        margin.require_outflow(state, subaccount, outcome.at_us, changes, charges)

    # From here the command succeeds.
    return _give_out(state, pool, holder, number, taken, burned, outcome)


def give_back_collateral(state: State, subaccount: Subaccount, outcome: Outcome) -> None:
    """In liquidation units that counted as collateral become what they are of: as many as the pools have coins for.

    Lenders come before the threshold that keeps removals from hurting a pool's health; neither side runs dry. Pools go
    by their ids: the order they came in is not in a snapshot.   [L-2, A-6]
    """
    number = subaccount.subaccount_id
    for _pool_id, pool in sorted(state.amm_pools.items()):
        holder = pool.holders.get(number) if pool.parameters.collateral_weight else None
        if holder is None:
            continue
        units, depth = holder.units, depths(pool)
        if units < pool.units or pool.positions:
            units = min(
                units,
                mul_div_down(pool.native_balance - 1, pool.units, depth[0]),
                mul_div_down(pool.external_balance - 1, pool.units, depth[1]),
            )
        native, external = share(pool, units)
        if units > 0 and (native or external):
            taken = Withdrawal(native, external, holder.units - units, 0)
            _give_out(state, pool, holder, number, taken, units, outcome)


def swap(state: State, command: SwapAssets, outcome: Outcome) -> PoolSwapped:
    """Pay one asset, get another, out of one pool or of two through the native asset.   [X-1, X-2]"""
    from_id, to_id, paid = command.from_asset_id, command.to_asset_id, command.atoms
    hops = _hops(state, from_id, to_id, paid)
    received = hops[-1][3]
    if received < command.min_received:
        raise Rejection(
            RejectReason.MIN_RECEIVED, asset_id=to_id, received=received, least=command.min_received
        )
    subaccount = state.subaccounts[command.subaccount_id]
    require_payment(state, subaccount, outcome.at_us, {from_id: paid, to_id: -received})

    # From here the command succeeds.
    number = command.subaccount_id
    wallet = available(number)
    postings = [(wallet, from_id, paid)]
    events = outcome.events
    last = None
    for place, (pool, is_native_paid, hop_paid, hop_received, fee) in enumerate(hops):
        note_price(pool, outcome.at_us)
        parameters = pool.parameters
        pool_id = parameters.pool_id
        account = amm_pool(pool_id)
        if is_native_paid:
            pool.native_balance += hop_paid
            pool.external_balance -= hop_received
            postings += [
                (account, parameters.native_asset_id, -hop_paid),
                (account, pool_id, hop_received),
            ]
            note_earned(pool, 1, fee)
        else:
            pool.external_balance += hop_paid
            pool.native_balance -= hop_received
            postings += [
                (account, pool_id, -hop_paid),
                (account, parameters.native_asset_id, hop_received),
            ]
            note_earned(pool, 0, fee)
        hop = place + 1 if len(hops) == 2 else 0
        last = PoolSwapped(number, pool_id, is_native_paid, hop_paid, hop_received, fee, hop)
        events.append(last)
    postings.append((wallet, to_id, -received))
    if not received:
        # Dust paid for nothing, by who allowed that: no row says nothing.
        postings = [posting for posting in postings if posting[2]]
    post(state, outcome, JournalKind.POOL_SWAP, (number, [hop[4] for hop in hops]), postings)
    for pool, *_rest in hops:
        changed(state, pool, outcome)
    assert last is not None
    return last


def quote_swap(state: State, from_asset_id: AssetId, to_asset_id: AssetId, atoms: int) -> SwapQuote:
    """What a swap would give now. Raises Rejection as the swap would, but for what its payer has.   [X-1, X-2]"""
    hops = tuple(
        Hop(
            pool.parameters.pool_id, is_native_paid, paid, received, fee,
            impact(pool, is_native_paid, paid, received + fee),
        )
        for pool, is_native_paid, paid, received, fee in _hops(state, from_asset_id, to_asset_id, atoms)
    )
    return SwapQuote(hops[-1].received, hops)


def quote_add(state: State, pool_id: int, native_atoms: int, external_atoms: int) -> Units:
    """The units that this liquidity would give now. Raises Rejection.   [X-3]"""
    pool = open_pool(state, pool_id)
    parameters = pool.parameters
    for is_native, atoms in ((True, native_atoms), (False, external_atoms)):
        if not 0 <= atoms <= parameters.max_atoms:
            asset_id = _side(pool, is_native)
            raise Rejection(
                RejectReason.POOL_AMOUNT, pool_id=pool_id, asset_id=asset_id, atoms=atoms, maximum=parameters.max_atoms
            )
    # What nobody has a part in goes to whoever comes first.
    native_depth, external_depth = depths(pool) if pool.units else (0, 0)
    if not pool.units:
        if native_atoms < parameters.min_native or not external_atoms:
            raise Rejection(
                RejectReason.POOL_AMOUNT, pool_id=pool_id, native=native_atoms, least=parameters.min_native,
                external=external_atoms,
            )  # fmt: skip
    elif not native_depth or not external_depth:
        # The original gives all of the pool to whoever fills its empty side.  
        raise Rejection(RejectReason.EMPTY_POOL, pool_id=pool_id, native=native_depth, external=external_depth)
    units = formulas.units_for(
        pool.units, native_depth, external_depth, native_atoms, external_atoms,
        fee_for(parameters, True), fee_for(parameters, False), parameters.running_rate,
    )  # fmt: skip
    if units is not None and pool.units and not parameters.running_rate:
        # With a running rate swaps themselves may lower the product, and an addition of one side counts as one.  
        minted = min(units.minted, _most_units(pool, native_atoms, external_atoms))
        units = units._replace(minted=minted, total=pool.units + minted)
    if units is None or not units.minted:
        raise Rejection(
            RejectReason.POOL_AMOUNT, pool_id=pool_id, native=native_atoms, external=external_atoms, units=0
        )
    _require_room(pool, native_atoms, external_atoms, units.minted)
    return units


def quote_removal(state: State, pool_id: int, units: int) -> Withdrawal:
    """What these units would give now, whoever has them. Raises Rejection.   [X-4]"""
    pool = find(state, pool_id)
    require(0 < units <= pool.units, RejectReason.POOL_UNITS, units=units, held=pool.units)
    taken = _removal(pool, pool.units, units, 0)
    _require_removal(pool, taken, units)
    return taken


def view(pool: AmmPool) -> PoolView:
    """The pool as it stands, for whoever is told of it."""
    parameters = pool.parameters
    return PoolView(
        parameters.pool_id,
        pool.native_balance,
        pool.external_balance,
        pool.native_custody,
        pool.external_custody,
        pool.native_owed,
        pool.external_owed,
        pool.units,
        pool.health,
        pool.rate,
        len(pool.positions),
        pool.native_fund,
        pool.external_fund,
    )


def share(pool: AmmPool, units: int) -> tuple[int, int]:
    """(native, external) atoms that these units are of the depths, rounded down.   [X-4]"""
    if not pool.units:
        return 0, 0
    native, external = depths(pool)
    return mul_div_down(native, units, pool.units), mul_div_down(external, units, pool.units)


def earned(pool: AmmPool, holder: AmmHolder) -> tuple[int, int, int, int]:
    """Native fees, external fees, native interest, external interest that these units had a part in, in atoms.

    They are in the units' worth already; each change of the units rounds down.
    """
    now = [
        before + mul_div_down(holder.units, total - seen, DEC)
        for before, total, seen in zip(holder.earned, pool.earned, holder.seen, strict=True)
    ]
    return now[0], now[1], now[2], now[3]


def find(state: State, pool_id: int) -> AmmPool:
    """The pool, or a Rejection."""
    pool = state.amm_pools.get(pool_id)
    if pool is None:
        raise Rejection(RejectReason.UNKNOWN_POOL, pool_id=pool_id)
    return pool


def open_pool(state: State, pool_id: int) -> AmmPool:
    """The pool, if it takes swaps and liquidity."""
    pool = find(state, pool_id)
    if pool.parameters.state not in _OPEN_STATES:
        raise Rejection(RejectReason.POOL_CLOSED, pool_id=pool_id, state=pool.parameters.state.name)
    return pool


def depths(pool: AmmPool) -> tuple[int, int]:
    """(native, external): balance and what positions owe; custody is no part of it.   [X-1]"""
    return pool.native_balance + pool.native_owed, pool.external_balance + pool.external_owed


def fee_for(parameters: PoolParameters, is_native_paid: bool) -> int:
    """The fee rate of a swap that pays this side; one fee for all while the pool lends to positions.   [X-1]"""
    own = parameters.native_fee_rate if is_native_paid else parameters.external_fee_rate
    return own if own >= 0 and not parameters.is_margined else parameters.fee_rate


def spot(pool: AmmPool) -> int:
    """External atoms per native atom, in 1e-18, rounded down; 0 for an empty pool."""
    native, external = depths(pool)
    return external * DEC // native if native else 0


def impact(pool: AmmPool, is_native_paid: bool, paid: int, before_fee: int) -> int:
    """1 − what comes out before the fee over what the spot price would give, in 1e-18, rounded up."""
    native, external = depths(pool)
    into, out = (native, external) if is_native_paid else (external, native)
    at_spot = paid * out
    return max(0, mul_div_up(at_spot - before_fee * into, DEC, at_spot)) if at_spot else 0


def note_price(pool: AmmPool, at_us: int) -> None:
    """Let the mean price follow, before anything changes the pool."""
    if at_us > pool.mean_at_us and pool.mean_price:
        pool.mean_price = mean_price(pool, at_us)
        pool.mean_at_us = at_us


def mean_price(pool: AmmPool, at_us: int) -> int:
    """External atoms per native atom, in 1e-18: what held since the last change counts for the time that it held.

    A change of the pool counts from the moment after it, so that nothing done within one instant moves the mean.
    """
    elapsed, price, span = at_us - pool.mean_at_us, spot(pool), pool.parameters.price_mean_us
    if elapsed <= 0 or not pool.mean_price or not price:
        return pool.mean_price
    if elapsed >= span:
        return price
    return mul_div_down(pool.mean_price, span - elapsed, span) + mul_div_down(price, elapsed, span)


def is_steady(pool: AmmPool, price: int, mean: int) -> bool:
    """Whether a price is near its mean: not one that was pushed there a moment before."""
    most = _widest(pool.parameters)
    return not most or not mean or abs(price - mean) * DEC <= most * mean


def require_steady(pool: AmmPool, price: int, mean: int, is_own: bool = False) -> None:
    """Positions begin and end at a price near its mean only; `is_own`: the price is what the command itself makes."""
    if not is_steady(pool, price, mean):
        pool_id, most = pool.parameters.pool_id, _widest(pool.parameters)
        name = "price_after" if is_own else "price"
        facts: dict[str, int | str] = {"pool_id": pool_id, name: str(price), "mean": str(mean), "most": most}
        raise Rejection(RejectReason.POOL_PRICE_MOVED, **facts)


def _widest(parameters: PoolParameters) -> int:
    """How far the price may be from its mean: `price_move_max`, but never so far that a loan is lost within it.

    What is bought at the top, 1 + w, and sold at the bottom, 1 - w, must bring what the highest leverage owes of it.
    """
    most = parameters.price_move_max
    if not most:
        return 0
    owed = min(DEC - DEC * DEC // parameters.leverage_max, DEC * DEC // parameters.safety_factor)
    return min(most, (DEC - owed) * DEC // (DEC + owed))


def note_earned(pool: AmmPool, which: int, atoms: int) -> None:
    """A fee (0 native, 1 external) or interest (2, 3) fell to the providers.   [X-1, X-9]"""
    if atoms and pool.units:
        totals = list(pool.earned)
        totals[which] += atoms * DEC // pool.units
        pool.earned = (totals[0], totals[1], totals[2], totals[3])


def collect_earned(pool: AmmPool, holder: AmmHolder) -> None:
    """Bring a provider's earnings up to date before its units change."""
    holder.earned = earned(pool, holder)
    holder.seen = pool.earned


def require_payment(state: State, subaccount: Subaccount, at_us: int, paid: dict[AssetId, int]) -> None:
    """The available balance covers what is paid, and M-12 lets it go; below zero is what comes back.   [X-5b, M-12]"""
    number = subaccount.subaccount_id
    for asset_id, atoms in paid.items():
        if atoms > 0:
            free = max(0, state.withdrawable(number, asset_id))
            if atoms > free:
                raise Rejection(RejectReason.INSUFFICIENT_FUNDS, needed=atoms, available=free, asset_id=asset_id)
    if subaccount.margined or margin.has_provisional(state, subaccount):
        changes = {asset_id: (-atoms, 0, 0, 0) for asset_id, atoms in paid.items() if atoms}
        margin.require_outflow(state, subaccount, at_us, changes)


def schedule(state: State, pool: AmmPool, at_us: int) -> None:
    """When the pool's next epoch ends: whole multiples of its length since 1970; never while it is empty.   [X-8]

    A pool that lends no more goes on with the positions that it has: they owe interest, and may have to be closed.
    """
    parameters = pool.parameters
    length = parameters.epoch_us
    is_lending = parameters.is_margined or bool(pool.positions)
    if parameters.state == PoolState.HALTED or not pool.units or not is_lending:
        pool.next_epoch_us = 0
    elif not pool.next_epoch_us or pool.next_epoch_us % length or pool.next_epoch_us > at_us + length:
        pool.next_epoch_us = at_us - at_us % length + length
    note_due(state)


def note_due(state: State) -> None:
    """`State.amm_epoch_due_us` follows from the pools."""
    state.amm_epoch_due_us = min(
        (pool.next_epoch_us for pool in state.amm_pools.values() if pool.next_epoch_us), default=0
    )


def changed(state: State, pool: AmmPool, outcome: Outcome) -> None:
    """The pool changed: it must be what the ledger says, and whoever follows it is told.   [X-14]"""
    require_identities(state, pool)
    outcome.events.append(PoolChanged(view(pool)))


def require_identities(state: State, pool: AmmPool) -> None:
    """X-14 against the ledger: coins are balance and custody; custody, debts and units are those of their holders."""
    native, external = pool.native_balance, pool.external_balance
    native_kept, external_kept = pool.native_custody, pool.external_custody
    native_lent, external_lent = pool.native_owed, pool.external_owed
    units, native_left, external_left = pool.units, pool.native_fund, pool.external_fund
    parameters = pool.parameters
    pool_id = parameters.pool_id
    # In the order of `_accounts`, debits positive.
    expected = [
        -native - native_kept, -external - external_kept, -native_left, -external_left, units, native_kept,
        external_kept, -native_lent, -external_lent,
    ]  # fmt: skip
    balance_of = state.balances.get
    accounts = _accounts(pool_id, parameters.native_asset_id)
    found = [balance_of(key, 0) for key in accounts]
    assert found == expected, f"pool {pool_id}: accounts {accounts} hold {found}, expected {expected}"
    least = min(
        native, external, native_kept, external_kept, native_lent, external_lent, units, native_left, external_left
    )
    assert least >= 0, f"pool {pool_id}: {least} is below zero"


@cache
def _accounts(pool_id: int, native_id: AssetId) -> list[int]:
    """Where the ledger keeps what a pool is: coins, the fund, and the book of units, custody and debts."""
    coins, book, fund = amm_pool(pool_id), amm_book(pool_id), amm_fund(pool_id)
    return [
        account << ASSET_BITS | asset_id
        for account, asset_id in (
            (coins, native_id), (coins, pool_id), (fund, native_id), (fund, pool_id), (book, pool_units(pool_id)),
            (book, native_custody(pool_id)), (book, external_custody(pool_id)), (book, native_owed(pool_id)),
            (book, external_owed(pool_id)),
        )
    ]  # fmt: skip


def require_positions(pool: AmmPool) -> None:
    """The other half of X-14: Σ position custody = pool custody, Σ position liabilities = pool liabilities."""
    custody, owed = [0, 0], [0, 0]
    for position in pool.positions.values():
        custody[not position.is_native_collateral] += position.custody
        owed[position.is_native_collateral] += position.owed
    sums = (custody[0], custody[1], owed[0], owed[1])
    kept = (pool.external_custody, pool.native_custody, pool.external_owed, pool.native_owed)
    assert sums == kept, f"pool {pool.parameters.pool_id}: positions add up to {sums}, the pool has {kept}"


_Step = tuple[AmmPool, bool, int, int, int]
"""(pool, whether the native asset is paid, paid, received, fee)."""


def _hops(state: State, from_id: AssetId, to_id: AssetId, paid: int) -> list[_Step]:
    pools = state.amm_pools
    into, out_of = pools.get(to_id), pools.get(from_id)
    if into is not None and into.parameters.native_asset_id == from_id:
        return [_hop(into, True, paid)]
    if out_of is not None and out_of.parameters.native_asset_id == to_id:
        return [_hop(out_of, False, paid)]
    if from_id == to_id:
        raise Rejection(RejectReason.POOL_PAIR, from_asset_id=from_id, to_asset_id=to_id)
    if into is None or out_of is None:
        missing = from_id if out_of is None and not _is_native(state, from_id) else to_id
        raise Rejection(RejectReason.UNKNOWN_POOL, pool_id=missing)
    first = _hop(out_of, False, paid)
    return [first, _hop(into, True, first[3])]


def _is_native(state: State, asset_id: AssetId) -> bool:
    return any(pool.parameters.native_asset_id == asset_id for pool in state.amm_pools.values())


def _hop(pool: AmmPool, is_native_paid: bool, paid: int) -> _Step:
    """One pool's part of a swap, or why it cannot be."""
    parameters = pool.parameters
    pool_id = parameters.pool_id
    if parameters.state not in _OPEN_STATES:
        raise Rejection(RejectReason.POOL_CLOSED, pool_id=pool_id, state=parameters.state.name)
    if not 0 < paid <= parameters.max_atoms:
        raise Rejection(
            RejectReason.POOL_AMOUNT, pool_id=pool_id, asset_id=_side(pool, is_native_paid), atoms=paid,
            maximum=parameters.max_atoms,
        )  # fmt: skip
    native, external = pool.native_balance + pool.native_owed, pool.external_balance + pool.external_owed
    into, out, balance = (
        (native, external, pool.external_balance) if is_native_paid else (external, native, pool.native_balance)
    )
    if not into or not out:
        raise Rejection(RejectReason.EMPTY_POOL, pool_id=pool_id, native=native, external=external)
    fee_rate = fee_for(parameters, is_native_paid)
    received, fee = formulas.swap(into, out, paid, fee_rate, parameters.running_rate, not is_native_paid)
    if received >= balance:
        asset_id = _side(pool, not is_native_paid)
        raise Rejection(
            RejectReason.POOL_DEPTH, pool_id=pool_id, asset_id=asset_id, asked=received, balance=balance
        )
    side = into + (pool.native_custody if is_native_paid else pool.external_custody)
    if side + paid > parameters.max_atoms:
        raise Rejection(
            RejectReason.POOL_LIMIT, pool_id=pool_id, asset_id=_side(pool, is_native_paid), atoms=str(side + paid),
            maximum=parameters.max_atoms,
        )  # fmt: skip
    return pool, is_native_paid, paid, received, fee


def _side(pool: AmmPool, is_native: bool) -> AssetId:
    return pool.parameters.native_asset_id if is_native else pool.parameters.pool_id


def _most_units(pool: AmmPool, native: int, external: int) -> int:
    """The units that leave those of others worth what they were: (native depth · external depth) / units² is kept.

    X-3 rounds its virtual swap down, so one atom of one side may bring units of twice its worth, again and again.
    """
    native_depth, external_depth = depths(pool)
    grown = (native_depth + native) * (external_depth + external)
    return isqrt(mul_div_down(pool.units * pool.units, grown, native_depth * external_depth)) - pool.units


def _removal(pool: AmmPool, held: int, units: int, basis_points: int) -> Withdrawal:
    """What leaves with the units: as X-4 rounds it, but never more than their exact share.

    The half atom that X-4 may round up could be taken again and again, and all units take all there is.
    """
    native_depth, external_depth = depths(pool)
    if units:
        taken = formulas.withdrawal_by_units(pool.units, native_depth, external_depth, held, units)
    else:
        taken = formulas.withdrawal_by_basis_points(pool.units, native_depth, external_depth, held, basis_points)
    if taken is None or taken.units_left >= held:
        raise Rejection(RejectReason.POOL_UNITS, units=units, basis_points=basis_points, held=held)
    most_native, most_external = share(pool, held - taken.units_left)
    return taken._replace(native=min(taken.native, most_native), external=min(taken.external, most_external))


def _give_out(
    state: State, pool: AmmPool, holder: AmmHolder, number: int, taken: Withdrawal, burned: int, outcome: Outcome
) -> LiquidityMoved:
    """Units go, coins come: posted, remembered and told.   [X-4]"""
    pool_id, native_id = pool.parameters.pool_id, pool.parameters.native_asset_id
    collect_earned(pool, holder)
    note_price(pool, outcome.at_us)
    pool.native_balance -= taken.native
    pool.external_balance -= taken.external
    pool.units -= burned
    holder.units -= burned
    holder.native_added -= taken.native
    holder.external_added -= taken.external
    if not holder.units:
        del pool.holders[number]
    if not pool.units:
        pool.mean_price = 0
    schedule(state, pool, outcome.at_us)
    postings = [
        (units_held(number), pool_units(pool_id), burned),
        (amm_book(pool_id), pool_units(pool_id), -burned),
    ]
    for asset_id, atoms in ((native_id, taken.native), (pool_id, taken.external)):
        if atoms:
            postings += [(amm_pool(pool_id), asset_id, atoms), (available(number), asset_id, -atoms)]
    post(state, outcome, JournalKind.LIQUIDITY_REMOVED, (number, pool_id, pool.units), postings)
    moved = LiquidityMoved(number, pool_id, -taken.native, -taken.external, -burned, holder.units)
    outcome.events.append(moved)
    changed(state, pool, outcome)
    return moved


def _require_removal(pool: AmmPool, taken: Withdrawal, burned: int) -> None:
    pool_id = pool.parameters.pool_id
    sides = ((True, taken.native, pool.native_balance), (False, taken.external, pool.external_balance))
    for is_native, asked, balance in sides:
        if asked > balance:
            asset_id = _side(pool, is_native)
            raise Rejection(
                RejectReason.POOL_DEPTH, pool_id=pool_id, asset_id=asset_id, asked=asked, balance=balance
            )
    if not taken.native and not taken.external:
        raise Rejection(RejectReason.POOL_AMOUNT, pool_id=pool_id, units=burned, received=0)
    native, external = pool.native_balance - taken.native, pool.external_balance - taken.external
    if pool.units == burned and not pool.positions:
        return
    if not native or not external or pool.units == burned:
        # Neither side may run dry while somebody has a part in it.
        raise Rejection(RejectReason.EMPTY_POOL, pool_id=pool_id, native=native, external=external)
    left, fewest = pool.units - burned, min(pool.parameters.min_native, _FEWEST_UNITS)
    if left < fewest <= pool.units:
        raise Rejection(RejectReason.POOL_UNITS, pool_id=pool_id, left=left, least=fewest)
    health = formulas.pool_health(native, external, pool.native_owed, pool.external_owed)
    least = pool.parameters.removal_threshold
    if pool.positions and health < least:
        raise Rejection(RejectReason.POOL_HEALTH, pool_id=pool_id, health=health, least=least)
    _require_closable(pool, taken)


def _require_closable(pool: AmmPool, taken: Withdrawal) -> None:
    """What leaves may not make the pool too shallow for a position that it lent to while it was deep.

    Else who brings liquidity for a moment, is lent to by it and takes it away, leaves the loan to the others: custody
    sold into what is left brings less than is owed.   [X-4, X-10]
    """
    depth = depths(pool)
    left = depth[0] - taken.native, depth[1] - taken.external
    parameters = pool.parameters
    for position in pool.positions.values():
        # Nearly all bring enough afterwards: what they bring now is asked of the others only.
        if _proceeds(parameters, left, position) < position.owed <= _proceeds(parameters, depth, position):
            health = formulas.position_health(_proceeds(parameters, left, position), position.owed, 0)
            raise Rejection(
                RejectReason.POSITION_HEALTH, pool_id=parameters.pool_id, health=str(health), above=DEC
            )


def _proceeds(parameters: PoolParameters, depth: tuple[int, int], position: AmmPosition) -> int:
    """What a position's custody brings at a close into a pool of these depths, (native, external).   [X-10]"""
    is_native, custody = position.is_native_collateral, position.custody
    into, out = (depth[1], depth[0]) if is_native else depth
    return formulas.swap(
        into + custody, out, custody, parameters.fee_rate, parameters.running_rate, is_native
    ).received


def _require_room(pool: AmmPool, native: int, external: int, units: int) -> None:
    most, (native_depth, external_depth) = pool.parameters.max_atoms, depths(pool)
    pool_id = pool.parameters.pool_id
    sides = (
        (True, native_depth + pool.native_custody + native),
        (False, external_depth + pool.external_custody + external),
    )
    for is_native, atoms in sides:
        if atoms > most:
            asset_id = _side(pool, is_native)
            raise Rejection(
                RejectReason.POOL_LIMIT, pool_id=pool_id, asset_id=asset_id, atoms=str(atoms), maximum=most
            )
    if pool.units + units > most:
        raise Rejection(RejectReason.POOL_LIMIT, pool_id=pool_id, units=str(pool.units + units), maximum=most)


def _require_not_halted(pool: AmmPool) -> None:
    state = pool.parameters.state
    if state == PoolState.HALTED:
        raise Rejection(RejectReason.POOL_CLOSED, pool_id=pool.parameters.pool_id, state=state.name)


def _require_parameters(parameters: PoolParameters) -> None:
    ranges = (
        ("fee_rate", 0, DEC // 2),
        ("native_fee_rate", -1, DEC // 2),
        ("external_fee_rate", -1, DEC // 2),
        ("running_rate", 0, MAX_DEC),
        ("leverage_max", DEC, MAX_DEC),
        ("rate_min", 0, parameters.rate_max),
        ("rate_max", 0, DEC),
        ("rate_increase", 0, DEC),
        ("rate_decrease", 0, DEC),
        ("gain_factor", 0, MAX_DEC),
        ("epoch_us", 1_000_000, _DAY_US),
        ("open_threshold", 0, DEC),
        ("removal_threshold", 0, DEC),
        ("safety_factor", DEC, MAX_DEC),
        ("interest_fund_share", 0, DEC),
        ("close_fund_share", 0, DEC),
        ("max_positions", 0, 1_000_000),
        ("lent_max", 0, DEC),
        ("price_move_max", 0, DEC),
        ("price_mean_us", 1_000_000, _DAY_US),
        ("min_native", 1, NO_LIMIT_ATOMS),
        ("max_atoms", parameters.min_native, NO_LIMIT_ATOMS),
        ("collateral_weight", 0, RATE_SCALE),
    )
    for field, least, most in ranges:
        value = getattr(parameters, field)
        if not least <= value <= most:
            raise Rejection(RejectReason.INVALID_PARAMETERS, field=field, value=value, least=least, most=most)
    pool_id = parameters.pool_id
    require(0 < pool_id < 1 << SHARE_BITS, RejectReason.INVALID_PARAMETERS, field="pool_id", value=pool_id)
