"""What each chain can pay out of each asset, for an operator who moves coins between chains.   [D-1, D-10, W-7]"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.contract import Decimal, Query, Wire
from api.errors import bad_request
from api.rest.route import Call, Route
from engine.liquidity import liquidity
from ledger.amounts import format_decimal, parse_decimal

LOW = "0.1"
"""A chain runs low below this part of what users could ask for of the asset."""
_PART = 9
_WHOLE = 1_000_000_000
"""Such a part has 9 decimals, and is at most all of it."""


class LiquidityQuery(Query):
    low: Annotated[str, Meta(description="Part of what users could ask for below which a chain runs low; 0.1")] = LOW


class LiquidityRow(Wire):
    blockchain: str
    symbol: str
    hot_wallet: Decimal
    unswept: Decimal
    """At deposit addresses, from each what is worth sweeping; `provisional` of it may still be reorganized away."""
    provisional: Decimal
    under_way: Decimal
    """Withdrawals that were accepted and are not settled."""
    payable: Decimal
    """What new withdrawals can count on. Below zero: a deposit that withdrawals counted on was reorganized away."""
    users: Decimal
    """What users hold and lend of the asset, wherever they would ask for it."""
    minimum_withdrawal: Decimal
    maximum_withdrawal: Decimal
    withdrawal_fee: Decimal
    is_withdraw_enabled: bool
    is_low: bool
    rebalance_from: list[str]
    """Where it is low: chains that have more than they would be low at, those with most first."""


async def get_liquidity(call: Call) -> list[LiquidityRow]:
    """Every asset on every chain, by asset and chain.   [D-1]"""
    low = _part_of(call.query.low)
    state, rows = call.state, []
    for token in sorted(state.tokens.values(), key=lambda each: (each.asset_id, each.chain_id)):
        asset = state.assets[token.asset_id]
        users = call.node.claims(token.asset_id)
        line = liquidity(state, token.chain_id, token.asset_id)
        is_low = token.withdraw_enabled and _is_low(line.payable, users, low)
        spare = sorted(
            (-liquidity(state, other.chain_id, token.asset_id).payable, other.chain_id)
            for other in state.tokens.values()
            if other.asset_id == token.asset_id and other.chain_id != token.chain_id
        )

        def decimal(atoms: int, decimals: int = asset.decimals) -> str:
            return format_decimal(atoms, decimals)

        rows.append(
            LiquidityRow(
                blockchain=state.chains[token.chain_id].name,
                symbol=asset.symbol,
                hot_wallet=decimal(line.hot),
                unswept=decimal(line.unswept),
                provisional=decimal(line.provisional),
                under_way=decimal(line.paying),
                payable=decimal(line.payable),
                users=decimal(users),
                minimum_withdrawal=decimal(token.minimum_withdrawal_atoms),
                maximum_withdrawal=decimal(token.maximum_withdrawal_atoms),
                withdrawal_fee=decimal(token.withdrawal_fee_atoms),
                is_withdraw_enabled=token.withdraw_enabled,
                is_low=is_low,
                rebalance_from=[
                    state.chains[chain_id].name
                    for less, chain_id in spare
                    if is_low and less < 0 and not _is_low(-less, users, low)
                ],
            )
        )
    return rows


def _is_low(payable: int, users: int, low: int) -> bool:
    """Payable < low × what users have; low in 10^-9, multiplied across."""
    return payable * _WHOLE < low * users


def _part_of(text: str) -> int:
    try:
        part = parse_decimal(text, _PART)
    except ValueError:
        part = -1
    if not 0 <= part <= _WHOLE:
        raise bad_request(f"low {text} is not a number from 0 to 1")
    return part


ROUTES = [
    Route(
        method="GET",
        path="/satchel/v1/liquidity",
        handler=get_liquidity,
        summary="What each chain can pay out, and which run low, to an operator's key",
        tag="Operations",
        instruction="liquidityQueryAll",
        operator=True,
        query=LiquidityQuery,
        answer=list[LiquidityRow],
    ),
]
