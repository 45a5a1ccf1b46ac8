"""The thread that keeps up with the shared tier."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import TierError
from ..flight import Signal
from ..state import State
from ..tiers.base import Operation, Reply, Tier
from .base import Waiter, block

_log = logging.getLogger("credenza")

_STOP_SECONDS = 1.0


class Keeper:
    """Runs rounds of `flow.keep` in a daemon thread, from the first use of the tier on until the cache is closed or gone.

    Args:
        state: the cache; held weakly by the thread.
        tier: its shared tier.
        round_: what to do in each round; a coroutine over a runtime that blocks.
        pause_ns: how long to rest after it, at most.
    """

    def __init__(
        self,
        state: State,
        tier: Tier,
        round_: Callable[[State, Waiter], Any],  # Any: what passes between a coroutine and whoever drives it
        pause_ns: Callable[[State], int],
    ) -> None:
        self._state = weakref.ref(state)
        self._tier = tier
        self._round = round_
        self._pause_ns = pause_ns
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._rest = threading.Event()
        self._is_closed = False

    def start(self) -> None:
        """See to it that the thread runs."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._keep, name="credenza-keeper", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Have it do a round soon, if it rests without watching the tier."""
        self._rest.set()

    def stop(self) -> None:
        """End the thread; wait for it a little unless it is the caller's own."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        self._rest.set()
        self._tier.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_SECONDS)

    def _keep(self) -> None:
        try:
            self._keep_up()
        finally:
            self._tier.close()  # a round or a watch that began while the cache was closed has connected anew

    def _keep_up(self) -> None:
        run = _Direct()
        while not self._is_closed:
            state = self._state()
            if state is None:
                return
            self._rest.clear()
            try:
                block(self._round(state, run))
            except Exception:
                _log.exception("the keeper of the cache %r failed, and goes on", state.name)
            pause_ns = self._pause_ns(state)
            shared = state.shared
            assert shared is not None
            may_watch = shared.needs_proof and not shared.breaker.is_away and not shared.owed
            after = shared.proof.applied
            del state, shared
            self._wait(after, pause_ns, may_watch=may_watch)

    def _wait(self, after: int, pause_ns: int, *, may_watch: bool) -> None:
        """Rest until there is news, or the time is over."""
        if self._is_closed:
            return
        if may_watch:
            try:
                self._tier.watch(after, pause_ns)
            except TierError:
                self._rest.wait(min(pause_ns / 1e9, 0.05))
            except Exception:
                _log.exception("a tier failed while it was watched")
                self._rest.wait(pause_ns / 1e9)
            return
        self._rest.wait(pause_ns / 1e9)


class _Direct:
    """A runtime that blocks, for the keeper's own thread: it asks the tier past the callers' queue."""

    def stuck_loop(self) -> object:
        """Return None: the keeper runs no event loop."""
        return None

    def takes_over(self, *about: Any) -> bool:  # Any: it loads nothing
        """Tell that it does not."""
        return False

    async def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int, /) -> list[Reply]:
        """Ask the tier."""
        return tier.perform(operations, timeout_ns)

    async def join(self, signal: Signal, home: Any, timeout_ns: int | None, /) -> bool:  # Any: an event loop
        """Block until the time is over; nothing that it waits for is signalled."""
        threading.Event().wait((timeout_ns or 0) / 1e9)
        return signal.is_set
