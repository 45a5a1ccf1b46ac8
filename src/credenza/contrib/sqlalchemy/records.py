"""What a record is in the database: its columns, what values call them, and which of them are the key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any  # Any: keys and columns of every type

from sqlalchemy import Column, ColumnElement, Identity, PrimaryKeyConstraint, Table, UniqueConstraint, inspect, tuple_
from sqlalchemy.orm import Mapper

from credenza import ConfigurationError, UsageError

from .options import KeyNames, Target

Parts = tuple[Any, ...]
"""A key, by column."""

_MOST_KEYS = 30_000  # SQLite takes 32,766 parameters in a statement, some drivers of PostgreSQL 32,767
_MOST_TUPLES = 1_000  # PostgreSQL makes a condition of each; thousands of them exhaust its stack


@dataclass(frozen=True, slots=True)
class Record:
    """One row of one table.

    Attributes:
        columns: what values call them, the keys of a `Table`'s columns or the attributes of a mapped class.
        key: the names of those that identify a record.
        required: the names of those that a new row cannot do without.
        entity: the mapped class, None for a `Table`.
    """

    table: Table
    columns: Mapping[str, Column[Any]]
    key: tuple[str, ...]
    required: frozenset[str]
    entity: type | None

    def parts_of(self, key: object) -> Parts:
        """Split a key into its columns' values.

        Raises:
            UsageError: it has another shape.
        """
        count = len(self.key)
        if count > 1 and not (isinstance(key, tuple) and len(key) == count):
            raise UsageError(f"a key of {self.table.name} is a tuple of {', '.join(self.key)}, got {key!r}")
        parts: Parts = (key,) if count == 1 else tuple(key) if isinstance(key, tuple) else ()
        if any(part is None for part in parts):
            raise UsageError(f"no part of a key is None, which equals nothing in a database, got {key!r}")
        return parts

    def among(self, keys: Sequence[Parts]) -> Iterator[ColumnElement[bool]]:
        """Yield conditions that hold for the rows of these keys, each with as many as a statement takes."""
        columns = [self.columns[name] for name in self.key]
        size = _MOST_KEYS if len(columns) == 1 else _MOST_TUPLES
        for start in range(0, len(keys), size):
            chunk = keys[start : start + size]
            if len(columns) > 1:
                yield tuple_(*columns).in_(chunk)
            elif len(chunk) > 1:
                yield columns[0].in_([part for (part,) in chunk])
            else:
                yield columns[0] == chunk[0][0]

    def row_of(self, key: object, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be written for a value, by the columns' own keys.

        Raises:
            UsageError: the value does not fit the table or the key.
        """
        parts = self.parts_of(key)
        if unknown := sorted(map(str, given.keys() - self.columns.keys())):
            raise UsageError(f"{self.table.name} has no {', '.join(unknown)}, which the value of {key!r} has")
        for name, part in zip(self.key, parts, strict=True):
            if given.get(name) is not None and given[name] != part:
                raise UsageError(f"the value of {key!r} has another {name} than its key; write it under its own key")
        if missing := sorted(self.required - given.keys()):
            raise UsageError(f"a row of {self.table.name} needs {', '.join(missing)}, which the value of {key!r} lacks")
        row = {
            self.columns[name].key: value
            for name, value in given.items()
            if _is_writable(self.columns[name]) and not (value is None and _is_counted(self.columns[name]))
        }
        return row | {self.columns[name].key: part for name, part in zip(self.key, parts, strict=True)}


def record_of(target: Target, key: KeyNames | None) -> Record:
    """Describe the records of a table or of a mapped class.

    Raises:
        ConfigurationError: they are not one row of one table each, or the key does not identify them.
    """
    table, columns = (target, dict(target.columns.items())) if isinstance(target, Table) else _mapped(target)
    names = _key_names(table, columns, key)
    required = frozenset(name for name, column in columns.items() if name not in names and _is_required(column))
    return Record(table, columns, names, required, None if isinstance(target, Table) else target)


def _mapped(target: type) -> tuple[Table, dict[str, Column[Any]]]:
    mapper: object = inspect(target, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise ConfigurationError(f"a table source is of a Table or a mapped class, got {target!r}")
    table = mapper.local_table
    if not isinstance(table, Table) or mapper.inherits is not None or mapper.polymorphic_on is not None:
        raise ConfigurationError(
            f"records of {target.__qualname__} are not plain rows of one table, as it takes part in inheritance or is mapped "
            "to a query; give the source a Table"
        )
    firsts = {attribute.key: attribute.columns[0] for attribute in mapper.column_attrs}
    return table, {name: first for name, first in firsts.items() if isinstance(first, Column) and first.table is table}


def _key_names(table: Table, columns: Mapping[str, Column[Any]], key: KeyNames | None) -> tuple[str, ...]:
    if key is None:
        wanted: Iterable[object] = table.primary_key.columns
    else:
        wanted = key if isinstance(key, (tuple, list)) else (key,)
    names = tuple(_name_of(each, table, columns) for each in wanted)
    if not names:
        raise ConfigurationError(f"{table.name} has no primary key; name unique columns with key=")
    if key is not None and {columns[name].key for name in names} not in _unique_sets(table):
        raise ConfigurationError(
            f"key= names the primary key or columns that are unique together, and {', '.join(names)} of {table.name} "
            "are not known to be"
        )
    return names


def _name_of(wanted: object, table: Table, columns: Mapping[str, Column[Any]]) -> str:
    """Return what values call a column that is named, or given itself, or as the attribute of a mapped class."""
    if isinstance(wanted, Column):
        found = [name for name, column in columns.items() if column is wanted]
    else:
        named = wanted if isinstance(wanted, str) else getattr(wanted, "key", None)
        found = [name for name in columns if name == named]
    if not found:
        raise ConfigurationError(f"{table.name} has no column {wanted!s} for a key; it has {', '.join(columns)}")
    return found[0]


def _unique_sets(table: Table) -> list[set[str]]:
    """Return the keys of the columns that identify a row, as far as the table's description says."""
    constraints = [each for each in table.constraints if isinstance(each, (PrimaryKeyConstraint, UniqueConstraint))]
    sets = [{column.key for column in each.columns} for each in constraints]
    whole = [index for index in table.indexes if index.unique and not any(_conditions(index.dialect_kwargs))]
    plain = [index for index in whole if all(isinstance(each, Column) for each in index.expressions)]
    return sets + [{column.key for column in index.columns} for index in plain]


def _conditions(options: Mapping[str, Any]) -> Iterator[bool]:
    return (name.endswith("_where") and value is not None for name, value in options.items())


def _is_writable(column: Column[Any]) -> bool:
    return column.computed is None and not (isinstance(column.identity, Identity) and column.identity.always)


def _is_required(column: Column[Any]) -> bool:
    filled = (column.nullable, column.default, column.server_default, column.identity, column.computed)
    return not _is_counted(column) and all(each is None or each is False for each in filled)


def _is_counted(column: Column[Any]) -> bool:
    """Tell whether the database numbers new rows in this column; an instance that has no number yet may say None."""
    return column is column.table.autoincrement_column
