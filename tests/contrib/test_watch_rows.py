"""What rows and statements make stale, savepoints included, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, load_only, sessionmaker
from tests.contrib.watched import KEYS, Database, Reader, Team, User, a_database, a_reader, a_watch, rename  # noqa: F401  # fixtures

from credenza.contrib.sqlalchemy import Watch, watch

# Rows -----------------------------------------------------------------------------------------------------------------


def test_new_row_makes_its_generated_key_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """The key of a row is known only after its INSERT; that it was not there may be remembered."""
    with database.sessions() as session:
        user = User(name="Cleo", team_id=2)
        session.add(user)
        session.flush()
        reader.put(f"user:{user.id}", "members:2", "members:1")
        session.commit()
        assert reader.kept(f"user:{user.id}", "members:2", "members:1") == {"members:1"}


@pytest.mark.parametrize("loaded", ["all", "expired", "some"])
def test_deleted_row_makes_its_keys_stale(database: Database, reader: Reader, watched: Watch, loaded: str) -> None:
    """Those that it had in the database, even if they are not loaded."""
    reader.put("user:1", "members:1", "user:2")
    with database.sessions() as session:
        user = session.get_one(User, 1, options=[load_only(User.name)] if loaded == "some" else ())
        if loaded == "expired":
            session.expire(user)
        session.delete(user)
        session.commit()
    assert reader.kept("user:1", "members:1", "user:2") == {"user:2"}


def test_changed_key_column_makes_both_keys_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """A user that moves from one team to another changes both teams' lists."""
    reader.put("members:1", "members:2", "user:1")
    with database.sessions.begin() as session:
        session.get_one(User, 1).team_id = 2
    assert reader.kept("members:1", "members:2", "user:1") == set()


def test_changed_key_column_whose_old_value_was_not_loaded_makes_both_stale(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """The old value is asked for where the session has replaced it unseen."""
    with database.sessions() as session:
        user = session.get_one(User, 1)
        session.commit()  # forgets what is loaded
        reader.put("members:1", "members:2")
        user.team_id = 2
        session.commit()
    assert reader.kept("members:1", "members:2") == set()


def test_changed_primary_key_makes_both_keys_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """The row as it was, and the row as it is."""
    reader.put("user:1", "user:9")
    with database.sessions.begin() as session:
        session.get_one(User, 1).id = 9
    assert reader.kept("user:1", "user:9") == set()


def test_row_in_the_place_of_a_deleted_one_makes_the_keys_of_both_stale(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """SQLAlchemy makes one UPDATE of a DELETE and an INSERT with the same key."""
    reader.put("user:1", "members:1", "members:2")
    with database.sessions.begin() as session:
        session.delete(session.get_one(User, 1))
        session.add(User(id=1, name="Cleo", team_id=2))
    assert reader.kept("user:1", "members:1", "members:2") == set()


def test_value_set_by_an_expression_makes_both_keys_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """The new value is that of the database."""
    reader.put("members:1", "members:2")
    with database.sessions.begin() as session:
        user = session.get_one(User, 1)
        user.team_id = User.team_id + 1  # type: ignore[assignment]
    assert reader.kept("members:1", "members:2") == set()


def test_unchanged_row_makes_nothing_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """Setting a column to what it is, or reading it, is no write."""
    reader.put("user:1", "user:2")
    with database.sessions.begin() as session:
        rename(session, "Ann")
        rename(session, "Bert", 2)
    assert reader.kept("user:1", "user:2") == {"user:1"}


def test_changed_collection_makes_its_parent_stale(database: Database, reader: Reader, watched: Watch) -> None:
    """A cached team may hold its members, though its own row is not written."""
    reader.put("team:1", "team:2")
    with database.sessions.begin() as session:
        team = session.get_one(Team, 1)
        team.members.append(User(name="Cleo"))
    assert reader.kept("team:1", "team:2") == {"team:2"}


def test_orphans_and_cascades_are_seen(database: Database, reader: Reader, watched: Watch) -> None:
    """Rows that the session deletes by itself count as much."""
    reader.put("user:1", "user:2", "team:1")
    with database.sessions.begin() as session:
        team = session.get_one(Team, 1)
        del team.members[0]
    assert reader.kept("user:1", "user:2") == {"user:2"}
    with database.sessions.begin() as session:
        session.delete(session.get_one(Team, 1))
    assert reader.kept("user:1", "user:2", "team:1") == set()


def test_several_flushes_add_up(database: Database, reader: Reader, watched: Watch) -> None:
    """A key that a row had only for a while is stale as well: somebody may have asked for it."""
    reader.put("members:1", "members:2", "members:None")
    with database.sessions.begin() as session:
        user = session.get_one(User, 1)
        user.team_id = 2
        session.flush()
        user.team_id = None
        session.flush()
    assert reader.kept("members:1", "members:2", "members:None") == set()


# Savepoints -----------------------------------------------------------------------------------------------------------


def test_released_savepoint_counts_at_the_commit(database: Database, reader: Reader, watched: Watch) -> None:
    """Its end is not the commit: until then the entry stays."""
    reader.put("user:1", "user:2")
    with database.sessions() as session:
        with session.begin_nested():
            rename(session, "Anna")
        assert reader.kept("user:1") == {"user:1"}
        session.commit()
    assert reader.kept("user:1", "user:2") == {"user:2"}


def test_rolled_back_savepoint_costs_a_needless_invalidation(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """What it wrote is taken for written; what came before and after it counts in any case."""
    reader.put("user:1", "user:2", "team:1")
    with database.sessions() as session:
        rename(session, "Anna")
        with pytest.raises(LookupError), session.begin_nested():
            rename(session, "Bert", 2)
            session.flush()
            raise LookupError
        session.commit()
    assert reader.kept("user:1", "user:2", "team:1") == {"team:1"}
    assert (reader.name(1), reader.name(2)) == ("Anna", "Bob")


def test_failed_flush_in_a_savepoint_does_not_disturb_the_rest(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """What was noted of a flush that failed is dropped, and later ones are noted."""
    reader.put("user:1", "user:2", "team:1")
    with database.sessions() as session:
        team = session.get_one(Team, 1)
        with pytest.raises(IntegrityError), session.begin_nested():
            team.name = "Greens"
            session.add(User(id=2, name="Double"))
            session.flush()
        rename(session, "Anna")
        session.commit()
    assert reader.kept("user:1", "user:2", "team:1") == {"user:2", "team:1"}
    assert reader.name() == "Anna"


# Statements -----------------------------------------------------------------------------------------------------------


def test_named_keys_and_tags_are_stale_at_the_commit(database: Database, reader: Reader, watched: Watch) -> None:
    """What `text()` writes nobody can see, so its writer says it, before or after."""
    reader.put("user:1", "user:2")
    reader.put("list", tags=("users",))
    with database.sessions() as session:
        watched.stale(session, "user:1")
        session.execute(text("UPDATE watched_users SET name = 'X'"))
        watched.stale(session, "user:2", tags=["users"])
        assert reader.kept("user:1", "user:2", "list") == {"user:1", "user:2", "list"}
        session.commit()
    assert reader.kept("user:1", "user:2", "list") == set()


def test_named_keys_are_kept_on_rollback(database: Database, reader: Reader, watched: Watch) -> None:
    """They follow the transaction as all others."""
    reader.put("user:1")
    with database.sessions() as session:
        session.execute(text("UPDATE watched_users SET name = 'X'"))
        watched.stale(session, "user:1")
        session.rollback()
        rename(session, "Bert", 2)
        session.commit()
    assert reader.kept("user:1") == {"user:1"}


def run_update(session: Session) -> None:
    session.execute(update(User).where(User.name == "Ann").values(name="Anna"))


def run_core(session: Session) -> None:
    session.execute(User.__table__.update().values(name="Anna"))  # type: ignore[attr-defined]


def run_query(session: Session) -> None:
    session.query(User).filter(User.name == "Ann").update({"name": "Anna"})


def run_delete(session: Session) -> None:
    session.query(User).delete()


def run_mappings(session: Session) -> None:
    session.bulk_update_mappings(User, [{"id": 1, "name": "Anna"}])  # type: ignore[arg-type]


def run_connection(session: Session) -> None:
    session.connection().execute(update(User).values(name="Anna"))


BULK = [run_update, run_core, run_query, run_delete, run_mappings, run_connection]


@pytest.mark.parametrize("run", BULK)
def test_bulk_statement_makes_the_tags_of_its_class_stale(database: Database, reader: Reader, run: Any) -> None:
    """Whatever way it takes: tags of `tags` and of `bulk`, for nobody knows which rows it wrote."""
    reader.put("user:1", "user:2", tags=("users",))
    reader.put("names", tags=("user-lists",))
    reader.put("team:1", tags=("teams",))
    rules: Any = {"keys": KEYS, "tags": {User: "user-lists"}, "bulk": {User: "users", Team: "teams"}}
    with watch(database.sessions, reader.cache, **rules), database.sessions() as session:
        run(session)
        session.commit()
    assert reader.kept("user:1", "user:2", "names", "team:1") == {"team:1"}


def test_row_that_is_written_leaves_the_tags_for_bulk_alone(database: Database, reader: Reader) -> None:
    """`tags` are for each written row, `bulk` is for statements."""
    reader.put("user:1", "user:2", tags=("users",))
    reader.put("names", tags=("user-lists",))
    rules: Any = {"keys": KEYS, "tags": {User: "user-lists"}, "bulk": {User: "users"}}
    with watch(database.sessions, reader.cache, **rules), database.sessions.begin() as session:
        rename(session, "Anna")
    assert reader.kept("user:1", "user:2", "names") == {"user:2"}


def test_bulk_statement_without_a_tag_is_said_once(
    database: Database, reader: Reader, watched: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may leave old values behind, which is never silent; a rollback and a named key are no reason."""
    with database.sessions() as session:
        run_update(session)
        session.rollback()
        run_update(session)
        watched.stale(session, "user:1")
        session.commit()
    assert caplog.messages == []
    for _ in range(2):
        with database.sessions.begin() as session:
            run_update(session)
    assert [each for each in caplog.messages if "wrote rows of User" in each and "stale(session" in each] != []
    assert len(caplog.messages) == 1


def test_table_without_a_class_has_tags(database: Database, reader: Reader) -> None:
    """Core tables are watched by statement."""
    reader.put("names", tags=("user-lists",))
    with (
        watch(database.sessions, reader.cache, tags={User.__table__: "user-lists"}),  # type: ignore[dict-item]
        database.sessions.begin() as session,
    ):
        run_core(session)
    assert reader.kept("names") == set()


def test_connection_without_a_session_is_fenced_where_it_is_named(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """The fence of a Core transaction stands until the connection is closed, or begins another one."""
    reader.put("user:1", "user:2")
    with database.engine.connect() as connection:
        watched.stale(connection, "user:1")
        connection.execute(update(User).where(User.id == 1).values(name="Anna"))
        assert reader.kept("user:1") == {"user:1"}
        connection.commit()
        assert reader.name() == "Anna"
        assert reader.kept("user:1") == set()
        connection.execute(select(1))
        assert reader.name() == "Anna"
        assert reader.kept("user:1") == {"user:1"}
        watched.stale(connection, "user:2")
        connection.rollback()
        watched.stale(connection, "user:1")
        connection.execute(update(User).where(User.id == 1).values(name="Annika"))
        connection.commit()
    assert reader.kept("user:1", "user:2") == {"user:2"}
    assert (reader.name(), reader.kept("user:1")) == ("Annika", {"user:1"})


def test_connection_that_autocommits_is_invalidated_however_it_ends(
    database: Database, reader: Reader, watched: Watch
) -> None:
    """There is no commit to fence; what is written is invalidated at the end, a rollback included."""
    sessions = sessionmaker(database.engine.execution_options(isolation_level="AUTOCOMMIT"))
    with watch(sessions, reader.cache, keys=KEYS):
        for name, end in [("Anna", "commit"), ("Annika", "rollback")]:
            reader.name()
            with sessions() as session:
                rename(session, name)
                session.flush()
                getattr(session, end)()
            assert reader.name() == name
