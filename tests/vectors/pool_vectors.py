"""Small vectors of the shared format for liquidity pools, from rationals that share no line with the engine's formulas.

`python -m tests.vectors.pool_vectors` writes them again; a test holds the files against this.   [X-1, X-3 … X-10, X-15]
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "pools"
FEE = Fraction(3, 1_000)
ONE = 10**18


def documents() -> dict[str, Any]:
    """File name → document."""
    return {
        "swaps.json": _document("x/clp/keeper/calculations.go CalcSwapResult", _swaps()),
        "units.json": _document("x/clp/keeper/calculations.go CalculatePoolUnits", _units()),
        "interest.json": _document("x/margin/keeper/calculations.go CalcMTPInterestLiabilities", _interest()),
        "prices.json": _document("x/clp/keeper/calculations_test.go", _prices(), test="TestKeeper_CalcSpotPriceNative"),
        "longs.json": _document("x/margin/keeper Open/OpenLong/CloseLong/BeginBlocker", [_life("0.5"), _life("0.3")]),
        "no_vectors.json": {"rows": [1, 2, 3], "of": "something else"},
    }


def _document(source_file: str, rows: list[dict[str, Any]], **more: str) -> dict[str, Any]:
    about = {"source_repo": "own", "commit": "none", "source_file": source_file, **more}
    return {**about, "note": "computed by tests/vectors/pool_vectors.py", "count": len(rows), "rows": rows}


def _swaps() -> list[dict[str, Any]]:
    rows = []
    for x_depth, y_depth, x, running, to_native in (
        (10_000, 30_000, 777, Fraction(0), True),
        (10**24, 7 * 10**20, 12_345 * 10**17, Fraction(1, 10), False),
        (987_654_321, 10**30, 1, Fraction(3, 2), True),
        (0, 5, 5, Fraction(0), True),
    ):
        received, fee = _swap(x_depth, y_depth, x, running, to_native)
        rows.append(
            {
                "X": str(x_depth), "Y": str(y_depth), "x": str(x), "y": str(received), "fee": str(fee),
                "pmtp_current_running_rate": _dec(running), "swap_fee_rate": _dec(FEE), "to_rowan": to_native,
            }
        )  # fmt: skip
    return rows


def _units() -> list[dict[str, Any]]:
    """In ratio; an empty side that gets both assets; one that gets one, which is an error."""
    row = {
        "pool_units": "900", "native_depth": "300", "external_depth": "500", "native_added": "60",
        "external_added": "100", "sell_native_fee": "0.003", "buy_native_fee": "0.003",
        "pmtp_current_running_rate": "0",
    }  # fmt: skip
    minted = 60 * 900 // 300
    fresh = {**row, "native_depth": "0"}
    return [
        {**row, "lp_units": str(minted), "new_pool_units": str(900 + minted), "swap_amount": "0",
         "swap_status": "NoSwap"},
        {**fresh, "lp_units": "60", "new_pool_units": "60", "swap_amount": "nil", "swap_status": "NoSwap"},
        {**fresh, "external_added": "0", "error": "amount is invalid"},
    ]  # fmt: skip


def _interest() -> list[dict[str, Any]]:
    """A half is a half as a float too; three tenths are a little less: the second row takes X-15's exception."""
    rows: list[dict[str, Any]] = []
    for rate, liabilities, unpaid in (("0.5", 1_001, 20), ("0.3", 10, 0)):
        due = int(Fraction(float(rate)) * (liabilities + unpaid)) + unpaid
        rows.append(
            {
                "interest_rate": rate, "liabilities": str(liabilities), "interest_unpaid_collateral": str(unpaid),
                "epoch_position": 0, "epoch_length": 1, "interest": str(due),
            }
        )  # fmt: skip
    return rows


def _prices() -> list[dict[str, Any]]:
    row = {"name": "", "decimalsExternal": 6, "pmtpCurrentRunningRate": "0.5"}
    price = Fraction(7, 3) * Fraction(3, 2) * 10**12
    beyond = {**row, "nativeAssetBalance": "1", "externalAssetBalance": "1", "decimalsExternal": 0}
    return [
        {**row, "nativeAssetBalance": "3", "externalAssetBalance": "7", "expected": _dec(price)},
        {**row, "nativeAssetBalance": "0", "externalAssetBalance": "7", "errString": "amount is invalid"},
        {**beyond, "externalAssetBalance": str(10**70), "errString": "decimal out of range; bitLen: got 353, max 315"},
    ]


def _life(rate: str) -> dict[str, Any]:
    """A long of the external asset at 2×, one epoch that takes interest, its close; nothing else happens."""
    native, external, held, collateral = 10**9, 4 * 10**9, 10**9, 10**7
    custody = _swap(native, external, 2 * collateral)[0]
    owed = collateral
    stored = _half_even(Fraction(_swap(external, native, custody)[0], owed))
    opened_health = _half_even(Fraction(native + collateral, native + 2 * collateral))
    pool = {"native_asset_balance": native, "external_asset_balance": external, "health": ONE, "interest_rate": 0}
    after_open = pool | {
        "native_asset_balance": native + collateral, "external_asset_balance": external - custody,
        "external_custody": custody, "native_liabilities": owed, "health": opened_health,
    }  # fmt: skip
    due = int(Fraction(float(rate)) * owed)
    depth = native + 2 * collateral
    health = _half_even(Fraction(_swap(external - custody, depth, custody)[0], owed))
    taken = _swap(depth, external - custody, due)[0]
    after_epoch = after_open | {
        "external_asset_balance": external - custody + taken, "external_custody": custody - taken,
        "block_interest_external": taken, "interest_rate": int(Fraction(rate) * ONE),
    }  # fmt: skip
    repaid = _swap(external, depth, custody - taken)[0]
    returned = repaid - owed
    after_close = after_epoch | {
        "native_asset_balance": native + collateral - returned, "external_asset_balance": external,
        "external_custody": 0, "native_liabilities": 0,
    }  # fmt: skip
    position = {
        "collateral_amount": str(collateral), "collateral_asset": "rowan", "custody_amount": str(custody), "id": 1,
        "interest_paid_collateral": "0", "interest_paid_custody": "0", "interest_unpaid_collateral": "0",
        "leverage": _dec(Fraction(2)), "liabilities": str(owed), "mtp_health": _shown(stored), "owner": "alice",
    }  # fmt: skip
    charged = position | {
        "custody_amount": str(custody - taken), "interest_paid_collateral": str(due),
        "interest_paid_custody": str(taken), "mtp_health": _shown(health),
    }  # fmt: skip

    def step(alice: int, pool: dict[str, int], positions: list[dict[str, Any]]) -> dict[str, Any]:
        account = [pool["native_asset_balance"], pool["external_asset_balance"] + pool.get("external_custody", 0)]
        coins = {"alice": [alice, held], "fund": [0, 0], "module:clp": account}
        bank = {name: [str(atoms) for atoms in each] for name, each in coins.items()}
        return {"bank_after": bank, "mtps_after": positions, "pool_after": _pool(pool)}

    order = {"user": "alice", "collateral_asset": "rowan", "borrow_asset": "cusdc", "leverage": "5"}
    return {
        "params": _params(rate), "pmtp_current_running_rate": "0", "swap_fee_rate": "0.003",
        "pool": _pool(pool), "users_start": {"rowan": str(held), "cusdc": str(held)},
        "steps": [
            {"op": "open", "height": 1, "collateral_amount": str(native), **order, "error": "higher than pool depth",
             **step(held, pool, [])},
            {"op": "open", "height": 1, "collateral_amount": str(collateral), **order, "id": 1,
             **step(held - collateral, after_open, [position])},
            {"op": "begin_block", "height": 2, **step(held - collateral, after_epoch, [charged])},
            {"op": "close", "height": 2, "user": "alice", "id": 1, "repay_amount": str(repaid),
             **step(held - collateral + returned, after_close, [])},
        ],
    }  # fmt: skip


def _params(rate: str) -> dict[str, Any]:
    """Leverage is clamped to 2; the rate is `rate` from the first epoch on, since it is both bounds."""
    return {
        "epoch_length": 2, "force_close_fund_percentage": "1", "health_gain_factor": "1",
        "incremental_interest_payment_enabled": True, "incremental_interest_payment_fund_percentage": "0",
        "interest_rate_decrease": "1", "interest_rate_increase": "1", "interest_rate_max": rate,
        "interest_rate_min": rate, "leverage_max": "2", "max_open_positions": 3, "pool_open_threshold": "0.1",
        "removal_queue_threshold": "0.1", "rowan_collateral_enabled": True, "safety_factor": "1.05",
    }  # fmt: skip


def _pool(pool: dict[str, int]) -> dict[str, str]:
    names = [
        f"{side}_{what}"
        for side in ("native", "external")
        for what in ("asset_balance", "custody", "liabilities")
    ]  # fmt: skip
    names += [f"block_interest_{side}" for side in ("native", "external")]
    names += [f"unsettled_{side}_liabilities" for side in ("native", "external")]
    amounts = {name: str(pool.get(name, 0)) for name in names}
    return amounts | {name: _shown(pool[name]) for name in ("health", "interest_rate")}


def _swap(
    x_depth: int, y_depth: int, x: int, running: Fraction = Fraction(0), to_native: bool = False
) -> tuple[int, int]:
    if not x_depth or not y_depth or not x:
        return 0, 0
    raw = Fraction(x * y_depth, x_depth + x)
    adjusted = raw / (1 + running) if to_native else raw * (1 + running)
    fee = int(adjusted * FEE)
    return int(adjusted) - fee, fee


def _half_even(value: Fraction) -> int:
    return round(value * ONE)


def _dec(value: Fraction) -> str:
    return _shown(int(value * ONE))


def _shown(value: int) -> str:
    whole, rest = divmod(value, ONE)
    return f"{whole}.{rest:018d}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, document in documents().items():
        (FOLDER / name).write_text(json.dumps(document, indent=1) + "\n")
