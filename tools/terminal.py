"""What every command says and how it ends: data to stdout, words to stderr, progress on a terminal only, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

DEFAULT_DATA = Path(".devnet")
"""What `--data` is when it is left out; `make run` writes there."""

FINE = 0
FINDINGS = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130


class CannotRun(Exception):
    """The command could not do its work: what is wrong, and what to do next. Ends with exit code 2."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step


def print_json(document: Any) -> None:
    """One JSON document on stdout, indented, keys in the order given; the same data gives the same bytes."""
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(encoded.decode() + "\n")


def say(text: str) -> None:
    """Words for the person: to stderr, so that stdout stays data."""
    print(text, file=sys.stderr, flush=True)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Rows as plain aligned columns on stdout; `numbers` are the columns set to the right. Never cut to a width."""
    widths = [max([len(heading), *(len(row[at]) for row in rows)]) for at, heading in enumerate(headings)]
    print(_line(headings, widths, numbers))
    print("  ".join("─" * width for width in widths))
    for row in rows:
        print(_line(row, widths, numbers))


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[int]) -> str:
    pairs = enumerate(zip(cells, widths, strict=True))
    return "  ".join(cell.rjust(width) if at in numbers else cell.ljust(width) for at, (cell, width) in pairs).rstrip()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr while the block runs; the function given takes (done, total or nothing).

    Silent when stderr is no terminal, so that logs stay readable; NO_COLOR is rich's to obey.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


def run(body: Callable[[], int], as_json: bool = False) -> int:
    """Run a command's body and turn what went wrong into words and an exit code.

    With `as_json` the words are the one JSON document on stdout: {"error": {"code", "message", "next"}}.
    """
    try:
        code = body()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except KeyboardInterrupt:
        tell_failure("INTERRUPTED", "interrupted", "", as_json)
        return INTERRUPTED
    except Exception as problem:
        words = _failure(problem)
        if words is None:
            raise
        tell_failure(*words, as_json)
        return COULD_NOT_RUN


def tell_failure(code: str, what: str, next_step: str, as_json: bool) -> None:
    """What went wrong and what to do next: words on stderr, or a document on stdout where one was asked for."""
    if as_json:
        print_json({"error": {"code": code, "message": what, "next": next_step or None}})
        sys.stdout.flush()
        return
    say(f"satchel: {what}")
    if next_step:
        say(f"  next: {next_step}")


def _failure(problem: Exception) -> tuple[str, str, str] | None:
    """Code, words and next step of what can go wrong outside of us; None for a bug of ours."""
    if isinstance(problem, CannotRun):
        return "CANNOT_RUN", problem.what, problem.next_step
    if isinstance(problem, ModuleNotFoundError):
        step = "check --database (SQLite or PostgreSQL), or install the extras: satchel-exchange[postgres,evm]"
        return "LIBRARY_MISSING", f"the library {problem.name} is not installed", step
    if isinstance(problem, OSError):
        return "FILE", str(problem), "check that the file or folder exists and that this user may read it"
    # By name: nobody waits for a database library to be imported that the command does not need.
    origin = type(problem).__module__
    if origin.startswith(("sqlalchemy.", "ledger.store")):
        what = "the log cannot be read" if origin == "ledger.store" else "the database refused"
        step = "check --database and that the server is up; `satchel verify-journal` looks at what is stored"
        return "DATABASE", f"{what}: {str(problem).splitlines()[0]}", step
    return None
