"""`make check` notices what it promises to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.checks import package_findings, page_findings, rule_findings, verifier_findings

ROOT = Path(__file__).resolve().parents[2]
# Put together here, because the checks read this file too.
RULE, UNKNOWN_RULE = "A-" + "1", "A-" + "99"
THREAT, UNKNOWN_THREAT = "T-" + "1", "T-" + "999"
CODE = f'def post():\n    """Post. [{RULE}]"""\n'
RULES = f"| {RULE} | balanced | `ledger/journal.py` | `tests/test_journal.py` | {{}} |\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project in order: one rule, cited by one function and one test."""
    write(tmp_path, "docs/rules.md", RULES.format("done"))
    write(tmp_path, "docs/threat-model.md", f"| {THREAT} | forged | `tests/test_journal.py` |\n")
    write(tmp_path, "docs/decisions/README.md", "[0001](0001-ints.md)\n")
    write(tmp_path, "docs/decisions/0001-ints.md", "# 0001\n")
    write(tmp_path, "ledger/__init__.py", "")
    write(tmp_path, "ledger/journal.py", CODE)
    write(tmp_path, "tests/test_journal.py", f'def test_post():\n    """[{RULE}] {THREAT}"""\n')
    write(tmp_path, "por/verifier.py", "import hashlib\n")
    write(tmp_path, "pyproject.toml", '[tool.setuptools]\npackages = ["ledger", "ledger.migrations"]\n'
          '[tool.setuptools.package-dir]\n"ledger.migrations" = "alembic"\n')
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_project_in_order_has_no_findings(project: Path) -> None:
    findings = [rule_findings, package_findings, verifier_findings, page_findings]

    assert [line for find in findings for line in find(project)] == []


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("ledger/journal.py", f'def post():\n    """Post. [{UNKNOWN_RULE}]"""\n', f"[{UNKNOWN_RULE}] is not in"),
        ("ledger/journal.py", "def post(): ...\n", f"{RULE} is done, but no docstring cites it"),
        ("ledger/journal.py", f"def post():\n    x = '[{RULE}]'\n", f"{RULE} is done, but no docstring cites it"),
        ("tests/test_journal.py", "def test_post(): ...\n", f"{RULE} is done, but no test cites it"),
        ("tests/test_journal.py", f"x = '{RULE}'\n", f"{RULE} is done, but no test cites it"),
        ("tests/test_journal.py", f"# [{RULE}] {UNKNOWN_THREAT}\n", f"{UNKNOWN_THREAT} is not in docs/threat-model.md"),
        ("docs/rules.md", RULES.format("done").replace("journal.py", "gone.py", 1), "names ledger/gone.py"),
    ],
)
def test_a_rule_that_is_not_kept_is_named(project: Path, name: str, text: str, finding: str) -> None:
    write(project, name, text)

    assert any(finding in line for line in rule_findings(project)), list(rule_findings(project))


def test_an_open_rule_needs_no_citation_yet(project: Path) -> None:
    write(project, "docs/rules.md", RULES.format("open"))
    write(project, "ledger/journal.py", "")

    assert list(rule_findings(project)) == []


def test_a_package_that_the_wheel_would_miss_is_named(project: Path) -> None:
    write(project, "engine/formulas/__init__.py", "")

    assert list(package_findings(project)) == ["pyproject.toml: package engine.formulas is not listed"]


def test_an_init_file_that_would_shadow_alembic_is_named(project: Path) -> None:
    write(project, "alembic/__init__.py", "")

    assert list(package_findings(project)) == ["alembic/__init__.py would shadow the library alembic"]


@pytest.mark.parametrize("line", ["import numpy", "from ledger.merkle import root", "from . import leaves"])
def test_a_verifier_that_needs_more_than_python_is_named(project: Path, line: str) -> None:
    write(project, "por/verifier.py", f"def main():\n    {line}\n")

    assert len(list(verifier_findings(project))) == 1


def test_a_decision_that_the_index_misses_is_named(project: Path) -> None:
    write(project, "docs/decisions/0002-later.md", "# 0002\n")

    assert list(page_findings(project)) == ["docs/decisions/README.md: 0002-later.md is not in the index"]


def test_a_test_that_the_threat_model_promises_must_exist(project: Path) -> None:
    write(project, "docs/threat-model.md", f"| {THREAT} | forged | `tests/gone/` |\n")

    assert list(page_findings(project)) == ["docs/threat-model.md: tests/gone/ is not there"]


def test_every_rule_of_the_rule_book_that_is_named_here_exists_there(shared_dir: Path) -> None:
    book = "".join(path.read_text() for path in sorted((shared_dir / "spec").glob("*.md")))
    for line in (ROOT / "docs" / "rules.md").read_text().splitlines():
        if line.startswith("| ") and "-" in line.split("|")[1] and not line.startswith("|---"):
            rule = line.split("|")[1].strip()
            assert f"**{rule} " in book or f"**{rule}*" in book, f"{rule} is not in the rule book"
