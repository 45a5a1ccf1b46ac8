"""Counters."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Status(enum.StrEnum):
    """Where a value came from."""

    HIT = "hit"
    """From memory, fresh."""
    MISS = "miss"
    """From a load that this call began."""
    STALE = "stale"
    """From memory, past its ttl and within the stale windows."""
    JOINED = "joined"
    """From a load that somebody else began."""
    SHARED = "shared"
    """From the shared tier."""
    BYPASS = "bypass"
    """Straight from the source: past the cache, or while a write is under way."""


class CacheInfo(NamedTuple):
    """What `functools.lru_cache` reports, with its names and order."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What a cache has done since it was made; a snapshot.

    Attributes:
        hits: calls answered with a fresh value from memory.
        stale_hits: calls answered with a stale value, within the stale windows.
        misses: calls that began a load, or looked with `get` and found nothing.
        joins: calls answered by a load that somebody else had begun.
        bypasses: calls that went to the source past the cache (`NoCache`).
        shared_hits: calls answered with a value from the shared tier.
        loads: runs of a loader that ended, a bulk load counted once.
        load_failures: those that raised.
        load_seconds: the time spent in loaders, in seconds.
        stores: values stored, by a load or by hand.
        refused_stores: loaded values that were not stored since a write or an invalidation overtook them.
        evictions: entries removed because of the bounds.
        expirations: entries reclaimed because of their age.
        invalidations: keys and tags invalidated by a caller.
        refreshes: loads begun in the background.
        size: entries in memory now, those that are expired and not yet reclaimed included.
        weight: the sum of their weights; equal to `size` without a weigher.
        flights: loads under way now.
    """

    hits: int = 0
    stale_hits: int = 0
    misses: int = 0
    joins: int = 0
    bypasses: int = 0
    shared_hits: int = 0
    loads: int = 0
    load_failures: int = 0
    load_seconds: float = 0.0
    stores: int = 0
    refused_stores: int = 0
    evictions: int = 0
    expirations: int = 0
    invalidations: int = 0
    refreshes: int = 0
    size: int = 0
    weight: int = 0
    flights: int = 0

    @property
    def requests(self) -> int:
        """How many calls asked for a value."""
        return self.hits + self.stale_hits + self.misses + self.joins + self.bypasses + self.shared_hits

    @property
    def hit_ratio(self) -> float:
        """The share of the requests that a tier answered, between 0 and 1."""
        return (self.hits + self.stale_hits + self.shared_hits) / self.requests if self.requests else 0.0

    @property
    def mean_load_seconds(self) -> float:
        """The mean time of a load, in seconds."""
        return self.load_seconds / self.loads if self.loads else 0.0


class Tally:
    """The counters of one cached function, or of the calls by hand. Bumped without a lock, as the hit path has none.

    `x += 1` on an attribute is not interrupted by another thread on builds with the GIL; on a free-threaded build a
    count may be lost, never a value. What follows `shared_hits` is counted by shortcuts, under the lock.
    """

    __slots__ = (
        "evictions",
        "expirations",
        "hits",
        "joins",
        "load_ns",
        "loads",
        "misses",
        "shared_hits",
        "stale_hits",
        "stores",
    )

    def __init__(self) -> None:
        self.hits = 0
        self.stale_hits = 0
        self.misses = 0
        self.joins = 0
        self.shared_hits = 0
        self.loads = self.load_ns = self.stores = self.evictions = self.expirations = 0

    def add(self, other: Tally) -> None:
        """Count what another has counted, too."""
        for name in Tally.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
