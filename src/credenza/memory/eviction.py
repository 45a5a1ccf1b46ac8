"""Who has to go when the table is full."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final, Protocol

from .entry import Entry

NONE: Final = 0
SMALL: Final = 1
MAIN: Final = 2

_SLACK = 64


class Eviction(Protocol):
    """A policy over the entries of one table. Not thread-safe: the table's lock guards it.

    Attributes:
        needs_touch: a hit must call `touch`, under the lock.
    """

    needs_touch: bool

    def admit(self, entry: Entry, /) -> None: ...
    def replace(self, old: Entry, new: Entry, /) -> None: ...
    def discard(self, entry: Entry, /) -> None: ...
    def touch(self, entry: Entry, /) -> None: ...
    def victim(self) -> Entry: ...
    def living(self) -> list[Entry]: ...


class S3Fifo:
    """Three queues, and a hit that only bumps a counter.

    Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction, SOSP 2023, section 4. New entries
    go to a small queue (a tenth of the capacity); what was hit there more than once moves to the main queue, the rest
    leaves and its key is remembered in a ghost queue. A key that comes back while it is remembered goes straight to the
    main queue, which gives entries that were hit another round for each hit, up to three.

    While nothing was evicted yet, what finds the small queue at its share goes to the main queue, as in the authors'
    simulator: else a first scan would find the whole cache in the small queue and throw it out.

    Differences: an entry that leaves in between is marked and skipped, not unlinked; the ghost keeps hashes, not keys, so
    that it keeps no key alive (two keys of one hash share their luck); costs are weights where the table has a weigher.

    Args:
        capacity: the bound on the sum of the costs.
        ghosts: how many keys the ghost queue remembers.
    """

    __slots__ = ("_dead", "_ghost", "_is_filling", "_main", "_small", "_small_cost", "_small_share")

    needs_touch = False

    def __init__(self, capacity: int, ghosts: int) -> None:
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._small_share = max(1, capacity // 10)
        self._small_cost = 0
        self._dead = 0
        self._is_filling = True
        self._ghost = _Ghost(ghosts)

    def admit(self, entry: Entry, /) -> None:
        """Take in a new entry."""
        if self._ghost.recalls(entry.key) or (self._is_filling and self._small_cost >= self._small_share):
            self._push_main(entry)
        else:
            entry.queue = SMALL
            self._small_cost += entry.weight
            self._small.append(entry)

    def replace(self, old: Entry, new: Entry, /) -> None:
        """Put `new` where `old` was, or rather at the end of the same queue, with its merits."""
        new.freq = old.freq
        if old.queue == MAIN:
            self._push_main(new)
        else:
            new.queue = SMALL
            self._small_cost += new.weight
            self._small.append(new)
        self.discard(old)

    def discard(self, entry: Entry, /) -> None:
        """Forget an entry that left by another way."""
        if entry.queue == SMALL:
            self._small_cost -= entry.weight
        entry.queue = NONE
        self._dead += 1
        if self._dead > _SLACK + (len(self._small) + len(self._main)) // 2:
            self._small = deque(entry for entry in self._small if entry.queue == SMALL)
            self._main = deque(entry for entry in self._main if entry.queue == MAIN)
            self._dead = 0

    def touch(self, entry: Entry, /) -> None:
        """Do nothing: whoever reads bumps `freq`."""

    def victim(self) -> Entry:
        """Remove and return the entry that has to go; there must be one."""
        self._is_filling = False
        while True:
            if self._main and self._small_cost < self._small_share:
                entry = self._main.popleft()
                if entry.queue != MAIN:
                    self._dead -= 1
                elif entry.freq:
                    entry.freq -= 1
                    self._main.append(entry)
                else:
                    entry.queue = NONE
                    return entry
                continue
            entry = self._small.popleft()
            if entry.queue != SMALL:
                self._dead -= 1
                continue
            self._small_cost -= entry.weight
            if entry.freq > 1:
                self._push_main(entry)
                continue
            entry.queue = NONE
            self._ghost.add(entry.key)
            return entry

    def living(self) -> list[Entry]:
        """Return all entries."""
        return [entry for queue in (self._small, self._main) for entry in queue if entry.queue]

    def _push_main(self, entry: Entry) -> None:
        entry.queue = MAIN
        entry.freq = 0
        self._main.append(entry)


class _Ghost:
    """The hashes of the keys that left the small queue last, in their order."""

    __slots__ = ("_added", "_order", "_size", "_when")

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: deque[int] = deque()
        self._when: dict[int, int] = {}
        self._added = 0

    def add(self, key: Hashable) -> None:
        number = hash(key)
        self._added += 1
        self._when[number] = self._added
        self._order.append(number)
        if len(self._order) > self._size:
            oldest = self._order.popleft()
            if self._when.get(oldest) == self._added - self._size:
                del self._when[oldest]

    def recalls(self, key: Hashable) -> bool:
        """Tell whether `key` is remembered, and forget it."""
        return self._when.pop(hash(key), None) is not None


class Lru:
    """The least recently used entry goes. A hit moves its entry under the lock, so it costs more than with S3-FIFO."""

    __slots__ = ("_order",)

    needs_touch = True

    def __init__(self) -> None:
        self._order: OrderedDict[int, Entry] = OrderedDict()

    def admit(self, entry: Entry, /) -> None:
        """Take in a new entry."""
        entry.queue = MAIN
        self._order[id(entry)] = entry

    def replace(self, old: Entry, new: Entry, /) -> None:
        """Put `new` in the place of `old`, as the one used last."""
        self.discard(old)
        self.admit(new)

    def discard(self, entry: Entry, /) -> None:
        """Forget an entry that left by another way."""
        entry.queue = NONE
        del self._order[id(entry)]

    def touch(self, entry: Entry, /) -> None:
        """Note that `entry` was used; one that has left meanwhile is ignored."""
        if id(entry) in self._order:
            self._order.move_to_end(id(entry))

    def victim(self) -> Entry:
        """Remove and return the entry that has to go; there must be one."""
        _, entry = self._order.popitem(last=False)
        entry.queue = NONE
        return entry

    def living(self) -> list[Entry]:
        """Return all entries."""
        return list(self._order.values())
