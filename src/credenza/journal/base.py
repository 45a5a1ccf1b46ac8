"""The port to a journal: what write-behind asks of the place where it keeps writes until the source has taken them.

A journal knows bytes only. It holds at most one pending write per key, the last; whatever is put over it replaces it. Two
numbers go with each:

    version     grows with every write that is appended. What was delivered is struck off by key and version, so that a
                write which came meanwhile stays.
    place       says whose turn it is. A write that replaces a pending one takes over its place, so that a hot key gets its
                turn; unless that was taken for delivery since the journal was opened, or may have been before. So what
                has a place at or below one that was delivered is delivered, or has moved to a later place, or is dead:
                a source that keeps the last place in its own transaction can leave out what it has.

A write is pending, then it is settled, or buried as a dead letter after too many failures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import JournalError
from ..flight import Signal


class Entry(NamedTuple):
    """What is to be kept: the last value of a key, or None for "it was deleted"."""

    key: bytes
    value: bytes | None


class NotedEntry(Entry):
    """An entry, and what whoever follows the journal is told of it."""

    note: object


class Pending(NamedTuple):
    """A write that the source has not taken yet.

    Attributes:
        version, place: see the module.
        failures: how often its delivery has failed for reasons of its own.
        since_ms: the wall clock's milliseconds since when the key has had a pending write.
    """

    key: bytes
    value: bytes | None
    version: int
    place: int
    failures: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A write that the source never took.

    Attributes:
        number: identifies it within its journal.
        error: what the source said last, without values.
        died_ms: the wall clock's milliseconds when it was given up.
        is_superseded: a later write of the same key was appended, so this one must not be delivered any more.
    """

    number: int
    key: bytes
    value: bytes | None
    failures: int
    error: str
    died_ms: int
    is_superseded: bool


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """What a journal holds; a snapshot.

    Attributes:
        location: where it is, without passwords.
        pending: keys with a write that the source has not taken.
        dead: dead letters.
        oldest_ms: the wall clock's milliseconds when the oldest pending write was appended, None if there is none.
        size_bytes: what it takes on disk or in the server.
        owner: the process that has it open, as text; None if none does.
        kept_aside: broken files that were put aside beside it.
    """

    location: str
    pending: int
    dead: int
    oldest_ms: int | None
    size_bytes: int
    owner: str | None
    kept_aside: tuple[str, ...] = ()


class Receipt:
    """The promise that entries are kept: `signal` is set once they are, or cannot be.

    Attributes:
        error: why they are not kept; to be looked at when the signal is set.
    """

    __slots__ = ("error", "signal")

    def __init__(self) -> None:
        self.signal = Signal()
        self.error: JournalError | None = None


class Journal(Protocol):
    """Where pending writes are. Thread-safe. Methods may block on I/O unless they say otherwise.

    All raise `JournalError` where the journal cannot do it: the disk is full, the file is gone, the server is away. What
    was acknowledged stays acknowledged.
    """

    def identity_of(self, taken: Sequence[Pending]) -> str:
        """Return what names the places of writes that were taken together, wherever the journal is moved.

        Sources keep the last place under it. Does not block.
        """
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes append to it, too: then `owes` knows only part of it, and `find` asks the server."""
        ...

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """Queue entries, to be kept all or none, in the order of the calls; None if the journal is full. Does not block.

        Entries count as pending, for `owes` and `find`, from when the receipt's signal is set, at the latest.
        """
        ...

    def has_room(self) -> Signal:
        """Return what is set when room may have been made since; at once if there is room now. Does not block."""
        ...

    def owes(self, key: bytes) -> bool:
        """Tell whether this process knows of a pending write of the key. Does not block."""
        ...

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Return the pending values of those keys that have one; None for one that was deleted."""
        ...

    def take(self, limit: int) -> list[Pending]:
        """Return the pending writes whose turn it is, at most `limit`, by place; postponed ones when they are due.

        What is taken and not settled, postponed or buried is taken again.
        """
        ...

    def settle(self, taken: Sequence[Pending]) -> None:
        """Strike off what the source has taken, where the version is still the same."""
        ...

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        """Give one write a new place behind all others; it has failed so often, and is not due before the delay is over.

        It is committed when this returns: only then may what has a later place be delivered.
        """
        ...

    def bury(self, taken: Pending, *, error: str) -> bool:
        """Make one write a dead letter, unless a later write has replaced it; tell whether it did. Committed on return."""
        ...

    def wait(self, timeout_ns: int) -> None:
        """Block until something was appended that `take` has not seen, `wake` is called, or the time is over."""
        ...

    def wake(self) -> None:
        """End a `wait`. Does not block."""
        ...

    def count(self) -> int:
        """Return how many writes are pending, postponed ones included; as far as this process knows. Does not block."""
        ...

    def mark(self) -> object:
        """Return a mark behind everything that was acknowledged until now."""
        ...

    def is_past(self, mark: object) -> bool:
        """Tell whether nothing that was acknowledged before the mark is pending any more."""
        ...

    def status(self) -> JournalStatus:
        """Return what it holds."""
        ...

    def dead(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        ...

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """Make dead letters pending again, all or those named, except superseded ones; return how many."""
        ...

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """Forget dead letters, all or those named; return how many."""
        ...

    def close(self) -> None:
        """Keep what is queued, and let go of the file or the server; later calls raise. Harmless when closed."""
        ...


@runtime_checkable
class FollowedJournal(Journal, Protocol):
    """A journal that this process alone appends to, and that tells in which order it has kept what was appended."""

    def follow(self, kept: Callable[[Sequence[object]], None]) -> None:
        """Have `kept` called with the notes of the entries that were kept, in their order.

        That is when they count as pending, and before anybody is told that they do. It must not block, raise, or use the
        journal.
        """
        ...
