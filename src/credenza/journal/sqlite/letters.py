"""Dead letters in the file: listed, asked for by operators, superseded, discarded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from ..base import DeadLetter

_LETTERS: Final = """
SELECT number, key, value, failures, error, died_ms, is_superseded FROM dead WHERE is_asked_for = 0 ORDER BY number
"""
_ASKED_FOR: Final = "SELECT number, key, value FROM dead WHERE is_asked_for = 1 AND is_superseded = 0 ORDER BY number"
_SUPERSEDE: Final = "UPDATE dead SET is_superseded = 1, is_asked_for = 0 WHERE key = ?"


def keys_in(connection: sqlite3.Connection) -> set[bytes]:
    """Return the keys of all dead letters."""
    return {key for (key,) in connection.execute("SELECT DISTINCT key FROM dead")}


def read(connection: sqlite3.Connection) -> list[DeadLetter]:
    """Read the dead letters, but those that were asked for."""
    return [
        DeadLetter(number, key, value, failures, error, died_ms, bool(is_superseded))
        for number, key, value, failures, error, died_ms, is_superseded in connection.execute(_LETTERS)
    ]


def ask_for(connection: sqlite3.Connection, numbers: Sequence[int] | None) -> int:
    """Mark dead letters, so that the process that has the journal open makes them pending; return how many."""
    statement = "UPDATE dead SET is_asked_for = 1 WHERE is_superseded = 0 AND is_asked_for = 0"
    return _each(connection, statement, numbers)


def discard(connection: sqlite3.Connection, numbers: Sequence[int] | None) -> int:
    """Delete dead letters that nobody has asked for; return how many."""
    return _each(connection, "DELETE FROM dead WHERE is_asked_for = 0", numbers)


def asked_for(connection: sqlite3.Connection) -> list[tuple[int, bytes, bytes | None]]:
    """Read number, key and value of the dead letters that somebody has asked for, oldest first."""
    return connection.execute(_ASKED_FOR).fetchall()


def supersede(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Note that there are later writes of these keys."""
    connection.executemany(_SUPERSEDE, [(key,) for key in keys])


def _each(connection: sqlite3.Connection, statement: str, numbers: Sequence[int] | None) -> int:
    if numbers is None:
        return connection.execute(statement).rowcount
    return sum(connection.execute(f"{statement} AND number = ?", (number,)).rowcount for number in set(numbers))
