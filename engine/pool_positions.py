"""Leveraged longs in liquidity pools: opened, measured, charged and closed.   [X-5, X-6, X-9, X-10, X-12]

A pool lends one of its sides, swaps it with the collateral into the other, and keeps what comes out. What a position
takes from its pool and gives back is worked out here once, for owners' closes and forced ones alike.
"""

from __future__ import annotations

from typing import NamedTuple

from engine import pools
from engine.commands import CloseLong, OpenLong
from engine.events import LongClosed, LongOpened, Outcome
from engine.formulas import pools as formulas
from engine.formulas.pools import Swapped
from engine.parameters import DEC, PoolState
from engine.posting import merged, post
from engine.rejections import Rejection, RejectReason
from engine.state import AmmPool, AmmPosition, State
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    AssetId,
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
)
from ledger.journal import JournalKind, Posting

MAX_HEALTH_SHOWN = 10**40


class LongQuote(NamedTuple):
    """What an open would give now; amounts in atoms, shares and health in 1e-18.   [X-5]"""

    size: int
    """Collateral and loan, of the collateral's asset."""
    owed: int
    custody: int
    fee: int
    """In custody's asset."""
    impact: int
    """How much worse than the spot price, the fee left out; rounded up."""
    health: int
    """Of the position on the pool as it is after the open: what must exceed the safety factor."""
    stored_health: int
    """Measured on the pool before the open, as the position remembers it."""
    pool_health: int
    """After the open, before custody leaves the balance."""
    minimum_interest: int
    """What an epoch costs at least, in the collateral's asset."""


class CloseQuote(NamedTuple):
    """What a close would give now, in atoms of the collateral's asset.   [X-10]"""

    interest: int
    """Of the running epoch and unpaid, what custody does not pay of it."""
    repaid: int
    fee: int
    returned: int
    bad_debt: int


class Charge(NamedTuple):
    """One payment of interest.   [X-9]"""

    due: int
    """In the collateral's asset, what was unpaid included."""
    taken: int
    """Out of custody, in its asset."""
    to_fund: int
    unpaid: int
    """What the position still owes of interest after it."""


def open_long(state: State, command: OpenLong, outcome: Outcome) -> LongOpened:
    """Take the collateral, lend the rest, keep what the swap gives.   [X-5, X-5b]"""
    pool = _pool_of_pair(state, command.collateral_asset_id, command.custody_asset_id)
    quote = quote_open(
        state, command.collateral_asset_id, command.custody_asset_id, command.atoms, command.leverage, outcome.at_us
    )
    if quote.custody < command.min_custody:
        raise Rejection(
            RejectReason.MIN_RECEIVED, asset_id=command.custody_asset_id, received=quote.custody,
            least=command.min_custody,
        )  # fmt: skip
    number = command.subaccount_id
    pools.require_payment(
        state, state.subaccounts[number], outcome.at_us, {command.collateral_asset_id: command.atoms}
    )

    # From here the command succeeds.
    pools.note_price(pool, outcome.at_us)
    is_native = command.collateral_asset_id == pool.parameters.native_asset_id
    position = AmmPosition(
        state.next_amm_position_id, number, pool.parameters.pool_id, is_native, command.atoms, command.leverage,
        quote.stored_health, outcome.at_us,
    )  # fmt: skip
    state.next_amm_position_id += 1
    state.amm_positions[position.position_id] = pool.positions[position.position_id] = position
    _move_balance(pool, is_native, command.atoms)
    _move_balance(pool, not is_native, -quote.custody)
    _move_custody(pool, position, quote.custody)
    _move_owed(pool, position, quote.owed)
    pool.health = quote.pool_health
    pools.note_earned(pool, 1 if is_native else 0, quote.fee)
    postings = [
        (available(number), command.collateral_asset_id, command.atoms),
        (amm_pool(position.pool_id), command.collateral_asset_id, -command.atoms),
        *_claim_postings(position, quote.custody, quote.owed),
    ]
    memo = (number, position.pool_id, position.position_id, str(command.leverage))
    post(state, outcome, JournalKind.LONG_OPENED, memo, postings)
    opened = LongOpened(position.view(), quote.fee)
    outcome.events.append(opened)
    pools.changed(state, pool, outcome)
    return opened


def close_long(state: State, command: CloseLong, outcome: Outcome) -> LongClosed:
    """The owner closes: interest of the running epoch, custody swapped back, debt repaid, the rest theirs.   [X-10]"""
    position = state.amm_positions.get(command.position_id)
    if position is None or position.subaccount_id != command.subaccount_id:
        raise Rejection(RejectReason.UNKNOWN_POOL_POSITION, position_id=command.position_id)
    pool = state.amm_pools[position.pool_id]
    if pool.parameters.state == PoolState.HALTED:
        raise Rejection(RejectReason.POOL_CLOSED, pool_id=position.pool_id, state=pool.parameters.state.name)
    close = _plan_close(pool, position, outcome.at_us, 0)
    if close.repayment.returned < command.min_received:
        received, asset_id = close.repayment.returned, _asset_ids(pool, position.is_native_collateral)[0]
        raise Rejection(
            RejectReason.MIN_RECEIVED, asset_id=asset_id, received=received, least=command.min_received
        )

    # From here the command succeeds.
    pools.note_price(pool, outcome.at_us)
    closed = finish_close(state, pool, position, close, outcome, is_forced=False)
    pools.changed(state, pool, outcome)
    return closed


class Close(NamedTuple):
    """A close worked out, nothing moved yet."""

    charge: Charge
    proceeds: Swapped
    repayment: formulas.Repayment
    to_fund: int
    """Of what is left."""


def plan_forced(pool: AmmPool, position: AmmPosition, at_us: int) -> Close:
    """A forced close at an epoch, its interest charged already. Raises Rejection: then nothing changes.   [X-11]"""
    return _plan_close(pool, position, at_us, pool.parameters.close_fund_share, is_epoch=True)


def finish_close(
    state: State, pool: AmmPool, position: AmmPosition, close: Close, outcome: Outcome, is_forced: bool
) -> LongClosed:
    """Post a close: custody's claim and the debt end, the owner and the fund get theirs, bad debt is covered.

    [X-10, X-11, X-12]
    """
    charge, repayment = close.charge, close.repayment
    pool_id, number, is_native = position.pool_id, position.subaccount_id, position.is_native_collateral
    custody_before, owed_before = position.custody, position.owed
    take_interest(pool, position, charge)
    last = position.view()
    collateral_id, custody_id = _asset_ids(pool, is_native)
    _move_balance(pool, not is_native, position.custody)
    _move_balance(pool, is_native, -repayment.returned)
    _move_custody(pool, position, -position.custody)
    _move_owed(pool, position, -position.owed)
    _move_fund(pool, is_native, close.to_fund)
    pools.note_earned(pool, 0 if is_native else 1, close.proceeds.fee)
    del pool.positions[position.position_id], state.amm_positions[position.position_id]
    to_owner = repayment.returned - close.to_fund
    postings = [
        *_claim_postings(position, -custody_before, -owed_before),
        (amm_pool(pool_id), custody_id, charge.to_fund),
        (amm_fund(pool_id), custody_id, -charge.to_fund),
        (amm_pool(pool_id), collateral_id, repayment.returned),
        (amm_fund(pool_id), collateral_id, -close.to_fund),
        (available(number), collateral_id, -to_owner),
    ]
    kind = JournalKind.LONG_FORCED if is_forced else JournalKind.LONG_CLOSED
    memo = (number, pool_id, position.position_id, close.proceeds.received, last.unpaid_atoms, str(position.health))
    post(state, outcome, kind, memo, merged(postings))
    bad_debt = repayment.principal_missing + repayment.interest_missing
    covered = _cover(state, pool, position, bad_debt, outcome) if bad_debt and pool.parameters.covers_losses else 0
    closed = LongClosed(
        last, is_forced, close.proceeds.received, close.proceeds.fee, to_owner, close.to_fund, bad_debt, covered
    )
    outcome.events.append(closed)
    return closed


def quote_open(
    state: State, collateral_asset_id: AssetId, custody_asset_id: AssetId, atoms: int, leverage: int, at_us: int
) -> LongQuote:
    """What an open would give now. Raises Rejection as the open would, but for what its owner has.   [X-5, X-13]"""
    pool = _pool_of_pair(state, collateral_asset_id, custody_asset_id)
    parameters = pool.parameters
    pool_id, is_native = parameters.pool_id, collateral_asset_id == parameters.native_asset_id
    if not 0 < atoms <= parameters.max_atoms:
        raise Rejection(
            RejectReason.POOL_AMOUNT, pool_id=pool_id, asset_id=collateral_asset_id, atoms=atoms,
            maximum=parameters.max_atoms,
        )  # fmt: skip
    if not DEC <= leverage <= parameters.leverage_max:
        raise Rejection(
            RejectReason.POOL_LEVERAGE, pool_id=pool_id, leverage=str(leverage), least=DEC, most=parameters.leverage_max
        )
    if len(pool.positions) >= parameters.max_positions:
        raise Rejection(
            RejectReason.POOL_POSITIONS, pool_id=pool_id, positions=len(pool.positions), most=parameters.max_positions
        )
    if not parameters.is_margined or parameters.state != PoolState.OPEN:
        raise Rejection(RejectReason.POOL_CLOSED, pool_id=pool_id, state=parameters.state.name)
    if pool.health <= parameters.open_threshold:
        raise Rejection(
            RejectReason.POOL_HEALTH, pool_id=pool_id, health=pool.health, above=parameters.open_threshold
        )
    if is_native and not parameters.takes_native_collateral:
        raise Rejection(RejectReason.NATIVE_COLLATERAL, pool_id=pool_id, asset_id=collateral_asset_id)
    size, owed = formulas.loan_for(atoms, leverage)
    balance, other_balance = _balances(pool, is_native)
    if size > balance:
        raise Rejection(
            RejectReason.POOL_DEPTH, pool_id=pool_id, asset_id=collateral_asset_id, asked=size, balance=balance
        )
    minimum = formulas.minimum_interest(parameters.rate_min, owed)
    if not minimum or not _quote(pool, is_native, minimum).received:
        raise Rejection(
            RejectReason.BORROW_TOO_LOW, pool_id=pool_id, asset_id=collateral_asset_id, borrowed=owed, interest=minimum
        )
    custody, fee = _quote(pool, is_native, size)
    if custody >= other_balance:
        raise Rejection(
            RejectReason.CUSTODY_DEPTH, pool_id=pool_id, asset_id=custody_asset_id, asked=custody, balance=other_balance
        )
    if not custody:
        raise Rejection(
            RejectReason.POOL_AMOUNT, pool_id=pool_id, asset_id=collateral_asset_id, atoms=atoms, received=0
        )
    _require_lendable(pool, is_native, owed, atoms)
    before, after = _open_prices(pool, is_native, size, custody)
    mean = pools.mean_price(pool, at_us)
    pools.require_steady(pool, before, mean)
    pools.require_steady(pool, after, mean, is_own=True)
    stored = formulas.position_health(_quote(pool, not is_native, custody).received, owed, 0)
    health, pool_health = _healths_after(pool, is_native, atoms, owed, custody)
    if health <= parameters.safety_factor:
        raise Rejection(
            RejectReason.POSITION_HEALTH, pool_id=pool_id, health=str(health), above=parameters.safety_factor
        )
    impact = pools.impact(pool, is_native, size, custody + fee)
    return LongQuote(size, owed, custody, fee, impact, health, stored, pool_health, minimum)


def health(pool: AmmPool, position: AmmPosition) -> int:
    """What custody would bring over what is owed, in 1e-18, on the pool as it is.   [X-6]"""
    proceeds = _quote(pool, not position.is_native_collateral, position.custody).received
    return formulas.position_health(proceeds, position.owed, position.unpaid)


def require_health(pool: AmmPool, position: AmmPosition) -> int:
    """The same. Raises Rejection where custody swaps to nothing or to more than there is: it cannot be told.   [X-6]"""
    is_native = position.is_native_collateral
    proceeds, balance = _quote(pool, not is_native, position.custody).received, _balances(pool, is_native)[0]
    if not proceeds or proceeds >= balance:
        raise Rejection(
            RejectReason.POOL_DEPTH if proceeds else RejectReason.POOL_AMOUNT, pool_id=position.pool_id,
            asset_id=_asset_ids(pool, is_native)[0], asked=proceeds, balance=balance,
        )  # fmt: skip
    return formulas.position_health(proceeds, position.owed, position.unpaid)


def liquidation_ratio(pool: AmmPool, position: AmmPosition) -> int:
    """Safety factor over health, in 1e-18, rounded up: closed by force at an epoch that finds it at 1.   [X-11]"""
    measured = health(pool, position)
    return mul_div_up(pool.parameters.safety_factor, DEC, measured) if measured else MAX_HEALTH_SHOWN


def quote_close(state: State, position: AmmPosition, at_us: int) -> CloseQuote:
    """What the owner would get now. Raises Rejection as the close would.   [X-10]"""
    pool = state.amm_pools[position.pool_id]
    close = _plan_close(pool, position, at_us, 0)
    left = close.repayment
    bad_debt = left.principal_missing + left.interest_missing
    return CloseQuote(close.charge.unpaid, close.proceeds.received, close.proceeds.fee, left.returned, bad_debt)


def plan_interest(pool: AmmPool, position: AmmPosition, elapsed: int, length: int) -> Charge:
    """Interest for `elapsed` of an epoch's `length`, 0 for a whole one: out of custody by a quote.   [X-9]

    What custody cannot pay stays unpaid; so does all of it where the pool does not collect each epoch. What comes to
    less than an atom of custody's asset, or to all of that side's balance, is not charged, as in the original.   [X-15]
    """
    if not pool.parameters.pays_each_epoch:
        return defer_interest(pool, position, elapsed, length)
    due = formulas.interest_due(pool.rate, position.owed, position.unpaid, elapsed, length)
    is_native = position.is_native_collateral
    taken, unpaid = _quote(pool, is_native, due).received, 0
    if not taken or taken >= _balances(pool, not is_native)[0]:
        return Charge(due, 0, 0, position.unpaid)
    if taken > position.custody:
        taken = position.custody
        unpaid = max(0, due - _quote(pool, not is_native, taken).received)
    to_fund = formulas.fund_share(taken, pool.parameters.interest_fund_share)
    return Charge(due, taken, to_fund, unpaid)


def defer_interest(pool: AmmPool, position: AmmPosition, elapsed: int, length: int) -> Charge:
    """The same interest, all of it left unpaid: it bears interest, and no custody is sold for it.   [X-9]"""
    due = formulas.interest_due(pool.rate, position.owed, position.unpaid, elapsed, length)
    return Charge(due, 0, 0, due)


def take_interest(pool: AmmPool, position: AmmPosition, charge: Charge) -> None:
    """Custody becomes the pool's balance, the fund's share the fund's; the caller posts it.   [X-9]"""
    is_native = position.is_native_collateral
    if charge.taken:
        position.paid += charge.due - charge.unpaid
        position.paid_custody += charge.taken
        _move_custody(pool, position, -charge.taken)
        _move_balance(pool, not is_native, charge.taken - charge.to_fund)
        _move_fund(pool, not is_native, charge.to_fund)
        pools.note_earned(pool, 3 if is_native else 2, charge.taken - charge.to_fund)
    position.unpaid = charge.unpaid


def custody_asset(position: AmmPosition) -> AssetId:
    """The asset that the ledger counts this position's custody in.   [X-14]"""
    return external_custody(position.pool_id) if position.is_native_collateral else native_custody(position.pool_id)


def _plan_close(pool: AmmPool, position: AmmPosition, at_us: int, fund_share: int, is_epoch: bool = False) -> Close:
    """Interest of the running epoch, then custody back into the balance and swapped to the collateral's asset.

    Nothing changes. Raises Rejection when the price was pushed, or custody brings nothing or more than there is.
    """
    pools.require_steady(pool, pools.spot(pool), pools.mean_price(pool, at_us))
    is_native = position.is_native_collateral
    elapsed = 0 if is_epoch else at_us % pool.parameters.epoch_us
    charge = Charge(0, 0, 0, position.unpaid)
    if elapsed:
        charge = plan_interest(pool, position, elapsed, pool.parameters.epoch_us)
    custody = position.custody - charge.taken
    native_depth, external_depth = pools.depths(pool)
    # By now the interest, and with it all custody, is in the balance that is swapped against.
    into = (external_depth if is_native else native_depth) + position.custody - charge.to_fund
    out = native_depth if is_native else external_depth
    parameters = pool.parameters
    proceeds = formulas.swap(into, out, custody, parameters.fee_rate, parameters.running_rate, is_native)
    balance = _balances(pool, is_native)[0]
    if not proceeds.received:
        custody_id = _asset_ids(pool, not is_native)[0]
        raise Rejection(
            RejectReason.POOL_AMOUNT, pool_id=position.pool_id, asset_id=custody_id, atoms=custody, received=0
        )
    asked = proceeds.received
    if elapsed:
        # Between two epochs health is measured after the payment, with custody still outside of the balance.  
        asked = formulas.swap(
            into - custody, out, custody, parameters.fee_rate, parameters.running_rate, is_native
        ).received
    if asked >= balance:
        raise Rejection(
            RejectReason.POOL_DEPTH, pool_id=position.pool_id, asset_id=_asset_ids(pool, is_native)[0], asked=asked,
            balance=balance,
        )  # fmt: skip
    repayment = formulas.repayment(proceeds.received, position.owed, charge.unpaid)
    if repayment.principal_missing and not is_epoch:
        # Nobody needs to close at a loss of the providers' into a pool that is too shallow for it now.
        out -= proceeds.received
        price = into * DEC // out if is_native else out * DEC // into
        pools.require_steady(pool, price, pools.mean_price(pool, at_us), is_own=True)
    return Close(charge, proceeds, repayment, formulas.fund_share(repayment.returned, fund_share))


def _cover(state: State, pool: AmmPool, position: AmmPosition, bad_debt: int, outcome: Outcome) -> int:
    """The fund pays bad debt: of the asset that was owed first, then of the other, swapped at the pool's price.  [X-12]

    What it swaps stays in the pool on both sides, so providers are paid in full or what the fund has is gone.
    """
    is_native = position.is_native_collateral
    paid_id, other_id = _asset_ids(pool, is_native)
    fund, other_fund = _funds(pool, is_native)
    direct = min(fund, bad_debt)
    swapped, bought = 0, 0
    if missing := bad_debt - direct:
        native_depth, external_depth = pools.depths(pool)
        into, out = (external_depth, native_depth) if is_native else (native_depth, external_depth)
        fee_rate, running_rate = pool.parameters.fee_rate, pool.parameters.running_rate
        needed = formulas.input_for(into, out, missing, fee_rate, running_rate, is_native)
        swapped = other_fund if needed is None else min(needed, other_fund)
        bought = min(missing, formulas.swap(into, out, swapped, fee_rate, running_rate, is_native).received)
    if not direct and not bought:
        return 0
    _move_fund(pool, is_native, -direct)
    _move_balance(pool, is_native, direct)
    _move_fund(pool, not is_native, -swapped)
    _move_balance(pool, not is_native, swapped)
    postings: list[Posting] = []
    for asset_id, atoms in ((paid_id, direct), (other_id, swapped)):
        if atoms:
            postings += [(amm_fund(position.pool_id), asset_id, atoms), (amm_pool(position.pool_id), asset_id, -atoms)]
    memo = (position.pool_id, position.position_id, bad_debt, direct + bought)
    post(state, outcome, JournalKind.POOL_DEBT_COVERED, memo, postings)
    return direct + bought


def _pool_of_pair(state: State, collateral_asset_id: AssetId, custody_asset_id: AssetId) -> AmmPool:
    """The pool of the two: exactly one of them is the native asset, the other the pool's own.   [X-5, X-15]"""
    for asset_id in (collateral_asset_id, custody_asset_id):
        if asset_id not in state.assets:
            raise Rejection(RejectReason.UNKNOWN_ASSET, asset_id=asset_id)
    for one, other in ((collateral_asset_id, custody_asset_id), (custody_asset_id, collateral_asset_id)):
        pool = state.amm_pools.get(one)
        if pool is not None and pool.parameters.native_asset_id == other:
            return pool
    raise Rejection(
        RejectReason.POOL_PAIR, collateral_asset_id=collateral_asset_id, custody_asset_id=custody_asset_id
    )


def _quote(pool: AmmPool, is_native_paid: bool, atoms: int) -> Swapped:
    """A swap on the depths as they are; the pool does not change.   [X-1]"""
    native, external = pool.native_balance + pool.native_owed, pool.external_balance + pool.external_owed
    parameters = pool.parameters
    if is_native_paid:
        return formulas.swap(native, external, atoms, parameters.fee_rate, parameters.running_rate, False)
    return formulas.swap(external, native, atoms, parameters.fee_rate, parameters.running_rate, True)


def _require_lendable(pool: AmmPool, is_native: bool, owed: int, collateral: int) -> None:
    """A side lends at most its share of its depth, and holds no more than a side may.   [X-13]"""
    parameters = pool.parameters
    depth = pools.depths(pool)[0 if is_native else 1]
    total = owed + (pool.native_owed if is_native else pool.external_owed)
    most = mul_div_down(depth, parameters.lent_max, DEC)
    if parameters.lent_max and total > most:
        asset_id = _asset_ids(pool, is_native)[0]
        raise Rejection(
            RejectReason.POOL_LENT_LIMIT, pool_id=parameters.pool_id, asset_id=asset_id, lent=total, most=most
        )
    side = depth + owed + collateral + (pool.native_custody if is_native else pool.external_custody)
    if side > parameters.max_atoms:
        raise Rejection(
            RejectReason.POOL_LIMIT, pool_id=parameters.pool_id, asset_id=_asset_ids(pool, is_native)[0],
            atoms=str(side), maximum=parameters.max_atoms,
        )  # fmt: skip


def _open_prices(pool: AmmPool, is_native: bool, size: int, custody: int) -> tuple[int, int]:
    """The spot price (external per native, 1e-18) before an open and after it."""
    native, external = pools.depths(pool)
    moved = (native + size, external - custody) if is_native else (native - custody, external + size)
    return pools.spot(pool), moved[1] * DEC // moved[0]


def _healths_after(pool: AmmPool, is_native: bool, collateral: int, owed: int, custody: int) -> tuple[int, int]:
    """(the position's health on the pool after an open, the pool's before custody leaves it).   [X-5, X-6, X-7]"""
    native, external = pools.depths(pool)
    size = collateral + owed
    parameters = pool.parameters
    if is_native:
        pool_health = formulas.pool_health(
            pool.native_balance + collateral, pool.external_balance, pool.native_owed + owed, pool.external_owed
        )
        into, out = external - custody, native + size
    else:
        pool_health = formulas.pool_health(
            pool.native_balance, pool.external_balance + collateral, pool.native_owed, pool.external_owed + owed
        )
        into, out = native - custody, external + size
    proceeds = formulas.swap(into, out, custody, parameters.fee_rate, parameters.running_rate, is_native)
    return formulas.position_health(proceeds.received, owed, 0), pool_health


def _claim_postings(position: AmmPosition, custody: int, owed: int) -> list[Posting]:
    """Custody and debt of a position against the pool's book; above zero: more of them.   [X-14]"""
    pool_id, number = position.pool_id, position.subaccount_id
    owed_id = native_owed(pool_id) if position.is_native_collateral else external_owed(pool_id)
    custody_id = custody_asset(position)
    return [
        (in_custody(number), custody_id, -custody),
        (amm_book(pool_id), custody_id, custody),
        (owed_to_pools(number), owed_id, owed),
        (amm_book(pool_id), owed_id, -owed),
    ]


def _asset_ids(pool: AmmPool, is_native: bool) -> tuple[AssetId, AssetId]:
    """(that side's asset, the other's)."""
    native, external = pool.parameters.native_asset_id, pool.parameters.pool_id
    return (native, external) if is_native else (external, native)


def _balances(pool: AmmPool, is_native: bool) -> tuple[int, int]:
    """(that side's balance, the other's)."""
    native, external = pool.native_balance, pool.external_balance
    return (native, external) if is_native else (external, native)


def _funds(pool: AmmPool, is_native: bool) -> tuple[int, int]:
    return (pool.native_fund, pool.external_fund) if is_native else (pool.external_fund, pool.native_fund)


def _move_balance(pool: AmmPool, is_native: bool, atoms: int) -> None:
    if is_native:
        pool.native_balance += atoms
    else:
        pool.external_balance += atoms


def _move_fund(pool: AmmPool, is_native: bool, atoms: int) -> None:
    if is_native:
        pool.native_fund += atoms
    else:
        pool.external_fund += atoms


def _move_custody(pool: AmmPool, position: AmmPosition, atoms: int) -> None:
    """A position's custody, which is the other side than its collateral, and the pool's."""
    position.custody += atoms
    if position.is_native_collateral:
        pool.external_custody += atoms
    else:
        pool.native_custody += atoms


def _move_owed(pool: AmmPool, position: AmmPosition, atoms: int) -> None:
    position.owed += atoms
    if position.is_native_collateral:
        pool.native_owed += atoms
    else:
        pool.external_owed += atoms
