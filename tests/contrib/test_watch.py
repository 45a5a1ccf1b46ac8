"""Commits of watched sessions: what is fenced when, on both databases."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.contrib.watched import (  # noqa: F401  # fixtures
    DEFERRABLE,
    KEYS,
    Database,
    Reader,
    Team,
    User,
    a_database,
    a_reader,
    a_watch,
    rename,
    sqlite,
)
from tests.support.waiting import Call, HeldLoader

from credenza import ConfigurationError, UsageError
from credenza.contrib.sqlalchemy import Watch, watch

# Commits --------------------------------------------------------------------------------------------------------------


def test_commit_is_seen_by_the_next_read(database: Database, reader: Reader, watched: Watch) -> None:
    """A read after a commit gets what was committed, in the same thread and in another one."""
    assert reader.name() == "Ann"
    with database.sessions.begin() as session:
        rename(session, "Anna")
    assert reader.name() == "Anna"
    with database.sessions() as session:
        rename(session, "Annika")
        session.commit()
        assert Call(reader.name).result() == "Annika"
    assert reader.name() == "Annika"


def test_other_keys_stay(database: Database, reader: Reader, watched: Watch) -> None:
    """A commit makes stale what its rows say, and nothing else."""
    reader.put("user:1", "user:2", "members:1", "members:2", "team:1")
    with database.sessions.begin() as session:
        rename(session, "Anna")
    assert reader.kept("user:1", "user:2", "members:1", "members:2", "team:1") == {"user:2", "members:2", "team:1"}


@pytest.mark.parametrize("end", ["rollback", "close", "raise"])
def test_rollback_leaves_the_cache_alone(database: Database, reader: Reader, watched: Watch, end: str) -> None:
    """However a transaction is rolled back: nothing is invalidated, and the entry is still a hit."""
    assert reader.name() == "Ann"
    reader.events.clear()
    try:
        with database.sessions() as session:
            rename(session, "Anna")
            session.flush()
            if end == "rollback":
                session.rollback()
                session.commit()
            elif end == "raise":
                raise LookupError
    except LookupError:
        pass
    assert (reader.name(), reader.events) == ("Ann", [])
    assert reader.cache.stats().invalidations == 0


def test_what_a_session_has_rolled_back_is_not_in_its_next_commit(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """Keys do not outlive their transaction."""
    reader.put("user:1", "user:2")
    with database.sessions() as session:
        rename(session, "Anna")
        watched.stale(session, "named")
        session.flush()
        session.rollback()
        rename(session, "Bert", 2)
        session.commit()
    assert reader.kept("user:1", "user:2") == {"user:1"}
    assert [each.key for each in reader.fencings() if each.key == "named"] == []


def test_flush_alone_makes_nothing_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """Until the commit everybody else reads, and may keep, what is committed."""
    with database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        assert reader.name() == "Ann"
        assert "user:1" in reader.cache
        session.commit()
    assert reader.name() == "Anna"


def test_fence_is_up_while_the_database_commits(database: Database, reader: Reader, watched: Watch) -> None:
    """The last that happens before COMMIT is the fence, and the first after it is its end."""
    seen = []

    def commit(_connection: Connection) -> None:
        reader.name()
        seen.append("user:1" in reader.cache)

    with database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        reader.name()
        seen.append("user:1" in reader.cache)
        event.listen(database.engine, "commit", commit)  # is called after the watch's own
        session.commit()
    reader.name()
    seen.append("user:1" in reader.cache)
    assert seen == [True, False, True]


def test_load_that_a_commit_overtakes_is_not_kept(database: Database, reader: Reader, watched: Watch) -> None:
    """A reader that has read the old value before the commit gets it, and no later reader does."""
    loader = HeldLoader(lambda _: "Ann")
    early = Call(lambda: reader.cache.get_or_load("user:1", loader))
    loader.wait_until_called()
    with database.sessions.begin() as session:
        rename(session, "Anna")
    loader.release()
    assert early.result() == "Ann"
    assert reader.name() == "Anna"


def test_load_inside_the_commit_is_not_kept(database: Database, reader: Reader, watched: Watch) -> None:
    """A reader that reads the old value while the commit is under way, and is slow, does not leave it behind."""
    loader = HeldLoader(lambda _: "Ann")
    early: list[Call[Any]] = []

    def commit(_connection: Connection) -> None:
        early.append(Call(lambda: reader.cache.get_or_load("user:1", loader)))
        loader.wait_until_called()

    with database.sessions() as session:
        rename(session, "Anna")
        session.flush()
        event.listen(database.engine, "commit", commit)
        session.commit()
    loader.release()
    assert early[0].result() == "Ann"
    assert reader.name() == "Anna"


def test_failing_commit_is_raised_and_leaves_no_fence(database: Database, reader: Reader, watched: Watch) -> None:
    """A commit that the database refuses raises what it always did; the keys are invalid, and open again."""
    with database.engine.connect() as connection:
        reader.put("user:1")
        with database.sessions(bind=connection, join_transaction_mode="rollback_only") as session:
            if database.engine.dialect.name == "sqlite":
                connection.connection.execute("PRAGMA foreign_keys = ON").close()  # type: ignore[attr-defined]
                connection.execute(text("PRAGMA defer_foreign_keys = ON")).close()
            else:
                connection.execute(text(DEFERRABLE))
                connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
            session.get_one(User, 1).team_id = 77
            session.commit()
            assert "user:1" in reader.cache
            with pytest.raises(IntegrityError):
                connection.commit()
    assert "user:1" not in reader.cache
    assert reader.name() == "Ann"
    assert "user:1" in reader.cache


def test_commit_whose_connection_is_lost_leaves_no_fence_in_this_process(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """Nobody knows what became of it; readers load, and what they load is kept again."""
    reader.put("user:1")

    def lose(connection: Connection) -> None:
        raise database.engine.dialect.dbapi.OperationalError("the connection was lost")  # type: ignore[union-attr]

    original = database.engine.dialect.do_commit
    database.engine.dialect.do_commit = lose  # type: ignore[assignment,method-assign]
    try:
        with database.sessions() as session:
            rename(session, "Anna")
            with pytest.raises(DBAPIError, match="was lost"):
                session.commit()
    finally:
        database.engine.dialect.do_commit = original  # type: ignore[method-assign]
    assert "user:1" not in reader.cache
    reader.name()
    assert "user:1" in reader.cache


# Sessions -------------------------------------------------------------------------------------------------------------


def test_session_inside_a_greater_transaction_waits_for_its_commit(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """The commit of a session that has joined a connection's transaction is none."""
    for end, kept in [("rollback", {"user:1"}), ("commit", set())]:
        reader.put("user:1")
        with database.engine.connect() as connection:
            transaction = connection.begin()
            with database.sessions(bind=connection, join_transaction_mode="create_savepoint") as session:
                rename(session, "Anna")
                session.commit()
            assert reader.kept("user:1") == {"user:1"}
            getattr(transaction, end)()
        assert reader.kept("user:1") == kept


def test_session_over_two_databases_fences_what_each_commits(
    database: Database, reader: Reader, watched: Watch, tmp_path: Path
) -> None:
    """Each commit has its own fence; if the second fails, what the first has written is invalid."""
    (tmp_path / "second").mkdir()
    with sqlite(tmp_path / "second") as second:
        sessions = sessionmaker(binds={User: database.engine, Team: second.engine})
        other = watch(sessions, reader.cache, keys=KEYS)
        reader.put("user:1", "team:1")
        with sessions.begin() as session:
            rename(session, "Anna")
            session.get_one(Team, 1).name = "Greens"
        assert reader.kept("user:1", "team:1") == set()
        reader.put("user:1", "team:1")
        commits: list[Connection] = []

        def fail_second(connection: Connection) -> None:
            commits.append(connection)
            if len(commits) == 2:
                raise LookupError

        event.listen(database.engine, "commit", fail_second)
        event.listen(second.engine, "commit", fail_second)
        with sessions() as session:
            rename(session, "Annika")
            session.get_one(Team, 1).name = "Yellows"
            with pytest.raises(LookupError):
                session.commit()
        written = "user:1" if commits[0].engine is database.engine else "team:1"
        assert reader.kept(written) == set()
        reader.put("user:1", "team:1")
        assert reader.kept("user:1", "team:1") == {"user:1", "team:1"}
        other.close()


def test_two_watches_of_one_factory_serve_two_caches(database: Database, reader: Reader, watched: Watch) -> None:
    """Neither knows of the other; one that ends does not end the other."""
    other = Reader(database)
    second = watch(database.sessions, other.cache, keys={User: lambda user: f"user:{user.id}"})
    for each in (reader, other):
        each.put("user:1")
    with database.sessions.begin() as session:
        rename(session, "Anna")
    assert reader.kept("user:1") == other.kept("user:1") == set()
    second.close()
    for each in (reader, other):
        each.put("user:1")
    with database.sessions.begin() as session:
        rename(session, "Annika")
    assert (reader.kept("user:1"), other.kept("user:1")) == (set(), {"user:1"})


def test_closed_watch_leaves_no_listener(database: Database, reader: Reader) -> None:
    """Nothing is invalidated any more, and closing again does nothing; other sessions were never watched."""
    reader.put("user:1")
    with sessionmaker(database.engine).begin() as session:
        rename(session, "Anna")
    made = watch(database.sessions, reader.cache, keys=KEYS)
    with database.sessions.begin() as session:
        rename(session, "Bert", 2)
    made.close()
    made.close()
    with database.sessions.begin() as session:
        rename(session, "Annika")
    assert reader.kept("user:1") == {"user:1"}
    assert not list(database.engine.dispatch.commit)
    assert not list(database.engine.pool.dispatch.reset)


def test_scoped_session_and_own_class_can_be_watched(database: Database, reader: Reader) -> None:
    """As well as a factory; plain `Session` cannot, for it is everybody's."""

    class Own(Session):
        """A class of the application's own."""

    for sessions in (scoped_session(sessionmaker(database.engine)), Own):
        reader.put("user:1")
        with watch(sessions, reader.cache, keys=KEYS) as made:
            session: Any = Own(database.engine) if sessions is Own else sessions
            session.get(User, 1).name = f"by {type(sessions).__name__}"
            made.stale(session, "user:2")
            session.commit()
            session.close()
        assert reader.kept("user:1") == set()
    for wrong in (Session, database.engine, None):
        with pytest.raises(ConfigurationError, match="cannot be watched"):
            watch(wrong, reader.cache, keys=KEYS)


def test_many_sessions_at_once_keep_apart(database: Database, reader: Reader, watched: Watch) -> None:
    """A session that is open while another one commits keeps its own keys until its own end."""
    reader.put("user:1", "team:2")
    ready, done = threading.Event(), threading.Event()

    def stay_open() -> None:
        with database.sessions() as session:
            session.execute(select(1)).close()
            watched.stale(session, "team:2")
            ready.set()
            assert done.wait(10)
            session.commit()

    call = Call(stay_open)
    assert ready.wait(10)
    with database.sessions.begin() as session:
        rename(session, "Anna")
    assert reader.kept("user:1", "team:2") == {"team:2"}
    done.set()
    call.result()
    assert reader.kept("team:2") == set()


def test_refused_arguments_say_what_to_do(database: Database, reader: Reader, watched: Watch) -> None:
    """A lone text is no collection of tags, and an engine has no transaction."""
    with database.sessions() as session, pytest.raises(UsageError, match="tags is a collection"):
        watched.stale(session, tags="users")
    with pytest.raises(UsageError, match="session or a connection"):
        watched.stale(database.engine)  # type: ignore[arg-type]


# All at once ----------------------------------------------------------------------------------------------------------


def write_at_random(database: Database, watched: Watch, user_id: int, committed: dict[int, int]) -> None:
    """Commit, roll back and use savepoints; note each number when its commit has returned."""
    chance = random.Random(user_id)
    for number in range(1, 41):
        with database.sessions() as session:
            if chance.random() < 0.2:
                session.execute(update(User).where(User.id == user_id).values(name=str(number)))
                watched.stale(session, f"user:{user_id}")
            elif chance.random() < 0.5:
                rename(session, str(number), user_id)
            else:
                with session.begin_nested():
                    rename(session, str(number), user_id)
            if chance.random() < 0.3:
                session.rollback()
            else:
                session.commit()
                committed[user_id] = number


def read_at_random(reader: Reader, committed: dict[int, int], is_over: threading.Event) -> int:
    """Read until all is written; nothing may be older than what was committed before the read began."""
    chance, reads = random.Random(threading.get_ident()), 0
    while not is_over.is_set():
        user_id = chance.choice(list(committed))
        least = committed[user_id]
        number = int(reader.name(user_id) or 0)
        assert number >= least, f"read {number} after {least} was committed"
        reads += 1
    return reads


def test_random_commits_are_never_followed_by_older_reads(database: Database, reader: Reader, watched: Watch) -> None:
    """Readers and writers in several threads: whoever begins to read after a commit gets it, or a later one."""
    with database.sessions.begin() as session:
        for user_id in (1, 2):
            rename(session, "0", user_id)
    committed, is_over = {1: 0, 2: 0}, threading.Event()
    # SQLite has one writer at a time, and whoever finds it there has read too early.
    writers = [1] if database.engine.dialect.name == "sqlite" else [1, 2]
    readers = [Call(lambda: read_at_random(reader, committed, is_over)) for _ in range(2)]
    writing = [
        Call(lambda user_id=user_id: write_at_random(database, watched, user_id, committed))  # type: ignore[misc]
        for user_id in writers
    ]
    try:
        for each in writing:
            each.result()
    finally:
        is_over.set()
    assert all(each.result() > 0 for each in readers)
    assert reader.cache.stats().hits > 0
    assert [reader.name(user_id) for user_id in writers] == [str(committed[user_id]) for user_id in writers]
