"""Commits in two phases, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, event, make_url, text, update
from sqlalchemy.exc import DBAPIError
from tests.contrib.watched import DEFERRABLE, KEYS, Database, Reader, User, postgres, rename
from tests.support.processes import World
from tests.support.servers import running_postgres

from credenza import TierError
from credenza.contrib.sqlalchemy import watch
from credenza.tiers.base import Fence


@pytest.fixture(scope="module")
def preparing_server() -> Iterator[URL]:
    """A server that can prepare transactions: the one in CREDENZA_TEST_POSTGRES, else one that is started here."""
    with running_postgres({"max_prepared_transactions": 10}) as url:
        yield make_url(url).set(drivername="postgresql+psycopg")


@pytest.fixture
def twophase(preparing_server: URL) -> Iterator[Database]:
    """A server that can prepare transactions."""
    with postgres(preparing_server) as database:
        with database.engine.connect() as connection:
            if not int(connection.scalar(text("SHOW max_prepared_transactions")) or 0):
                pytest.skip("the server prepares no transactions")
        database.sessions.configure(twophase=True)
        yield database


def test_two_phase_commit_is_fenced_before_it_is_prepared(twophase: Database) -> None:
    """From then on it cannot be refused; the fence stands until COMMIT PREPARED is over."""
    reader, seen = Reader(twophase), []

    def look(*_: Any) -> None:
        reader.name()
        seen.append("user:1" in reader.cache)

    with watch(twophase.sessions, reader.cache, keys=KEYS), twophase.sessions() as session:
        reader.name()
        rename(session, "Anna")
        session.flush()
        event.listen(twophase.engine, "prepare_twophase", look)
        event.listen(twophase.engine, "commit_twophase", look)
        look()
        session.commit()
        assert seen == [True, False, False]
        assert (reader.name(), "user:1" in reader.cache) == ("Anna", True)


@pytest.mark.parametrize("is_prepared", [False, True])
def test_two_phase_rollback_leaves_no_fence(twophase: Database, is_prepared: bool) -> None:
    """Before it is prepared the cache is left alone; afterwards the keys are invalid, needlessly."""
    reader = Reader(twophase)
    reader.name()
    with watch(twophase.sessions, reader.cache, keys=KEYS), twophase.sessions() as session:
        rename(session, "Anna")
        session.flush()
        if is_prepared:
            session.prepare()
        session.rollback()
    assert ("user:1" in reader.cache) is not is_prepared
    assert (reader.name(), "user:1" in reader.cache) == ("Ann", True)


def test_two_phase_commit_that_fails_leaves_no_fence(twophase: Database) -> None:
    """What nobody could prepare is raised, and the keys are open again."""
    reader = Reader(twophase)
    with watch(twophase.sessions, reader.cache, keys=KEYS), twophase.sessions() as session:
        session.execute(text(DEFERRABLE))
        session.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        session.get_one(User, 1).team_id = 77
        with pytest.raises(DBAPIError):
            session.commit()
    assert (reader.name(), "user:1" in reader.cache) == ("Ann", True)


def test_connection_that_commits_in_two_phases_is_fenced_where_it_is_named(twophase: Database) -> None:
    """Prepared or not."""
    reader = Reader(twophase)
    with watch(twophase.sessions, reader.cache, keys=KEYS) as made:
        for prepares in (False, True):
            reader.put("user:1")
            with twophase.engine.connect() as connection:
                transaction = connection.begin_twophase()
                made.stale(connection, "user:1")
                connection.execute(update(User).values(name="Anna"))
                if prepares:
                    transaction.prepare()
                transaction.commit()
            assert reader.kept("user:1") == set()
            reader.put("user:1")
            assert reader.kept("user:1") == {"user:1"}


@pytest.mark.parametrize("by", ["session", "connection"])
def test_two_phase_commit_that_cannot_be_fenced_leaves_nothing_prepared(twophase: Database, by: str) -> None:
    """It is refused while it can be: no transaction is left in doubt, with its rows locked."""
    world = World("sync")
    one = world.process(on_fence_failure="raise")
    one.tier.refused = (Fence,)
    with watch(twophase.sessions, one.cache, keys=KEYS) as made:
        with pytest.raises(TierError):
            if by == "session":
                with twophase.sessions() as session:
                    rename(session, "Anna")
                    session.commit()
            else:
                with twophase.engine.connect() as connection:
                    transaction = connection.begin_twophase()
                    made.stale(connection, "user:1")
                    connection.execute(update(User).values(name="Anna"))
                    transaction.commit()
        one.tier.refused = ()
        with twophase.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM pg_prepared_xacts")) == 0
        with twophase.sessions() as session:
            rename(session, "Annika")
            session.commit()
    assert (twophase.name_of(1), twophase.name_of(2)) == ("Annika", "Bob")
    world.end()
