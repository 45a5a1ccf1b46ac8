"""Who has to go when the table is full."""

from __future__ import annotations

from collections import OrderedDict, deque
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

    Differences: an entry that leaves in between is marked and skipped, not unlinked; the ghost keeps the hash of an
    entry's place on its shelf, not the key, so that it keeps no key alive (two keys of one hash share their luck, and so
    do two functions' entries for equal arguments); costs are weights where the table has a weigher.

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
        number = hash(entry.slot)
        ghost = self._ghost
        is_known = (number in ghost.young or number in ghost.old) and ghost.recalls(number)
        if is_known or (self._is_filling and self._small_cost >= self._small_share):
            entry.queue = MAIN
            self._main.append(entry)
        else:
            entry.queue = SMALL
            self._small_cost += entry.weight
            self._small.append(entry)

    def replace(self, old: Entry, new: Entry, /) -> None:
        """Put `new` where `old` was, or rather at the end of the same queue, with its merits."""
        new.freq = old.freq
        new.queue = old.queue
        if new.queue == MAIN:
            self._main.append(new)
        else:
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
            if self._small_cost < self._small_share and self._main:
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
                entry.freq = 0
                entry.queue = MAIN
                self._main.append(entry)
                continue
            try:
                number = hash(entry.slot)
            except BaseException:  # the user's `__hash__`: the entry stays where it was
                self._small_cost += entry.weight
                self._small.appendleft(entry)
                raise
            entry.queue = NONE
            ghost = self._ghost
            ghost.young[number] = ghost.added = ghost.added + 1
            if len(ghost.young) >= ghost.size:
                ghost.grow_old()
            return entry

    def living(self) -> list[Entry]:
        """Return all entries."""
        return [entry for queue in (self._small, self._main) for entry in queue if entry.queue]


class _Ghost:
    """The hashes of the keys that left the small queue last, with the number of each, in two generations.

    When the young generation has as many hashes as are remembered, it becomes the old one, and what was old is forgotten
    at once. So one dictionary operation adds a hash, and the numbers tell exactly which are among the last.

    Attributes:
        young, old: the numbers by hash; where to look before a hash is asked for with `recalls`.
        added: how many hashes were added, the number of the last; whoever adds one counts it.
        size: how many are remembered, and how large a generation grows.
    """

    __slots__ = ("added", "old", "size", "young")

    def __init__(self, size: int) -> None:
        self.size = size
        self.added = 0
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}

    def grow_old(self) -> None:
        """Begin a new generation."""
        self.old, self.young = self.young, {}

    def recalls(self, number: int) -> bool:
        """Tell whether the hash is remembered, and forget it."""
        older = self.old.pop(number, 0)
        added = self.young.pop(number, older)
        return added > self.added - self.size and added > 0


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
