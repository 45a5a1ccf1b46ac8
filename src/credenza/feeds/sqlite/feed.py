"""The change log that triggers write into a SQLite file, as a feed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Generator
from typing import Any, Final

from ...durations import Duration, seconds_of
from ...errors import ConfigurationError, FeedError
from ..base import Batch, Columns, RowChange
from .file import File, Place, connected, file_at, is_busy, place_in, tables_of, translated
from .migration import VERSION

_PAGE: Final = 5000
_REST_SECONDS: Final = 1.0
_SAVE_SECONDS: Final = 0.5
_TRIM_SECONDS: Final = 10.0
_TRIM_ROWS: Final = 5000


class SqliteFeed:
    """What the triggers of `install` logged.

    Writers in other processes are noticed by `PRAGMA data_version`. A change of the schema makes the tables as a whole stale.

    Args:
        path: the file.
        name: keep the position in the file under this name: one of the processes that use it reads, for the shared tier of all,
            and if it dies another one goes on from there. Without it each process reads, and begins with an empty cache.
        poll: how often to look.
        retention: rows are deleted when they are this old. Who was away for longer begins with an empty cache.

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        poll: Duration = 0.05,
        retention: Duration = "1h",
    ) -> None:
        self.name = name
        self.rest = _REST_SECONDS
        self._path = os.fspath(path)
        self._poll = seconds_of(poll, name="poll")
        self._retention = seconds_of(retention, name="retention")
        if self._poll <= 0 or self._retention <= 0:
            raise ConfigurationError("poll and retention must be positive; leave them out for 50 ms and 1 h")
        self._lock = threading.RLock()  # held while a connection is used: a fork waits for it
        self._is_forking = self._is_spoilt = False
        self._bell = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._claim: sqlite3.Connection | None = None
        self._file = File(0, 0)
        self._epoch = ""
        self._version = -1
        self._told: dict[str, list[str]] = {}
        self._settled: Place | None = None
        self._next: Place | None = None
        self._kept: Place | None = None
        self._saved = self._trimmed = -1e9

    @property
    def position(self) -> str:
        """The number of the last change that is applied."""
        place = self._settled or self._kept
        return "" if place is None else str(place.number)

    # The port ---------------------------------------------------------------------------------------------------------

    def connect(self, timeout: float) -> Columns:
        """See `Feed`. A file that was replaced is another one, with no position in it."""
        if self._is_spoilt:
            raise FeedError(f"the process was forked in the middle of using the file {self._path!r}")
        with self._using():
            if self._connection is None or file_at(self._path) != self._file:
                self.disconnect()
                self._open(timeout)
            return {name: frozenset(columns) for name, columns in self._told.items()}

    def elect(self, timeout: float) -> bool:
        """See `Feed`. The lock is on an empty file beside the other one, and ends with the process."""
        if self.name is None or self._claim is not None:
            return True
        with self._using() as connection:
            kept = "SELECT position, schema FROM credenza_followers WHERE name = ? AND epoch = ?"
            row = connection.execute(kept, (self.name, self._epoch)).fetchone()
            identity = (self._file, self._epoch)
            end = place_in(connection, identity).number
            self._kept = Place(identity, *row) if row and row[0] <= end else None  # beyond the end: of another past
            digest = hashlib.sha256(self.name.encode()).hexdigest()[:12]
            claim = sqlite3.connect(
                f"{self._path}-follow-{digest}", timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                claim.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                claim.close()
                if not is_busy(error):
                    raise
                return False
            self._claim, self._settled = claim, self._kept
        return True

    def read(self, timeout: float) -> Batch:
        """See `Feed`."""
        with self._using() as connection:
            connection.execute("BEGIN")
            try:
                return self._read(connection)
            finally:
                connection.execute("COMMIT")

    def settle(self) -> None:
        """See `Feed`."""
        assert self._next is not None, "nothing was read"
        self._settled = self._next

    def save(self, timeout: float) -> None:
        """See `Feed`. Not at every change, as it is a write; and not while others write."""
        place = self._settled
        if self.name is None or place is None or place == self._kept or time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        statement = "INSERT OR REPLACE INTO credenza_followers (name, epoch, position, schema) VALUES (?, ?, ?, ?)"
        if self._write([(statement, (self.name, place.identity[1], place.number, place.schema))]):
            self._kept, self._saved = place, time.monotonic()

    def trim(self, timeout: float) -> None:
        """See `Feed`. What is deleted is noted in the same transaction."""
        if time.monotonic() - self._trimmed < min(_TRIM_SECONDS, self._retention / 4):
            return
        self._trimmed = time.monotonic()
        newest = (
            "SELECT max(id) FROM (SELECT id, at FROM credenza_changes ORDER BY id LIMIT ?) WHERE at < ? AND id <= ?"
        )
        read = 0 if self._settled is None else self._settled.number
        limits = (_TRIM_ROWS, time.time() - self._retention, read)
        with self._using() as connection:
            last = connection.execute(newest, limits).fetchone()[0]
        if last is not None:
            self._write(
                [
                    ("UPDATE credenza_state SET trimmed = max(trimmed, ?)", (last,)),
                    ("DELETE FROM credenza_changes WHERE id <= ?", (last,)),
                ]
            )

    def wait(self, seconds: float) -> None:
        """See `Feed`."""
        ends = time.monotonic() + seconds
        while not self._bell.wait(min(self._poll, max(0.0, ends - time.monotonic()))):
            if time.monotonic() >= ends or self._has_news():
                break
        self._bell.clear()

    def wake(self) -> None:
        """See `Feed`."""
        self._bell.set()

    def mark(self, timeout: float) -> Place:
        """See `Feed`."""
        with self._lock, translated(), contextlib.closing(connected(self._path, timeout)) as connection:
            connection.execute("BEGIN")
            (epoch,) = connection.execute("SELECT max(epoch) FROM credenza_state").fetchone()
            return place_in(connection, (file_at(self._path), epoch))

    def has_reached(self, mark: Place) -> bool:
        """See `Feed`."""
        place = self._settled or self._kept
        if place is None or place.identity != mark.identity:
            return False
        return place.number >= mark.number and place.schema >= mark.schema

    def disconnect(self) -> None:
        """See `Feed`."""
        with self._lock:
            for connection in (self._connection, self._claim):
                if connection is not None:
                    connection.close()
            self._connection = self._claim = None

    def before_fork(self) -> None:
        """See `Feed`. SQLite remembers per process which locks it holds: nothing may be open over a fork."""
        self._is_forking = self._lock.acquire(timeout=1.0)
        if self._is_forking:
            self.disconnect()

    def after_in_parent(self) -> None:
        """See `Feed`."""
        if self._is_forking:
            self._lock.release()

    def after_in_child(self) -> None:
        """See `Feed`."""
        self._is_spoilt = not self._is_forking
        _inherited.extend(each for each in (self._connection, self._claim) if each is not None)
        self._lock, self._bell = threading.RLock(), threading.Event()
        self._connection = self._claim = None

    # What it is made of -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _using(self) -> Generator[Any, None, None]:  # Any: a connection; before `connect` there is none
        with self._lock, translated():
            yield self._connection

    def _open(self, timeout: float) -> None:
        file = file_at(self._path)
        connection = connected(self._path, timeout)
        try:
            version, epoch = connection.execute("SELECT version, epoch FROM credenza_state").fetchone()
            if version != VERSION:
                raise ConfigurationError(f"the change log of {self._path!r} is not of version {VERSION}; run install()")
            told = tables_of(connection)
            if file_at(self._path) != file:
                raise FeedError(f"the file {self._path!r} was replaced while it was opened")
        except BaseException:
            connection.close()
            raise
        if (file, epoch) != (self._file, self._epoch):
            self._settled = self._kept = None
        self._connection, self._file, self._epoch, self._told = connection, file, epoch, told
        self._version = connection.execute("PRAGMA data_version").fetchone()[0]

    def _read(self, connection: sqlite3.Connection) -> Batch:
        settled = self._settled
        self._version = connection.execute("PRAGMA data_version").fetchone()[0]
        now = place_in(connection, (self._file, self._epoch))
        trimmed = connection.execute("SELECT trimmed FROM credenza_state WHERE epoch = ?", (self._epoch,)).fetchone()
        if trimmed is None:
            raise FeedError(f"the change log of {self._path!r} was made anew")
        if settled is None or not trimmed[0] <= settled.number <= now.number:
            self._next = now
            self._told = tables_of(connection)
            return Batch(is_gap=True)
        changes: list[RowChange] = []
        if now.schema != settled.schema:
            self._told = tables_of(connection) | {name: [] for name in self._told if name not in tables_of(connection)}
            changes = [RowChange(name, None) for name in self._told]
        rows = connection.execute(
            "SELECT * FROM credenza_changes WHERE id > ? ORDER BY id LIMIT ?", (settled.number, _PAGE)
        ).fetchall()
        changes += [self._change(row) for row in rows]
        has_more = len(rows) == _PAGE
        self._next = now._replace(number=rows[-1][0]) if has_more else now
        return Batch(changes, has_more=has_more)

    def _change(self, row: tuple[Any, ...]) -> RowChange:  # Any: columns of every type
        name: str = row[2]
        columns = self._told.get(name)
        return RowChange(name, dict(zip(columns, row[3:], strict=False)) if columns else None)

    def _has_news(self) -> bool:
        with self._lock:
            try:
                if self._connection is None or file_at(self._path) != self._file:
                    return True
                version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            except (sqlite3.Error, OSError):
                return True
            return version != self._version

    def _write(self, statements: list[tuple[str, tuple[Any, ...]]]) -> bool:
        """Execute statements in a transaction, unless others write; tell whether that was done."""
        with self._using() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
                for statement, parameters in statements:
                    connection.execute(statement, parameters)
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not is_busy(error) and getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
                return False
            finally:
                connection.execute("PRAGMA busy_timeout = 10000")
        return True


_inherited: list[sqlite3.Connection] = []
"""Connections of a parent that must never be closed here."""
