"""The journal: what it promises, in terms of what is known in memory and what the writer thread commits."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

from ...errors import ConfigurationError, DeadlockError, JournalError
from ...flight import Signal
from ..base import DeadLetter, Entry, JournalStatus, Pending, Receipt
from ..writer import GroupWriter, tell
from . import draft as drafts
from . import files, letters, schema
from .attached import AttachedJournal
from .commits import LOOK_ABROAD_NS, Commits
from .draft import Draft, Slot
from .files import Watch
from .forks import forks
from .jobs import Job, Put, Task
from .known import Known
from .owner import OwnerLock
from .reader import Reader

T = TypeVar("T")
Durability = Literal["disk", "os"]


class SqliteJournal:
    """Keeps pending writes in one SQLite file, for one process at a time.

    One thread commits what all others append, as much at once as has come meanwhile, so that many writes share one wait for
    the disk. It is a `Journal`; what that promises holds for kill -9 at any moment, and with `durability="disk"` for
    a loss of power.

    Files that it needs beside `path`: `-wal` and `-shm`, which are SQLite's and part of the journal, and `-lock`. If one of
    them is removed or replaced meanwhile, nothing more is acknowledged. A file that is broken when it is opened is moved to
    `path.broken-1` (and so on), an error is logged, and an empty journal begins.

    After `os.fork` it belongs to the parent. The child opens a journal of its own, after the parent has closed this one.

    Args:
        path: the file; it is made if there is none, its directory must exist and be on a local disk.
        durability: "disk": what is acknowledged is on the disk. "os": it is with the operating system, which survives the
            process but not the machine; several times faster.
        max_pending: how many keys may have a pending write.
        clock: seconds of a clock that only goes forward; for tests.

    Raises:
        JournalInUse: another process, or this one, has it open.
        JournalError: the file is no journal, or of a later format, and is left alone; or it cannot be opened.
        ConfigurationError: an option is wrong.
    """

    is_shared = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "disk",
        max_pending: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if durability not in {"disk", "os"}:
            raise ConfigurationError(f'durability must be "disk" or "os", got {durability!r}')
        if max_pending < 1:
            raise ConfigurationError(f"max_pending must be at least 1, got {max_pending!r}")
        self.path = files.place_of(path)
        self._clock = clock
        self._gone: str | None = forks.refusal(self.path)  # why nothing can be done any more
        if self._gone is not None:
            raise JournalError(self._gone)
        self._closing = threading.Lock()
        self._lock = OwnerLock(self.path)
        try:
            self._open(durability, max_pending)
        except BaseException:
            self._lock.release()
            raise
        self._writer: GroupWriter[Job] = GroupWriter(
            self._commits.commit, self._commits.refuse, name="credenza-journal"
        )
        forks.add(self)

    @staticmethod
    def attach(path: str | os.PathLike[str]) -> AttachedJournal:
        """Return the journal as one can see it beside the process that has it open; for operators.

        Raises:
            JournalError: there is none, or it cannot be read.
        """
        return AttachedJournal(files.place_of(path))

    def identity_of(self, taken: Sequence[Pending]) -> str:
        """See `Journal.identity_of`; a journal's file has one name from its beginning."""
        return self._identity

    # Keeping ----------------------------------------------------------------------------------------------------------

    def follow(self, kept: Callable[[Sequence[object]], None]) -> None:
        """See `FollowedJournal.follow`."""
        self._commits.kept = kept

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """See `Journal.append`.

        Raises:
            JournalError: it was closed, forked, or its files are gone.
            JournalFull: these are more entries than it may hold at all.
        """
        self._require_elsewhere()
        put = Put(tuple(entries), Receipt())
        known = self._known
        with known.lock:
            if (refusal := self._gone or self._commits.lost) is not None:
                raise JournalError(refusal)
            if not known.claim(put.entries):
                return None
            try:
                self._writer.put(put)
            except Exception:  # no thread can be started; an interrupt may have come when the job was queued
                known.release(put.entries)
                raise
        return put.receipt

    def has_room(self) -> Signal:
        """See `Journal.has_room`."""
        self._require()
        return self._known.room()

    def owes(self, key: bytes) -> bool:
        """See `Journal.owes`."""
        self._require()
        return key in self._known.slots

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """See `Journal.find`."""
        self._require()
        return self._reader.find(keys)

    # Delivering -------------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Pending]:
        """See `Journal.take`."""
        return self._do(lambda draft: draft.take(limit, self._known.due(self._clock())))

    def settle(self, taken: Sequence[Pending]) -> None:
        """See `Journal.settle`."""
        if taken:
            self._do(lambda draft: draft.settle(taken))

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        """See `Journal.postpone`."""
        due = self._clock() + delay_ms / 1000
        self._do(lambda draft: draft.postpone(taken, due=due, delay_ms=delay_ms, failures=failures, error=error))

    def bury(self, taken: Pending, *, error: str) -> bool:
        """See `Journal.bury`."""
        return self._do_if_kept(lambda draft: draft.bury(taken, error=error))

    def wait(self, timeout_ns: int) -> None:
        """See `Journal.wait`; ends, too, when a postponed write is due or another process has asked for a dead letter."""
        ends_ns = time.monotonic_ns() + timeout_ns
        while True:
            self._require()
            now_ns = time.monotonic_ns()
            if self._known.wait(min(ends_ns, now_ns + LOOK_ABROAD_NS), self._clock()) or now_ns >= ends_ns:
                return
            if self._gone is None:
                self._do(lambda _draft: None)  # which looks for what other processes changed

    def wake(self) -> None:
        """See `Journal.wake`."""
        self._require()
        self._known.wake()

    # Looking ----------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """See `Journal.count`."""
        self._require()
        return len(self._known.slots)

    def mark(self) -> object:
        """See `Journal.mark`."""
        self._require()
        return self._numbers.last

    def is_past(self, mark: object) -> bool:
        """See `Journal.is_past`. A write that was replaced before it was delivered counts until its successor is."""
        self._require()
        assert isinstance(mark, int)
        return all(slot.first > mark for slot in self._slots())

    def status(self) -> JournalStatus:
        """See `Journal.status`."""
        self._require()
        slots = self._slots()
        (dead,) = self._reader.read(
            lambda reader: reader.execute("SELECT count(*) FROM dead WHERE is_asked_for = 0").fetchone()
        )
        return JournalStatus(
            location=self.path,
            pending=len(slots),
            dead=dead,
            oldest_ms=min((slot.since_ms for slot in slots), default=None),
            size_bytes=files.size_bytes(self.path),
            owner=f"process {os.getpid()}",
            kept_aside=files.kept_aside(self.path),
        )

    def dead(self) -> list[DeadLetter]:
        """See `Journal.dead`."""
        self._require()
        return self._reader.read(letters.read)

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.retry`; the bound does not keep it from it."""
        return self._do_if_kept(lambda draft: draft.retry(numbers))

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.discard`."""
        return self._do_if_kept(lambda draft: draft.discard(numbers))

    def close(self) -> None:
        """See `Journal.close`; does nothing in a forked child."""
        with self._closing:
            if self._gone is not None:
                return
            with self._known.lock:
                self._gone = f"the journal {self.path!r} was closed; open it anew"
            self._writer.close()
            tell(self._known.end())
            self._reader.close()
            self._commits.close()
            self._lock.release()
            forks.remove(self)

    def forget(self) -> list[sqlite3.Connection]:
        """In a forked child: leave the journal to the parent; return connections that must never be closed here."""
        self._gone = (
            f"the journal {self.path!r} was opened before this process was forked; open it after the fork, in the one "
            "process that uses it"
        )
        self._closing = threading.Lock()
        self._lock.forget()
        return [self._reader.connection, self._connection]

    # Within -----------------------------------------------------------------------------------------------------------

    def _open(self, durability: Durability, max_pending: int) -> None:
        self._connection = files.open_journal(self.path, durability="disk")
        try:
            self._identity = str(schema.about(self._connection, "identity"))
            self._numbers, slots, dead_keys = drafts.begin(self._connection, self._clock())
            files.set_durability(self._connection, durability)
            self._known = Known(slots, max_pending)
            self._reader = Reader(self.path, slots)
            self._commits = Commits(
                self.path,
                self._connection,
                self._known,
                self._numbers,
                durability=durability,
                watch=Watch(self.path, self._lock.path),
                dead_keys=dead_keys,
                clock=self._clock,
            )
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise JournalError(f"cannot open the journal {self.path!r}: {error}") from error
            raise

    def _slots(self) -> list[Slot]:
        """Return a snapshot; copying a dictionary's values is one step for all other threads."""
        return list(self._known.slots.values())

    def _require(self) -> None:
        if self._gone is not None:
            raise JournalError(self._gone)

    def _require_elsewhere(self) -> None:
        self._require()
        if self._writer.is_here():  # a listener, told of a write that was kept late
            raise DeadlockError("what the journal's own thread calls cannot wait for it; write from another thread")

    def _do(self, work: Callable[[Draft], T]) -> T:
        """Have the writer thread do something in its next transaction, and wait until that is committed."""
        self._require_elsewhere()
        task = Task(work)
        if not self._writer.put(task):
            raise JournalError(self._gone)
        task.done.wait()
        if task.error is not None:
            raise task.error
        return cast("T", task.outcome)

    def _do_if_kept(self, work: Callable[[Draft], T]) -> T:
        """Do something that must outlast the process."""
        self._require()
        if self._commits.lost is not None:
            raise JournalError(self._commits.lost)
        return self._do(work)
