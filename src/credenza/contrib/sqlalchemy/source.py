"""Tables and mapped classes as sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, Unpack, overload

from sqlalchemy import Table

from credenza import WriteBatch

from .engines import Bind, engine_of
from .options import Columns, Common, MakeValue, Options, TakeColumns, Target
from .work import Work

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E")


class TableSource(Generic[K, V]):
    """The rows of a table as a `Source`, upserted on SQLite and PostgreSQL. Thread-safe; blocks on the database.

    Each call takes a connection of the engine's pool and has a short transaction of its own: a load sees whatever was committed
    before, a bulk write is done whole or not at all. What the database raises is raised as it is.

    Values are dicts of columns for a `Table`, and detached instances with all columns and no relationship for a mapped class; or
    what `value`, or `row` and `columns`, say. A value may leave out columns that have a default or may be NULL: they
    stay as they are in a row that exists. Computed and always generated columns are never written, and those with `onupdate`
    in a row that exists get what that says. Loads find a row only
    under a key that equals its own, whatever else the database's collation calls equal.

    Args:
        target: a `Table`, or a mapped class that is one table without inheritance.
        bind: an `Engine`, or a `sessionmaker` (or `scoped_session`) whose engine is then used, without its sessions.
        value: a dataclass whose fields are names of columns, as the type of the values. Only these columns are read.
        row: makes a value of a dict of all columns.
        columns: makes a mapping of columns of a value; goes with `row`.
        options: `key`, the name of a unique column, or a tuple of names, or these attributes or columns themselves; without
            it the primary key. A key of several columns is a tuple. `exactly_once=True`, to offer `apply`, by which
            write-behind applies each write once, also after a crash; the table for that is made by `install` or a
            migration, and `applied` is its name, in the schema of the target.

    Raises:
        ConfigurationError: the target, the engine or the key cannot be used, or the arguments contradict each other.

    Examples:
        >>> from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine
        >>> users = Table("users", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))
        >>> engine = create_engine("sqlite://")
        >>> users.create(engine)
        >>> source = TableSource(users, engine)
        >>> source.store(1, {"name": "Ann"})
        >>> source.load(1)
        {'id': 1, 'name': 'Ann'}
        >>> engine.dispose()
    """

    @overload
    def __init__(
        self: TableSource[Any, Columns],  # Any: keys, which nothing here tells the type of
        target: Table,
        bind: Bind,
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: TableSource[Any, E],  # Any: as above
        target: type[E],
        bind: Bind,
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: TableSource[Any, E],  # Any: as above
        target: Target,
        bind: Bind,
        *,
        value: type[E],
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: TableSource[Any, E],  # Any: as above
        target: Target,
        bind: Bind,
        *,
        row: MakeValue[E],
        columns: TakeColumns[E],
        **options: Unpack[Common],
    ) -> None: ...
    def __init__(
        self,
        target: Target,
        bind: Bind,
        *,
        value: type[Any] | None = None,  # Any: V, here and below
        row: MakeValue[Any] | None = None,
        columns: TakeColumns[Any] | None = None,
        **options: Unpack[Common],
    ) -> None:
        self._engine = engine_of(bind, target)
        self._options = Options(value, row, columns, **options)
        self._work: Work[K, V] = Work(target, self._engine.dialect, self._options)

    def __repr__(self) -> str:
        return f"<TableSource {self._work.name}>"

    def load(self, key: K, /) -> V:
        """Return a record, read by one query.

        Raises:
            NotFound: there is none.
            UsageError: the key is not one of this table.
        """
        with self._engine.connect() as connection:
            return self._work.load(connection, key)

    def load_many(self, keys: Iterable[K], /) -> dict[K, V]:
        """Return the records that there are, read by one query for every 30,000 keys, 1,000 composite ones."""
        keys = list(keys)
        if not keys:
            return {}
        with self._engine.connect() as connection:
            return self._work.load_many(connection, keys)

    def store(self, key: K, value: V, /) -> None:
        """Write a record over what is there.

        Raises:
            UsageError: the value does not fit the table, or has another key.
        """
        self.store_many({key: value})

    def store_many(self, values: Mapping[K, V], /) -> None:
        """Write records by one upsert, or one for each set of columns that they give, all or none. May be repeated.

        Raises:
            UsageError: see `store`; then nothing was written.
        """
        if writes := self._work.stores(values):
            with self._engine.begin() as connection:
                self._work.write(connection, writes)

    def delete(self, key: K, /) -> None:
        """Delete a record, if it is there."""
        self.delete_many((key,))

    def delete_many(self, keys: Iterable[K], /) -> None:
        """Delete the records that there are, by as many statements as `load_many` takes, all or none. May be repeated."""
        if writes := self._work.deletes(keys):
            with self._engine.begin() as connection:
                self._work.write(connection, writes)

    @property
    def apply(self) -> Callable[[WriteBatch[K, V]], int]:
        """Apply the changes of a batch that are later than what was applied of its journal, all in one transaction.

        It returns the place up to which the journal is applied then; a batch without changes only asks for that.

        Only with `exactly_once=True`. Two that apply one journal wait for each other, whatever processes they are in.

        Raises:
            ConfigurationError: the table for it is missing.
            UsageError: see `store`; then nothing was written.
        """
        if not self._options.exactly_once:
            raise AttributeError(f"{self!r} has no apply; make it with exactly_once=True")
        return self._apply

    def _apply(self, batch: WriteBatch[K, V], /) -> int:
        writes = self._work.changes(batch)
        with self._engine.begin() as connection:
            return self._work.apply(connection, batch.journal, writes)

    def install(self) -> None:
        """Make the table that `exactly_once=True` needs, unless it is there."""
        with self._engine.begin() as connection:
            self._work.applied.create(connection)

    def ddl(self) -> str:
        """Return the statement that makes the table which `exactly_once=True` needs, for a migration."""
        return self._work.applied.ddl()
