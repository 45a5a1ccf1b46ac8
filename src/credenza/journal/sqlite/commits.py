"""What the writer thread does with a group of jobs: one transaction, and then everybody is told."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Final

from ...errors import JournalError
from ..base import NotedEntry
from ..writer import tell
from . import files, schema
from .draft import Draft, Numbers, Plan
from .files import Watch
from .jobs import Job, Put, Task
from .known import Known

_CHECKPOINT_PAGES: Final = 2000
_PAGE_BYTES: Final = 4096
_PAGES_PER_COMMIT: Final = 4
_SPARE_PAGES: Final = 1024
_VACUUM_PAGES: Final = 2048
_ALL_PAGES: Final = 1 << 30
LOOK_ABROAD_NS: Final = 500_000_000
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; it goes on when there is room again",
    sqlite3.SQLITE_BUSY: "another program holds it locked; it goes on when that ends",
    sqlite3.SQLITE_CORRUPT: "its file is broken; open it anew, which puts the file aside",
    sqlite3.SQLITE_NOTADB: "its file is broken; open it anew, which puts the file aside",
}
_SYNC_FAILED: Final = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def _planned(draft: Draft, puts: Sequence[Put]) -> Plan:
    return draft.plan(entry for put in puts for entry in put.entries)


class Commits:
    """Commits groups, one after the other, in one thread.

    Args:
        path: the journal.
        connection: used by nobody else.
        known: told what was committed, before anybody who waits.
        numbers: for versions and places.
        durability: "disk" or "os".
        watch: over the files.
        dead_keys: of all dead letters.
        clock: the journal's.

    Attributes:
        lost: why nothing can be kept any more, until the journal is opened anew; None while all is well.
        kept: told of what was kept, with the notes of it, in its order.
    """

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection,
        known: Known,
        numbers: Numbers,
        *,
        durability: str,
        watch: Watch,
        dead_keys: set[bytes],
        clock: Callable[[], float],
    ) -> None:
        self.lost: str | None = None
        self.kept: Callable[[Sequence[object]], None] | None = None
        self._path = path
        self._connection = connection
        self._known = known
        self._numbers = numbers
        self._durability = durability
        self._watch = watch
        self._watermark = numbers.last
        self._dead_keys = dead_keys
        self._clock = clock
        self._looked_abroad_ns = 0
        self._data_version = self._pragma("data_version")
        self._log_pages = 0

    def commit(self, group: list[Job]) -> None:
        """Do a group of jobs: all puts are kept, or none."""
        puts = [job for job in group if isinstance(job, Put)]
        tasks = [job for job in group if isinstance(job, Task)]
        if puts and (error := self._trouble()):
            self._refuse_puts(puts, error)
            puts = []
        try:
            draft = self._perform(tasks, puts)
        except (sqlite3.Error, OSError, JournalError) as error:
            self._recover(error)
            self._refuse_puts(puts, error)
            puts = []
            draft = self._perform_again(tasks)
        if draft is not None:
            self._publish(draft, puts)
            if self.kept is not None:
                self.kept([entry.note for put in puts for entry in put.entries if isinstance(entry, NotedEntry)])
        for task in tasks:
            task.done.set()
        for put in puts:
            tell(put.receipt.signal)
        if draft is not None:
            self._tidy(draft, puts)

    def refuse(self, group: list[Job], error: BaseException) -> None:
        """Tell whoever was not told what became of a job."""
        self._roll_back()
        self._refuse_puts([job for job in group if isinstance(job, Put) and not job.receipt.signal.is_set], error)
        for job in group:
            if isinstance(job, Task) and not job.done.is_set():
                job.error = self._error(error)
                job.done.set()

    def close(self) -> None:
        """Carry the log over to the file, and close it."""
        try:
            if self.lost is None:
                self._vacuum(_ALL_PAGES)
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            pass  # the log has everything, and is read when the journal is opened again
        finally:
            self._connection.close()

    # One transaction --------------------------------------------------------------------------------------------------

    def _perform(self, tasks: Sequence[Task], puts: Sequence[Put]) -> Draft | None:
        if not tasks and not puts:
            return None
        if self._numbers.reserved - self._numbers.last < Numbers.BLOCK // 2:
            self._reserve()
        draft = Draft(
            self._connection,
            self._known.slots,
            self._numbers,
            watermark=self._watermark,
            dead_keys=self._dead_keys,
        )
        plan = None if tasks else _planned(draft, puts)
        if plan is not None and plan.is_one_statement():
            draft.keep(plan)  # a transaction by itself
            return draft
        self._connection.execute("BEGIN IMMEDIATE")
        if tasks:
            self._look_abroad(draft)
            for task in tasks:
                task.outcome = task.work(draft)
        if puts:
            draft.keep(plan or _planned(draft, puts))  # after the tasks: they do not see what nobody was told of
        self._connection.execute("COMMIT")
        return draft

    def _perform_again(self, tasks: Sequence[Task]) -> Draft | None:
        """Do what else was asked for by itself: what did not fit on the disk may have been the puts."""
        try:
            return self._perform(tasks, ())
        except (sqlite3.Error, OSError, JournalError) as error:
            self._recover(error)
            for task in tasks:
                task.error = self._error(error)
            return None

    def _look_abroad(self, draft: Draft) -> None:
        """Take over what the command line or another program has changed, now and then."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_abroad_ns < LOOK_ABROAD_NS:
            return
        self._looked_abroad_ns = now_ns
        version = self._pragma("data_version")
        if version != self._data_version:
            self._data_version = version
            draft.reload(self._clock())

    def _publish(self, draft: Draft, puts: Sequence[Put]) -> None:
        self._watermark, self._dead_keys = draft.watermark, draft.dead_keys
        known = self._known
        with known.lock:
            known.publish(draft)
            for put in puts:
                known.release(put.entries)
            room = known.made_room() if draft.has_removed else None
        if room is not None:
            tell(room)

    def _reserve(self) -> None:
        """Reserve numbers on the disk, before any of them is used."""
        bound = self._numbers.last + Numbers.BLOCK
        files.set_durability(self._connection, "disk")
        try:
            self._connection.execute("UPDATE about SET value = ? WHERE name = 'reserved'", (bound,))
        finally:
            files.set_durability(self._connection, self._durability)
        self._numbers.reserved = bound

    # Failures ---------------------------------------------------------------------------------------------------------

    def _trouble(self) -> JournalError | None:
        """Return why no put can be kept."""
        if self.lost is None:
            try:
                found = self._watch.trouble()
            except OSError as error:
                return self._error(error)
            if found is None:
                return None
            self._lose(found)
            self._checkpoint()  # what is missing in a log that was removed can still be carried over to the file
        return JournalError(self.lost)

    def _lose(self, reason: str) -> None:
        self.lost = (
            f"the journal {self._path!r} keeps no more writes: {reason} while it was open; what is still pending is "
            "delivered, then open it anew"
        )

    def _recover(self, error: BaseException) -> None:
        """Make the connection fit for the next transaction."""
        self._roll_back()
        if schema.code_of(error) in schema.BROKEN:
            self._lose("it is broken")
        elif getattr(error, "sqlite_errorcode", 0) in _SYNC_FAILED:
            self._lose("the disk failed")  # and may say next time that it did not
        else:
            self._checkpoint()  # so that the log can be used from its beginning, should the disk be full

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._lose("a transaction could not be rolled back")

    def _refuse_puts(self, puts: Sequence[Put], error: BaseException) -> None:
        with self._known.lock:
            for put in puts:
                self._known.release(put.entries)
            room = self._known.made_room()
        for put in puts:
            put.receipt.error = self._error(error)
            tell(put.receipt.signal)
        if room is not None:
            tell(room)

    def _error(self, error: BaseException) -> JournalError:
        if isinstance(error, JournalError):
            return JournalError(str(error))
        advice = _ADVICE.get(schema.code_of(error), "it goes on when that is over")
        made = JournalError(f"the journal {self._path!r} did not do what it was asked: {error}; {advice}")
        made.__cause__ = error
        return made

    # Space ------------------------------------------------------------------------------------------------------------

    def _tidy(self, draft: Draft, puts: Sequence[Put]) -> None:
        """Keep the log and the file from growing for ever, once everybody was told."""
        self._log_pages += _PAGES_PER_COMMIT + (draft.written_bytes + 64 * len(puts)) // _PAGE_BYTES
        if self._log_pages < _CHECKPOINT_PAGES:
            return
        try:
            self._vacuum(_VACUUM_PAGES)
        except sqlite3.Error:
            return  # the next commit says what is wrong
        self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._watch.note_file()
        except (sqlite3.Error, OSError):
            return
        self._log_pages = 0

    def _vacuum(self, most: int) -> None:
        """Give pages back after a great backlog was delivered."""
        free, pages = self._pragma("freelist_count"), self._pragma("page_count")
        if free > max(_SPARE_PAGES, pages // 2):
            # As a script: it is a row without columns for each page, of which `execute` takes one.
            self._connection.executescript(f"PRAGMA incremental_vacuum({most})")
            self._watch.allow_shorter(self._pragma("page_count") * _PAGE_BYTES)

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value
