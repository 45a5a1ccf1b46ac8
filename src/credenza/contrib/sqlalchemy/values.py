"""From rows to values and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast  # Any: columns of every type

from sqlalchemy import ColumnElement, Connection, Select, inspect, select
from sqlalchemy.orm import InstanceState, Session, lazyload, undefer

from credenza import ConfigurationError, UsageError

from .options import MakeValue, Options, TakeColumns
from .records import Parts, Record

V = TypeVar("V")


class Values(Protocol[V]):
    """How the values of one source are made of rows."""

    def read(self, connection: Connection, condition: ColumnElement[bool]) -> Iterator[tuple[Parts, V]]:
        """Yield the keys and values of the rows for which the condition holds, by one statement."""
        ...

    def columns_of(self, value: V) -> Mapping[str, Any]:
        """Return the columns that a value gives, by the names in `Record.columns`."""
        ...


class Rows:
    """Values that are made of columns alone.

    Args:
        names: which columns `make` gets.
    """

    def __init__(self, record: Record, names: Iterable[str], make: MakeValue[Any], take: TakeColumns[Any]) -> None:
        self._make, self._take = make, take
        self._names = list(names)
        every = [*self._names, *(name for name in record.key if name not in self._names)]
        self._key_at = [every.index(name) for name in record.key]
        self._select = select(*(record.columns[name].label(name) for name in every))

    def read(self, connection: Connection, condition: ColumnElement[bool]) -> Iterator[tuple[Parts, Any]]:
        for row in connection.execute(self._select.where(condition)):
            columns = dict(zip(self._names, row, strict=False))  # without key columns that nobody asked for
            value = self._make(columns)
            yield tuple(row[at] for at in self._key_at), value

    def columns_of(self, value: Any) -> Mapping[str, Any]:
        return self._take(value)


class Instances:
    """Instances of a mapped class, detached, with all columns loaded and no relationship."""

    def __init__(self, record: Record, entity: type) -> None:
        self._record, self._entity = record, entity
        self._select: Select[tuple[Any]] = select(entity).options(undefer("*"), lazyload("*"))

    def read(self, connection: Connection, condition: ColumnElement[bool]) -> Iterator[tuple[Parts, Any]]:
        with Session(connection) as session:
            found = session.scalars(self._select.where(condition)).all()
        for instance in found:
            yield tuple(getattr(instance, name) for name in self._record.key), instance

    def columns_of(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, self._entity):
            raise UsageError(f"values are instances of {self._entity.__qualname__}, got {type(value).__qualname__}")
        state = cast("InstanceState[Any]", inspect(value))
        if state.expired_attributes & self._record.columns.keys():
            raise UsageError(
                f"the instance of {self._entity.__qualname__} is expired; "
                "refresh it, or use a session with expire_on_commit=False"
            )
        return {name: each for name, each in state.dict.items() if name in self._record.columns}


def values_of(record: Record, options: Options) -> Values[Any]:
    """Return how values are made, as the arguments of a source say.

    Raises:
        ConfigurationError: they contradict each other or the table.
    """
    value, row, columns = options.value, options.row, options.columns
    if (row is None) != (columns is None) or (value is not None and row is not None):
        raise ConfigurationError(
            "row= and columns= belong together, one for reading and one for writing, and without value="
        )
    if row is not None and columns is not None:
        return Rows(record, record.columns, row, columns)
    if value is not None:
        return _dataclass_rows(record, value)
    if record.entity is not None:
        return Instances(record, record.entity)
    return Rows(record, record.columns, lambda columns: columns, _checked_mapping)


def _dataclass_rows(record: Record, kind: type) -> Rows:
    if not dataclasses.is_dataclass(kind) or inspect(kind, raiseerr=False) is not None:
        raise ConfigurationError(
            f"value= is a dataclass that is not mapped, got {kind!r}; use row= and columns= for other classes"
        )
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in names if name not in record.columns]:
        raise ConfigurationError(
            f"{record.table.name} has no {', '.join(unknown)}, which {kind.__qualname__} has; use row= and columns="
        )
    return Rows(record, names, lambda row: kind(**row), lambda value: _fields_of(kind, names, value))


def _fields_of(kind: type, names: list[str], value: object) -> dict[str, Any]:
    if not isinstance(value, kind):
        raise UsageError(f"values are instances of {kind.__qualname__}, got {type(value).__qualname__}")
    return {name: getattr(value, name) for name in names}


def _checked_mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"values are mappings of columns, got {type(value).__qualname__}")
    return value
