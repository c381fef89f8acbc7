"""Rows that one function answers: each is computed by `engine.formulas.pools`, and refused where the source refuses."""

from __future__ import annotations

import re
from fractions import Fraction
from math import lcm

from engine import pools as engine_pools
from engine.formulas import pools
from engine.parameters import DEC, PoolParameters
from tools.conformance import original
from tools.conformance.vectors import (
    MATCHED,
    Row,
    Unreadable,
    Verdict,
    atoms,
    compared,
    dec,
    differing,
    error_of,
    explained,
    is_beyond_ledger,
    number,
    pick,
    shown,
)

NATIVE = "rowan"
_RANGE = re.compile(r"out of range|overflow|bitLen|too large", re.IGNORECASE)
_BITS = re.compile(r"bitLen: got (\d+)")
_SWAPS = {pools.NO_SWAP: "NoSwap", pools.SELL_NATIVE: "SellNative", pools.BUY_NATIVE: "BuyNative"}
_NATIVE_DECIMALS = 18


def swap_result(row: Row) -> Verdict:
    """CalcSwapResult.   [X-1]"""
    got = pools.swap(
        atoms(row, "X"), atoms(row, "Y"), atoms(row, "x"),
        dec(row, "swapFeeRate", "swap_fee_rate"), _running(row), bool(pick(row, "toRowan", "to_rowan")),
    )  # fmt: skip
    if error_of(row):
        return refusal(row, False, atoms(row, "X"), atoms(row, "Y"), atoms(row, "x"), got.received)
    return compared(("y", got.received, atoms(row, "y")), ("fee", got.fee, atoms(row, "expectedFee", "fee")))


def swap_one(row: Row) -> Verdict:
    """SwapOne: depths with liabilities and without custody; balances move by what is paid and received.   [X-1]"""
    to_native = pick(row, "toAsset") == NATIVE
    if to_native == (pick(row, "fromAsset") == NATIVE):
        return refusal(row, True)
    return _swapped(row, to_native, atoms(row, "sentAmount"), atoms(row, "nativeAssetBalance"),
                    atoms(row, "externalAssetBalance"), "expectedSwapResult", "expectedLiquidityFee",
                    "expectedPriceImpact", row)  # fmt: skip


def swap_one_from_genesis(row: Row) -> Verdict:
    """SwapOne in a pool that a genesis made; what is sent may be a withdrawal's asymmetric part.   [X-1, X-4]"""
    native, external = atoms(row, "nativeAssetAmount"), atoms(row, "externalAssetAmount")
    if row.get("calculateWithdraw"):
        units = atoms(row, "poolUnits")
        part = pools.withdrawal_by_basis_points(
            units, native, external, units, atoms(row, "wBasis", "wBasisPoints"), atoms(row, "asymmetry")
        )
        if part is None:
            return refusal(row, True)
        sent = part.swapped
    else:
        sent = atoms(row, "swapAmount")
    to_native = row.get("to", row.get("poolAsset")) == NATIVE
    after = row.get("expectedPool", {})
    verdict = _swapped(row, to_native, sent, native, external, "swapResult", "liquidityFee", "priceImpact", after)
    if verdict is MATCHED and "PoolUnits" in after and not error_of(row):
        return compared(("PoolUnits", atoms(row, "poolUnits"), atoms(after, "PoolUnits")))
    return verdict


def swap_fee_rate(row: Row) -> Verdict:
    """GetSwapFeeRate: a token's own rate, and the default's for all while the pool lends to positions.   [X-1]"""
    rates = pick(row, "swapFeeParams")
    own = {each["Asset"].lower(): dec(each, "SwapFeeRate") for each in rates.get("TokenParams") or []}
    asset = pick(row, "asset").lower()
    parameters = PoolParameters(
        pool_id=1, native_asset_id=2, fee_rate=dec(rates, "DefaultSwapFeeRate"), native_fee_rate=own.get(NATIVE, -1),
        external_fee_rate=own.get(asset, -1), is_margined=bool(row.get("marginEnabled")),
    )  # fmt: skip
    rate = engine_pools.fee_for(parameters, asset == NATIVE)
    if error_of(row):
        return refusal(row, False, rate)
    return compared(("swapFeeRate", shown(rate), shown(dec(row, "expectedSwapFeeRate"))))


def pool_units(row: Row) -> Verdict:
    """CalculatePoolUnits.   [X-3]"""
    got = pools.units_for(
        atoms(row, "oldPoolUnits", "pool_units"),
        atoms(row, "nativeAssetBalance", "native_depth"),
        atoms(row, "externalAssetBalance", "external_depth"),
        atoms(row, "nativeAssetAmount", "native_added"),
        atoms(row, "externalAssetAmount", "external_added"),
        dec(row, "sellNativeSwapFeeRate", "sell_native_fee"),
        dec(row, "buyNativeSwapFeeRate", "buy_native_fee"),
        _running(row),
    )
    if error_of(row) or got is None:
        return refusal(row, got is None, *([got.total] if got is not None else []))
    fields = [
        ("pool units", got.total, atoms(row, "expectedPoolUnits", "new_pool_units")),
        ("LP units", got.minted, atoms(row, "expectedLPunits", "expectedLPUnits", "lp_units")),
        ("swap status", _SWAPS[got.swap], pick(row, "expectedSwapStatus", "swap_status")),
    ]
    swapped = row.get("expectedSwapAmount", row.get("swap_amount"))
    if swapped not in (None, "nil"):
        fields.append(("swap amount", got.swapped, number(swapped)))
    return compared(*fields)


def pool_units_symmetric(row: Row) -> Verdict:
    """CalculatePoolUnitsSymmetric: x on X, whatever the other side has in the same ratio.   [X-3]"""
    depth, added, units = atoms(row, "X"), atoms(row, "x"), atoms(row, "P")
    got = pools.units_for(units, depth, depth, added, added, 0, 0)
    if error_of(row) or got is None:
        return refusal(row, got is None)
    return compared(
        ("pool units", got.total, atoms(row, "expectedPoolUnits")),
        ("LP units", got.minted, atoms(row, "expectedLPUnits", "expectedLPunits")),
    )


def symmetry(row: Row) -> Verdict:
    """GetLiquidityAddSymmetryState: which side an addition lacks, by the swap that ours makes of it.   [X-3]"""
    x_depth, y_depth, x, y = (atoms(row, name) for name in ("X", "Y", "x", "y"))
    units = x_depth + y_depth + x + y + 1
    got = pools.units_for(units, x_depth, y_depth, x, y, 0, 0)
    if error_of(row):
        return refusal(row, False)
    if got is None or got.total == got.minted:
        state = "ErrorEmptyPool"
    elif got.swap == pools.NO_SWAP:
        state = "Symmetric" if x or y else "ErrorNothingAdded"
    else:
        state = "NeedMoreY" if got.swap == pools.SELL_NATIVE else "NeedMoreX"
    return compared(("state", state, pick(row, "expectedValue", "expected")))


def external_surplus(row: Row) -> Verdict:
    """CalculateExternalSwapAmountAsymmetricRat.   [X-3]"""
    return _surplus(row, is_native=False)


def native_surplus(row: Row) -> Verdict:
    """CalculateNativeSwapAmountAsymmetricRat.   [X-3]"""
    return _surplus(row, is_native=True)


def withdrawal(row: Row) -> Verdict:
    """CalculateWithdrawal; a row without any output says only that there is one.   [X-4]"""
    units = atoms(row, "poolUnits", "pool_units")
    native = atoms(row, "nativeAssetBalance", "nativeAssetDepth", "native_depth")
    external = atoms(row, "externalAssetBalance", "externalAssetDepth", "external_depth")
    lp, points = atoms(row, "lpUnits", "lp_units"), atoms(row, "wBasisPoints", "w_basis_points")
    asymmetry = atoms(row, "asymmetry")
    # As Decs: that is what the source makes of them first.
    sizes = [value * DEC for value in (units, native, external, lp, points, asymmetry)]
    got = pools.withdrawal_by_basis_points(units, native, external, lp, points, asymmetry)
    if error_of(row):
        return refusal(row, got is None, *sizes)
    if got is None or max(sizes).bit_length() > original.DEC_BITS:
        return refusal(row, True)
    return _withdrawn(row, got)


def withdrawal_units(row: Row) -> Verdict:
    """CalculateWithdrawalFromUnits.   [X-4]"""
    units = atoms(row, "poolUnits", "pool_units")
    native = atoms(row, "nativeAssetDepth", "nativeAssetBalance", "native_depth")
    external = atoms(row, "externalAssetDepth", "externalAssetBalance", "external_depth")
    lp, taken = atoms(row, "lpUnits", "lp_units"), atoms(row, "withdrawUnits", "withdraw_units")
    got = pools.withdrawal_by_units(units, native, external, lp, taken)
    if error_of(row) or got is None:
        return refusal(row, got is None, *(value * DEC for value in (units, native, external, lp, taken)))
    return _withdrawn(row, got)


def spot_price(row: Row) -> Verdict:
    """CalcSpotPriceX."""
    return _price(row, atoms(row, "X"), atoms(row, "Y"), atoms(row, "decimalsX"), atoms(row, "decimalsY"),
                  bool(row["isXNative"]))  # fmt: skip


def spot_price_native(row: Row) -> Verdict:
    """CalcSpotPriceNative."""
    native, external = atoms(row, "nativeAssetBalance"), atoms(row, "externalAssetBalance")
    return _price(row, native, external, _NATIVE_DECIMALS, atoms(row, "decimalsExternal"), True)


def spot_price_external(row: Row) -> Verdict:
    """CalcSpotPriceExternal."""
    native, external = atoms(row, "nativeAssetBalance"), atoms(row, "externalAssetBalance")
    return _price(row, external, native, atoms(row, "decimalsExternal"), _NATIVE_DECIMALS, False)


def rowan_spot_price(row: Row) -> Verdict:
    """CalcRowanSpotPrice: atoms for atoms."""
    return _price(row, atoms(row, "rowanBalance"), atoms(row, "externalBalance"), 0, 0, True)


def rowan_value(row: Row) -> Verdict:
    """CalcRowanValue."""
    got = pools.value_at(atoms(row, "rowanAmount"), dec(row, "price"))
    if error_of(row):
        return refusal(row, False, got)
    return compared(("value", got, atoms(row, "expectedValue", "expected")))


def interest(row: Row) -> Verdict:
    """CalcMTPInterestLiabilities: ours is exact, the source's rate goes through a float.   [X-9]"""
    rate = dec(row, "interest_rate")
    liabilities, unpaid = atoms(row, "liabilities"), atoms(row, "interest_unpaid_collateral")
    place, length = atoms(row, "epoch_position"), atoms(row, "epoch_length")
    got = pools.interest_due(rate, liabilities, unpaid, place, length)
    if error_of(row):
        return refusal(row, False, got, limit=original.UINT_MAX.bit_length())
    theirs = atoms(row, "expected", "interest")
    if got == theirs:
        return MATCHED
    exact = original.interest_due(Fraction(rate, DEC), liabilities, unpaid, place, length)
    if got == exact and original.interest_due(original.float_rate(rate), liabilities, unpaid, place, length) == theirs:
        return explained(f"the rate {shown(rate)} through a float gives {theirs}, exactly it is {got}")
    return compared(("interest", got, theirs))


def minimum_liabilities(row: Row) -> Verdict:
    """CheckMinLiabilities: what an epoch charges at least must be something, and buy something.   [X-5]"""
    pool = row["pool"]
    balances = [atoms(pool, f"{side}_asset_balance") for side in ("native", "external")]
    depths = [balances[at] + atoms(pool, f"{side}_liabilities") for at, side in enumerate(("native", "external"))]
    to_native = pick(row, "custody_asset") == NATIVE
    into, out, balance = (depths[1], depths[0], balances[0]) if to_native else (*depths, balances[1])
    liabilities = pools.loan_for(atoms(row, "collateral_amount"), dec(row, "eta") + DEC).liabilities
    rate = dec(row, "interest_rate_min")

    def is_refused(minimum: int) -> bool:
        received = pools.swap(into, out, minimum, _fee(row), _running(row), to_native).received
        return not minimum or not received or received >= balance

    ours = is_refused(pools.minimum_interest(rate, liabilities))
    if ours == bool(error_of(row)):
        return MATCHED
    if is_refused(original.minimum_interest(original.float_rate(rate), liabilities)) != ours:
        return explained(f"the rate {shown(rate)} through a float decides otherwise than the exact one")
    return refusal(row, ours)


def rate_and_health(row: Row) -> Verdict:
    """InterestRateComputation and CalculatePoolHealth: the surcharge after the clamp is the source's own. [X-7, X-8]"""
    pool, parameters = row["pool"], row["params"]
    sides = (
        atoms(pool, "native_asset_balance"), atoms(pool, "external_asset_balance"),
        atoms(pool, "native_liabilities"), atoms(pool, "external_liabilities"),
    )  # fmt: skip
    up, down, least, most = (
        dec(parameters, f"interest_rate_{name}") for name in ("increase", "decrease", "min", "max")
    )
    gain, before = dec(parameters, "health_gain_factor"), dec(pool, "interest_rate")
    rate = pools.next_rate(gain, *sides, before, up, down, least, most)
    if error_of(row) or rate is None:
        return refusal(row, rate is None)
    theirs = dec(row, "interest_rate", "expected_interest_rate")
    if "pool_health" in row:
        health = compared(("pool health", shown(pools.pool_health(*sides)), shown(dec(row, "pool_health"))))
        if health is not MATCHED:
            return health
    begin = int(row.get("sq_begin_block") or 0)
    blocks = int(row.get("height") or 0) - begin
    if rate != theirs and begin and original.is_surcharge(theirs - rate, most, rate, blocks):
        return explained(f"a surcharge of {shown(theirs - rate)} after the clamp; without it the rate is {shown(rate)}")
    return compared(("interest rate", shown(rate), shown(theirs)))


def surcharge_begin(row: Row) -> Verdict:
    """The block since which a pool is below its removal threshold; ours has no surcharge that counts from it. [X-15]"""
    before, height = atoms(row, "sq_begin_block_before"), atoms(row, "height")
    if error_of(row):
        return refusal(row, False)
    begins = original.surcharge_begins(before, dec(row, "health"), dec(row, "removal_queue_threshold"), height)
    verdict = compared(("sq begin block", begins, atoms(row, "expected_sq_begin_block")))
    return explained("the surcharge's counter; ours has none") if verdict is MATCHED else verdict


def refusal(row: Row, is_refused: bool, *values: int, limit: int = original.DEC_BITS) -> Verdict:
    """The source's error against ours. Numbers of a size that it cannot hold, ours must not be able to hold either.

    Where the error gives the number of bits, one of `values` (what ours made of the same) must have just as many.
    """
    error = error_of(row)
    if not error:
        return differing("ours refuses, theirs computes")
    if is_refused:
        return MATCHED
    if _RANGE.search(error):
        large = [value for value in values if value.bit_length() > limit]
        told = _BITS.search(error)
        if told and int(told[1]) not in {value.bit_length() for value in large}:
            ours = [value.bit_length() for value in values]
            return differing(f"theirs is a number of {told[1]} bits, ours of {ours}")
        if any(is_beyond_ledger(value) for value in large):
            return MATCHED
    return differing(f"ours computes {list(values)}, theirs refuses: {error[:80]}")


def _swapped(
    row: Row, to_native: bool, sent: int, native: int, external: int, result: str, fee: str, impact: str, after: Row
) -> Verdict:
    into, out, balance = native, external, external
    into, out = into + _beside(row, "nativeLiabilities"), out + _beside(row, "externalLiabilities")
    if to_native:
        into, out, balance = out, into, native
    got = pools.swap(into, out, sent, _fee(row), _running(row), to_native)
    if error_of(row):
        return refusal(row, got.received >= balance, got.received)
    if got.received >= balance:
        return refusal(row, True)
    moved = (-got.received, sent) if to_native else (sent, -got.received)
    fields = [("result", got.received, atoms(row, result)), ("fee", got.fee, atoms(row, fee))]
    if impact in row:
        fields.append(("price impact", sent // (sent + into), atoms(row, impact)))
    for name, ours in (
        ("NativeAssetBalance", native + moved[0]), ("ExternalAssetBalance", external + moved[1]),
        ("NativeLiabilities", _beside(row, "nativeLiabilities")),
        ("ExternalLiabilities", _beside(row, "externalLiabilities")),
        ("NativeCustody", _beside(row, "nativeCustody")), ("ExternalCustody", _beside(row, "externalCustody")),
    ):  # fmt: skip
        for known in (name, f"expected{name}"):
            if known in after:
                fields.append((name, ours, atoms(after, known)))
    return compared(*fields)


def _beside(row: Row, name: str) -> int:
    """Liabilities or custody, which a swap leaves alone; 0 where the row has none."""
    return atoms(row, name) if name in row else 0


def _withdrawn(row: Row, got: pools.Withdrawal) -> Verdict:
    """Whatever outputs the row has; the source names them in two ways."""
    names = {
        "native": got.native, "external": got.external, "lp_units_left": got.units_left, "swap_amount": got.swapped,
        "expectedNativeAssetAmount": got.native, "expectedExternalAssetAmount": got.external,
        "expectedLpUnitsLeft": got.units_left, "expectedSwapAmount": got.swapped,
    }  # fmt: skip
    fields = [(name, ours, atoms(row, name)) for name, ours in names.items() if name in row]
    return compared(*fields) if fields else MATCHED


def _surplus(row: Row, is_native: bool) -> Verdict:
    """Y is the native depth and X the external one here; the answer is cut to 18 decimals."""
    amounts = [number(pick(row, name)) for name in ("Y", "X", "y", "x")]
    if any(each.denominator != 1 for each in amounts):
        raise Unreadable(f"amounts are whole atoms: {amounts}")
    fee, running = number(pick(row, "f")), number(pick(row, "r"))
    one = lcm(fee.denominator, running.denominator)
    formula = pools.native_to_sell if is_native else pools.external_to_sell
    native, external, native_added, external_added = (each.numerator for each in amounts)
    if not native or not external:
        return refusal(row, True)
    numerator, denominator = formula(
        native, external, native_added, external_added, int(fee * one), int(running * one), one
    )
    got = numerator * DEC // denominator
    if error_of(row):
        return refusal(row, False, got)
    return compared(("swap amount", shown(got), shown(dec(row, "expectedValue", "expected"))))


def _price(row: Row, depth: int, other: int, decimals: int, other_decimals: int, is_native: bool) -> Verdict:
    price = pools.spot_price(depth, other, decimals, other_decimals, _running(row), is_native)
    if error_of(row) or price is None:
        return refusal(row, price is None, *([price] if price is not None else []))
    return compared(("price", shown(price), shown(dec(row, "expected", "expectedPrice"))))


def _running(row: Row) -> int:
    for name in ("pmtpCurrentRunningRate", "pmtp_current_running_rate"):
        if row.get(name) is not None:
            return dec(row, name)
    return 0


def _fee(row: Row) -> int:
    for name in ("swapFeeRate", "swap_fee_rate"):
        if row.get(name) is not None:
            return dec(row, name)
    return 3 * DEC // 1_000
