"""A table under write-behind: batches are upserts, each write has its effect once, and what the table refuses harms no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Column, Engine, Integer, MetaData, String, Table, event, select

from credenza import Cache, NotFound, Repository, WriteBatch, WriteBehind
from credenza.contrib.sqlalchemy import TableSource
from credenza.testing import DictJournal

USERS = Table(
    "users",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(80), CheckConstraint("name <> 'poison'", name="no_poison"), nullable=False),
)

Open = Callable[..., Repository[int, dict[str, Any]]]


def rows_of(engine: Engine) -> dict[int, str]:
    """Return what the table holds."""
    with engine.connect() as connection:
        return {row.id: row.name for row in connection.execute(select(USERS))}


@pytest.fixture(params=[False, True], ids=["at least once", "exactly once"])
def source(request: pytest.FixtureRequest, engine: Engine) -> TableSource[int, dict[str, Any]]:
    """The table as a source."""
    USERS.metadata.create_all(engine)
    made: TableSource[int, dict[str, Any]] = TableSource(USERS, engine, exactly_once=request.param)
    if request.param:
        made.install()
    return made


def test_writes_reach_the_table_in_few_statements(
    source: TableSource[int, dict[str, Any]], engine: Engine, statements: list[str]
) -> None:
    """A thousand puts of ten records are some statements, and the last of each record is there."""
    with Cache(ttl=60) as cache:
        users = cache.repository(source, strategy=WriteBehind(DictJournal(), max_delay=60), key="user:{}")
        statements.clear()
        for number in range(1_000):
            users.put(number % 10, {"name": f"name {number}"})
        users.delete(3)
        assert users.flush(timeout=10)
        assert len(statements) < 30
        cache.clear()
        assert users.get(4)["name"] == "name 994"  # type: ignore[index]  # it is there
        with pytest.raises(NotFound):
            users.get(3)
    assert rows_of(engine) == {key: f"name {990 + key}" for key in range(10) if key != 3}


def test_row_that_the_table_refuses_harms_no_other(source: TableSource[int, dict[str, Any]], engine: Engine) -> None:
    """A constraint is about that row: it becomes a dead letter, the others of its batch are committed."""
    with Cache(ttl=60) as cache:
        strategy = WriteBehind(DictJournal(), max_delay=60, max_failures=2, backoff=0.001)
        users = cache.repository(source, strategy=strategy, key="user:{}")
        for number in range(20):
            users.put(number, {"name": "poison" if number == 7 else "value"})
        assert users.flush(timeout=15)
        (letter,) = users.journal.dead()
        assert letter.error == "IntegrityError"
        with pytest.raises(NotFound):
            users.get(7)
    assert rows_of(engine) == {key: "value" for key in range(20) if key != 7}


def test_batch_whose_commit_was_not_told_has_its_effect_once(engine: Engine) -> None:
    """1. A batch is committed. 2. The process is killed before the journal knows. 3. The next one delivers it again.

    Meanwhile somebody else has changed a row: the second coming must not take that back.
    """
    USERS.metadata.create_all(engine)
    journal = DictJournal()

    class Forgetful(TableSource[int, dict[str, Any]]):
        def apply(self, batch: WriteBatch[int, dict[str, Any]], /) -> int:  # type: ignore[override]  # an attribute there
            if batch.changes:
                source.apply(batch)
            raise ConnectionResetError("committed, but nobody was told")

    source: TableSource[int, dict[str, Any]] = TableSource(USERS, engine, exactly_once=True)
    source.install()
    forgetful = Forgetful(USERS, engine)
    with Cache(ttl=60) as cache:
        strategy = WriteBehind(journal, max_delay=0, close_timeout=0.2)
        cache.repository(forgetful, strategy=strategy, key="user:{}").put(1, {"name": "ours"})
        assert _until(lambda: rows_of(engine) == {1: "ours"})
    with engine.begin() as connection:
        connection.execute(USERS.update().values(name="theirs"))
    with Cache(ttl=60) as cache:
        users = cache.repository(source, strategy=WriteBehind(journal.reopen()), key="user:{}")
        users.put(2, {"name": "later"})
        assert users.flush(timeout=10)
    assert rows_of(engine) == {1: "theirs", 2: "later"}


def _until(condition: Callable[[], bool]) -> bool:
    from tests.support.waiting import wait_until

    wait_until(condition, "the table to hold it")
    return True


def test_database_that_is_away_loses_nothing(engine: Engine, source: TableSource[int, dict[str, Any]]) -> None:
    """Driver errors about connections count for no write; what came meanwhile is delivered afterwards."""
    is_away = True

    def refuse(*about: Any) -> None:
        if is_away:
            raise ConnectionRefusedError("no database")

    event.listen(engine, "engine_connect", refuse)
    with Cache(ttl=60) as cache:
        strategy = WriteBehind(DictJournal(), max_delay=0, max_failures=1, backoff=0.001, max_backoff=0.01)
        users = cache.repository(source, strategy=strategy, key="user:{}")
        for number in range(10):
            users.put(number, {"name": "value"})
        assert not users.flush(timeout=0.2)
        is_away = False
        assert users.flush(timeout=10)
        assert users.journal.dead() == []
    assert rows_of(engine) == dict.fromkeys(range(10), "value")
