"""Caches that break the promise, to see that the checker notices."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable
from typing import Any

from bench.chaos.plan import NAMESPACE, Orders

_TIMEOUT = 0.25
_SECONDS = 3600


class Naive:
    """Cache-aside as it is usually written: GET, load, SETEX; commit, DEL.

    Args:
        journal: reads and writes the database.
    """

    def __init__(self, orders: Orders, journal: Any) -> None:  # Any: a `Journal`, which imports this module
        import redis

        self._redis = redis.Redis.from_url(orders.tier_url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
        self._error = redis.RedisError
        self._journal = journal
        self._counts = {"hits": 0, "loads": 0}

    def read(self, row: int) -> dict[int, int]:
        name = f"{NAMESPACE}:row:{row}"
        try:
            found: Any = self._redis.get(name)
        except self._error:
            found = None
        if found is not None:
            self._counts["hits"] += 1
            return {row: json.loads(found)["version"]}
        self._counts["loads"] += 1
        value = self._journal.load(row)
        try:
            self._redis.setex(name, _SECONDS, json.dumps(value))
        except self._error:
            pass
        return {row: value["version"]}

    def write(self, row: int) -> None:
        number = self._journal.begin(row)
        try:
            self._journal.commit(row, number)
        except self._journal.database.refusals:
            return
        try:
            self._redis.delete(f"{NAMESPACE}:row:{row}")
        except self._error:
            pass
        self._journal.end(row, number, is_owed=False)

    async def read_async(self, row: int) -> dict[int, int]:
        return await asyncio.to_thread(self.read, row)

    async def write_async(self, row: int) -> None:
        await asyncio.to_thread(self.write, row)

    def statistics(self) -> dict[str, int]:
        return self._counts

    def close(self) -> None:
        self._redis.close()

    async def close_async(self) -> None:
        await asyncio.sleep(0)  # it has nothing of the event loop's


def watch_fences(note: contextvars.ContextVar[Any]) -> None:
    """Note for each write whether its fence came up; a write that went on without one is owed to the others."""
    from credenza.flow import write

    raise_fence = write.raise_fence

    async def noting(*arguments: Any) -> Any:
        barrier = await raise_fence(*arguments)
        found = note.get()
        if found is not None:
            found.is_fenced = not barrier.is_owed
        return barrier

    write.raise_fence = noting


def believe_memory() -> None:
    """Use memory for ever, whether the log proves it or not."""
    from credenza.durations import FOREVER_NS
    from credenza.flow import keep

    follow: Callable[..., None] = keep._follow

    def believing(state: Any, *arguments: Any) -> None:
        follow(state, *arguments)
        state.table.fresh_until_ns = FOREVER_NS

    keep._follow = believing


def wait_for_nobody(cache: Any) -> None:  # Any: of a private attribute
    """Let the strict writers of a cache commit while others may still read from memory."""
    shared = cache._engine.state.shared
    assert shared.waits_for_proofs
    shared.waits_for_proofs = False


def hear_nothing() -> None:
    """Learn of invalidations by reading the log now and then only, as if no push ever came."""
    from credenza.runtime.keeper import Keeper

    wait: Callable[..., None] = Keeper._wait

    def waiting(self: Keeper, after: int, pause_ns: int, **_: bool) -> None:
        wait(self, after, pause_ns, may_watch=False)

    Keeper._wait = waiting  # type: ignore[method-assign]
