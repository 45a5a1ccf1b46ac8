"""The files of a journal: opened, put aside when they are broken, and watched for whoever removes them."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import sqlite3
import time
from typing import Final

from ...errors import ConfigurationError, JournalError
from . import schema

_logger: Final = logging.getLogger("credenza")

_SUFFIXES: Final = ("", "-wal", "-shm")
_WAL_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_WAL_LIMIT_BYTES: Final = 1 << 24
_GLANCE_NS: Final = 10_000_000
BUSY_SECONDS: Final = 10.0


def place_of(path: str | os.PathLike[str]) -> str:
    """Return the path in full, so that whoever means the same file says so, and goes on meaning it.

    Raises:
        ConfigurationError: no file can be there.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or name in {"", ":memory:"} or "\x00" in name or os.path.isdir(name):
        raise ConfigurationError(f"a journal needs the path of a file, got {path!r}")
    return os.path.realpath(name)


def open_journal(path: str, *, durability: str) -> sqlite3.Connection:
    """Open the file that a process owns, making it if there is none; a broken one is put aside first.

    Raises:
        JournalError: the file is no journal, or of a later format, and is left as it is; or it cannot be opened.
    """
    try:
        try:
            return _opened(path, durability)
        except sqlite3.DatabaseError as error:
            if schema.code_of(error) not in schema.BROKEN:
                raise
            _put_aside(path, error)
            return _opened(path, durability)
    except (sqlite3.Error, OSError) as error:
        raise JournalError(
            f"cannot use the journal {path!r}: {error}; its directory must exist and be writable"
        ) from error


def open_reader(path: str) -> sqlite3.Connection:
    """Open a connection that only reads, beside the one that writes."""
    reader = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    reader.execute("PRAGMA query_only = 1")
    reader.execute("SELECT count(*) FROM about").fetchone()  # opens the log as well, as long as that is there
    return reader


def kept_aside(path: str) -> tuple[str, ...]:
    """Return the broken files that were put aside, oldest first."""
    found = [name for name in glob.glob(f"{glob.escape(path)}.broken-*") if name.rpartition("-")[2].isdecimal()]
    return tuple(sorted(found, key=lambda name: int(name.rpartition("-")[2])))


def size_bytes(path: str) -> int:
    """Return what the journal takes on disk."""
    return sum(_size(f"{path}{suffix}") for suffix in ("", "-wal"))


def _opened(path: str, durability: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        for suffix in _SUFFIXES[1:]:  # left over from a file that is gone, they would be taken for those of this one
            with contextlib.suppress(FileNotFoundError):
                os.remove(f"{path}{suffix}")
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if schema.is_ours(connection, path):
            _check(connection)
        else:
            schema.make(connection)
            _sync_directory(path)
        _prepare(connection, durability)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Raise if SQLite finds the file broken."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _prepare(connection: sqlite3.Connection, durability: str) -> None:
    """Set what a connection does not remember."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise sqlite3.NotSupportedError("its file system does not let processes share memory")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, after it has told those who wait
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    if durability == "disk":
        connection.execute("PRAGMA fullfsync = 1")
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
    set_durability(connection, durability)


def set_durability(connection: sqlite3.Connection, durability: str) -> None:
    """Say whether each commit waits for the disk. Where it does not, the file still survives the loss of the machine."""
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'disk' else 'NORMAL'}")


def _put_aside(path: str, error: sqlite3.DatabaseError) -> None:
    number = 1
    while any(os.path.lexists(f"{path}.broken-{number}{suffix}") for suffix in _SUFFIXES):
        number += 1
    for suffix in reversed(_SUFFIXES):  # the file goes last: while it is there, it is a broken journal and nothing else
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.broken-{number}{suffix}")
    _logger.error(
        "the journal %s is broken (%s); it was moved to %s.broken-%d with what it held, and an empty one takes its place",
        path,
        error,
        path,
        number,
    )


def _sync_directory(path: str) -> None:
    """See to it that a new file's name is on the disk as well as the file."""
    if os.name == "posix":
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


class Watch:
    """Notices that somebody removed, replaced or shortened the files of an open journal.

    A process can go on writing to a removed file, and read back what it wrote; nobody else ever will.

    Args:
        path: the journal.
        lock_path: its lock file, without which another process would take the journal for free.
    """

    def __init__(self, path: str, lock_path: str) -> None:
        self._path = path
        self._others = (f"{path}-wal", lock_path)
        self._file = os.stat(path)
        self._identities = [os.stat(name) for name in self._others]
        self._size = self._file.st_size
        self._checked_ns = 0

    def trouble(self) -> str | None:
        """Return what happened to the files, None if all is well. The lesser ones are looked at now and then."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return f"{self._path} was removed"
        if not os.path.samestat(now, self._file):
            return f"{self._path} was replaced by another file"
        if now.st_size < self._size:
            return f"{self._path} was cut short"
        now_ns = time.monotonic_ns()
        if now_ns - self._checked_ns < _GLANCE_NS:
            return None
        self._checked_ns = now_ns
        return self._trouble_beside()

    def note_file(self) -> None:
        """Note how long the file has become by the journal's own doing."""
        self._size = os.stat(self._path).st_size

    def allow_shorter(self, file_bytes: int) -> None:
        """Note that the file may become as short as this when the log is next carried over to it, by whomever."""
        self._size = min(self._size, file_bytes)

    def _trouble_beside(self) -> str | None:
        for name, before in zip(self._others, self._identities, strict=True):
            try:
                if not os.path.samestat(os.stat(name), before):
                    return f"{name} was replaced by another file"
            except FileNotFoundError:
                return f"{name} was removed"
        with open(self._others[0], "rb", buffering=0) as log:
            if log.read(4) in {*_WAL_MAGIC, b""}:  # it is empty after another program's orderly checkpoint
                return None
        return f"{self._others[0]} was cut short"
