"""A simulated process: a cache with its keeper and its clients, which may be paused and killed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from credenza import Cache, CacheAside, WriteThrough
from credenza.events import Event, EventKind
from credenza.flow.keep import keep_up, pause_ns
from credenza.runtime.actors import Actor
from credenza.runtime.simulated import SimulatedTasks, SimulatedThreads
from credenza.shared.proof import Proof

from .config import REFRESH, STATIC_TAG
from .history import SECOND, Write
from .tier import CALL, Line

if TYPE_CHECKING:
    from .world import World


class Process:
    """One process of a world.

    Attributes:
        name: P and its number.
        is_alive: it has not been killed.
        is_paused: none of its actors runs.
        is_keeping_up: its keeper is in the middle of a round.
        owing: writes whose invalidation it owes.
    """

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.name = f"P{number}"
        self.world = world
        self.is_alive, self.is_paused, self.is_keeping_up = True, False, False
        self.owing: list[tuple[Write, Hashable]] = []
        self.rate = world.config.rates[number - 1]
        self.line = Line(world.network, number)
        config = world.config
        self.cache: Cache[Any, Any] = Cache(
            maxsize=config.maxsize, coherence=config.coherence, remote=self.line, name=self.name, **config.policy
        )
        self._keeper: Actor | None = None
        self._is_woken = False
        self._take_over()
        self.plain, self.aio = Face(self, is_async=False), Face(self, is_async=True)

    def _take_over(self) -> None:
        """Let simulated parts stand in for those of the cache."""
        engine, simulation = self.cache._engine, self.world.simulation
        state = self.state = engine.state
        rate, base_ns = self.rate, self.number * 1000 * SECOND
        state.lock = simulation.lock  # type: ignore[assignment]  # a stand-in
        state.clock_ns = lambda: base_ns + int(simulation.look_ns() * rate)
        state.random = simulation.random.random
        engine.threads = SimulatedThreads(simulation, rate)  # type: ignore[assignment]  # another implementation of the port
        engine.tasks = SimulatedTasks(simulation, rate)  # type: ignore[assignment]  # as above
        engine.keeper = None
        assert state.shared is not None
        shared = self.shared = state.shared
        shared.sender = f"process{self.number}".encode()
        shared.proof = Proof(shared.sender)
        shared.breaker._random = state.random
        shared.breaker.since_ns = base_ns
        shared.keep, shared.wake = self._keep, self.wake_keeper
        state.events.subscribe(self._listen)

    # The keeper -------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = self.world.simulation.begin_task(
                self._keep_up(), name=f"{self.name} keeper", context=contextvars.Context(), group=self.name
            )

    def wake_keeper(self) -> None:
        """Have it do a round soon."""
        self._is_woken = True
        if self._keeper is not None:
            self.world.simulation.wake(self._keeper)

    async def _keep_up(self) -> None:
        simulation = self.world.simulation
        run = SimulatedTasks(simulation, self.rate)
        while True:
            self._is_woken, self.is_keeping_up = False, True
            try:
                await keep_up(self.state, run)
            except Exception as error:
                self.world.history.broken.append(f"the keeper of {self.name} failed: {error!r}")
                return
            self.is_keeping_up = False
            ends_ns = simulation.now_ns + int(pause_ns(self.state) / self.rate)
            while not self._is_woken and simulation.now_ns < ends_ns:
                await simulation.suspend(ends_ns)

    # Events -----------------------------------------------------------------------------------------------------------

    def _listen(self, event: Event) -> None:
        history = self.world.history
        if event.kind is EventKind.OWED:
            history.fault("owes", self.name, event.key if isinstance(event.key, str) else "tags")
            call = CALL.get()
            if isinstance(call, Write):
                call.is_owed = True
                self.owing.append((call, event.key))
        elif event.kind is EventKind.DELIVERED:
            self._settle()
        elif event.kind in (EventKind.TIER_LOST, EventKind.TIER_BACK, EventKind.FENCE_LOST, EventKind.RESYNCED):
            history.note(self.name, event.kind, event.key if event.key in history.commits else "", event.detail)
            if event.kind is EventKind.TIER_LOST:
                history.fault("away", self.name)
        elif event.kind is EventKind.UNREADABLE:
            history.broken.append(f"{self.name} could not read {event.key}: {event.detail}")

    def _settle(self) -> None:
        """Note which invalidations are owed no longer."""
        owed, moment = self.shared.owed, self.world.history.note(self.name, "has delivered")
        still: list[tuple[Write, Hashable]] = []
        for write, key in self.owing:
            is_owed = owed.is_owed(key) if isinstance(key, str) else bool(owed._tags or owed._clears)
            if is_owed:
                still.append((write, key))
            elif not any(other is write for other, _ in still):
                write.delivered, write.delivered_ns = moment, self.world.simulation.now_ns
        self.owing = still

    # Faults -----------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self.is_paused = True
        self.world.history.fault("pauses", self.name)
        self.world.simulation.freeze(self.name)

    def resume(self) -> None:
        if self.is_paused and self.is_alive:
            self.is_paused = False
            self.world.history.fault("resumes", self.name)
            self.world.simulation.thaw(self.name)

    def kill(self) -> None:
        """End it in the middle of whatever it does: nothing of it ever runs again, no finally either."""
        self.is_alive = False
        self.world.history.fault("kills", self.name)
        self.world.simulation.freeze(self.name)

    def forget_functions(self) -> None:
        """Let go of cached functions: the world is kept for as long as they are, and they are kept by the world."""
        for face in (self.plain, self.aio):
            face.function = None


class Face:
    """One colour of a process's cache, as coroutines. Under threads they never suspend."""

    def __init__(self, process: Process, *, is_async: bool) -> None:
        self.process = process
        self.is_async = is_async
        self.cache: Any = process.cache.aio if is_async else process.cache
        self.records = self._make_records()
        self.function = self._make_function() if REFRESH.keys() & process.world.config.weights.keys() else None

    def _make_records(self) -> Any:
        """A repository."""
        world = self.process.world
        source = world.database.async_source(self) if self.is_async else world.database.plain_source(self)
        strategy = WriteThrough() if world.config.is_through else CacheAside()
        made = self.process.cache.repository(source, strategy=strategy, tags=[STATIC_TAG, "t{}"])
        return made.aio if self.is_async else made

    def _make_function(self) -> Any:
        """A cached function, of the same keys."""
        database, cached = self.process.world.database, self.process.cache.cached(key="{key}", tags=[STATIC_TAG])
        if self.is_async:

            @cached
            async def load(key):  # unannotated, as annotations of functions are remembered
                return await database.loader(self, key, is_async=True)()

            return load

        @cached
        def load_plain(key):  # as above
            return database.load_plain(self, key)

        return load_plain

    async def sleep(self, time_ns: int) -> None:
        simulation = self.process.world.simulation
        ends_ns = simulation.now_ns + time_ns
        while simulation.now_ns < ends_ns:
            if self.is_async:
                await simulation.suspend(ends_ns)
            else:
                simulation.block(ends_ns)


class Cancelled(asyncio.CancelledError):
    """A client was cancelled by the simulation."""


class Interrupted(KeyboardInterrupt):
    """A client was interrupted by the simulation."""
