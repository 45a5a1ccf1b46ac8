"""Which entries are due."""

from __future__ import annotations

import heapq

from ..durations import FOREVER_NS
from .entry import Entry

_TICK_BITS = 30
"""Entries are gathered in buckets of 2**30 ns, about a second; the exact time is checked when they are read."""

_SLACK = 64


class Expiry:
    """Entries in buckets by the second of their deadline, the buckets in a heap. Not thread-safe.

    An entry costs one append when it is stored and one pop when it is due, so reclaiming costs an amortised constant:
    the heap holds buckets, not entries. Before `next_ns` nothing is due. What is evicted or invalidated before stays in its bucket as a dead entry
    without a value; when the dead outnumber the living, the buckets are built anew.
    """

    __slots__ = ("_buckets", "_dead", "_living", "_ticks", "next_ns")

    def __init__(self) -> None:
        self._buckets: dict[int, list[Entry]] = {}
        self._ticks: list[int] = []
        self._living = 0
        self._dead = 0
        self.next_ns = FOREVER_NS

    def add(self, entry: Entry) -> None:
        """Remember to reclaim `entry`, unless it never expires."""
        deadline_ns = entry.deadline_ns() if entry.policy.idle_ttl_ns else entry.expire_ns
        if deadline_ns >= FOREVER_NS:
            return
        tick = entry.tick = (deadline_ns >> _TICK_BITS) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = []
            heapq.heappush(self._ticks, tick)
            self._look_ahead()
        bucket.append(entry)
        self._living += 1

    def discard(self, entry: Entry) -> None:
        """Forget `entry`, which is in a bucket and has left the table."""
        entry.tick = 0
        self._living -= 1
        self._dead += 1
        if self._dead > self._living + _SLACK:
            self._rebuild()

    def due(self, now_ns: int, *, most: int) -> list[Entry]:
        """Return entries whose time has passed, having looked at `most` at the most; they are forgotten here."""
        found: list[Entry] = []
        ticks = self._ticks
        while most and ticks and ticks[0] << _TICK_BITS <= now_ns:
            bucket = self._buckets[ticks[0]]
            while bucket and most:
                most -= 1
                entry = bucket.pop()
                if not entry.tick:
                    self._dead -= 1
                    continue
                self._living -= 1
                entry.tick = 0
                if entry.deadline_ns() <= now_ns:
                    found.append(entry)
                else:
                    self.add(entry)
            if not bucket:
                del self._buckets[heapq.heappop(ticks)]
        self._look_ahead()
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._ticks.clear()
        self._living = self._dead = 0
        self.next_ns = FOREVER_NS

    def _look_ahead(self) -> None:
        self.next_ns = self._ticks[0] << _TICK_BITS if self._ticks else FOREVER_NS

    def _rebuild(self) -> None:
        living = [entry for bucket in self._buckets.values() for entry in bucket if entry.tick]
        self.clear()
        for entry in living:
            self.add(entry)
