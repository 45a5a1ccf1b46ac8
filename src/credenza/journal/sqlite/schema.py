"""What is in the file, and how it is told from other files."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Final

from ...errors import JournalError

APPLICATION_ID: Final = 0x4372654A  # "CreJ", in the file's header
FORMAT: Final = 1
_MAGIC: Final = b"SQLite format 3\x00"
_APPLICATION_ID_AT: Final = 68
BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# The place is the row's number: new writes are appended to one tree, in the order in which they are taken, and the key needs no
# index, as the process that has the journal open knows the place of each. Values come last, so that what is before them is read
# without them.
_SCHEMA: Final = """
CREATE TABLE about (name TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE pending (
    place INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    delay_ms INTEGER NOT NULL,
    key BLOB NOT NULL,
    error TEXT,
    value BLOB
);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    failures INTEGER NOT NULL,
    died_ms INTEGER NOT NULL,
    is_superseded INTEGER NOT NULL,
    is_asked_for INTEGER NOT NULL,
    key BLOB NOT NULL,
    error TEXT NOT NULL,
    value BLOB
);
CREATE INDEX dead_by_key ON dead (key)
"""


def code_of(error: BaseException) -> int:
    """Return SQLite's primary error code, 0 for what is no error of SQLite."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_ours(connection: sqlite3.Connection, path: str) -> bool:
    """Tell whether this is a journal; False for an empty file.

    Raises:
        JournalError: it is something else, or too new.
        sqlite3.DatabaseError: it is a journal that SQLite cannot read any more.
    """
    try:
        application_id: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if not application_id and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
    except sqlite3.DatabaseError as error:
        if code_of(error) not in BROKEN:
            raise
        if was_ours(path):
            raise
        application_id = version = 0
    if application_id != APPLICATION_ID:
        raise JournalError(f"{path!r} is not a journal of Credenza and is left alone; name another path")
    if version > FORMAT:
        raise JournalError(
            f"the journal {path!r} has format {version}, written by a later version of Credenza; this one knows up to "
            f"format {FORMAT}, and leaves it alone: upgrade, or name another path"
        )
    return True


def was_ours(path: str) -> bool:
    """Tell by its header whether a file that SQLite cannot read was a journal."""
    with open(path, "rb") as file:
        header = file.read(_APPLICATION_ID_AT + 4)
    return header[_APPLICATION_ID_AT:] == APPLICATION_ID.to_bytes(4, "big")


def make(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file, all or nothing, and say in its header whose it is."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO about VALUES ('identity', ?), ('reserved', 0)", (secrets.token_hex(16),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def about(connection: sqlite3.Connection, name: str) -> str | int:
    """Return one of the facts about the journal."""
    value: str | int = connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()[0]
    return value
