"""Simulated loaders and sources: a load reads at one moment and returns at a later one."""

from __future__ import annotations

import contextvars
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from credenza import Loaded, NotFound
from credenza.flight import loading
from credenza.runtime.base import block

from .config import TAGS
from .history import SECOND, Call, Run, Value

if TYPE_CHECKING:
    from .world import Face, World

CALL: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)
"""Whose call the running code belongs to, loaders included (L10)."""

ALWAYS = ("all",)
"""Tags that every entry carries but those of the functions."""


class LoaderError(Exception):
    """What a loader raises; `run` tells which."""

    def __init__(self, run: Any) -> None:
        super().__init__(str(run))
        self.run = run


class Missing(NotFound):
    """A `NotFound` of a loader."""

    def __init__(self, run: Any) -> None:
        super().__init__(str(run))
        self.run = run


class Interrupted(KeyboardInterrupt):
    """Concerns only `whom`: an actor's name, or a load."""

    def __init__(self, whom: Any) -> None:
        super().__init__(str(whom))
        self.whom = whom


class Database:
    """The truth: a version per key."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last = 0
        self.versions: dict[Hashable, int] = {}

    def next_version(self) -> int:
        self._last += 1
        return self._last

    def commit(self, key: Hashable, version: int) -> None:
        self.versions[key] = max(version, self.versions.get(key, 0))
        self._world.history.note("commits", self._world.named(key), "version", version)

    # Loading ----------------------------------------------------------------------------------------------------------

    def plain_loader(self, key: Hashable) -> Any:
        return lambda: block(self._load_one(self._world.plain, key))

    def async_loader(self, key: Hashable) -> Any:
        async def loader() -> Any:
            return await self._load_one(self._world.aio, key)

        return loader

    def plain_batch(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        return block(self._load(self._world.plain, list(keys), is_bulk=True))

    async def async_batch(self, keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        return await self._load(self._world.aio, list(keys), is_bulk=True)

    async def _load_one(self, face: Face, key: Hashable) -> Any:
        return (await self._load(face, [key], is_bulk=False))[key]

    async def _load(self, face: Face, keys: list[Hashable], *, is_bulk: bool) -> dict[Hashable, Any]:
        world, history = self._world, self._world.history
        flight = loading.get()
        assert flight is not None
        flights = {member.key: member for member in flight.crew or (flight,)}
        run = Run(len(history.runs) + 1, CALL.get(), keys, flights)
        run.is_async = face is world.aio
        history.runs.append(run)
        run.began = history.note(run, "begins for", *map(world.named, keys), "led by", run.call)
        run.began_ns = world.simulation.now_ns
        try:
            found = await self._read(face, run, is_bulk=is_bulk)
        except BaseException as error:
            run.error = error
            raise
        finally:
            ending = f"raises {type(run.error).__name__}" if run.error is not None else "returns"
            run.returned = history.note(run, ending, *run.values.values())
            run.returned_ns = world.simulation.now_ns
        return found

    async def _read(self, face: Face, run: Run, *, is_bulk: bool) -> dict[Hashable, Any]:
        world, rng, config = self._world, self._world.rng, self._world.config
        await face.sleep(world.some_time())
        if config.nests and rng.random() < 0.5 and not world.is_audit:
            await self._nest(face, run)
        versions = {key: self.versions.get(key, 0) for key in run.keys}
        world.history.note(run, "reads", *(f"{world.named(key)}={version}" for key, version in versions.items()))
        await face.sleep(world.some_time())
        if not world.is_audit:
            if face is world.aio and rng.random() < config.hang_rate:
                await self._hang(run)
            self._fail_perhaps(run)
        return {
            key: self._result(run, key, version)
            for key, version in versions.items()
            if not is_bulk or world.is_audit or rng.random() > 0.15
        }

    async def _nest(self, face: Face, run: Run) -> None:
        """Ask the cache for another key; keys are asked for in their order only, so that nobody waits in a circle."""
        later = [key for key in self._world.config.keys if all(str(key) > str(own) for own in run.keys)]
        if later and all(key in self._world.config.keys for key in run.keys):
            run.waits += 1
            try:
                await self._world.clients.nested(face, self._world.rng.choice(later))
            finally:
                run.waits -= 1

    async def _hang(self, run: Run) -> None:
        run.hangs = True
        self._world.hanging.append(run)
        self._world.history.note(run, "hangs")
        try:
            await self._world.aio.hang(run)
        finally:
            self._world.hanging.remove(run)

    def _fail_perhaps(self, run: Run) -> None:
        draw = self._world.rng.random()
        if draw < self._world.config.load_errors / 2:
            raise LoaderError(run)
        if draw < self._world.config.load_errors * 0.8:
            raise Missing(run)
        if draw < self._world.config.load_errors * 0.9:
            raise Interrupted(run)

    def _result(self, run: Run, key: Hashable, version: int) -> Any:
        rng = self._world.rng
        run.tags[key] = () if self._world.is_of_function(key) else ALWAYS
        value = run.values[key] = Value(key, version, run)
        draw = rng.random()
        if draw < 0.7 or self._world.is_audit:
            return value
        if draw < 0.75:
            run.values[key] = None
            return None
        tags = tuple(rng.sample(TAGS, rng.choice((0, 1, 1, 2))))
        run.tags[key] += tags
        if draw < 0.9:
            return Loaded(value, tags=tags)
        ttl = rng.choice((0, 1, 20))
        run.ttl_ns[key] = ttl * SECOND
        return Loaded(value, ttl=ttl, tags=tags)


class PlainSource:
    """A source for a repository."""

    def __init__(self, world: World) -> None:
        self._world = world

    def load(self, key: str) -> Any:
        return self._world.database.plain_loader(key)()

    def store(self, key: str, value: Value) -> None:
        block(_write(self._world, self._world.plain, key, value))

    def delete(self, key: str) -> None:
        block(_write(self._world, self._world.plain, key, None))


class AsyncSource:
    """The same as coroutines."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def load(self, key: str) -> Any:
        return await self._world.database.async_loader(key)()

    async def store(self, key: str, value: Value) -> None:
        await _write(self._world, self._world.aio, key, value)

    async def delete(self, key: str) -> None:
        await _write(self._world, self._world.aio, key, None)


async def _write(world: World, face: Face, key: str, value: Value | None) -> None:
    """Write to the source; a new version is there at one moment in between."""
    call = CALL.get()
    write = next(write for write in reversed(world.history.writes) if write.call is call)
    write.body_start = world.history.note(write, "writes")
    if write.entry is not None:
        write.entry.end = write.body_start
    try:
        await face.sleep(world.some_time())
        version = world.database.next_version()
        if value is not None:
            value.version = version
        world.database.commit(key, version)
        await face.sleep(world.some_time())
        if world.rng.random() < world.config.load_errors / 3:
            raise LoaderError(write)
    finally:
        write.body_end = world.history.note(write, "has written")
