"""The money markets: what is lent to and borrowed from each pool, the interest, the throttle.   [B-1 … B-14]

A pool's atoms and everybody's shares are balances of the ledger; `Totals` is the pool as it stands now, interest
included. Whoever changes a pool calls `begin` first and then the four movements below, which append their postings to a
journal transaction that the caller posts: alone, or inside a fill, a transfer, a withdrawal.
"""

from __future__ import annotations

from typing import Any

from engine.commands import AccrueInterest, CollectPoolFees, UpdateThrottle
from engine.events import LendingEvent, LendingMoved, LendingSource, Outcome, PoolAccrued, ThrottleMoved
from engine.formulas import lending as formulas
from engine.parameters import RATE_SCALE, LendingParameters, LendingState
from engine.posting import post
from engine.rejections import Rejection, RejectReason, require
from engine.state import ASSET_BITS, Loan, Pool, State, Subaccount
from engine.yields import weigh_shares
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    FEE_INCOME,
    POOL_BORROWED,
    POOL_FEES,
    POOL_LENT,
    POOL_SHARES,
    ROUNDING,
    AssetId,
    available,
    borrowed,
    debt_share,
    lend_share,
    lent,
)
from ledger.journal import JournalKind, Posting

HOUR_US = 3_600_000_000
THROTTLE_SECONDS = 10
LEAST_SHARES = formulas.SHARES_PER_ATOM
"""Nobody keeps fewer lend shares than this, so that what others leave behind in a small pool is not felt.   [B-4]"""
LEAST_SHARES_PER_ATOM = 1_000
"""A pool whose shares have become worth more takes no new loans: roundings would be felt. Interest needs years."""

_LEND, _REDEEM, _BORROW, _REPAY = (
    LendingEvent.LEND,
    LendingEvent.LEND_REDEEM,
    LendingEvent.BORROW,
    LendingEvent.BORROW_REPAY,
)
_JOURNAL_KIND = {
    _LEND: JournalKind.LEND,
    _REDEEM: JournalKind.REDEEM,
    _BORROW: JournalKind.BORROW,
    _REPAY: JournalKind.REPAY,
}
_LENT_KEY = POOL_LENT << ASSET_BITS
_BORROWED_KEY = POOL_BORROWED << ASSET_BITS
_FEES_KEY = POOL_FEES << ASSET_BITS
_SHARES_KEY = POOL_SHARES << ASSET_BITS


class Totals:
    """A pool with its interest up to a moment; the movements of a command change it as they go.   [B-4]"""

    __slots__ = (
        "borrowed",
        "carry",
        "debt_shares",
        "fee",
        "fee_carry",
        "fees",
        "interest",
        "lend_shares",
        "lent",
        "rate",
        "staked",
    )

    lent: int
    borrowed: int
    fees: int
    lend_shares: int
    debt_shares: int
    staked: int
    rate: int
    """The annual borrow rate that held since the last accrual, 1e-18."""
    interest: int
    """What has accrued and is not posted yet, `fee` of it the exchange's."""
    fee: int
    carry: int
    fee_carry: int

    @property
    def idle(self) -> int:
        """What is there to redeem and to borrow.   [B-14]"""
        return self.lent + self.fees - self.borrowed - self.staked


class Movements:
    """The postings of some movements and their memos: (subaccount, asset, event, source, atoms, shares, position)."""

    __slots__ = ("memos", "postings")

    def __init__(self) -> None:
        self.postings: list[Posting] = []
        self.memos: list[tuple[Any, ...]] = []


def totals(state: State, pool: Pool, at_us: int) -> Totals:
    """The pool with its interest up to `at_us`. Changes nothing that counts: what was computed is kept.   [B-4]"""
    now_ms = at_us // 1_000
    if pool.projected_ms == now_ms:
        known: Totals = pool.projected
        return known
    asset_id = pool.asset_id
    balances = state.balances
    found = Totals()
    found.lent = -balances.get(_LENT_KEY | asset_id, 0)
    found.borrowed = balances.get(_BORROWED_KEY | asset_id, 0)
    found.fees = -balances.get(_FEES_KEY | asset_id, 0)
    found.lend_shares = balances.get(_SHARES_KEY | lend_share(asset_id), 0)
    found.debt_shares = -balances.get(_SHARES_KEY | debt_share(asset_id), 0)
    parameters = lending_parameters(state, asset_id)
    found.staked = pool.staked
    found.interest = found.fee = 0
    found.carry, found.fee_carry = pool.carry, pool.fee_carry
    if found.borrowed:
        found.rate = borrow_rate(found, parameters)
        if now_ms > pool.accrued_ms:
            # When only fees are lent out nobody has a share of what they earn: it is fees as well.
            fee = parameters.fee if found.lend_shares else formulas.FEE_ONE
            accrued = formulas.accrue(
                found.borrowed, found.rate, now_ms - pool.accrued_ms, pool.carry, fee, pool.fee_carry
            )
            found.interest, found.fee, found.carry, found.fee_carry = accrued
            found.borrowed += accrued.interest
            found.fees += accrued.fee
            found.lent += accrued.interest - accrued.fee
    else:
        found.rate = 0
    pool.projected_ms = now_ms
    pool.projected = found
    return found


def begin(state: State, outcome: Outcome, asset_id: AssetId) -> Totals:
    """Post the interest up to now; from here the pool may change.   [B-4]"""
    pool = state.pools[asset_id]
    state.valuations.moves += 1
    now = totals(state, pool, outcome.at_us)
    pool.accrued_ms = outcome.at_us // 1_000
    pool.carry, pool.fee_carry = now.carry, now.fee_carry
    if now.interest:
        postings: list[Posting] = [(POOL_BORROWED, asset_id, now.interest)]
        if now.interest != now.fee:
            postings.append((POOL_LENT, asset_id, now.fee - now.interest))
        if now.fee:
            postings.append((POOL_FEES, asset_id, -now.fee))
        memo = (asset_id, pool.accrued_ms, str(now.rate), now.interest, now.fee)
        now.interest = now.fee = 0
        post(state, outcome, JournalKind.INTEREST, memo, postings)
    return now


def borrow_rate(now: Totals, parameters: LendingParameters) -> int:
    """The annual borrow rate at this utilization, 1e-18.   [B-2]"""
    return formulas.borrow_rate(
        now.borrowed,
        now.lent,
        now.fees,
        parameters.optimal_utilization,
        parameters.rate_base,
        parameters.rate_optimal,
        parameters.rate_max,
    )


def lending_parameters(state: State, asset_id: AssetId) -> LendingParameters:
    parameters = state.assets[asset_id].lending
    assert parameters is not None, f"asset {asset_id} has a pool and no parameters for it"
    return parameters


def claim(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int) -> int:
    """What the subaccount lends, with interest, in atoms, rounded down.   [B-4]"""
    if asset_id not in subaccount.lent:
        return 0
    now = totals(state, state.pools[asset_id], at_us)
    shares = -state.balances.get(lent(subaccount.subaccount_id) << ASSET_BITS | lend_share(asset_id), 0)
    return formulas.claim_atoms(shares, now.lent, now.lend_shares)


def debt(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int) -> int:
    """What the subaccount owes, with interest, in atoms, rounded up.   [B-4]"""
    if asset_id not in subaccount.debts:
        return 0
    now = totals(state, state.pools[asset_id], at_us)
    shares = state.balances.get(borrowed(subaccount.subaccount_id) << ASSET_BITS | debt_share(asset_id), 0)
    return formulas.debt_atoms(shares, now.borrowed, now.debt_shares)


# --- the four movements -----------------------------------------------------------------------------------------


def lend(
    state: State,
    outcome: Outcome,
    into: Movements,
    subaccount: Subaccount,
    asset_id: AssetId,
    atoms: int,
    source: LendingSource,
    order_id: int = 0,
) -> None:
    """`atoms` of what is available become lend shares, rounded up so that the claim is exactly `atoms`.   [B-4]"""
    now = begin(state, outcome, asset_id)
    minted = formulas.lend_mint(atoms, now.lent, now.lend_shares)
    assert atoms > 0 and minted > 0, f"subaccount {subaccount.subaccount_id} lends {atoms} of asset {asset_id}"
    number = subaccount.subaccount_id
    weigh_shares(state, outcome, subaccount, asset_id, now.lend_shares)
    loan = loan_of(state, outcome, subaccount.lent, asset_id)
    loan.flow_atoms += atoms
    now.lent += atoms
    now.lend_shares += minted
    into.postings += (
        (available(number), asset_id, atoms),
        (POOL_LENT, asset_id, -atoms),
        (lent(number), lend_share(asset_id), -minted),
        (POOL_SHARES, lend_share(asset_id), minted),
    )
    shares = minted - state.balances.get(lent(number) << ASSET_BITS | lend_share(asset_id), 0)
    position = formulas.claim_atoms(shares, now.lent, now.lend_shares)
    _record(outcome, into, number, asset_id, _LEND, source, atoms, minted, shares, position, loan, order_id)


def redeem(
    state: State,
    outcome: Outcome,
    into: Movements,
    subaccount: Subaccount,
    asset_id: AssetId,
    atoms: int,
    source: LendingSource,
    order_id: int = 0,
) -> None:
    """Lend shares become `atoms` available, rounded up; the whole claim burns them all.   [B-4, B-6]

    `atoms` is what `redemption` says.
    """
    now = begin(state, outcome, asset_id)
    number = subaccount.subaccount_id
    shares = -state.balances.get(lent(number) << ASSET_BITS | lend_share(asset_id), 0)
    whole = formulas.claim_atoms(shares, now.lent, now.lend_shares)
    assert 0 < atoms <= whole, f"subaccount {number} redeems {atoms} of {whole} of asset {asset_id}"
    burnt = shares if atoms == whole else formulas.redeem_burn(atoms, now.lent, now.lend_shares)
    weigh_shares(state, outcome, subaccount, asset_id, now.lend_shares)
    loan = subaccount.lent[asset_id]
    loan.flow_atoms -= atoms
    now.lent -= atoms
    now.lend_shares -= burnt
    shares -= burnt
    into.postings += (
        (available(number), asset_id, -atoms),
        (POOL_LENT, asset_id, atoms),
        (lent(number), lend_share(asset_id), burnt),
        (POOL_SHARES, lend_share(asset_id), -burnt),
    )
    if not now.lend_shares and now.lent:
        # Nobody is left to whom the last fraction of an atom belongs.
        into.postings += ((POOL_LENT, asset_id, now.lent), (ROUNDING, asset_id, -now.lent))
        now.lent = 0
    position = formulas.claim_atoms(shares, now.lent, now.lend_shares)
    if not shares:
        del subaccount.lent[asset_id]
    _record(outcome, into, number, asset_id, _REDEEM, source, atoms, burnt, shares, position, loan, order_id)


def borrow(
    state: State,
    outcome: Outcome,
    into: Movements,
    subaccount: Subaccount,
    asset_id: AssetId,
    atoms: int,
    source: LendingSource,
    order_id: int = 0,
) -> None:
    """`atoms` become available against debt shares, rounded down so that exactly `atoms` are owed.   [B-4, B-9]"""
    now = begin(state, outcome, asset_id)
    minted = formulas.borrow_mint(atoms, now.borrowed, now.debt_shares)
    number = subaccount.subaccount_id
    assert atoms > 0 and minted > 0, f"subaccount {number} borrows {atoms} of asset {asset_id}"
    loan = loan_of(state, outcome, subaccount.debts, asset_id)
    subaccount.margined = True
    loan.flow_atoms += atoms
    now.borrowed += atoms
    now.debt_shares += minted
    into.postings += (
        (POOL_BORROWED, asset_id, atoms),
        (available(number), asset_id, -atoms),
        (borrowed(number), debt_share(asset_id), minted),
        (POOL_SHARES, debt_share(asset_id), -minted),
    )
    shares = minted + state.balances.get(borrowed(number) << ASSET_BITS | debt_share(asset_id), 0)
    position = formulas.debt_atoms(shares, now.borrowed, now.debt_shares)
    _record(outcome, into, number, asset_id, _BORROW, source, atoms, minted, shares, position, loan, order_id)


def repay(
    state: State,
    outcome: Outcome,
    into: Movements,
    subaccount: Subaccount,
    asset_id: AssetId,
    atoms: int,
    source: LendingSource,
    order_id: int = 0,
) -> None:
    """`atoms` available pay a debt: shares burnt rounded down; the whole debt burns them all.   [B-4, B-10]

    While others owe, their shares keep at least what they were minted for: what the payer's rounding up would take from
    it goes to rounding. Or, in a pool of a few atoms, shares would be left that owe nothing, or grow without end.
    """
    now = begin(state, outcome, asset_id)
    number = subaccount.subaccount_id
    shares = state.balances.get(borrowed(number) << ASSET_BITS | debt_share(asset_id), 0)
    whole = formulas.debt_atoms(shares, now.borrowed, now.debt_shares)
    assert 0 < atoms <= whole, f"subaccount {number} repays {atoms} of {whole} of asset {asset_id}"
    burnt = shares if atoms == whole else formulas.repay_burn(atoms, now.borrowed, now.debt_shares)
    loan = subaccount.debts[asset_id]
    loan.flow_atoms -= atoms
    now.debt_shares -= burnt
    shares -= burnt
    cut = min(atoms, now.borrowed - mul_div_up(now.debt_shares, 1, formulas.SHARES_PER_ATOM))
    now.borrowed -= cut
    into.postings += (
        (available(number), asset_id, atoms),
        (POOL_BORROWED, asset_id, -cut),
        (borrowed(number), debt_share(asset_id), -burnt),
        (POOL_SHARES, debt_share(asset_id), burnt),
    )
    if cut != atoms:
        into.postings.append((ROUNDING, asset_id, cut - atoms))
    position = formulas.debt_atoms(shares, now.borrowed, now.debt_shares)
    if not shares:
        del subaccount.debts[asset_id]
        subaccount.judge_by_margin()
        state.small_debts.pop((number, asset_id), None)
    else:
        state.small_debts[number, asset_id] = None
    _record(outcome, into, number, asset_id, _REPAY, source, atoms, burnt, shares, position, loan, order_id)


def pass_shares(
    state: State,
    outcome: Outcome,
    into: Movements,
    source: Subaccount,
    target: Subaccount,
    asset_id: AssetId,
    atoms: int,
    sources: tuple[LendingSource, LendingSource] = (LendingSource.MANUAL, LendingSource.MANUAL),
) -> None:
    """Lend shares worth `atoms`, rounded up, change hands at par: no redemption.   [U-2, B-7]

    `sources`: why the one gave, and why the other took.
    """
    now = begin(state, outcome, asset_id)
    giver, taker = source.subaccount_id, target.subaccount_id
    share = lend_share(asset_id)
    given = -state.balances.get(lent(giver) << ASSET_BITS | share, 0)
    got = -state.balances.get(lent(taker) << ASSET_BITS | share, 0)
    whole = formulas.claim_atoms(given, now.lent, now.lend_shares)
    assert 0 < atoms <= whole, f"subaccount {giver} passes on {atoms} of {whole} of asset {asset_id}"
    passed = given if atoms == whole else formulas.redeem_burn(atoms, now.lent, now.lend_shares)
    if given - passed < LEAST_SHARES:
        passed = given
    for subaccount in (source, target):
        weigh_shares(state, outcome, subaccount, asset_id, now.lend_shares)
    loan, other = source.lent[asset_id], loan_of(state, outcome, target.lent, asset_id)
    loan.flow_atoms -= atoms
    other.flow_atoms += atoms
    given -= passed
    got += passed
    if not given:
        del source.lent[asset_id]
    into.postings += ((lent(giver), share, passed), (lent(taker), share, -passed))
    left, has = (formulas.claim_atoms(shares, now.lent, now.lend_shares) for shares in (given, got))
    _record(outcome, into, giver, asset_id, _REDEEM, sources[0], atoms, passed, given, left, loan, 0)
    _record(outcome, into, taker, asset_id, _LEND, sources[1], atoms, passed, got, has, other, 0)


def pass_debt(
    state: State,
    outcome: Outcome,
    into: Movements,
    source: Subaccount,
    target: Subaccount,
    asset_id: AssetId,
    shares: int,
    sources: tuple[LendingSource, LendingSource],
) -> None:
    """Debt shares change hands: whoever takes them owes what they stand for, rounded up as every debt.   [L-4]"""
    now = begin(state, outcome, asset_id)
    giver, taker = source.subaccount_id, target.subaccount_id
    share = debt_share(asset_id)
    owed = state.balances.get(borrowed(giver) << ASSET_BITS | share, 0)
    owing = state.balances.get(borrowed(taker) << ASSET_BITS | share, 0)
    assert 0 < shares <= owed, f"subaccount {giver} passes on {shares} of {owed} debt shares of asset {asset_id}"
    before = formulas.debt_atoms(owed, now.borrowed, now.debt_shares)
    loan, other = source.debts[asset_id], loan_of(state, outcome, target.debts, asset_id)
    owed -= shares
    owing += shares
    left, has = (formulas.debt_atoms(each, now.borrowed, now.debt_shares) for each in (owed, owing))
    atoms = before - left
    loan.flow_atoms -= atoms
    other.flow_atoms += atoms
    target.margined = True
    if owed:
        state.small_debts[giver, asset_id] = None
    else:
        del source.debts[asset_id]
        source.judge_by_margin()
        state.small_debts.pop((giver, asset_id), None)
    into.postings += ((borrowed(giver), share, -shares), (borrowed(taker), share, shares))
    _record(outcome, into, giver, asset_id, _REPAY, sources[0], atoms, shares, owed, left, loan, 0)
    _record(outcome, into, taker, asset_id, _BORROW, sources[1], atoms, shares, owing, has, other, 0)


def new_position_id(state: State, at_us: int) -> int:
    """A number for a loan or a position. The first of all starts the hourly and the 10-second ticks.   [B-4, B-7]"""
    number = state.next_position_id
    if number == 1:
        state.last_interest_hour = at_us // HOUR_US
        state.throttled_second = at_us // 1_000_000
    state.next_position_id = number + 1
    return number


def post_alone(state: State, outcome: Outcome, into: Movements) -> None:
    """Post movements of one kind as a journal transaction of their own.   [B-12]"""
    (memo,) = into.memos
    number, asset_id, event, source, atoms, shares, position_id = memo
    post(
        state,
        outcome,
        _JOURNAL_KIND[LendingEvent(event)],
        (number, asset_id, source, atoms, shares, position_id),
        into.postings,
    )


def redemption(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, atoms: int) -> int:
    """What to redeem to have `atoms`: no more than the claim, and all of it where only crumbs of shares would be left.

    Whoever could hold a handful of shares could, by coming and going, make one share worth many atoms, and then every
    rounding of a share would cost the other lenders that much.   [B-4]
    """
    now = totals(state, state.pools[asset_id], at_us)
    shares = -state.balances.get(lent(subaccount.subaccount_id) << ASSET_BITS | lend_share(asset_id), 0)
    claim = formulas.claim_atoms(shares, now.lent, now.lend_shares)
    if atoms >= claim:
        return claim
    left = shares - formulas.redeem_burn(atoms, now.lent, now.lend_shares)
    return atoms if left >= LEAST_SHARES else claim


# --- whether a pool lets it pass ----------------------------------------------------------------------------------


def supply_refusal(
    state: State, asset_id: AssetId, at_us: int, redeemed: int, borrowed: int, lent: int = 0, repaid: int = 0
) -> RejectReason | None:
    """Why a command's net effect on a pool does not pass: the throttle, or idle below zero.   [B-7, S-8]"""
    redeemed, lent = max(0, redeemed - lent), max(0, lent - redeemed)
    borrowed, repaid = max(0, borrowed - repaid), max(0, repaid - borrowed)
    if not redeemed and not borrowed:
        return None
    pool = state.pools[asset_id]
    now = totals(state, pool, at_us)
    parameters = lending_parameters(state, asset_id)
    # Once a command has found the pool below the threshold, its further fills are judged by the bound alone.
    if pool.open_at != state.sequence:
        if formulas.is_at_or_over(now.borrowed, now.lent, now.fees, parameters.throttle_threshold):
            return RejectReason.INSUFFICIENT_SUPPLY
        pool.open_at = state.sequence
    after_lent, after_borrowed = now.lent + lent - redeemed, now.borrowed + borrowed - repaid
    if after_lent + now.fees - after_borrowed - now.staked < 0:
        return RejectReason.INSUFFICIENT_SUPPLY
    if formulas.is_over(after_borrowed, after_lent, now.fees, pool.bound):
        return RejectReason.INSUFFICIENT_SUPPLY
    return None


def borrow_refusal(state: State, asset_id: AssetId, at_us: int, atoms: int) -> RejectReason | None:
    """Why nobody could borrow this much: no money market, its state, its cap.   [B-8, B-11]"""
    pool = state.pools.get(asset_id)
    if pool is None:
        return RejectReason.LENDING_CLOSED
    parameters = lending_parameters(state, asset_id)
    if parameters.state is not LendingState.OPEN:
        return RejectReason.LENDING_CLOSED
    now = totals(state, pool, at_us)
    if now.borrowed + atoms > parameters.open_limit_atoms:
        return RejectReason.BORROW_LIMIT
    if now.debt_shares < now.borrowed * LEAST_SHARES_PER_ATOM:
        return RejectReason.INSUFFICIENT_SUPPLY
    return None


def lend_room(state: State, asset_id: AssetId, at_us: int) -> int:
    """How much more may be lent: nothing where the market is not open, else up to its cap.   [B-8, B-11]"""
    pool = state.pools.get(asset_id)
    if pool is None:
        return 0
    parameters = lending_parameters(state, asset_id)
    if parameters.state is not LendingState.OPEN:
        return 0
    now = totals(state, pool, at_us)
    if now.lend_shares < now.lent * LEAST_SHARES_PER_ATOM:
        return 0
    return max(0, parameters.open_limit_atoms - now.lent)


def require_supply(state: State, asset_id: AssetId, at_us: int, redeemed: int, borrowed: int) -> None:
    """Raise what `supply_refusal` finds: which of its three it is, with both numbers of that one."""
    reason = supply_refusal(state, asset_id, at_us, redeemed, borrowed)
    if reason is None:
        return
    pool = state.pools[asset_id]
    now = totals(state, pool, at_us)
    needed = redeemed + borrowed
    if pool.open_at != state.sequence:
        threshold = lending_parameters(state, asset_id).throttle_threshold
        part, whole = formulas.utilization(now.borrowed, now.lent, now.fees)
        used = mul_div_down(part, RATE_SCALE, whole)
        raise Rejection(reason, asset_id=asset_id, needed_atoms=needed, utilization=used, threshold=threshold)
    if needed > now.idle:
        raise Rejection(reason, asset_id=asset_id, needed_atoms=needed, idle_atoms=max(0, now.idle))
    part, whole = formulas.utilization(now.borrowed + borrowed, now.lent - redeemed, now.fees)
    # Up: what is beyond the bound must not read as the bound.
    used = mul_div_up(part, RATE_SCALE, whole)
    raise Rejection(reason, asset_id=asset_id, needed_atoms=needed, utilization_after=used, bound=pool.bound)


# --- what happens by itself -----------------------------------------------------------------------------------------


def accrue_interest(state: State, command: AccrueInterest, outcome: Outcome) -> None:
    """An hour begins: interest is posted in every pool, the hour's totals are told. O(pools).   [B-4, B-13]"""
    expected = state.last_interest_hour + 1
    require(command.hour == expected, RejectReason.TICK_OUT_OF_ORDER, hour=command.hour, expected=expected)
    # From here the command succeeds.
    state.last_interest_hour = command.hour
    for asset_id in sorted(state.pools):
        now = begin(state, outcome, asset_id)
        parameters = lending_parameters(state, asset_id)
        # Of an empty pool too: its last loan may have ended within the hour, and earned until then.
        outcome.events.append(
            PoolAccrued(
                asset_id,
                command.hour,
                now.lent,
                now.borrowed,
                now.fees,
                str(now.lend_shares),
                str(now.debt_shares),
                str(borrow_rate(now, parameters)),
                parameters.fee,
            )
        )


def update_throttle(state: State, command: UpdateThrottle, outcome: Outcome) -> None:
    """A 10-second tick: each pool's bound follows its utilization.   [B-7]"""
    second = outcome.at_us // 1_000_000
    at_tick = second % THROTTLE_SECONDS == 0 and second > state.throttled_second
    require(at_tick, RejectReason.TICK_OUT_OF_ORDER, second=second, last=state.throttled_second)
    # From here the command succeeds.
    state.throttled_second = second
    for asset_id in sorted(state.pools):
        pool = state.pools[asset_id]
        parameters = lending_parameters(state, asset_id)
        now = totals(state, pool, outcome.at_us)
        bound = formulas.throttle_bound(
            now.borrowed,
            now.lent,
            now.fees,
            parameters.throttle_threshold,
            parameters.throttle_fraction,
            parameters.max_utilization,
        )
        if bound != pool.bound:
            pool.bound = bound
            outcome.events.append(ThrottleMoved(asset_id, bound))


def open_pool(state: State, asset_id: AssetId, parameters: LendingParameters, at_us: int) -> None:
    """A money market begins, empty.   [B-1]"""
    bound = formulas.throttle_bound(
        0, 0, 0, parameters.throttle_threshold, parameters.throttle_fraction, parameters.max_utilization
    )
    state.pools[asset_id] = Pool(asset_id, at_us // 1_000, bound)


def collect_fees(state: State, command: CollectPoolFees, outcome: Outcome) -> None:
    """The operator takes fees out of a pool: only what is idle, and not past the throttle.   [B-14]"""
    pool = state.pools.get(command.asset_id)
    if pool is None:
        raise Rejection(RejectReason.LENDING_CLOSED, asset_id=command.asset_id)
    now = totals(state, pool, outcome.at_us)
    require(0 < command.atoms <= now.fees, RejectReason.INVALID_QUANTITY, atoms=command.atoms, fees=now.fees)
    # Fees are part of what was lent as far as the throttle is concerned.
    require_supply(state, command.asset_id, outcome.at_us, command.atoms, 0)
    # From here the command succeeds.
    now = begin(state, outcome, command.asset_id)
    now.fees -= command.atoms
    post(
        state,
        outcome,
        JournalKind.POOL_FEES_COLLECTED,
        (command.asset_id, command.atoms),
        [(POOL_FEES, command.asset_id, command.atoms), (FEE_INCOME, command.asset_id, -command.atoms)],
    )


def settle_idle(state: State, outcome: Outcome) -> None:
    """What came in, or became free, repays and is lent where the subaccount's settings say so.   [B-5, B-10, S-4]"""
    for key in list(outcome.touched):
        number, asset_id = key >> ASSET_BITS, key & ((1 << ASSET_BITS) - 1)
        if number in state.automatic:
            settle_asset(state, outcome, state.subaccounts[number], asset_id)


def settle_asset(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> None:
    """Repay a debt of the asset from what is free, then lend the rest if autoLend is on.   [B-5, B-10, S-4]"""
    if asset_id not in state.pools:
        return
    free = state.withdrawable(subaccount.subaccount_id, asset_id)
    if free <= 0:
        return
    owed = debt(state, subaccount, asset_id, outcome.at_us)
    repaid = min(free, owed)
    if repaid:
        into = Movements()
        repay(state, outcome, into, subaccount, asset_id, repaid, LendingSource.AUTO_BORROW_REPAY)
        post_alone(state, outcome, into)
    if subaccount.auto_lend:
        idle = min(free - repaid, lend_room(state, asset_id, outcome.at_us))
        if idle > 0:
            into = Movements()
            lend(state, outcome, into, subaccount, asset_id, idle, LendingSource.AUTO_LEND)
            post_alone(state, outcome, into)


def loan_of(state: State, outcome: Outcome, loans: dict[AssetId, Loan], asset_id: AssetId) -> Loan:
    loan = loans.get(asset_id)
    if loan is None:
        loan = loans[asset_id] = Loan(new_position_id(state, outcome.at_us), outcome.at_us)
    return loan


def _record(
    outcome: Outcome,
    into: Movements,
    number: int,
    asset_id: AssetId,
    event: LendingEvent,
    source: LendingSource,
    atoms: int,
    shares: int,
    shares_after: int,
    position: int,
    loan: Loan,
    order_id: int,
) -> None:
    # Shares are decimal strings where they are written down: they need not fit 64 bits.
    into.memos.append((number, asset_id, int(event), int(source), atoms, str(shares), loan.position_id))
    outcome.events.append(
        LendingMoved(
            number, asset_id, event, source, atoms, position, loan.position_id, order_id, str(shares_after)
        )
    )
    outcome.touched[number << ASSET_BITS | asset_id] = None
