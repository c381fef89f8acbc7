"""An outside judge of the matching rules: `tracebook-conformance` drives our engine over stdio and compares.   [S-7]

Of its fixed suites every case applies but pro rata: Satchel matches by price and time (S-7). All three campaign
profiles (limit lifecycle, partial fills, and the full one with market, IOC and FOK) apply.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tracebook.conformance", reason="tracebook-conformance is not installed")

from tracebook.conformance import fixtures

ROOT = Path(__file__).parents[2]
CANDIDATE = [sys.executable, "-m", "tests.conformance.adapter"]
SUITE = Path(fixtures.__file__).parent
NOT_OURS = {"pro-rata-allocation": "pro rata allocation is not a rule of this exchange"}


def judge(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracebook.conformance.cli", *arguments]
    return subprocess.run(
        [*command, "--candidate", *CANDIDATE], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def cases() -> list[Any]:
    found = []
    for version in ("v1", "v2"):
        manifest = json.loads((SUITE / version / "manifest.json").read_text())
        for case in manifest["cases"]:
            why = NOT_OURS.get(case["name"])
            marks = [pytest.mark.skip(reason=why)] if why else []
            found.append(pytest.param(version, case, id=f"{version}-{case['name']}", marks=marks))
    return found


@pytest.mark.parametrize(("version", "case"), cases())
def test_a_fixed_trace_gives_what_the_judge_expects(version: str, case: dict[str, Any], tmp_path: Path) -> None:
    config = case["config"]
    done = judge(
        "run",
        str(SUITE / version / case["events"]),
        "--output", str(tmp_path / "result.json"),
        "--algorithm", config["matching_algorithm"],
        "--tick-size", config["tick_size"],
        "--self-trade-policy", config["self_trade_policy"],
        "--quantity-decimal-places", str(config["quantity_decimal_places"]),
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["fifo-limit-v1", "fifo-partial-fill-v1", "fifo-full-v1"])
def test_generated_traces_never_diverge(profile: str, tmp_path: Path) -> None:
    done = judge(
        "campaign", "--output-dir", str(tmp_path / "out"), "--profile", profile, "--seed", "7",
        "--traces", "5", "--events-per-trace", "150",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
