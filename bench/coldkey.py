"""One cold key and a crowd: P10, how often the source is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from bench import ours
from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread
from bench.peers import ASYNC_PEERS, SYNC_PEERS, Peer
from bench.scale import Scale

TASKS = 10_000
THREADS = 64
LOAD_SECONDS = 0.3
KEY = "cold"


class Count:
    """A loader that takes a while and counts its runs."""

    def __init__(self) -> None:
        self.loads = 0
        self._lock = threading.Lock()

    def load(self, key: str) -> str:
        """Load slowly in a thread."""
        with self._lock:
            self.loads += 1
        time.sleep(LOAD_SECONDS)
        return key

    async def load_async(self, key: str) -> str:
        """Load slowly in a task."""
        with self._lock:
            self.loads += 1
        await asyncio.sleep(LOAD_SECONDS)
        return key


def cold_key(_: Scale) -> Result:
    """Count the loads of crowds of tasks, of threads, and of both at once."""
    mine = [
        (f"{TASKS:,} tasks", ours.NAME, _loads_of_tasks(ours.cached)),
        (f"{THREADS} threads", ours.NAME, _loads_of_threads(ours.cached)),
        (f"{TASKS:,} tasks and {THREADS} threads on one cache", ours.NAME, _loads_of_both()),
    ]
    rows = [(crowd, name, f"{loads:,}") for crowd, name, loads in mine]
    rows += [
        (f"{TASKS:,} tasks", peer.name, _or_failure(_loads_of_tasks, peer))
        for peer in ASYNC_PEERS
        if peer.is_installed()
    ]
    rows += [
        (f"{THREADS} threads", peer.name, _or_failure(_loads_of_threads, peer))
        for peer in SYNC_PEERS
        if peer.is_installed()
    ]
    most = float(max(loads for _, _, loads in mine))
    counts = ", ".join(f"{loads:,}" for _, _, loads in mine)
    table = Table("Loads of one cold key", ("crowd", "contender", "loads"), rows)
    return Result(
        (Outcome(GOALS["P10"], Spread(most, most, most), counts, note="tasks, threads, both at once"),), (table,)
    )


def _or_failure(loads_of: Callable[..., int], peer: Peer) -> str:
    """Count a peer's loads; a peer that fails its callers is shown with its error."""
    try:
        return f"{loads_of(peer.build):,}"
    except Exception as exc:
        first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        return f"failed: {type(first).__name__}"


def _loads_of_tasks(build: Callable[[Callable[[str], Awaitable[str]]], Callable[[str], Awaitable[object]]]) -> int:
    count = Count()
    function = build(count.load_async)
    asyncio.run(_crowd(function))
    return count.loads


async def _crowd(function: Callable[[str], Awaitable[object]]) -> None:
    async def ask() -> None:
        assert await function(KEY) == KEY

    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(ask())


def _loads_of_threads(build: Callable[[Callable[[str], str]], Callable[[str], object]]) -> int:
    count = Count()

    def load(key: str) -> str:  # dogpile sets attributes on what it decorates, which a method refuses
        return count.load(key)

    function = build(load)
    for thread in _start_threads(lambda: function(KEY)):
        thread.join()
    return count.loads


def _loads_of_both() -> int:
    """Let tasks and threads ask one cache for one key through its two faces."""
    count = Count()
    cache = ours.new_cache()
    threads = _start_threads(lambda: cache.get_or_load(KEY, lambda: count.load(KEY)))
    asyncio.run(_crowd(lambda key: cache.aio.get_or_load(key, lambda: count.load_async(key))))
    for thread in threads:
        thread.join()
    return count.loads


def _start_threads(ask: Callable[[], object]) -> list[threading.Thread]:
    ready = threading.Barrier(THREADS)

    def work() -> None:
        ready.wait()
        ask()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads
