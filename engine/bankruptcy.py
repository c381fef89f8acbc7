"""Debts that nobody can buy back: their lenders are paid their value instead, at a frozen mark.   [L-7, L-9]

Memo of DEBT_WRITTEN_DOWN: subaccount, asset, atoms owed, frozen mark, their value in USDC atoms, USDC that was found
for it, what the insurance and the backstop fund gave the account before, what lentTotal and feeTotal lost, 1 where the
pool's shares ended with it, then net equity, maintenance margin and E before and after in USD (1e-8), then movements.
Memo of HOLE_FILLED: asset, write-down, where from (`fees`, `insurance`), atoms of that, worth in USDC atoms, what is
still lacking.   [L-10]
"""

from __future__ import annotations

from engine import at_mark, book_stage, insurance, lender_adl, lending, margin, recoveries, standings
from engine.events import LendingEvent, LendingMoved, LendingSource, LiquidationChanged, Outcome, SettlementMoved
from engine.formulas import lending as formulas
from engine.formulas.liquidation import quote_atoms_up
from engine.formulas.margin import notional_usd
from engine.parameters import PRICE_SCALE, USD_SCALE
from engine.posting import merged, post
from engine.standings import Moment
from engine.state import State, Subaccount, balance_key
from engine.yields import weigh_shares
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import (
    BACKSTOP_FUND,
    FEE_INCOME,
    INSURANCE_FUND,
    INSURANCE_UNSETTLED,
    LIQUIDITY_FUND,
    POOL_BORROWED,
    POOL_FEES,
    POOL_LENT,
    POOL_SHARES,
    POOL_YIELD,
    ROUNDING,
    AssetId,
    available,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    debt_share,
    lend_share,
    lent,
    unsettled,
)
from ledger.journal import JournalKind, Posting

_SOURCE = LendingSource.LIQUIDATION
_PRICE_IN_USD = PRICE_SCALE // USD_SCALE


def settle_debts(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """Write down what nobody can buy back and no provider took, once positions are settled; True: any was.   [L-7]"""
    known = len(state.liquidations[subaccount.subaccount_id].frozen)
    freeze(state, subaccount, outcome.at_us)
    if len(state.liquidations[subaccount.subaccount_id].frozen) > known:
        standings.put(state, outcome, subaccount, JournalKind.DEBT_WRITTEN_DOWN, Moment.FROZEN)
    if any(held.lots or held.cost for held in subaccount.positions.values()):
        return False
    frozen = state.liquidations[subaccount.subaccount_id].frozen
    due = [asset_id for asset_id in sorted(subaccount.debts) if asset_id in frozen]
    for asset_id in due:
        write_down(state, outcome, subaccount, asset_id, frozen[asset_id])
    return bool(due)


def freeze(state: State, subaccount: Subaccount, at_us: int) -> None:
    """The mark of each debt, as of the block that found E ≤ 0 or in which the tenth step to buy it back failed.   [L-7]

    USDC is not bought back: there the steps count in which other collateral found no buyer.
    """
    liquidation = state.liquidations[subaccount.subaccount_id]
    limit = state.limits.risk.bankruptcy_failed_steps
    is_bankrupt = margin.realizable(state, subaccount, at_us) <= 0
    for asset_id in subaccount.debts:
        failed = liquidation.unfilled_ticks if asset_id == state.usdc else liquidation.failed_buys.get(asset_id, 0)
        mark = margin.line(state, asset_id)[0]
        if asset_id not in liquidation.frozen and mark and (is_bankrupt or failed >= limit):
            liquidation.frozen[asset_id] = mark


def recovery(state: State, asset_id: AssetId) -> tuple[int, int]:
    """(USDC atoms found, USDC atoms due) over all debts of the asset that were written down: lenders' ratio.   [L-7]"""
    write_downs = state.pools[asset_id].write_downs.values()
    return sum(each.paid + each.filled for each in write_downs), sum(each.value for each in write_downs)


def fill_holes(state: State, outcome: Outcome) -> None:
    """Pay what lenders still lack: from their pool's fees, then by the insurance fund, oldest first.   [L-7, R-7]"""
    redeem_for_fund(state, outcome)
    open_holes = [
        (each.at_us, asset_id, number)
        for asset_id in state.holes
        for number, each in state.pools[asset_id].write_downs.items()
        if each.hole > 0
    ]
    for _at_us, asset_id, number in sorted(open_holes):
        _fill_from_fees(state, outcome, asset_id, number)
        _fill_from_insurance(state, outcome, asset_id, number)


def redeem_for_fund(state: State, outcome: Outcome) -> None:
    """What the insurance fund took as lend shares is redeemed when there is idle, outside the throttle.   [L-7, L-8]"""
    for asset_id in sorted(state.pools):
        share = lend_share(asset_id)
        shares = -state.balances.get(balance_key(INSURANCE_FUND, share), 0)
        if not shares:
            continue
        now = lending.begin(state, outcome, asset_id)
        whole = formulas.claim_atoms(shares, now.lent, now.lend_shares)
        atoms = min(whole, now.idle)
        if atoms <= 0:
            continue
        burnt = shares if atoms == whole else formulas.redeem_burn(atoms, now.lent, now.lend_shares)
        now.lent -= atoms
        now.lend_shares -= burnt
        postings: list[Posting] = [
            (INSURANCE_FUND, asset_id, -atoms),
            (POOL_LENT, asset_id, atoms),
            (INSURANCE_FUND, share, burnt),
            (POOL_SHARES, share, -burnt),
        ]
        if not now.lend_shares and now.lent:
            # Nobody is left to whom the last fraction of an atom belongs.
            postings += [(POOL_LENT, asset_id, now.lent), (ROUNDING, asset_id, -now.lent)]
            now.lent = 0
        if asset_id != state.usdc:
            state.taken[asset_id] = state.taken.get(asset_id, 0) + atoms
        memo = (0, "redeemed", 0, asset_id, atoms, margin.line(state, asset_id)[0])
        post(state, outcome, JournalKind.INSURANCE, memo, merged(postings))


# --- one debt -------------------------------------------------------------------------------------------------------


def write_down(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, mark: int) -> None:
    """The pool forgets the debt, its lenders get V = n × mark in USDC as far as it is found, else a hole.   [L-7]

    First from all that the subaccount has, then from the insurance and the backstop fund.
    """
    number, at_us, usdc = subaccount.subaccount_id, outcome.at_us, state.usdc
    before, notional = insurance.standing(state, subaccount, at_us), margin.sums(state, subaccount, at_us).notional
    standings.put(state, outcome, subaccount, JournalKind.DEBT_WRITTEN_DOWN, Moment.BEFORE)
    value = _value(state, asset_id, lending.debt(state, subaccount, asset_id, at_us), mark)
    insured_before, backed_before = insurance.balance(state), _backstop_balance(state)
    found = _find(state, outcome, subaccount, value)
    insured, backed = insured_before - insurance.balance(state), backed_before - _backstop_balance(state)

    into = lending.Movements()
    if asset_id == usdc and found:
        # USDC pays a debt of USDC: that much of it is repaid as any other.
        lending.repay(state, outcome, into, subaccount, usdc, found, _SOURCE)
        if usdc not in subaccount.debts:
            lending.post_alone(state, outcome, into)
            return
    now = lending.begin(state, outcome, asset_id)
    shares = state.balances.get(balance_key(borrowed(number), debt_share(asset_id)), 0)
    shares += sum(moved for account, asset, moved in into.postings if account == borrowed(number))
    owed = formulas.debt_atoms(shares, now.borrowed, now.debt_shares)
    paid_to_lenders = 0 if asset_id == usdc else found
    due = owed if asset_id == usdc else value

    now.debt_shares -= shares
    cut = min(owed, now.borrowed - mul_div_up(now.debt_shares, 1, formulas.SHARES_PER_ATOM))
    from_lent = min(cut, now.lent)
    now.borrowed -= cut
    now.lent -= from_lent
    now.fees -= cut - from_lent
    postings: list[Posting] = [
        *into.postings,
        (borrowed(number), debt_share(asset_id), -shares),
        (POOL_SHARES, debt_share(asset_id), shares),
        (POOL_BORROWED, asset_id, -cut),
        (POOL_LENT, asset_id, from_lent),
        (POOL_FEES, asset_id, cut - from_lent),
    ]
    has_lenders = recoveries.entitled_shares(state, asset_id) > 0
    ended = now.lent == 0 and now.lend_shares > 0
    if ended:
        for holder in _holders(state, asset_id):
            weigh_shares(state, outcome, holder, asset_id, now.lend_shares)
    if paid_to_lenders:
        # Where nobody lends, the loss is the exchange's, and so is what was found for it.
        target = POOL_YIELD if has_lenders else FEE_INCOME
        postings += [(available(number), usdc, paid_to_lenders), (target, usdc, -paid_to_lenders)]
    if has_lenders:
        entered = recoveries.write_down(state, asset_id, at_us, owed, mark, due)
        recoveries.pay(entered, paid_to_lenders)
        _note_hole(state, asset_id)
    if ended:
        postings += _end_shares(state, outcome, asset_id, now)
    loan = subaccount.debts.pop(asset_id)
    subaccount.judge_by_margin()
    state.small_debts.pop((number, asset_id), None)
    into.memos.append((number, asset_id, int(LendingEvent.BORROW_REPAY), int(_SOURCE), owed, str(shares),
                       loan.position_id))  # fmt: skip
    entry = insurance.posted(state, outcome, JournalKind.DEBT_WRITTEN_DOWN, merged(postings))
    outcome.events.append(
        LendingMoved(number, asset_id, LendingEvent.BORROW_REPAY, _SOURCE, owed, 0, loan.position_id, 0, "0")
    )
    after = insurance.standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.DEBT_WRITTEN_DOWN, Moment.AFTER)
    entry.memo = (number, asset_id, owed, mark, due, paid_to_lenders, insured, backed, from_lent, cut - from_lent,
                  int(ended), *before, *after, tuple(into.memos))  # fmt: skip
    outcome.events.append(
        LiquidationChanged(
            number,
            "debt",
            before[0],
            before[1],
            notional,
            asset_id=asset_id,
            quantity=-owed,
            price=mark,
            mark=margin.line(state, asset_id)[0],
            equity_after_usd=after[0],
            maintenance_after_usd=after[1],
        )
    )
    if has_lenders and not ended:
        _fill_from_fees(state, outcome, asset_id, state.pools[asset_id].next_write_down - 1)


def _find(state: State, outcome: Outcome, subaccount: Subaccount, value: int) -> int:
    """Have `value` of USDC available; gives how much there is: own cash, sales, things in kind, then the funds.   [L-7]

    What the account owes in settlement is paid before: ADL at the bankruptcy price has left it no more than its share.
    What passes in kind has paid its worth even while the fund has no USDC for it: nobody gives the same value twice.
    """
    number, usdc = subaccount.subaccount_id, state.usdc
    in_kind = 0

    def missing() -> int:
        owes = max(0, -subaccount.unsettled)
        return value + owes - max(0, state.free(number, usdc))

    book_stage.fund(state, outcome, subaccount, value + max(0, -subaccount.unsettled))
    for asset_id in _by_order_of_sale(state, subaccount, outcome.at_us):
        if missing() <= in_kind:
            break
        if asset_id != usdc and asset_id in subaccount.lent:
            needed = at_mark.atoms_up(state, asset_id, missing() - in_kind)
            lender_adl.recover(state, outcome, subaccount, asset_id, needed)
        in_kind += _take_in_kind(state, outcome, subaccount, asset_id, missing() - in_kind)
        if asset_id in subaccount.lent:
            in_kind += _take_lent(state, outcome, subaccount, asset_id, missing() - in_kind)
    if missing() > in_kind and subaccount.unsettled > 0:
        _take_unsettled(state, outcome, subaccount, min(missing() - in_kind, subaccount.unsettled))
    if missing() > 0:
        insurance.pay(state, outcome, subaccount, missing(), "debt")
    if missing() > 0:
        _pay_from_backstop(state, outcome, subaccount, missing())
    return min(value, max(0, value - missing()))


def _take_in_kind(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, missing: int) -> int:
    """What nobody bought passes to the insurance fund at mark, which pays as far as it can; gives what it still owes.

    [L-7]
    """
    if asset_id == state.usdc or missing <= 0:
        return 0
    atoms = min(max(0, state.free(subaccount.subaccount_id, asset_id)), at_mark.atoms_up(state, asset_id, missing))
    if not atoms:
        return 0
    worth = min(at_mark.usdc_down(state, asset_id, atoms), missing)
    paid = min(worth, insurance.balance(state))
    insurance.move(state, outcome, subaccount, "debt", paid, asset_id, atoms)
    return worth - paid


def _take_lent(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, missing: int) -> int:
    """Lend shares that idle cannot redeem pass to the insurance fund at par, which pays as far as it can; gives what it
    still owes.   [L-7, L-8]
    """
    if missing <= 0:
        return 0
    number, usdc, at_us = subaccount.subaccount_id, state.usdc, outcome.at_us
    before = insurance.standing(state, subaccount, at_us)
    now = lending.begin(state, outcome, asset_id)
    share = lend_share(asset_id)
    shares = -state.balances.get(balance_key(lent(number), share), 0)
    whole = formulas.claim_atoms(shares, now.lent, now.lend_shares)
    atoms = min(whole, missing if asset_id == usdc else at_mark.atoms_up(state, asset_id, missing))
    if not atoms:
        return 0
    passed = shares if atoms == whole else formulas.redeem_burn(atoms, now.lent, now.lend_shares)
    if shares - passed < lending.LEAST_SHARES:
        passed = shares
    standings.put(state, outcome, subaccount, JournalKind.COLLATERAL_TAKEN, Moment.BEFORE)
    weigh_shares(state, outcome, subaccount, asset_id, now.lend_shares)
    loan = subaccount.lent[asset_id]
    loan.flow_atoms -= atoms
    if passed == shares:
        del subaccount.lent[asset_id]
    worth = min(missing, atoms if asset_id == usdc else at_mark.usdc_down(state, asset_id, atoms))
    paid = min(worth, insurance.balance(state))
    postings: list[Posting] = [(lent(number), share, passed), (INSURANCE_FUND, share, -passed)]
    if paid:
        postings += [(INSURANCE_FUND, usdc, paid), (available(number), usdc, -paid)]
    left = formulas.claim_atoms(shares - passed, now.lent, now.lend_shares)
    memos = ((number, asset_id, int(LendingEvent.LEND_REDEEM), int(_SOURCE), atoms, str(passed), loan.position_id),)
    entry = insurance.posted(state, outcome, JournalKind.COLLATERAL_TAKEN, postings)
    after = insurance.standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.COLLATERAL_TAKEN, Moment.AFTER)
    mark = margin.line(state, asset_id)[0]
    entry.memo = (number, "lent", paid, asset_id, atoms, mark, *before, *after, memos)
    outcome.events.append(
        LendingMoved(
            number, asset_id, LendingEvent.LEND_REDEEM, _SOURCE, atoms, left, loan.position_id, 0, str(shares - passed)
        )
    )
    return worth - paid


def _take_unsettled(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> None:
    """What others owe it passes to the insurance fund, which pays as far as it can and is paid in its stead.   [L-7]"""
    number, usdc, at_us = subaccount.subaccount_id, state.usdc, outcome.at_us
    before = insurance.standing(state, subaccount, at_us)
    paid = min(atoms, insurance.balance(state))
    standings.put(state, outcome, subaccount, JournalKind.COLLATERAL_TAKEN, Moment.BEFORE)
    postings: list[Posting] = [(unsettled(number), usdc, atoms), (INSURANCE_UNSETTLED, usdc, -atoms)]
    if paid:
        postings += [(INSURANCE_FUND, usdc, paid), (available(number), usdc, -paid)]
    entry = insurance.posted(state, outcome, JournalKind.COLLATERAL_TAKEN, postings)
    after = insurance.standing(state, subaccount, at_us)
    entry.memo = (number, "unsettled", paid, usdc, atoms, margin.line(state, usdc)[0], *before, *after)


def _pay_from_backstop(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int) -> None:
    """The backstop fund pays after the insurance fund.   [L-7]"""
    number, usdc, at_us = subaccount.subaccount_id, state.usdc, outcome.at_us
    paid = min(atoms, _backstop_balance(state))
    if paid <= 0:
        return
    before = insurance.standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, JournalKind.INSURANCE, Moment.BEFORE)
    postings: list[Posting] = [(BACKSTOP_FUND, usdc, paid), (available(number), usdc, -paid)]
    entry = insurance.posted(state, outcome, JournalKind.INSURANCE, postings)
    entry.memo = (number, "backstop", paid, 0, 0, 0, *before, *insurance.standing(state, subaccount, at_us))
    outcome.events.append(SettlementMoved(number, "liquidation", paid))


# --- the pool's hole ------------------------------------------------------------------------------------------------


def _fill_from_fees(state: State, outcome: Outcome, asset_id: AssetId, number: int) -> None:
    """The pool's fees become its lenders', at the frozen mark: they lack that much less USDC.   [L-7]"""
    found = state.pools[asset_id].write_downs[number]
    now = lending.begin(state, outcome, asset_id)
    unit, usd = 10 ** state.assets[asset_id].decimals, margin.line(state, state.usdc)
    price = found.mark * usd[1]
    wanted = mul_div_up(found.hole, unit * usd[0], price)
    atoms = min(now.fees, wanted)
    if atoms <= 0 or not now.lend_shares:
        return
    worth = found.hole if atoms == wanted else mul_div_down(atoms, price, unit * usd[0])
    now.fees -= atoms
    now.lent += atoms
    found.filled += worth
    _note_hole(state, asset_id)
    memo = (asset_id, number, "fees", atoms, worth, found.hole)
    post(state, outcome, JournalKind.HOLE_FILLED, memo, [(POOL_FEES, asset_id, atoms), (POOL_LENT, asset_id, -atoms)])


def _fill_from_insurance(state: State, outcome: Outcome, asset_id: AssetId, number: int) -> None:
    """What the insurance fund has is paid to those that lent when the debt was written down.   [L-7]"""
    found, usdc = state.pools[asset_id].write_downs[number], state.usdc
    atoms = min(found.hole, insurance.balance(state))
    if atoms <= 0:
        return
    recoveries.pay(found, atoms)
    _note_hole(state, asset_id)
    memo = (asset_id, number, "insurance", atoms, atoms, found.hole)
    post(state, outcome, JournalKind.HOLE_FILLED, memo, [(INSURANCE_FUND, usdc, atoms), (POOL_YIELD, usdc, -atoms)])


def _note_hole(state: State, asset_id: AssetId) -> None:
    hole = sum(each.hole for each in state.pools[asset_id].write_downs.values())
    if hole:
        state.holes[asset_id] = hole
    else:
        state.holes.pop(asset_id, None)


def _end_shares(state: State, outcome: Outcome, asset_id: AssetId, now: lending.Totals) -> list[Posting]:
    """Shares of a pool that holds nothing for them any more end: what they are owed is in the write-down.   [L-7]

    Or whoever lends next would share with them. It walks over the lenders, once in the life of a pool that is lost.
    """
    share = lend_share(asset_id)
    postings: list[Posting] = []
    for holder in _holders(state, asset_id):
        recoveries.note(state, holder, asset_id)
        postings += _end_of(state, outcome, holder, asset_id)
    for fund in (INSURANCE_FUND, BACKSTOP_FUND):
        postings.append((fund, share, -state.balances.get(balance_key(fund, share), 0)))
    postings.append((POOL_SHARES, share, -now.lend_shares))
    now.lend_shares = 0
    return postings


def _holders(state: State, asset_id: AssetId) -> list[Subaccount]:
    """Who has shares of the pool, or a claim on some, by id."""
    found = (state.subaccounts[number] for number in sorted(state.subaccounts))
    return [each for each in found if asset_id in each.lent or (asset_id == state.usdc and each.claims)]


def _end_of(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> list[Posting]:
    number, share = subaccount.subaccount_id, lend_share(asset_id)
    postings: list[Posting] = []
    loan = subaccount.lent.pop(asset_id, None)
    if loan is not None:
        held = -state.balances.get(balance_key(lent(number), share), 0)
        postings.append((lent(number), share, held))
        outcome.events.append(
            LendingMoved(number, asset_id, LendingEvent.LEND_REDEEM, _SOURCE, 0, 0, loan.position_id, 0, "0")
        )
    for market_id in sorted(subaccount.claims) if asset_id == state.usdc else ():
        held = -state.balances.get(balance_key(claim(number), claim_lend(market_id)), 0)
        postings += [
            (claim(number), claim_lend(market_id), held),
            (LIQUIDITY_FUND, claim_lend(market_id), -held),
            (LIQUIDITY_FUND, share, held),
        ]
        if not state.balances.get(balance_key(claim(number), claim_debt(market_id)), 0):
            del subaccount.claims[market_id]
    subaccount.judge_by_margin()
    if not subaccount.claims and subaccount.auto_realize_pnl:
        state.virtual.pop(number, None)
    return postings


# --- values ---------------------------------------------------------------------------------------------------------


def _value(state: State, asset_id: AssetId, atoms: int, mark: int) -> int:
    """n × mark in USDC atoms, rounded up: what lenders are due.   [L-7]"""
    usd, unit, *_rest = margin.line(state, state.usdc)
    if asset_id == state.usdc:
        return atoms
    return quote_atoms_up(notional_usd(atoms, mark, 10 ** state.assets[asset_id].decimals), unit, usd)


def _by_order_of_sale(state: State, subaccount: Subaccount, at_us: int) -> list[AssetId]:
    """USDC first, then what else has a price and is not owed: weight descending, then value, then id.   [S-12]"""
    found = []
    for holding in margin.holdings(state, subaccount, at_us):
        asset_id = holding.asset_id
        if asset_id in subaccount.debts and asset_id != state.usdc:
            continue
        if holding.mark and (holding.held or holding.lent):
            worth = at_mark.usdc_down(state, asset_id, holding.held + holding.lent)
            found.append((asset_id != state.usdc, -holding.weight, -worth, asset_id))
    return [asset_id for *_order, asset_id in sorted(found)]


def _backstop_balance(state: State) -> int:
    return max(0, -state.balances.get(balance_key(BACKSTOP_FUND, state.usdc), 0))
