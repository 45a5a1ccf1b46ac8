"""The port through which the flows wait, start and call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..flight import Flight, Signal

Load = Coroutine[Any, Any, None]  # Any: what passes between a coroutine and whoever drives it


class Runtime(Protocol):
    """One colour. Flows are coroutines over this port; a runtime decides what waiting means.

    No method may be called with a lock held.
    """

    def stuck_loop(self) -> object:
        """Return the event loop that cannot go on while the caller waits, None if waiting blocks none."""
        ...

    def lead(self, flight: Flight, load: Load, /, *, patient: bool) -> None:
        """Run `load` in a copy of the caller's context, as far as it goes without waiting.

        Args:
            flight: what it loads for; `home` and `cancel` are set where that applies.
            load: the load's coroutine; it settles the flight, and raises only what concerns its leader alone.
            patient: the caller has no deadline, so it may be kept until the load ends.
        """
        ...

    def start(self, flight: Flight, load: Load, /) -> None:
        """Run `load` behind the caller's back, in a copy of its context."""
        ...

    async def call(self, flight: Flight, loader: Callable[..., Any], /, *args: Any, is_async: bool) -> Any:
        """Call the user's `loader` as this colour does, and wait for what it returns.

        Args:
            flight: `cancel` is set while the loader can be stopped.
            loader: what to call, with `args`.  # Any: the user's function
            is_async: calling it gives a coroutine.
        """
        ...

    async def perform(self, action: Callable[[], Any], /, *, is_async: bool) -> Any:  # Any: the user's function
        """Call the user's `action` on the caller's own account: who leaves, leaves it."""
        ...

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Wait until `signal` is set; tell whether it was. It also returns False if `home` can no longer set it.

        Args:
            signal: what to wait for.
            home: the event loop that must run for that, or None.
            timeout_ns: how long at most; None for no bound.
        """
        ...
