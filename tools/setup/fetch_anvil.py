"""Fetches anvil, the EVM node that the tests run against, into the virtual environment.

It comes as an npm package that holds one plain binary; npm only carries it, node never runs it. The archive must
have the hash written here, whoever served it. Without npm or network this says so and setup goes on: tests that
need the node are then skipped visibly, or fail where SATCHEL_REQUIRE_TOOLS=1.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.7.1"
PACKAGE = f"@foundry-rs/anvil-linux-amd64@{VERSION}"
INTEGRITY = "sha512-+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg=="
MEMBER = "package/bin/anvil"


def main() -> int:
    """Put anvil in place unless it is there. Returns 0 where its absence may be lived with."""
    target = anvil_path()
    if target.exists():
        return 0
    try:
        install(target)
    except (OSError, RuntimeError, subprocess.SubprocessError, tarfile.TarError) as problem:
        print(f"anvil {VERSION} not installed: {problem}. Tests on a real EVM node will be skipped.", file=sys.stderr)
        return 1 if os.environ.get("SATCHEL_REQUIRE_TOOLS") == "1" else 0
    print(f"anvil {VERSION} installed in {target.parent}")
    return 0


def anvil_path() -> Path:
    """Where the binary lives: inside the environment that runs this, so that deleting it leaves nothing behind."""
    return Path(sys.prefix) / "satchel-tools" / f"anvil-{VERSION}"


def install(target: Path) -> None:
    """Pack, verify, unpack; the binary appears under its name only when it is complete."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RuntimeError(f"no binary for {platform.system()} {platform.machine()}")
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm not found (on Debian: apt install npm)")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        archive = pack(npm, Path(folder))
        require_integrity(archive)
        binary = Path(folder) / "anvil"
        with tarfile.open(archive) as tar:
            content = tar.extractfile(MEMBER)
            if content is None:
                raise RuntimeError(f"{archive.name} holds no {MEMBER}")
            with content, binary.open("wb") as out:
                shutil.copyfileobj(content, out)
        binary.chmod(0o755)
        binary.replace(target)


def pack(npm: str, folder: Path) -> Path:
    """Let npm bring the archive; no script of the package runs."""
    done = subprocess.run(
        [npm, "pack", "--silent", "--ignore-scripts", PACKAGE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise RuntimeError(f"npm pack {PACKAGE} ended with {done.returncode}: {lines[-1]}")
    return archives[0]


def require_integrity(archive: Path) -> None:
    """The archive is the one that was reviewed, byte for byte."""
    digest = hashlib.sha512(archive.read_bytes()).digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != INTEGRITY:
        raise RuntimeError(f"{archive.name} has integrity {found}, expected {INTEGRITY}")


if __name__ == "__main__":
    sys.exit(main())
