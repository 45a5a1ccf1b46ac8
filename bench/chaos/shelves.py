"""What the workers read and write through: our cache in all its ways, or a control."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bench.chaos import controls
from bench.chaos.database import open_database
from bench.chaos.history import TAGS, Recorder
from bench.chaos.journal import Journal, Note, Row, note_here
from bench.chaos.plan import NAMESPACE, TTL, Orders
from credenza import Cache, FenceLost, TierError, WriteThrough

_TIER_TIMEOUT = 0.5
"""Twice the default: four processes and a server on a machine with few cores keep each other waiting."""


class Shelf(Protocol):
    """Where rows are read and written. Reads return versions by row."""

    def read(self, row: int) -> Mapping[int, int]: ...
    def write(self, row: int) -> None: ...
    async def read_async(self, row: int) -> Mapping[int, int]: ...
    async def write_async(self, row: int) -> None: ...
    def statistics(self) -> dict[str, int]: ...
    def close(self) -> None: ...
    async def close_async(self) -> None: ...


class CacheShelf:
    """Our cache: by hand, in bulk, through repositories, in both faces, by keys and by tags."""

    def __init__(self, orders: Orders, journal: Journal) -> None:
        arm = orders.arm
        self._journal = journal
        self._level = arm.coherence
        self._is_lowered_early = arm.cache == "lowered early"
        self._cache: Cache[Any, Any] = Cache(
            remote=orders.tier_url,
            namespace=NAMESPACE,
            maxsize=1_000 if arm.memory else 0,
            ttl=TTL if arm.coherence == "ttl" else "1h",
            coherence=arm.coherence,
            max_staleness=orders.max_staleness,
            tier_timeout=_TIER_TIMEOUT,
        )
        if arm.cache == "not waited":
            controls.wait_for_nobody(self._cache)
        self._cache.subscribe(self._listen)
        source, async_source = _Source(journal), _AsyncSource(journal)
        names: dict[str, Any] = {"key": "row:{}", "tags": ["group:{}"], "type": Row}
        self._aside = self._cache.repository(source, **names)
        self._through = self._cache.repository(source, strategy=WriteThrough(), **names)
        self._async_through = self._cache.repository(async_source, strategy=WriteThrough(), **names)

    # Reading ----------------------------------------------------------------------------------------------------------

    def read(self, row: int) -> dict[int, int]:
        """Read a row, or a few, in one of the ways there are."""
        way = random.random()
        if way < 0.6:
            value = self._cache.get_or_load(f"row:{row}", lambda: self._journal.load(row), tags=[f"group:{row}"])
            return {row: value["version"]}
        if way < 0.9:
            found: Any = self._aside.get(row)
            return {row: found["version"]}
        some = random.sample(range(10), 3)
        return {each: value["version"] for each, value in self._aside.get_many(some).items()}

    async def read_async(self, row: int) -> dict[int, int]:
        """See `read`."""
        if random.random() < 0.8:
            value = await self._cache.aio.get_or_load(f"row:{row}", self._async_loader(row), tags=[f"group:{row}"])
            return {row: value["version"]}
        found: Any = await self._async_through.aio.get(row)
        return {row: found["version"]}

    def _async_loader(self, row: int) -> Callable[[], Any]:
        """Return a coroutine function, or now and then a plain one that returns a coroutine: that goes another way."""
        load = functools.partial(self._journal.load_async, row)
        return load if random.random() < 0.9 else _plain(load)

    # Writing ----------------------------------------------------------------------------------------------------------

    def write(self, row: int) -> None:
        """Write a row in one of the ways there are."""
        note = Note()
        token = note_here.set(note)
        way = random.choice(("key", "tag", "aside", "through"))
        number = self._journal.begin(row, of_tag=way == "tag")
        try:
            if way in ("key", "tag"):
                self._write_fenced(row, number, by_tag=way == "tag")
            else:
                repository = self._aside if way == "aside" else self._through
                repository.put(row, {"version": 0, "number": number})
        except (TierError, FenceLost):
            self._journal.fail(row, number)
        except self._journal.database.refusals:
            return  # locked for too long, and who knows how far it came
        else:
            self._journal.end(row, number, is_owed=self._is_owed(note))
        finally:
            note_here.reset(token)

    def _write_fenced(self, row: int, number: int, *, by_tag: bool) -> None:
        keys, tags = ((), (f"group:{row}",)) if by_tag else ((f"row:{row}",), ())
        if self._is_lowered_early:
            with self._cache.writing(*keys, tags=tags):
                pass
            self._journal.commit(row, number)
            return
        with self._cache.writing(*keys, tags=tags) as fence:
            self._journal.commit(row, number, fence.confirm)

    async def write_async(self, row: int) -> None:
        """See `write`."""
        note = Note()
        token = note_here.set(note)
        way = random.choice(("key", "tag", "through"))
        number = self._journal.begin(row, of_tag=way == "tag")
        try:
            if way == "through":
                await self._async_through.aio.put(row, {"version": 0, "number": number})
            else:
                await self._write_fenced_async(row, number, by_tag=way == "tag")
        except (TierError, FenceLost):
            self._journal.fail(row, number)
        except self._journal.database.refusals:
            return
        else:
            self._journal.end(row, number, is_owed=self._is_owed(note))
        finally:
            note_here.reset(token)

    async def _write_fenced_async(self, row: int, number: int, *, by_tag: bool) -> None:
        keys, tags = ((), (f"group:{row}",)) if by_tag else ((f"row:{row}",), ())
        if self._is_lowered_early:
            async with self._cache.aio.writing(*keys, tags=tags):
                pass
            await asyncio.to_thread(self._journal.commit, row, number)
            return
        async with self._cache.aio.writing(*keys, tags=tags) as fence:
            await fence.confirm()
            await asyncio.to_thread(self._journal.commit, row, number)

    def _is_owed(self, note: Note) -> bool:
        """Tell whether other processes do not know of the write yet: a fence that was up tells them as well."""
        return not note.is_fenced or (note.is_owed and self._level == "invalidate")

    def _listen(self, event: Any) -> None:
        note = note_here.get()
        if event.kind == "owed" and note is not None:
            note.is_owed = True
        elif event.kind == "delivered":
            is_row = isinstance(event.key, str)
            self._journal.deliver(int(event.key.partition(":")[2]) if is_row else TAGS)

    # Ending -----------------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, int]:
        """Return what the cache has counted."""
        stats = dataclasses.asdict(self._cache.stats())
        names = ("hits", "shared_hits", "misses", "joins", "loads", "stores", "refused_stores")
        return {name: stats[name] for name in names}

    def close(self) -> None:
        self._cache.close()

    async def close_async(self) -> None:
        await asyncio.sleep(0)  # the cache is closed once, after the threads have ended


def _plain(function: Callable[[], Any]) -> Callable[[], Any]:
    """Hide that calling a function gives a coroutine."""

    def call() -> Any:
        return function()

    return call


class _Source:
    """The database as a source; a stored row is given the version that the database made."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def load(self, row: int) -> Row:
        return self._journal.load(row)

    def load_many(self, rows: list[int]) -> dict[int, Row]:
        return {row: self._journal.load(row) for row in rows}

    def store(self, row: int, value: Row) -> None:
        value["version"] = self._journal.commit(row, value.pop("number"))

    def delete(self, row: int) -> None:
        raise NotImplementedError


class _AsyncSource:
    """The same as coroutines."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def load(self, row: int) -> Row:
        return await self._journal.load_async(row)

    async def store(self, row: int, value: Row) -> None:
        value["version"] = await asyncio.to_thread(self._journal.commit, row, value.pop("number"))

    async def delete(self, row: int) -> None:
        raise NotImplementedError


def open_shelf(orders: Orders, recorder: Recorder, step: Callable[[], None]) -> Shelf:
    """Return what an arm reads and writes through, broken on purpose if it is a control."""
    journal = Journal(open_database(orders.database_url), recorder, step)
    controls.watch_fences(note_here)
    if orders.seed % 2 or orders.arm.is_control:  # every other process: the promise does not lean on pushes that arrive
        controls.hear_nothing()
    if orders.arm.cache == "naive":
        return controls.Naive(orders, journal)
    if orders.arm.cache == "unproved":
        controls.believe_memory()
    return CacheShelf(orders, journal)
