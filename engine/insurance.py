"""The insurance fund: what it is given, and what it pays for accounts that end with less than nothing.   [L-5]

It pays into what is available of an account, as far as it has USDC; the next settlement tick collects it from there.
Memo of an INSURANCE transaction: subaccount, why, USDC paid (below zero: received), (asset, atoms) taken, then net
equity, maintenance margin and E before and after, in USD (1e-8).   [L-10]
"""

from __future__ import annotations

from engine import conversions, lending, losses, margin, standings
from engine.commands import FundInsurance
from engine.events import LiquidationChanged, Outcome, SettlementMoved
from engine.posting import post
from engine.rejections import RejectReason, require
from engine.standings import Moment
from engine.state import State, Subaccount, balance_key
from ledger.amounts import INT64_MAX
from ledger.chart import INSURANCE_FUND, OPERATOR_EQUITY, AssetId, available
from ledger.journal import JournalKind, JournalTransaction, Posting


def fund(state: State, command: FundInsurance, outcome: Outcome) -> None:
    """The operator's own USDC becomes the fund's.   [L-5]"""
    usdc = state.usdc
    most = min(INT64_MAX, -state.balances.get(balance_key(OPERATOR_EQUITY, usdc), 0))
    require(0 < command.atoms <= most, RejectReason.INVALID_QUANTITY, atoms=command.atoms, operator_equity=most)
    # From here the command succeeds.
    postings = [(OPERATOR_EQUITY, usdc, command.atoms), (INSURANCE_FUND, usdc, -command.atoms)]
    post(state, outcome, JournalKind.INSURANCE_FUNDED, (command.atoms,), postings)


def balance(state: State) -> int:
    """USDC atoms that the fund can pay with.   [L-5]"""
    return max(0, -state.balances.get(balance_key(INSURANCE_FUND, state.usdc), 0))


def finish(state: State, outcome: Outcome, subaccount: Subaccount) -> bool:
    """A subaccount without position and debt pays what it still owes: from crumbs, by the fund, by others.   [L-5]

    In this order: holdings under one lot pass to the fund; the fund pays; the loss index of markets where its cost is
    not settled yet; once all is settled, what is left is written off. Gives whether it owes nothing any more.
    """
    if subaccount.debts or any(held.lots for held in subaccount.positions.values()):
        return False
    lacking = -own_usdc(state, subaccount, outcome.at_us)
    if lacking <= 0:
        return True
    _take_crumbs(state, outcome, subaccount)
    if sellable(state, subaccount, outcome.at_us):
        return False
    lacking -= pay(state, outcome, subaccount, lacking, "remainder")
    sides = state.liquidations[subaccount.subaccount_id].sides if subaccount.subaccount_id in state.liquidations else {}
    for market_id in sorted(subaccount.positions):
        held = subaccount.positions[market_id]
        loss = min(lacking, -held.cost)
        if loss > 0 and market_id in sides:
            lacking -= losses.share(state, outcome, held.market, subaccount, sides[market_id] < 0, loss)
    if lacking > 0 and not any(held.cost for held in subaccount.positions.values()):
        lacking -= losses.write_off(state, outcome, subaccount, lacking)
    return lacking <= 0


def pay(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int, why: str) -> int:
    """The fund pays at most `atoms` of USDC into what the account has available; gives how much.   [L-5]"""
    paid = min(atoms, balance(state))
    if paid <= 0:
        return 0
    move(state, outcome, subaccount, why, paid)
    return paid


def receive(state: State, outcome: Outcome, subaccount: Subaccount, atoms: int, why: str) -> int:
    """The fund receives at most `atoms` of what the account has available in USDC; gives how much.   [L-6]"""
    received = min(atoms, state.free(subaccount.subaccount_id, state.usdc))
    if received <= 0:
        return 0
    move(state, outcome, subaccount, why, -received)
    return received


def move(
    state: State, outcome: Outcome, subaccount: Subaccount, why: str, paid: int, asset_id: AssetId = 0, atoms: int = 0
) -> None:
    """The fund pays USDC (below zero: receives) and takes `atoms` of an asset, which it has to sell.   [L-5, L-6]"""
    number, usdc, at_us = subaccount.subaccount_id, state.usdc, outcome.at_us
    postings: list[Posting] = []
    if paid:
        postings += [(INSURANCE_FUND, usdc, paid), (available(number), usdc, -paid)]
    if atoms:
        postings += [(available(number), asset_id, atoms), (INSURANCE_FUND, asset_id, -atoms)]
        state.taken[asset_id] = state.taken.get(asset_id, 0) + atoms
    kind = JournalKind.COLLATERAL_TAKEN if atoms else JournalKind.INSURANCE
    before = standing(state, subaccount, at_us)
    standings.put(state, outcome, subaccount, kind, Moment.BEFORE)
    mark = margin.line(state, asset_id)[0] if atoms else 0
    entry = posted(state, outcome, kind, postings)
    after = standing(state, subaccount, at_us)
    entry.memo = (number, why, paid, asset_id, atoms, mark, *before, *after)
    outcome.events.append(
        LiquidationChanged(
            number,
            "collateral" if atoms else "insurance",
            before[0],
            before[1],
            margin.sums(state, subaccount, at_us).notional,
            asset_id=asset_id or usdc,
            quantity=-atoms if atoms else paid,
            price=mark,
            mark=mark,
            equity_after_usd=after[0],
            maintenance_after_usd=after[1],
        )
    )
    if paid:
        outcome.events.append(SettlementMoved(number, "liquidation", paid))


def standing(state: State, subaccount: Subaccount, at_us: int) -> tuple[int, int, int]:
    """(net equity, maintenance margin, E) in USD (1e-8): what each step says of the account.   [L-10]"""
    found = margin.sums(state, subaccount, at_us)
    return found.equity, found.maintenance, margin.realizable(state, subaccount, at_us)


def posted(state: State, outcome: Outcome, kind: int, postings: list[Posting]) -> JournalTransaction:
    """Post a step of the ladder; its memo follows when the standing after it is known.   [L-10]"""
    post(state, outcome, kind, (), postings)
    return outcome.journal[-1]


def own_usdc(state: State, subaccount: Subaccount, at_us: int) -> int:
    """USDC that it has, lent and waits for, less what it lost and owes: atoms, below zero when it lacks.   [L-5]"""
    usdc = state.usdc
    total = state.held(subaccount.subaccount_id, usdc) + lending.claim(state, subaccount, usdc, at_us)
    total -= margin.owed_atoms(state, subaccount, usdc, at_us)
    if subaccount.claims:
        total += margin.claims_atoms(state, subaccount, at_us)
    gained = sum(margin.unrealized_atoms(held) for held in subaccount.positions.values())
    return total + subaccount.unsettled + gained


def sellable(state: State, subaccount: Subaccount, at_us: int) -> dict[AssetId, int]:
    """What it holds or lends beside USDC that a market takes at least one lot of, in atoms.   [S-12]"""
    found = {}
    for asset_id, market in conversions.spot_markets(state).items():
        if asset_id not in subaccount.asset_ids:
            continue
        atoms = state.held(subaccount.subaccount_id, asset_id) + lending.claim(state, subaccount, asset_id, at_us)
        if atoms >= market.parameters.lot_atoms and margin.line(state, asset_id)[0]:
            found[asset_id] = atoms
    return found


def _take_crumbs(state: State, outcome: Outcome, subaccount: Subaccount) -> None:
    """Holdings that are less than a lot pass to the fund, which pays in their stead.   [L-5]"""
    for asset_id, market in conversions.spot_markets(state).items():
        free = state.free(subaccount.subaccount_id, asset_id) if asset_id in subaccount.asset_ids else 0
        if 0 < free < market.parameters.lot_atoms:
            move(state, outcome, subaccount, "crumbs", 0, asset_id, free)
