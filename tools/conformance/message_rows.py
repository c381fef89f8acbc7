"""Rows of the liquidity module's messages: each becomes a command to the engine, pool and user placed before.   [X-15]

What the original decides by token permissions ours decides by a pool's state, what it decides by an address ours by an
API key. Its protection of the native asset's price ours does not have: the sale it counts is ours, the limit its own.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from engine import pools as engine_pools
from engine.commands import AddLiquidity, ConfigurePool, RemoveLiquidity, SwapAssets
from engine.formulas import pools
from engine.formulas.pools import Units
from engine.parameters import DEC, PoolState
from engine.state import AmmPool
from tools.conformance import engine_run
from tools.conformance.engine_run import Run
from tools.conformance.image import FUND, MODULE, NATIVE, Image, Side, read_pool
from tools.conformance.margin_rows import DEFAULTS, is_address
from tools.conformance.original import Protection
from tools.conformance.vectors import MATCHED, Row, Verdict, atoms, compared, dec, differing, error_of, explained

CREATION_MINIMUM = 10**18
"""The native atoms that a new pool of the original needs."""
_PROVIDER = "sif1provider"
_HEIGHT = 1
_MAY_TRADE = "Permission_CLP"
_PROTECTED = "the original's protection of the native asset's price"


def swapped(row: Row) -> Verdict:
    """Swap: one hop with a least amount; the user's coins, and what may still be sold afterwards.   [X-1]"""
    message, own = row["msg"], row.get("poolAsset", "")
    sent, wanted, user = message["SentAsset"], message["ReceivedAsset"], message["Signer"]
    run = _placed(row, _state(row, needs_native=True, sells=sent, buys=wanted), **_fees(row))
    amount, least = atoms(message, "SentAmount"), atoms(message, "MinReceivingAmount")
    limit, pool = _protection(row), run.state.amm_pools.get(run.external)
    if limit is not None and pool is not None:
        price = _price(row, pool)
        if sent == NATIVE:
            fee = pools.value_at(amount, engine_pools.fee_for(pool.parameters, True))
            limit = limit.sold(amount, fee, price)
    command = SwapAssets(run.subaccount(user), run.asset(sent, own), run.asset(wanted, own), amount, least)
    outcome = run.ask(_HEIGHT, user, command)
    refused = engine_run.refusal(outcome) or ("" if limit is not None or not _has_protection(row) else _PROTECTED)
    if refused or error_of(row):
        return _answered(row, refused)
    assert pool is not None
    held = run.held(user)
    fields = [
        (name, ours, atoms(row, name))
        for name, ours in (("nativeBalanceEnd", held.native), ("externalBalanceEnd", held.external))
        if name in row
    ]
    if limit is not None and "expectedRunningThresholdEnd" in row:
        after = limit if sent == NATIVE else limit.bought(engine_run.received(outcome), price)
        fields.append(("threshold", after.left, atoms(row, "expectedRunningThresholdEnd")))
    return compared(*fields)


def added(row: Row) -> Verdict:
    """AddLiquidity, at the running rate 1 of its test; its virtual swap counts as one.   [X-3]"""
    message, own, user = row["msg"], row.get("poolAsset", ""), row["msg"]["Signer"]
    native, external = atoms(message, "NativeAssetAmount"), atoms(message, "ExternalAssetAmount")
    run = _placed(row, PoolState.OPEN, running_rate=DEC)
    pool, units, limit = run.state.amm_pools.get(run.external), None, _protection(row)
    if pool is not None:
        fee = pool.parameters.fee_rate
        units = pools.units_for(pool.units, *engine_pools.depths(pool), native, external, fee, fee, DEC)
        sells, buys = _virtual(units, own)
        engine_run.configure(run, state=_state(row, needs_native=False, sells=sells, buys=buys))
        if units is not None and limit is not None:
            limit = _after_virtual(limit, _price(row, pool), pool, units)
    asset = run.asset(message["ExternalAsset"], own)
    outcome = run.ask(_HEIGHT, user, AddLiquidity(run.subaccount(user), asset, native, external))
    refused = engine_run.refusal(outcome)
    if refused == "EMPTY_POOL" and units is not None and not error_of(row):
        return _empty_side(row, units)
    if not refused and limit is None and _has_protection(row):
        refused = _PROTECTED
    if refused or error_of(row):
        return _answered(row, refused)
    assert pool is not None
    fields = [
        ("pool units", pool.units, atoms(row, "expectedPoolUnits")),
        ("LP units", outcome.reply.units, atoms(row, "expectedLPUnits", "expectedLPunits")),
    ]
    if "expectedUpdatedRowanLiquidityThreshold" in row:
        left = limit.left if limit is not None else _amount(row, "currentRowanLiquidityThreshold")
        fields.append(("threshold", left, atoms(row, "expectedUpdatedRowanLiquidityThreshold")))
    return compared(*fields)


def created(row: Row) -> Verdict:
    """CreatePool: ours has one pool per asset, made by an operator, and its first provider fills it.   [X-3]"""
    message, own, user = row["msg"], row.get("poolAsset", ""), row["msg"]["Signer"]
    state = _state(row, needs_native=False)
    if row.get("createPool"):
        run = _placed(row, state)
        known = run.state.amm_pools[run.external].parameters
        stranger = next(asset for asset in run.state.assets if asset not in (run.native, run.external))
        second = run.operate(_HEIGHT, ConfigurePool(replace(known, native_asset_id=stranger)))
        return _answered(row, engine_run.refusal(second))
    # An asset that the exchange does not know has no pool.
    blank = {**row, "nativeAssetAmount": "0", "externalAssetAmount": "0", "poolUnits": "0", "createPool": bool(own)}
    run = _placed(blank, state, min_native=CREATION_MINIMUM)
    asset, native = run.asset(message["ExternalAsset"], own), atoms(message, "NativeAssetAmount")
    command = AddLiquidity(run.subaccount(user), asset, native, atoms(message, "ExternalAssetAmount"))
    return _answered(row, engine_run.refusal(run.ask(_HEIGHT, user, command)))


def removed(row: Row) -> Verdict:
    """RemoveLiquidity by basis points. Ours has no asymmetric one; one that pays nothing it refuses.   [X-4]"""
    message, own, user = row["msg"], row.get("poolAsset", ""), row["msg"]["Signer"]
    run = _placed(row, _state(row, needs_native=True))
    if int(message.get("Asymmetry") or 0):
        return _answered(row, "a removal has no asymmetry")
    points = atoms(message, "WBasisPoints")
    pool = run.state.amm_pools.get(run.external)
    command = RemoveLiquidity(
        run.subaccount(user), run.asset(message["ExternalAsset"], own), basis_points=points,
    )
    taken = None
    if pool is not None and pool.units:
        taken = pools.withdrawal_by_basis_points(pool.units, *engine_pools.depths(pool), pool.units, points)
    refused = engine_run.refusal(run.ask(_HEIGHT, user, command))
    if refused == "POOL_AMOUNT" and taken is not None and not taken.native and not taken.external:
        # Theirs burns units for nothing here; the formula's answer, nothing, is the same.
        refused = ""
    return _answered(row, refused)


def decommissioned(row: Row) -> Verdict:
    """DecommissionPool pays every provider out. In ours nobody but a provider can take its units out.   [X-4]"""
    message, own, user = row["msg"], row.get("poolAsset", ""), row["msg"]["Signer"]
    run = _placed({**row, "createLPs": False}, PoolState.LEAVE_ONLY)
    asker = user if error_of(row) or not is_address(user) else _PROVIDER
    command = RemoveLiquidity(run.subaccount(_PROVIDER), run.asset(message["Symbol"], own), basis_points=10_000)
    return _answered(row, engine_run.refusal(run.ask(_HEIGHT, asker, command)))


def _placed(row: Row, state: PoolState, running_rate: int = 0, **changes: Any) -> Run:
    """The row's pool, if it has one, and its user; a pool's units are the user's or some other provider's."""
    user, is_rich = row["msg"]["Signer"], bool(row.get("createBalance"))
    native, external = (
        _amount(row, f"{side}AssetAmount", f"pool{side.title()}AssetBalance") for side in ("native", "external")
    )
    pool = read_pool(
        {
            "native_asset_balance": str(native), "external_asset_balance": str(external), "health": "1",
            "native_liabilities": str(_amount(row, "poolNativeLiabilities")),
            "external_liabilities": str(_amount(row, "poolExternalLiabilities")),
        }
    )  # fmt: skip
    held = [_amount(row, f"{side}Balance", f"user{side.title()}AssetBalance") for side in ("native", "external")]
    coins = {_PROVIDER: Side(0, 0), FUND: Side(0, 0), MODULE: Side(native, external)}
    if is_address(user):
        coins[user] = Side(*held) if is_rich else Side(0, 0)
    terms = DEFAULTS._replace(running_rate=running_rate)
    run = Run(Image(pool, [], coins), terms, state=state, is_margined=False, **changes)
    run.give_units(user if row.get("createLPs") and is_address(user) else _PROVIDER, _amount(row, "poolUnits"))
    if not row.get("createPool"):
        run.remove_pool()
    return run


def _amount(row: Row, *names: str) -> int:
    """The first of these that the row has, else 0."""
    return next((atoms(row, name) for name in names if name in row), 0)


def _state(row: Row, needs_native: bool, sells: str = "", buys: str = "") -> PoolState:
    """Token permissions of the row as a state of its pool: nothing is traded that may not be."""
    own, native = row.get("poolAssetPermissions") or [], row.get("nativeAssetPermissions") or []
    barred = {
        NATIVE: [name for name in native if name.startswith("Permission_DISABLE")],
        row.get("poolAsset", ""): [name for name in own if name.startswith("Permission_DISABLE")],
    }
    is_known = _MAY_TRADE in own and (not needs_native or _MAY_TRADE in native)
    is_barred = "Permission_DISABLE_SELL" in barred.get(sells, ()) or "Permission_DISABLE_BUY" in barred.get(buys, ())
    return PoolState.OPEN if is_known and not is_barred else PoolState.HALTED


def _fees(row: Row) -> dict[str, int]:
    """Fees of the sent token; none in rows that say nothing of fees."""
    rates = row.get("swapFeeParams")
    if not rates:
        return {"fee_rate": 0}
    own = {each["Asset"].lower(): dec(each, "SwapFeeRate") for each in rates.get("TokenParams") or []}
    return {
        "fee_rate": dec(rates, "DefaultSwapFeeRate"),
        "native_fee_rate": own.get(NATIVE, -1),
        "external_fee_rate": own.get(row.get("poolAsset", "").lower(), -1),
    }


def _has_protection(row: Row) -> bool:
    return bool(row.get("liquidityProtectionActive", "currentRowanLiquidityThreshold" in row))


def _protection(row: Row) -> Protection | None:
    """None where it is off."""
    if not _has_protection(row):
        return None
    left = atoms(row, "currentRowanLiquidityThreshold")
    return Protection(left, _amount(row, "maxRowanLiquidityThreshold") or left)


def _price(row: Row, pool: AmmPool) -> int:
    """Of the native asset in the asset that the protection counts in, a Dec."""
    if row.get("maxRowanLiquidityThresholdAsset", NATIVE) == NATIVE:
        return DEC
    native, external = engine_pools.depths(pool)
    return pools.spot_price(native, external, 0, 0, pool.parameters.running_rate) or 0


def _virtual(units: Units | None, own: str) -> tuple[str, str]:
    """(what the virtual swap of an addition sells, what it buys)."""
    if units is None or units.swap == pools.NO_SWAP:
        return "", ""
    return (NATIVE, own) if units.swap == pools.SELL_NATIVE else (own, NATIVE)


def _after_virtual(limit: Protection, price: int, pool: AmmPool, units: Units) -> Protection | None:
    """The protection after an addition's virtual swap: of ours, since `units` are."""
    parameters = pool.parameters
    native, external = engine_pools.depths(pool)
    if units.swap == pools.SELL_NATIVE:
        return limit.sold(units.swapped, pools.value_at(units.swapped, parameters.fee_rate), price)
    if units.swap == pools.BUY_NATIVE:
        got = pools.swap(external, native, units.swapped, parameters.fee_rate, parameters.running_rate, True)
        return limit.bought(got.received, price)
    return limit


def _empty_side(row: Row, units: Units) -> Verdict:
    """Who fills an empty side would own the whole pool: ours refuses it, X-3's formula alone gives theirs."""
    expected = (atoms(row, "expectedPoolUnits"), atoms(row, "expectedLPUnits", "expectedLPunits"))
    if (units.total, units.minted) == expected:
        return explained("refused: an empty side")
    return differing(f"(pool units, LP units): ours {(units.total, units.minted)}, theirs {expected}")


def _answered(row: Row, refused: str) -> Verdict:
    error = error_of(row)
    if bool(refused) == bool(error):
        return MATCHED
    return differing(f"refused: ours {refused or 'no'}, theirs {error or 'no'}")
