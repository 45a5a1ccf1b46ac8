"""The reference table: entries by key, within bounds."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from ..errors import ConfigurationError
from ..events import EventKind
from .entry import DEAD, Entry
from .eviction import Eviction, Lru, S3Fifo
from .expiry import Expiry
from .tags import Tags

_UNBOUNDED = 1 << 62
_GHOSTS_WITHOUT_MAXSIZE = 10_000

_DUE_PER_STORE = 4
"""How many entries a store looks at for expiry: more than one, so that the expired grow fewer while others come."""


class Table:
    """Entries by key, bounded by number and weight, with tags and deadlines.

    `entries.get` may be used without a lock; every method needs the lock of whoever owns the table. What leaves is
    collected in `gone`, with the reason for those that nobody asked for; the owner takes it from there and drops the
    values outside the lock, since a value's finalizer may use the cache.

    Args:
        maxsize: the most entries; None for no bound.
        max_weight: the most that their weights may sum up to; None for no bound.
        eviction: "s3fifo" or "lru".

    Raises:
        ConfigurationError: a bound that is no positive int, or an unknown eviction policy.
    """

    __slots__ = (
        "_most_entries",
        "_most_weight",
        "entries",
        "epoch",
        "eviction",
        "expiry",
        "gone",
        "maxsize",
        "needs_touch",
        "tags",
        "weight",
    )

    def __init__(self, *, maxsize: int | None, max_weight: int | None, eviction: str) -> None:
        self.maxsize = maxsize
        self._most_entries = _bound("maxsize", maxsize)
        self._most_weight = _bound("max_weight", max_weight)
        self.entries: dict[Hashable, Entry] = {}
        self.epoch = 0
        self.weight = 0
        self.tags = Tags()
        self.expiry = Expiry()
        self.eviction = self._make_eviction(eviction)
        self.needs_touch = self.eviction.needs_touch
        self.gone: list[tuple[EventKind | None, Entry]] = []

    def _make_eviction(self, name: str) -> Eviction:
        if name == "lru":
            return Lru()
        if name == "s3fifo":
            ghosts = self._most_entries * 9 // 10 if self._most_entries < _UNBOUNDED else _GHOSTS_WITHOUT_MAXSIZE
            capacity = self._most_weight if self._most_weight < _UNBOUNDED else self._most_entries
            return S3Fifo(capacity, max(1, ghosts))
        raise ConfigurationError(f'eviction must be "s3fifo" or "lru", got {name!r}')

    def is_alive(self, entry: Entry, now_ns: int) -> bool:
        """Tell whether `entry` may still be served, fresh or stale: not expired, not idle, no tag invalidated."""
        if entry.fast_ns == DEAD or now_ns >= entry.deadline_ns():
            return False
        if entry.epoch != self.epoch:
            for tag in entry.tags:
                if tag.is_dead:
                    return False
            entry.epoch = self.epoch
        return True

    def fits(self, weight: int) -> bool:
        """Tell whether an entry of this weight can be stored at all."""
        return weight <= self._most_weight

    def put(self, entry: Entry, tags: Iterable[object], now_ns: int) -> None:
        """Store `entry` in the place of whatever had its key, having reclaimed a little and made room."""
        key = entry.key
        if now_ns >= self.expiry.next_ns:
            self.reclaim(now_ns)
        old = self.entries.get(key)
        if old is None:
            self._make_room(1, entry.weight)
            self.eviction.admit(entry)
        else:
            self.eviction.replace(old, entry)
            self._let_go(old, None)
        entry.tags = self.tags.attach(tags)
        entry.epoch = self.epoch
        self.entries[key] = entry
        self.weight += entry.weight
        self.expiry.add(entry)
        if old is not None:
            self._make_room(0, 0)

    def remove(self, key: Hashable) -> bool:
        """Take the entry of `key` out; tell whether there was one."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        self.eviction.discard(entry)
        self._let_go(entry, None)
        return True

    def expire(self, entry: Entry) -> None:
        """Take out `entry`, which was found expired or dead, unless it has left already."""
        if self.entries.get(entry.key) is entry:
            del self.entries[entry.key]
            self.eviction.discard(entry)
            self._let_go(entry, EventKind.EXPIRED)

    def invalidate_tag(self, name: object) -> None:
        """Make every entry that carries `name` dead, in constant time; they are reclaimed as they are met."""
        self.epoch += 1
        self.tags.invalidate(name)

    def clear(self) -> list[Entry]:
        """Take everything out and return it."""
        removed = list(self.entries.values())
        self.entries.clear()
        self.eviction.clear()
        self.expiry.clear()
        self.tags = Tags()
        self.weight = 0
        return removed

    def reclaim(self, now_ns: int) -> None:
        """Take out a few entries whose time has passed."""
        for entry in self.expiry.due(now_ns, most=_DUE_PER_STORE):
            self.expire(entry)

    def _make_room(self, entries: int, weight: int) -> None:
        while len(self.entries) + entries > self._most_entries or self.weight + weight > self._most_weight:
            victim = self.eviction.victim()
            del self.entries[victim.key]
            self._let_go(victim, EventKind.EVICTED)

    def _let_go(self, entry: Entry, why: EventKind | None) -> None:
        entry.fast_ns = DEAD
        self.weight -= entry.weight
        if entry.tags:
            self.tags.detach(entry.tags)
        if entry.tick:
            self.expiry.discard(entry)
        self.gone.append((why, entry))


def _bound(name: str, bound: int | None) -> int:
    if bound is None:
        return _UNBOUNDED
    if isinstance(bound, bool) or not isinstance(bound, int):
        raise ConfigurationError(f"{name} must be an int or None, got {bound!r}")
    if bound < 1:
        raise ConfigurationError(f"{name} must be at least 1, got {bound!r}; use None for no bound, NoCache() for no cache")
    return bound
