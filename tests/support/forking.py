"""Code that runs in a forked child."""

import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable

from .waiting import DEADLINE


def in_child(function: Callable[[], object]) -> str:
    """Fork, run `function` in the child and return the repr of its result; a child that hangs is ended and fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _be_child(function, writer)
    os.close(writer)
    try:
        return _read(reader, child)
    finally:
        os.close(reader)
        _, status = os.waitpid(child, 0)
        assert status == 0, f"the child ended with status {status}"


def _be_child(function: Callable[[], object], writer: int) -> None:
    """Never returns: nothing of the parent's test run may go on in the child."""
    status = 1
    try:
        answer = repr(function())
        status = 0
    except BaseException:
        answer = traceback.format_exc()
    finally:
        try:
            os.write(writer, answer.encode()[:60_000])
        finally:
            os._exit(status)


def _read(reader: int, child: int) -> str:
    content, ends = b"", time.monotonic() + DEADLINE
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, ends - time.monotonic()))
        if not ready:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"the child hangs, having said {content.decode()!r}")
        part = os.read(reader, 65_536)
        if not part:
            return content.decode()
        content += part


class Busy:
    """Threads that call a function over and over, so that a fork finds them in the middle of something."""

    def __init__(self, function: Callable[[], object], *, threads: int = 3) -> None:
        self._function = function
        self._ends = threading.Event()
        self.rounds = 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        try:
            while not self._ends.is_set():
                self._function()
                self.rounds += 1
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> "Busy":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads), "a busy thread hangs"
        assert not self.errors, self.errors
