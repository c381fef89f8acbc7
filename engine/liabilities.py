"""What the exchange owes and is owed, subaccount by subaccount, as the epoch's leaves show it.   [R-2, C-1 … C-3]

Columns are gross, unsigned and add up: the available, in_orders and provisional columns of an asset sum to the ledger's
`subaccount/…/available` accounts, withdrawing to `subaccount/…/withdrawing`. In a money market, lent sums to what the
pool owes its lenders, short of it by less than one atom each; borrowed to what it is owed, over it by as little. [B-4]
Of a perpetual market long sums to short; cost, PnL and unsettled equity, plus less minus, to what the exchange's own
accounts have; claims to what the liquidity fund lends and owes, but for as little.   [C-5, S-13, V-5]
Of a liquidity pool units, custody and debts sum to the pool's.   [X-14]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from engine import lending, margin, recoveries, yields
from engine.formulas.collateral import value_usd, weight_at
from engine.formulas.lending import claim_atoms, debt_atoms
from engine.parameters import AssetParameters, MarketType, WeightKind
from engine.pools import earned
from engine.pricing import mark_price
from engine.state import ASSET_BITS, AmmPosition, Market, State, Subaccount
from ledger.chart import (
    AccountKind,
    account_id,
    borrowed,
    claim,
    claim_debt,
    claim_lend,
    debt_share,
    external_custody,
    external_owed,
    in_custody,
    lend_share,
    lent,
    native_custody,
    native_owed,
    owed_to_pools,
    pool_units,
    units_held,
)

ASSET_COLUMNS = ("available", "in_orders", "provisional", "withdrawing")
POOL_COLUMNS = ("lent", "borrowed", "uncollected_yield")
"""Further columns of an asset that has a money market."""
SETTLED_COLUMNS = ("unsettled_plus", "unsettled_minus", "recovery")
"""Of USDC, where anything settles in it: settled gains that nobody has paid yet, losses not collected, and what lenders
may collect for debts that were written down.   [S-13, L-7]
"""
MARKET_COLUMNS = (
    "long",
    "short",
    "cost_plus",
    "cost_minus",
    "pnl_plus",
    "pnl_minus",
    "claim_plus",
    "claim_minus",
)
"""Of a perpetual market: base atoms; quote atoms of cost (C-5's: quantity × mark + cost is the PnL), of unrealized PnL
at the mark of the epoch, and of what the liquidity fund holds or is owed.   [R-2, C-5, V-1]
"""
AMM_COLUMNS = ("amm_units", "amm_native_custody", "amm_external_custody", "amm_native_owed", "amm_external_owed")
"""Of a liquidity pool, under its external asset's symbol: units, counted as native atoms are; what the pool keeps for
open positions and what these owe it, interest left out, in native and external atoms.   [R-2, X-3, X-5]
"""
VALUE_COLUMNS = ("collateral_value", "maintenance_margin", "net_equity_plus", "net_equity_minus")
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def columns(state: State) -> list[str]:
    """`ASSET.kind` in atoms for every asset by id, `MARKET.kind` for every perpetual by id, `EXTERNAL.amm_…` for every
    liquidity pool by id, valuations in USD (1e-8).   [R-2]
    """
    names = []
    for asset_id in sorted(state.assets):
        kinds = ASSET_COLUMNS + POOL_COLUMNS if asset_id in state.pools else ASSET_COLUMNS
        names += [f"{state.assets[asset_id].symbol}.{kind}" for kind in kinds]
    markets = perpetuals(state)
    if settles(state):
        names += [f"{state.assets[state.usdc].symbol}.{kind}" for kind in SETTLED_COLUMNS]
    for market in markets:
        names += [f"{market.parameters.symbol}.{kind}" for kind in MARKET_COLUMNS]
    for pool_id in sorted(state.amm_pools):
        names += [f"{state.assets[pool_id].symbol}.{kind}" for kind in AMM_COLUMNS]
    return names + list(VALUE_COLUMNS)


def settles(state: State) -> bool:
    """Whether anything settles in USDC: perpetuals, or what lenders are paid for debts written down.   [S-10, L-7]"""
    return state.has_recoveries or bool(perpetuals(state))


def perpetuals(state: State) -> list[Market]:
    """The perpetual markets, by id."""
    markets = (state.markets[market_id] for market_id in sorted(state.markets))
    return [market for market in markets if market.parameters.type is MarketType.PERP]


def accounts(state: State) -> Iterator[tuple[int, int, list[int], str]]:
    """(subaccount, user, amounts in the order of `columns`, detail as canonical JSON) of every subaccount, by id.

    available = held less what orders lock less provisional; provisional is counted out of what is not locked. Claims
    are rounded down, debts up.   [R-2, B-4, D-5]
    """
    balances, at_us = state.balances, state.at_us
    assets = [(state.assets[asset_id], mark_price(state, asset_id)) for asset_id in sorted(state.assets)]
    lines = [
        (asset.asset_id, 10**asset.decimals, price, asset, asset.asset_id in state.pools) for asset, price in assets
    ]
    markets = perpetuals(state)
    has_settlement = settles(state)
    nothing = [0] * len(MARKET_COLUMNS) * len(markets)
    amm_pools = sorted(state.amm_pools)
    longs = _longs(state)
    providers = {number for pool in state.amm_pools.values() for number in pool.holders}
    no_liquidity = [0] * len(AMM_COLUMNS) * len(amm_pools)
    for number in sorted(state.subaccounts):
        subaccount = state.subaccounts[number]
        held_key = account_id(AccountKind.AVAILABLE, number) << ASSET_BITS
        withdrawing_key = account_id(AccountKind.WITHDRAWING, number) << ASSET_BITS
        owed_key = account_id(AccountKind.RECEIVABLE, number) << ASSET_BITS
        reserved, waiting = subaccount.reserved, subaccount.provisional
        lends, debts, times = subaccount.lent, subaccount.debts, subaccount.share_times
        is_plain = not subaccount.margined
        amounts: list[int] = []
        collateral = earned = 0
        for asset_id, unit, price, asset, has_pool in lines:
            quantity = -balances.get(held_key | asset_id, 0)
            in_orders = reserved.get(asset_id, 0)
            free = quantity - in_orders
            # Provisional funds may have been traded away: what is left of them is all that can be shown.
            provisional = min(waiting.get(asset_id, 0), free)
            amounts += (free - provisional, in_orders, provisional, -balances.get(withdrawing_key | asset_id, 0))
            if has_pool:
                claim = lending.claim(state, subaccount, asset_id, at_us) if asset_id in lends else 0
                owed = lending.debt(state, subaccount, asset_id, at_us) if asset_id in debts else 0
                reward = yields.uncollected(state, subaccount, asset_id) if asset_id in times else 0
                amounts += (claim, owed, reward)
                quantity += claim
                if reward:
                    earned += value_usd(reward, unit, price)
            if quantity and price and asset.weight:
                collateral += _collateral_value(asset, quantity, unit, price)
            if owed_key | asset_id in balances:
                is_plain = False
        if has_settlement:
            unsettled = subaccount.unsettled
            recovery = recoveries.uncollected(state, subaccount) if times and state.has_recoveries else 0
            is_plain = is_plain and not recovery
            amounts += (unsettled, 0, recovery) if unsettled >= 0 else (0, -unsettled, recovery)
            if markets and (subaccount.positions or subaccount.claims):
                for market in markets:
                    amounts += _market_amounts(state, subaccount, market, at_us)
            else:
                amounts += nothing
        own_longs = longs.get(number, ())
        if own_longs or number in providers:
            for pool_id in amm_pools:
                amounts += _amm_amounts(state, number, pool_id)
        else:
            amounts += no_liquidity
        if state.has_pool_collateral and number in providers and number not in state.liquidations:
            collateral += margin.pool_collateral_usd(state, number, at_us)
        if is_plain:
            # Nothing is owed or promised: no margin is asked for, and what `margin.sums` would say is known already.
            amounts += (collateral, 0, collateral + earned, 0)
            is_liquidated = False
        else:
            now = margin.sums(state, subaccount, at_us)
            amounts += (collateral, now.maintenance, max(now.equity, 0), max(-now.equity, 0))
            is_liquidated = now.is_in_liquidation or number in state.liquidations
        detail = _detail(state, subaccount, is_liquidated, own_longs, number in providers)
        yield number, subaccount.user.user_id, amounts, detail


def pool_holes(state: State) -> dict[str, int]:
    """Symbol of an asset → USDC that its pool's lenders still lack of the value of debts written down.   [L-7, R-7]"""
    return {state.assets[asset_id].symbol: state.holes[asset_id] for asset_id in sorted(state.holes)}


def collateral_parameters(state: State) -> str:
    """What turns quantities into collateral value and margin, as canonical JSON: both can be computed again.   [R-5]"""
    lines: dict[str, dict[str, str | int]] = {
        asset.symbol: {
            "base": str(asset.weight_base),
            "decimals": asset.decimals,
            "kind": asset.weight_kind.name.lower(),
            "mmfBase": str(asset.mmf_base),
            "mmfFactor": str(asset.mmf_factor),
            "penalty": str(asset.weight_penalty),
            "weight": str(asset.weight),
        }
        for asset in state.assets.values()
    }
    for market in perpetuals(state):
        parameters = market.parameters
        perpetual = parameters.perpetual
        assert perpetual is not None, f"market {parameters.market_id} is no perpetual"
        lines[parameters.symbol] = {
            "base": state.assets[parameters.base_asset_id].symbol,
            "imfBase": str(perpetual.imf_base),
            "imfFactor": str(perpetual.imf_factor),
            "lot": str(parameters.lot_atoms),
            "maxLeverage": str(perpetual.max_leverage),
            "mmfBase": str(perpetual.mmf_base),
            "mmfFactor": str(perpetual.mmf_factor),
            "quote": state.assets[parameters.quote_asset_id].symbol,
        }
    for pool_id, pool in sorted(state.amm_pools.items()):
        of_pool = pool.parameters
        lines[f"{state.assets[pool_id].symbol}.pool-units"] = {
            "feeRate": str(of_pool.fee_rate),
            "native": state.assets[of_pool.native_asset_id].symbol,
            "safetyFactor": str(of_pool.safety_factor),
            "weight": str(of_pool.collateral_weight),
        }
    return _canonical(lines)


def _market_amounts(state: State, subaccount: Subaccount, market: Market, at_us: int) -> tuple[int, ...]:
    """What MARKET_COLUMNS show. The ledger counts cost from the last settled mark, C-5 from nothing.   [A-2, C-5]"""
    market_id = market.parameters.market_id
    longs = shorts = cost = pnl = lends = owes = 0
    held = subaccount.positions.get(market_id)
    if held is not None:
        quantity = held.lots * market.parameters.lot_atoms
        longs, shorts = max(quantity, 0), max(-quantity, 0)
        cost = held.cost - held.lots * market.settled
        pnl = held.lots * market.mark_lot + cost
    if market_id in subaccount.claims:
        now = lending.totals(state, state.pools[state.usdc], at_us)
        lend_shares, debt_shares = _claim_shares(state, subaccount, market_id)
        lends = claim_atoms(lend_shares, now.lent, now.lend_shares)
        owes = debt_atoms(debt_shares, now.borrowed, now.debt_shares)
    return longs, shorts, max(cost, 0), max(-cost, 0), max(pnl, 0), max(-pnl, 0), lends, owes


def _longs(state: State) -> dict[int, list[AmmPosition]]:
    """Subaccount → its positions in all liquidity pools, by id.   [X-5]"""
    found: dict[int, list[AmmPosition]] = {}
    for position_id in sorted(state.amm_positions):
        position = state.amm_positions[position_id]
        found.setdefault(position.subaccount_id, []).append(position)
    return found


def _amm_amounts(state: State, number: int, pool_id: int) -> tuple[int, ...]:
    """What AMM_COLUMNS show, as the ledger has it.   [X-14]"""
    units, kept, owed = (account(number) << ASSET_BITS for account in (units_held, in_custody, owed_to_pools))
    balances = state.balances
    return (
        -balances.get(units | pool_units(pool_id), 0),
        -balances.get(kept | native_custody(pool_id), 0),
        -balances.get(kept | external_custody(pool_id), 0),
        balances.get(owed | native_owed(pool_id), 0),
        balances.get(owed | external_owed(pool_id), 0),
    )


def _claim_shares(state: State, subaccount: Subaccount, market_id: int) -> tuple[int, int]:
    """Shares of the USDC pool that the liquidity fund holds for it, and owes for it, in one market.   [V-2]"""
    key = claim(subaccount.subaccount_id) << ASSET_BITS
    balances = state.balances
    return -balances.get(key | claim_lend(market_id), 0), balances.get(key | claim_debt(market_id), 0)


def _detail(
    state: State,
    subaccount: Subaccount,
    is_liquidated: bool,
    longs: Sequence[AmmPosition] = (),
    is_provider: bool = False,
) -> str:
    """Status, the shares that claims and debts follow from, positions line by line; amounts as decimal strings: they
    need not fit 64 bits.
    """
    status = "withdrawals_frozen" if subaccount.frozen_withdrawals else "active"
    if is_liquidated:
        status = "in_liquidation"
    if not (
        subaccount.lent or subaccount.debts or subaccount.positions or subaccount.claims or longs or is_provider
    ):
        return f'{{"status":"{status}"}}'
    detail: dict[str, object] = {"status": status}
    balances, number = state.balances, subaccount.subaccount_id
    if subaccount.lent:
        detail["lendShares"] = {
            state.assets[asset_id].symbol: str(-balances[lent(number) << ASSET_BITS | lend_share(asset_id)])
            for asset_id in subaccount.lent
        }
    if subaccount.debts:
        detail["debtShares"] = {
            state.assets[asset_id].symbol: str(balances[borrowed(number) << ASSET_BITS | debt_share(asset_id)])
            for asset_id in subaccount.debts
        }
    positions = _positions_in_words(state, subaccount)
    if positions:
        detail["positions"] = positions
    claims = {market_id: _claim_shares(state, subaccount, market_id) for market_id in subaccount.claims}
    if claims:
        detail["claims"] = {
            state.markets[market_id].parameters.symbol: {"debt": str(owes), "lend": str(lends)}
            for market_id, (lends, owes) in claims.items()
        }
    if is_provider:
        detail["liquidity"] = _liquidity_in_words(state, number)
    if longs:
        detail["longs"] = {str(position.position_id): _long_in_words(state, position) for position in longs}
    return _canonical(detail)


def _liquidity_in_words(state: State, number: int) -> dict[str, dict[str, str]]:
    """What it brought to each liquidity pool less what it took back, and its part of fees and interest so far, in
    native and external atoms: all of it is in what its units are worth.   [X-3]
    """
    words = {}
    for pool_id, pool in state.amm_pools.items():
        holder = pool.holders.get(number)
        if holder is not None:
            native_fees, external_fees, native_interest, external_interest = earned(pool, holder)
            words[state.assets[pool_id].symbol] = {
                "externalAdded": str(holder.external_added),
                "externalFees": str(external_fees),
                "externalInterest": str(external_interest),
                "nativeAdded": str(holder.native_added),
                "nativeFees": str(native_fees),
                "nativeInterest": str(native_interest),
            }
    return words


def _long_in_words(state: State, position: AmmPosition) -> dict[str, str]:
    """A position in a liquidity pool; `custody`, `paidCustody` are of the other asset than the collateral's.   [X-5]"""
    pool = state.amm_pools[position.pool_id].parameters
    collateral = pool.native_asset_id if position.is_native_collateral else pool.pool_id
    return {
        "collateral": str(position.collateral),
        "collateralAsset": state.assets[collateral].symbol,
        "custody": str(position.custody),
        "health": str(position.health),
        "leverage": str(position.leverage),
        "openedAtUs": str(position.opened_at_us),
        "owed": str(position.owed),
        "paid": str(position.paid),
        "paidCustody": str(position.paid_custody),
        "pool": state.assets[position.pool_id].symbol,
        "unpaid": str(position.unpaid),
    }


def _positions_in_words(state: State, subaccount: Subaccount) -> dict[str, dict[str, str]]:
    """What the columns do not say of open positions: quote atoms, signed, gains above zero.   [C-5]"""
    return {
        state.markets[market_id].parameters.symbol: {
            "entry": str(held.entry_atoms),
            "fees": str(held.fees),
            "funding": str(held.funding),
            "sinceSettled": str(held.cost),
        }
        for market_id, held in subaccount.positions.items()
        if held.lots or held.cost
    }


def _collateral_value(asset: AssetParameters, atoms: int, unit: int, price: int) -> int:
    """quantity × mark × weight in USD (1e-8), rounded down; weight may fall with size.   [C-1, C-2]"""
    weight = asset.weight
    if asset.weight_kind == WeightKind.INVERSE_SQRT:
        weight = weight_at(atoms, unit, weight, asset.weight_base, asset.weight_penalty)
    return value_usd(atoms, unit, price, weight)
