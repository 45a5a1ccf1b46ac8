"""Which entries are due."""

from __future__ import annotations

import heapq

from ..durations import FOREVER_NS
from .entry import Entry

_TICK_BITS = 30
"""Entries are gathered in buckets of 2**30 ns, about a second; the exact time is checked when they are read."""


class Expiry:
    """Entries in buckets by the second of their deadline, the buckets in a heap. Not thread-safe.

    An entry costs one dictionary operation when it is stored and one when it leaves, so reclaiming costs an amortised
    constant: the heap holds buckets, not entries. Before `next_ns` nothing is due.
    """

    __slots__ = ("_buckets", "_ticks", "next_ns")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Entry, None]] = {}
        self._ticks: list[int] = []
        self.next_ns = FOREVER_NS

    def add(self, entry: Entry) -> None:
        """Remember to reclaim `entry`, unless it never expires."""
        deadline_ns = entry.deadline_ns() if entry.policy.idle_ttl_ns else entry.expire_ns
        if deadline_ns >= FOREVER_NS:
            return
        tick = (deadline_ns >> _TICK_BITS) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {entry: None}
            heapq.heappush(self._ticks, tick)
            self._look_ahead()
        else:
            bucket[entry] = None
        entry.tick = tick

    def discard(self, entry: Entry) -> None:
        """Forget `entry`, which is in a bucket and has left the table."""
        del self._buckets[entry.tick][entry]
        entry.tick = 0

    def due(self, now_ns: int, *, most: int) -> list[Entry]:
        """Return entries whose time has passed, having looked at `most` at the most; they are forgotten here."""
        found: list[Entry] = []
        ticks = self._ticks
        while most and ticks and ticks[0] << _TICK_BITS <= now_ns:
            bucket = self._buckets[ticks[0]]
            while bucket and most:
                most -= 1
                entry, _ = bucket.popitem()
                entry.tick = 0
                if entry.deadline_ns() <= now_ns:
                    found.append(entry)
                else:
                    self.add(entry)
            if not bucket:
                del self._buckets[heapq.heappop(ticks)]
        self._look_ahead()
        return found

    def _look_ahead(self) -> None:
        self.next_ns = self._ticks[0] << _TICK_BITS if self._ticks else FOREVER_NS
