"""What the insurance fund took in kind is sold at settlement ticks, and pays first what lenders lack.   [L-5, L-7]

The fund trades through a desk, subaccount 0 of user 0, which is opened for its first sale and holds nothing between two
sales. Memo of its INSURANCE transactions: 0, `sale` or `sold`, 0 or USDC received (below zero), the asset, its atoms
(below zero: they come back unsold), mark.
"""

from __future__ import annotations

from engine import bankruptcy, conversions, insurance, margin, orders
from engine.commands import Origin, Side
from engine.events import Outcome
from engine.posting import post
from engine.state import Market, State, Subaccount, User, balance_key
from ledger.chart import INSURANCE_FUND, AssetId, available
from ledger.journal import JournalKind, Posting

DESK = 0


def sell(state: State, outcome: Outcome) -> None:
    """Sell what has a buyer within the bounds of S-12 (4), then fill the holes of L-7.   [L-7, S-12]"""
    for asset_id in sorted(state.taken):
        _sell(state, outcome, asset_id)
    if state.holes and insurance.balance(state):
        bankruptcy.fill_holes(state, outcome)


def has_buyer(state: State) -> bool:
    """Whether a tick now could sell anything of what was taken.   [L-7]"""
    return any(_lots(state, asset_id) for asset_id in state.taken)


def _sell(state: State, outcome: Outcome, asset_id: AssetId) -> None:
    lots = _lots(state, asset_id)
    if not lots:
        return
    market = conversions.spot_markets(state)[asset_id]
    desk, usdc, mark = _desk(state, outcome.at_us), state.usdc, margin.line(state, asset_id)[0]
    atoms = lots * market.parameters.lot_atoms
    to_desk: list[Posting] = [(INSURANCE_FUND, asset_id, atoms), (available(DESK), asset_id, -atoms)]
    post(state, outcome, JournalKind.INSURANCE, (DESK, "sale", 0, asset_id, atoms, mark), to_desk)
    bound = conversions.bound_ticks(state, market)
    orders.place_by_rule(state, outcome, desk, market, Side.ASK, lots, bound, Origin.COLLATERAL_CONVERSION)
    got, left = state.free(DESK, usdc), state.free(DESK, asset_id)
    back: list[Posting] = []
    for asset, moved in ((usdc, got), (asset_id, left)):
        if moved:
            back += [(available(DESK), asset, moved), (INSURANCE_FUND, asset, -moved)]
    post(state, outcome, JournalKind.INSURANCE, (DESK, "sold", -got, asset_id, -left, mark), back)
    rest = state.taken[asset_id] - (atoms - left)
    if rest > 0:
        state.taken[asset_id] = rest
    else:
        del state.taken[asset_id]


def _lots(state: State, asset_id: AssetId) -> int:
    """How many lots of what was taken somebody bids for within the bounds; 0 too while that is no order.   [S-12]"""
    market: Market | None = conversions.spot_markets(state).get(asset_id)
    if market is None:
        return 0
    parameters = market.parameters
    bound = conversions.bound_ticks(state, market)
    if not bound or market.book.bids.best_price_ticks() < bound:
        return 0
    held = -state.balances.get(balance_key(INSURANCE_FUND, asset_id), 0)
    lots = min(state.taken[asset_id], held) // parameters.lot_atoms
    return min(lots, parameters.max_lots) if lots >= parameters.min_lots else 0


def _desk(state: State, at_us: int) -> Subaccount:
    desk = state.subaccounts.get(DESK)
    if desk is None:
        user = state.users[DESK] = User(DESK, at_us)
        desk = state.subaccounts[DESK] = Subaccount(DESK, user, at_us)
        user.subaccount_ids.append(DESK)
    return desk
