"""Singleflight without a cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

from .arguments import check_callable, check_sync_loader, timeout_ns_of
from .clock import monotonic_ns
from .durations import Duration
from .engine import Engine
from .flow.read import read
from .keys import check_hashable
from .memory.implementation import Table
from .policy import Policy
from .runtime.base import block
from .runtime.tasks import is_coroutine_function
from .state import State
from .steps.request import Request

T = TypeVar("T")


class Flights:
    """Runs one call per key at a time; whoever asks meanwhile gets its result. Nothing is kept afterwards.

    Thread-safe; `flights.aio.do` is the same for tasks, and both join each other's calls.

    Args:
        max_concurrent_loads: how many calls of different keys may run at once; others queue.

    Examples:
        >>> flights = Flights()
        >>> flights.do("report", lambda: "computed once")
        'computed once'
    """

    def __init__(self, *, max_concurrent_loads: int | None = None) -> None:
        state = State(
            Table(maxsize=1, max_weight=None, eviction="s3fifo"), clock_ns=monotonic_ns, weigh=None, name="flights"
        )
        self._engine = Engine(state, Policy(max_concurrent_loads=max_concurrent_loads))
        self.aio = AsyncFlights(self._engine)
        """The async face."""

    def do(self, key: Hashable, function: Callable[[], T], *, timeout: Duration | None = None) -> T:
        """Return what `function` returns, or what a call under way for `key` does.

        Args:
            key: any hashable.
            function: called without arguments.
            timeout: how long to wait in all. With it, a call that begins here runs in a worker thread.

        Raises:
            LoadTimeout: `timeout` passed; the call goes on for others.
            DeadlockError: the call would wait for itself.
            Exception: what `function` raised, a copy for those who joined.
        """
        check_sync_loader(function)
        request = _request(self._engine, key, function, timeout, is_async=False)
        return cast("T", block(read(self._engine.state, self._engine.threads, request)))

    def forget(self, key: Hashable) -> None:
        """Let the next call for `key` run anew; those that wait for the one under way still get its result."""
        self._engine.state.invalidate((key,))

    def __len__(self) -> int:
        return len(self._engine.state.flights)


class AsyncFlights:
    """The async face of `Flights`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def do(self, key: Hashable, function: Callable[[], Awaitable[T]], *, timeout: Duration | None = None) -> T:
        """See `Flights.do`. A plain function runs in a worker thread."""
        check_callable(function)
        is_async = is_coroutine_function(function)
        request = _request(self._engine, key, function, timeout, is_async=is_async)
        return cast("T", await read(self._engine.state, self._engine.tasks, request))


def _request(
    engine: Engine, key: Hashable, function: Callable[[], Any], timeout: Duration | None, *, is_async: bool
) -> Request:  # Any: what the user's function returns
    check_hashable(key)
    request = Request(key, function, engine.policy, (), engine.state.tally, is_async)
    request.timeout_ns, request.keeps = timeout_ns_of(timeout), False
    return request
