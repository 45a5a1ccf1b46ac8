"""`AsyncTableSource`: the same as coroutines.

The real driver needs greenlet; a stand-in for the engine checks the colour without it.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine
from tests.contrib.table_models import Base, Person, User, people, tables
from tests.support.waiting import run

from credenza import DELETED, Cache, Change, ConfigurationError, NotFound, UsageError, WriteBatch
from credenza.contrib.sqlalchemy import AsyncTableSource, TableSource, async_source


class StandInConnection:
    """An `AsyncConnection` as far as a source uses it; the statements run in the loop's thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run_sync(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(self._connection, *arguments)


class StandInEngine:
    """An `AsyncEngine` as far as a source uses it, over a plain engine."""

    def __init__(self, engine: Engine) -> None:
        self.sync_engine = engine
        self.dialect = engine.dialect

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[StandInConnection]:
        with self.sync_engine.connect() as connection:
            yield StandInConnection(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StandInConnection]:
        with self.sync_engine.begin() as connection:
            yield StandInConnection(connection)


@pytest.fixture
def stand_in(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(async_source, "async_engine_of", lambda bind, target: bind)
    tables.create_all(engine)
    Base.metadata.create_all(engine)
    return StandInEngine(engine)


async def check_source(bind: Any) -> None:
    """Use everything that an async source has."""
    source: AsyncTableSource[int, Any] = AsyncTableSource(people, bind, exactly_once=True)
    await source.install()
    await source.store(1, {"name": "Ann"})
    await source.store_many({2: {"name": "Bob"}, 3: {"name": "Cleo"}})
    assert (await source.load(1))["name"] == "Ann"
    assert sorted(await source.load_many([1, 2, 3, 4])) == [1, 2, 3]
    await source.delete(1)
    await source.delete_many([2])
    with pytest.raises(NotFound):
        await source.load(1)
    both: WriteBatch[int, Any] = WriteBatch("j", [Change(1, {"name": "Ann"}, 1), Change(3, DELETED, 2)])
    await source.apply(both)
    await source.store(1, {"name": "by hand"})
    await source.apply(both)
    assert {key: row["name"] for key, row in (await source.load_many([1, 2, 3])).items()} == {1: "by hand"}
    with pytest.raises(UsageError, match="another id"):
        await source.store(1, {"id": 2, "name": "Ann"})
    typed = AsyncTableSource(people, bind, value=Person)
    assert await typed.load(1) == Person(1, "by hand")
    users = AsyncTableSource(User, bind)
    await users.store(1, User(id=1, full_name="Ann"))
    assert (await users.load(1)).full_name == "Ann"


async def check_repository(bind: Any) -> None:
    """Serve an async repository."""
    people_of = Cache().repository(AsyncTableSource(people, bind, value=Person), key="person:{}")
    await people_of.aio.put(7, Person(7, "Gus"))
    assert await people_of.aio.get(7) == Person(7, "Gus")
    assert await people_of.aio.get_many([7, 8]) == {7: Person(7, "Gus")}
    await people_of.aio.delete(7)
    with pytest.raises(NotFound):
        await people_of.aio.get(7)


def test_every_method_is_a_coroutine_of_the_same_effect(stand_in: Any) -> None:
    """Loads, writes and `apply` do as those of `TableSource`."""
    run(check_source(stand_in))


def test_async_repository_uses_the_source(stand_in: Any) -> None:
    """`repository.aio` reads and writes through it."""
    run(check_repository(stand_in))


def test_names_and_signatures_are_those_of_the_plain_source() -> None:
    """Whoever knows one knows the other."""

    def public(kind: type) -> dict[str, Any]:
        return {name: each for name, each in vars(kind).items() if not name.startswith("_")}

    plain, coloured = public(TableSource), public(AsyncTableSource)
    assert plain.keys() == coloured.keys()
    for name in plain.keys() - {"apply"}:
        assert list(inspect.signature(plain[name]).parameters) == list(inspect.signature(coloured[name]).parameters)
        assert inspect.iscoroutinefunction(coloured[name]) == (name != "ddl")


def test_apply_is_a_coroutine_function_only_when_asked_for(stand_in: Any) -> None:
    """Write-behind tells the colour of `apply` without calling it."""
    assert not hasattr(AsyncTableSource(people, stand_in), "apply")
    assert inspect.iscoroutinefunction(AsyncTableSource(people, stand_in, exactly_once=True).apply)


def test_source_works_on_an_async_engine_and_its_session_factory(postgres_url: URL) -> None:
    """The real driver, by both ways of naming its engine."""
    pytest.importorskip("greenlet", reason="SQLAlchemy's asyncio needs greenlet")
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    async def check() -> None:
        engine = create_async_engine(postgres_url)
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
            await connection.run_sync(Base.metadata.create_all)
        await check_source(engine)
        await check_repository(async_sessionmaker(engine))
        with pytest.raises(ConfigurationError, match="an AsyncEngine or an async_sessionmaker"):
            AsyncTableSource(people, engine.sync_engine)  # type: ignore[call-overload]
        await engine.dispose()

    run(check())
