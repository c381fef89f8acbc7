"""What the exchange owes and is owed, subaccount by subaccount, as the epoch's leaves show it.   [R-2, C-1 … C-3]

Columns are gross, unsigned and add up: the available, in_orders and provisional columns of an asset sum to the ledger's
`subaccount/…/available` accounts, withdrawing to `subaccount/…/withdrawing`. In a money market, lent sums to what the
pool owes its lenders, short of it by less than one atom each; borrowed to what it is owed, over it by as little. [B-4]
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine import lending, margin, yields
from engine.formulas.collateral import value_usd, weight_at
from engine.parameters import AssetParameters, WeightKind
from engine.pricing import mark_price
from engine.state import ASSET_BITS, State, Subaccount
from ledger.chart import AccountKind, account_id, borrowed, debt_share, lend_share, lent

ASSET_COLUMNS = ("available", "in_orders", "provisional", "withdrawing")
POOL_COLUMNS = ("lent", "borrowed", "uncollected_yield")
"""Further columns of an asset that has a money market."""
VALUE_COLUMNS = ("collateral_value", "maintenance_margin", "net_equity_plus", "net_equity_minus")


def columns(state: State) -> list[str]:
    """`ASSET.kind` in atoms for every asset by id, then valuations in USD (1e-8).   [R-2]"""
    names = []
    for asset_id in sorted(state.assets):
        kinds = ASSET_COLUMNS + POOL_COLUMNS if asset_id in state.pools else ASSET_COLUMNS
        names += [f"{state.assets[asset_id].symbol}.{kind}" for kind in kinds]
    return names + list(VALUE_COLUMNS)


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
    for number in sorted(state.subaccounts):
        subaccount = state.subaccounts[number]
        held_key = account_id(AccountKind.AVAILABLE, number) << ASSET_BITS
        withdrawing_key = account_id(AccountKind.WITHDRAWING, number) << ASSET_BITS
        owed_key = account_id(AccountKind.RECEIVABLE, number) << ASSET_BITS
        reserved, waiting = subaccount.reserved, subaccount.provisional
        lends, debts, times = subaccount.lent, subaccount.debts, subaccount.share_times
        is_plain = not debts and not subaccount.promised
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
        if is_plain:
            # Nothing is owed or promised: no margin is asked for, and what `margin.sums` would say is known already.
            amounts += (collateral, 0, collateral + earned, 0)
            is_liquidated = False
        else:
            values, is_liquidated = _values(state, subaccount, at_us)
            amounts += values
        yield number, subaccount.user.user_id, amounts, _detail(state, subaccount, is_liquidated)


def collateral_parameters(state: State) -> str:
    """What turns quantities into collateral value and margin, as canonical JSON: both can be computed again.   [R-5]"""
    lines = {
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
    return json.dumps(lines, sort_keys=True, separators=(",", ":"))


def _values(state: State, subaccount: Subaccount, at_us: int) -> tuple[tuple[int, int, int, int], bool]:
    """What VALUE_COLUMNS show in USD (1e-8), line by line as margins see it; whether it is in liquidation.   [M-6]"""
    holdings = margin.holdings(state, subaccount, at_us)
    collateral = sum(line.value for line in holdings)
    equity = collateral + sum(line.uncollected_value - line.liability for line in holdings)
    maintenance = sum(line.maintenance for line in holdings)
    is_exposed = any(line.owed > line.held + line.lent for line in holdings)
    is_liquidated = equity < 0 or (is_exposed and maintenance >= equity)
    return (collateral, maintenance, max(equity, 0), max(-equity, 0)), is_liquidated


def _detail(state: State, subaccount: Subaccount, is_liquidated: bool) -> str:
    """Status, and the shares that claims and debts follow from, as decimal strings: they need not fit 64 bits."""
    status = "withdrawals_frozen" if subaccount.frozen_withdrawals else "active"
    if is_liquidated:
        status = "in_liquidation"
    if not subaccount.lent and not subaccount.debts:
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
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


def _collateral_value(asset: AssetParameters, atoms: int, unit: int, price: int) -> int:
    """quantity × mark × weight in USD (1e-8), rounded down; weight may fall with size.   [C-1, C-2]"""
    weight = asset.weight
    if asset.weight_kind == WeightKind.INVERSE_SQRT:
        weight = weight_at(atoms, unit, weight, asset.weight_base, asset.weight_penalty)
    return value_usd(atoms, unit, price, weight)
