"""Tasks: the runtime of the async face."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any

from ..durations import NANOSECONDS
from ..flight import Flight, Signal, loading
from ..state import State
from ..steps.landing import give_up_late
from ..steps.leaving import may_begin
from ..steps.request import AGAIN, Request
from ..tiers.base import Operation, Reply, Tier
from .base import Load
from .gather import Gathers
from .stage import Resumed, Stages
from .threads import Threads
from .workers import Workers

_LOOK_AGAIN_SECONDS = 0.2
"""How often a task looks whether another event loop that it waits for still runs; a loop that stops tells nobody."""


def is_coroutine_function(function: object) -> bool:
    """Tell whether calling `function` gives a coroutine, as far as one can tell without calling it."""
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isclass(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class Tasks:
    """Whoever waits awaits; every load has a task of its own, so that no caller's cancellation can reach it."""

    __slots__ = ("_stages", "gathers", "workers")

    def __init__(self, workers: Workers, gathers: Gathers | None = None) -> None:
        self.workers = workers
        self.gathers = gathers or Gathers()
        self._stages = Stages()

    def stuck_loop(self) -> object:
        """Return None: a task that waits blocks no loop."""
        return None

    def lead(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` at once up to where it waits for something, and from there on in a task of its own.

        A plain loader runs in a worker thread.
        """
        if not request.is_async:
            self._submit(state, load, flight, request)
            return
        loop, context = _settle_in(flight)
        stage = self._stages.take(loop)
        if not stage.perform(load.run_async(state, self, flight, request), context):
            flight.task = stage.task
            _set_alarm(state, flight, loop, stage.task)
        self._stages.give_back(stage)

    def run_now(
        self, state: State, load: Load, flight: Flight, request: Request
    ) -> Any:  # Any: what the user's function returns
        """Run the first step of the request's loader; return its result, or `AGAIN` if it waits and goes on as a task.

        Raises: what the loader raised in its first step.
        """
        loop = flight.home = asyncio.get_running_loop()
        context = contextvars.copy_context()
        coroutine = request.loader()
        if type(coroutine) is not CoroutineType:
            request.loader = lambda: coroutine
            self.lead(state, load, flight, request)
            return AGAIN
        stage = self._stages.take(loop)
        try:
            awaited = stage.step(context, _first_step, flight, coroutine)
        except StopIteration as stop:
            return stop.value
        finally:
            self._stages.give_back(stage)
        request.loader = functools.partial(Resumed, coroutine, awaited)
        flight.task = stage.task
        stage.perform(load.run_async(state, self, flight, request), context)
        return AGAIN

    def start(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` in a task of its own, from the loop's next turn on."""
        if not request.is_async:
            self._submit(state, load, flight, request)
            return
        loop, context = _settle_in(flight)
        task = flight.task = loop.create_task(load.run_async(state, self, flight, request), context=context)
        _set_alarm(state, flight, loop, task)

    def _submit(self, state: State, load: Load, flight: Flight, request: Request) -> None:
        """Run a plain loader in a worker; if it turns out to return an awaitable, that is awaited on this loop."""
        context = contextvars.copy_context()
        run = _Worker(self, asyncio.get_running_loop())
        self.workers.submit(lambda: context.run(load.run_plain, state, run, flight, request))

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Tell that it does not: plain loaders run over `_Worker`."""
        return False

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any) -> Any:  # Any: the user's function
        """Await it, and let it be cancelled meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        flight.cancel = functools.partial(_cancel, flight.home, task)
        try:
            return await loader(*args)
        finally:
            flight.cancel = None

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Await it, or run it in a worker thread if it is no coroutine function."""
        result = action() if is_async else await self.offload(action)
        return await result if inspect.isawaitable(result) else result

    async def offload(self, job: Callable[[], Any]) -> Any:  # Any: the user's function
        """Run `job` in a worker thread, in a copy of the context. It goes on if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result = context.run(job)
            except BaseException as error:
                _tell(loop, future, None, error)
                if not isinstance(error, Exception):
                    raise
            else:
                _tell(loop, future, result, None)

        self.workers.submit(work)
        return await future

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Ask the tier, together with the other tasks of the loop."""
        return await self.gathers.of_running_loop(tier).exchange(operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Await the signal, however it is set and from wherever."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        signal.listen(future, functools.partial(_wake, loop, future))
        try:
            if timeout_ns is None and (home is None or home is loop):
                await future
                return True
            return await self._join_within(future, home, loop, timeout_ns)
        finally:
            signal.forget(future)

    async def _join_within(
        self, future: asyncio.Future[None], home: Any, loop: asyncio.AbstractEventLoop, timeout_ns: int | None
    ) -> bool:  # Any: an event loop
        left = float("inf") if timeout_ns is None else timeout_ns / 1e9
        is_foreign = home is not None and home is not loop
        while True:
            pause = min(left, _LOOK_AGAIN_SECONDS) if is_foreign else left
            await asyncio.wait((future,), timeout=pause)
            left -= pause
            if future.done() or left <= 0 or (home is not None and home is not loop and not home.is_running()):
                return future.done()


class _Worker:
    """A worker thread that runs a plain loader for a task: it blocks, and hands awaitables to the task's loop."""

    __slots__ = ("_loop", "_tasks", "_threads")

    def __init__(self, tasks: Tasks, loop: asyncio.AbstractEventLoop) -> None:
        self._tasks = tasks
        self._threads = Threads(tasks.workers, tasks.gathers.threads)
        self._loop = loop

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Have an awaitable awaited on the loop of whoever asked, and be free."""
        if not inspect.isawaitable(result):
            return False
        if not may_begin(state, flight):  # everybody has left meanwhile
            _close(result)
            return True
        for member in flight.crew or (flight,):
            member.home = self._loop
        try:
            load.resume(request, result)
            request.is_async = True
            self._loop.call_soon_threadsafe(self._tasks.start, state, load, flight, request)
        except RuntimeError:  # the loop is closed, and its waiters with it
            _close(result)
            request.is_async = False
            raise asyncio.CancelledError("the event loop of the loader has stopped") from None
        return True

    def stuck_loop(self) -> object:
        """See `Threads`."""
        return self._threads.stuck_loop()

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """See `Threads`."""
        return await self._threads.exchange(tier, operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """See `Threads`."""
        return await self._threads.join(signal, home, timeout_ns)


def _close(awaitable: object) -> None:
    if isinstance(awaitable, CoroutineType):
        awaitable.close()


def _first_step(flight: Flight, coroutine: Coroutine[Any, Any, Any]) -> Any:  # Any: what coroutines yield and return
    loading.set(flight)
    return coroutine.send(None)


def _set_alarm(state: State, flight: Flight, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """End the load at its deadline even if nobody waits for it any more."""
    if flight.has_deadline():
        seconds = (flight.deadline_ns - flight.began_ns) / NANOSECONDS
        alarm = loop.call_later(seconds, give_up_late, state, flight)
        task.add_done_callback(lambda _: alarm.cancel())


def _settle_in(flight: Flight) -> tuple[asyncio.AbstractEventLoop, contextvars.Context]:
    """Make the running loop the flight's home; return it with a context for the load."""
    loop = asyncio.get_running_loop()
    for member in flight.crew or (flight,):
        member.home = loop
    context = contextvars.copy_context()
    context.run(loading.set, flight)
    return loop, context


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if asyncio._get_running_loop() is loop:
        _set(future)
        return
    try:
        loop.call_soon_threadsafe(_set, future)
    except RecursionError:
        raise
    except RuntimeError:
        pass  # the waiter's loop is closed, so nobody waits


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:  # Any: what the user's function returned
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop that waited is closed; its flights are taken off the register by whoever comes next


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel `task` from its loop, and not at once: the task may not have begun, and would then never run its load."""
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        pass  # the loop is closed, and its tasks with it
