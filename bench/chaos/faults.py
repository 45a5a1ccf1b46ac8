"""What goes wrong during a run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import redis
from tests.support.servers import RedisServer

from bench.chaos.checker import Loss
from bench.chaos.plan import NAMESPACE

_LONGEST_STOP = 2.5
_FILL_BYTES = 10_000
_ROOM_BYTES = 150_000
_WORKER_PAUSE, _SERVER_PAUSE = 1.0, 2.0
"""The longest pauses between two faults, in seconds."""


class Faults:
    """Injects faults at random until it is told to end; two threads, for the processes and for the server.

    Args:
        workers: the processes that run now.
        replace: starts a process in the place of a killed one.
        has_losses: the server may lose what it was given, too.

    Attributes:
        counts: how many of each kind.
        losses: what the tier lost, and when.
    """

    def __init__(
        self,
        server: RedisServer,
        workers: list[subprocess.Popen[bytes]],
        replace: Callable[[int], None],
        *,
        max_staleness: float,
        seed: int,
        has_losses: bool,
    ) -> None:
        self._server = server
        self._workers = workers
        self._replace = replace
        self._max_staleness = max_staleness
        self._random = random.Random(seed)
        self._ends = threading.Event()
        self.counts: Counter[str] = Counter()
        self.losses: list[Loss] = []
        self._evictions = _Evictions(server, self.losses)
        of_workers = (self._stop_worker, self._stop_worker, self._kill_worker, self._kill_connections)
        of_server = (self._freeze_server, self._flush_scripts, self._kill_connections)
        if has_losses:
            of_server += (self._flush_all, self._restart_server, self._evict)
        self._threads = [
            threading.Thread(target=self._inject, args=arguments, daemon=True)
            for arguments in ((of_workers, _WORKER_PAUSE), (of_server, _SERVER_PAUSE))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and leave nothing frozen or shrunk."""
        self._ends.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(10)
        self._evictions.stop()

    def _inject(self, choices: tuple[Callable[[], None], ...], longest_pause: float) -> None:
        while not self._ends.wait(self._random.random() * longest_pause):
            with contextlib.suppress(redis.RedisError):
                self._random.choice(choices)()

    # Processes --------------------------------------------------------------------------------------------------------

    def _stop_worker(self) -> None:
        worker = self._random.choice(self._workers)
        seconds = self._random.uniform(0.1, min(_LONGEST_STOP, 5 * self._max_staleness))
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGSTOP)
            try:
                self._ends.wait(seconds)
            finally:
                os.kill(worker.pid, signal.SIGCONT)
            self.counts["SIGSTOP of a process"] += 1

    def _kill_worker(self) -> None:
        place = self._random.randrange(len(self._workers))
        self._workers[place].kill()
        self._workers[place].wait()
        self.counts["SIGKILL of a process"] += 1
        self._replace(place)

    # The server -------------------------------------------------------------------------------------------------------

    def _client(self) -> redis.Redis:
        return self._server.client(socket_timeout=5)

    def _kill_connections(self) -> None:
        with self._client() as client:
            killed: Any = client.client_kill_filter(_type="normal", skipme=True)
        self.counts["CLIENT KILL, connections"] += int(killed)

    def _freeze_server(self) -> None:
        self._server.pause()
        try:
            self._ends.wait(self._random.uniform(0.3, 1.2))
        finally:
            self._server.resume()
        self.counts["SIGSTOP of the server"] += 1

    def _flush_scripts(self) -> None:
        with self._client() as client:
            client.script_flush()
        self.counts["SCRIPT FLUSH"] += 1

    def _flush_all(self) -> None:
        begin = time.monotonic_ns()
        with self._client() as client:
            client.flushall()
        self.losses.append(Loss(begin, time.monotonic_ns()))
        self.counts["FLUSHALL"] += 1

    def _restart_server(self) -> None:
        begin = time.monotonic_ns()
        self._server.kill9()
        self._ends.wait(self._random.random() * 0.3)
        self._server.start()
        self.losses.append(Loss(begin, time.monotonic_ns()))
        self.counts["restart of the server"] += 1

    def _evict(self) -> None:
        """Leave the server hardly any memory for a while, and fill it, so that it evicts what it likes."""
        self._evictions.wait_until_listening()
        before = len(self.losses)
        try:
            with self._client() as client:
                self._fill(client)
        finally:
            self._make_room()
        self.counts["evicted records"] += sum(bool(loss.name) for loss in self.losses[before:])

    def _fill(self, client: redis.Redis) -> None:
        used: Any = client.info("memory")["used_memory"]
        client.config_set("maxmemory-policy", self._random.choice(("allkeys-lru", "allkeys-random")))
        client.config_set("maxmemory", used + _ROOM_BYTES)
        ends = time.monotonic() + 1.0
        number = 0
        while time.monotonic() < ends and not self._ends.is_set():
            number += 1
            client.set(f"filler:{number}", os.urandom(_FILL_BYTES), px=3_000)
            time.sleep(0.002)

    def _make_room(self) -> None:
        """Give the server its memory back; this connection may be killed like any other."""
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            with contextlib.suppress(redis.RedisError), self._client() as client:
                client.config_set("maxmemory", 0)
                return


class _Evictions:
    """Listens to the server for the names of evicted records."""

    def __init__(self, server: RedisServer, losses: list[Loss]) -> None:
        self._server = server
        self._losses = losses
        self._ends = threading.Event()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_until_listening(self) -> None:
        """Return when no eviction can be missed."""
        self._listens.wait(5)

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(redis.RedisError), self._server.client(socket_timeout=30) as client:
                client.config_set("notify-keyspace-events", "Ee")
                self._listen(client)
            self._listens.clear()
            time.sleep(0.02)

    def _listen(self, client: redis.Redis) -> None:
        with client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe("__keyevent@0__:evicted")
            channel.get_message(timeout=1)
            self._listens.set()
            while not self._ends.is_set():
                message = channel.get_message(timeout=0.1)
                name = message["data"].decode(errors="replace") if message else ""
                if name.startswith(NAMESPACE):
                    now = time.monotonic_ns()
                    # Heard a little after it happened; how much, nobody knows on a busy machine.
                    self._losses.append(Loss(now - 1_500_000_000, now, name.removeprefix(NAMESPACE)))
