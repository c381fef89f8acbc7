"""Settings, fees and open counts of a subaccount.   [U-4, W-10]"""

from __future__ import annotations

from api import contract
from api.rest.route import Call, Route
from engine import margin


async def get_account(call: Call) -> contract.AccountSummary:
    """`liquidating`: maintenance margin reaches net equity.   [M-6]"""
    subaccount = call.subaccount()
    summary = call.codec.account(subaccount)
    summary.liquidating = margin.sums(call.state, subaccount, call.node.now_us()).is_in_liquidation
    return summary


async def update_account(call: Call) -> None:
    """Answers 200 with an empty body; an empty request changes nothing.   [W-3]"""
    await call.perform("accountUpdate")


async def convert_dust(call: Call) -> None:
    """Holdings under one lot are sold at mark for USDC: one asset's, or all. 200 with an empty body.   [S-3]"""
    await call.perform("convertDust")


ROUTES = [
    Route(
        method="GET",
        path="/api/v1/account",
        handler=get_account,
        summary="Settings, fees, open orders",
        tag="Account",
        instruction="accountQuery",
        answer=contract.AccountSummary,
    ),
    Route(
        method="PATCH",
        path="/api/v1/account",
        handler=update_account,
        summary="Change settings",
        tag="Account",
        instruction="accountUpdate",
        body=contract.UpdateAccountSettingsRequest,
        changes=True,
    ),
    Route(
        method="POST",
        path="/api/v1/account/convertDust",
        handler=convert_dust,
        summary="Sell holdings under one lot for USDC",
        tag="Account",
        instruction="convertDust",
        body=contract.AccountConvertDustPayload,
        changes=True,
    ),
]
