"""The file that has the log: which one it is, how far it has come, and what its errors mean."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import urllib.parse
from collections.abc import Generator
from typing import Final, NamedTuple

from ...errors import ConfigurationError, FeedError
from .migration import NEEDED

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class File(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int


class Place(NamedTuple):
    """How far a file has come.

    Attributes:
        identity: which file it is, and the epoch of its log.
        number: of the last change.
        schema: the version of its schema.
    """

    identity: tuple[File, str]
    number: int
    schema: int


def file_at(path: str) -> File:
    """Return what the path leads to; raises `OSError` if it leads nowhere."""
    found = os.stat(path)
    return File(found.st_dev, found.st_ino)


def connected(path: str, timeout: float) -> sqlite3.Connection:
    """Return a connection to the file, which must be there."""
    uri = f"file:{urllib.parse.quote(path)}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


def place_in(connection: sqlite3.Connection, identity: tuple[File, str]) -> Place:
    """Return how far the file has come."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'credenza_changes'").fetchone()
    (schema,) = connection.execute("PRAGMA schema_version").fetchone()
    return Place(identity, row[0] if row else 0, schema)


def tables_of(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the logged columns of the tables whose triggers are there."""
    triggers = {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    }
    return {
        name: json.loads(columns)
        for name, columns in connection.execute("SELECT name, columns FROM credenza_tables").fetchall()
        if triggers.issuperset(f"credenza_{name}_{event}" for event in NEEDED)
    }


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else holds a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


@contextlib.contextmanager
def translated() -> Generator[None, None, None]:
    """Turn the errors of SQLite into ours."""
    try:
        yield
    except sqlite3.Error as error:
        if "no such table" in str(error):
            raise ConfigurationError("the file has no change log; run credenza.feeds.sqlite.install()") from None
        raise FeedError(
            f"the change log cannot be read: {getattr(error, 'sqlite_errorname', type(error).__name__)}"
        ) from None
    except OSError as error:
        raise FeedError(f"the file cannot be opened: {type(error).__name__}") from None
