"""What `keys`, `tags` and `bulk` may say, and how keys are written."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from tests.contrib.watched import Admin, Database, Reader, Team, User, rename, sqlite

from credenza import ConfigurationError, UsageError
from credenza.contrib.sqlalchemy import watch


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Users and teams."""
    with sqlite(tmp_path) as found:
        yield found


@pytest.fixture
def reader(database: Database) -> Reader:
    """A cache in front of them."""
    return Reader(database)


class Base(DeclarativeBase):
    """Rows of this module."""


class Document(Base):
    """A row with keys of several types."""

    __tablename__ = "documents"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    title: Mapped[str]
    number: Mapped[int] = mapped_column("no")
    body: Mapped[str] = mapped_column(deferred=True)


Document.__mapper__.add_property("shout", column_property(Document.title + "!"))


@pytest.mark.parametrize("title", ["plain", "a:b", "42", "None", "it's", ""])
def test_templates_give_the_keys_of_decorated_functions(database: Database, reader: Reader, title: str) -> None:
    """The same text for the same values, quotes included, so that no row can forge the key of another."""

    @reader.cache.cached(key="doc:{number}:{title}:{serial}", tags=["by:{title}"])
    def document(serial: uuid.UUID, title: str, number: int) -> str:
        return "kept"

    Base.metadata.create_all(database.engine)
    number = uuid.UUID(int=7)
    with (
        watch(database.sessions, reader.cache, keys={Document: "doc:{number}:{title}:{id}"}),
        database.sessions() as session,
    ):
        session.add(Document(id=number, title=title, number=3, body="..."))
        document(number, title, 3)
        session.flush()
        assert document.peek(number, title, 3) == "kept"
        session.commit()
        assert document.peek(number, title, 3) is None
        document(number, title, 3)
    tags: Any = {Document: "by:{title}"}
    with watch(database.sessions, reader.cache, tags=tags), database.sessions.begin() as session:
        session.delete(session.get_one(Document, number))
    assert document.peek(number, title, 3) is None


def test_callables_see_the_row_as_it_was_and_as_it_is(database: Database, reader: Reader) -> None:
    """So that both keys of a row that moves are stale; a lone key, several and none are understood."""
    seen: list[tuple[int, int | None]] = []

    def keys_of(user: User) -> Any:
        seen.append((user.id, user.team_id))
        return f"members:{user.team_id}" if user.team_id else None

    reader.put("members:1", "members:2", "n:1")
    reader.put("tagged", tags=("t2",))
    rules: Any = {
        "keys": {User: [keys_of, lambda user: (f"n:{user.id}",)]},
        "tags": {User: lambda user: [f"t{user.team_id}"]},
    }
    with watch(database.sessions, reader.cache, **rules):
        with database.sessions.begin() as session:
            session.get_one(User, 1).team_id = 2
        assert reader.kept("members:1", "members:2", "n:1", "tagged") == set()
        with database.sessions.begin() as session:
            user = session.get_one(User, 2)
            session.expire(user)
            session.delete(user)
    assert seen == [(1, 1), (1, 2), (2, 1)]


def test_rows_of_subclasses_count(database: Database, reader: Reader) -> None:
    """An admin is a user, and may make more stale than a user does."""
    reader.put("user:3", "admin:3")
    with (
        watch(database.sessions, reader.cache, keys={User: "user:{id}", Admin: "admin:{id}"}),
        database.sessions.begin() as session,
    ):
        session.add(Admin(id=3, name="Root"))
    assert reader.kept("user:3", "admin:3") == set()


def test_deferred_columns_are_not_fetched_for_callables(database: Database, reader: Reader) -> None:
    """A callable may look at any column; those that are loaded on demand are loaded if it does."""
    Base.metadata.create_all(database.engine)
    with database.sessions.begin() as session:
        session.add(Document(id=uuid.UUID(int=1), title="t", number=1, body="long"))
    with watch(database.sessions, reader.cache, keys={Document: lambda row: f"doc:{row.number}"}):
        reader.put("doc:1")
        with database.sessions.begin() as session:
            document = session.get_one(Document, uuid.UUID(int=1))
            session.expire(document)
            database.statements.clear()
            session.delete(document)
    assert reader.kept("doc:1") == set()
    assert not any("body" in statement for statement in database.statements)


def test_ordinary_commit_sends_nothing_more_to_the_database(database: Database, reader: Reader) -> None:
    """Keys are made of what is loaded."""

    def change() -> list[str]:
        with database.sessions() as session:
            user = session.get_one(User, 1)
            database.statements.clear()
            user.team_id = 3 - (user.team_id or 0)
            session.commit()
            return list(database.statements)

    plain = change()
    with watch(database.sessions, reader.cache, keys={User: "members:{team_id}"}):
        assert change() == plain


def test_plain_tags_cover_statements_and_others_do_not(
    database: Database, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """A tag with a field cannot be told without a row."""
    reader.put("a", tags=("users",))
    reader.put("b", tags=("members:1",))
    with watch(database.sessions, reader.cache, tags={User: ["users", "members:{team_id}"]}):
        with database.sessions.begin() as session:
            session.execute(update(User).values(name="X"))
        assert reader.kept("a", "b") == {"b"}
        with database.sessions.begin() as session:
            rename(session, "Y")
        assert reader.kept("a", "b") == set()
    assert caplog.messages == []


class Unmapped:
    """No row."""


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({}, "nothing is watched"),
        ({"keys": {Unmapped: "x:{id}"}}, "no mapped class"),
        ({"keys": {User: "user:{nme}"}}, "names 'nme', which is no column of it; its columns are: id, name, team_id"),
        ({"keys": {Team: "team:{members}"}}, "names 'members', which is no column"),
        ({"keys": {User: "user:{id"}}, "malformed"),
        ({"keys": {User: "user:{id}{name}"}}, "not kept apart"),
        ({"keys": {User: [7]}}, "a template such as"),
        ({"keys": {User.__table__: "user:{id}"}}, "is by mapped class"),
        ({"tags": {User.__table__: "user:{id}"}}, "must be plain names"),
        ({"keys": {User: "user:{id}"}, "bulk": {Unmapped: "x"}}, "no mapped class"),
        ({"keys": {User: "user:{id}"}, "bulk": {User: "users:{id}"}}, "must be plain names"),
    ],
)
def test_wrong_rules_say_what_to_do(database: Database, reader: Reader, rules: Any, says: str) -> None:
    """When the watch is made, and not at the first commit; no listener is left."""
    with pytest.raises(ConfigurationError, match=says):
        watch(database.sessions, reader.cache, **rules)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"keys": {User: lambda user: 4.5}}, "returns the keys or tags"),
        ({"tags": {User: lambda user: user.id}}, "a tag is a str"),
        ({"keys": {User: lambda user: [[user.id]]}}, "must be hashable"),
    ],
)
def test_wrong_keys_of_a_row_are_refused_before_anything_is_committed(
    database: Database, reader: Reader, rules: Any, says: str
) -> None:
    """A write whose keys cannot be told is not made."""
    with watch(database.sessions, reader.cache, **rules), database.sessions() as session:
        rename(session, "Anna")
        with pytest.raises(UsageError, match=says):
            session.commit()
    assert database.name_of(1) == "Ann"
