"""What a source does over a connection, whoever opened it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast  # Any: columns of every type

from sqlalchemy import Connection, Dialect, MetaData, delete

from credenza import DELETED, ConfigurationError, NotFound, WriteBatch

from .applied import Applied, applied_table
from .options import Options, Target
from .records import Parts, Record, record_of
from .upserts import Row, upsert
from .values import Values, values_of

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Write:
    """One row to write, or None for one to delete; checked."""

    parts: Parts
    row: Row | None
    place: int = 0


class Work(Generic[K, V]):
    """Reading and writing the records of one target, on connections whose transactions others begin and end."""

    def __init__(self, target: Target, dialect: Dialect, options: Options) -> None:
        self._record: Record = record_of(target, options.key)
        self._values: Values[V] = values_of(self._record, options)
        table = applied_table(MetaData(), name=options.applied, schema=self._record.table.schema)
        self.applied = Applied(table, dialect)
        if options.exactly_once and not dialect.insert_returning:
            raise ConfigurationError("exactly_once=True needs INSERT ... RETURNING, which SQLite has from 3.35")
        self.name = self._record.table.fullname

    # Reading ----------------------------------------------------------------------------------------------------------

    def load(self, connection: Connection, key: K) -> V:
        """Return a record; raises `NotFound` if there is none."""
        found = self.load_many(connection, (key,))
        if not found:
            raise NotFound(f"{self.name} has no record {key!r}").about(cast("Hashable", key))
        return found[key]

    def load_many(self, connection: Connection, keys: Iterable[K]) -> dict[K, V]:
        """Return the records that there are, each under the key that was asked for if the row's own equals it."""
        by_parts = {self._record.parts_of(key): key for key in keys}
        found = {}
        for condition in self._record.among(list(by_parts)):
            for parts, value in self._values.read(connection, condition):
                if parts in by_parts:  # a collation may call other texts equal; they would be entries of their own
                    found[by_parts[parts]] = value
        return found

    # Writing ----------------------------------------------------------------------------------------------------------

    def stores(self, values: Mapping[K, V]) -> list[Write]:
        """Check what is to be stored, before anything is."""
        return [self._store(key, value) for key, value in values.items()]

    def deletes(self, keys: Iterable[K]) -> list[Write]:
        """Check what is to be deleted."""
        return [Write(self._record.parts_of(key), None) for key in keys]

    def changes(self, batch: WriteBatch[K, V]) -> list[Write]:
        """Check what is to be applied."""
        return [
            Write(self._record.parts_of(change.key), None, change.place)
            if change.value is DELETED
            else self._store(change.key, change.value, change.place)
            for change in batch.changes
        ]

    def write(self, connection: Connection, writes: Sequence[Write]) -> None:
        """Write and delete rows, one for each key."""
        rows = {write.parts: write.row for write in writes if write.row is not None}
        upsert(connection, self._record, [rows[parts] for parts in _in_order(list(rows))])
        gone = _in_order([write.parts for write in writes if write.row is None])
        for condition in self._record.among(gone):
            connection.execute(delete(self._record.table).where(condition))

    def apply(self, connection: Connection, journal: str, writes: Sequence[Write]) -> int:
        """Write what is later than the journal's place; note the new one, and return it."""
        place = self.applied.claim(connection, journal)
        due = [write for write in writes if write.place > place]
        if due:
            self.write(connection, due)
            place = max(write.place for write in due)
            self.applied.advance(connection, journal, place)
        return place

    def _store(self, key: K, value: V, place: int = 0) -> Write:
        row = self._record.row_of(key, self._values.columns_of(value))
        return Write(self._record.parts_of(key), row, place)


def _in_order(keys: list[Parts]) -> list[Parts]:
    """Sort keys where they can be, so that two that write the same rows wait for each other and do not deadlock."""
    try:
        return sorted(keys)
    except TypeError:
        return keys
