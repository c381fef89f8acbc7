"""Virtual PnL: what the liquidity fund lends and owes for subaccounts that do not realize their gains.   [V-1 … V-5]

A claim is one position's: shares of the USDC pool that stand on the fund in the pool's books, and on the subaccount, in
the same number, in the fund's. So the fund is flat by construction: what it lends is the sum of what it owes winners,
what it owes the pool the sum of what losers owe it, exactly, in shares.   [V-5]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine import lending, margin
from engine.events import ClaimMoved, LendingEvent, LendingMoved, LendingSource, Outcome, SettlementMoved
from engine.formulas import lending as formulas
from engine.parameters import RATE_SCALE
from engine.posting import merged, post
from engine.state import ASSET_BITS, State, Subaccount
from engine.yields import weigh_shares
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    LIQUIDITY_FUND,
    POOL_BORROWED,
    POOL_LENT,
    POOL_SHARES,
    ROUNDING,
    AccountId,
    AssetId,
    available,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    debt_share,
    lend_share,
    lent,
)
from ledger.journal import JournalKind

_SOURCE = LendingSource.RECONCILIATION


class Gain(NamedTuple):
    """What a tick settles for one position of a virtual subaccount, in USDC atoms; below zero: a loss.   [V-1]"""

    subaccount_id: int
    market_id: int
    atoms: int


class GivenUp(NamedTuple):
    """What the pool could not pay out for a virtual loser: its negative unsettled equity.   [V-4]"""

    subaccount_id: int
    atoms: int


def settles_virtually(state: State, subaccount: Subaccount) -> bool:
    """Whether gains of its open positions move claims; a liquidated account settles as in settled mode.   [V-1, V-4]"""
    return not subaccount.auto_realize_pnl and subaccount.subaccount_id not in state.liquidations


def settle(
    state: State, outcome: Outcome, into: lending.Movements, gains: Iterable[Gain], payouts_lent: int = 0
) -> list[GivenUp]:
    """Move the claims of a tick into its one transaction; gives what losers give up because idle lacks it.   [V-4]

    Call it when the tick has collected (its redemptions and loans are in `into`) and before it pays. The postings sum
    to losses less gains less what is given up, a debit of USDC: the cash that settled winners are paid with.
    `payouts_lent` is what the tick is going to lend out of its payouts: it comes back to idle. Gains first, so that
    what losers need is judged by the net.
    """
    moved = sorted(gain for gain in gains if gain.atoms)
    books = _Books(state, outcome, into)
    for number, market_id, atoms in moved:
        if atoms > 0:
            books.credit(state.subaccounts[number], market_id, atoms)
    room = max(0, books.now.idle + payouts_lent)
    losses = -sum(gain.atoms for gain in moved if gain.atoms < 0)
    lacking = max(0, losses - room)
    given_up: dict[int, int] = {}
    for number, market_id, atoms in moved:
        if atoms >= 0:
            continue
        short = min(lacking, -atoms)
        lacking -= short
        if short:
            given_up[number] = given_up.get(number, 0) + short
        if short < -atoms:
            books.debit(state.subaccounts[number], market_id, -atoms - short)
    books.close()
    return [GivenUp(number, atoms) for number, atoms in given_up.items()]


def collect(
    state: State, outcome: Outcome, into: lending.Movements, subaccount: Subaccount, atoms: int
) -> int:
    """Take at most `atoms` of negative unsettled equity as a claim after all, as far as idle goes; gives how much.

    What a virtual loser gave up is retried at each tick; the claim is its lowest open market's.   [S-13, V-4]
    """
    open_markets = [market_id for market_id in sorted(subaccount.positions) if subaccount.positions[market_id].lots]
    if not open_markets or not settles_virtually(state, subaccount):
        return 0
    books = _Books(state, outcome, into)
    taken = min(atoms, max(0, books.now.idle))
    if taken > 0:
        books.debit(subaccount, open_markets[0], taken)
    books.close()
    return max(0, taken)


def close_part(
    state: State, outcome: Outcome, subaccount: Subaccount, market_id: int, closed: int, held: int
) -> None:
    """Closing `closed` of `held` lots turns that share of the claim into the subaccount's own USDC.   [V-4]

    A positive share is rounded down and redeemed; what idle lacks passes as lend shares. What is owed is rounded up and
    paid from what is available, lent, or claimed elsewhere; the rest becomes the subaccount's own debt, at par.
    """
    if market_id not in subaccount.claims:
        return
    at_us = outcome.at_us
    whole = margin.claim_atoms(state, subaccount, market_id, at_us)
    is_all = closed == held
    into = lending.Movements()
    books = _Books(state, outcome, into)
    if whole >= 0:
        atoms = whole if is_all else mul_div_down(whole, closed, held)
        paid = books.redeem(subaccount, market_id, atoms, is_all)
    else:
        atoms = -whole if is_all else min(-whole, mul_div_up(-whole, closed, held))
        paid = -books.pay(subaccount, market_id, atoms, is_all)
        atoms = -atoms
    books.close()
    if not into.postings:
        return
    memo = (subaccount.subaccount_id, market_id, atoms, paid, closed, held, *_movements(into))
    post(state, outcome, JournalKind.CLAIM_CONVERTED, memo, merged(into.postings))
    outcome.events.append(SettlementMoved(subaccount.subaccount_id, "claim", atoms))


def convert_all(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """Turn every claim into the subaccount's own USDC, loans or debt: gains first, since they pay debts.   [V-4]"""
    at_us = outcome.at_us
    values = [(margin.claim_atoms(state, subaccount, number, at_us), number) for number in subaccount.claims]
    for atoms, market_id in sorted(values, key=lambda pair: (pair[0] < 0, pair[1])):
        if atoms or market_id in subaccount.claims:
            close_part(state, outcome, subaccount, market_id, 1, 1)


def note_mode(state: State, subaccount: Subaccount) -> None:
    """Keep `state.virtual`: whoever settles through the fund, or has a claim on it.   [V-1]"""
    if subaccount.claims or not subaccount.auto_realize_pnl:
        state.virtual[subaccount.subaccount_id] = None
    else:
        state.virtual.pop(subaccount.subaccount_id, None)


# --- what S-12 takes of positive claims -----------------------------------------------------------------------------


def positive(state: State, subaccount: Subaccount, at_us: int) -> int:
    """What its positive claims come to, in USDC atoms, rounded down.   [S-12]"""
    values = (margin.claim_atoms(state, subaccount, market_id, at_us) for market_id in subaccount.claims)
    return sum(atoms for atoms in values if atoms > 0)


def redeem(state: State, outcome: Outcome, into: lending.Movements, subaccount: Subaccount, atoms: int) -> int:
    """Make at most `atoms` of its positive claims available, by market, as idle allows; gives how much.   [S-12]"""
    books = _Books(state, outcome, into)
    left = min(atoms, max(0, books.now.idle))
    taken = 0
    for market_id in sorted(subaccount.claims):
        value = margin.claim_atoms(state, subaccount, market_id, outcome.at_us)
        part = min(left - taken, value)
        if part > 0:
            books.debit(subaccount, market_id, part)
            into.postings.append((available(subaccount.subaccount_id), state.usdc, -part))
            taken += part
    books.close()
    return taken


def lend_gains(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> int:
    """Positive claims worth at most `atoms` become lend shares of the subaccount itself, by market; gives how much.

    Where idle cannot redeem them: lend shares pass at par to whom it owes. No token moves.   [S-12 (2)]
    """
    into = lending.Movements()
    books = _Books(state, outcome, into)
    lent_now = 0
    for market_id in sorted(subaccount.claims):
        own = books.claim(subaccount, market_id)
        value = books.lent(own) - books.owed(own)
        part = min(atoms - lent_now, value)
        if part > 0:
            books.hand_over(own, subaccount, part, part == value)
            books.tell(own, -part)
            lent_now += part
    books.close()
    if into.postings:
        memo = (subaccount.subaccount_id, 0, lent_now, 0, 0, 0, *_movements(into))
        post(state, outcome, JournalKind.CLAIM_CONVERTED, memo, merged(into.postings))
    return lent_now


def pass_part(
    state: State,
    outcome: Outcome,
    into: lending.Movements,
    source: Subaccount,
    target: Subaccount,
    numerator: int,
    denominator: int,
) -> None:
    """numerator / denominator of every claim passes to another subaccount, as a claim: shares rounded down.   [L-4]"""
    books = _Books(state, outcome, into)
    for market_id in sorted(source.claims):
        books.give(source, market_id, target, numerator, denominator)
    books.close()


# --- the cap on negative claims -------------------------------------------------------------------------------------


def excess(state: State, subaccount: Subaccount, at_us: int) -> int:
    """USDC atoms, rounded up, by which negative claims exceed their share of the collateral value.   [V-3]"""
    owed = owed_claims(state, subaccount, at_us)
    if not owed:
        return 0
    usdc = state.usdc
    cap = state.limits.risk.negative_claim_cap
    # Most accounts hold enough USDC to need no look at the rest.
    own = max(0, state.held(subaccount.subaccount_id, usdc)) + lending.claim(state, subaccount, usdc, at_us)
    if owed <= mul_div_down(own, cap, RATE_SCALE):
        return 0
    usd, _unit, in_usd, *_rest = margin.line(state, usdc)
    if not usd:
        return 0
    collateral = sum(each.value for each in margin.holdings(state, subaccount, at_us))
    most = max(0, collateral) * cap * in_usd // (RATE_SCALE * usd)
    return max(0, owed - most)


def owed_claims(state: State, subaccount: Subaccount, at_us: int) -> int:
    """What its negative claims come to, in USDC atoms, rounded up.   [V-3]"""
    values = (margin.claim_atoms(state, subaccount, market_id, at_us) for market_id in subaccount.claims)
    return -sum(atoms for atoms in values if atoms < 0)


def pay_claims(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int, *, may_borrow: bool = True) -> int:
    """Pay `atoms` of negative claims by S-12, the largest first, ties by market; gives what was paid or became its own.

    Without `may_borrow` only what is available, lent or claimed elsewhere pays.   [V-3, V-4]
    """
    at_us = outcome.at_us
    values = [(margin.claim_atoms(state, subaccount, number, at_us), number) for number in subaccount.claims]
    total = 0
    for value, market_id in sorted(values):
        part = min(atoms - total, -value)
        if part <= 0:
            break
        into = lending.Movements()
        books = _Books(state, outcome, into)
        paid = books.pay(subaccount, market_id, part, part == -value, may_borrow=may_borrow)
        books.close()
        if paid:
            memo = (subaccount.subaccount_id, market_id, -paid, -paid, 0, 0, *_movements(into))
            post(state, outcome, JournalKind.CLAIM_CONVERTED, memo, merged(into.postings))
            outcome.events.append(SettlementMoved(subaccount.subaccount_id, "claim", -paid))
            total += paid
    return total


# --- the books of pool and fund -------------------------------------------------------------------------------------


class _Claim:
    """One position's claim while a transaction is written: its shares before and now.   [V-2]"""

    __slots__ = ("lends", "lends_before", "market_id", "owes", "owes_before", "subaccount")

    def __init__(self, subaccount: Subaccount, market_id: int, lends: int, owes: int) -> None:
        self.subaccount = subaccount
        self.market_id = market_id
        self.lends = self.lends_before = lends
        self.owes = self.owes_before = owes


class _Books:
    """The USDC pool and the fund while one transaction is written: sums per account, claims one by one.   [V-2]"""

    def __init__(self, state: State, outcome: Outcome, into: lending.Movements) -> None:
        self.state = state
        self.outcome = outcome
        self.into = into
        self.usdc = state.usdc
        self.now = lending.begin(state, outcome, state.usdc)
        self.sums: dict[tuple[AccountId, AssetId], int] = {}
        self.claims: dict[tuple[int, int], _Claim] = {}

    def claim(self, subaccount: Subaccount, market_id: int) -> _Claim:
        """The subaccount's claim in a market, with what this transaction has moved of it."""
        number = subaccount.subaccount_id
        known = self.claims.get((number, market_id))
        if known is None:
            lends = owes = 0
            if market_id in subaccount.claims:
                balances, key = self.state.balances, claim(number) << ASSET_BITS
                lends = -balances.get(key | claim_lend(market_id), 0)
                owes = balances.get(key | claim_debt(market_id), 0)
            known = self.claims[number, market_id] = _Claim(subaccount, market_id, lends, owes)
        return known

    def close(self) -> None:
        """Write down the claims, what the fund has for them, and the sums; a claim of no shares is gone.   [V-5]"""
        state, postings = self.state, self.into.postings
        funds: dict[AssetId, int] = {}
        pool: dict[AssetId, int] = {lend_share(self.usdc): 0, debt_share(self.usdc): 0}
        for each in self.claims.values():
            account, market_id = claim(each.subaccount.subaccount_id), each.market_id
            lent_more, owed_more = each.lends - each.lends_before, each.owes - each.owes_before
            if lent_more:
                asset = claim_lend(market_id)
                postings.append((account, asset, -lent_more))
                funds[asset] = funds.get(asset, 0) + lent_more
                pool[lend_share(self.usdc)] -= lent_more
            if owed_more:
                asset = claim_debt(market_id)
                postings.append((account, asset, owed_more))
                funds[asset] = funds.get(asset, 0) - owed_more
                pool[debt_share(self.usdc)] += owed_more
            if lent_more or owed_more:
                _note(state, self.outcome, each)
        for asset, shares in (*funds.items(), *pool.items()):
            self._add(LIQUIDITY_FUND, asset, shares)
        postings += [(*key, atoms) for key, atoms in self.sums.items() if atoms]

    def credit(self, subaccount: Subaccount, market_id: int, atoms: int) -> None:
        """A gain burns what the claim owes, then mints lend shares.   [V-2]"""
        own = self.claim(subaccount, market_id)
        owed = self.owed(own)
        repaid = min(atoms, owed)
        if repaid:
            self._repay(own, repaid, repaid == owed)
        if atoms > repaid:
            self._lend(own, atoms - repaid)
        self.tell(own, atoms)

    def debit(self, subaccount: Subaccount, market_id: int, atoms: int) -> None:
        """A loss burns what the claim lends, then mints debt shares.   [V-2]"""
        own = self.claim(subaccount, market_id)
        value = self.lent(own)
        redeemed = min(atoms, value)
        if redeemed:
            self._redeem(own, redeemed, redeemed == value)
        if atoms > redeemed:
            self._borrow(own, atoms - redeemed)
        self.tell(own, -atoms)

    def redeem(self, subaccount: Subaccount, market_id: int, atoms: int, is_all: bool) -> int:
        """`atoms` of a positive claim become available; what idle lacks, shares of the subaccount. Gives what is paid.

        [V-4]
        """
        own = self.claim(subaccount, market_id)
        paid = min(atoms, max(0, self.now.idle))
        left = atoms - paid
        if paid:
            self._redeem(own, paid, is_all and not left)
            self._add(available(subaccount.subaccount_id), self.usdc, -paid)
        if left:
            self.hand_over(own, subaccount, left, is_all)
        elif is_all:
            self._forget_crumbs(own)
        self.tell(own, -atoms)
        return paid

    def pay(
        self, subaccount: Subaccount, market_id: int, atoms: int, is_all: bool, *, may_borrow: bool = True
    ) -> int:
        """Pay `atoms` of a negative claim: available, lent, other claims, then its own debt, at par; gives how much.

        What is redeemed for it goes back into the pool, so none of it needs idle.   [S-12, V-4]
        """
        state, usdc, number = self.state, self.usdc, subaccount.subaccount_id
        own = self.claim(subaccount, market_id)
        paid = min(atoms, max(0, state.free(number, usdc)))
        if paid < atoms and usdc in subaccount.lent:
            missing = atoms - paid
            redeemed = lending.redemption(state, subaccount, usdc, self.outcome.at_us, missing)
            if redeemed:
                lending.redeem(state, self.outcome, self.into, subaccount, usdc, redeemed, _SOURCE)
                paid += min(redeemed, missing)
        if paid:
            self._repay(own, paid, is_all and paid == atoms)
            self._add(available(number), usdc, paid)
        for other_id in sorted(subaccount.claims):
            other = self.claim(subaccount, other_id)
            value = self.lent(other) if other is not own else 0
            part = min(value, atoms - paid)
            if part > 0:
                paid += part
                self._redeem(other, part, part == value)
                self._repay(own, part, is_all and paid == atoms)
                self.tell(other, -part)
        if paid < atoms and may_borrow:
            self._own_debt(own, atoms - paid, is_all)
            paid = atoms
        self.tell(own, paid)
        return paid

    def hand_over(self, own: _Claim, target: Subaccount, atoms: int, is_all: bool) -> None:
        """Lend shares of a claim worth `atoms`, rounded up, become lend shares of a subaccount.   [V-4, S-12]"""
        state, now, usdc, source = self.state, self.now, self.usdc, own.subaccount
        passed = own.lends if is_all else min(own.lends, formulas.redeem_burn(atoms, now.lent, now.lend_shares))
        number = target.subaccount_id
        has = passed - self._balance(lent(number), lend_share(usdc))
        if has < lending.LEAST_SHARES:
            # Nobody keeps that few: they are not worth an atom.   [B-4]
            if is_all:
                self._forget_crumbs(own)
            return
        for subaccount in (source, target) if source is not target else (source,):
            weigh_shares(state, self.outcome, subaccount, usdc, now.lend_shares)
        loan = lending.loan_of(state, self.outcome, target.lent, usdc)
        loan.flow_atoms += atoms
        own.lends -= passed
        self._add(lent(number), lend_share(usdc), -passed)
        worth = formulas.claim_atoms(has, now.lent, now.lend_shares)
        self._record(number, LendingEvent.LEND, atoms, passed, has, worth, loan.position_id)

    def give(self, source: Subaccount, market_id: int, target: Subaccount, numerator: int, denominator: int) -> None:
        """A share of a claim passes as a claim, both kinds of shares rounded down; all of it passes whole.   [L-4]"""
        giver, taker = self.claim(source, market_id), self.claim(target, market_id)
        lends = mul_div_down(giver.lends, numerator, denominator)
        owes = mul_div_down(giver.owes, numerator, denominator)
        if lends:
            for subaccount in (source, target):
                weigh_shares(self.state, self.outcome, subaccount, self.usdc, self.now.lend_shares)
        for own, sign in ((giver, -1), (taker, 1)):
            before = self.value(own)
            own.lends += sign * lends
            own.owes += sign * owes
            self._net(own)
            self.tell(own, self.value(own) - before)

    def _net(self, own: _Claim) -> None:
        """A claim that came to lend and owe pays the one with the other: nothing enters or leaves idle.   [V-2]"""
        value, owed = self.lent(own), self.owed(own)
        both = min(value, owed)
        if both:
            self._redeem(own, both, both == value)
            self._repay(own, both, both == owed)

    # --- values

    def lent(self, own: _Claim) -> int:
        """What the claim lends, rounded down.   [V-2, B-4]"""
        return own.lends * self.now.lent // self.now.lend_shares if own.lends else 0

    def owed(self, own: _Claim) -> int:
        """What the claim owes, rounded up.   [V-2, B-4]"""
        return -(-own.owes * self.now.borrowed // self.now.debt_shares) if own.owes else 0

    def value(self, own: _Claim) -> int:
        return self.lent(own) - self.owed(own)

    # --- the four movements of B-4, in the fund's name

    def _lend(self, own: _Claim, atoms: int) -> None:
        now, usdc = self.now, self.usdc
        minted = formulas.lend_mint(atoms, now.lent, now.lend_shares)
        weigh_shares(self.state, self.outcome, own.subaccount, usdc, now.lend_shares)
        now.lent += atoms
        now.lend_shares += minted
        own.lends += minted
        self._add(POOL_LENT, usdc, -atoms)
        self._add(POOL_SHARES, lend_share(usdc), minted)

    def _redeem(self, own: _Claim, atoms: int, is_all: bool) -> None:
        """Burns rounded up; all of it where the shares that would be left are not worth an atom.   [B-4]"""
        now, usdc = self.now, self.usdc
        burnt = own.lends if is_all else min(own.lends, formulas.redeem_burn(atoms, now.lent, now.lend_shares))
        left = own.lends - burnt
        if left and not formulas.claim_atoms(left, now.lent - atoms, now.lend_shares - burnt):
            burnt = own.lends
        weigh_shares(self.state, self.outcome, own.subaccount, usdc, now.lend_shares)
        now.lent -= atoms
        self._add(POOL_LENT, usdc, atoms)
        self._burn_lend(own, burnt)

    def _burn_lend(self, own: _Claim, burnt: int) -> None:
        now, usdc = self.now, self.usdc
        now.lend_shares -= burnt
        own.lends -= burnt
        self._add(POOL_SHARES, lend_share(usdc), -burnt)
        if not now.lend_shares and now.lent:
            # Nobody is left to whom the last fraction of an atom belongs.
            self._add(POOL_LENT, usdc, now.lent)
            self._add(ROUNDING, usdc, -now.lent)
            now.lent = 0

    def _borrow(self, own: _Claim, atoms: int) -> None:
        now, usdc = self.now, self.usdc
        minted = max(1, formulas.borrow_mint(atoms, now.borrowed, now.debt_shares))
        now.borrowed += atoms
        now.debt_shares += minted
        own.owes += minted
        self._add(POOL_BORROWED, usdc, atoms)
        self._add(POOL_SHARES, debt_share(usdc), -minted)

    def _repay(self, own: _Claim, atoms: int, is_all: bool) -> None:
        """Burns rounded down; others' shares keep what they were minted for, the rest goes to rounding.   [B-4]"""
        now, usdc = self.now, self.usdc
        burnt = own.owes if is_all else min(own.owes, formulas.repay_burn(atoms, now.borrowed, now.debt_shares))
        now.debt_shares -= burnt
        cut = min(atoms, now.borrowed - mul_div_up(now.debt_shares, 1, formulas.SHARES_PER_ATOM))
        now.borrowed -= cut
        own.owes -= burnt
        self._add(POOL_BORROWED, usdc, -cut)
        if cut != atoms:
            self._add(ROUNDING, usdc, cut - atoms)
        self._add(POOL_SHARES, debt_share(usdc), burnt)

    def _own_debt(self, own: _Claim, atoms: int, is_all: bool) -> None:
        """Debt shares of a claim worth `atoms`, rounded down, become the subaccount's own: no token moves.   [V-4]"""
        state, now, usdc, subaccount = self.state, self.now, self.usdc, own.subaccount
        number = subaccount.subaccount_id
        passed = own.owes if is_all else min(own.owes, formulas.repay_burn(atoms, now.borrowed, now.debt_shares))
        if not passed:
            return
        loan = lending.loan_of(state, self.outcome, subaccount.debts, usdc)
        subaccount.margined = True
        loan.flow_atoms += atoms
        own.owes -= passed
        self._add(borrowed(number), debt_share(usdc), passed)
        has = self._balance(borrowed(number), debt_share(usdc))
        worth = formulas.debt_atoms(has, now.borrowed, now.debt_shares)
        self._record(number, LendingEvent.BORROW, atoms, passed, has, worth, loan.position_id)

    def _forget_crumbs(self, own: _Claim) -> None:
        """A claim that ends leaves no shares behind: what is not worth an atom is the other lenders'.   [V-5]"""
        if own.lends:
            weigh_shares(self.state, self.outcome, own.subaccount, self.usdc, self.now.lend_shares)
            self._burn_lend(own, own.lends)

    # --- bookkeeping

    def _balance(self, account: AccountId, asset: AssetId) -> int:
        """As it stands with what this transaction has moved so far."""
        return self.state.balances.get(account << ASSET_BITS | asset, 0) + self.sums.get((account, asset), 0)

    def _add(self, account: AccountId, asset: AssetId, atoms: int) -> None:
        key = (account, asset)
        self.sums[key] = self.sums.get(key, 0) + atoms

    def tell(self, own: _Claim, atoms: int) -> None:
        moved = ClaimMoved(own.subaccount.subaccount_id, own.market_id, atoms, self.value(own))
        self.outcome.events.append(moved)

    def _record(
        self, number: int, event: LendingEvent, atoms: int, shares: int, has: int, worth: int, position_id: int
    ) -> None:
        usdc = self.usdc
        self.into.memos.append((number, usdc, int(event), int(_SOURCE), atoms, str(shares), position_id))
        self.outcome.events.append(
            LendingMoved(number, usdc, event, _SOURCE, atoms, worth, position_id, 0, str(has))
        )
        self.outcome.touched[number << ASSET_BITS | usdc] = None


def _note(state: State, outcome: Outcome, own: _Claim) -> None:
    """Keep in step which claims a subaccount has.   [V-1]"""
    subaccount, market_id = own.subaccount, own.market_id
    if not own.lends and not own.owes:
        if market_id in subaccount.claims:
            del subaccount.claims[market_id]
            subaccount.judge_by_margin()
            note_mode(state, subaccount)
    elif market_id not in subaccount.claims:
        if state.next_position_id == 1:
            # The first claim starts the hourly and the 10-second ticks, as a first loan does.
            lending.new_position_id(state, outcome.at_us)
        subaccount.claims[market_id] = None
        subaccount.margined = True
        subaccount.asset_ids[state.usdc] = None
        note_mode(state, subaccount)


def _movements(into: lending.Movements) -> tuple[tuple[object, ...], ...]:
    return (tuple(into.memos),) if into.memos else ()
