"""How what a journal has kept comes into memory, without a fence.

1. The journal commits, and from here on loads see the write.
2. It lands: the entry takes the place of what memory had, and loads that began before are not kept (I1).
3. Its caller goes on.

Whichever caller is the first to go on lands all that was kept by then, in the journal's order. So of two writes of one key
the later one lands later, and the last is what stays (I5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

from ..events import EventKind
from ..memory.implementation import Entry
from ..state import State


class Landing:
    """A write on its way through the journal into memory.

    Attributes:
        key: the cache's.
        entry: the written value; None if the key is only to be invalidated.
        tags: of the entry.
        epoch: the table's when the write began.
        is_landed: memory has it.
    """

    __slots__ = ("entry", "epoch", "is_landed", "key", "tags")

    def __init__(self, key: Hashable, entry: Entry | None, tags: tuple[object, ...], epoch: int) -> None:
        self.key = key
        self.entry = entry
        self.tags = tags
        self.epoch = epoch
        self.is_landed = False


class Landings:
    """What a journal has kept and memory does not have yet. Thread-safe.

    Attributes:
        kept: what tells it of landings that were kept, in the journal's order. Does not block.
    """

    __slots__ = ("_queue", "_state", "kept")

    def __init__(self, state: State) -> None:
        self._state = state
        self._queue: deque[Landing] = deque()
        self.kept: Callable[[Sequence[Any]], None] = self._queue.extend  # Any: notes, all of them landings

    def begin(self, key: Hashable, entry: Entry | None, tags: tuple[object, ...]) -> Landing:
        """Begin a write; it lands once the journal has told that it was kept.

        Raises:
            CacheClosed: the cache was closed.
        """
        state = self._state
        if state.is_closed:
            state.check_open()
        return Landing(key, entry, tags, state.table.epoch)

    def land(self, landing: Landing) -> None:
        """See to it that a write which was kept has landed, and with it all that were kept before."""
        if not landing.is_landed:
            self._land_all()
        if self._state.events.listeners:
            self._state.events.emit(EventKind.INVALIDATED, landing.key, "written")

    def drop(self, landing: Landing) -> None:
        """End a write that failed, or whose caller left: whatever became of it, memory is not to know its key."""
        landing.entry, landing.is_landed = None, False
        self._queue.append(landing)
        self.land(landing)

    def withdraw(self, keys: Collection[Hashable]) -> None:
        """Let no value of these keys land that was kept until now: it is not what is to be read any more."""
        if not self._queue:
            return
        with self._state.lock:
            for landing in tuple(self._queue):  # a copy in one step, as the journal's thread adds to it
                if landing.key in keys:
                    landing.entry = None

    def _land_all(self) -> None:
        state, queue = self._state, self._queue
        now_ns = state.clock_ns()
        with state.lock:
            while queue:
                landing = queue[0]  # it stays until it has landed, should an interrupt come
                if not landing.is_landed:
                    self._land(landing, now_ns)
                    landing.is_landed = True
                queue.popleft()
            gone = state.take_gone()
        state.bury(gone)

    def _land(self, landing: Landing, now_ns: int) -> None:
        """Store a value in the place of whatever memory had, or take that out; the lock is held."""
        state, key, entry = self._state, landing.key, landing.entry
        state.fences.disturb(key)
        state.flights.pop(key, None)
        if state.looks:
            state.looks.pop(key, None)
        state.invalidations += 1
        if entry is not None and self._may_store(landing, entry):
            state.table.put(entry, landing.tags, now_ns)
            state.stores += 1
        else:
            state.table.remove(key)

    def _may_store(self, landing: Landing, entry: Entry) -> bool:
        state, tags = self._state, landing.tags
        if state.is_closed or not state.table.fits(entry.weight):
            return False
        if landing.epoch != state.table.epoch and (tags or landing.epoch < state.forgotten_epoch):
            return False  # which tags were invalidated is noted only while somebody loads, or holds a fence
        return not (state.fences and state.fences.covers(entry.key, tags))
