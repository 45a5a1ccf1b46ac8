"""What the process that has a journal open knows of it without asking the file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from ...errors import JournalFull
from ...flight import Signal
from ..base import Entry
from .draft import Draft, Slot

_SOON: Final = 0.000_1


class Known:
    """Where the pending writes are, what is queued to become one, and who waits for either.

    Args:
        slots: what is pending.
        max_pending: how many keys may be pending or on their way.

    Attributes:
        lock: guards all of it but look-ups in `slots`, which need none.
    """

    def __init__(self, slots: dict[bytes, Slot], max_pending: int) -> None:
        self.lock = threading.Lock()
        self.slots = slots
        self._max_pending = max_pending
        self._claims: dict[bytes, int] = {}  # how often a key is queued
        self._held = set(slots)  # the keys that are pending or queued
        self._late = {key: slot.due for key, slot in slots.items() if slot.due is not None}
        self._last_place = max((slot.place for slot in slots.values() if slot.due is None), default=0)
        self._seen = 0
        self._room = Signal()
        self._changed = threading.Condition(self.lock)
        self._is_woken = False

    # Room -------------------------------------------------------------------------------------------------------------

    def claim(self, entries: Sequence[Entry]) -> bool:
        """Count entries as queued if they fit, with the lock held."""
        held, claims = self._held, self._claims
        if len(entries) == 1:
            ((key, _),) = entries
            if key not in held:
                if len(held) >= self._max_pending:
                    return False
                held.add(key)
            claims[key] = claims.get(key, 0) + 1
            return True
        new = {key for key, _ in entries if key not in held}
        if new and len(held) + len(new) > self._max_pending:
            if len(new) > self._max_pending:
                raise JournalFull(
                    f"{len(new)} writes at once are more than the journal may ever hold; raise max_pending, now "
                    f"{self._max_pending}, or write fewer at once"
                )
            return False
        held |= new
        for key, _ in entries:
            claims[key] = claims.get(key, 0) + 1
        return True

    def release(self, entries: Iterable[Entry]) -> None:
        """Count entries as queued no more, with the lock held."""
        claims = self._claims
        for key, _ in entries:
            left = claims[key] - 1
            if left:
                claims[key] = left
                continue
            del claims[key]
            if key not in self.slots:
                self._held.discard(key)

    def room(self) -> Signal:
        """Return what is set when there may be room again."""
        with self.lock:
            if len(self._held) < self._max_pending:
                signal = Signal()
                signal.set()
                return signal
            return self._room

    def made_room(self) -> Signal | None:
        """Return what is to be set now, with the lock held; None if there is no room."""
        if len(self._held) >= self._max_pending:
            return None
        room, self._room = self._room, Signal()
        return room

    # Changes ----------------------------------------------------------------------------------------------------------

    def publish(self, draft: Draft) -> None:
        """Take over what was committed, with the lock held."""
        slots, held, late = self.slots, self._held, self._late
        for key, slot in draft.changed.items():
            if slot is None:
                slots.pop(key, None)
                if key not in self._claims:
                    held.discard(key)
            else:
                slots[key] = slot
                held.add(key)
            if slot is not None and slot.due is not None:
                late[key] = slot.due
            elif late:
                late.pop(key, None)
        self._seen = max(self._seen, draft.seen)
        if draft.last_place > self._last_place:
            self._last_place = draft.last_place
            self._changed.notify_all()

    def due(self, now: float) -> list[bytes]:
        """Return the postponed keys whose delay is over."""
        return [key for key, due in list(self._late.items()) if due <= now]

    # Waiting ----------------------------------------------------------------------------------------------------------

    def wait(self, ends_ns: int, now: float) -> bool:
        """Wait for something to take, at most until then; tell whether there may be something."""
        with self._changed:
            if not self._has_news(now):
                left = (ends_ns - time.monotonic_ns()) / 1_000_000_000
                if self._late:
                    left = min(left, max(_SOON, min(self._late.values()) - now))
                if left > 0:
                    self._changed.wait(left)
            has_news = self._has_news(now)
            self._is_woken = False
            return has_news

    def wake(self) -> None:
        """End a wait, this or the next one."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def end(self) -> Signal:
        """End all waiting; return what is to be set for those who wait for room."""
        self.wake()
        with self.lock:
            room, self._room = self._room, Signal()
        return room

    def _has_news(self, now: float) -> bool:
        return self._is_woken or self._last_place > self._seen or any(due <= now for due in self._late.values())
