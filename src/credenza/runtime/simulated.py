"""The runtimes of both colours over a simulation: tests explore the real flows with them, one seed after the other.

simulation = Simulation(4711, Carriers())
engine.threads, engine.tasks = SimulatedThreads(simulation), SimulatedTasks(simulation)
state.lock, state.clock_ns = simulation.lock, simulation.look_ns
simulation.begin_thread(lambda: cache.get_or_load("a", loader), name="ann")
simulation.run()
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from ..errors import TierError
from ..flight import Flight, Signal, loading
from ..state import State
from ..steps.request import AGAIN, Request
from ..tiers.base import Operation, Reply, Tier
from .actors import Actor
from .base import Load, Waiter
from .simulation import Simulation
from .stage import Resumed


class _Loop:
    """Stands for the event loop that the simulated tasks share."""

    def is_running(self) -> bool:
        return True


_LOOP: Final = _Loop()


class Sent(Protocol):
    """A batch of operations on its way.

    Attributes:
        answered: set when the replies, or the news that there will be none, have arrived.
    """

    answered: Signal

    def replies(self) -> list[Reply]:
        """Return what has arrived.

        Raises:
            TierError: the tier refused to talk.
        """
        ...


class SimulatedTier(Protocol):
    """What a tier has that simulated runtimes can ask."""

    def send(self, operations: Sequence[Operation], /) -> Sent:
        """Send a batch, and do not wait."""
        ...


async def _exchange(run: Waiter, tier: Tier, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
    sent = cast("SimulatedTier", tier).send(operations)
    if not await run.join(sent.answered, None, timeout_ns):
        raise TierError("the simulated tier did not answer in time")
    return sent.replies()


class SimulatedThreads:
    """Whoever waits gives its thread's turn away; a leader without a deadline runs its load itself.

    Args:
        simulation: whose time it is.
        rate: how fast the clock runs that timeouts are measured by.
    """

    __slots__ = ("_rate", "_simulation")

    def __init__(self, simulation: Simulation, rate: float = 1.0) -> None:
        self._simulation = simulation
        self._rate = rate

    def stuck_loop(self) -> object:
        """Return None: no simulated thread runs an event loop."""
        return None

    def lead(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` here, or in a thread of its own if the caller has to be able to leave."""
        policy = request.policy
        if request.timeout_ns is None and policy.soft_timeout_ns is None and policy.load_timeout_ns is None:
            contextvars.copy_context().run(load.run_plain, state, self, flight, request)
        else:
            self.start(state, load, flight, request)

    def run_now(self, flight: Flight, loader: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call a plain loader here, in a copy of the context."""  # Any: the user's function
        context = contextvars.copy_context()
        context.run(loading.set, flight)
        return context.run(loader, *args)

    def start(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` in a thread of its own."""
        job = functools.partial(load.run_plain, state, self, flight, request)
        self._simulation.begin_thread(job, name=_name(flight))

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Tell that it does not; simulated loaders of this colour are plain."""
        assert not inspect.isawaitable(result)
        return False

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any) -> Any:  # Any: the user's function
        """Call it."""
        return loader(*args)

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Call it."""
        return action()

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Ask a tier that is a `SimulatedTier`."""
        return await _exchange(self, tier, operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Give the turn away until the signal is set or the time is over."""
        simulation, actor = self._simulation, _running(self._simulation)
        ends_ns = None if timeout_ns is None else simulation.now_ns + int(timeout_ns / self._rate)
        signal.listen(actor, functools.partial(simulation.wake, actor))
        try:
            while not signal.is_set and (ends_ns is None or simulation.now_ns < ends_ns):
                simulation.block(ends_ns)
        finally:
            signal.forget(actor)
        return signal.is_set


class SimulatedTasks:
    """Whoever waits suspends its task; every load has a task of its own, and may be cancelled at each of its waits.

    Args:
        simulation: whose time it is.
        rate: how fast the clock runs that timeouts are measured by.
    """

    __slots__ = ("_rate", "_simulation")

    def __init__(self, simulation: Simulation, rate: float = 1.0) -> None:
        self._simulation = simulation
        self._rate = rate

    def stuck_loop(self) -> object:
        """Return None: a task that waits blocks no loop."""
        return None

    def lead(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` at once up to where it waits for something, and from there on as a task of its own.

        A plain loader runs in a thread.
        """
        actor = self._begin(state, load, flight, request, at_once=True)
        if actor.error is not None and not _is_cancellation(actor.error):
            raise actor.error

    def run_now(self, state: State, load: Load, flight: Flight, request: Request) -> Any:
        """Run the first step of the request's loader; return its result, or `AGAIN` if it waits and goes on as a task."""
        flight.home, context = _LOOP, contextvars.copy_context()
        context.run(loading.set, flight)
        actor = self._simulation.begin_task(
            self._step_now(state, load, flight, request), name=_name(flight), context=context, at_once=True
        )
        if actor.error is not None:
            raise actor.error
        return actor.result if actor.is_done else AGAIN

    async def _step_now(self, state: State, load: Load, flight: Flight, request: Request) -> Any:
        coroutine = request.loader()  # Any: what it returns
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        request.loader = functools.partial(Resumed, coroutine, awaited)
        await load.run_async(state, self, flight, request)
        return AGAIN

    def start(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` in a task of its own, some time later."""
        self._begin(state, load, flight, request, at_once=False)

    def _begin(self, state: State, load: Load, flight: Flight, request: Request, *, at_once: bool) -> Actor:
        simulation, context = self._simulation, contextvars.copy_context()
        if not request.is_async:
            job = functools.partial(load.run_plain, state, _Worker(simulation, self, self._rate), flight, request)
            return simulation.begin_thread(job, name=_name(flight), context=context)
        for member in flight.crew or (flight,):
            member.home = _LOOP
        context.run(loading.set, flight)
        return simulation.begin_task(
            load.run_async(state, self, flight, request),
            name=_name(flight),
            context=context,
            fault_rate=simulation.load_fault_rate,
            at_once=at_once,
        )

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Tell that it does not: plain loaders run over `_Worker`."""
        return False

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any) -> Any:  # Any: the user's function
        """Await it, and let it be cancelled meanwhile."""
        flight.cancel = functools.partial(self._simulation.cancel, _running(self._simulation))
        try:
            return await loader(*args)
        finally:
            flight.cancel = None

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Await it, or run it in a thread if it is no coroutine function."""
        return await action() if is_async else await self.offload(action)

    async def offload(self, job: Callable[[], Any]) -> Any:  # Any: the user's function
        """Run `job` in a thread, in a copy of the context. It goes on if the caller is cancelled."""
        done = Signal()
        ended = functools.partial(_and_then, job, done.set)
        actor = self._simulation.begin_thread(ended, name=f"a job of {_running(self._simulation).name}")
        await self.join(done, None, None)
        if actor.error is not None:
            raise actor.error
        return actor.result

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Ask a tier that is a `SimulatedTier`."""
        return await _exchange(self, tier, operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Suspend until the signal is set or the time is over."""
        simulation, actor = self._simulation, _running(self._simulation)
        ends_ns = None if timeout_ns is None else simulation.now_ns + int(timeout_ns / self._rate)
        signal.listen(actor, functools.partial(simulation.wake, actor))
        try:
            while not signal.is_set and (ends_ns is None or simulation.now_ns < ends_ns):
                await simulation.suspend(ends_ns)
        finally:
            signal.forget(actor)
        return signal.is_set


class _Worker(SimulatedThreads):
    """A thread that runs a plain loader for a task; an awaitable that it returns becomes a task."""

    __slots__ = ("_tasks",)

    def __init__(self, simulation: Simulation, tasks: SimulatedTasks, rate: float) -> None:
        super().__init__(simulation, rate)
        self._tasks = tasks

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Have an awaitable awaited, and be free."""
        if not inspect.isawaitable(result):
            return False
        load.resume(request, result)
        request.is_async = True
        self._tasks.start(state, load, flight, request)
        return True


def _running(simulation: Simulation) -> Actor:
    assert simulation.current is not None, "only actors wait"
    return simulation.current


def _name(flight: Flight) -> str:
    keys = [member.key for member in flight.crew or (flight,)]
    return f"load of {', '.join(map(str, keys))}"


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)


def _and_then(job: Callable[[], Any], after: Callable[[], None]) -> Any:  # Any: the job's result
    try:
        return job()
    finally:
        after()
