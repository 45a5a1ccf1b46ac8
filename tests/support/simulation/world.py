"""One simulation: a cache, its clients, and what is recorded of both."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Hashable
from typing import Any

from tests.support.invariants import check_table

from credenza import Cache, CacheAside, WriteThrough
from credenza.flight import Flight
from credenza.memory.implementation import Entry, Table
from credenza.runtime.actors import Carriers
from credenza.runtime.simulated import SimulatedTasks, SimulatedThreads
from credenza.runtime.simulation import Simulation

from .clients import Clients
from .config import Config, make_config
from .history import SECOND, Flown, History, Run, Stored
from .source import AsyncSource, Database, PlainSource

_FOREVER_NS = 10**6 * SECOND

_PATIENCE_NS = 200 * SECOND
"""Longer than all calls take one after the other; who is not done by then hangs."""


class Cancelled(asyncio.CancelledError):
    """A client was cancelled by the simulation."""

    def __init__(self, whom: str) -> None:
        super().__init__(whom)
        self.whom = whom


class Face:
    """One colour of the cache, as coroutines. Under threads they never suspend.

    Attributes:
        cache, users, function: the cache's face, a repository's, a cached function.
    """

    def __init__(self, world: World, *, is_async: bool) -> None:
        self._world = world
        self.is_async = is_async
        self.cache: Any = world.cache.aio if is_async else world.cache

    @functools.cached_property
    def users(self) -> Any:
        world = self._world
        source = AsyncSource(world) if self.is_async else PlainSource(world)
        strategy = WriteThrough() if world.config.is_through else CacheAside()
        users = world.cache.repository(source, strategy=strategy, tags=["all"])
        return users.aio if self.is_async else users

    @functools.cached_property
    def function(self) -> Any:
        database, world = self._world.database, self._world
        if self.is_async:

            @world.cache.cached
            async def record(name: str) -> Any:
                return await database.async_loader(record.key_for(name))()

            return record

        @world.cache.cached
        def record(name: str) -> Any:
            return database.plain_loader(record.key_for(name))()

        return record

    async def sleep(self, time_ns: int) -> None:
        simulation = self._world.simulation
        ends_ns = simulation.now_ns + time_ns
        while simulation.now_ns < ends_ns:
            await self._wait(ends_ns)

    async def hang(self, run: Run) -> None:
        while run.hangs:
            await self._wait(None)

    async def _wait(self, until_ns: int | None) -> None:
        if self.is_async:
            await self._world.simulation.suspend(until_ns)
        else:
            self._world.simulation.block(until_ns)


class WatchedTable(Table):
    """Notes what is stored."""

    __slots__ = ()
    world: World

    def put(self, entry: Entry, tags: Any, now_ns: int) -> None:
        super().put(entry, tags, now_ns)
        history = self.world.history
        moment = history.note("stores", self.world.named(entry.key), "=", entry.value)
        stored = Stored(entry.key, entry.value, tuple(tags), moment, now_ns)
        stored.ttl_ns = entry.fresh_ns - entry.stored_ns
        history.stored.append(stored)


class WatchedFlights(dict[Hashable, Flight]):
    """The register of flights; notes when one begins and when it leaves."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __setitem__(self, key: Hashable, flight: Flight) -> None:
        history = self._world.history
        moment = history.note("registers a flight of", self._world.named(key))
        if key in self:
            history.broken.append(f"L1: at {moment} a flight is registered while another one is")
            self._end(super().__getitem__(key), moment)
        history.flown.setdefault(flight, Flown(flight, moment, flight.began_ns)).end = None
        super().__setitem__(key, flight)

    def __delitem__(self, key: Hashable) -> None:
        self._end(self[key], self._world.history.note("retires the flight of", self._world.named(key)))
        super().__delitem__(key)

    def pop(self, key: Hashable, *default: Any) -> Any:
        if key in self:
            self._end(self[key], self._world.history.note("detaches the flight of", self._world.named(key)))
        return super().pop(key, *default)

    def clear(self) -> None:
        moment = self._world.history.note("detaches all flights")
        for flight in self.values():
            self._end(flight, moment)
        super().clear()

    def _end(self, flight: Flight, moment: int) -> None:
        self._world.history.flown[flight].end = moment


class World:
    """Runs one seed.

    Attributes:
        history: what happened.
        is_audit: the last phase, in which every loader works at once.
        hanging: loads that hang.
    """

    def __init__(self, seed: int, carriers: Carriers) -> None:
        self.config: Config = make_config(seed)
        config = self.config
        self.simulation = Simulation(
            seed,
            carriers,
            preempt_rate=config.preempt_rate,
            lag_rate=config.lag_rate,
            load_fault_rate=config.load_fault_rate,
        )
        self.rng = self.simulation.random
        self.history = History(self._now)
        self.is_audit = False
        self.hanging: list[Run] = []
        self.cache: Cache[Any, Any] = Cache(maxsize=config.maxsize, eviction=config.eviction, **config.policy)
        self._names: dict[Hashable, str] = {}
        self._watch()
        self.database = Database(self)
        self.plain, self.aio = Face(self, is_async=False), Face(self, is_async=True)
        self.function_keys = self._function_keys()
        self.clients = Clients(self)

    def _watch(self) -> None:
        engine, simulation = self.cache._engine, self.simulation
        state = self.state = engine.state
        state.lock, state.clock_ns = simulation.lock, simulation.look_ns  # type: ignore[assignment]  # stand-ins
        state.random = simulation.random.random
        state.flights = WatchedFlights(self)
        state.table.__class__ = WatchedTable
        WatchedTable.world = self
        engine.threads = SimulatedThreads(simulation)  # type: ignore[assignment]  # another implementation of the port
        engine.tasks = SimulatedTasks(simulation)  # type: ignore[assignment]  # as above

    def _function_keys(self) -> dict[Hashable, Face]:
        if not self.config.uses_functions:
            return {}
        keys: dict[Hashable, Face] = {}
        unused = {"tasks": self.plain, "threads": self.aio}.get(self.config.colours)
        for face, letter in ((self.plain, "f"), (self.aio, "g")):
            if face is unused:
                continue
            for name in self.config.keys:
                key = face.function.key_for(name)
                keys[key], self._names[key] = face, f"{letter}({name})"
        return keys

    def _now(self) -> tuple[int, str]:
        current = self.simulation.current
        return self.simulation.now_ns, current.name if current is not None else "-"

    def named(self, key: Hashable) -> str:
        return self._names.get(key) or str(key)

    def is_of_function(self, key: Hashable) -> bool:
        return key in self.function_keys

    def some_time(self) -> int:
        """Return how long something takes, in nanoseconds; often no time at all."""
        return 0 if self.is_audit or self.rng.random() < 0.4 else self.rng.randrange(1, 12) * SECOND // 4

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Let the clients call, then end what hangs, then look at what is left."""
        try:
            self.clients.begin()
            self.simulation.run(lasts_ns=_PATIENCE_NS)
            self._end_what_hangs()
            self._audit()
        finally:
            self.simulation.close()
        return self.history

    def _end_what_hangs(self) -> None:
        """Cancel the tasks that wait; loads that nobody waits for then must be cancelled too (L5)."""
        while self.hanging and not self.history.broken:
            for client in self.clients.tasks:
                self.simulation.cancel(client, Cancelled(client.name))
            self.simulation.run(lasts_ns=_PATIENCE_NS)
            self._release()
            self.simulation.run(lasts_ns=_PATIENCE_NS)
        broken = self.history.broken
        broken.extend(f"L3: {call} never ended" for call in self.history.calls if call.end is None)
        broken.extend(f"L3: {actor.name} never ended" for actor in self.simulation.alive())

    def _release(self) -> None:
        """Let the loads that hang go on, if they may."""
        waiting = {key for call in self.history.calls if call.end is None for key in call.keys}
        for run in self.hanging:
            is_kept = any(flight.is_kept for flight in run.flights.values())
            has_limit = "load_timeout" in self.config.policy
            if not is_kept and (has_limit or not waiting.intersection(run.keys)):
                self.history.broken.append(f"L5: nobody waits for {run}, and it was not cancelled")
            run.hangs = False
        for actor in self.simulation.alive():
            self.simulation.wake(actor)

    def _audit(self) -> None:
        """Read every key once more, with loaders that work, and look at the cache itself."""
        if self.history.broken:
            return
        self.is_audit = True
        self.history.note("the audit begins")
        self.clients.audit()
        self.simulation.run(lasts_ns=_PATIENCE_NS)
        state, broken = self.state, self.history.broken
        if state.flights:
            broken.append(f"L3: flights left over: {[self.named(key) for key in state.flights]}")
        if state.fences:
            broken.append("I3: a fence was left over")
        if any(gate.holders or gate._queue for gate in state.gates.values()):
            broken.append("L3: a turn to load was not given back")
        if any(flown.flight.outcome == 0 for flown in self.history.flown.values()):
            broken.append("L3: a flight has no outcome")
        self._look_at_table()

    def _look_at_table(self) -> None:
        broken = self.history.broken
        try:
            check_table(self.state.table)
        except AssertionError as error:
            broken.append(f"B1: the table does not add up: {error}")
        self.simulation.now_ns += _FOREVER_NS
        broken.extend(f"F1: {key} never expires" for key in self.config.keys if self.cache.get(key) is not None)
