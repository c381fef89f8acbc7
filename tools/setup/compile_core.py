"""Compiles the pure core to C with mypyc, beside the sources: `make compile`, `make uncompile`.

What is compiled is a copy under `.compiled/source`; the extension modules and the manifest that names the sources
they were made from go to `.compiled`. `ledger/compiled.py` uses them only while every source is what the manifest says.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ledger import compiled

ROOT = Path(__file__).resolve().parents[2]

CORE = (
    "ledger/amounts.py",
    "ledger/blocks.py",
    "ledger/chart.py",
    "ledger/journal.py",
    "ledger/merkle.py",
    "ledger/writing.py",
    "engine/accounts.py",
    "engine/bands.py",
    "engine/book.py",
    "engine/clearing.py",
    "engine/clock.py",
    "engine/fees.py",
    "engine/formulas/bands.py",
    "engine/formulas/fees.py",
    "engine/formulas/lending.py",
    "engine/formulas/margin.py",
    "engine/formulas/pools.py",
    "engine/formulas/spot.py",
    "engine/lending.py",
    "engine/limits.py",
    "engine/liquidity.py",
    "engine/margin.py",
    "engine/matching.py",
    "engine/orders.py",
    "engine/outcome.py",
    "engine/outflows.py",
    "engine/owed.py",
    "engine/perpetuals.py",
    "engine/pool_epochs.py",
    "engine/pool_positions.py",
    "engine/pools.py",
    "engine/posting.py",
    "engine/pricing.py",
    "engine/rejections.py",
    "engine/replay.py",
    "engine/settlement.py",
    "engine/spare.py",
    "engine/spot_margin.py",
    "engine/state.py",
    "engine/transition.py",
    "engine/triggers.py",
)
"""What most of the time of `apply`, of hashing and of replay goes to. Modules whose structs are encoded stay Python."""

CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*$")


def main() -> int:
    """Build, or with `--remove` forget, the compiled core of this checkout. 2 when this machine cannot."""
    folder = ROOT / compiled.FOLDER
    if "--remove" in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)
        print("the core runs as Python")
        return 0
    lacking = missing_tools()
    if lacking:
        print(f"cannot compile: {lacking}; everything works without, as Python", file=sys.stderr)
        return 2
    # First the old build goes: whatever happens below, none is better than one of other sources.
    shutil.rmtree(folder, ignore_errors=True)
    digests = compiled.source_digests(ROOT)
    stage(folder / "source")
    # mypyc reads and writes relative to the working folder, and prints much; a process of its own keeps that apart.
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *CORE], cwd=folder / "source", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, env={**os.environ, compiled.SWITCH: "1"},
    )  # fmt: skip
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        print("the compiler refused: the core runs as Python", file=sys.stderr)
        return 1
    for library in (folder / "modules").glob("*.so"):
        (folder / "shared").mkdir(exist_ok=True)
        library.rename(folder / "shared" / library.name)
    compiled.write_manifest(folder, digests)
    print(f"compiled {len(CORE)} modules of the core; `make uncompile` goes back to Python")
    return 0


LEVEL = "SATCHEL_COMPILE_LEVEL"
"""Environment variable: the C compiler's -O, 3 when left out; tests that want the bytes and not the speed take 0."""

BUILD = f"""
import os
import sys
from mypyc.build import mypycify
from setuptools import Distribution

flags = ["--config-file", "pyproject.toml", "--no-warn-unused-ignores", *sys.argv[1:]]
level = os.environ.get({LEVEL!r}, "3")
modules = mypycify(flags, opt_level=level, debug_level="0", group_name={compiled.GROUP!r}, target_dir="c")
for module in modules:
    # Nobody reads warnings about C that mypyc wrote; looking for them is three quarters of a build at -O0.
    module.extra_compile_args.append("-Wno-all")
distribution = Distribution({{"name": {compiled.GROUP!r}, "ext_modules": modules}})
command = distribution.get_command_obj("build_ext")
command.build_lib, command.build_temp = "../modules", "objects"
command.ensure_finalized()
command.run()
"""


def missing_tools() -> str:
    """What this machine lacks for compiling, "" when nothing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return f"no Python.h under {sysconfig.get_path('include')} (on Debian, apt install python3-dev)"
    absent = [name for name in ("mypyc", "setuptools") if importlib.util.find_spec(name) is None]
    return f"no {absent[0]} in this environment (make setup)" if absent else ""


def stage(target: Path) -> None:
    """Copy the sources; in those to be compiled, structs become native classes."""
    for path in compiled.sources(ROOT):
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        copy.write_text(for_the_compiler(text) if str(path.relative_to(ROOT)) in CORE else text)
    shutil.copy(ROOT / "pyproject.toml", target)


def for_the_compiler(text: str) -> str:
    """The module as mypyc reads it best: `msgspec.Struct` as native class, constants as Final.

    A compiled module reads a native class's fields by offset; a msgspec struct's it would look up by name. In Python
    the struct is the quicker of the two, so the source keeps it. A constant that is Final is not looked up in its
    module. Ids of events and commands stay what they are: their structs are bytes, and those modules stay Python.
    """
    lines = text.splitlines()
    tree = ast.parse(text)
    rewritten: list[tuple[ast.stmt, list[ast.stmt]]] = [(struct, [native(struct)]) for struct in structs_of(tree)]
    rewritten += [(line, constants) for line in tree.body if (constants := final(line))]
    # From the end, so that the line numbers before stay true.
    for old, new in sorted(rewritten, key=lambda pair: -pair[0].lineno):
        lines[old.lineno - 1 : old.end_lineno] = [ast.unparse(line) for line in new]
    future = lines.index("from __future__ import annotations")
    lines[future] += "\nfrom typing import Final\nfrom mypy_extensions import mypyc_attr"
    return "\n".join(lines) + "\n"


def final(line: ast.stmt) -> list[ast.stmt]:
    """A module's `NAME = value` as `NAME: Final = value`, and `A, B = a, b` as two of them; nothing for other lines."""
    if not isinstance(line, ast.Assign):
        return []
    target, value = line.targets[0], line.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = list(zip(target.elts, value.elts, strict=True))
    return [
        ast.AnnAssign(name, ast.Name("Final"), constant, simple=1)
        for name, constant in pairs
        if isinstance(name, ast.Name) and CONSTANT.match(name.id)
    ]


def structs_of(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """The classes that derive from msgspec.Struct itself."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == ["msgspec.Struct"]:
            options = {keyword.arg for keyword in node.keywords}
            assert not options & {"array_like", "tag"}, f"{node.name} is encoded: its module cannot be compiled"
            yield node


def native(struct: ast.ClassDef) -> ast.ClassDef:
    """The struct as a class over the same fields: `__init__`, equality by value, without the collector for gc=False."""
    options = {ast.unparse(keyword) for keyword in struct.keywords}
    fields = [line for line in struct.body if isinstance(line, ast.AnnAssign)]
    names = [ast.unparse(field.target) for field in fields]
    parameters = ", ".join(
        f"{name}: {ast.unparse(field.annotation)}" + (f" = {ast.unparse(field.value)}" if field.value else "")
        for name, field in zip(names, fields, strict=True)
    )
    assignments = "\n".join(f"    self.{name} = {name}" for name in names)
    made = {"__init__": f"def __init__(self, {parameters}) -> None:\n{assignments}"}
    if "eq=False" not in options:
        same = " and ".join(f"self.{name} == other.{name}" for name in names)
        made["__eq__"] = (
            f"def __eq__(self, other: object) -> bool:\n    return isinstance(other, {struct.name}) and ({same})"
        )
    if "frozen=True" in options:
        values = ", ".join(f"self.{name}" for name in names)
        made["__hash__"] = f"def __hash__(self) -> int:\n    return hash(({values},))"
    written = {line.name for line in struct.body if isinstance(line, ast.FunctionDef)}
    for field in fields:
        field.value = None
    struct.bases, struct.keywords = [], []
    struct.decorator_list = [ast.parse("mypyc_attr(acyclic=True)", mode="eval").body] if "gc=False" in options else []
    struct.body += [line for name, code in made.items() if name not in written for line in ast.parse(code).body]
    return struct


if __name__ == "__main__":
    sys.exit(main())
