"""A customer who remembers the log asks for the next epoch's proof: it must connect with what they saw. [R-20, R-22]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from api.node import Node
from api.settings import Settings
from engine.commands import CloseEpoch, RegisterKey
from tests.tools.conftest import Satchel

VERIFIER = Path(__file__).parents[2] / "por" / "verifier.py"


async def epoch(data: Path) -> None:
    """One run of a node that closes one epoch."""
    node = Node(Settings(data=data, devnet=True))
    await node.start()
    await node.submit(RegisterKey(bytes([len(node.state.api_keys)]) * 32))
    outcome = await node.submit(CloseEpoch(0))
    await node.epochs.published(outcome.reply)
    await node.stop()


def verified(proof: Path, memory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(VERIFIER), str(proof), "--remember", str(memory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_the_second_proof_connects_with_the_log_that_was_seen_at_the_first(
    satchel: Satchel, tmp_path: Path
) -> None:
    data, memory = tmp_path / "node", tmp_path / "memory"
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    await epoch(data)
    assert satchel("por", "prove", 1, "--data", data, "--out", first).code == 0
    assert verified(first, memory).returncode == 0
    await epoch(data)

    assert satchel("por", "prove", 1, "--data", data, "--out", second).code == 0
    alone = verified(second, memory)
    assert satchel("por", "prove", 1, "--known", 1, "--data", data, "--out", second).code == 0
    connected = verified(second, memory)

    assert alone.returncode == 1
    assert "satchel por prove --known 1" in alone.stdout + alone.stderr
    assert connected.returncode == 0
