"""`satchel conformance pools`: every row of every vector file in a folder, by our formulas and our engine.   [X-15]

Which function a file is about is read from its `test` and `source_file`, and from what its rows hold where those two
say nothing: never from the file's name or from how many rows it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.conformance import formula_rows, lifecycles, margin_rows, message_rows
from tools.conformance.vectors import Kind, Outcome, Row, VectorFile, Verdict, differing, one_by_one, read
from tools.terminal import FINDINGS, FINE, CannotRun, print_json, print_table, say

MOST_SHOWN = 20
"""Differing rows of one file that are written out; the rest is counted."""


class _Function(NamedTuple):
    """A function of the original: its names, the fields that its rows cannot do without, who answers them."""

    names: tuple[str, ...]
    fields: tuple[str, ...]
    kind: Kind


_FUNCTIONS = (
    _Function(("CalcSwapResult",), ("X", "x", "Y", "y"), one_by_one(formula_rows.swap_result)),
    _Function(("SwapOne",), ("sentAmount", "fromAsset", "toAsset"), one_by_one(formula_rows.swap_one)),
    _Function(("SwapOneFromGenesis",), ("calculateWithdraw",), one_by_one(formula_rows.swap_one_from_genesis)),
    _Function(("GetSwapFeeRate",), ("asset", "swapFeeParams"), one_by_one(formula_rows.swap_fee_rate)),
    _Function(
        ("CalculatePoolUnits",), ("oldPoolUnits", "nativeAssetAmount"), one_by_one(formula_rows.pool_units)
    ),
    _Function(("CalculatePoolUnits",), ("native_added", "native_depth"), one_by_one(formula_rows.pool_units)),
    _Function(("CalculatePoolUnitsSymmetric",), ("X", "x", "P"), one_by_one(formula_rows.pool_units_symmetric)),
    _Function(
        ("GetLiquidityAddSymmetryType", "GetLiquidityAddSymmetryState"), ("X", "x", "Y", "y", "expectedValue"),
        one_by_one(formula_rows.symmetry),
    ),
    _Function(
        ("CalculateExternalSwapAmountAsymmetricRat",), ("X", "x", "Y", "y", "f", "r"),
        one_by_one(formula_rows.external_surplus),
    ),
    _Function(
        ("CalculateNativeSwapAmountAsymmetricRat",), ("X", "x", "Y", "y", "f", "r"),
        one_by_one(formula_rows.native_surplus),
    ),
    _Function(("CalculateWithdrawal",), ("lpUnits", "wBasisPoints"), one_by_one(formula_rows.withdrawal)),
    _Function(("CalculateWithdrawal",), ("lp_units", "w_basis_points"), one_by_one(formula_rows.withdrawal)),
    _Function(
        ("CalculateWithdrawalFromUnits",), ("lp_units", "withdraw_units"), one_by_one(formula_rows.withdrawal_units)
    ),
    _Function(("CalcSpotPriceX",), ("X", "Y", "decimalsX", "isXNative"), one_by_one(formula_rows.spot_price)),
    _Function(
        ("CalcSpotPriceNative",), ("nativeAssetBalance", "decimalsExternal"),
        one_by_one(formula_rows.spot_price_native),
    ),
    _Function(
        ("CalcSpotPriceExternal",), ("nativeAssetBalance", "decimalsExternal"),
        one_by_one(formula_rows.spot_price_external),
    ),
    _Function(("CalcRowanSpotPrice",), ("rowanBalance",), one_by_one(formula_rows.rowan_spot_price)),
    _Function(("CalcRowanValue",), ("rowanAmount", "price"), one_by_one(formula_rows.rowan_value)),
    _Function(
        ("CalcMTPInterestLiabilities",), ("liabilities", "interest_rate", "epoch_position"),
        one_by_one(formula_rows.interest),
    ),
    _Function(
        ("CheckMinLiabilities",), ("collateral_amount", "eta", "pool"), one_by_one(formula_rows.minimum_liabilities)
    ),
    _Function(
        ("InterestRateComputation", "CalculatePoolHealth"), ("pool", "params", "interest_rate"),
        one_by_one(formula_rows.rate_and_health),
    ),
    _Function(
        ("Open", "OpenLong", "CloseLong", "BeginBlocker"), ("params", "pool", "steps", "users_start"),
        one_by_one(lifecycles.sequence),
    ),
    _Function(("OpenClose", "AddUpExistingMTP"), ("params", "steps"), one_by_one(margin_rows.open_close)),
    _Function(("EC",), ("pool_before", "collateral_amount", "signer_native_before"), margin_rows.chains),
    _Function(("Open",), ("msgOpen", "poolAsset"), one_by_one(margin_rows.opened)),
    _Function(("Close",), ("msgOpen", "msgClose"), one_by_one(margin_rows.closed)),
    _Function(("ForceClose",), ("msgOpen", "msgForceClose"), one_by_one(margin_rows.force_closed)),
    _Function(("Borrow",), ("denom", "collateralAmount", "leverage"), one_by_one(margin_rows.borrowed)),
    _Function(("Repay",), ("repayAmount", "liabilities"), one_by_one(margin_rows.repaid)),
    _Function(("CLPSwap",), ("denom", "to", "sentAmount"), one_by_one(margin_rows.quoted)),
    _Function(
        ("UpdateMTPHealth",), ("custodyAmount", "liabilities", "interestUnpaidCollateral"),
        one_by_one(margin_rows.health_updated),
    ),
    _Function(
        ("InterestRateComputation",), ("interestRate", "interestRateIncrease"), one_by_one(margin_rows.rate_stepped)
    ),
    _Function(
        ("Swap",), ("msg", "currentRowanLiquidityThreshold", "maxRowanLiquidityThresholdAsset"),
        one_by_one(message_rows.swapped),
    ),
    _Function(("AddLiquidity",), ("msg", "createPool"), one_by_one(message_rows.added)),
    _Function(("CreatePool",), ("msg", "createPool"), one_by_one(message_rows.created)),
    _Function(("RemoveLiquidity",), ("msg", "createPool"), one_by_one(message_rows.removed)),
    _Function(("DecommissionPool",), ("msg", "createPool"), one_by_one(message_rows.decommissioned)),
    _Function(
        ("SQBeginBlocker",), ("sq_begin_block_before", "removal_queue_threshold"),
        one_by_one(formula_rows.surcharge_begin),
    ),
)  # fmt: skip


class Tally(NamedTuple):
    """What came of a file."""

    file: str
    verdicts: list[Verdict]

    def count(self, outcome: Outcome) -> int:
        return sum(verdict.outcome is outcome for verdict in self.verdicts)

    def figures(self) -> dict[str, str | int]:
        return {
            "file": self.file,
            "rows": len(self.verdicts),
            "matched": self.count(Outcome.MATCHED),
            "differing": self.count(Outcome.DIFFERING),
            "explained": self.count(Outcome.EXPLAINED),
        }


def run(folder: Path, as_json: bool) -> int:
    """Print what matched, differed and was explained, file by file; 1 when anything differs."""
    if not folder.is_dir():
        raise CannotRun(f"{folder} is no folder", "name the folder that has the vector files")
    files = [found for path in sorted(folder.glob("*.json")) if path.is_file() and (found := read(path)) is not None]
    if not files:
        raise CannotRun(f"{folder} has no vector file", "name the folder that has the vector files")
    tallies = [Tally(file.name, judge(file)) for file in files]
    figures = [tally.figures() for tally in tallies]
    if as_json:
        print_json({"files": figures})
    else:
        names = ["file", "rows", "matched", "differing", "explained"]
        rows = [[str(each[name]) for name in names] for each in figures]
        totals = [str(sum(int(each[name]) for each in figures)) for name in names[1:]]
        print_table(names, [*rows, ["total", *totals]], numbers=(1, 2, 3, 4))
    for file, tally in zip(files, tallies, strict=True):
        _tell_differences(file, tally)
    return FINDINGS if any(tally.count(Outcome.DIFFERING) for tally in tallies) else FINE


def judge(file: VectorFile) -> list[Verdict]:
    """A verdict for every row. Rows of a function that ours has no answer for differ: nothing of them was checked."""
    kind = kind_of(file)
    if kind is None:
        what = file.about.get("test") or file.about["source_file"]
        return [differing(f"nothing of ours answers rows of {what}") for _ in file.rows]
    verdicts = list(kind(file.rows))
    assert len(verdicts) == len(file.rows), f"{file.name}: {len(verdicts)} verdicts on {len(file.rows)} rows"
    return verdicts


def kind_of(file: VectorFile) -> Kind | None:
    """By name where the rows fit it, else by what the rows hold: the function that asks for most of it."""
    held = {field for row in file.rows for field in row}
    fitting = [function for function in _FUNCTIONS if held.issuperset(function.fields)]
    named = [function for function in fitting if not _names(file).isdisjoint(function.names)]
    chosen = max(named or fitting, key=lambda function: len(function.fields), default=None)
    return chosen.kind if chosen is not None else None


def _names(file: VectorFile) -> set[str]:
    """Functions that the file names: words of `test`, without what test names begin with, and of `source_file`."""
    words = re.findall(r"\w+", f"{file.about.get('test') or ''} {file.about['source_file']}")
    return {re.sub(r"^Test(Keeper_|MsgServer_)?", "", word) for word in words}


def _tell_differences(file: VectorFile, tally: Tally) -> None:
    """On stderr: which rows differ, in which field, both values."""
    told: Iterator[tuple[int, Row, Verdict]] = (
        (place, row, verdict)
        for place, (row, verdict) in enumerate(zip(file.rows, tally.verdicts, strict=True))
        if verdict.outcome is Outcome.DIFFERING
    )
    count = tally.count(Outcome.DIFFERING)
    for _, (place, row, verdict) in zip(range(MOST_SHOWN), told, strict=False):
        name = f" ({row['name']})" if row.get("name") else ""
        say(f"{file.name} row {place}{name}: {verdict.why}")
    if count > MOST_SHOWN:
        say(f"{file.name}: {count - MOST_SHOWN} more rows differ")
