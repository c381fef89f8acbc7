"""Work on a copy-on-write image of this process: a child sees the state as it stands and answers over a pipe.   [R-1]

The parent goes on at once; the child computes, writes its answer and ends without running anything of the parent's.
"""

from __future__ import annotations

import os
import pickle
import struct
import traceback
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct(">Q")


class ForkFailed(Exception):
    """The child could not do its work; carries its traceback."""


class Forked:
    """A child process that runs `work(receive)`: `receive()` waits for what the parent sends; the result comes back.

    Parent and child are one program on one machine and the pipe is theirs alone, so pickle is safe between them.
    """

    def __init__(self, work: Callable[[Callable[[], Any]], Any]) -> None:
        read_question, write_question = os.pipe()
        read_answer, write_answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(write_question)
            os.close(read_answer)
            _run_child(work, read_question, write_answer)
        os.close(read_question)
        os.close(write_answer)
        self._question = write_question
        self._answer = read_answer

    def finish(self, question: Any = None) -> Any:
        """Send the child what it waits for and wait for its answer. Blocking; call it once, in a thread."""
        try:
            _write(self._question, question)
            os.close(self._question)
            ok, answer = _read(self._answer)
        except (OSError, EOFError) as error:
            raise ForkFailed(f"the child ended without an answer: {error}") from error
        finally:
            os.close(self._answer)
            os.waitpid(self.pid, 0)
        if not ok:
            raise ForkFailed(answer)
        return answer


def _run_child(work: Callable[[Callable[[], Any]], Any], question: int, answer: int) -> None:
    """Never returns: the parent's event loop, threads and exit handlers are not the child's."""
    try:
        try:
            outcome: tuple[bool, Any] = (True, work(lambda: _read(question)))
        except BaseException:
            outcome = (False, traceback.format_exc())
        _write(answer, outcome)
    finally:
        os._exit(0)


def _write(descriptor: int, content: Any) -> None:
    body = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    view = memoryview(_LENGTH.pack(len(body)) + body)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int) -> Any:
    (length,) = _LENGTH.unpack(_read_exactly(descriptor, _LENGTH.size))
    return pickle.loads(_read_exactly(descriptor, length))  # noqa: S301 - our own child, our own pipe


def _read_exactly(descriptor: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.read(descriptor, min(length, 1 << 20))
        if not part:
            raise EOFError("the pipe closed early")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
