"""Project rules that no linter knows: rule ids against functions and tests, packages against the distribution."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("ledger", "chains", "engine", "por", "api", "tools")
RULE_ID = re.compile(r"\b[A-Z]-\d+b?\b")
BRACKETED = re.compile(r"\[([^\[\]]*\b[A-Z]-\d+b?\b[^\[\]]*)\]")
THREAT_ID = re.compile(r"\bT-\d+\b")


def main() -> int:
    """Print every finding; 1 when there is one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "docs" / "rules.md").is_file():
        print("tools.checks looks at a checkout; this is an installed copy", file=sys.stderr)
        return 2
    findings = [*rule_findings(root), *package_findings(root), *verifier_findings(root), *page_findings(root)]
    for finding in findings:
        print(finding)
    print(f"rules, packages, verifier, pages: {len(findings)} finding(s)")
    return 1 if findings else 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A line of docs/rules.md. `paths` are the module and the test that it names."""

    state: str
    paths: tuple[str, ...]


def rule_findings(root: Path) -> Iterator[str]:
    """Every id cited exists; every rule that is said to be done is cited by code and by a test, in files that exist."""
    rules = written_rules(root / "docs" / "rules.md")
    threats = set(THREAT_ID.findall((root / "docs" / "threat-model.md").read_text()))
    in_code: set[str] = set()
    in_tests: set[str] = set()
    for path in python_files(root, PACKAGES):
        for where, text in docstrings(path, root):
            ids = cited(text)
            in_code |= ids
            yield from (f"{where}: [{rule}] is not in docs/rules.md" for rule in sorted(ids - rules.keys()))
    for path in python_files(root, ("tests",)):
        text = path.read_text()
        ids = cited(text)
        if path.name.startswith("test_"):
            in_tests |= ids
            in_tests |= {rule for _, words in docstrings(path, root) for rule in RULE_ID.findall(words)}
        name = path.relative_to(root)
        yield from (f"{name}: [{rule}] is not in docs/rules.md" for rule in sorted(ids - rules.keys()))
        unknown = sorted(set(THREAT_ID.findall(text)) - threats)
        yield from (f"{name}: {threat} is not in docs/threat-model.md" for threat in unknown)

    for rule, line in rules.items():
        if line.state != "done":
            continue
        if rule not in in_code:
            yield f"docs/rules.md: {rule} is done, but no docstring cites it"
        if rule not in in_tests:
            yield f"docs/rules.md: {rule} is done, but no test cites it"
        yield from (f"docs/rules.md: {rule} names {path}, which is not there"
                    for path in line.paths if not (root / path).exists())


def package_findings(root: Path) -> Iterator[str]:
    """Every package folder is in the distribution, and alembic/ does not shadow the library."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    mapped = set(project["tool"]["setuptools"]["package-dir"])
    found = {
        ".".join(path.parent.relative_to(root).parts)
        for package in PACKAGES
        for path in (root / package).rglob("__init__.py")
    }
    yield from (f"pyproject.toml: package {name} is not listed" for name in sorted(found - listed))
    yield from (f"pyproject.toml: {name} has no __init__.py" for name in sorted(listed - mapped - found))
    for path in (root / "alembic").rglob("__init__.py"):
        yield f"{path.relative_to(root)} would shadow the library alembic"


def verifier_findings(root: Path) -> Iterator[str]:
    """A customer runs por/verifier.py with nothing but Python. [R-22]"""
    path = root / "por" / "verifier.py"
    if not path.exists():
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        for name in names:
            if name.split(".")[0] not in sys.stdlib_module_names:
                yield f"por/verifier.py: imports {name}, which is not in the standard library"


def page_findings(root: Path) -> Iterator[str]:
    """Every decision is in the index, and every test folder that the threat model names exists."""
    decisions = root / "docs" / "decisions"
    index = (decisions / "README.md").read_text()
    for page in sorted(decisions.glob("[0-9]*.md")):
        if f"({page.name})" not in index:
            yield f"docs/decisions/README.md: {page.name} is not in the index"
    named = set(re.findall(r"`(tests/[^`]+)`", (root / "docs" / "threat-model.md").read_text()))
    yield from (f"docs/threat-model.md: {path} is not there" for path in sorted(named) if not (root / path).exists())


def written_rules(path: Path) -> dict[str, Rule]:
    """The table of docs/rules.md: `| id | … | module | test | state |`, and the ids that are only named for later."""
    rules: dict[str, Rule] = {}
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or not RULE_ID.fullmatch(cells[0]):
            continue
        named = tuple(re.findall(r"`([^`]+\.[a-z]+|[^`]+/)`", " ".join(cells[2:4])))
        rules[cells[0]] = Rule(cells[-1], named)
    return rules


def docstrings(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Every docstring of a file, with where it stands."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield f"{path.relative_to(root)}:{getattr(node, 'lineno', 1)}", text


def cited(text: str) -> set[str]:
    """The rule ids between square brackets; threats have their own list."""
    ids = {rule for group in BRACKETED.findall(text) for rule in RULE_ID.findall(group)}
    return {rule for rule in ids if not THREAT_ID.fullmatch(rule)}


def python_files(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """Our Python files in a stable order."""
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


if __name__ == "__main__":
    sys.exit(main())
