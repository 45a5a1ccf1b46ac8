"""Many processes and one cold key: S6, how often the source is asked.

Each process is started with this module, says that it is ready, waits for the others, and prints how often it loaded, and how
often it lost the tier.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread
from bench.peers import is_installed
from bench.scale import Scale
from bench.server import NEEDED, unmeasured
from credenza.events import Event, EventKind

PROCESSES = 8
TASKS = 200
DOGPILE_THREADS = 25
"""In place of tasks; each asks the server for the lock ten times a second until it has it."""

LOAD_SECONDS = 0.5
PATIENCE_SECONDS = 30
PEERS = {"cashews": "cashews", "aiocache": "aiocache", "dogpile.cache": "dogpile"}
READY = "ready"


class Crowd(NamedTuple):
    """What became of a crowd: how often it loaded, and in how many processes the tier did not answer in time.

    A process that has lost the tier loads once for itself, as it promises: on a machine that is too busy the figures say so.
    """

    loads: int
    lost: int


def cold_key_of_processes(scale: Scale) -> Result:
    """Count the loads of crowds in many processes, over Redis and over a file, each over a tier of its own."""
    if not is_installed("msgspec"):
        return unmeasured(("S6",), "not measured: msgspec not installed")
    with tempfile.TemporaryDirectory(prefix="credenza-bench-") as folder:
        mine = {"SQLite": crowd_of("credenza", f"sqlite:///{Path(folder) / 'cold.db'}")}
    rows = []
    for url in _servers():
        mine["Redis"] = crowd_of("credenza", url)
    if "Redis" in mine and not scale.is_quick:
        rows = [("Redis", name, _loads_of_peer(name), "") for name, module in PEERS.items() if is_installed(module)]
    rows = [(tier, "credenza", str(crowd.loads), str(crowd.lost)) for tier, crowd in mine.items()] + rows
    table = Table(
        f"Loads of one cold key, {PROCESSES} processes x {TASKS} tasks",
        ("tier", "cache", "loads", "processes that lost the tier"),
        rows,
        f"Every load takes {LOAD_SECONDS:g} s. dogpile.cache has {DOGPILE_THREADS} threads a process instead of tasks.",
    )
    most = float(max(crowd.loads for crowd in mine.values()))
    counts = ", ".join(str(crowd.loads) for crowd in mine.values())
    lost = sum(crowd.lost for crowd in mine.values())
    note = ", ".join(mine) + ("" if "Redis" in mine else " only: no redis-server")
    note += f"; {lost} processes lost the tier for a moment" if lost else ""
    return Result((Outcome(GOALS["S6"], Spread(most, most, most), counts, note=note),), (table,))


def _servers() -> Iterator[str]:
    """Yield the address of a server of our own, if there is one to be had."""
    if not all(map(is_installed, NEEDED)):
        return
    from tests.support.servers import NoServerError, running_redis

    try:
        with running_redis() as server:
            yield server.url
    except NoServerError:
        return


def _loads_of_peer(name: str) -> str:
    """Count a peer's loads; one that fails its callers is shown with its error."""
    try:
        return ", ".join(str(crowd_of(name, url).loads) for url in _servers())
    except RuntimeError as exc:
        return f"failed: {exc}"


def crowd_of(name: str, url: str, *, processes: int = PROCESSES, tasks: int = TASKS) -> Crowd:
    """Return what became of processes that all ask for one key.

    Raises:
        RuntimeError: a process failed; the message has its last words.
    """
    command = [sys.executable, "-m", "bench.crowds", name, url, str(tasks)]
    started = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # of one that has failed it is empty, and what it said is read below
        for process in started:
            _let_go(process)
        results = [_result(process) for process in started]
        return Crowd(sum(result.loads for result in results), sum(result.lost > 0 for result in results))
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write("go\n")
        process.stdin.flush()


def _result(process: subprocess.Popen[str]) -> Crowd:
    try:
        answer, said = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done within {PATIENCE_SECONDS} s") from None
    if process.returncode:
        raise RuntimeError((said.split() or ["no reason given"])[-1])
    return Crowd(*map(int, answer.split()))


# In each process ------------------------------------------------------------------------------------------------------


class _Count:
    """A loader that takes a while and counts its runs; one object for tasks and threads."""

    def __init__(self) -> None:
        self.loads = 0
        self.lost = 0

    def note(self, event: Event) -> None:
        self.lost += event.kind is EventKind.TIER_LOST

    async def load_async(self, key: str) -> str:
        self.loads += 1
        await asyncio.sleep(LOAD_SECONDS)
        return key


def _wait_for_the_others() -> None:
    print(READY, flush=True)
    sys.stdin.readline()


def _credenza(url: str, tasks: int, count: _Count) -> None:
    import credenza

    async def main() -> None:
        with credenza.Cache[str, str](remote=url, ttl=300) as cache:
            cache.subscribe(count.note)
            await _crowd(lambda: cache.aio.get_or_load("cold", lambda: count.load_async("cold"), type=str), tasks)
            await cache.aio.close()

    asyncio.run(main())


def _cashews(url: str, tasks: int, count: _Count) -> None:
    from cashews import Cache

    async def main() -> None:
        cache = Cache()
        cache.setup(url, client_side=False, max_connections=tasks)
        await cache.init()

        @cache(ttl=300, key="cold:{key}", lock=True)
        async def load(key: str) -> str:
            return await count.load_async(key)

        await _crowd(lambda: load("cold"), tasks)

    asyncio.run(main())


def _aiocache(url: str, tasks: int, count: _Count) -> None:
    import urllib.parse

    from aiocache import RedisCache, cached_stampede
    from aiocache.serializers import JsonSerializer

    place = urllib.parse.urlsplit(url)

    @cached_stampede(
        lease=5,
        ttl=300,
        key_builder=lambda _, key: key,
        cache=RedisCache,
        serializer=JsonSerializer(),
        endpoint=place.hostname,
        port=place.port,
        pool_max_size=2 * tasks,
    )
    async def load(key: str) -> str:
        return await count.load_async(key)

    asyncio.run(_crowd(lambda: load("cold"), tasks))


def _dogpile(url: str, tasks: int, count: _Count) -> None:
    import threading
    import time

    from dogpile.cache import make_region

    settings = {"url": url, "distributed_lock": True, "lock_timeout": 30, "thread_local_lock": False}
    region = make_region().configure("dogpile.cache.redis", expiration_time=300, arguments=settings)

    def load() -> str:
        count.loads += 1
        time.sleep(LOAD_SECONDS)
        return "cold"

    threads = [
        threading.Thread(target=region.get_or_create, args=("cold", load)) for _ in range(min(tasks, DOGPILE_THREADS))
    ]
    _wait_for_the_others()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _crowd(ask: Callable[[], object], tasks: int) -> None:
    _wait_for_the_others()
    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(_await(ask))


async def _await(ask: Callable[[], object]) -> None:
    assert await ask() == "cold"  # type: ignore[misc]  # each contender's own awaitable


CROWDS = {"credenza": _credenza, "cashews": _cashews, "aiocache": _aiocache, "dogpile.cache": _dogpile}


def main(arguments: Sequence[str]) -> None:
    """Be one process of a crowd."""
    name, url, tasks = arguments
    count = _Count()
    try:
        CROWDS[name](url, int(tasks), count)
    except Exception as exc:
        first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        sys.exit(type(first).__name__)
    print(count.loads, count.lost, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
