"""What a subaccount is worth and what its risk asks for: net equity, exposures, margins, and the checks made of them.

Everything here reads; nothing changes. A check judges an account as it would stand after some `Changes`.   [C-1 … M-12]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine import lending, pool_collateral, recoveries
from engine.events import ExpiryReason
from engine.formulas.collateral import flat_atoms, weight_at
from engine.formulas.margin import leverage_fraction, margin_line, notional_usd, order_loss_usd
from engine.formulas.prices import lot_value as lot_value
from engine.parameters import (
    PRICE_SCALE,
    RATE_SCALE,
    USD_SCALE,
    AssetParameters,
    BookState,
    WeightKind,
)
from engine.pricing import has_price, index_price, is_live, mark_price, mean_mark, mean_mark_up, mean_of, mean_of_up
from engine.rejections import Rejection, RejectReason
from engine.state import (
    ASSET_BITS,
    AssetPricing,
    Market,
    Order,
    Position,
    ShareTime,
    State,
    Subaccount,
    Valuations,
)
from engine.yields import uncollected
from ledger.amounts import INT64_MAX, INT128_MAX, mul_div_down, mul_div_up
from ledger.chart import (
    AccountKind,
    AssetId,
    account_id,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    contracts,
    debt_share,
    is_of_market,
    lend_share,
    lent,
    market_of,
)

Change = tuple[int, int, int, int]
"""What changes of one asset: held (locked included), lent, owed, and what open orders would pay away; atoms. Of a
perpetual, by the id of its contracts: lots, cost (atoms), lots that open bids would buy, and open asks would sell."""
Changes = Mapping[AssetId, Change]
NO_CHANGES: Changes = {}
AssetLine = tuple[int, int, int, int, int, AssetPricing, AssetParameters]
PerpetualLine = tuple[int, AssetPricing, int, int, int, int]
_NONE: Change = (0, 0, 0, 0)
_NO_SHARE_TIMES: Mapping[AssetId, ShareTime] = {}

_VALUE_ONE = PRICE_SCALE * RATE_SCALE // USD_SCALE
_PRICE_IN_USD = PRICE_SCALE // USD_SCALE
_INVERSE_SQRT = WeightKind.INVERSE_SQRT
_AVAILABLE = account_id(AccountKind.AVAILABLE)
_RECEIVABLE = account_id(AccountKind.RECEIVABLE)
_UNFED, _ALWAYS_LIVE = AssetPricing(), AssetPricing()
_UNFED.live_until_us, _ALWAYS_LIVE.live_until_us = -1, INT64_MAX


class Holding(NamedTuple):
    """One asset of a subaccount: quantities in atoms, values in USD (1e-8).   [C-1, M-1, M-3]"""

    asset_id: AssetId
    held: int
    """Available and locked."""
    lent: int
    owed: int
    paying: int
    """What open orders would pay away.   [M-1]"""
    mark: int
    weight: int
    value: int
    """Held and lent × mark × weight, rounded down."""
    liability: int
    exposure: int
    """X of M-1, in atoms."""
    notional: int
    initial: int
    maintenance: int
    uncollected: int
    """Yield of closed periods, in atoms; it counts at weight 1.   [C-3, Y-3]"""
    uncollected_value: int


class Sums(NamedTuple):
    """A subaccount in USD (1e-8).   [C-3, M-4 … M-7]"""

    equity: int
    """Net equity: values and uncollected yield less liabilities."""
    initial: int
    maintenance: int
    notional: int
    """Σ exposure notional."""
    is_unpriced: bool
    """Something is owed or promised that has no price: no margin can be said for it."""
    is_short: bool
    """More is owed of something priced than is there, or there is a position: exposure without open orders, what
    maintenance is asked for."""
    liability: int
    """Σ what is owed at mark; part of the equity."""
    settling: int = 0
    """Of the equity: unrealized PnL, claims and unsettled equity.   [C-3, C-5]"""

    @property
    def is_exposed(self) -> bool:
        return self.notional > 0 or self.is_unpriced

    @property
    def is_in_liquidation(self) -> bool:
        """Maintenance has reached net equity, with exposure, or there is no equity.   [M-6]"""
        return self.equity < 0 or (self.is_short and self.maintenance >= self.equity)


def sums(
    state: State,
    subaccount: Subaccount,
    at_us: int,
    changes: Changes = NO_CHANGES,
    *,
    is_strict: bool = False,
    is_stressed: bool = False,
    marks: Mapping[AssetId, int] | None = None,
) -> Sums:
    """Net equity and margins after `changes`.   [C-1 … C-4, M-1 … M-3]

    `is_strict`: what has no live price counts as nothing, or, owed, as unpriced: no live price, no new risk.
    `marks` stand in for the state's.
    `is_stressed`: what is long at the lowest, what is owed at the highest of mark, index and 5-minute mean.   [M-12]
    """
    balances, pools = state.balances, state.pools
    lines = valuations(state).lines
    number = subaccount.subaccount_id
    held_key = (_AVAILABLE | number) << ASSET_BITS
    owed_key = (_RECEIVABLE | number) << ASSET_BITS
    lent_loans, debts = subaccount.lent, subaccount.debts
    reserved, promised = subaccount.reserved, subaccount.promised
    leverage_base = 0
    now_ms = at_us // 1_000
    share_times = subaccount.share_times if state.has_yields else _NO_SHARE_TIMES
    equity = initial = maintenance = notional = liability = settling = 0
    is_unpriced = is_short = False

    walked = subaccount.asset_ids
    shortfall = usdc = 0
    has_perpetuals = subaccount.positions or subaccount.claims or subaccount.unsettled
    for asset_id in changes:
        if is_of_market(asset_id):
            has_perpetuals = True
        elif asset_id not in walked:
            walked = {**walked, asset_id: None}
    if has_perpetuals:
        usdc = state.usdc
        gains = perpetual_sums(state, subaccount, at_us, changes, is_strict, is_stressed, marks)
        settling, shortfall, initial, maintenance, notional, is_unpriced, is_short = gains
        equity = settling
        if shortfall and usdc not in walked:
            walked = {**walked, usdc: None}
    recovered = recoveries.uncollected(state, subaccount) if state.has_recoveries else 0
    if recovered:
        usdc = state.usdc
        walked = {**walked, usdc: None}
    for asset_id in walked:
        quantity = -balances.get(held_key | asset_id, 0)
        owed = balances.get(owed_key | asset_id, 0)
        # `lending.claim` and `lending.debt`, written out: they are most of what a summary takes.
        if asset_id in lent_loans:
            pool = pools[asset_id]
            now = pool.projected if pool.projected_ms == now_ms else lending.totals(state, pool, at_us)
            shares = -balances.get(lent(number) << ASSET_BITS | lend_share(asset_id), 0)
            if shares:
                quantity += shares * now.lent // now.lend_shares
        if asset_id in debts:
            pool = pools[asset_id]
            now = pool.projected if pool.projected_ms == now_ms else lending.totals(state, pool, at_us)
            shares = balances.get(borrowed(number) << ASSET_BITS | debt_share(asset_id), 0)
            if shares:
                owed -= -shares * now.borrowed // now.debt_shares
        paying = reserved.get(asset_id, 0) + promised.get(asset_id, 0)
        if asset_id in changes:
            held_change, lent_change, owed_change, paying_change = changes[asset_id]
            quantity += held_change + lent_change
            owed += owed_change
            paying += paying_change
        earned = uncollected(state, subaccount, asset_id) if asset_id in share_times else 0
        if recovered and asset_id == usdc:
            earned += recovered
        if not quantity and not owed and paying <= 0 and not earned and (not shortfall or asset_id != usdc):
            continue

        price, unit, in_usd, weight, flat, pricing, asset = lines.get(asset_id) or line(state, asset_id)
        if marks is not None:
            price = marks.get(asset_id, 0) or mark_price(state, asset_id)
        short_price = price
        if is_strict and at_us > pricing.live_until_us:
            price = short_price = 0
        elif is_stressed and price:
            price, short_price = _low_price(state, asset_id), _high_price(state, asset_id)
        if quantity > 0 and weight and price:
            if quantity > flat:
                weight = weight_at(quantity, unit, weight, asset.weight_base, asset.weight_penalty)
            equity += quantity * price * weight // (in_usd * RATE_SCALE)
        if earned:
            equity += earned * price // in_usd
        bare = owed - quantity
        if asset_id == usdc:
            bare += shortfall
        if owed:
            if short_price:
                liability -= -owed * short_price // in_usd
            else:
                is_unpriced = True
        exposure = bare + paying
        if exposure <= 0 and bare <= 0:
            continue
        if not short_price:
            is_unpriced = is_unpriced or exposure > 0
            continue
        if not leverage_base:
            leverage_base = leverage_fraction(subaccount.leverage_limit)
        margins = (asset.imf_base, asset.imf_factor, asset.mmf_base, asset.mmf_factor, leverage_base)
        if exposure > 0:
            exposed = -(-exposure * short_price // in_usd)
            pair = margin_line(exposed, *margins)
            notional += exposed
            initial += pair[0]
        # Maintenance leaves open orders out.   [M-1]
        if bare > 0:
            is_short = True
            if paying or exposure <= 0:
                pair = margin_line(-(-bare * short_price // in_usd), *margins)
            maintenance += pair[1]
    if state.has_pool_collateral and number not in state.liquidations:
        equity += pool_collateral_usd(state, number, at_us, is_strict, is_stressed, marks)
    return Sums(equity - liability, initial, maintenance, notional, is_unpriced, is_short, liability, settling)


def pool_collateral_usd(
    state: State,
    number: int,
    at_us: int,
    is_strict: bool = False,
    is_stressed: bool = False,
    marks: Mapping[AssetId, int] | None = None,
    only: int = 0,
) -> int:
    """What units of liquidity pools count for at the same prices as everything else: USD (1e-8), down.   [C-3]

    Not in liquidation: its first step gives them back, and what comes out counts as what it is. `only` names one pool.
    """

    def price_of(asset_id: AssetId) -> int:
        price, _unit, _in_usd, _weight, _flat, pricing, _asset = line(state, asset_id)
        if marks is not None:
            price = marks.get(asset_id, 0) or price
        if not price or (is_strict and at_us > pricing.live_until_us):
            return 0
        return _low_price(state, asset_id) if is_stressed else price

    return pool_collateral.worth(state, number, price_of, lambda asset_id: line(state, asset_id)[2], only)


def realizable(
    state: State, subaccount: Subaccount, at_us: int, marks: Mapping[AssetId, int] | None = None
) -> int:
    """E of the liquidation rules: net equity with every weight 1, of assets only those that a market sells for USDC.

    USD (1e-8): holdings down, debts up. `marks` stand in for the state's.   [L-3, L-4, L-6]
    """
    total = perpetual_sums(state, subaccount, at_us, NO_CHANGES, False, False, marks)[0]
    sold = sellable_assets(state)
    for asset_id in assets_of(state, subaccount):
        price, _unit, in_usd, *_rest = line(state, asset_id)
        if marks is not None:
            price = marks.get(asset_id, 0) or price
        if asset_id in sold:
            quantity = state.held(subaccount.subaccount_id, asset_id)
            quantity += lending.claim(state, subaccount, asset_id, at_us)
            total += quantity * price // in_usd + uncollected_atoms(state, subaccount, asset_id) * price // in_usd
        total -= -(-owed_atoms(state, subaccount, asset_id, at_us) * price // in_usd)
    return total


def perpetual_sums(
    state: State,
    subaccount: Subaccount,
    at_us: int,
    changes: Changes,
    is_strict: bool,
    is_stressed: bool,
    marks: Mapping[AssetId, int] | None,
) -> tuple[int, int, int, int, int, bool, bool]:
    """Positions, claims and unsettled equity, in USD (1e-8) but for the second, in USDC atoms.   [C-3, C-5, M-1]

    (value at weight 1 rounded down, USDC owed by them: negative unsettled equity and, in settled mode, min(0, Σ C-5);
    initial, maintenance, notional, whether something has no price, whether there is a position).
    """
    usd, _unit, in_usd, *_rest = line(state, state.usdc)
    if marks is not None:
        usd = marks.get(state.usdc, 0) or usd
    lines = valuations(state).perpetuals
    gained = initial = maintenance = notional = 0
    is_unpriced = is_short = False
    leverage_base = leverage_fraction(subaccount.leverage_limit)
    for market_id, lots, cost, buys, sells in _positions_after(subaccount, changes):
        market = state.markets[market_id]
        found = lines.get(market_id) or perpetual_line(state, market_id)
        mark_lot, pricing, imf_base, imf_factor, mmf_base, mmf_factor = found
        if marks is not None and contracts(market_id) in marks:
            mark_lot = lot_value(market.parameters, marks[contracts(market_id)])
        elif is_stressed and lots:
            mark_lot = _stressed_lot(state, market, lots > 0)
        elif is_stressed:
            mark_lot = max(_stressed_lot(state, market, True), _stressed_lot(state, market, False))
        gained += lots * (mark_lot - market.settled) + cost
        exposed = lots + buys
        if sells - lots > abs(exposed):
            exposed = sells - lots
        elif exposed < 0:
            exposed = -exposed
        if not exposed:
            continue
        if not mark_lot or (is_strict and at_us > pricing.live_until_us):
            is_unpriced = True
            continue
        worth = -(-exposed * mark_lot * usd // in_usd)
        pair = margin_line(worth, imf_base, imf_factor, mmf_base, mmf_factor, leverage_base)
        notional += worth
        initial += pair[0]
        if lots:
            is_short = True
            if exposed != lots and exposed != -lots:
                worth = -(-abs(lots) * mark_lot * usd // in_usd)
                pair = margin_line(worth, imf_base, imf_factor, mmf_base, mmf_factor, leverage_base)
            maintenance += pair[1]

    shortfall = -gained if gained < 0 and subaccount.auto_realize_pnl else 0
    if subaccount.unsettled < 0:
        shortfall -= subaccount.unsettled
    total = gained + subaccount.unsettled
    if subaccount.claims:
        total += claims_atoms(state, subaccount, at_us)
    return total * usd // in_usd, shortfall, initial, maintenance, notional, is_unpriced, is_short


def sellable_assets(state: State) -> dict[AssetId, None]:
    """USDC, and what has a market against it that is not closed: what S-12 (4) can turn into USDC.   [S-12]"""
    found: dict[AssetId, None] = {state.usdc: None}
    for market in state.markets.values():
        parameters = market.parameters
        if parameters.perpetual is None and parameters.quote_asset_id == state.usdc:
            if parameters.state is not BookState.CLOSED:
                found[parameters.base_asset_id] = None
    return found


def claims_atoms(state: State, subaccount: Subaccount, at_us: int) -> int:
    """What the liquidity fund holds for a subaccount, less what it owes for it, in USDC atoms.   [V-1 … V-3]"""
    return sum(claim_atoms(state, subaccount, market_id, at_us) for market_id in subaccount.claims)


def claim_atoms(state: State, subaccount: Subaccount, market_id: int, at_us: int) -> int:
    """One position's claim in USDC atoms: what is lent rounded down, what is owed rounded up.   [V-2, B-4]"""
    pool = state.pools[state.usdc]
    now = lending.totals(state, pool, at_us)
    key = claim(subaccount.subaccount_id) << ASSET_BITS
    lends = -state.balances.get(key | claim_lend(market_id), 0)
    owes = state.balances.get(key | claim_debt(market_id), 0)
    atoms = lends * now.lent // now.lend_shares if lends else 0
    return atoms + (-owes * now.borrowed // now.debt_shares if owes else 0)


def perpetual_line(state: State, market_id: int) -> PerpetualLine:
    """What values a perpetual: quote atoms of a lot, its index's liveness, its fractions.   [M-2, M-3]"""
    market = state.markets[market_id]
    perpetual, base = market.parameters.perpetual, market.parameters.base_asset_id
    assert perpetual is not None, f"market {market_id} is no perpetual"
    pricing = state.pricing[base] if base in state.prices else _UNFED
    imf_base = max(perpetual.imf_base, leverage_fraction(perpetual.max_leverage))
    found = market.mark_lot, pricing, imf_base, perpetual.imf_factor, perpetual.mmf_base, perpetual.mmf_factor
    valuations(state).perpetuals[market_id] = found
    return found


def unrealized_atoms(position: Position) -> int:
    """What a position gained since it was last settled, in quote atoms: C-5 without funding to come.   [C-5]"""
    return position.lots * (position.market.mark_lot - position.market.settled) + position.cost


class PositionLine(NamedTuple):
    """One position, or the open orders of a market without one, for people; USD in 1e-8.   [M-1, M-3]"""

    position: Position
    unrealized: int
    """Quote atoms.   [C-5]"""
    claim: int
    """Quote atoms.   [V-1]"""
    exposure: int
    """X of M-1, in lots."""
    notional: int
    initial: int
    maintenance: int


def position_lines(state: State, subaccount: Subaccount, at_us: int) -> list[PositionLine]:
    """The account's perpetuals line by line, by market: what `sums` adds up, for people.   [C-5, M-1, M-3]"""
    usd, _unit, in_usd, *_rest = line(state, state.usdc)
    leverage_base = leverage_fraction(subaccount.leverage_limit)
    lines = []
    for market_id in sorted(subaccount.positions):
        held = subaccount.positions[market_id]
        mark_lot, _pricing, *fractions = perpetual_line(state, market_id)
        margins = (fractions[0], fractions[1], fractions[2], fractions[3], leverage_base)
        exposure = max(abs(held.lots + held.buys), abs(held.lots - held.sells))
        notional = -(-exposure * mark_lot * usd // in_usd)
        bare = -(-abs(held.lots) * mark_lot * usd // in_usd)
        lines.append(
            PositionLine(
                held,
                unrealized_atoms(held),
                claim_atoms(state, subaccount, market_id, at_us) if market_id in subaccount.claims else 0,
                exposure,
                notional,
                margin_line(notional, *margins)[0],
                margin_line(bare, *margins)[1],
            )
        )
    return lines


def _positions_after(subaccount: Subaccount, changes: Changes) -> list[tuple[int, int, int, int, int]]:
    """(market, lots, cost, buys, sells) of every position as it would stand."""
    found = []
    positions = subaccount.positions
    for market_id, held in positions.items():
        change = changes.get(contracts(market_id), _NONE)
        found.append(
            (market_id, held.lots + change[0], held.cost + change[1], held.buys + change[2], held.sells + change[3])
        )
    for asset_id, change in changes.items():
        if is_of_market(asset_id) and market_of(asset_id) not in positions:
            found.append((market_of(asset_id), *change))
    return found


def _stressed_lot(state: State, market: Market, is_long: bool) -> int:
    """Quote atoms of a lot at the worst of mark, index and 5-minute mean: low for longs, high for shorts.   [M-12]"""
    parameters = market.parameters
    index = state.prices.get(parameters.base_asset_id, 0)
    if is_long:
        prices = [price for price in (index, mean_of(market.pricing) or 0) if price]
        return min([market.mark_lot, *(lot_value(parameters, price) for price in prices)])
    prices = [index, mean_of_up(market.pricing) or 0]
    up = [-(-price * parameters.tick_value_atoms // parameters.tick_price) for price in prices]
    return max(market.mark_lot, *up)


def holdings(state: State, subaccount: Subaccount, at_us: int) -> list[Holding]:
    """The account line by line, by asset id: what `sums` adds up, for people.   [C-1, M-1, M-3]

    But for what N of USDC counts beside debts: no item of a liquidation is larger for what positions are going to owe.
    """
    number = subaccount.subaccount_id
    leverage_base = leverage_fraction(subaccount.leverage_limit)
    lines = []
    for asset_id in sorted(assets_of(state, subaccount)):
        asset = state.assets[asset_id]
        unit = 10**asset.decimals
        held = state.held(number, asset_id)
        claim = lending.claim(state, subaccount, asset_id, at_us)
        owed = owed_atoms(state, subaccount, asset_id, at_us)
        paying = subaccount.reserved.get(asset_id, 0) + subaccount.promised.get(asset_id, 0)
        quantity = held + claim
        exposure = max(0, paying + owed - quantity)
        earned = uncollected_atoms(state, subaccount, asset_id)
        if not quantity and not owed and not exposure and not earned:
            continue
        mark = mark_price(state, asset_id)
        weight = asset.weight
        if weight and asset.weight_kind is _INVERSE_SQRT:
            weight = weight_at(quantity, unit, weight, asset.weight_base, asset.weight_penalty)
        notional = notional_usd(exposure, mark, unit)
        margins = (asset.imf_base, asset.imf_factor, asset.mmf_base, asset.mmf_factor, leverage_base)
        bare = notional_usd(max(0, owed - quantity), mark, unit)
        lines.append(
            Holding(
                asset_id,
                held,
                claim,
                owed,
                paying,
                mark,
                weight,
                quantity * mark * weight // (unit * _VALUE_ONE),
                notional_usd(owed, mark, unit),
                exposure,
                notional,
                margin_line(notional, *margins)[0],
                margin_line(bare, *margins)[1],
                earned,
                earned * mark // (unit * _PRICE_IN_USD),
            )
        )
    return lines


def uncollected_atoms(state: State, subaccount: Subaccount, asset_id: AssetId) -> int:
    """Yields of closed periods, and of USDC what debts that were written down still bring.   [C-3, Y-3, L-7]"""
    earned = uncollected(state, subaccount, asset_id)
    if state.has_recoveries and asset_id == state.usdc:
        earned += recoveries.uncollected(state, subaccount)
    return earned


def assets_of(state: State, subaccount: Subaccount) -> Mapping[AssetId, None]:
    """Every asset that a summary of the account looks at: USDC too when a written-down debt brings it.   [C-1, L-7]"""
    if state.has_recoveries and state.usdc not in subaccount.asset_ids and recoveries.uncollected(state, subaccount):
        return {**subaccount.asset_ids, state.usdc: None}
    return subaccount.asset_ids


def owed_atoms(state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int) -> int:
    """Debt with interest, and what a reversed deposit left unpaid.   [C-3, D-5]"""
    receivable = state.balances.get((_RECEIVABLE | subaccount.subaccount_id) << ASSET_BITS | asset_id, 0)
    return lending.debt(state, subaccount, asset_id, at_us) + receivable


def exposures(state: State, subaccount: Subaccount, at_us: int, changes: Changes = NO_CHANGES) -> dict[AssetId, int]:
    """X of M-1 per asset in atoms, and per perpetual (by its contracts) in lots, those above zero.   [M-1]"""
    found = {}
    for market_id, lots, _cost, buys, sells in _positions_after(subaccount, changes):
        if lots or buys or sells:
            found[contracts(market_id)] = max(abs(lots + buys), abs(lots - sells))
    shortfall = 0
    if subaccount.positions or subaccount.unsettled:
        shortfall = perpetual_sums(state, subaccount, at_us, changes, False, False, None)[1]
    for asset_id in {**subaccount.asset_ids, **dict.fromkeys(changes)}:
        if is_of_market(asset_id):
            continue
        held, claimed, owing, paying = changes.get(asset_id, _NONE)
        quantity = state.held(subaccount.subaccount_id, asset_id) + held + claimed
        quantity += lending.claim(state, subaccount, asset_id, at_us)
        owing += owed_atoms(state, subaccount, asset_id, at_us)
        if asset_id == state.usdc:
            owing += shortfall
        paying += subaccount.reserved.get(asset_id, 0) + subaccount.promised.get(asset_id, 0)
        if paying + owing > quantity:
            found[asset_id] = paying + owing - quantity
    return found


def open_order_loss(state: State, subaccount: Subaccount) -> int:
    """Σ over open orders of remaining × max(0, side × (price − mark)) in USD (1e-8).   [M-9, C-4]"""
    known = valuations(state)
    number = subaccount.subaccount_id
    if number not in known.losing:
        losses = ((order.order_id, _loss_left(state, order)) for order in subaccount.orders.values())
        known.losing[number] = {order_id: loss for order_id, loss in losses if loss}
        known.losing_usd[number] = sum(known.losing[number].values())
    return known.losing_usd[number]


def note_open(state: State, order: Order) -> None:
    """An order rests, or was filled in part: where its subaccount's loss is known, its own counts anew.   [M-9]"""
    known, number = valuations(state), order.subaccount.subaccount_id
    losing = known.losing.get(number)
    if losing is None:
        return
    before, loss = losing.pop(order.order_id, 0), _loss_left(state, order)
    if loss:
        losing[order.order_id] = loss
    known.losing_usd[number] += loss - before


def note_ended(state: State, order: Order) -> None:
    """An order is open no longer.   [M-9]"""
    known, number = state.valuations, order.subaccount.subaccount_id
    losing = known.losing.get(number)
    if losing:
        known.losing_usd[number] -= losing.pop(order.order_id, 0)


def order_loss(state: State, order: Order, lots: int) -> int:
    """What `lots` of an open order would lose against the mark, in USD (1e-8), rounded up.   [M-9]"""
    return loss_at(state, order.market.parameters.market_id, order.side == 1, order.price_ticks, lots)


def loss_at(state: State, market_id: int, is_buy: bool, price_ticks: int, lots: int) -> int:
    """What `lots` at this price would lose against the mark, in USD (1e-8), rounded up; without a mark nothing is said.

    [M-9]
    """
    most_bid, least_ask = valuations(state).ticks.get(market_id) or _lossless_ticks(state, market_id)
    if price_ticks <= most_bid if is_buy else price_ticks >= least_ask:
        return 0
    market = state.markets[market_id]
    parameters = market.parameters
    if parameters.perpetual is not None:
        usd, _unit, in_usd, *_rest = line(state, parameters.quote_asset_id)
        worse = price_ticks * parameters.tick_value_atoms - market.mark_lot
        return -(-lots * (worse if is_buy else -worse) * usd // in_usd)
    mark, quote_mark = mark_price(state, parameters.base_asset_id), mark_price(state, parameters.quote_asset_id)
    unit = 10 ** state.assets[parameters.base_asset_id].decimals
    order_price = price_ticks * parameters.tick_price * quote_mark
    return order_loss_usd(lots, parameters.lot_atoms, unit, order_price, mark, is_buy)


def require_risk(
    state: State,
    subaccount: Subaccount,
    at_us: int,
    changes: Changes,
    charges: int = 0,
    reducing: Changes | None = None,
) -> None:
    """M-5 and M-9 after `changes`: net equity less `charges` (fees, the order's own loss) less open orders' loss must
    exceed Σ initial margin.

    What would, filled as `reducing` says, lower an exposure and raise none is exempt; an account without exposure and
    without charges has nothing to show.   [M-5, M-9]
    """
    after = sums(state, subaccount, at_us, changes, is_strict=True)
    if after.is_unpriced:
        raise Rejection(RejectReason.NO_PRICE, subaccount_id=subaccount.subaccount_id)
    if not after.notional:
        return
    loss = charges + open_order_loss(state, subaccount)
    if after.equity - loss > after.initial:
        return
    if reducing is not None and _only_reduces(state, subaccount, at_us, reducing):
        return
    raise Rejection(
        RejectReason.INSUFFICIENT_MARGIN,
        subaccount_id=subaccount.subaccount_id,
        net_equity_usd=after.equity - loss,
        initial_margin_usd=after.initial,
    )


def fill_refusal(
    state: State,
    subaccount: Subaccount,
    at_us: int,
    changes: Changes,
    is_better_than_mark: bool,
) -> ExpiryReason | None:
    """Why a fill that leaves too little equity may not be, judged as if filled.

    One that only reduces passes when it is better than the mark net of fee, or leaves the account no nearer to
    liquidation. Better means that equity does not fall: more than is owed may be bought, of what weighs little.   [M-9]
    """
    after = sums(state, subaccount, at_us, changes, is_strict=True)
    if _only_reduces(state, subaccount, at_us, changes):
        # What counts here is where the account stands, not whether its prices are live.
        before, after = sums(state, subaccount, at_us), sums(state, subaccount, at_us, changes)
        if is_better_than_mark and after.equity >= before.equity:
            return None
        if after.equity >= 0 and after.equity * before.maintenance >= before.equity * after.maintenance:
            return None
    return ExpiryReason.NEGATIVE_EQUITY if after.equity < 0 else ExpiryReason.INSUFFICIENT_MARGIN


def require_outflow(
    state: State, subaccount: Subaccount, at_us: int, changes: Changes, charges: int = 0
) -> None:
    """M-12: what takes value out satisfies M-5 at mark, and again with each price at its worst of three.

    Without exposure net equity must only not be below zero: a debt that its own asset covers costs what that asset's
    weight lacks.   [M-6] But who has no equity at all borrows nothing: it would take up a pool for nothing.   [M-5]
    Provisional deposits of the whole user do not count: their value is taken off, and what has no value must still be
    there.   [M-12, D-5] `charges` (USD, 1e-8) is what goes besides.
    """
    provisional = _provisional_usd(state, subaccount, changes) + charges
    borrows = any(owed > 0 for _held, _lent, owed, _paying in changes.values())
    for is_stressed in (False, True):
        after = sums(state, subaccount, at_us, changes, is_strict=True, is_stressed=is_stressed)
        if after.is_unpriced:
            raise Rejection(RejectReason.NO_PRICE, subaccount_id=subaccount.subaccount_id)
        equity = after.equity - provisional
        if after.notional:
            equity -= open_order_loss(state, subaccount)
        if equity > after.initial or (not after.notional and equity >= 0 and not borrows):
            continue
        raise Rejection(
            RejectReason.INSUFFICIENT_MARGIN,
            subaccount_id=subaccount.subaccount_id,
            net_equity_usd=equity,
            initial_margin_usd=after.initial,
            at_worst_prices=int(is_stressed),
        )
    for asset_id in exposures(state, subaccount, at_us, changes):
        if is_of_market(asset_id):
            is_priced = state.markets[market_of(asset_id)].pricing.has_data
        else:
            is_priced = has_price(state, asset_id)
        if not is_priced:
            raise Rejection(RejectReason.NO_PRICE, subaccount_id=subaccount.subaccount_id, asset_id=asset_id)


def has_provisional(state: State, subaccount: Subaccount) -> bool:
    """Whether its user has deposits that are not final.   [D-5]"""
    subaccounts = state.subaccounts
    for number in subaccount.user.subaccount_ids:
        if subaccounts[number].provisional:
            return True
    return False


def debts_usd(state: State, subaccount: Subaccount, at_us: int) -> int:
    """All it owes to money markets, in USD (1e-8), rounded up.   [B-8]"""
    return sum(
        notional_usd(
            lending.debt(state, subaccount, asset_id, at_us),
            mark_price(state, asset_id),
            10 ** state.assets[asset_id].decimals,
        )
        for asset_id in subaccount.debts
    )


def borrow_refusal(
    state: State, subaccount: Subaccount, asset_id: AssetId, at_us: int, atoms: int
) -> RejectReason | None:
    """Why this subaccount may not borrow, margin aside: market, caps, its own limit, no live price.  [B-8, B-11]"""
    reason = lending.borrow_refusal(state, asset_id, at_us, atoms)
    if reason is not None:
        return reason
    if not is_live(state, asset_id, at_us):
        return RejectReason.NO_PRICE
    new = notional_usd(atoms, mark_price(state, asset_id), 10 ** state.assets[asset_id].decimals)
    if debts_usd(state, subaccount, at_us) + new > state.limits.borrow_limit_usd:
        return RejectReason.BORROW_LIMIT
    return None


def is_better_than_mark(state: State, market_id: int, is_buy: bool, price_ticks: int, fee_rate: int) -> bool:
    """Whether a fill improves on the mark net of its fee; multiplied across.   [M-9]"""
    market = state.markets[market_id]
    parameters = market.parameters
    if parameters.perpetual is not None:
        paid, mark_lot = price_ticks * parameters.tick_value_atoms, market.mark_lot * RATE_SCALE
        return paid * (RATE_SCALE + fee_rate) <= mark_lot if is_buy else paid * (RATE_SCALE - fee_rate) >= mark_lot
    mark, quote_mark = mark_price(state, parameters.base_asset_id), mark_price(state, parameters.quote_asset_id)
    price = price_ticks * parameters.tick_price * quote_mark
    if is_buy:
        return price * (RATE_SCALE + fee_rate) <= mark * PRICE_SCALE * RATE_SCALE
    return price * (RATE_SCALE - fee_rate) >= mark * PRICE_SCALE * RATE_SCALE


def add(changes: dict[AssetId, Change], asset_id: AssetId, held: int, lent: int, owed: int, paying: int) -> None:
    """Put one asset's change on top of what is there."""
    before = changes.get(asset_id, _NONE)
    changes[asset_id] = (before[0] + held, before[1] + lent, before[2] + owed, before[3] + paying)


def valuations(state: State) -> Valuations:
    """What is computed from the marks, emptied when they, or an asset's parameters, have changed."""
    known = state.valuations
    if known.version != state.marks_version:
        known = state.valuations = Valuations(state.marks_version)
    return known


def line(state: State, asset_id: AssetId) -> AssetLine:
    """What values an asset, from the cache of these marks where it is known.

    (mark, atoms of a unit, divisor to 1e-8 USD, weight, atoms up to which that is flat, liveness, parameters).
    """
    known: AssetLine | None = valuations(state).lines.get(asset_id)
    if known is not None:
        return known
    asset, unit = state.assets[asset_id], 10 ** state.assets[asset_id].decimals
    flat = INT128_MAX
    if asset.weight_kind is _INVERSE_SQRT:
        flat = flat_atoms(unit, asset.weight, asset.weight_base, asset.weight_penalty)
    pricing = state.pricing[asset_id] if asset_id in state.prices else _UNFED
    price = mark_price(state, asset_id)
    if asset_id not in state.prices and price:
        pricing = _ALWAYS_LIVE
    found = price, unit, unit * _PRICE_IN_USD, asset.weight, flat, pricing, asset
    valuations(state).lines[asset_id] = found
    return found


def _loss_left(state: State, order: Order) -> int:
    return order_loss(state, order, order.lots - order.executed_lots)


def _lossless_ticks(state: State, market_id: int) -> tuple[int, int]:
    """(the highest bid, the lowest ask) in ticks that lose nothing against the mark.   [M-9]

    price × tick_price × quote mark against mark × PRICE_SCALE, solved for the price: down for bids, up for asks.
    """
    market = state.markets[market_id]
    parameters = market.parameters
    mark, quote_mark = mark_price(state, parameters.base_asset_id), mark_price(state, parameters.quote_asset_id)
    found = (INT128_MAX, 0)
    if parameters.perpetual is not None:
        if market.mark_lot:
            value = parameters.tick_value_atoms
            found = (market.mark_lot // value, -(-market.mark_lot // value))
    elif mark and quote_mark:
        tick = parameters.tick_price * quote_mark
        found = (mul_div_down(mark, PRICE_SCALE, tick), mul_div_up(mark, PRICE_SCALE, tick))
    valuations(state).ticks[market_id] = found
    return found


def _only_reduces(state: State, subaccount: Subaccount, at_us: int, changes: Changes) -> bool:
    """No exposure rises and one falls; what the order itself promised to pay is none that its fill lowers.   [M-9]

    Of a fill of a perpetual, the USDC that its fee or its loss would take is judged by what equity becomes, not here.
    """
    without = {asset_id: (0, 0, 0, change[3]) for asset_id, change in changes.items() if not is_of_market(asset_id)}
    before, after = exposures(state, subaccount, at_us, without), exposures(state, subaccount, at_us, changes)
    if any(is_of_market(asset_id) for asset_id in changes):
        before.pop(state.usdc, None)
        after.pop(state.usdc, None)
    if any(after[asset_id] > before.get(asset_id, 0) for asset_id in after):
        return False
    return any(before[asset_id] > after.get(asset_id, 0) for asset_id in before)


def _low_price(state: State, asset_id: AssetId) -> int:
    prices = (mark_price(state, asset_id), index_price(state, asset_id), mean_mark(state, asset_id))
    return min(price for price in prices if price)


def _high_price(state: State, asset_id: AssetId) -> int:
    return max(mark_price(state, asset_id), index_price(state, asset_id), mean_mark_up(state, asset_id) or 0)


def _provisional_usd(state: State, subaccount: Subaccount, changes: Changes) -> int:
    """What all the user's provisional deposits count for, rounded up: their weighted value where they still are, what
    a reversal would leave owed where they were spent.   [D-5]

    What gives no value cannot be taken off, so it must still be where it was credited.
    """
    total = 0
    for number in subaccount.user.subaccount_ids:
        owner = state.subaccounts[number]
        for asset_id, atoms in owner.provisional.items():
            asset, price = state.assets[asset_id], mark_price(state, asset_id)
            held = state.held(number, asset_id)
            if owner is subaccount:
                held += changes.get(asset_id, _NONE)[0]
            if asset.weight and price:
                unit, there = 10**asset.decimals, min(atoms, max(0, held))
                total -= -there * price * asset.weight // (unit * _VALUE_ONE)
                total += notional_usd(atoms - there, _high_price(state, asset_id), unit)
                continue
            if held < atoms:
                raise Rejection(
                    RejectReason.PROVISIONAL_FUNDS, asset_id=asset_id, provisional_atoms=atoms, held_atoms=held
                )
    return total
