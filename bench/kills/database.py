"""The databases that the rows of a run are in."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

_BUSY_SECONDS: Final = 0.2


class Database:
    """A connection for each thread, made when it is needed; one that has failed is replaced.

    Attributes:
        marker: stands for a parameter.
        errors: what it raises when it is away.
    """

    marker = "?"
    errors: tuple[type[Exception], ...] = (sqlite3.OperationalError,)

    def __init__(self) -> None:
        self._local = threading.local()

    def connect(self) -> Any:
        """Return a new connection."""
        raise NotImplementedError

    def run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement by itself and return its rows."""
        cursor = self._connection().execute(self._own(statement), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def run_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row, within a transaction."""
        raise NotImplementedError

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, or roll back."""
        raise NotImplementedError
        yield

    def lock(self, journal: str) -> None:
        """Within a transaction: let no other one look at the place of this journal meanwhile."""

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """The database takes no writes of others as long as the block lasts; this connection still sees what it holds."""
        raise NotImplementedError
        yield

    def close(self) -> None:
        """Close the connection of this thread; the next use makes another one."""
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect()
        return connection

    def _own(self, statement: str) -> str:
        return statement.replace("?", self.marker)


class Sqlite(Database):
    """A file in WAL mode, each commit fsynced."""

    def __init__(self, path: str, *, patience: float = _BUSY_SECONDS) -> None:
        super().__init__()
        self._path = path
        self._patience = patience

    def connect(self) -> Any:
        connection = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def run_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection().executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        with self.transaction():
            yield


class Postgres(Database):
    """A PostgreSQL server, at its defaults."""

    marker = "%s"

    def __init__(self, url: str) -> None:
        import psycopg

        super().__init__()
        self._url = url
        self.errors = (psycopg.OperationalError,)

    def connect(self) -> Any:
        import psycopg

        options = f"-c lock_timeout={int(1000 * _BUSY_SECONDS)}"
        return psycopg.connect(self._url, autocommit=True, prepare_threshold=2, options=options)

    def run_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection().cursor() as cursor:
            cursor.executemany(self._own(statement), rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self._connection().transaction():
                yield
        except self.errors:
            self.close()
            raise

    def lock(self, journal: str) -> None:
        self.run("SELECT pg_advisory_xact_lock(hashtext(?))", (journal,))

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        with self.transaction():
            self.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ? AND pid <> pg_backend_pid()",
                (self._connection().info.dbname,),
            )
            self.run("LOCK TABLE rows IN EXCLUSIVE MODE")
            yield


def open_database(url: str) -> Database:
    """Return the database at a path or a `postgresql://` URL."""
    return Postgres(url) if url.startswith("postgres") else Sqlite(url)
