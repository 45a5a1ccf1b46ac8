"""The source of truth of a run: rows that count what happens to them, in the transaction that does it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.kills.plan import SHARED_KEYS, Orders
from credenza import DELETED, NotFound
from credenza.source import WriteBatch

_TABLES: Final = (
    """CREATE TABLE rows (key INTEGER PRIMARY KEY, value TEXT, highest BIGINT NOT NULL, written BIGINT NOT NULL,
    backwards BIGINT NOT NULL, twice BIGINT NOT NULL)""",
    "CREATE TABLE places (journal TEXT PRIMARY KEY, place BIGINT NOT NULL)",
)
# A row keeps its highest number when it is deleted, so that an old value which comes back is noticed.
_STORE: Final = """
INSERT INTO rows VALUES (?, ?, ?, 1, 0, 0) ON CONFLICT (key) DO UPDATE SET
value = excluded.value, written = rows.written + 1,
backwards = rows.backwards + CASE WHEN excluded.highest < rows.highest THEN 1 ELSE 0 END,
twice = rows.twice + CASE WHEN excluded.highest = rows.highest THEN 1 ELSE 0 END,
highest = CASE WHEN excluded.highest > rows.highest THEN excluded.highest ELSE rows.highest END
"""
_DELETE: Final = "UPDATE rows SET value = NULL, written = written + 1 WHERE key = ?"
_LOAD: Final = "SELECT value FROM rows WHERE key = ?"
_FIND_PLACE: Final = "SELECT place FROM places WHERE journal = ?"
_KEEP_PLACE: Final = """
INSERT INTO places VALUES (?, ?) ON CONFLICT (journal) DO UPDATE SET place = excluded.place
"""
_COUNT: Final = "SELECT key, value FROM rows WHERE value IS NOT NULL"
_SUMS: Final = """
SELECT coalesce(sum(written), 0), coalesce(sum(CASE WHEN key < ? THEN backwards ELSE 0 END), 0), coalesce(sum(twice), 0)
FROM rows
"""
_BUSY_SECONDS: Final = 0.2


class Found(NamedTuple):
    """What the source holds, and what has happened to it.

    Attributes:
        numbers: of the rows that are there.
        strays: rows that hold what was written to another key.
        written, backwards, twice: sums over all rows; `backwards` leaves out keys that several threads write, whose numbers
            need not grow.
    """

    numbers: dict[int, int]
    strays: int
    written: int
    backwards: int
    twice: int


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


def create(database: Database) -> None:
    """Make the tables."""
    for statement in _TABLES:
        database.run(statement)


def value_of(key: int, number: int) -> str:
    """Return a value that tells where it belongs, now longer and now shorter."""
    return f"{key}:{number}:{'.' * (number % 97)}"


def number_in(key: int, value: str) -> int | None:
    """Return the number of a value, None if it belongs elsewhere."""
    of, number, filling = value.split(":")
    return int(number) if int(of) == key and len(filling) == int(number) % 97 else None


def look(database: Database, *, all_keys: int) -> Found:
    """Return what the source holds now."""
    numbers: dict[int, int] = {}
    strays = 0
    for key, value in database.run(_COUNT):
        number = number_in(key, value)
        if number is None:
            strays += 1
        else:
            numbers[key] = number
    ((written, backwards, twice),) = database.run(_SUMS, (all_keys - SHARED_KEYS,))
    return Found(numbers, strays, int(written), int(backwards), int(twice))


class Rows:
    """The rows as a source that write-behind delivers to. At random it dawdles, raises, and kills its own process.

    Args:
        database: where they are.
        orders: say what goes wrong, and when.
    """

    def __init__(self, database: Database, orders: Orders) -> None:
        self._database = database
        self._orders = orders
        self._random = random.Random(orders.seed)
        self._batches = 0
        self._is_away_for = 0

    def load(self, key: int) -> str:
        try:
            rows = self._database.run(_LOAD, (key,))
        except self._database.errors as error:
            self._database.close()
            raise ConnectionError("the source is away") from error
        if not rows or rows[0][0] is None:
            raise NotFound(f"there is no row {key!r}")
        return str(rows[0][0])

    def store(self, key: int, value: str) -> None:
        self.store_many({key: value})

    def delete(self, key: int) -> None:
        self.delete_many([key])

    def store_many(self, records: Mapping[int, str]) -> None:
        self._commit(lambda: self._database.run_many(_STORE, map(_row, records.items())))

    def delete_many(self, keys: Sequence[int]) -> None:
        self._commit(lambda: self._database.run_many(_DELETE, [(key,) for key in keys]))

    def _commit(self, work: Callable[[], object]) -> None:
        """Commit a batch, with all that may happen before and after it."""
        self._batches += 1
        trouble = self._trouble()
        with self._database.transaction():
            work()
            time.sleep(self._random.random() * self._orders.dawdles)
            if trouble == "refused":
                raise ConnectionError("the source is away for this batch")
            self._die_if(self._batches, "before commit")
        self._die_if(self._batches, "after commit")
        if trouble:
            raise ConnectionError("the source was away before it answered")

    def _trouble(self) -> str:
        """Draw what goes wrong with this batch: it is refused, or its answer is lost; then the source may stay away."""
        if self._is_away_for:
            self._is_away_for -= 1
            raise ConnectionError("the source is away")
        if self._random.random() >= self._orders.trouble:
            return ""
        self._is_away_for = self._random.choice((0, 0, 1, 2))
        return self._random.choice(("refused", "answer lost"))

    def _die_if(self, batches: int, step: str) -> None:
        if self._orders.dies_at == step and self._orders.dies_in <= batches:
            os.kill(os.getpid(), signal.SIGKILL)


class PlacedRows(Rows):
    """The rows as a source that leaves out what it has, by the last place that it keeps in each transaction."""

    keeps_place = True

    def apply(self, batch: WriteBatch[int, str]) -> None:
        self._commit(lambda: self._apply(batch))

    def _apply(self, batch: WriteBatch[int, str]) -> None:
        database = self._database
        database.lock(batch.journal)
        found = database.run(_FIND_PLACE, (batch.journal,))
        last = found[0][0] if found and self.keeps_place else 0
        changes = [change for change in batch.changes if change.place > last]
        if not changes:
            return
        database.run_many(_STORE, [_row((one.key, one.value)) for one in changes if one.value is not DELETED])
        database.run_many(_DELETE, [(one.key,) for one in changes if one.value is DELETED])
        database.run(_KEEP_PLACE, (batch.journal, max(change.place for change in changes)))


def _row(item: tuple[int, Any]) -> tuple[int, str, int]:
    key, value = item
    return key, value, int(value.split(":")[1])
