"""The truth: versions of records, and how they are read and written."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from credenza import Loaded
from credenza.runtime.base import block

from .history import SECOND, Run, Write
from .tier import CALL

if TYPE_CHECKING:
    from .process import Face
    from .world import World

DATABASE = "database"
_LATE_NS = 3 * SECOND
_LONG_NS = 12 * SECOND
"""Longer than a fence that nobody renews."""


class LoaderError(Exception):
    """What a loader or a source raises."""


class LostConnection(OSError):
    """The database does not answer: what was to be committed may be, or may yet be."""


class Database:
    """A version per key, by the number of the write that made it. `History.commits` has them all, in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        for number, key in enumerate(world.config.keys):
            first = Write(0, 0, "-", "first", (key,))
            first.value, first.committed, first.committed_ns, first.end, first.end_ns = 1 + number, 0, 0, 0, 0
            world.history.commits[key] = [first]
        self._values = 100

    def next_value(self) -> int:
        self._values += 1
        return self._values

    def commit(self, write: Write) -> None:
        """Let a write happen, and look whether its fence is up."""
        world, key = self._world, write.keys[0]
        write.was_covered, write.was_due = world.network.is_covered(write, key), world.network.is_due(write)
        write.committed = world.history.note(
            "COMMIT", key, "=", write.value, "" if write.was_covered else "(not fenced)"
        )
        write.committed_ns = world.simulation.now_ns
        world.history.commits[key].append(write)

    def commit_late(self, write: Write) -> None:
        """Let it happen some time later, whoever still waits for it."""

        async def later() -> None:
            simulation = self._world.simulation
            await simulation.suspend(simulation.now_ns + self._world.rng.randrange(_LATE_NS))
            if self._world.rng.random() < 0.7:
                self.commit(write)

        self._world.simulation.begin_task(later(), name="database", group=DATABASE)

    # Loading ----------------------------------------------------------------------------------------------------------

    def loader(self, face: Face, key: str, *, is_async: bool) -> Callable[[], Any]:
        return functools.partial(self._load if is_async else self.load_plain, face, key)

    def batch_loader(self, face: Face, *, is_async: bool) -> Callable[[Sequence[str]], Any]:
        return functools.partial(self._load_many if is_async else self._load_many_plain, face)

    def load_plain(self, face: Face, key: str) -> Any:
        return block(self._load(face.process.plain, key))

    def _load_many_plain(self, face: Face, keys: Sequence[str]) -> Any:
        return block(self._load_many(face.process.plain, keys))

    async def _load(self, face: Face, key: str) -> Any:
        return (await self._load_many(face, [key]))[key]

    async def _load_many(self, face: Face, keys: Sequence[str]) -> Any:
        world = self._world
        runs = [self._begin_run(face, key) for key in keys]
        try:
            await face.sleep(world.some_time(world.config.load_pace))
            values = {}
            for run in runs:
                values[run.key] = world.history.commits[run.key][-1].value
                run.read = world.history.note(run, "reads", run.key, "=", values[run.key])
            await face.sleep(world.some_time(world.config.load_pace))
            if world.goes_wrong(world.config.load_errors):
                raise LoaderError("a loader")
        finally:
            for run in runs:
                run.returned = world.history.note(run, "is over")
        return {key: Loaded(value, tags=[f"t{key}"]) for key, value in values.items()}

    def _begin_run(self, face: Face, key: str) -> Run:
        history = self._world.history
        run = Run(len(history.runs) + 1, face.process.number, key, CALL.get())
        history.runs.append(run)
        run.began = history.note(run, "begins for", key)
        run.began_ns, run.is_free = self._world.simulation.now_ns, self._world.network.is_fenced(key)
        return run

    # Sources ----------------------------------------------------------------------------------------------------------

    def plain_source(self, face: Face) -> Any:
        database = self

        class Source:
            def load(self, key):  # unannotated, as annotations of functions are remembered
                return database.load_plain(face, key)

            def store(self, key: str, value: int) -> None:
                block(database.store(face, value))

            def delete(self, key: str) -> None:
                raise AssertionError

        return Source()

    def async_source(self, face: Face) -> Any:
        database = self

        class Source:
            async def load(self, key):  # as above
                return await database._load(face, key)

            async def store(self, key: str, value: int) -> None:
                await database.store(face, value)

            async def delete(self, key: str) -> None:
                raise AssertionError

        return Source()

    async def store(self, face: Face, value: int, confirm: Callable[[], Awaitable[None]] | None = None) -> None:
        """Write, and commit in the middle of it; the call that runs here is the write."""
        world, write = self._world, CALL.get()
        assert isinstance(write, Write)
        assert write.value == value
        await face.sleep(world.some_time(world.config.write_pace) if world.rng.random() < 0.97 else _LONG_NS)
        if world.goes_wrong(world.config.load_errors / 2):
            raise LoaderError("a source, before it commits")
        if confirm is not None:
            await confirm()
            write.confirmed_ns = world.simulation.now_ns
        if world.goes_wrong(world.config.load_errors / 2):
            self.commit_late(write)
            raise LostConnection("a source")
        self.commit(write)
        await face.sleep(world.some_time(world.config.write_pace))
        if world.goes_wrong(world.config.load_errors / 4):
            raise LoaderError("a source, after it has committed")
