"""A tier in a dictionary: shared by the caches of one process, gone with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .base import Announce, Operation, Reply
from .shelf import Shelf


class DictTier:
    """The reference tier. Caches of one process that are given the same object agree as processes would.

    Nothing waits for anything but a short lock, so no timeout ever passes. Closing it wakes whoever watches; it keeps
    its records, since other caches may go on using it.

    Args:
        namespace: the prefix of the names of the cache that uses it.
        now_ms: its clock, in milliseconds; None for the system's monotonic one.

    Attributes:
        shelf: what it keeps, for tests that look or meddle. Guarded by the tier's lock.
    """

    def __init__(self, *, namespace: str = "credenza", now_ms: Callable[[], int] | None = None) -> None:
        self.namespace = namespace
        self.max_bytes = 1_000_000
        self.shelf = Shelf(max_bytes=self.max_bytes)
        self._now_ms = now_ms or _monotonic_ms
        self._changed = threading.Condition(threading.Lock())
        self._closings = 0  # guarded by `_changed`

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform`; the batch is performed in one piece."""
        with self._changed:
            replies = [self.shelf.apply(operation, self._now_ms()) for operation in operations]
            if any(isinstance(operation, Announce) for operation in operations):
                self._changed.notify_all()
        return replies

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform_async`."""
        return self.perform(operations, timeout_ns)

    def watch(self, after: int, timeout_ns: int) -> None:
        """See `Tier.watch`; also returns when the tier lost its memory, or somebody closed it."""
        with self._changed:
            closings = self._closings
            self._changed.wait_for(
                lambda: self.shelf.sequence != after or self._closings != closings, timeout_ns / 1_000_000_000
            )

    def forget_all(self) -> None:
        """Lose everything, as a server does that restarts without having saved."""
        with self._changed:
            self.shelf.forget_all()
            self._changed.notify_all()

    def forget_parent(self) -> None:
        """Begin with nothing: a forked child shares no dictionary with its parent, and a copy would miss its news."""
        self._changed = threading.Condition(threading.Lock())
        self.shelf = Shelf(max_bytes=self.max_bytes)

    def close(self) -> None:
        """Wake whoever watches."""
        with self._changed:
            self._closings += 1
            self._changed.notify_all()

    async def close_async(self) -> None:
        """Do nothing: no event loop owns anything here."""


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
