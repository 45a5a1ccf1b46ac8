"""Threads: the runtime of the sync face."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any

from ..errors import UsageError
from ..flight import Flight, Signal, loading
from ..state import State
from ..steps.request import Request
from ..tiers.base import Operation, Reply, Tier
from .base import Load
from .gather import ThreadGather
from .workers import Workers

_LOOK_AGAIN_SECONDS = 0.2
"""How often a thread looks whether the event loop that it waits for still runs; a loop that stops tells nobody."""


class Threads:
    """Whoever waits blocks its thread; a leader without a deadline runs its load itself.

    Args:
        workers: where loads run that their leader may leave.
        gather: puts together what threads ask of the shared tier.
    """

    __slots__ = ("_gather", "_workers")

    def __init__(self, workers: Workers, gather: ThreadGather | None = None) -> None:
        self._workers = workers
        self._gather = gather or ThreadGather()

    def stuck_loop(self) -> object:
        """Return the event loop of this thread: a task of it could not go on while the thread waits."""
        return asyncio._get_running_loop()

    def lead(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` here, or in a worker thread if the caller has to be able to leave."""
        policy = request.policy
        if request.timeout_ns is None and policy.soft_timeout_ns is None and policy.load_timeout_ns is None:
            contextvars.copy_context().run(load.run_plain, state, self, flight, request)
        else:
            self.start(state, load, flight, request)

    def run_now(self, flight: Flight, loader: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call a plain loader in this thread, in a copy of the context."""  # Any: the user's function
        result = contextvars.copy_context().run(_call, flight, loader, args)
        return check_no_coroutine(result) if type(result) is CoroutineType else result

    def start(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` in a worker thread."""
        context = contextvars.copy_context()
        self._workers.submit(lambda: context.run(load.run_plain, state, self, flight, request))

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Refuse a coroutine, which nobody here can await."""
        check_no_coroutine(result)
        return False

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any) -> Any:  # Any: the user's function
        """Call it; the faces let no coroutine function come this far."""
        return check_no_coroutine(loader(*args))

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Call it."""
        return check_no_coroutine(action())

    def ask(self, tier: Tier, operation: Operation, timeout_ns: int, /) -> Reply:
        """Have the tier perform one operation, together with those of other threads; raises `TierError` as it does."""
        return self._gather.exchange(tier, (operation,), timeout_ns)[0]

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Ask the tier, together with other threads."""
        return self._gather.exchange(tier, operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Block until the signal is set, the time is over or the loop has stopped."""
        if signal.is_set:
            return True
        bell = threading.Lock()  # an Event does the same with two locks and a list
        bell.acquire()
        signal.listen(bell, functools.partial(_ring, bell))
        try:
            if home is None:
                return bell.acquire(timeout=-1 if timeout_ns is None else max(0, timeout_ns) / 1e9)
            return self._wait_for_loop(bell, home, timeout_ns)
        finally:
            signal.forget(bell)

    def _wait_for_loop(self, bell: threading.Lock, home: Any, timeout_ns: int | None) -> bool:  # Any: an event loop
        left = float("inf") if timeout_ns is None else timeout_ns / 1e9
        while left > 0:
            pause = min(left, _LOOK_AGAIN_SECONDS)
            if bell.acquire(timeout=pause):
                return True
            if not home.is_running():
                return bell.acquire(blocking=False)
            left -= pause
        return bell.acquire(blocking=False)


def _ring(bell: threading.Lock) -> None:
    """Let whoever waits go on; a signal may tell it twice."""
    try:
        bell.release()
    except RecursionError:
        raise
    except RuntimeError:
        pass


def _call(flight: Flight, loader: Callable[..., Any], args: tuple[Any, ...]) -> Any:  # Any: the user's function
    loading.set(flight)
    return loader(*args)


def check_no_coroutine(result: Any) -> Any:  # Any: what the user's function returned
    """Return what a plain loader returned; a coroutine is closed and refused."""
    if type(result) is CoroutineType:
        result.close()
        raise UsageError("the sync face got a coroutine, which it cannot await; use cache.aio for async functions")
    return result
