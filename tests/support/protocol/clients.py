"""The clients of a process: what they call, and how that is recorded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from credenza.runtime.actors import Actor
from credenza.runtime.base import block

from .config import READS, REFRESH, STATIC_TAG
from .history import Call, Read, Write
from .process import Cancelled, Face, Interrupted, Process
from .tier import CALL

if TYPE_CHECKING:
    from .world import World


class Clients:
    """A few clients, each of one process and in one colour, each with a list of calls to make."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._history = world.history
        self._rng = world.rng
        self.actors: list[Actor] = []

    # Scripts ----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start them."""
        config, rng = self._world.config, self._rng
        reading = {name: weight for name, weight in config.weights.items() if name in READS or name in REFRESH}
        writing = {name: weight for name, weight in config.weights.items() if name not in reading}
        mixed = {**reading, **{name: 4 * weight for name, weight in writing.items()}}
        for number in range(config.clients):
            weights, count = (mixed, config.calls) if number < config.writers else (reading, config.reads)
            kinds = rng.choices(list(weights), list(weights.values()), k=count)
            process = self._world.processes[number % config.processes]
            self._begin_one(process, str(number + 1), kinds, is_async=rng.random() >= config.threads)

    def audit(self) -> None:
        """Start one in each process that reads every key."""
        for process in self._world.processes:
            if process.is_alive:
                self._begin_one(process, "audit", ["load_all"], is_async=True)

    def _begin_one(self, process: Process, number: str, kinds: list[str], *, is_async: bool) -> None:
        world = self._world
        rate = 0.0 if world.is_audit else world.config.fault_rate
        face = process.aio if is_async else process.plain
        name = f"{process.name} {'task' if is_async else 'thread'} {number}"
        simulation, group = world.simulation, process.name
        if is_async:
            script = self._script(face, kinds)
            actor = simulation.begin_task(script, name=name, fault=Cancelled, fault_rate=rate, group=group)
        else:
            actor = simulation.begin_thread(
                lambda: block(self._script(face, kinds)), name=name, fault=Interrupted, fault_rate=rate, group=group
            )
        self.actors.append(actor)

    async def _script(self, face: Face, kinds: list[str]) -> None:
        for kind in kinds:
            try:
                await face.sleep(self._world.some_time(self._world.config.think_pace))
                await getattr(self, kind)(face)
            except (asyncio.CancelledError, KeyboardInterrupt):
                continue

    # Recording --------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _call(self, face: Face, call: Call) -> AsyncIterator[Any]:
        """Record a call; what it raises is noted, and goes no further unless it stops the client."""
        history, simulation = self._history, self._world.simulation
        call.start = history.note(call, call.kind, *call.keys)
        call.start_ns = simulation.now_ns
        token = CALL.set(call)
        try:
            yield call
        except BaseException as error:
            call.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            CALL.reset(token)
            values = " ".join(map(str, call.values.values())) if isinstance(call, Read) else ""
            status = f"({call.status})" if isinstance(call, Read) and call.status else ""
            call.end = history.note(call, "ended:", f"raised {call.error!r}" if call.error else values, status)
            call.end_ns = simulation.now_ns

    def _read(self, face: Face, kind: str, *keys: str) -> Any:
        read = Read(self._next_number(), face.process.number, self._world.actor_name(), kind, keys)
        self._history.reads.append(read)
        return self._call(face, read)

    def _write(self, face: Face, kind: str, *, is_fenced: bool) -> Any:
        key = self._key()
        write = Write(self._next_number(), face.process.number, self._world.actor_name(), kind, (key,))
        write.value, write.is_fenced = self._world.database.next_value(), is_fenced
        self._history.writes.append(write)
        return self._call(face, write)

    def _next_number(self) -> int:
        self._history.calls += 1
        return self._history.calls

    def _key(self) -> str:
        return self._rng.choice(self._world.config.keys)

    # Reading ----------------------------------------------------------------------------------------------------------

    async def load(self, face: Face) -> None:
        await self._load(face, self._key())

    async def load_all(self, face: Face) -> None:
        for key in self._world.config.keys:
            await self._load(face, key)

    async def _load(self, face: Face, key: str) -> None:
        loader = self._loader(face, key)
        async with self._read(face, "get_or_load", key) as read:
            read.values[key] = await self._done(face, face.cache.get_or_load(key, loader, tags=[STATIC_TAG]))

    def _loader(self, face: Face, key: str) -> Any:
        is_async = face.is_async and self._rng.random() > self._world.config.threads / 2
        return self._world.database.loader(face, key, is_async=is_async)

    async def fetch(self, face: Face) -> None:
        key = self._key()
        loader = self._loader(face, key)
        timeout = self._rng.choice((None, None, 0.5, 2))
        async with self._read(face, "fetch", key) as read:
            fetched = await self._done(face, face.cache.fetch(key, loader, tags=[STATIC_TAG], timeout=timeout))
            read.values[key], read.status = fetched.value, str(fetched.status)

    async def get(self, face: Face) -> None:
        key = self._key()
        async with self._read(face, "get", key) as read:
            value = await self._done(face, face.cache.get(key))
            if value is not None:
                read.values[key] = value

    async def many(self, face: Face) -> None:
        keys = self._world.config.keys
        loader = self._world.database.batch_loader(face, is_async=face.is_async)
        async with self._read(face, "get_or_load_many", *keys) as read:
            found = face.cache.get_or_load_many(keys, loader, tags=[STATIC_TAG])
            read.values = dict(await self._done(face, found))

    async def record(self, face: Face) -> None:
        key = self._key()
        async with self._read(face, "repository.get", key) as read:
            read.values[key] = await self._done(face, face.records.get(key))

    async def function(self, face: Face) -> None:
        key = self._key()
        async with self._read(face, "function", key) as read:
            read.values[key] = await self._done(face, face.function(key))

    async def refresh(self, face: Face) -> None:
        key = self._key()
        async with self._read(face, "function.refresh", key) as read:
            read.values[key] = await self._done(face, face.function.refresh(key))

    # Writing ----------------------------------------------------------------------------------------------------------

    async def writing(self, face: Face) -> None:
        async with self._write(face, "writing", is_fenced=True) as write:
            await self._inside(face, write, write.keys, ())

    async def writing_tags(self, face: Face) -> None:
        async with self._write(face, "writing(tags=)", is_fenced=True) as write:
            await self._inside(face, write, (), (self._rng.choice((STATIC_TAG, f"t{write.keys[0]}")),))

    async def _inside(self, face: Face, write: Write, keys: tuple[str, ...], tags: tuple[str, ...]) -> None:
        async with self._fenced(face, keys, tags) as fence:
            self._history.note(write, "is inside")
            confirms = self._rng.random() < 0.8

            async def confirm() -> None:
                await self._done(face, fence.confirm())

            await self._world.database.store(face, write.value, confirm if confirms else None)

    @contextlib.asynccontextmanager
    async def _fenced(self, face: Face, keys: tuple[str, ...], tags: tuple[str, ...]) -> AsyncIterator[Any]:
        if face.is_async:
            async with face.cache.writing(*keys, tags=tags) as fence:
                yield fence
        else:
            with face.cache.writing(*keys, tags=tags) as fence:
                yield fence

    async def put(self, face: Face) -> None:
        records = face.records
        if face.is_async and self._rng.random() < self._world.config.threads:
            records = face.process.plain.records.aio
        async with self._write(face, "put", is_fenced=True) as write:
            await self._done(face, records.put(write.keys[0], write.value))

    async def then_invalidate(self, face: Face) -> None:
        async with self._write(face, "write, then invalidate", is_fenced=False) as write:
            await self._world.database.store(face, write.value)
            await self._done(face, face.cache.invalidate(write.keys[0]))

    async def then_invalidate_tags(self, face: Face) -> None:
        async with self._write(face, "write, then invalidate_tags", is_fenced=False) as write:
            await self._world.database.store(face, write.value)
            tag = self._rng.choice((STATIC_TAG, f"t{write.keys[0]}"))
            await self._done(face, face.cache.invalidate_tags(tag))

    async def then_clear(self, face: Face) -> None:
        async with self._write(face, "write, then clear", is_fenced=False) as write:
            await self._world.database.store(face, write.value)
            await self._done(face, face.cache.clear())

    async def then_set(self, face: Face) -> None:
        async with self._write(face, "write, then set", is_fenced=False) as write:
            await self._world.database.store(face, write.value)
            tags = [STATIC_TAG, f"t{write.keys[0]}"]
            await self._done(face, face.cache.set(write.keys[0], write.value, tags=tags))

    async def _done(self, face: Face, made: Any) -> Any:
        return await made if face.is_async else made
