"""The source of truth of a run: rows that count what happens to them, in the transaction that does it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.kills.database import Database
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

    def apply(self, batch: WriteBatch[int, str]) -> int:
        place = 0

        def work() -> None:
            nonlocal place
            place = self._apply(batch)

        self._commit(work)
        return place

    def _apply(self, batch: WriteBatch[int, str]) -> int:
        """Write what is new, and return the place up to which everything is applied then."""
        database = self._database
        database.lock(batch.journal)  # whoever asks for the place waits for a commit under way
        found = database.run(_FIND_PLACE, (batch.journal,))
        last = int(found[0][0]) if found and self.keeps_place else 0
        changes = [change for change in batch.changes if change.place > last]
        if not changes:
            return last
        database.run_many(_STORE, [_row((one.key, one.value)) for one in changes if one.value is not DELETED])
        database.run_many(_DELETE, [(one.key,) for one in changes if one.value is DELETED])
        last = max(change.place for change in changes)
        database.run(_KEEP_PLACE, (batch.journal, last))
        return last


def _row(item: tuple[int, Any]) -> tuple[int, str, int]:
    key, value = item
    return key, value, int(value.split(":")[1])
