"""Upserts of SQLite and PostgreSQL, which write `INSERT ... ON CONFLICT` the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any  # Any: columns of every type

from sqlalchemy import Column, ColumnElement, Connection, Dialect, Table, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.schema import ColumnDefault

from .records import Record

Row = Mapping[str, Any]

_PAGE = 30_000
"""Rows in a statement of one parameter each; SQLAlchemy takes fewer where that is more parameters than the driver can have."""


def insert(dialect: Dialect, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that can say what is to happen on a conflict."""
    return sqlite.insert(table) if dialect.name == "sqlite" else postgresql.insert(table)


def upsert(connection: Connection, record: Record, rows: Iterable[Row]) -> None:
    """Write rows over those that have the same key, by one statement for all that give the same columns.

    In a row that exists, what is not given stays as it is, as does the primary key; columns with `onupdate` get what that
    says, as a value that was loaded, changed and put back has the old one.
    """
    alike: dict[frozenset[str], list[Row]] = {}
    for row in rows:
        alike.setdefault(frozenset(row), []).append(row)
    dialect = connection.dialect
    for names, group in alike.items():
        statement: Any = _statement(dialect, record, names)  # Any: one of two classes with the same methods
        if dialect.insert_executemany_returning:
            statement = statement.returning(
                literal_column("1")
            )  # what makes SQLAlchemy write many rows by one statement
        connection.execute(statement, group, execution_options={"insertmanyvalues_page_size": _PAGE})


def _statement(dialect: Dialect, record: Record, names: frozenset[str]) -> sqlite.Insert | postgresql.Insert:
    table, key = record.table, [record.columns[name] for name in record.key]
    statement = insert(dialect, table)
    kept = {column.key for column in (*key, *table.primary_key.columns)}
    changed: dict[Column[Any], Any] = {}
    for column in table.columns:
        if isinstance(column.onupdate, ColumnDefault) and column.key not in kept:
            changed[column] = _updated(column.onupdate)
        elif column.key in names - kept and column.server_onupdate is None:
            changed[column] = statement.excluded[column.key]
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(index_elements=key, set_=changed)


def _updated(default: ColumnDefault) -> ColumnElement[Any] | Any:
    """Return what a column's `onupdate` says; SQLAlchemy itself asks it in plain updates only."""
    return default.arg(None) if default.is_callable else default.arg
