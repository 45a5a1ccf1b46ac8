"""The file: how it is made, recognised, begun anew, and put aside when it is broken.

All of that happens while a small lock file beside it is held, so that a process never opens what another one is about
to move away. SQLite keeps `-wal` and `-shm` files by name: left over from a file that is gone, they would be taken for
those of the next one, so they go first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Generator
from typing import Final, NamedTuple, TypeVar

from ...errors import ConfigurationError
from ..base import TierError
from . import boot

T = TypeVar("T")

_logger = logging.getLogger("credenza")

APPLICATION_ID: Final = 0x43726564  # "Cred", in the file's header
FORMAT: Final = 1
_NOTED_EVERY_MS: Final = 1000
_MOST_PUT_ASIDE: Final = 3
_MAPPED_BYTES: Final = 1 << 28 if sys.maxsize > 1 << 32 else 0
_SHORTEST_PAUSE: Final = 0.000_05
_LONGEST_PAUSE: Final = 0.005
_BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# Measured with 1 kB and 50 kB records: WITHOUT ROWID makes reads of 50 kB three times as slow.
_SCHEMA: Final = """
CREATE TABLE records (
    name BLOB NOT NULL PRIMARY KEY,
    is_value INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL CHECK (typeof(expires_ms) = 'integer'),
    record BLOB NOT NULL CHECK (typeof(record) = 'blob')
);
CREATE INDEX by_expiry ON records (is_value, expires_ms);
CREATE TABLE heads (
    namespace TEXT NOT NULL PRIMARY KEY,
    epoch BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    widest_ms INTEGER NOT NULL
);
CREATE TABLE log (
    namespace TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    sender BLOB NOT NULL,
    names BLOB NOT NULL,
    tags BLOB NOT NULL,
    clears INTEGER NOT NULL,
    PRIMARY KEY (namespace, sequence)
);
CREATE TABLE machine (boot TEXT NOT NULL, noted_ms INTEGER NOT NULL)
"""


class Identity(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code, 0 for an error of the Python module."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else holds a lock, so that trying again helps."""
    return code_of(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def insist(connection: sqlite3.Connection, statement: str, deadline_ns: int) -> None:
    """Execute a statement, again and again while the file is locked, until the deadline."""
    patiently(lambda: connection.execute(statement).fetchall(), deadline_ns)


def patiently(attempt: Callable[[], T], deadline_ns: int) -> T:
    """Return the outcome of the first attempt that finds the file not locked; what fails at the deadline fails."""
    pause = _SHORTEST_PAUSE
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            left = (deadline_ns - time.monotonic_ns()) / 1_000_000_000
            if not is_busy(error) or left <= 0:
                raise
        # SQLite's own waiting sleeps up to 100 ms at a time; a writing batch takes a tenth of a millisecond.
        time.sleep(min(pause * random.uniform(0.5, 1.0), left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def identity_of(path: str) -> Identity | None:
    """Return what `path` leads to now, None if there is nothing."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return Identity(found.st_dev, found.st_ino)


def open_file(
    path: str, deadline_ns: int, prepare: Callable[[sqlite3.Connection], None]
) -> tuple[sqlite3.Connection, Identity]:
    """Open the file, making it if there is none; one that SQLite cannot read any more is put aside.

    Args:
        path: the file.
        deadline_ns: until when, by the monotonic clock.
        prepare: done to the connection.

    Raises:
        ConfigurationError: the file is not ours, or of a later format; it is left as it is.
        TierError: it cannot be opened, or not in time.
    """
    try:
        with _locked(path, deadline_ns):
            # Who closes the last connection of a process that ends locks even readers out for a moment.
            connection = patiently(lambda: _ready(path, deadline_ns, prepare), deadline_ns)
            identity = identity_of(path)
    except (sqlite3.Error, OSError) as error:
        is_locked = isinstance(error, sqlite3.Error) and is_busy(error)
        advice = "another process holds it" if is_locked else "its directory must exist and be writable"
        raise TierError(f"cannot use the cache file {path!r}: {error}; {advice}") from error
    if identity is None:
        connection.close()
        raise TierError(f"the cache file {path!r} was deleted while it was opened")
    return connection, identity


def put_aside(path: str, seen: Identity, deadline_ns: int) -> None:
    """Move the broken file `seen` away, unless another process did so already."""
    try:
        with _locked(path, deadline_ns):
            if identity_of(path) == seen:
                _move_away(path)
    except (sqlite3.Error, OSError) as error:
        raise TierError(f"cannot move the broken cache file {path!r} aside: {error}") from error


@contextlib.contextmanager
def _locked(path: str, deadline_ns: int) -> Generator[None, None, None]:
    """Hold the lock file, an empty database: SQLite's locks work everywhere and end with the process."""
    with contextlib.closing(sqlite3.connect(f"{path}-lock", timeout=0, isolation_level=None)) as lock:
        insist(lock, "BEGIN EXCLUSIVE", deadline_ns)
        yield


def _ready(path: str, deadline_ns: int, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    connection = _opened(path, deadline_ns)
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(path: str, deadline_ns: int) -> sqlite3.Connection:
    if identity_of(path) is None:
        _remove_leftovers(path)
    connection = _connected(path)
    try:
        is_ours = _is_ours(connection, path)
        is_current = is_ours and _prepare(connection, deadline_ns) and _is_of_this_boot(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if code_of(error) not in _BROKEN:
            raise
        _move_away(path)
        return _made(path, deadline_ns)
    except BaseException:
        connection.close()
        raise
    if is_current:
        return connection
    connection.close()
    if is_ours:
        # No process of this run of the machine has it open: it would have begun it anew.
        _remove(path)
        _remove_leftovers(path)
    return _made(path, deadline_ns)


def _connected(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Tell whether this is one of our files; False for an empty one.

    Raises:
        ConfigurationError: it is something else, or too new.
    """
    try:
        application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if not application_id and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
    except sqlite3.DatabaseError as error:
        if code_of(error) not in _BROKEN:
            raise
        application_id = version = 0
    if application_id != APPLICATION_ID:
        raise ConfigurationError(f"{path!r} is not a cache file of Credenza and is left alone; name another path")
    if version > FORMAT:
        raise ConfigurationError(
            f"the cache file {path!r} has format {version}, written by a later version of Credenza; this one knows up to "
            f"{FORMAT}: upgrade all processes that share it, or name another path"
        )
    return True


def _is_of_this_boot(connection: sqlite3.Connection) -> bool:
    """Tell whether the times in the file are those of the clock that runs now.

    Without that nothing in it may be believed. After a loss of power SQLite may not notice that parts were never
    written, since it is not told to wait for the disk.
    """
    row = connection.execute("SELECT boot, noted_ms FROM machine").fetchone()
    now_ms = boot.now_ms()
    if row is None or not boot.is_same_boot(row[0], boot.boot_id()) or row[1] > now_ms:
        return False
    if now_ms > row[1] + _NOTED_EVERY_MS:
        try:
            connection.execute("UPDATE machine SET noted_ms = ?", (now_ms,))
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
    return True


def _made(path: str, deadline_ns: int) -> sqlite3.Connection:
    connection = _connected(path)
    try:
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA synchronous = OFF")
        # Before the change to a write-ahead log, so that the header tells whose file it is from the beginning.
        insist(connection, "BEGIN IMMEDIATE", deadline_ns)
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO machine VALUES (?, ?)", (boot.boot_id(), boot.now_ms()))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
        _prepare(connection, deadline_ns)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, deadline_ns: int) -> bool:
    """Set what a connection does not remember. A killed process loses nothing by `synchronous=OFF`, only a lost machine."""
    insist(connection, "PRAGMA journal_mode = WAL", deadline_ns)
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise sqlite3.NotSupportedError("its file system does not let processes share memory")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    return True


def _move_away(path: str) -> None:
    taken = next((n for n in range(1, _MOST_PUT_ASIDE + 1) if not os.path.exists(f"{path}.corrupt-{n}")), None)
    if taken is None:
        _remove(path)
        where = "removed"
    else:
        where = f"moved to {path}.corrupt-{taken}"
        os.replace(path, f"{path}.corrupt-{taken}")
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}-wal", f"{path}.corrupt-{taken}-wal")
    _remove_leftovers(path)
    _logger.warning("the cache file %s is broken; it was %s, and an empty one takes its place", path, where)


def _remove_leftovers(path: str) -> None:
    _remove(f"{path}-wal")
    _remove(f"{path}-shm")


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
