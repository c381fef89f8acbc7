"""A `satchel serve --devnet` as a child process: start it, wait until it listens, stop it or kill it."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_SECONDS = 90.0
STOP_SECONDS = 20.0
LISTENING = "listening on http"


class NotStarted(Exception):
    """The node ended, or said nothing, before it listened; its last words are in the message."""


class NodeProcess:
    """One child in a session of its own: Ctrl-C reaches us alone. Should we be killed, the kernel tells it to stop."""

    def __init__(
        self,
        data: Path,
        database: str | None = None,
        port: int = 0,
        echo: Callable[[str], None] | None = None,
        genesis: Path | None = None,
    ) -> None:
        self.data = data
        self.database = database
        self.port = port
        self.genesis = genesis
        self.url = ""
        self.last_words: deque[str] = deque(maxlen=200)
        self._echo = echo
        self._process: asyncio.subprocess.Process | None = None
        self._relays: list[asyncio.Task[None]] = []
        self._listening: asyncio.Future[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node was not started"
        return self._process.pid

    async def start(self) -> str:
        """Start, and return its URL once it listens."""
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        command = [sys.executable, "-m", "tools.cli", "serve", "--devnet"]
        command += ["--data", str(self.data), "--port", str(self.port)]
        command += ["--database", self.database] if self.database is not None else []
        command += ["--genesis", str(self.genesis)] if self.genesis is not None else []
        self._listening = asyncio.get_running_loop().create_future()
        process = await asyncio.create_subprocess_exec(
            *guard,
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=own_environment(),
            limit=1 << 20,
        )
        self._process = process
        assert process.stdout is not None and process.stderr is not None
        self._relays = [asyncio.create_task(self._relay(stream)) for stream in (process.stdout, process.stderr)]
        ended = asyncio.ensure_future(process.wait())
        waits: set[asyncio.Future[Any]] = {self._listening, ended}
        await asyncio.wait(waits, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self._listening.done():
            self.url = self._listening.result()
            return self.url
        await self.kill()
        code = f"ended with code {process.returncode}" if ended.done() else f"said nothing in {START_SECONDS:.0f} s"
        raise NotStarted(f"the exchange {code}: " + "\n".join(self.last_words))

    async def wait(self) -> int:
        """Its exit code, once it has ended and everything it said was heard."""
        assert self._process is not None, "the node was not started"
        code = await self._process.wait()
        await asyncio.gather(*self._relays)
        return code

    async def stop(self) -> int:
        """Ask it to end (SIGTERM); kill it when it does not. Returns its exit code."""
        assert self._process is not None, "the node was not started"
        if self._process.returncode is None:
            self._process.terminate()
        try:
            return await asyncio.wait_for(asyncio.shield(self.wait()), STOP_SECONDS)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """kill -9 of the whole session: the node and every process it started, at once."""
        assert self._process is not None, "the node was not started"
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return await self.wait()

    def limit_file_size(self, size: int) -> None:
        """From now on no file of the node grows beyond `size` bytes: to it the disk is full."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self.last_words.append(line)
            if self._echo is not None:
                self._echo(line)
            if LISTENING in line and self._listening is not None and not self._listening.done():
                self._listening.set_result("http" + line.split(LISTENING, 1)[1].split()[0].rstrip('",}'))


def own_environment() -> dict[str, str]:
    """The child finds the same code as we do, wherever it is started from."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root, "PYTHONUNBUFFERED": "1"}
