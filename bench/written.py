"""The tables that puts are compared over: each call is one transaction, each thread has a connection of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from credenza import NotFound

_BUSY_SECONDS = 30.0


class WrittenTable:
    """A source over a table of a database.

    Args:
        takes_turns: one thread at a time writes, so that none waits in the database.

    Attributes:
        marker: stands for a parameter.
        written: how many rows it was asked to write.
    """

    marker = "?"

    def __init__(self, *, takes_turns: bool = False) -> None:
        self.written = 0
        self._turns: Any = threading.Lock() if takes_turns else contextlib.nullcontext()
        self._local = threading.local()
        self._lock = threading.Lock()  # guards the two below
        self._all: list[Any] = []
        insert = "INSERT INTO records VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        self._store = insert.replace("?", self.marker)

    def connect(self) -> Any:
        """Return the connection of this thread."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open()
            with self._lock:
                self._all.append(connection)
        return connection

    def create(self) -> None:
        """Make the table, empty."""
        self.connect().execute("DROP TABLE IF EXISTS records")
        self.connect().execute("CREATE TABLE records (key INTEGER PRIMARY KEY, value TEXT NOT NULL)")

    def count(self) -> int:
        """Return how many rows there are."""
        with contextlib.closing(self._open()) as connection:
            return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    def load(self, key: int) -> str:
        row = self.connect().execute(f"SELECT value FROM records WHERE key = {key:d}").fetchone()
        if row is None:
            raise NotFound(f"there is no record {key!r}")
        return str(row[0])

    def store(self, key: int, value: str) -> None:
        connection = self.connect()
        with self._turns:
            connection.execute(self._store, (key, value))
        self._count(1)

    def delete(self, key: int) -> None:
        self.connect().execute(f"DELETE FROM records WHERE key = {key:d}")

    def store_many(self, records: Mapping[int, str]) -> None:
        self._write(self.connect(), list(records.items()))
        self._count(len(records))

    def _open(self) -> Any:
        raise NotImplementedError

    def _write(self, connection: Any, rows: Sequence[tuple[int, str]]) -> None:
        """Write rows in one transaction."""
        raise NotImplementedError

    def _count(self, rows: int) -> None:
        with self._lock:
            self.written += rows


class SqliteTable(WrittenTable):
    """In a file in WAL mode, each commit fsynced."""

    def __init__(self, path: Path, *, takes_turns: bool = False) -> None:
        super().__init__(takes_turns=takes_turns)
        self._path = path

    def _open(self) -> Any:
        # Threads close no connection of their own: `close` does, for all of them.
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _write(self, connection: Any, rows: Sequence[tuple[int, str]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(self._store, rows)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


class PostgresTable(WrittenTable):
    """In a server at its defaults."""

    marker = "%s"

    def __init__(self, url: str, *, takes_turns: bool = False) -> None:
        super().__init__(takes_turns=takes_turns)
        self._url = url

    def _open(self) -> Any:
        import psycopg

        return psycopg.connect(self._url, autocommit=True, prepare_threshold=1)

    def _write(self, connection: Any, rows: Sequence[tuple[int, str]]) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(self._store, rows)
