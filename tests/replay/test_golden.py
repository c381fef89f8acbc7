"""A recorded log gives today, byte for byte, what it gave when it was recorded.   [A-6, A-10]"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from engine import snapshot
from engine.commands import decode, encode
from tests.replay.golden import EXPECTED, Run, read

ROOT = Path(__file__).parents[2]
AGAIN = "import json; from tests.replay import golden; r = golden.Run(); [r.feed(x) for x in golden.read()]; print(json.dumps(r.result()))"  # noqa: E501


def test_the_recorded_commands_give_the_recorded_hashes() -> None:
    run = Run()
    for line in read():
        run.feed(line)

    assert run.result() == json.loads(EXPECTED.read_text())


def test_every_recorded_command_is_in_canonical_bytes() -> None:
    for line in read():
        assert encode(decode(line.payload)) == line.payload


def test_a_replay_from_a_snapshot_in_the_middle_ends_the_same() -> None:
    run, lines = Run(), read()
    for number, line in enumerate(lines):
        if number in (20, len(lines) // 2):
            run.state = snapshot.load(snapshot.dump(run.state))
        run.feed(line)

    assert run.result() == json.loads(EXPECTED.read_text())


def test_hash_order_of_the_interpreter_does_not_matter() -> None:
    results = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", AGAIN], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        results.add(done.stdout)

    assert len(results) == 1
    assert json.loads(results.pop()) == json.loads(EXPECTED.read_text())
