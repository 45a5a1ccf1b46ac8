"""A process that forks writers: it has imported everything, and has no thread, no journal and no connection.

It is told what to do over a socket, in lines, with the pipe that a new writer is to report to. It ends when the socket does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.kills.plan import Orders
from bench.kills.records import Listener, Record

ROOT = Path(__file__).resolve().parent.parent.parent
_MOST_BYTES = 1 << 16
_SECONDS = 20.0


class Nursery:
    """Starts writers. Not thread-safe; use it in a `with` block, which ends all of them."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(_SECONDS)
        command = [sys.executable, "-m", "bench.kills.nursery", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()
        try:
            self._process.wait(_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def start(self, orders: Orders) -> Child:
        """Start a writer."""
        reading, writing = os.pipe()
        try:
            pid = self._ask({"fork": orders.as_text()}, [writing])
        finally:
            os.close(writing)
        return Child(self, pid, reading)

    def end(self, pid: int, number: int) -> int:
        """Send a signal to a writer, wait for its end, and return its exit status, negative for a signal."""
        return self._ask({"end": pid, "signal": number}, [])

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a writer."""
        self._ask({"signal": number, "pid": pid}, [])

    def _ask(self, message: dict[str, Any], descriptors: list[int]) -> int:
        socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)
        answer = self._socket.recv(64)
        if not answer:
            raise RuntimeError("the process that starts writers has ended; what it said is above")
        return int(answer)


class Child:
    """A writer process, seen from outside.

    Attributes:
        status: how it ended, negative for a signal; to be looked at after `kill`.
        has_ended: all that it has reported was read.
    """

    def __init__(self, nursery: Nursery, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._descriptor = descriptor
        self._listener = Listener()
        self._heard: deque[Record] = deque()
        self.status = 0
        self.has_ended = False

    def records(self, seconds: float) -> Iterator[Record]:
        """Yield what it reports for so long, or until it has ended. Whoever stops early finds the rest in the next call."""
        ends = time.monotonic() + seconds
        while True:
            while self._heard:
                yield self._heard.popleft()
            left = ends - time.monotonic()
            if self.has_ended or left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                return
            self._take()

    def kill(self) -> Iterator[Record]:
        """Kill it, wait for its end, and yield what it had reported."""
        self.status = self._nursery.end(self.pid, signal.SIGKILL)
        while not self.has_ended:
            self._take()
        yield from self._heard
        self._heard.clear()

    def stop(self) -> None:
        """Ask it to end."""
        self._nursery.signal(self.pid, signal.SIGTERM)

    def _take(self) -> None:
        data = os.read(self._descriptor, _MOST_BYTES)
        if not data:
            self.has_ended = True
            os.close(self._descriptor)
        self._heard.extend(self._listener.take(data))


# The process itself ---------------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Start and end writers as asked, until nobody asks any more."""
    children: set[int] = set()
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 1)
            if not data:
                return
            message = json.loads(data)
            if "fork" in message:
                answer = _fork(Orders.from_text(message["fork"]), descriptors[0], channel)
                children.add(answer)
                os.close(descriptors[0])
            elif "end" in message:
                answer = _end(message["end"], message["signal"])
                children.discard(message["end"])
            else:
                os.kill(message["pid"], message["signal"])
                answer = 0
            channel.sendall(str(answer).encode())
    finally:
        for pid in children:
            _end(pid, signal.SIGKILL)


def _fork(orders: Orders, descriptor: int, channel: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        channel.close()
        from bench.kills.writer import work

        work(orders, descriptor)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _end(pid: int, number: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _import_all() -> None:
    """Import what writers need, before there are any."""
    import importlib

    for name in ("bench.kills.writer", "credenza.journal.sqlite", "credenza.journal.redis", "psycopg"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it closes the socket
    _import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
