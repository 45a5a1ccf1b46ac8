"""What the tests of `watch` share: rows, databases, and a cache in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import URL, Connection, Engine, ForeignKey, String, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from credenza import Cache
from credenza.contrib.sqlalchemy import Watch, watch
from credenza.events import Event, EventKind

FENCING = {EventKind.INVALIDATED, EventKind.TAG_INVALIDATED, EventKind.CLEARED}


class Base(DeclarativeBase):
    """The rows of these tests."""


class Team(Base):
    """A team, whose members go with it."""

    __tablename__ = "watched_teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    members: Mapped[list[User]] = relationship(cascade="all, delete-orphan", order_by="User.id")


class User(Base):
    """A user, whose key columns may change."""

    __tablename__ = "watched_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    team_id: Mapped[int | None] = mapped_column(ForeignKey("watched_teams.id"))
    kind: Mapped[str] = mapped_column(String(10), default="user")
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "user"}


class Admin(User):
    """A user of another class in the same table."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "admin"}


DEFERRABLE = "ALTER TABLE watched_users ALTER CONSTRAINT watched_users_team_id_fkey DEFERRABLE"

KEYS: dict[type, Any] = {User: ["user:{id}", "members:{team_id}"], Team: "team:{id}"}


class Database:
    """Users and teams, and sessions for them.

    Attributes:
        statements: what has reached the database.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sessions: sessionmaker[Session] = sessionmaker(engine)
        self.statements: list[str] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.statements.append(statement)

    def fill(self) -> None:
        """Put two teams and two users there, and nothing else."""
        Base.metadata.drop_all(self.engine)
        Base.metadata.create_all(self.engine)
        with self.sessions.begin() as session:
            for name in ("Reds", "Blues"):
                session.add(Team(name=name))
                session.flush()
            session.add(User(name="Ann", team_id=1))
            session.flush()
            session.add(User(name="Bob", team_id=1))

    def name_of(self, user_id: int) -> str | None:
        """Return a user's name as a loader does: in a transaction of its own."""
        with self.engine.connect() as connection:
            return connection.scalar(select(User.__table__.c.name).where(User.__table__.c.id == user_id))


class Reader:
    """A cache of users' names, and what it has told."""

    def __init__(self, database: Database, **options: Any) -> None:
        self.database = database
        self.cache: Cache[str, Any] = Cache(ttl=1_000, jitter=0, **options)
        self.events: list[Event] = []
        self.cache.subscribe(self.events.append)

    def name(self, user_id: int = 1) -> str | None:
        """Return a name through the cache."""
        return self.cache.get_or_load(f"user:{user_id}", lambda: self.database.name_of(user_id))

    def put(self, *keys: str, tags: tuple[str, ...] = ()) -> None:
        """Have entries that are there until they are made stale."""
        for key in keys:
            self.cache.set(key, "kept", tags=tags)

    def kept(self, *keys: str) -> set[str]:
        """Return which of the keys are there still."""
        return {key for key in keys if key in self.cache}

    def fencings(self) -> list[Event]:
        """Return what was invalidated."""
        return [each for each in self.events if each.kind in FENCING]


@contextmanager
def sqlite(folder: Path) -> Iterator[Database]:
    """A file in which readers do not wait for writers."""
    engine = create_engine(URL.create("sqlite", database=str(folder / "watched.db")), connect_args={"timeout": 5})
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    try:
        database = Database(engine)
        database.fill()
        yield database
    finally:
        engine.dispose()


def _connect(connection: Any, _record: object) -> None:
    """Leave transactions to SQLAlchemy: the driver begins them late, and ends them with a savepoint."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL").close()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN").close()


@contextmanager
def postgres(url: URL) -> Iterator[Database]:
    """The same rows on a server."""
    engine = create_engine(url)
    try:
        database = Database(engine)
        database.fill()
        yield database
    finally:
        engine.dispose()


@pytest.fixture(name="database", params=["sqlite", "postgres"])
def a_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each database in turn."""
    made = sqlite(tmp_path) if request.param == "sqlite" else postgres(request.getfixturevalue("postgres_url"))
    with made as found:
        yield found


@pytest.fixture(name="reader")
def a_reader(database: Database) -> Reader:
    """A cache in front of the database."""
    return Reader(database)


@pytest.fixture(name="watched")
def a_watch(database: Database, reader: Reader) -> Iterator[Watch]:
    """A watch of all sessions of the database."""
    with watch(database.sessions, reader.cache, keys=KEYS) as made:
        yield made


def rename(session: Session, name: str, user_id: int = 1) -> None:
    """Give a user another name."""
    session.get_one(User, user_id).name = name
