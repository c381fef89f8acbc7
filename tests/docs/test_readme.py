"""The README's five-minute tour, typed as a newcomer types it, beside a running `satchel demo`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, data folder) of `make run`'s command, on a free port, once its book lives."""
    data = tmp_path / "devnet"
    command = [sys.executable, "-m", "tools.cli", "demo", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    url = ""
    deadline = time.monotonic() + START_SECONDS
    while not url and time.monotonic() < deadline:
        line = process.stdout.readline()
        if not line:
            break
        lines.append(line)
        found = re.search(r"listening on (http://\S+)", line)
        url = found.group(1) if found else ""
    assert url, "".join(lines)
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    try:
        yield url, data
    finally:
        process.terminate()
        assert process.wait(60) == 0
        drain.terminate()
        drain.wait()


def tour() -> list[str]:
    """The tour's shell blocks, in order, without the first, which names the sandbox of `make run`."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## Five minutes", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def test_every_command_of_the_tour_works_as_written(demo: tuple[str, Path], tmp_path: Path) -> None:
    url, data = demo
    here = tmp_path / "here"
    here.mkdir()
    (here / "por").symlink_to(ROOT / "por")
    book = f'until curl -s "{url}/api/v1/depth?symbol=SOL_USDC" | grep -q \'"asks":\\[\\[\'; do sleep 0.5; done'
    script = "\n".join(["set -euo pipefail", book, *tour()[1:]])
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "URL": url,
        "DATA": str(data),
    }

    done = subprocess.run(
        ["bash", "-c", script], cwd=here, env=environment, capture_output=True, text=True, timeout=240, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert '"symbol":"SOL_USDC"' in done.stdout
    assert "identical" in done.stdout + done.stderr
    assert '"paymentType":"Borrow"' in done.stdout and '"netQuantity":"-1.5' in done.stdout


def test_what_the_api_says_is_what_the_postings_say(demo: tuple[str, Path], tmp_path: Path) -> None:
    """After the tour: balances, loans and collateral of the API against the statement of postings.   [A-12, R-2]"""
    url, data = demo
    here = tmp_path / "here"
    here.mkdir()
    lives = [block for block in tour() if "dev/v1/keys" in block or "borrow" in block or "call()" in block]
    book = f'until curl -s "{url}/api/v1/depth?symbol=ETH_USDC" | grep -q \'"asks":\\[\\[\'; do sleep 0.5; done'
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "URL": url, "DATA": str(data),
    }  # fmt: skip
    script = "\n".join(["set -euo pipefail", book, *lives])
    subprocess.run(["bash", "-c", script], cwd=here, env=environment, check=True, capture_output=True, timeout=240)

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=here, env=environment, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout

    def ask(instruction: str) -> Any:
        line = run("satchel", "sign", "--url", url, "--key", "me.key", instruction).splitlines()[-1]
        return json.loads(run("bash", "-c", line))

    # At the stroke of an hour all interest is posted, so that both sides speak of the same atoms.
    now = json.loads(run("curl", "-s", f"{url}/dev/v1/clock", "-d", '{"mode": "manual"}'))["now"]
    run("curl", "-s", f"{url}/dev/v1/clock", "-d", json.dumps({"advanceMs": 3_600_000 - now % 3_600_000}))
    subaccount = ask("subaccountQueryAll")[0]["subaccountId"]
    statement = json.loads(run("satchel", "statement", str(subaccount), "--data", str(data), "--json"))
    held = {row["asset"]: Decimal(row["balance"]) for row in statement["closing"] if row["account"] == "held"}
    worth = {row["asset"]: Decimal(row["worth"]) for row in statement["closing"] if row.get("worth")}

    balances = ask("balanceQuery")
    assert {symbol: Decimal(row["available"]) + Decimal(row["locked"]) for symbol, row in balances.items()} == held
    loans = {row["symbol"]: Decimal(row["netQuantity"]) for row in ask("borrowLendPositionQuery")}
    assert loans == {name.partition(".")[0]: value for name, value in worth.items()}
    collateral = {row["symbol"]: row for row in ask("collateralQuery")["collateral"]}
    for symbol, row in collateral.items():
        assert Decimal(row["lendQuantity"]) == worth.get(f"{symbol}.lend", 0)
        assert Decimal(row["totalQuantity"]) == held.get(symbol, 0) + worth.get(f"{symbol}.lend", 0)
