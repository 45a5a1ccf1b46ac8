"""The port through which the flows wait, start and call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import UsageError
from ..flight import Flight, Signal

if TYPE_CHECKING:
    from ..state import State
    from ..steps.request import Request
    from ..tiers.base import Operation, Reply, Tier

T = TypeVar("T")


def block(flow: Coroutine[Any, Any, T]) -> T:  # Any: what passes between a coroutine and whoever drives it
    """Run a flow over a runtime that blocks, so that it never suspends, and return its result.

    Raises:
        UsageError: it did suspend; a coroutine of the async face got into the sync one.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise UsageError(
        "a coroutine waited for an event loop in the sync face; use cache.aio for async loaders and sources"
    )


class Waiter(Protocol):
    """The part of a colour that a load needs in the place where it runs. No method may be called with a lock held."""

    def stuck_loop(self) -> object:
        """Return the event loop that cannot go on while the caller waits, None if waiting blocks none."""
        ...

    def takes_over(
        self, state: State, load: Load, flight: Flight, request: Request, result: Any, /
    ) -> bool:  # Any: what the user's function returned
        """Look at what a plain loader returned: tell whether it is an awaitable that is awaited elsewhere.

        Raises:
            UsageError: it is a coroutine, and nobody can await it.
        """
        ...

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Wait until `signal` is set; tell whether it was. It also returns False if `home` can no longer set it.

        Args:
            signal: what to wait for.
            home: the event loop that must run for that, or None.
            timeout_ns: how long at most; None for no bound.
        """
        ...

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Have a shared tier perform `operations` and return its replies.

        Raises:
            TierError: none of them is known to be performed, any of them may be.
        """
        ...


class Load(Protocol):
    """A load that can run in either colour; it ends its flight, and raises only what concerns its leader alone."""

    def run_plain(self, state: State, run: Waiter, flight: Flight, request: Request, /) -> None:
        """Call a plain loader in this thread."""
        ...

    async def run_async(self, state: State, run: Runtime, flight: Flight, request: Request, /) -> None:
        """Await a loader."""
        ...

    def resume(self, request: Request, awaitable: Awaitable[Any], /) -> None:  # Any: what the loader brings in the end
        """Let `run_async` await what a plain loader has returned."""
        ...


class Runtime(Waiter, Protocol):
    """One colour. Flows are coroutines over this port; a runtime decides what waiting means."""

    def lead(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` in a copy of the caller's context, as far as it goes without waiting.

        A caller that has a deadline, or may leave for another reason, is never kept by a loader that blocks.
        """
        ...

    def start(self, state: State, load: Load, flight: Flight, request: Request, /) -> None:
        """Run `load` behind the caller's back, in a copy of its context."""
        ...

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any) -> Any:  # Any: the user's function
        """Await the user's `loader`; `flight.cancel` is set as long as it can be stopped."""
        ...

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Call the user's `action` on the caller's own account: who leaves, leaves it."""
        ...
