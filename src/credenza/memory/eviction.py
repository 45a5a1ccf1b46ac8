"""Who has to go when the table is full."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, Protocol

from .entry import Entry
from .ghosts import PARTS, Ghosts

NONE: Final = 0
SMALL: Final = 1
MAIN: Final = 2
WINDOW: Final = 3
"""The part of the small queue where hits do not count."""

_SLACK = 64

_MOST = 1 << 50
"""The largest capacity that is told from none."""

_MIX = 0x9E3779B97F4A7C15


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
    """Three queues, and a hit that only bumps a counter: S3-FIFO, with a small queue that finds its own size.

    Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction, SOSP 2023, section 4. New entries
    go to a small queue; what was hit there moves to the main queue, the rest leaves and is remembered in a ghost queue.
    A key that comes back while it is remembered may go straight to the main queue, which gives entries that were hit
    another round. While nothing was evicted yet, what finds the small queue at its share goes to the main queue.

    Differences; docs/design/eviction.md has their sources and what each of them is worth:

    - The small queue's share of the capacity moves between 1/64 and 15/16, from a tenth. A key that left the small queue
      so lately that a somewhat larger one would still have it makes it grow, one that left the main queue lately makes it
      shrink, and it shrinks slowly by itself: room has to be earned.
    - Hits while an entry is among the newest of the small queue are not counted: they belong to the request that brought
      it. After that a single hit is enough.
    - A key that comes back goes to the main queue only if it was in the small queue later than the main queue's oldest
      entry was last seen to have been hit (LIRS); else it is new.
    - What leaves the main queue is remembered, too, for the share alone. An entry gets two rounds at most.
    - An entry that leaves in between is marked and skipped, not unlinked. A ghost is 32 bits of the
      hash of an entry's place on its shelf; keys that agree in them share their luck. Costs are weights where the table
      has a weigher; whatever else is counted is entries.

    Time is counted in entries that left the small queue.

    Args:
        capacity: the bound on the sum of the costs.
    """

    __slots__ = (
        "_dead",
        "_ghosts",
        "_is_filling",
        "_least_share",
        "_main",
        "_main_count",
        "_most_share",
        "_share",
        "_small",
        "_small_cost",
        "_small_count",
        "_window",
        "_window_count",
    )

    needs_touch = False

    def __init__(self, capacity: int) -> None:
        capacity = min(capacity, _MOST)
        self._window: deque[Entry] = deque()
        self._small: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        self._window_count = self._small_count = self._main_count = self._small_cost = self._dead = 0
        self._least_share = max(PARTS, capacity * PARTS // 64)
        self._most_share = max(PARTS, capacity * PARTS * 15 // 16)
        self._share = max(self._least_share, capacity * PARTS // 10)
        self._is_filling = True
        self._ghosts = Ghosts()

    def admit(self, entry: Entry, /) -> None:
        """Take in a new entry."""
        ghosts = self._ghosts
        seen = ghosts.recall(_number(entry))
        if seen and self._is_welcome(entry, seen):
            self._append_to_main(entry)
            return
        if self._is_filling and self._small_cost >= self._share // PARTS:
            self._append_to_main(entry)
            return
        entry.queue = WINDOW
        self._window.append(entry)
        self._window_count += 1
        self._small_count += 1
        self._small_cost += entry.weight
        if not self._is_filling:
            self._give_to_main()
        most = max(1, min(self._small_count // 2, (self._small_count + self._main_count) // 16))
        while self._window_count > most:
            self._leave_window()

    def replace(self, old: Entry, new: Entry, /) -> None:
        """Put `new` where `old` was, or rather at the end of the same queue, with its merits."""
        new.freq = old.freq
        if old.queue == MAIN:
            self._append_to_main(new)
        else:
            new.queue = old.queue
            if old.queue == WINDOW:
                self._window.append(new)
                self._window_count += 1
            else:
                self._small.append(new)
            self._small_count += 1
            self._small_cost += new.weight
        self.discard(old)

    def discard(self, entry: Entry, /) -> None:
        """Forget an entry that left by another way."""
        if entry.queue == MAIN:
            self._main_count -= 1
        else:
            self._window_count -= entry.queue == WINDOW
            self._small_count -= 1
            self._small_cost -= entry.weight
        entry.queue = NONE
        self._dead += 1
        if self._dead > _SLACK + (self._small_count + self._main_count) // 2:
            self._window = deque(entry for entry in self._window if entry.queue == WINDOW)
            self._small = deque(entry for entry in self._small if entry.queue == SMALL)
            self._main = deque(entry for entry in self._main if entry.queue == MAIN)
            self._dead = 0

    def touch(self, entry: Entry, /) -> None:
        """Do nothing: whoever reads bumps `freq`."""

    def victim(self) -> Entry:
        """Remove and return the entry that has to go; there must be one."""
        self._is_filling = False
        size = self._small_count + self._main_count
        while True:
            if self._main_count and self._small_cost < self._share // PARTS:
                entry = self._oldest_in_main()
                if not entry.freq:
                    return self._evict_from_main(entry, size)
                self._spare(entry)
                continue
            entry = self._oldest_in_small()
            if not entry.freq:
                return self._evict_from_small(entry, size)
            entry.freq = 0
            self._move_to_main(entry)

    def living(self) -> list[Entry]:
        """Return all entries."""
        return [entry for queue in (self._small, self._window, self._main) for entry in queue if entry.queue]

    def _is_welcome(self, entry: Entry, seen: int) -> bool:
        """Learn from a key that came back; tell whether its entry may go to the main queue at once."""
        ghosts = self._ghosts
        step = ghosts.step(seen) * entry.weight
        if seen < 0:
            self._share = max(self._least_share, self._share - step)
            return False
        self._share = min(self._most_share, self._share + step)
        if not self._main_count:
            return True
        oldest = self._oldest_in_main()
        if oldest.freq:
            self._spare(oldest)
            oldest = self._oldest_in_main()
        return seen - self._small_count >= oldest.stamp

    def _oldest_in_main(self) -> Entry:
        """Return the entry at the head of the main queue; there must be one."""
        main = self._main
        while main[0].queue != MAIN:
            main.popleft()
            self._dead -= 1
        return main[0]

    def _oldest_in_small(self) -> Entry:
        """Return the entry at the head of the small queue; there must be one."""
        if self._small_count == self._window_count:
            self._leave_window()
        small = self._small
        while small[0].queue != SMALL:
            small.popleft()
            self._dead -= 1
        return small[0]

    def _leave_window(self) -> None:
        """Let the hits of the oldest entry in the window count from now on."""
        entry = self._window.popleft()
        while entry.queue != WINDOW:
            self._dead -= 1
            entry = self._window.popleft()
        entry.queue = SMALL
        entry.freq = 0
        self._window_count -= 1
        self._small.append(entry)

    def _append_to_main(self, entry: Entry) -> None:
        entry.queue = MAIN
        entry.stamp = self._ghosts.clock
        self._main.append(entry)
        self._main_count += 1

    def _move_to_main(self, entry: Entry) -> None:
        """Take the head of the small queue to the end of the main queue."""
        self._leave_small(entry)
        self._append_to_main(entry)

    def _give_to_main(self) -> None:
        """Let the main queue have room that the small queue lost: its head becomes the one that has to go next there."""
        share = self._share // PARTS
        if self._small_cost <= share:
            return
        entry = self._oldest_in_small()
        if self._small_cost - entry.weight < share:
            return
        if entry.freq or not self._main_count:
            entry.freq = 0
            self._move_to_main(entry)
            return
        stamp = self._oldest_in_main().stamp
        self._leave_small(entry)
        entry.queue = MAIN
        entry.stamp = stamp
        self._main.appendleft(entry)
        self._main_count += 1

    def _spare(self, entry: Entry) -> None:
        """Give the head of the main queue another round."""
        self._main.popleft()
        entry.freq >>= 1
        entry.stamp = self._ghosts.clock
        self._main.append(entry)

    def _leave_small(self, entry: Entry) -> None:
        """Take the head of the small queue out of it."""
        self._small.popleft()
        self._small_count -= 1
        self._small_cost -= entry.weight

    def _evict_from_small(self, entry: Entry, size: int) -> Entry:
        number = _number(entry)
        self._leave_small(entry)
        entry.queue = NONE
        self._share = max(self._least_share, self._share - 2 * entry.weight)
        self._ghosts.add(number, size)
        return entry

    def _evict_from_main(self, entry: Entry, size: int) -> Entry:
        number = _number(entry)
        self._main.popleft()
        self._main_count -= 1
        entry.queue = NONE
        self._ghosts.add_of_main(number, size)
        return entry


def _number(entry: Entry) -> int:
    """Return what is remembered of an entry."""
    return entry.hash * _MIX >> 32 & 0xFFFFFFFF


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
