"""The clients: what they call, and how that is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Hashable
from typing import TYPE_CHECKING, Any

from credenza.runtime.actors import Actor
from credenza.runtime.base import block

from .config import TAGS
from .history import SECOND, Call, Change, History, Value, Write
from .source import ALWAYS, CALL, Interrupted, LoaderError

if TYPE_CHECKING:
    from .world import Face, World

_TIMEOUTS = (0.5, 1, 2, 4)


class Clients:
    """A few clients, each in its colour, each with a list of calls to make."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._history = world.history
        self._rng = world.rng
        self.tasks: list[Actor] = []
        self._names: dict[Actor, str] = {}

    # Scripts ----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start them."""
        config = self._world.config
        for number in range(config.clients):
            is_async = config.colours == "tasks" or (config.colours == "mixed" and self._rng.random() < 0.5)
            kinds = self._rng.choices(list(config.weights), list(config.weights.values()), k=config.calls)
            self._begin_one(f"{'task' if is_async else 'thread'} {number + 1}", kinds, is_async=is_async)

    def audit(self) -> None:
        """Start one that reads every key."""
        self._begin_one("auditor", ["load_all"], is_async=self._world.config.colours == "tasks")

    def _begin_one(self, name: str, kinds: list[str], *, is_async: bool) -> None:
        from .world import Cancelled

        simulation, world = self._world.simulation, self._world
        rate = 0.0 if world.is_audit else world.config.fault_rate
        face = world.aio if is_async else world.plain
        script = self._script(face, kinds)
        if is_async:
            cancelled = functools.partial(Cancelled, name)
            self.tasks.append(simulation.begin_task(script, name=name, fault=cancelled, fault_rate=rate))
        else:
            interrupted = functools.partial(Interrupted, name)
            simulation.begin_thread(lambda: block(script), name=name, fault=interrupted, fault_rate=rate)

    async def _script(self, face: Face, kinds: list[str]) -> None:
        for kind in kinds:
            try:
                await face.sleep(self._world.some_time())
                await getattr(self, kind)(face)
            except (asyncio.CancelledError, KeyboardInterrupt):
                continue

    # Recording --------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _call(self, kind: str, *keys: Hashable, about: str = "") -> AsyncIterator[Call]:
        """Record a call; what it raises is noted, and goes no further unless it stops the client."""
        history, simulation = self._history, self._world.simulation
        _, actor = history._now()
        call = Call(len(history.calls) + 1, actor, kind, keys, about)
        history.calls.append(call)
        call.parent = CALL.get()
        call.start = history.note(call, kind, *map(self._world.named, keys), about)
        call.start_ns, call.start_lag_ns = simulation.now_ns, simulation.lag_ns
        token = CALL.set(call)
        try:
            yield call
        except BaseException as error:
            call.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            CALL.reset(token)
            outcome = f"raised {call.error!r}" if call.error else " ".join(map(str, call.results.values()))
            call.end = history.note(call, "ended:", outcome)
            call.end_ns, call.end_lag_ns = simulation.now_ns, simulation.lag_ns

    @contextlib.contextmanager
    def _change(self, kind: str, keys: tuple[Hashable, ...] | None, tags: tuple[str, ...] = ()) -> Any:
        change = Change(kind, keys, tags, self._history.note("begins", kind))
        self._history.changes.append(change)
        yield change
        change.end = self._history.note("has done", kind)

    def _key(self) -> str:
        return self._rng.choice(self._world.config.keys)

    def _any_keys(self) -> tuple[Hashable, ...]:
        """Return one or two keys, of functions too."""
        keys = [*self._world.config.keys, *self._world.function_keys]
        return tuple(self._rng.sample(keys, min(len(keys), self._rng.choice((1, 1, 2)))))

    def _timeout(self, call: Call) -> float | None:
        timeout = self._rng.choice(_TIMEOUTS) if self._rng.random() < 0.25 else None
        if timeout is not None:
            call.timeout_ns = int(timeout * SECOND)
        return timeout

    # Reading ----------------------------------------------------------------------------------------------------------

    def _loader(self, face: Face, key: str) -> Any:
        database, draw = self._world.database, self._rng.random()
        if not face.is_async or draw < 0.08:
            return database.plain_loader(key)
        loader = database.async_loader(key)
        return loader if draw < 0.95 else lambda: loader()  # which does not look like a coroutine function

    async def load(self, face: Face) -> None:
        await self._load(face, self._key(), "get_or_load")

    async def nested(self, face: Face, key: str) -> None:
        await self._load(face, key, "nested get_or_load")

    async def _load(self, face: Face, key: str, kind: str) -> None:
        async with self._call(kind, key) as call:
            timeout = None if kind.startswith("nested") else self._timeout(call)
            found = face.cache.get_or_load(key, self._loader(face, key), timeout=timeout, tags=ALWAYS)
            call.results[key] = await found if face.is_async else found

    async def load_all(self, face: Face) -> None:
        for key in self._world.config.keys:
            await self._load(face, key, "get_or_load")

    async def fetch(self, face: Face) -> None:
        key = self._key()
        async with self._call("fetch", key) as call:
            found = face.cache.fetch(key, self._loader(face, key), timeout=self._timeout(call), tags=ALWAYS)
            fetched = await found if face.is_async else found
            call.results[key], call.status = fetched.value, str(fetched.status)

    async def get(self, face: Face) -> None:
        key = self._key()
        async with self._call("get", key) as call:
            found = face.cache.get(key)
            call.results[key] = await found if face.is_async else found

    async def many(self, face: Face) -> None:
        config, database = self._world.config, self._world.database
        keys = self._rng.sample(config.keys, self._rng.randrange(1, len(config.keys) + 1))
        is_async = face.is_async and self._rng.random() < 0.9
        batch = database.async_batch if is_async else database.plain_batch
        async with self._call("get_or_load_many", *keys) as call:
            found = face.cache.get_or_load_many(keys, batch, timeout=self._timeout(call), tags=ALWAYS)
            call.results = dict(await found if face.is_async else found)

    async def call(self, face: Face) -> None:
        await self._of_function(face, "call", lambda name: face.function(name))

    async def refresh(self, face: Face) -> None:
        await self._of_function(face, "refresh", lambda name: face.function.refresh(name))

    async def _of_function(self, face: Face, kind: str, make: Callable[[str], Any]) -> None:
        name = self._key()
        key = face.function.key_for(name)
        async with self._call(kind, key) as call:
            found = make(name)
            call.results[key] = await found if face.is_async else found

    # Writing ----------------------------------------------------------------------------------------------------------

    async def set(self, face: Face) -> None:
        key = self._key()
        tags = (*ALWAYS, *self._rng.sample(TAGS, self._rng.choice((0, 0, 1))))
        async with self._call("set", key):
            with self._change("set", (key,)) as change:
                value = Value(key, self._world.database.versions.get(key, 0), change)
                await self._do(face, face.cache.set(key, value, tags=tags))

    async def invalidate(self, face: Face) -> None:
        keys = self._any_keys()
        async with self._call("invalidate", *keys):
            with self._change("invalidate", keys):
                await self._do(face, face.cache.invalidate(*keys))

    async def invalidate_tags(self, face: Face) -> None:
        tags = tuple(self._rng.sample((*ALWAYS, *TAGS), self._rng.choice((1, 1, 2))))
        async with self._call("invalidate_tags", about=" ".join(tags)):
            with self._change("invalidate_tags", (), tags):
                await self._do(face, face.cache.invalidate_tags(*tags))

    async def clear(self, face: Face) -> None:
        async with self._call("clear"):
            with self._change("clear", None):
                await self._do(face, face.cache.clear())

    async def forget(self, face: Face) -> None:
        name = self._key()
        key = face.function.key_for(name)
        async with self._call("invalidate", key):
            with self._change("invalidate", (key,)):
                face.function.invalidate(name)

    async def forget_all(self, face: Face) -> None:
        keys = tuple(key for key, owner in self._world.function_keys.items() if owner is face)
        async with self._call("cache_clear", *keys):
            with self._change("cache_clear", keys):
                face.function.cache_clear()

    async def write_then_invalidate(self, face: Face) -> None:
        """Write to the source, then say so: by the key, by a tag that it always carries, or by `clear`."""
        database, key = self._world.database, self._any_keys()[0]
        async with self._call("write, then invalidate", key):
            await face.sleep(self._world.some_time())
            version = database.next_version()
            database.commit(key, version)
            await face.sleep(self._world.some_time())
            way = "invalidate" if self._world.is_of_function(key) else self._rng.choice(("invalidate", "tag", "clear"))
            if way == "invalidate":
                with self._change("invalidate", (key,)) as change:
                    await self._do(face, face.cache.invalidate(key))
            elif way == "tag":
                with self._change("invalidate_tags", (), ALWAYS) as change:
                    await self._do(face, face.cache.invalidate_tags(*ALWAYS))
            else:
                with self._change("clear", None) as change:
                    await self._do(face, face.cache.clear())
            self._history.committed.append((key, version, change.end))

    async def writing(self, face: Face) -> None:
        await self._writing(face, depth=0)

    async def _writing(self, face: Face, depth: int) -> None:
        keys = self._any_keys() if self._rng.random() < 0.85 else ()
        tags = tuple(self._rng.sample((*ALWAYS, *TAGS), 0 if keys and self._rng.random() < 0.7 else 1))
        history: History = self._history
        versions: list[tuple[Hashable, int]] = []
        async with self._call("writing", *keys, about=" ".join(tags)) as call:
            write = Write(call, "writing", keys, tags)
            history.writes.append(write)
            write.entry = Change("writing, entry", keys, tags, call.start)
            history.changes.append(write.entry)
            try:
                async with self._fenced(face, keys, tags):
                    write.body_start = write.entry.end = history.note(call, "is inside")
                    try:
                        await self._body(face, keys, versions, depth)
                    finally:
                        write.body_end = history.note(call, "leaves")
                        write.exit = Change("writing, exit", keys, tags, write.body_end)
                        history.changes.append(write.exit)
            finally:
                if write.exit is not None:
                    write.exit.end = history.note(call, "is outside")
                    history.committed.extend((key, version, write.exit.end) for key, version in versions)

    async def _body(self, face: Face, keys: tuple[Hashable, ...], versions: list[Any], depth: int) -> None:
        database = self._world.database
        for key in keys:
            await face.sleep(self._world.some_time())
            version = database.next_version()
            database.commit(key, version)
            versions.append((key, version))
        draw = self._rng.random()
        if draw < 0.25:
            await self.load(face)
        elif draw < 0.4 and not depth:
            await self._writing(face, depth + 1)
        elif draw < 0.5:
            await self.many(face)
        await face.sleep(self._world.some_time())
        if self._rng.random() < 0.2:
            raise LoaderError("the body of a writing block")

    @contextlib.asynccontextmanager
    async def _fenced(self, face: Face, keys: tuple[Hashable, ...], tags: tuple[str, ...]) -> AsyncIterator[None]:
        if face.is_async:
            async with face.cache.writing(*keys, tags=tags):
                yield
        else:
            with face.cache.writing(*keys, tags=tags):
                yield

    async def put(self, face: Face) -> None:
        key = self._key()
        await self._through(face, "put", key, lambda users, value: users.put(key, value))

    async def delete(self, face: Face) -> None:
        key = self._key()
        await self._through(face, "delete", key, lambda users, value: users.delete(key))

    async def _through(self, face: Face, kind: str, key: str, make: Callable[[Any, Value], Any]) -> None:
        """Write through a repository; an async client now and then has a plain source, in a thread that it may leave."""
        async with self._call(kind, key) as call:
            users = face.users
            if face.is_async and self._rng.random() < 0.3:
                users = self._world.plain.users.aio
            write = Write(call, kind, (key,), ())
            self._history.writes.append(write)
            write.entry = Change(f"{kind}, entry", (key,), (), call.start)
            self._history.changes.append(write.entry)
            value = Value(key, 0, write)
            try:
                await self._do(face, make(users, value))
            finally:
                self._end_write(call, write, key, value)

    def _end_write(self, call: Call, write: Write, key: str, value: Value) -> None:
        if write.body_end is None:
            return  # the caller has left, and the write goes on in its thread
        write.exit = Change(f"{write.kind}, exit", (key,), (), write.body_end)
        self._history.changes.append(write.exit)
        write.exit.end = self._history.note(call, "is over")
        if value.version:
            self._history.committed.append((key, value.version, write.exit.end))

    async def _do(self, face: Face, made: Any) -> None:
        if face.is_async:
            await made
