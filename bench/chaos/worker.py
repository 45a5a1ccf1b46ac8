"""One process of a run: readers and writers in threads and in tasks, until it is time or it is killed."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.chaos.history import READ, Recorder
from bench.chaos.plan import ROWS, Orders
from bench.chaos.shelves import Shelf, open_shelf

_SYNC_READERS = 2
_ASYNC_READERS = 4
_READ_PAUSE = 0.006
_BURST = 5
_WRITE_PAUSE = 0.35
_LONGEST_START = 60.0
_KILLS = 0.0015
"""How probable it is at each step of a write that the process kills itself there."""


class Worker:
    """Reads and writes over a shelf, and records it."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._recorder = Recorder(Path(orders.path))
        self._random = random.Random(orders.seed)
        self._shelf: Shelf = open_shelf(orders, self._recorder, self._step)
        self._errors = Path(orders.path).with_suffix(".errors")
        self._ends = threading.Event()
        # A strict write keeps its row behind the fence for `max_staleness`; others should be read from memory meanwhile.
        waits = orders.arm.coherence == "strict" and not orders.arm.is_control
        self._write_pause = _WRITE_PAUSE + (5 * orders.max_staleness if waits else 0)

    def run(self) -> None:
        """Work from the start to the end, then leave the statistics beside the history."""
        until = self._wait_for_the_start()
        loops = [self._read_in_thread] * _SYNC_READERS + [self._write_in_thread, self._run_tasks]
        threads = [threading.Thread(target=self._guarded, args=(loop,), daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        parent = os.getppid()
        while time.monotonic_ns() < until and os.getppid() == parent:
            time.sleep(0.02)
        self._ends.set()
        for thread in threads:
            thread.join(4.0)
        hanging = [thread.name for thread in threads if thread.is_alive()]
        if hanging:
            self._complain(f"hangs at the end: {hanging}")
        Path(self._orders.path).with_suffix(".json").write_text(json.dumps(self._shelf.statistics()))
        self._shelf.close()

    def _wait_for_the_start(self) -> int:
        Path(self._orders.path).with_suffix(".ready").touch()
        ends = time.monotonic() + _LONGEST_START
        while time.monotonic() < ends:
            try:
                return int(Path(self._orders.start).read_text())
            except (FileNotFoundError, ValueError):
                time.sleep(0.005)
        return 0

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException:
            self._complain(traceback.format_exc())

    def _complain(self, text: str) -> None:
        with self._errors.open("a") as file:
            file.write(text + "\n")

    def _step(self) -> None:
        """Be at some step of a write; now and then that is the last one."""
        if self._orders.kills_itself and self._random.random() < _KILLS:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, found: Mapping[int, int], begin: int, end: int) -> None:
        for row, version in found.items():
            self._recorder.note(READ, row, version=version, begin=begin, end=end)

    # Threads ----------------------------------------------------------------------------------------------------------

    def _read_in_thread(self) -> None:
        while not self._ends.wait(random.random() * _READ_PAUSE):
            for _ in range(_BURST):
                begin = time.monotonic_ns()
                found = self._shelf.read(random.randrange(ROWS))
                end = time.monotonic_ns()
                self._note(found, begin, end)

    def _write_in_thread(self) -> None:
        while not self._ends.wait(random.random() * self._write_pause):
            self._shelf.write(_skewed())

    # Tasks ------------------------------------------------------------------------------------------------------------

    def _run_tasks(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(_ASYNC_READERS):
                group.create_task(self._read_in_task())
            group.create_task(self._write_in_task())
        await self._shelf.close_async()

    async def _read_in_task(self) -> None:
        while not self._ends.is_set():
            await asyncio.sleep(random.random() * 2 * _READ_PAUSE)
            for _ in range(_BURST):
                begin = time.monotonic_ns()
                found = await self._shelf.read_async(random.randrange(ROWS))
                end = time.monotonic_ns()
                self._note(found, begin, end)

    async def _write_in_task(self) -> None:
        while not self._ends.is_set():
            await self._pause(random.random() * self._write_pause)
            await self._shelf.write_async(_skewed())

    async def _pause(self, seconds: float) -> None:
        """Rest, but not beyond the end."""
        ends = time.monotonic() + seconds
        while not self._ends.is_set() and (left := ends - time.monotonic()) > 0:  # noqa: ASYNC110  # threads say when
            await asyncio.sleep(min(left, 0.1))


def _skewed() -> int:
    """Return a row; some are written often, others hardly ever, so that their values are kept for a while."""
    return int(ROWS * random.random() ** 2)


def main(arguments: Any) -> None:
    """Run the orders on the command line."""
    faulthandler.register(signal.SIGUSR1)  # shows where the threads of a process are that does not go on
    worker = Worker(Orders.from_text(arguments[1]))
    worker.run()
    sys.stdout.flush()
    os._exit(0)  # nothing may keep the process from ending in time


if __name__ == "__main__":
    main(sys.argv)
