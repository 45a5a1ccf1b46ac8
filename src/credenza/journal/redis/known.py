"""What a process knows of a journal without asking: how the partitions were, what it has written itself, and what is queued."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ...errors import JournalFull
from ...flight import Signal
from ..base import Entry
from .wire import NOTHING_PENDING, Layout, Look, State

_log = logging.getLogger("credenza")

_QUIET_SECONDS: Final = 10.0
"""For so long a loss is not told again: it concerns all partitions, and they are seen one by one."""

_NOTHING: Final = State("", 0, -1, 0, 0, NOTHING_PENDING)
_NO_LOOK: Final = Look(_NOTHING, 0, "", 0, 0, is_new_run=False)


class Mark(NamedTuple):
    """Everything in a partition up to a number."""

    identity: str
    number: int


class Known:
    """How the partitions were when the server was heard last, and what is on its way there. Thread-safe.

    Args:
        layout: says which keys are in which partition.
        location: of the journal, for messages.
        max_pending: how many keys may be pending or on their way, as far as this process knows.
        when_lost: called when the server has lost a partition or forgotten writes of it, with the lock held.

    Attributes:
        lock: guards all of it.
    """

    def __init__(
        self, layout: Layout, location: str, max_pending: int, when_lost: Callable[[int], None] = lambda part: None
    ) -> None:
        self.lock = threading.Lock()
        self._layout = layout
        self._location = location
        self._max_pending = max_pending
        self._when_lost = when_lost
        self._states = [_NOTHING] * layout.partitions
        self._pending = 0  # of all states
        self._told_s = -_QUIET_SECONDS
        self._looks = [_NO_LOOK] * layout.partitions
        self._ahead_ms = 0.0  # of the server's clock before the monotonic one
        self._seen = [0] * layout.partitions  # the last number that `take` has seen
        # By partition and key, in the order of the versions: what this process wrote and has not seen settled.
        self._owed: list[dict[bytes, int]] = [{} for _ in range(layout.partitions)]
        self._claims: dict[bytes, int] = {}  # how often a key is queued
        self._new: set[bytes] = set()  # queued keys that are not known to be pending
        self._room = Signal()
        self._changed = threading.Condition(self.lock)
        self._is_woken = self._is_ended = False

    # Room -------------------------------------------------------------------------------------------------------------

    def claim(self, entries: Iterable[Entry]) -> bool:
        """Count entries as queued if they fit, with the lock held."""
        keys = {key for key, _ in entries}
        new = {key for key in keys if key not in self._new and not self._is_owed(key)}
        if new and self._held() + len(new) > self._max_pending:
            if len(new) > self._max_pending:
                raise JournalFull(
                    f"{len(new)} writes at once are more than the journal may ever hold; raise max_pending, now "
                    f"{self._max_pending}, or write fewer at once"
                )
            return False
        self._new |= new
        for key in keys:
            self._claims[key] = self._claims.get(key, 0) + 1
        return True

    def release(self, entries: Iterable[Entry]) -> None:
        """Count entries as queued no more, with the lock held."""
        for key in {key for key, _ in entries}:
            left = self._claims[key] - 1
            if left:
                self._claims[key] = left
            else:
                del self._claims[key]
                self._new.discard(key)

    def room(self) -> Signal:
        """Return what is set when there may be room."""
        with self.lock:
            if self._held() < self._max_pending:
                signal = Signal()
                signal.set()
                return signal
            return self._room

    def made_room(self) -> Signal | None:
        """Return what is to be set now, without the lock; None if there is no room. With the lock held."""
        if self._held() >= self._max_pending:
            return None
        room, self._room = self._room, Signal()
        return room

    def end(self) -> Signal:
        """Let everybody go on who waits for room; return what is to be set, without the lock."""
        with self.lock:
            self._max_pending = 1 << 62
            self._is_ended = True
            self._changed.notify_all()
            return self._room

    # What was written, and what became of it ---------------------------------------------------------------------------

    def kept(self, part: int, keys: Iterable[bytes], state: State) -> None:
        """Take over that keys were written, the last with the last number; with the lock held."""
        self._note(part, state)
        owed, keys = self._owed[part], list(keys)
        for version, key in enumerate(keys, state.number - len(keys) + 1):
            owed.pop(key, None)
            owed[key] = version
            self._new.discard(key)

    def settled(self, part: int, versions: Mapping[bytes, int], state: State) -> None:
        """Take over that writes are pending no more; with the lock held."""
        self._note(part, state)
        owed = self._owed[part]
        for key, version in versions.items():
            if owed.get(key, version + 1) <= version:
                self._drop(owed, key)

    def note(self, part: int, state: State) -> None:
        """Take over how a partition is now."""
        with self.lock:
            self._note(part, state)

    def postponed(self, part: int, state: State, due_ms: int) -> None:
        """Take over that a write was postponed until then, which is no news."""
        with self.lock:
            look = self._looks[part]
            self._looks[part] = look._replace(due_ms=min(look.due_ms or due_ms, due_ms))
            if self._seen[part] == state.number - 1:
                self._seen[part] = state.number
            self._note(part, state)

    def note_looks(self, now_ms: int, looks: Mapping[int, Look]) -> None:
        """Take over how partitions are now."""
        with self.lock:
            self._ahead_ms = now_ms - time.monotonic() * 1000
            for part, look in looks.items():
                self._looks[part] = look
                self._note(part, look.state)

    def saw(self, part: int, number: int) -> None:
        """Take over up to where `take` has seen a partition."""
        with self.lock:
            self._seen[part] = number

    def owes(self, key: bytes) -> bool:
        """Tell whether this process wrote the key, and has not seen that settled; takes no lock."""
        return self._is_owed(key)

    # Looking ----------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many keys are pending."""
        return self._pending

    def identity(self, part: int) -> str:
        """Return what the numbers of a partition belong to."""
        return self._states[part].identity

    def has_pending(self, part: int) -> bool:
        """Tell whether something is pending in a partition."""
        return self._states[part].pending > 0

    def mark(self) -> tuple[Mark, ...]:
        """Return a mark behind all that was written."""
        with self.lock:
            return tuple(Mark(state.identity, state.number) for state in self._states)

    def is_past(self, marks: Sequence[Mark]) -> bool:
        """Tell whether nothing from before the mark is pending; what the server has lost is not."""
        with self.lock:
            return all(
                state.identity != mark.identity or (state.floor or 0) > mark.number
                for state, mark in zip(self._states, marks, strict=True)
            )

    # Waiting ----------------------------------------------------------------------------------------------------------

    def wait(self, timeout_ns: int, parts: Callable[[], Iterable[int]]) -> None:
        """Wait until there is something to take in one of the partitions, or `wake` is called."""
        ends_ns = time.monotonic_ns() + timeout_ns
        with self._changed:
            while not (self._is_woken or self._is_ended):
                due = self._next_due(parts())
                left = min(due, (ends_ns - time.monotonic_ns()) / 1e9)
                if left <= 0:
                    break
                self._changed.wait(left)
            self._is_woken = False

    def wake(self) -> None:
        """End a wait, this or the next one."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def _next_due(self, parts: Iterable[int]) -> float:
        """Return in how many seconds there is something to take; with the lock held."""
        soonest = float("inf")
        now_ms = time.monotonic() * 1000 + self._ahead_ms
        for part in parts:
            if self._states[part].pending and self._states[part].number > self._seen[part]:
                return 0.0
            due_ms = self._looks[part].due_ms
            if due_ms:
                soonest = min(soonest, (due_ms - now_ms) / 1000)
        return soonest

    # Within, with the lock held ----------------------------------------------------------------------------------------

    def _held(self) -> int:
        return self._pending + len(self._new)

    def _is_owed(self, key: bytes) -> bool:
        return key in self._owed[self._layout.part_of(key)]

    def _drop(self, owed: dict[bytes, int], key: bytes) -> None:
        del owed[key]
        if key in self._claims:
            self._new.add(key)

    def _note(self, part: int, state: State) -> None:
        before = self._states[part]
        is_lost = before.identity not in ("", state.identity)
        if not is_lost and state.changes < before.changes:
            return  # this reply was overtaken by a later one
        if is_lost or (before.identity and state.base != before.base):
            self._look_for_losses(part, state, is_lost=is_lost)
        if state.floor is None:  # nobody looked, and nothing has gone
            state = state._replace(floor=min(before.floor or 0, before.number + 1) if not is_lost else 1)
        self._states[part] = state
        self._pending += state.pending - before.pending
        owed, floor = self._owed[part], state.floor or 0
        while owed:
            key, version = next(iter(owed.items()))
            if version >= floor:
                break
            self._drop(owed, key)
        self._changed.notify_all()

    def _look_for_losses(self, part: int, state: State, *, is_lost: bool) -> None:
        """Say so if the server has forgotten what it had acknowledged."""
        base = 0 if is_lost else state.base
        owed = self._owed[part]
        for key in [key for key, version in owed.items() if version > base]:
            self._drop(owed, key)
        now_s = time.monotonic()
        if (is_lost or self._states[part].number > base) and now_s - self._told_s > _QUIET_SECONDS:
            self._told_s = now_s
            _log.error(
                "the server of the journal %s has forgotten writes that it had acknowledged: it was started without what it "
                "knew, was emptied, or a replica took over; use appendonly yes and appendfsync always, and no other "
                "application's database",
                self._location,
            )
        self._seen[part] = 0
        self._when_lost(part)
