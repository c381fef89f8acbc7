"""What the exchange owes, subaccount by subaccount, as the epoch's leaves show it.   [R-2, C-1 … C-3]

Columns are gross, unsigned and add up: the available, in_orders and provisional columns of an asset sum to the ledger's
`subaccount/…/available` accounts, withdrawing to `subaccount/…/withdrawing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine.formulas.collateral import value_usd, weight_at
from engine.parameters import PRICE_SCALE, USD_SCALE, AssetParameters, WeightKind
from engine.pricing import mark_price
from engine.state import ASSET_BITS, State
from ledger.amounts import mul_div_up
from ledger.chart import AccountKind, account_id

ASSET_COLUMNS = ("available", "in_orders", "provisional", "withdrawing")
VALUE_COLUMNS = ("collateral_value", "net_equity_plus", "net_equity_minus")


def columns(state: State) -> list[str]:
    """`ASSET.kind` in atoms for every asset by id, then valuations in USD (1e-8).   [R-2]"""
    names = [f"{state.assets[asset_id].symbol}.{kind}" for asset_id in sorted(state.assets) for kind in ASSET_COLUMNS]
    return names + list(VALUE_COLUMNS)


def accounts(state: State) -> Iterator[tuple[int, int, list[int], str]]:
    """(subaccount, user, amounts in the order of `columns`, detail as canonical JSON) of every subaccount, by id.

    available = held less what orders lock less provisional; provisional is counted out of what is not locked.

    [R-2, D-5]
    """
    balances = state.balances
    assets = [(state.assets[asset_id], mark_price(state, asset_id)) for asset_id in sorted(state.assets)]
    lines = [(asset.asset_id, 10**asset.decimals, price, asset) for asset, price in assets]
    for number in sorted(state.subaccounts):
        subaccount = state.subaccounts[number]
        held_key = account_id(AccountKind.AVAILABLE, number) << ASSET_BITS
        withdrawing_key = account_id(AccountKind.WITHDRAWING, number) << ASSET_BITS
        owed_key = account_id(AccountKind.RECEIVABLE, number) << ASSET_BITS
        reserved, waiting = subaccount.reserved, subaccount.provisional
        amounts: list[int] = []
        collateral = owed = 0
        for asset_id, unit, price, asset in lines:
            held = -balances.get(held_key | asset_id, 0)
            in_orders = reserved.get(asset_id, 0)
            free = held - in_orders
            # Provisional funds may have been traded away: what is left of them is all that can be shown.
            provisional = min(waiting.get(asset_id, 0), free)
            amounts += (free - provisional, in_orders, provisional, -balances.get(withdrawing_key | asset_id, 0))
            if price:
                if held:
                    collateral += collateral_value(asset, held, unit, price)
                receivable = balances.get(owed_key | asset_id, 0)
                if receivable:
                    owed += mul_div_up(receivable * USD_SCALE, price, unit * PRICE_SCALE)
        equity = collateral - owed
        amounts += (collateral, max(equity, 0), max(-equity, 0))
        status = "withdrawals_frozen" if subaccount.frozen_withdrawals else "active"
        yield number, subaccount.user.user_id, amounts, f'{{"status":"{status}"}}'


def collateral_value(asset: AssetParameters, atoms: int, unit: int, price: int) -> int:
    """quantity × mark × weight in USD (1e-8), rounded down; weight may fall with size.   [C-1, C-2]"""
    weight = asset.weight
    if not weight:
        return 0
    if asset.weight_kind == WeightKind.INVERSE_SQRT:
        weight = weight_at(atoms, unit, weight, asset.weight_base, asset.weight_penalty)
    return value_usd(atoms, unit, price, weight)


def collateral_parameters(state: State) -> str:
    """What turns quantities into collateral value, as canonical JSON: an auditor can compute it again.   [R-5]"""
    lines = {
        asset.symbol: {
            "base": str(asset.weight_base),
            "decimals": asset.decimals,
            "kind": asset.weight_kind.name.lower(),
            "penalty": str(asset.weight_penalty),
            "weight": str(asset.weight),
        }
        for asset in state.assets.values()
    }
    return json.dumps(lines, sort_keys=True, separators=(",", ":"))
