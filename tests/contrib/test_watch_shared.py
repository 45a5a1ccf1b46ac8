"""Watched commits with a cache that processes share: refused, killed, of unknown outcome."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, update
from sqlalchemy.exc import OperationalError
from tests.contrib.watched import KEYS, Database, User, rename, sqlite
from tests.support.processes import FENCE_SECONDS, STALENESS, Process, World
from tests.support.waiting import DEADLINE

from credenza import Cache, CacheError, EventKind, FenceLost, TierError
from credenza.contrib.sqlalchemy import watch
from credenza.tiers.base import Clear, Fence


@pytest.fixture
def world() -> Iterator[World]:
    """A tier that processes share."""
    made = World("sync")
    yield made
    made.end()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """The database of all processes."""
    with sqlite(tmp_path) as found:
        yield found


def read(process: Process, database: Database) -> tuple[Any, str]:
    """Return a name as a process reads it, and where it came from."""
    return process.fetch("user:1", lambda: database.name_of(1))


def test_commit_is_fenced_and_cleared_in_every_process(world: World, database: Database) -> None:
    """While the database commits another process reads past the cache; after it the new value is kept."""
    one, two = world.pair(maxsize=0)
    seen: list[tuple[Any, str]] = []
    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        read(two, database)
        rename(session, "Anna")
        session.flush()
        seen.append(read(two, database))
        event.listen(database.engine, "commit", lambda _: seen.append(read(two, database)))
        session.commit()
    seen += [read(two, database), read(two, database)]
    assert seen == [("Ann", "shared"), ("Ann", "bypass"), ("Anna", "miss"), ("Anna", "shared")]
    assert (one.tier.asked(Fence), one.tier.asked(Clear)) == (2, 2)  # the user's key, and the list of its team


def test_rollback_asks_nothing_of_the_tier(world: World, database: Database) -> None:
    """It costs no round trip, neither does a transaction that only reads."""
    one = world.process()
    with watch(database.sessions, one.cache, keys=KEYS):
        before = len(one.tier.batches)
        with database.sessions() as session:
            rename(session, "Anna")
            session.flush()
            session.rollback()
            session.get_one(User, 1)
            session.commit()
        assert len(one.tier.batches) == before


def commit_by_session(database: Database, _made: Any) -> None:
    with database.sessions() as session:
        rename(session, "Anna")
        session.commit()


def commit_by_connection(database: Database, made: Any) -> None:
    with database.engine.connect() as connection:
        made.stale(connection, "user:1")
        connection.execute(update(User).where(User.id == 1).values(name="Anna"))
        connection.commit()


@pytest.mark.parametrize("commit", [commit_by_session, commit_by_connection])
def test_commit_that_cannot_be_fenced_is_refused_and_rolled_back(
    world: World, database: Database, commit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Under "raise" nothing is written, not even by whoever gets the connection next."""
    one = world.process(on_fence_failure="raise")
    with watch(database.sessions, one.cache, keys=KEYS) as made:
        one.tier.refused = (Fence,)
        with pytest.raises(TierError, match="cannot be fenced"):
            commit(database, made)
        one.tier.refused = ()
        with database.sessions.begin() as session:
            rename(session, "Bert", 2)
        assert (database.name_of(1), database.name_of(2)) == ("Ann", "Bert")
        commit(database, made)
        assert database.name_of(1) == "Anna"


def test_commit_whose_fence_is_lost_is_refused(world: World, database: Database) -> None:
    """Under "strict" the fence must outlive the wait for the other processes' proofs."""
    one = world.process(coherence="strict")

    def lose(_pause: int) -> None:
        world.tier.shelf.forget(world.name("user:1"))

    one.at_pause = lose
    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Anna")
        with pytest.raises(FenceLost):
            session.commit()
        session.rollback()
        assert database.name_of(1) == "Ann"
        one.at_pause = None
        rename(session, "Anna")
        session.commit()
        assert database.name_of(1) == "Anna"


def test_commit_goes_on_without_the_tier_where_the_policy_says_so(world: World, database: Database) -> None:
    """Under "owe" the write is made, and the invalidation delivered when the tier is back."""
    one, two = world.pair()
    read(two, database)
    with watch(database.sessions, one.cache, keys=KEYS):
        one.tier.is_away = True
        with database.sessions.begin() as session:
            rename(session, "Anna")
        assert one.cache.health().owed > 0
        one.tier.is_away = False
        world.advance(STALENESS)
        assert one.cache.health().owed == 0
    assert read(two, database)[0] == "Anna"


class ConnectionLost(ConnectionError):
    """What a driver raises in the middle of a commit."""


@pytest.mark.parametrize("is_done", [False, True], ids=["not committed", "committed"])
def test_commit_of_unknown_outcome_leaves_its_fence_to_expire(
    world: World, database: Database, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then all processes read the database; afterwards they keep what it has."""
    one, two = world.pair(maxsize=0)
    world.may_leave_records = True
    commit = database.engine.dialect.do_commit

    def lose(connection: Any) -> None:
        if is_done:
            commit(connection)
        raise ConnectionLost

    read(two, database)
    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        monkeypatch.setattr(database.engine.dialect, "do_commit", lose)
        with pytest.raises(ConnectionLost):
            session.commit()
        monkeypatch.undo()
    expected = "Anna" if is_done else "Ann"
    assert [read(two, database) for _ in range(2)] == [(expected, "bypass")] * 2
    world.clock.advance(FENCE_SECONDS + 1)
    assert [read(two, database) for _ in range(2)] == [(expected, "miss"), (expected, "shared")]


def test_commit_that_the_database_refused_leaves_no_fence(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own errors leave no doubt: the fence is taken down at once."""
    one, two = world.pair(maxsize=0)

    def refuse(_connection: Any) -> None:
        import sqlite3

        raise sqlite3.OperationalError("database is locked")

    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        monkeypatch.setattr(database.engine.dialect, "do_commit", refuse)
        with pytest.raises(OperationalError):
            session.commit()
        monkeypatch.undo()
    assert [read(two, database) for _ in range(2)] == [("Ann", "miss"), ("Ann", "shared")]


@pytest.mark.parametrize("by", ["session", "connection"])
def test_interrupted_commit_leaves_its_fence_to_expire(
    world: World, database: Database, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends in Ctrl-C may be committed as well."""
    one = world.process(maxsize=0)
    world.may_leave_records = True

    def interrupt(_connection: Any) -> None:
        raise KeyboardInterrupt

    with watch(database.sessions, one.cache, keys=KEYS) as made:
        monkeypatch.setattr(database.engine.dialect, "do_commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            (commit_by_session if by == "session" else commit_by_connection)(database, made)
        monkeypatch.undo()
    assert world.record("user:1")[:1] == b"B"
    assert read(one, database) == ("Ann", "bypass")


def test_writer_that_is_cut_off_after_its_commit_leaves_nothing_stale(world: World, database: Database) -> None:
    """Its fence stands until it expires: all read the database meanwhile, and what they keep then is new."""
    one, two = world.pair(maxsize=0)
    world.may_leave_records = True
    read(two, database)
    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Anna")
        one.tier.before(Clear, _cut_off, times=99)
        session.commit()
    assert [read(two, database) for _ in range(2)] == [("Anna", "bypass")] * 2
    world.clock.advance(FENCE_SECONDS + 1)
    assert [read(two, database) for _ in range(2)] == [("Anna", "miss"), ("Anna", "shared")]


def _cut_off() -> None:
    raise TierError("the process is gone")


KILLED = """
import os, signal, sys
from sqlalchemy import event
from credenza import Cache
from credenza.contrib.sqlalchemy import watch
from tests.contrib.watched import KEYS, Database, rename
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

def kill(_session):
    os.kill(os.getpid(), signal.SIGKILL)

engine = create_engine(f"sqlite:///{sys.argv[1]}")
sessions = sessionmaker(engine)
event.listen(sessions, "after_commit", kill)
watch(sessions, Cache.from_url(f"sqlite:///{sys.argv[2]}"), keys=KEYS)
with sessions() as session:
    rename(session, "Anna")
    session.commit()
"""


def test_process_killed_right_after_its_commit_leaves_nothing_stale(tmp_path: Path, database: Database) -> None:
    """Another process, that has the old value in its tier, never reads it again."""
    tier = tmp_path / "tier.db"
    with Cache.from_url(f"sqlite:///{tier}", maxsize=0, tier_timeout=5) as cache:

        def read_one() -> Any:
            return cache.get_or_load("user:1", lambda: database.name_of(1))

        assert (read_one(), read_one(), cache.stats().shared_hits) == ("Ann", "Ann", 1)
        root = Path(__file__).parent.parent.parent
        child = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "watched.db"), str(tier)],
            cwd=root,
            timeout=DEADLINE,
            check=False,
            capture_output=True,
            text=True,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert [read_one() for _ in range(5)] == ["Anna"] * 5
        assert cache.stats().shared_hits == 1


def test_errors_of_the_cache_have_their_own_class(world: World, database: Database) -> None:
    """A closed cache refuses the commit; the message names no value."""
    one = world.process()
    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Secret")
        session.flush()
        one.cache.close()
        with pytest.raises(CacheError) as caught:
            session.commit()
        assert "Secret" not in str(caught.value)
    assert database.name_of(1) == "Ann"


def test_fence_that_was_lost_meanwhile_is_told_and_made_up_for(world: World, database: Database) -> None:
    """A tier that forgets the fence while the database commits: the keys are invalidated once more."""
    one, two = world.pair(maxsize=0)

    def forget(_connection: Connection) -> None:
        world.tier.forget_all()
        read(two, database)

    with watch(database.sessions, one.cache, keys=KEYS), database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        event.listen(database.engine, "commit", forget)
        session.commit()
    assert one.told(EventKind.FENCE_LOST) != []
    assert read(two, database)[0] == "Anna"
