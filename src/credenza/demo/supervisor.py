"""Keeps several workers running: processes that serve one port."""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

from .board import Board, cells_of
from .errors import DemoError
from .settings import Settings
from .spawning import without_ctrl_c
from .worker import work

_POLL = 0.1
_START_SECONDS = 60.0  # a slow machine that starts many interpreters at once
_END_SECONDS = 5.0
_MOST_FAILED_STARTS = 3


@dataclass(slots=True)
class _Worker:
    """One process and the line to it.

    Attributes:
        number: which one, counted from 0.
        is_ready: it answers now.
        has_served: it has come to answer.
        failed_starts: how many before it, in a row, have not.
    """

    number: int
    process: SpawnProcess
    line: Any  # Any: the end of a pipe, which is of another class on Windows
    is_ready: bool = False
    has_served: bool = False
    failed_starts: int = 0


class Workers:
    """The workers of one service: started with the block, started anew when one ends, all ended with the block.

    They are spawned, not forked. Each ends by itself when this process is gone, however that came about.

    Args:
        settings: how they serve.
        listeners: where, one for each; they stay the caller's.
        say: takes a message for the user.

    Attributes:
        board: the counters of all.
    """

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket], say: Callable[[str], None]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._settings = settings
        self._listeners = listeners
        self._say = say
        self._cells = self._context.RawArray("d", cells_of(settings.workers))
        self.board = Board(settings.workers, self._cells)
        self._lock = threading.Lock()  # guards the workers, the failure, and whether it stops
        self._workers: list[_Worker] = []
        self._failure: str | None = None
        self._is_stopping = False
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        """Start all; returns when each of them answers.

        Raises:
            DemoError: one of them does not.
        """
        try:
            for number in range(self._settings.workers):
                self._workers.append(self._started(number))
            self._watcher.start()
            ends = time.monotonic() + _START_SECONDS
            while not self.are_ready():
                if time.monotonic() > ends:
                    raise DemoError(
                        f"the workers do not answer within {_START_SECONDS:.0f} s; try fewer with --workers"
                    )
                time.sleep(_POLL / 4)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def are_ready(self) -> bool:
        """Tell whether all workers answer.

        Raises:
            DemoError: one cannot be started any more.
        """
        with self._lock:
            if self._failure is not None:
                raise DemoError(self._failure)
            return all(worker.is_ready for worker in self._workers)

    def wait(self) -> None:
        """Block as long as all goes well; Ctrl+C is how that ends.

        Raises:
            DemoError: a worker cannot be started any more.
        """
        while True:
            self.are_ready()
            time.sleep(_POLL)

    def kill(self, worker: str) -> None:
        """End one worker, known by its name, without a word to it; another is started in its place."""
        with self._lock:
            victim = self._workers[int(worker) - 1]
            victim.is_ready = False
            victim.process.kill()

    def _started(self, number: int, failed_starts: int = 0) -> _Worker:
        line, their_line = self._context.Pipe()
        process = self._context.Process(
            target=work,
            args=(self._settings, number, self._cells, self._listeners[number], their_line),
            name=f"worker-{number + 1}",
            daemon=True,
        )
        with without_ctrl_c():
            process.start()
        their_line.close()  # only the worker has it now, so that either sees the other's end
        return _Worker(number, process, line, failed_starts=failed_starts)

    def _watch(self) -> None:
        """See workers get ready and end; runs in a thread."""
        while True:
            with self._lock:
                if self._is_stopping or self._failure is not None:
                    return
                ends: list[int] = [worker.process.sentinel for worker in self._workers]
                lines = [worker.line for worker in self._workers if not worker.has_served]
            connection.wait([*ends, *lines], _POLL)
            with self._lock:
                if self._is_stopping:
                    return
                for worker in self._workers:
                    self._look_after(worker)

    def _look_after(self, worker: _Worker) -> None:
        """Note that a worker has got ready, or replace it if it has ended; the lock is held."""
        if worker.process.exitcode is None:
            if not worker.has_served and _has_said_so(worker.line):
                worker.is_ready = worker.has_served = True
            return
        cause = _cause(worker.process.exitcode)
        failed = 0 if worker.has_served else worker.failed_starts + 1
        if failed >= _MOST_FAILED_STARTS:
            self._failure = f"worker {worker.number + 1} cannot be started, {cause}; what it wrote is above"
            return
        self._say(f"Worker {worker.number + 1} has ended, {cause}; another is started in its place.")
        self._workers[worker.number] = self._started(worker.number, failed)
        worker.line.close()
        _end_process(worker.process, time.monotonic())

    def _end(self) -> None:
        with self._lock:
            self._is_stopping = True
        if self._watcher.is_alive():
            self._watcher.join()
        for worker in self._workers:
            worker.line.close()  # each reads that as the word to stop
        ends = time.monotonic() + _END_SECONDS
        for worker in self._workers:
            _end_process(worker.process, ends)
        self._workers = []


def _end_process(process: SpawnProcess, ends: float) -> None:
    """End a process that should have ended by then."""
    process.join(max(ends - time.monotonic(), 0.0))
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()


def _has_said_so(line: Any) -> bool:  # Any: as above
    try:
        return line.poll() and bool(line.recv())
    except (EOFError, OSError):
        return False


def _cause(exitcode: int) -> str:
    if exitcode < 0:
        return f"by {signal.Signals(-exitcode).name}"
    return f"with status {exitcode}"
