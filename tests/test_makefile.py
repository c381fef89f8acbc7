"""The commands that the README names are there and do what they say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A test run that `make` itself started must not hand its flags on.
    handed_on = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in handed_on}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env=environment,
    )


def test_make_alone_lists_every_command_with_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split()

    listed = dict(re.findall(r"^  make (\S+) +(\S.*)$", make().stdout, re.MULTILINE))

    assert set(listed) == set(phony)
    assert {"setup", "run", "reset", "test", "check", "bench", "crash", "simulate", "mutants", "replay"} <= set(listed)


def test_reset_removes_what_run_kept_and_nothing_beside_it(tmp_path: Path) -> None:
    data, beside = tmp_path / "data", tmp_path / "data-of-others"
    data.mkdir()
    beside.mkdir()
    (data / "ledger.db").touch()

    done = make("reset", f"DATA={data}")

    assert done.returncode == 0, done.stderr
    assert not data.exists()
    assert beside.exists()


def test_reset_refuses_a_folder_that_is_not_a_nodes(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()

    done = make("reset", f"DATA={tmp_path}")

    assert done.returncode != 0
    assert "holds no ledger.db" in done.stdout + done.stderr
    assert (tmp_path / "letters.txt").exists()


def test_every_page_that_a_page_points_to_is_there() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} points to {target}"
