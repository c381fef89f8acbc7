"""Lending and borrowing by hand, and the dust that loans leave behind.   [B-4, B-8 … B-12, S-3, S-4]"""

from __future__ import annotations

from engine import bankruptcy, lending, margin
from engine.commands import AccrueInterest, BorrowLend, ConvertDust, LendingSide
from engine.events import DustConverted, LendingSource, Outcome
from engine.fees import USDC
from engine.formulas.margin import notional_usd
from engine.parameters import USD_SCALE, LendingState
from engine.posting import post
from engine.pricing import is_live, mark_price
from engine.rejections import Rejection, RejectReason, require
from engine.state import State, Subaccount
from ledger.amounts import INT64_MAX, mul_div_down, mul_div_up
from ledger.chart import DUST, AssetId, available
from ledger.journal import JournalKind, Posting

MANUAL = LendingSource.MANUAL
SMALL_USD = USD_SCALE
"""A debt under one lot and under 1 USD is bought back by itself.   [S-3]"""


def borrow_lend(state: State, command: BorrowLend, outcome: Outcome) -> None:
    """Lend, after repaying what is owed of the asset; or borrow, after redeeming what is lent of it.   [B-4, B-8]"""
    subaccount = state.subaccounts[command.subaccount_id]
    asset_id, atoms = command.asset_id, command.atoms
    require(asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=asset_id)
    if asset_id not in state.pools or lending.lending_parameters(state, asset_id).state is LendingState.CLOSED:
        raise Rejection(RejectReason.LENDING_CLOSED, asset_id=asset_id)
    require(0 < atoms <= INT64_MAX, RejectReason.INVALID_QUANTITY, atoms=atoms, maximum=INT64_MAX)
    if subaccount.auto_lend:
        raise Rejection(RejectReason.AUTO_LEND_IS_ON, subaccount_id=command.subaccount_id)
    if command.side is LendingSide.LEND:
        _lend(state, outcome, subaccount, asset_id, atoms)
    else:
        _borrow(state, outcome, subaccount, asset_id, atoms)


def begin_hour(state: State, command: AccrueInterest, outcome: Outcome) -> None:
    """Interest in every pool, then what its lenders lack, then small debts are bought back.   [B-4, L-7, S-3]"""
    lending.accrue_interest(state, command, outcome)
    # From here the command succeeds.
    bankruptcy.fill_holes(state, outcome)
    for number, asset_id in sorted(state.small_debts):
        _buy_back(state, outcome, state.subaccounts[number], asset_id)


def convert_dust(state: State, command: ConvertDust, outcome: Outcome) -> list[DustConverted]:
    """Sell what is free and under one lot to the dust account at mark, rounded down, for USDC.   [S-3]"""
    subaccount = state.subaccounts[command.subaccount_id]
    require(
        not command.asset_id or command.asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=command.asset_id
    )
    found = []
    for asset_id in [command.asset_id] if command.asset_id else sorted(subaccount.asset_ids):
        if not is_live(state, asset_id, outcome.at_us):
            # The last mark of what has no price any more is no price to be paid.   [P-2]
            continue
        free = state.withdrawable(command.subaccount_id, asset_id)
        paid = _usdc_atoms(state, asset_id, free, is_charge=False)
        if 0 < free < _lot_atoms(state, asset_id) and paid:
            found.append((asset_id, free, paid))
    require(bool(found), RejectReason.NOTHING_TO_CONVERT, subaccount_id=command.subaccount_id)
    usdc = _usdc(state)
    if subaccount.margined:
        changes: dict[AssetId, margin.Change] = {}
        for asset_id, atoms, paid in found:
            margin.add(changes, asset_id, -atoms, 0, 0, 0)
            margin.add(changes, usdc, paid, 0, 0, 0)
        margin.require_risk(state, subaccount, outcome.at_us, changes)
    # From here the command succeeds.
    converted = []
    for asset_id, atoms, paid in found:
        account = available(command.subaccount_id)
        postings: list[Posting] = [
            (account, asset_id, atoms),
            (DUST, asset_id, -atoms),
            (DUST, usdc, paid),
            (account, usdc, -paid),
        ]
        post(state, outcome, JournalKind.DUST_CONVERTED, (command.subaccount_id, asset_id, atoms, paid), postings)
        event = DustConverted(command.subaccount_id, asset_id, atoms, paid)
        outcome.events.append(event)
        converted.append(event)
    return converted


def _lend(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, atoms: int) -> None:
    free = state.withdrawable(subaccount.subaccount_id, asset_id)
    owed = lending.debt(state, subaccount, asset_id, outcome.at_us)
    _require_step(state, asset_id, atoms, owed)
    if atoms > free:
        raise Rejection(RejectReason.INSUFFICIENT_FUNDS, asset_id=asset_id, required_atoms=atoms, free_atoms=free)
    repaid = min(atoms, owed)
    rest = atoms - repaid
    if rest:
        if lending.lending_parameters(state, asset_id).state is not LendingState.OPEN:
            raise Rejection(RejectReason.LENDING_CLOSED, asset_id=asset_id, owed_atoms=owed, asked_atoms=atoms)
        room = lending.lend_room(state, asset_id, outcome.at_us)
        require(rest <= room, RejectReason.LEND_LIMIT, asset_id=asset_id, atoms=rest, room_atoms=room)
    # From here the command succeeds.
    if repaid:
        into = lending.Movements()
        lending.repay(state, outcome, into, subaccount, asset_id, repaid, MANUAL)
        lending.post_alone(state, outcome, into)
    if rest:
        into = lending.Movements()
        lending.lend(state, outcome, into, subaccount, asset_id, rest, MANUAL)
        lending.post_alone(state, outcome, into)


def _borrow(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId, atoms: int) -> None:
    redeemed, borrowed = require_borrowing(state, subaccount, asset_id, outcome.at_us, atoms)
    # From here the command succeeds.
    if redeemed:
        into = lending.Movements()
        lending.redeem(state, outcome, into, subaccount, asset_id, redeemed, MANUAL)
        lending.post_alone(state, outcome, into)
    if borrowed:
        into = lending.Movements()
        lending.borrow(state, outcome, into, subaccount, asset_id, borrowed, MANUAL)
        lending.post_alone(state, outcome, into)


def require_borrowing(
    state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, atoms: int
) -> tuple[int, int]:
    """(redeemed, borrowed) of a loan taken by hand, or a Rejection.   [B-7, B-8, M-12]

    It is judged as if all that is held of the asset were about to be paid away: the whole debt asks for its margin. Or
    who has one dollar could take up a pool and hold it.
    """
    claim = lending.claim(state, subaccount, asset_id, at_us)
    _require_step(state, asset_id, atoms, claim)
    redeemed = lending.redemption(state, subaccount, asset_id, at_us, atoms) if claim else 0
    borrowed = max(0, atoms - redeemed)
    if borrowed:
        require_borrow(state, subaccount, asset_id, at_us, borrowed)
    lending.require_supply(state, asset_id, at_us, redeemed, borrowed)
    if borrowed:
        quantity = state.held(subaccount.subaccount_id, asset_id) + claim + borrowed
        margin.require_outflow(state, subaccount, at_us, {asset_id: (atoms, -redeemed, borrowed, quantity)})
    return redeemed, borrowed


def require_borrow(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, atoms: int) -> None:
    """The market, its cap, the subaccount's limit and a live price let it borrow; margin is for others.   [B-8]"""
    reason = margin.borrow_refusal(state, subaccount, asset_id, at_us, atoms)
    if reason is RejectReason.BORROW_LIMIT:
        raise Rejection(
            reason,
            asset_id=asset_id,
            atoms=atoms,
            owed_usd=margin.debts_usd(state, subaccount, at_us),
            limit_usd=state.limits.borrow_limit_usd,
            all_owed_atoms=lending.totals(state, state.pools[asset_id], at_us).borrowed,
            market_limit_atoms=lending.lending_parameters(state, asset_id).open_limit_atoms,
        )
    if reason is not None:
        raise Rejection(reason, asset_id=asset_id, atoms=atoms)


def _buy_back(state: State, outcome: Outcome, subaccount: Subaccount, asset_id: AssetId) -> None:
    """A debt under one lot and under 1 USD is bought from the dust account at mark, rounded up.   [S-3]

    Without the USDC to pay for it, it waits for the next hour.
    """
    number = subaccount.subaccount_id
    owed = lending.debt(state, subaccount, asset_id, outcome.at_us)
    mark, unit = mark_price(state, asset_id), 10 ** state.assets[asset_id].decimals
    if owed >= _lot_atoms(state, asset_id) or notional_usd(owed, mark, unit) >= SMALL_USD:
        del state.small_debts[number, asset_id]
        return
    cost, usdc = _usdc_atoms(state, asset_id, owed, is_charge=True), _usdc(state)
    if not mark or cost > state.withdrawable(number, usdc):
        return
    into = lending.Movements()
    lending.repay(state, outcome, into, subaccount, asset_id, owed, LendingSource.DUST_CONVERSION)
    bought: list[Posting] = [
        (available(number), usdc, cost),
        (DUST, usdc, -cost),
        (DUST, asset_id, owed),
        (available(number), asset_id, -owed),
    ]
    memo = (number, asset_id, -owed, -cost, tuple(into.memos))
    post(state, outcome, JournalKind.DUST_CONVERTED, memo, bought + into.postings)
    outcome.events.append(DustConverted(number, asset_id, -owed, -cost))


def _require_step(state: State, asset_id: AssetId, atoms: int, whole: int) -> None:
    """A multiple of the asset's step, or exactly all that there is."""
    step = state.assets[asset_id].step_atoms
    if atoms % step and atoms != whole:
        raise Rejection(RejectReason.INVALID_QUANTITY, asset_id=asset_id, atoms=atoms, step_atoms=step)


def _usdc(state: State) -> AssetId:
    for asset_id, asset in state.assets.items():
        if asset.symbol == USDC:
            return asset_id
    raise Rejection(RejectReason.UNKNOWN_ASSET, symbol=USDC)


def _lot_atoms(state: State, asset_id: AssetId) -> int:
    """The lot of the asset's market against USDC, 0 when there is none.   [S-3]"""
    symbol = f"{state.assets[asset_id].symbol}_{USDC}"
    for market in state.markets.values():
        if market.parameters.symbol == symbol:
            return market.parameters.lot_atoms
    return 0


def _usdc_atoms(state: State, asset_id: AssetId, atoms: int, is_charge: bool) -> int:
    """The asset's value at mark in USDC: up for a charge, down for a credit; 0 without a mark.   [A-3]"""
    usdc = _usdc(state)
    price, unit = mark_price(state, asset_id), 10 ** state.assets[asset_id].decimals
    value, scale = price * 10 ** state.assets[usdc].decimals, unit * mark_price(state, usdc)
    return (mul_div_up if is_charge else mul_div_down)(atoms, value, scale)
