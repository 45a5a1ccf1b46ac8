"""The reference table: entries by key, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final

from ..clock import ClockNs, monotonic_ns
from ..durations import FOREVER_NS
from ..errors import ConfigurationError
from ..events import EventKind
from ..sentinel import MISSING
from ..stats import Tally
from .entry import DEAD, Entry
from .eviction import Eviction, Lru, S3Fifo
from .expiry import Expiry
from .tags import Tags

EVICTED: Final = EventKind.EVICTED
"""Looking up a member of an enum is a function call before Python 3.12."""

_UNBOUNDED = 1 << 62

_DUE_PER_STORE = 4
"""How many entries a store looks at for expiry: more than one, so that the expired grow fewer while others come."""


class Scope:
    """The keys of one function, apart from all others: those are `(scope, slot)`. Equal only to itself.

    Its entries have a dictionary of their own, so that a hit of the function need not build that tuple.

    Attributes:
        ignores_tags: its hits look at the clock only, so an entry with tags must not be taken for one that needs no more.
    """

    __slots__ = ("__weakref__", "entries", "ignores_tags", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ignores_tags = False
        self.entries: dict[Hashable, Entry] = {}

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Table:
    """Entries by key, bounded by number and weight, with tags and deadlines.

    The dictionaries of entries may be read without a lock; every method needs the lock of whoever owns the table. What
    leaves is collected in `gone`; the owner takes it from there and drops the values outside the lock, since a value's
    finalizer may use the cache.

    Args:
        maxsize: the most entries; None for no bound.
        max_weight: the most that their weights may sum up to; None for no bound.
        eviction: "s3fifo" or "lru".

    Attributes:
        entries: those whose key is of no scope.
        size: how many entries there are in all.
        epoch: counts tag invalidations; an entry whose tags were looked at in this epoch is alive.
        fresh_until_ns: the entries may be served before this time; for ever, unless a shared tier has to prove it.
        clock_ns: what a hit reads.

    Raises:
        ConfigurationError: a bound that is no positive int, or an unknown eviction policy.
    """

    __slots__ = (
        "_is_busy",
        "_most_entries",
        "_most_weight",
        "_postponed",
        "clock_ns",
        "entries",
        "epoch",
        "eviction",
        "expiry",
        "fresh_until_ns",
        "gone",
        "maxsize",
        "needs_touch",
        "size",
        "tags",
        "weight",
    )

    def __init__(self, *, maxsize: int | None, max_weight: int | None, eviction: str) -> None:
        self.maxsize = maxsize
        self._most_entries = _bound("maxsize", maxsize)
        self._most_weight = _bound("max_weight", max_weight)
        self.entries: dict[Hashable, Entry] = {}
        self.size = 0
        self.epoch = 0
        self.clock_ns: ClockNs = monotonic_ns
        self.fresh_until_ns = FOREVER_NS
        self.weight = 0
        self.tags = Tags()
        self.expiry = Expiry()
        self.eviction = self._make_eviction(eviction)
        self.needs_touch = self.eviction.needs_touch
        self.gone: list[Entry] = []
        self._is_busy = False
        self._postponed: list[Callable[[], None]] = []

    def _make_eviction(self, name: str) -> Eviction:
        if name == "lru":
            return Lru()
        if name == "s3fifo":
            return S3Fifo(self._most_weight if self._most_weight < _UNBOUNDED else self._most_entries)
        raise ConfigurationError(f'eviction must be "s3fifo" or "lru", got {name!r}')

    def find(self, key: Hashable) -> Entry | None:
        """Return the entry of `key`, alive or not."""
        if type(key) is tuple and len(key) == 2 and type(key[0]) is Scope:
            return key[0].entries.get(key[1])
        return self.entries.get(key)

    def hit(self, entries: Mapping[Hashable, Entry], slot: Hashable, tally: Tally) -> Any:  # Any: a value of any type
        """Return the value at `slot` if a look at the clock is all that it takes, else `MISSING`. Takes no lock."""
        entry = entries.get(slot)
        if entry is None:
            return MISSING
        value = entry.value
        now_ns = self.clock_ns()
        if now_ns < entry.fast_ns and entry.epoch == self.epoch and now_ns < self.fresh_until_ns:
            if entry.freq < 3:
                entry.freq += 1
            tally.hits += 1
            return value
        return MISSING

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
        """Store `entry` in the place of whatever had its key, having reclaimed a little and made room.

        A key's `__hash__` and `__eq__` are the user's and may raise: then the table is as if it had not been asked. What
        they invalidate, or clear, meanwhile may be what `entry` was made of, so that it leaves again.
        """
        epoch = self.epoch
        if self._is_busy:
            self._postponed.append(lambda: self._put_since(epoch, entry, tags, now_ns))
            return
        failure: BaseException | None = None
        self._is_busy = True
        try:
            self._put_since(epoch, entry, tags, now_ns)
        except BaseException as raised:
            failure = raised
        finally:
            self._is_busy = False
        if failure is not None or self._postponed:
            self._catch_up(failure)

    def _put_since(self, epoch: int, entry: Entry, tags: Iterable[object], now_ns: int) -> None:
        self._put(entry, tags, now_ns)
        if self.epoch != epoch:
            self._take_out(entry, None)

    def _put(self, entry: Entry, tags: Iterable[object], now_ns: int) -> None:
        expiry = self.expiry
        if now_ns >= expiry.next_ns:
            self._reclaim(now_ns)
        key = slot = entry.key
        shelf = self.entries
        if type(key) is tuple and len(key) == 2 and type(key[0]) is Scope:
            shelf, slot = key[0].entries, key[1]
            if tags and key[0].ignores_tags:
                entry.fast_ns = 0
        entry.shelf, entry.slot, entry.epoch, entry.hash = shelf, slot, self.epoch, hash(slot)
        if slot in shelf:
            self._replace(shelf[slot], entry, tags)
            return
        if self.size >= self._most_entries or self.weight + entry.weight > self._most_weight:
            self._make_room(entry.weight)
        self.eviction.admit(entry)
        try:
            if tags:
                entry.tags = self.tags.attach(tags)
            shelf[slot] = entry
        except BaseException:
            self.eviction.discard(entry)
            self.tags.detach(entry.tags)
            raise
        self.size += 1
        self.weight += entry.weight
        expiry.add(entry)

    def _replace(self, old: Entry, entry: Entry, tags: Iterable[object]) -> None:
        """Put `entry` in the place of `old`, which has the same key."""
        if tags:
            entry.tags = self.tags.attach(tags)
        try:
            entry.shelf[entry.slot] = entry
        except BaseException:
            self.tags.detach(entry.tags)
            raise
        self.eviction.replace(old, entry)
        self.size += 1
        self.weight += entry.weight
        self.expiry.add(entry)
        self._let_go(old, None)
        if self.weight > self._most_weight:
            self._make_room(0)

    def remove(self, key: Hashable) -> bool:
        """Take the entry of `key` out; tell whether there was one.

        In the middle of a step it begins an epoch, so that whatever is being stored, perhaps under `key`, leaves again.
        """
        entry = self.find(key)
        if self._is_busy:
            self.epoch += 1
        if entry is not None:
            self.take_out(entry, None)
        return entry is not None

    def take_out(self, entry: Entry, why: EventKind | None) -> None:
        """Take `entry` out, unless it has left already."""
        if self._is_busy:
            self._postponed.append(lambda: self._take_out(entry, why))
            return
        failure: BaseException | None = None
        self._is_busy = True
        try:
            self._take_out(entry, why)
        except BaseException as raised:
            failure = raised
        finally:
            self._is_busy = False
        if failure is not None or self._postponed:
            self._catch_up(failure)

    def _catch_up(self, failure: BaseException | None) -> None:
        """Do what a key's code, or a finalizer, asked for in the middle of a step; the collector may run those at any time.

        All of it is done, whatever of it fails: an entry that was stored later would come back after an invalidation. The
        first failure is raised, that of the step itself before others; one for the whole program (Ctrl+C) before all.
        """
        self._is_busy = True
        try:
            while self._postponed:
                try:
                    self._postponed.pop(0)()
                except BaseException as raised:
                    if failure is None or not isinstance(raised, Exception):
                        failure = raised
        finally:
            self._is_busy = False
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it has this frame in its traceback

    def _take_out(self, entry: Entry, why: EventKind | None) -> None:
        entry.fast_ns = DEAD  # first, as the key's `__hash__` may raise
        if entry.shelf.get(entry.slot) is entry:
            del entry.shelf[entry.slot]
            self.eviction.discard(entry)
            self._let_go(entry, why)

    def touch(self, entry: Entry) -> None:
        """Let eviction know that `entry` was used; only where `needs_touch` says so."""
        self.eviction.touch(entry)

    def living(self) -> list[Entry]:
        """Return all entries."""
        return self.eviction.living()

    def count_of(self, name: object) -> int:
        """Return how many entries carry the tag `name`."""
        return self.tags.count_of(name)

    def invalidate_tag(self, name: object) -> None:
        """Make every entry that carries `name` dead, in constant time; they are reclaimed as they are met."""
        self.epoch += 1
        self.tags.invalidate(name)

    def _reclaim(self, now_ns: int) -> None:
        """Take out a few entries whose time has passed."""
        for entry in self.expiry.due(now_ns, most=_DUE_PER_STORE):
            self._take_out(entry, EventKind.EXPIRED)

    def _make_room(self, weight: int) -> None:
        """Evict until an entry of this weight fits in, or nothing is left."""
        while self.size >= self._most_entries or (self.size and self.weight + weight > self._most_weight):
            entry = self.eviction.victim()
            try:
                del entry.shelf[entry.slot]
            except BaseException:
                self.eviction.admit(entry)
                raise
            self._let_go(entry, EVICTED)

    def _let_go(self, entry: Entry, why: EventKind | None) -> None:
        entry.fast_ns = DEAD
        entry.why = why
        self.size -= 1
        self.weight -= entry.weight
        if entry.tags:
            self.tags.detach(entry.tags)
        if entry.tick:
            self.expiry.discard(entry)
        self.gone.append(entry)


def _bound(name: str, bound: int | None) -> int:
    if bound is None:
        return _UNBOUNDED
    if isinstance(bound, bool) or not isinstance(bound, int):
        raise ConfigurationError(f"{name} must be an int or None, got {bound!r}")
    if bound < 1:
        raise ConfigurationError(
            f"{name} must be at least 1, got {bound!r}; use None for no bound, NoCache() for no cache"
        )
    return bound
