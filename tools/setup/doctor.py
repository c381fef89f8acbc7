"""Says what this machine has and lacks for running and testing Satchel. Standard library only; changes nothing."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APT_LINE = "apt install python3 python3-venv git make npm chromium"


def main() -> int:
    """Print one line per finding; 1 when something that `make run` needs is missing."""
    needed = [
        ("Python 3.11 or newer", sys.version_info >= (3, 11), sys.version.split()[0]),
        ("venv module or uv", bool(importlib.util.find_spec("ensurepip") or shutil.which("uv")), "python3-venv"),
        ("git", shutil.which("git") is not None, shutil.which("git") or "missing"),
        ("1 GB of free disk", free_gigabytes() >= 1, f"{free_gigabytes()} GB free"),
    ]
    useful = [
        ("port 8080 is free", port_is_free(8080), "make run PORT=… chooses another"),
        ("uv (faster setup)", shutil.which("uv") is not None, "pip is used without it"),
        ("npm (brings anvil for the EVM tests)", shutil.which("npm") is not None, "those tests are skipped without it"),
        ("chromium (tests of the pages)", chromium() is not None, "those tests are skipped without it"),
        (".venv", (ROOT / ".venv" / "bin" / "python").exists(), "make setup makes it"),
    ]
    for name, fine, note in needed:
        print(f"{'ok     ' if fine else 'MISSING'} {name}: {note}")
    for name, fine, note in useful:
        print(f"{'ok     ' if fine else 'absent '} {name}" + ("" if fine else f": {note}"))

    print(f"        core runs as: {core()}")

    missing = [name for name, fine, _ in needed if not fine]
    if missing:
        print(f"\nOn a bare Debian: {APT_LINE}")
    return 1 if missing else 0


def free_gigabytes() -> int:
    """Whole gigabytes free where the project stands."""
    return shutil.disk_usage(ROOT).free // 10**9


def port_is_free(port: int) -> bool:
    """Nobody listens on this local port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def core() -> str:
    """How the environment's interpreter would run the core."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        return "unknown before make setup"
    # In a process of its own: whether a build may be used depends on the interpreter.
    ask = [str(python), "-c", "from ledger import compiled; print(compiled.build())"]
    return subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def chromium() -> str | None:
    """The browser of the system, under any of its names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


if __name__ == "__main__":
    sys.exit(main())
