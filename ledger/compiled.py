"""Whether this process runs the core compiled (`make compile`) or as Python: decided once, at the first import.

The compiled modules are used only while every source of `ledger` and `engine` has the very bytes they were made from;
one changed byte, another interpreter, or `SATCHEL_PURE=1`, and everything is Python again. They give the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import MutableSequence
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SWITCH = "SATCHEL_PURE"
"""Environment variable: anything but empty means Python, whatever was compiled."""

FOLDER = ".compiled"
GROUP = "satchel_core"
_PACKAGES = ("ledger", "engine")
_ROOT = Path(__file__).resolve().parents[1]
_MANIFEST = "manifest.json"


def build() -> str:
    """What runs, for people: `compiled`, or `Python` and, when a build lies there unused, why."""
    return "compiled" if _unused == "" else f"Python ({_unused})"


def extend(path: MutableSequence[str], package: str) -> None:
    """Let a package find its compiled modules before its sources, when they may be used."""
    if _unused == "":
        path.insert(0, str(_ROOT / FOLDER / "modules" / Path(*package.split("."))))


def sources(root: Path) -> list[Path]:
    """All that the compiled modules depend on: the sources of both packages."""
    return [path for package in _PACKAGES for path in sorted((root / package).rglob("*.py"))]


def source_digests(root: Path) -> dict[str, str]:
    """Path → SHA-256 of every source."""
    return {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in sources(root)}


def write_manifest(folder: Path, digests: dict[str, str]) -> None:
    """Vouch for the modules in `folder`: made from these sources, for this interpreter. The last step of a build."""
    manifest = {"suffix": EXTENSION_SUFFIXES[0], "sources": digests}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _why_unused() -> str:
    """Why the process runs Python; "" when the compiled modules may be used."""
    if os.environ.get(SWITCH):
        return f"{SWITCH} is set"
    try:
        manifest = json.loads((_ROOT / FOLDER / _MANIFEST).read_text())
    except FileNotFoundError:
        return "not compiled; make compile"
    if manifest["suffix"] != EXTENSION_SUFFIXES[0]:
        return f"compiled for {manifest['suffix']}, not for {EXTENSION_SUFFIXES[0]}; make compile"
    now, then = source_digests(_ROOT), manifest["sources"]
    changed = sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))
    if changed:
        return f"{changed[0]} changed after it was compiled; make compile"
    return ""


_unused = _why_unused()
if _unused == "":
    # The library that the compiled modules share is looked up at the top. It lies in a folder of its own: from beside
    # the packages, those would be found as well, as packages without sources.
    sys.path.append(str(_ROOT / FOLDER / "shared"))
