"""What one cache knows in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from .clock import ClockNs
from .durations import FOREVER_NS
from .errors import CacheClosed
from .events import EventKind, Events
from .fence import Fences, Pass
from .flight import Flight, Gate
from .memory.implementation import Entry, Lock, Scope, StateFields, Table, Tally
from .memory.table import EVICTED
from .sentinel import MISSING
from .shared.shared import Shared
from .stats import Stats

Weigh = Callable[[Hashable, Any], int]  # Any: the value, of whatever type the cache holds

_MOST_RECENT_TAGS = 4096
_ENTRIES_PER_LOCK = 500


class Look:
    """Callers that look one key up in the shared tier. It is struck off the register by whatever changes the key.

    Attributes:
        count: how many they are.
        epoch: the table's epoch when the first of them began.
    """

    __slots__ = ("count", "epoch")

    def __init__(self, epoch: int) -> None:
        self.count = 0
        self.epoch = epoch


class State(StateFields):
    """The table, the flights and the fences of one cache, and the atomic steps that need more than one of them.

    One lock guards all three, so that a flight is published and retired in one step (L8) and an invalidation reaches
    the entry and the flight together (I1). It is held around memory operations only, and it is re-entrant, since the
    collector may run a finalizer that uses the cache while it is held.

    Attributes:
        shared: the shared tier below; None without one.
        looks: look-ups in the shared tier that nothing has overtaken yet.
        recent_tags: the epoch at which a tag was invalidated while some flight or fence was under way. Loads that began
            before it and turn out to carry the tag are too old, whether or not any entry carried it.
        forgotten_epoch: invalidations up to this epoch are no longer told apart by tag.
    """

    def __init__(self, table: Table, *, clock_ns: ClockNs, weigh: Weigh | None, name: str) -> None:
        self.lock = Lock()
        self.table = table
        self.name = name
        self.clock_ns = clock_ns
        self.shared: Shared | None = None
        self.looks: dict[Hashable, Look] = {}
        self.random = random.Random().random
        self.weigh = weigh
        self.events = Events()
        self.flights: dict[Hashable, Flight] = {}
        self.fences = Fences()
        self.gates: dict[int, Gate] = {}
        self.arrivals = 0
        self.recent_tags: dict[object, int] = {}
        self.forgotten_epoch = 0
        self.is_closed = False
        self.tally = Tally()
        self.tallies = [self.tally]
        self.loads = self.load_failures = self.load_total_ns = self.refreshes = self.bypasses = 0
        self.stores = self.refused_stores = self.evictions = self.expirations = self.invalidations = 0

    @property
    def clock_ns(self) -> ClockNs:
        """Returns nanoseconds; the clock that the hits of the table read."""
        return self.table.clock_ns

    @clock_ns.setter
    def clock_ns(self, clock_ns: ClockNs) -> None:
        self.table.clock_ns = clock_ns

    # By hand ----------------------------------------------------------------------------------------------------------

    def note_read(self, entry: Entry, now_ns: int) -> None:
        """Let eviction and the idle ttl know of a hit; the lock is held."""
        if entry.freq < 3:
            entry.freq += 1
        entry.read_ns = now_ns
        if self.table.needs_touch:
            self.table.touch(entry)

    def store(self, entry: Entry, tags: Iterable[object], now_ns: int, look: Look | None = None) -> None:
        """Put a written value in, unless a write is under way; loads that began before it will not be stored (I2).

        With `look`, the value is in the shared tier, and kept here unless something has changed the key since then.
        """
        tags = tuple(tags)
        key = entry.key
        with self.lock:
            self.check_open()
            self.fences.disturb(key)
            self.flights.pop(key, None)
            is_newest = look is None or self.end_look(key, look)
            self.looks.pop(key, None)  # others have looked up what was there before
            if not is_newest:
                self.table.remove(key)
                kind = EventKind.REFUSED
            elif self.fences.covers(key, tags) or not self.table.fits(entry.weight):
                self.table.remove(key)
                kind = EventKind.REFUSED if self.table.fits(entry.weight) else EventKind.TOO_HEAVY
            else:
                self.table.put(entry, tags, now_ns)
                self.stores += 1
                kind = EventKind.STORED
            gone = self.take_gone()
        self.bury(gone)
        if self.events.listeners:
            self.events.emit(kind, key)

    def invalidate(self, keys: Iterable[Hashable]) -> None:
        """Take out `keys`, and let no load that began before be stored or joined (I1)."""
        keys = tuple(keys)
        with self.lock:
            for key in keys:
                self._drop(key)
            self.invalidations += len(keys)
            gone = self.take_gone()
        self.bury(gone)
        if self.events.listeners:
            for key in keys:
                self.events.emit(EventKind.INVALIDATED, key)

    def invalidate_tags(self, tags: Iterable[object]) -> None:
        """Let no entry and no load that carries one of `tags` be served, stored or joined (I2, I4)."""
        tags = tuple(tags)
        with self.lock:
            self._drop_tags(tags)
            self.invalidations += len(tags)
        if self.events.listeners:
            for tag in tags:
                self.events.emit(EventKind.TAG_INVALIDATED, tag if isinstance(tag, Hashable) else None)

    def clear(self, kind: EventKind = EventKind.CLEARED) -> None:
        """Take everything out; no load that began before is stored or joined. Tell about it as `kind`."""
        with self.lock:
            self.flights.clear()
            self.looks.clear()
            self.table.epoch += 1
            self.forgotten_epoch = self.table.epoch  # so that writes under way do not store what they wrote, either
            self.recent_tags.clear()
            living = self.table.living()
        self._take_out(living)
        if self.events.listeners:
            self.events.emit(kind)

    def clear_scope(self, scope: Scope) -> None:
        """Take out what one function has loaded; the same holds for its loads under way."""
        with self.lock:
            for register in (self.flights, self.looks):
                for key in [key for key in register if isinstance(key, tuple) and key and key[0] is scope]:
                    register.pop(key, None)
            self.table.epoch += 1  # so that what is in the middle of being stored leaves again
            living = list(scope.entries.values())
        self._take_out(living)

    def _take_out(self, entries: list[Entry]) -> None:
        """Take out `entries`, a few at a time, so that others get the lock in between."""
        for start in range(0, len(entries), _ENTRIES_PER_LOCK):
            with self.lock:
                for entry in entries[start : start + _ENTRIES_PER_LOCK]:
                    self.table.take_out(entry, None)
                gone = self.take_gone()
            self.bury(gone)

    # Fences -----------------------------------------------------------------------------------------------------------

    def enter_fence(self, keys: Iterable[Hashable], tags: Iterable[object]) -> Pass:
        """Begin a write: from now until `leave_fence` nothing loaded is stored for its keys and tags (I3)."""
        unique_keys, unique_tags = tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(tags))
        with self.lock:
            self.check_open()
            for key in unique_keys:
                self._drop(key)
            self._drop_tags(unique_tags)
            permit = self.fences.enter(unique_keys, unique_tags, self.table.epoch)
            gone = self.take_gone()
        self.bury(gone)
        return permit

    def leave_fence(self, permit: Pass, entry: Entry | None = None, tags: Iterable[object] = ()) -> None:
        """End a write, and invalidate what it wrote.

        Args:
            permit: what `enter_fence` returned.
            entry: the written value, stored if no other write to its key was under way meanwhile (I5).
            tags: the tags of `entry`.
        """
        tags = tuple(tags)
        now_ns = self.clock_ns()
        with self.lock:
            may_store = (
                entry is not None
                and not self.is_closed
                and self.table.fits(entry.weight)
                and self.fences.was_alone(permit, entry.key)
                and not self.is_overtaken(permit.epoch, tags)
            )
            self.fences.leave(permit)
            for key in permit.keys:
                self._drop(key)
            self._drop_tags(permit.tags)
            self.invalidations += len(permit.keys) + len(permit.tags)
            if entry is not None and may_store and not self.fences.covers(entry.key, tags):
                self.table.put(entry, tags, now_ns)
                self.stores += 1
            gone = self.take_gone()
            self.prune_recent_tags()
        self.bury(gone)
        if self.events.listeners:
            for key in permit.keys:
                self.events.emit(EventKind.INVALIDATED, key, "written")
            for tag in permit.tags:
                self.events.emit(EventKind.TAG_INVALIDATED, str(tag), "written")

    # Parts of atomic steps; the lock is held --------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise `CacheClosed` after `close`."""
        if self.is_closed:
            raise CacheClosed(f"the cache {self.name!r} was closed; make a new Cache, or close this one later")

    def is_overtaken(self, epoch: int, tags: Iterable[object]) -> bool:
        """Tell whether one of `tags` was invalidated after `epoch`."""
        if epoch == self.table.epoch:
            return False
        if epoch < self.forgotten_epoch:
            return True
        recent = self.recent_tags
        return any(recent.get(tag, 0) > epoch for tag in tags)

    def retire(self, flight: Flight) -> bool:
        """Take `flight` off the register; tell whether it was still on it, so that its value may be stored."""
        if self.flights.get(flight.key) is not flight:
            return False
        return self.flights.pop(flight.key, None) is flight  # the key's `__hash__` may have invalidated it just now

    def take_gone(self) -> list[Entry]:
        """Take what left the table, to be given to `bury` outside the lock."""
        gone = self.table.gone
        if gone:
            self.table.gone = []
        return gone

    def bury(self, gone: list[Entry]) -> None:
        """Count what left the table, tell about it, and let go of the values. The lock is not held."""
        for entry in gone:
            why = entry.why
            if why is not None:
                if why is EVICTED:
                    self.evictions += 1
                else:
                    self.expirations += 1
                if self.events.listeners:
                    self.events.emit(why, entry.key)
            entry.value = MISSING

    def _drop(self, key: Hashable) -> None:
        self.fences.disturb(key)
        self.flights.pop(key, None)
        if self.looks:
            self.looks.pop(key, None)
        self.table.remove(key)

    def _drop_tags(self, tags: tuple[object, ...]) -> None:
        for tag in tags:
            self.table.invalidate_tag(tag)
            if self.flights or self.fences or self.looks:
                self.recent_tags[tag] = self.table.epoch
        if len(self.recent_tags) > _MOST_RECENT_TAGS:
            self.forgotten_epoch = self.table.epoch
            self.recent_tags.clear()

    def prune_recent_tags(self) -> None:
        """Forget tag invalidations that no load or write under way could have missed."""
        if self.recent_tags and not self.flights and not self.fences and not self.looks:
            self.recent_tags.clear()
            self.forgotten_epoch = self.table.epoch  # for flights that were taken off the register and still fly

    # Look-ups in the shared tier; the lock is held --------------------------------------------------------------------

    def begin_look(self, key: Hashable) -> Look:
        """Note that a caller looks `key` up, so that what changes it meanwhile is not missed."""
        look = self.looks.get(key)
        if look is None:
            look = self.looks[key] = Look(self.table.epoch)
        look.count += 1
        return look

    def end_look(self, key: Hashable, look: Look) -> bool:
        """End it; tell whether nothing has changed the key meanwhile."""
        look.count -= 1
        if self.looks.get(key) is not look:
            return False
        if not look.count:
            del self.looks[key]
        return True

    # The whole --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Stats:
        """Return the counters as they are now."""
        with self.lock:
            tallies = list(self.tallies)
            return Stats(
                hits=sum(tally.hits for tally in tallies),
                stale_hits=sum(tally.stale_hits for tally in tallies),
                misses=sum(tally.misses for tally in tallies),
                joins=sum(tally.joins for tally in tallies),
                bypasses=self.bypasses,
                shared_hits=sum(tally.shared_hits for tally in tallies),
                loads=self.loads + sum(tally.loads for tally in tallies),
                load_failures=self.load_failures,
                load_seconds=(self.load_total_ns + sum(tally.load_ns for tally in tallies)) / 1e9,
                stores=self.stores + sum(tally.stores for tally in tallies),
                refused_stores=self.refused_stores,
                evictions=self.evictions + sum(tally.evictions for tally in tallies),
                expirations=self.expirations + sum(tally.expirations for tally in tallies),
                invalidations=self.invalidations,
                refreshes=self.refreshes,
                size=self.table.size,
                weight=self.table.weight,
                flights=len(self.flights),
            )

    def new_tally(self) -> Tally:
        """Return counters of their own for one function; they add up in `snapshot`."""
        tally = Tally()
        with self.lock:
            self.tallies.append(tally)
        return tally

    def forget_function(self, tally: Tally, scope: Scope) -> None:
        """Keep the sums of a function that is gone, and nothing else of it."""
        self._take_out(list(scope.entries.values()))
        with self.lock:
            if self.shared is not None and self.shared.names.scopes.get(scope.name) is scope:
                del self.shared.names.scopes[scope.name]
            self.tallies.remove(tally)
            self.tally.add(tally)

    def close(self) -> None:
        """Refuse whatever comes later, and ask the loads under way to stop."""
        with self.lock:
            self.is_closed = True
            flights = list(self.flights.values())
        self.clear()
        for flight in flights:
            cancel = flight.first().cancel
            if cancel is not None:
                flight.was_closed = True
                cancel()

    def forget_the_parent(self) -> None:
        """Begin anew in a forked child: the threads and loops that flew the flights are not here. The table stays."""
        self.lock = Lock()
        self.flights = {}
        self.gates = {}
        self.looks = {}
        self.fences.forget()
        if self.shared is not None:
            self.table.fresh_until_ns = 0 if self.shared.needs_proof else FOREVER_NS
            self.shared.begin_anew(self.clock_ns())
