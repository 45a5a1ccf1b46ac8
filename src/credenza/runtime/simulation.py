"""Virtual time: one seed decides who goes on, who is cancelled and how late everybody is.

Actors run one at a time. A *task* is a coroutine. A *thread* is a plain function that runs on an OS thread of its own, but
only while it has the turn; so code of both colours runs unchanged. An actor gives its turn away where a real one would
wait, and now and then at an edge of the lock or a look at the clock, where a real thread may be preempted.

The idea is that of FoundationDB's simulator (Zhou et al., FoundationDB: a distributed unbundled transactional key value
store, SIGMOD 2021, section 4); here there are no machines and no disks, only callers.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import random
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from .actors import Abandoned, Actor, Carriers, Fault, Task, Thread

_MOST_NESTED = 3


class Lock:
    """Stands for the lock of a cache. Nobody loses the turn while it is held, so it is never waited for."""

    __slots__ = ("_simulation", "depth")

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.depth = 0

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *about: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take it, perhaps after somebody else's step."""
        if not self.depth:
            self._simulation.preempt()
        self.depth += 1

    def release(self) -> None:
        """Give it back; somebody else's step may come at once."""
        self.depth -= 1
        if not self.depth:
            self._simulation.preempt()


class Simulation:
    """The actors, the clock and the seed.

    Args:
        seed: decides everything; the same seed is the same run.
        carriers: where simulated threads run.
        preempt_rate: how likely an actor loses its turn at an edge of the lock or a look at the clock.
        lag_rate: how likely time goes on although somebody could run.
        load_fault_rate: how likely a load's own task is cancelled at each of its waits, as by a loop that shuts down.

    Attributes:
        now_ns: the time.
        lag_ns: how much of it passed although somebody could run; `lag_rate` may be changed on the way.
    """

    def __init__(
        self,
        seed: int,
        carriers: Carriers,
        *,
        preempt_rate: float = 0.1,
        lag_rate: float = 0.05,
        load_fault_rate: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.lock = Lock(self)
        self.now_ns = self.lag_ns = 0
        self.load_fault_rate = load_fault_rate
        self.current: Actor | None = None
        self._carriers = carriers
        self._preempt_rate = preempt_rate
        self.lag_rate = lag_rate
        self._ready: list[Actor] = []
        self._alarms: list[tuple[int, int, Actor, int]] = []
        self._alarm_count = self._depth = 0
        self._alive: dict[Actor, None] = {}
        self._frozen: dict[object, list[Actor]] = {}  # by group: who could run if it were not frozen

    # Actors -----------------------------------------------------------------------------------------------------------

    def begin_task(
        self,
        play: Coroutine[Any, Any, Any],  # Any: what a coroutine sends, and its result
        *,
        name: str,
        context: contextvars.Context | None = None,
        fault: Fault = asyncio.CancelledError,
        fault_rate: float = 0.0,
        at_once: bool = False,
        group: object = None,
    ) -> Actor:
        """Add a task; `at_once` runs its first step here, in the turn of whoever calls."""
        task = Task(play, context or contextvars.copy_context(), name, fault, fault_rate)
        return self._add(task, group, at_once=at_once)

    def begin_thread(
        self,
        job: Callable[[], Any],  # Any: the job's result
        *,
        name: str,
        context: contextvars.Context | None = None,
        fault: Fault | None = None,
        fault_rate: float = 0.0,
        group: object = None,
    ) -> Actor:
        """Add a thread."""
        job = functools.partial((context or contextvars.copy_context()).run, job)
        return self._add(Thread(job, self._carriers.take(), name, fault, fault_rate), group, at_once=False)

    def _add(self, actor: Actor, group: object, *, at_once: bool) -> Actor:
        self._alive[actor] = None
        actor.group = self.current.group if group is None and self.current is not None else group
        if at_once:
            self._step(actor)
        else:
            actor.is_parked = True
            self.wake(actor)
        return actor

    def cancel(self, actor: Actor, error: BaseException | None = None) -> None:
        """Throw `error`, or else `CancelledError`, into an actor where it waits next, or waits now."""
        if not actor.is_done:
            actor.thrown = error or asyncio.CancelledError()
            self.wake(actor)

    def wake(self, actor: Actor) -> None:
        """Let an actor that waits look again."""
        if actor.is_parked:
            actor.is_parked = False
            self._frozen.get(actor.group, self._ready).append(actor)

    def alive(self) -> list[Actor]:
        """Return the actors that have not ended."""
        return list(self._alive)

    # Groups -----------------------------------------------------------------------------------------------------------

    def freeze(self, group: object) -> None:
        """Let none of the group's actors run until `thaw`, as SIGSTOP does; time goes on, and what they wait for happens.

        Whoever has the turn now keeps it to its next wait.
        """
        if group not in self._frozen:
            self._frozen[group] = [actor for actor in self._ready if actor.group == group]
            self._ready = [actor for actor in self._ready if actor.group != group]

    def thaw(self, group: object) -> None:
        """Let them run again."""
        self._ready += self._frozen.pop(group, ())

    def is_nested(self) -> bool:
        """Tell whether the running actor stands in the middle of a step of another one."""
        return self._depth > 0

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self, *, lasts_ns: int) -> None:
        """Let actors run, and time pass when none can, until nobody would ever go on or so much time has passed."""
        ends_ns = self.now_ns + lasts_ns
        while self.now_ns < ends_ns:
            is_late = bool(self._ready and self._alarms) and self.random.random() < self.lag_rate
            if self._ready and not is_late:
                self._step(self._draw())
            elif self._alarms:
                self._ring(is_late=is_late)
            else:
                return

    def close(self) -> None:
        """Unwind whoever is left."""
        self._preempt_rate = 0.0
        for group in list(self._frozen):
            self.thaw(group)
        for _ in range(100):
            for actor in self.alive():
                actor.fault_rate, actor.thrown = 0.0, Abandoned()
                if not actor.is_parked:
                    self._ready.remove(actor)
                self._step(actor)
            if not self._alive:
                return

    def _draw(self) -> Actor:
        return self._ready.pop(self.random.randrange(len(self._ready)))

    def _ring(self, *, is_late: bool) -> None:
        at_ns = max(self._alarms[0][0], self.now_ns)
        if is_late:
            self.lag_ns += at_ns - self.now_ns
        self.now_ns = at_ns
        while self._alarms and self._alarms[0][0] <= at_ns:
            _, _, actor, parks = heapq.heappop(self._alarms)
            if actor.parks == parks:
                self.wake(actor)

    def _step(self, actor: Actor) -> None:
        error, actor.thrown = actor.thrown, None
        if error is None and not actor.is_preempted and actor.parks:
            error = self._draw_fault(actor)
        actor.is_parked = actor.is_preempted = False
        previous, self.current = self.current, actor
        try:
            until_ns = actor.take_turn(error)
        finally:
            self.current = previous
        if actor.is_done:
            del self._alive[actor]
            return
        actor.parks += 1
        actor.is_parked = True
        if actor.is_preempted or actor.thrown is not None:
            self.wake(actor)
        elif until_ns is not None:
            self._alarm_count += 1
            heapq.heappush(self._alarms, (until_ns, self._alarm_count, actor, actor.parks))

    def _draw_fault(self, actor: Actor) -> BaseException | None:
        if actor.fault is None or not actor.fault_rate or self.random.random() >= actor.fault_rate:
            return None
        return actor.fault()

    # Waiting ----------------------------------------------------------------------------------------------------------

    def look_ns(self) -> int:
        """Return the time; stands for the clock of a cache."""
        if not self.lock.depth:
            self.preempt()
        return self.now_ns

    def block(self, until_ns: int | None) -> None:
        """Give the turn of a thread away until it is woken or the time has come; it may be woken early."""
        assert isinstance(self.current, Thread)
        assert not self.lock.depth, "waiting with the lock held"
        self.current.give_turn(until_ns)

    @types.coroutine
    def suspend(self, until_ns: int | None) -> Generator[int | None, None, None]:
        """Do as `block` in a task."""
        assert not self.lock.depth, "waiting with the lock held"
        yield until_ns

    def preempt(self) -> None:
        """Let somebody else run a step here, perhaps."""
        if not self._ready or self._depth >= _MOST_NESTED or self.random.random() >= self._preempt_rate:
            return
        if isinstance(self.current, Thread):
            self.current.is_preempted = True
            self.current.give_turn(None)
            return
        self._depth += 1
        try:
            self._step(self._draw())
        finally:
            self._depth -= 1
