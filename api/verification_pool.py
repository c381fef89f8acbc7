"""Ed25519 verification beside the event loop: worker processes that are fed in batches, or none and it runs inline.

One verification costs 60–110 µs, more than everything else a request needs; a worker takes it to another core for the
price of a few hundred bytes on a socket. What waits while the loop is busy goes out together, in one write.   [W-1]
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections import deque

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

_HEAD = struct.Struct(">I32s64s")
"""Length of the text, public key, signature."""

_BUFFER = 1 << 20


def is_signed(public_key: bytes, signature: bytes, text: bytes) -> bool:
    """One full Ed25519 check (libsodium: strict, cofactorless, small-order keys refused)."""
    try:
        crypto_sign_open(signature + text, public_key)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


class VerificationPool:
    """Answers `verify` in the order asked; with 0 workers it checks inline."""

    def __init__(self, workers: int = 0) -> None:
        self._count = workers
        self._workers: list[_Worker] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            self._workers.append(_Worker(loop))

    async def verify(self, public_key: bytes, signature: bytes, text: bytes) -> bool:
        """Whether `signature` is `public_key`'s over exactly `text`."""
        alive = [worker for worker in self._workers if worker.alive]
        if not alive:
            return is_signed(public_key, signature, text)
        worker = min(alive, key=_Worker.load)
        return await worker.verify(public_key, signature, text)

    async def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()


class _Worker:
    """One process and what it has not answered yet. If it dies, its questions are answered inline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.set_inheritable(True)
        package_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api.verification_pool", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=package_root,
            # Ctrl-C in the terminal is the server's to answer.
            start_new_session=True,
        )
        theirs.close()
        self.alive = True
        self._socket = ours
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Future[bool], bytes, bytes, bytes]] = deque()
        self._outgoing = bytearray()
        self._scheduled = False
        self._writing = False
        loop.add_reader(ours, self._read)

    def load(self) -> int:
        return len(self._waiting)

    def verify(self, public_key: bytes, signature: bytes, text: bytes) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append((future, public_key, signature, text))
        self._outgoing += _HEAD.pack(len(text), public_key, signature)
        self._outgoing += text
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write)
        return future

    def _write(self) -> None:
        self._scheduled = False
        if not self.alive:
            return
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        del self._outgoing[:sent]
        if self._outgoing and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._write)
        elif not self._outgoing and self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            answers = self._socket.recv(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            answers = b""
        if not answers:
            self._lost()
            return
        for answer in answers:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_result(answer == 1)

    def _lost(self) -> None:
        self.close()
        while self._waiting:
            future, public_key, signature, text = self._waiting.popleft()
            if not future.done():
                future.set_result(is_signed(public_key, signature, text))

    def close(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        # The worker ends when its end of the socket does.
        self._socket.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def work(handle: int) -> None:
    """The worker: read questions, answer each with one byte, in order; end when the socket does."""
    connection = socket.socket(fileno=handle)
    received = bytearray()
    while True:
        chunk = connection.recv(_BUFFER)
        if not chunk:
            return
        received += chunk
        answers = bytearray()
        at = 0
        while len(received) - at >= _HEAD.size:
            length, public_key, signature = _HEAD.unpack_from(received, at)
            end = at + _HEAD.size + length
            if len(received) < end:
                break
            text = bytes(received[at + _HEAD.size : end])
            answers.append(is_signed(public_key, signature, text))
            at = end
        del received[:at]
        if answers:
            connection.sendall(answers)


if __name__ == "__main__":
    work(int(sys.argv[1]))
