"""The source of truth of a run: rows whose version counts their writes."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

BUSY_SECONDS = 3.0
"""How long a writer waits for another one; less than half of a fence's life, with all the pauses that faults add."""


class Database(Protocol):
    """Rows by number. Each thread has a connection of its own.

    Attributes:
        refusals: what it raises where a write waits for too long; it may have been committed all the same.
    """

    refusals: tuple[type[Exception], ...]

    def create(self, rows: int) -> None:
        """Make the rows, all of version 1."""
        ...

    def version(self, row: int) -> int:
        """Return the version that is committed now."""
        ...

    def count_up(self, row: int, before_commit: Callable[[], object]) -> int:
        """Commit the next version and return it; call `before_commit` right before that, which may raise to roll back."""
        ...


class _PerThread:
    """A connection for each thread; `connect` makes one that is the caller's own."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.connect = connect
        self._local = threading.local()

    def __call__(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect()
        return connection


class Sqlite:
    """A file in WAL mode."""

    def __init__(self, path: str) -> None:
        self.refusals: tuple[type[Exception], ...] = (sqlite3.OperationalError,)
        self._connection = _PerThread(lambda: sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None))

    def create(self, rows: int) -> None:
        with contextlib.closing(self._connection.connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)")
            connection.executemany("INSERT INTO rows VALUES (?, 1)", [(row,) for row in range(rows)])

    def version(self, row: int) -> int:
        return int(self._connection().execute("SELECT version FROM rows WHERE id = ?", (row,)).fetchone()[0])

    def count_up(self, row: int, before_commit: Callable[[], object]) -> int:
        connection = self._connection()
        with self._transaction(connection):
            connection.execute("UPDATE rows SET version = version + 1 WHERE id = ?", (row,))
            version = connection.execute("SELECT version FROM rows WHERE id = ?", (row,)).fetchone()[0]
            before_commit()
        return int(version)

    @contextlib.contextmanager
    def _transaction(self, connection: Any) -> Iterator[None]:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class Postgres:
    """A PostgreSQL server, at its default isolation (READ COMMITTED)."""

    def __init__(self, url: str) -> None:
        import psycopg  # an optional dependency

        self.refusals: tuple[type[Exception], ...] = (psycopg.OperationalError,)
        self._connection = _PerThread(lambda: psycopg.connect(url, autocommit=True, prepare_threshold=2))

    def create(self, rows: int) -> None:
        with contextlib.closing(self._connection.connect()) as connection:
            connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)")
            connection.execute("INSERT INTO rows SELECT number, 1 FROM generate_series(0, %s) AS number", (rows - 1,))

    def version(self, row: int) -> int:
        return int(self._connection().execute("SELECT version FROM rows WHERE id = %s", (row,)).fetchone()[0])

    def count_up(self, row: int, before_commit: Callable[[], object]) -> int:
        connection = self._connection()
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{int(1000 * BUSY_SECONDS)}ms'")
            found = connection.execute(
                "UPDATE rows SET version = version + 1 WHERE id = %s RETURNING version", (row,)
            ).fetchone()
            before_commit()
        return int(found[0])


def open_database(url: str) -> Database:
    """Return the database at a path or a `postgresql://` URL."""
    return Postgres(url) if url.startswith("postgres") else Sqlite(url)


def dawdle(most_seconds: float) -> None:
    """Let a random while pass, so that faults hit every step of a write."""
    time.sleep(random.random() * most_seconds)
