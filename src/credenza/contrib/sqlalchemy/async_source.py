"""Tables and mapped classes as sources of coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from sqlalchemy import Table

from credenza import WriteBatch

from .engines import async_engine_of
from .options import Columns, Common, MakeValue, Options, TakeColumns, Target
from .work import Work

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

    AsyncBind = AsyncEngine | async_sessionmaker[Any]

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E")


class AsyncTableSource(Generic[K, V]):
    """The rows of a table as an `AsyncSource`, over an `AsyncEngine` or an `async_sessionmaker`; else see `TableSource`.

    A call that is cancelled leaves no transaction behind: it is rolled back, unless its commit was under way.
    """

    @overload
    def __init__(
        self: AsyncTableSource[Any, Columns],  # Any: keys, which nothing here tells the type of
        target: Table,
        bind: AsyncBind,
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: AsyncTableSource[Any, E],  # Any: as above
        target: type[E],
        bind: AsyncBind,
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: AsyncTableSource[Any, E],  # Any: as above
        target: Target,
        bind: AsyncBind,
        *,
        value: type[E],
        **options: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: AsyncTableSource[Any, E],  # Any: as above
        target: Target,
        bind: AsyncBind,
        *,
        row: MakeValue[E],
        columns: TakeColumns[E],
        **options: Unpack[Common],
    ) -> None: ...
    def __init__(
        self,
        target: Target,
        bind: AsyncBind,
        *,
        value: type[Any] | None = None,  # Any: V, here and below
        row: MakeValue[Any] | None = None,
        columns: TakeColumns[Any] | None = None,
        **options: Unpack[Common],
    ) -> None:
        self._engine = async_engine_of(bind, target)
        self._options = Options(value, row, columns, **options)
        self._work: Work[K, V] = Work(target, self._engine.dialect, self._options)

    def __repr__(self) -> str:
        return f"<AsyncTableSource {self._work.name}>"

    async def load(self, key: K, /) -> V:
        """See `TableSource.load`."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(self._work.load, key)

    async def load_many(self, keys: Iterable[K], /) -> dict[K, V]:
        """See `TableSource.load_many`."""
        keys = list(keys)
        if not keys:
            return {}
        async with self._engine.connect() as connection:
            return await connection.run_sync(self._work.load_many, keys)

    async def store(self, key: K, value: V, /) -> None:
        """See `TableSource.store`."""
        await self.store_many({key: value})

    async def store_many(self, values: Mapping[K, V], /) -> None:
        """See `TableSource.store_many`."""
        if writes := self._work.stores(values):
            async with self._engine.begin() as connection:
                await connection.run_sync(self._work.write, writes)

    async def delete(self, key: K, /) -> None:
        """See `TableSource.delete`."""
        await self.delete_many((key,))

    async def delete_many(self, keys: Iterable[K], /) -> None:
        """See `TableSource.delete_many`."""
        if writes := self._work.deletes(keys):
            async with self._engine.begin() as connection:
                await connection.run_sync(self._work.write, writes)

    @property
    def apply(self) -> Callable[[WriteBatch[K, V]], Coroutine[Any, Any, int]]:  # Any: what coroutines send and yield
        """See `TableSource.apply`."""
        if not self._options.exactly_once:
            raise AttributeError(f"{self!r} has no apply; make it with exactly_once=True")
        return self._apply

    async def _apply(self, batch: WriteBatch[K, V], /) -> int:
        writes = self._work.changes(batch)
        async with self._engine.begin() as connection:
            return await connection.run_sync(self._work.apply, batch.journal, writes)

    async def install(self) -> None:
        """See `TableSource.install`."""
        async with self._engine.begin() as connection:
            await connection.run_sync(self._work.applied.create)

    def ddl(self) -> str:
        """See `TableSource.ddl`."""
        return self._work.applied.ddl()
