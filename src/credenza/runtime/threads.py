"""Threads: the runtime of the sync face."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, TypeVar

from ..errors import UsageError
from ..flight import Flight, Signal, loading
from .base import Load
from .workers import Workers

T = TypeVar("T")

_LOOK_AGAIN_SECONDS = 0.2
"""How often a thread looks whether the event loop that it waits for still runs; a loop that stops tells nobody."""


def drive(flow: Coroutine[Any, Any, T]) -> T:  # Any: what passes between a coroutine and whoever drives it
    """Run a flow that never suspends, and return its result.

    Raises:
        UsageError: it did suspend; a coroutine of the async face got into the sync one.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise UsageError("a coroutine waited for an event loop in the sync face; use cache.aio for async loaders and sources")


class Threads:
    """Whoever waits blocks its thread; a leader without a deadline runs its load itself."""

    __slots__ = ("_workers",)

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def stuck_loop(self) -> object:
        """Return the event loop of this thread: a task of it could not go on while the thread waits."""
        return asyncio._get_running_loop()

    def lead(self, flight: Flight, load: Load, /, *, patient: bool) -> None:
        """Run `load` here, or in a worker thread if the caller has to be able to leave."""
        context = contextvars.copy_context()
        context.run(loading.set, flight)
        if patient:
            context.run(drive, load)
        else:
            self._workers.submit(lambda: context.run(drive, load))

    def start(self, flight: Flight, load: Load, /) -> None:
        """Run `load` in a worker thread."""
        self.lead(flight, load, patient=False)

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any, is_async: bool) -> Any:
        """Call it."""  # Any: the user's function
        return _checked(loader(*args))

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Call it."""
        return _checked(action())

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Block until the signal is set, the time is over or the loop has stopped."""
        rang = threading.Event()
        signal.listen(rang, rang.set)
        try:
            if home is None:
                return rang.wait(None if timeout_ns is None else timeout_ns / 1e9)
            return self._wait_for_loop(rang, home, timeout_ns)
        finally:
            signal.forget(rang)

    def _wait_for_loop(self, rang: threading.Event, home: Any, timeout_ns: int | None) -> bool:  # Any: an event loop
        left = float("inf") if timeout_ns is None else timeout_ns / 1e9
        while left > 0:
            pause = min(left, _LOOK_AGAIN_SECONDS)
            if rang.wait(pause):
                return True
            if not home.is_running():
                return rang.is_set()
            left -= pause
        return rang.is_set()


def _checked(result: Any) -> Any:  # Any: what the user's function returned
    if type(result) is CoroutineType:
        result.close()
        raise UsageError("the sync face got a coroutine, which it cannot await; use cache.aio for async loaders and sources")
    return result
