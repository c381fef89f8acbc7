"""`make run`: a newcomer sees a living book at once, can paste every line that is shown, and stops it with Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.tools.conftest import ROOT, Satchel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_the_book_lives_and_every_line_shown_can_be_pasted(tmp_path: Path) -> None:
    with _demo(tmp_path / "devnet") as (process, lines):
        url = next(line.split()[-1] for line in lines if line.startswith("listening on "))
        depth = _until(lambda: _depth(url))
        pasted = [line.strip() for line in lines if line.startswith("  ")]
        for command in pasted:
            done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            if "sign orderExecute" in command:
                assert json.loads(done.stdout)["status"] == "Filled", done.stdout
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
        said = process.stderr.read() if process.stderr is not None else ""

    assert len(depth["bids"]) > 3
    assert len(depth["asks"]) > 3
    assert len(pasted) == 10
    assert any(f"{url}/docs" in line for line in lines)
    assert code == 0, said
    assert "stopped" in said
    with pytest.raises(OSError, match=r"refused|reset|closed"):
        urlopen(url, timeout=5)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The same folder again: the same users, nobody registered or paid twice."""
    for _ in range(2):
        with _demo(tmp_path / "devnet") as (process, lines):
            url = next(line.split()[-1] for line in lines if line.startswith("listening on "))
            _until(lambda at=url: _depth(at))  # type: ignore[misc]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
    kept = json.loads((tmp_path / "devnet" / "demo-users.json").read_text())

    assert sorted(one["userId"] for one in kept.values()) == [1, 2, 3, 4, 5]


def test_a_taken_port_says_so(satchel: Satchel, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = satchel("demo", "--data", tmp_path / "devnet", "--port", port)

    assert ran.code == 2
    assert f"port {port} of 127.0.0.1 is taken" in ran.err
    assert f"make run PORT={port + 1}" in ran.err
    assert not (tmp_path / "devnet").exists()


def test_serve_says_so_too(satchel: Satchel, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = satchel("serve", "--devnet", "--data", tmp_path / "devnet", "--port", taken.getsockname()[1])

    assert ran.code == 2
    assert "is taken" in ran.err


@contextmanager
def _demo(data: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A running demo and what it said until its welcome was complete."""
    if shutil.which("curl") is None:
        pytest.skip("no curl: the lines that are shown begin with it")
    command = [sys.executable, "-m", "tools.cli", "demo", "--data", str(data), "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        else:
            raise AssertionError(f"the demo ended: {process.stderr.read() if process.stderr else ''}")
        yield process, lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _depth(url: str) -> Any:
    with urlopen(f"{url}/api/v1/depth?symbol=SOL_USDC", timeout=10) as answer:
        depth = json.load(answer)
    return depth if depth["bids"] and depth["asks"] else None


def _until(look: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen")
