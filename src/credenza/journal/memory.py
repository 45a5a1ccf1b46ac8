"""A journal in a dictionary: what every journal does, in the fewest words; gone with the process."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import JournalError, JournalFull
from ..flight import Signal
from .base import DeadLetter, Entry, JournalStatus, Pending, Receipt


class DictJournal:
    """The reference journal, for tests. It acknowledges at once what it is given, and keeps it while the object lives.

    Args:
        max_pending: how many keys may have a pending write.
        clock: seconds of a clock that only goes forward.

    Attributes:
        error: while it is set, nothing is kept: receipts carry this error, as those of a full disk do.
    """

    is_shared = False

    def __init__(self, *, max_pending: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._identity = secrets.token_hex(16)
        self.error: str | None = None
        self._max_pending = max_pending
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())  # guards all below
        self._pending: dict[bytes, Pending] = {}
        self._due: dict[bytes, float] = {}  # of those that were postponed
        self._first: dict[bytes, int] = {}  # the oldest version that was replaced and not delivered, or less
        self._dead: dict[int, DeadLetter] = {}
        self._number = 0  # the last version or place
        self._letter = 0
        self._watermark = 0  # writes with a place up to this were taken, or may have been
        self._has_news = False
        self._is_woken = False
        self._is_closed = False
        self._room = Signal()

    def identity_of(self, taken: Sequence[Pending]) -> str:
        """See `Journal.identity_of`."""
        return self._identity

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """See `Journal.append`."""
        receipt = Receipt()
        with self._changed:
            self._require_open()
            new = {entry.key for entry in entries} - self._pending.keys()
            if len(new) > self._max_pending:
                raise JournalFull(
                    f"{len(new)} writes at once are more than the journal may ever hold; raise max_pending"
                )
            if new and len(self._pending) + len(new) > self._max_pending:
                return None
            if self.error is not None:
                receipt.error = JournalError(self.error)
            else:
                for key, value in dict(entries).items():
                    self._keep(Entry(key, value))
        receipt.signal.set()
        return receipt

    def has_room(self) -> Signal:
        """See `Journal.has_room`."""
        with self._changed:
            self._require_open()
            if len(self._pending) >= self._max_pending:
                return self._room
        signal = Signal()
        signal.set()
        return signal

    def owes(self, key: bytes) -> bool:
        """See `Journal.owes`."""
        self._require_open()
        return key in self._pending

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """See `Journal.find`."""
        with self._changed:
            self._require_open()
            return {key: self._pending[key].value for key in keys if key in self._pending}

    def take(self, limit: int) -> list[Pending]:
        """See `Journal.take`."""
        with self._changed:
            self._require_open()
            now = self._clock()
            for key in [key for key, due in self._due.items() if due <= now]:
                del self._due[key]
                self._pending[key] = self._pending[key]._replace(place=self._next())
            ready = [one for key, one in self._pending.items() if key not in self._due]
            taken = sorted(ready, key=lambda one: one.place)[:limit]
            self._watermark = max([self._watermark, *(one.place for one in taken)])
            self._has_news = len(taken) < len(ready)
            return taken

    def settle(self, taken: Sequence[Pending]) -> None:
        """See `Journal.settle`."""
        with self._changed:
            self._require_open()
            for one in taken:
                if self._is_same(one):
                    self._remove(one.key)
                elif one.key in self._pending and self._first[one.key] <= one.version:
                    self._first[one.key] = one.version + 1
                    self._pending[one.key] = self._pending[one.key]._replace(since_ms=_wall_ms())
            self._make_room()

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        """See `Journal.postpone`."""
        with self._changed:
            self._require_open()
            if self._is_same(taken):
                one = self._pending[taken.key]
                self._pending[taken.key] = one._replace(place=self._next(), failures=failures)
                self._due.pop(taken.key, None)  # behind those that were postponed before
                self._due[taken.key] = self._clock() + delay_ms / 1000

    def bury(self, taken: Pending, *, error: str) -> bool:
        """See `Journal.bury`."""
        with self._changed:
            self._require_open()
            if not self._is_same(taken):
                return False
            one = self._remove(taken.key)
            self._letter += 1
            self._dead[self._letter] = DeadLetter(
                self._letter, one.key, one.value, one.failures + 1, error, _wall_ms(), is_superseded=False
            )
            self._make_room()
            return True

    def wait(self, timeout_ns: int) -> None:
        """See `Journal.wait`; ends, too, when a postponed write is due."""
        ends_ns = time.monotonic_ns() + timeout_ns
        with self._changed:
            self._require_open()
            while not self._is_ending() and (left_ns := ends_ns - time.monotonic_ns()) > 0:
                delays = [max(0.0, due - self._clock()) for due in self._due.values()]
                self._changed.wait(min([left_ns / 1_000_000_000, *delays]))
            self._is_woken = False

    def wake(self) -> None:
        """See `Journal.wake`."""
        with self._changed:
            self._require_open()
            self._is_woken = True
            self._changed.notify_all()

    def count(self) -> int:
        """See `Journal.count`."""
        self._require_open()
        return len(self._pending)

    def mark(self) -> object:
        """See `Journal.mark`."""
        self._require_open()
        return self._number

    def is_past(self, mark: object) -> bool:
        """See `Journal.is_past`. A write that was replaced before it was delivered counts until its successor is."""
        assert isinstance(mark, int)
        with self._changed:
            self._require_open()
            return all(first > mark for first in self._first.values())

    def status(self) -> JournalStatus:
        """See `Journal.status`."""
        with self._changed:
            self._require_open()
            pending = list(self._pending.values())
            dead = len(self._dead)
        oldest_ms = min((one.since_ms for one in pending), default=None)
        size_bytes = sum(len(one.key) + len(one.value or b"") for one in pending)
        return JournalStatus("memory", len(pending), dead, oldest_ms, size_bytes, "this process")

    def dead(self) -> list[DeadLetter]:
        """See `Journal.dead`."""
        with self._changed:
            self._require_open()
            return list(self._dead.values())

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.retry`."""
        with self._changed:
            letters = [letter for letter in self._named(numbers) if not letter.is_superseded]
            for letter in letters:
                del self._dead[letter.number]
                self._keep(Entry(letter.key, letter.value))
            return len(letters)

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.discard`."""
        with self._changed:
            letters = self._named(numbers)
            for letter in letters:
                del self._dead[letter.number]
            return len(letters)

    def close(self) -> None:
        """See `Journal.close`; what it holds is there again after `reopen`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._room.set()

    def reopen(self) -> DictJournal:
        """Close it, and return what a process that opens it anew would find."""
        self.close()
        other = DictJournal(max_pending=self._max_pending, clock=self._clock)
        other._identity = self._identity
        other._first = {key: one.version for key, one in self._pending.items()}
        other._pending, other._due, other._dead = dict(self._pending), dict(self._due), dict(self._dead)
        other._number, other._letter, other._watermark = self._number, self._letter, self._number
        other._has_news = any(key not in other._due for key in other._pending)
        return other

    # With the lock held -----------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._is_closed:
            raise JournalError("the journal was closed; open it anew")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _keep(self, entry: Entry) -> None:
        version = self._next()
        before = self._pending.get(entry.key)
        is_waiting = before is not None and before.place > self._watermark
        place = before.place if before is not None and is_waiting else version
        since_ms = before.since_ms if before is not None else _wall_ms()
        self._pending[entry.key] = Pending(entry.key, entry.value, version, place, 0, since_ms)
        self._first.setdefault(entry.key, version)
        self._due.pop(entry.key, None)
        for letter in list(self._dead.values()):
            if letter.key == entry.key:
                self._dead[letter.number] = replace(letter, is_superseded=True)
        self._has_news = True
        self._changed.notify_all()

    def _is_same(self, taken: Pending) -> bool:
        one = self._pending.get(taken.key)
        return one is not None and one.version == taken.version

    def _remove(self, key: bytes) -> Pending:
        self._due.pop(key, None)
        del self._first[key]
        return self._pending.pop(key)

    def _make_room(self) -> None:
        if len(self._pending) < self._max_pending:
            room, self._room = self._room, Signal()
            room.set()

    def _named(self, numbers: Sequence[int] | None) -> list[DeadLetter]:
        self._require_open()
        if numbers is None:
            return list(self._dead.values())
        return [self._dead[number] for number in sorted(set(numbers)) if number in self._dead]

    def _is_ending(self) -> bool:
        now = self._clock()
        is_due = any(due <= now for due in self._due.values())
        return self._is_closed or self._is_woken or self._has_news or is_due


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
