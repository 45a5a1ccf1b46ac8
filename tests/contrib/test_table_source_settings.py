"""What a `TableSource` can be made of: targets, engines, keys, and the kinds of values."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import (
    URL,
    Column,
    Computed,
    DateTime,
    Engine,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    func,
    text,
)
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool
from tests.contrib.table_models import Base, Person, User, people, tables

from credenza import Cache, ConfigurationError, UsageError
from credenza.contrib.sqlalchemy import TableSource
from credenza.testing import DictTier


@pytest.fixture(autouse=True)
def tables_made(engine: Engine) -> None:
    """All tables, empty."""
    tables.create_all(engine)
    Base.metadata.create_all(engine)


NEW_YEAR = datetime(2020, 1, 1)  # noqa: DTZ001  # as SQLite gives it back


class Zoo(DeclarativeBase):
    """Of mapped classes that a source refuses."""


class Animal(Zoo):
    __tablename__ = "animals"
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Dog(Animal):
    __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}


# Targets and engines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [sessionmaker, lambda engine: scoped_session(sessionmaker(engine))])
def test_source_uses_the_engine_of_a_session_factory(engine: Engine, wrap: Callable[[Engine], Any]) -> None:
    """A factory stands for the engine to which its sessions would write."""
    source: TableSource[int, Any] = TableSource(people, wrap(engine))
    source.store(1, {"name": "Ann"})
    assert TableSource(people, engine).load(1)["name"] == "Ann"


def test_source_uses_the_engine_that_the_sessions_use_for_its_class(engine: Engine) -> None:
    """Factories with an engine for each class are understood."""
    source = TableSource(User, sessionmaker(binds={User: engine}))
    source.store(1, User(id=1, full_name="Ann"))
    assert source.load(1).full_name == "Ann"


def test_session_factory_without_an_engine_is_refused() -> None:
    """Its engine would be found missing at the first load otherwise."""
    with pytest.raises(ConfigurationError, match="has no engine yet"):
        TableSource(people, sessionmaker())


def test_session_factory_on_one_connection_is_refused(engine: Engine) -> None:
    """That connection's transaction is somebody else's, and hides commits."""
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="bind it to an engine"):
        TableSource(people, sessionmaker(connection))


@pytest.mark.parametrize("bind", [None, "sqlite://"])
def test_what_is_no_engine_is_refused(bind: Any) -> None:
    """The message says what is wanted."""
    with pytest.raises(ConfigurationError, match="an Engine or a sessionmaker"):
        TableSource(people, bind)


def test_engine_in_autocommit_is_refused(engine: Engine, database_url: URL, make_engine: Callable[..., Engine]) -> None:
    """A batch would not be one transaction, by either way of asking for it."""
    for other in (
        engine.execution_options(isolation_level="AUTOCOMMIT"),
        make_engine(database_url, isolation_level="AUTOCOMMIT"),
    ):
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            TableSource(people, other)


def test_dialect_without_upserts_is_refused() -> None:
    """Only SQLite and PostgreSQL can be written; anything else is said at once."""
    dialect = SQLiteDialect()
    dialect.name = "oracle"
    other = Engine(NullPool(lambda: None), dialect, URL.create("oracle"))
    with pytest.raises(ConfigurationError, match="'oracle'"):
        TableSource(people, other)


@pytest.mark.parametrize("target", [Animal, Dog, Person, "users", 7])
def test_target_that_is_not_one_table_is_refused(engine: Engine, target: Any) -> None:
    """Inheritance and what is not mapped cannot be upserted as a row."""
    with pytest.raises(ConfigurationError, match="Table"):
        TableSource(target, engine)


def test_repr_names_the_table_and_not_the_address(engine: Engine) -> None:
    """It stands in messages, where no password belongs."""
    assert repr(TableSource(people, engine)) == "<TableSource people>"


def test_importing_without_sqlalchemy_says_what_to_install(tmp_path: Path) -> None:
    """The extra is named where the library is missing."""
    (tmp_path / "sqlalchemy.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    code = "import credenza.contrib.sqlalchemy"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=15)
    assert "pip install 'credenza[sqlalchemy]'" in done.stderr


# Keys -----------------------------------------------------------------------------------------------------------------


def test_unique_column_is_a_key(engine: Engine) -> None:
    """Records may be known by another unique column; the primary key of a row that exists stays."""
    source = TableSource(User, engine, key="email")
    source.store("ann@x", User(id=None, full_name="Ann", email="ann@x"))
    number = source.load("ann@x").id
    source.store("ann@x", User(id=number + 1, full_name="Anna", email="ann@x"))
    assert (source.load("ann@x").id, source.load("ann@x").full_name) == (number, "Anna")
    source.delete("ann@x")
    assert source.load_many(["ann@x"]) == {}


@pytest.mark.parametrize("key", [("tenant", "slug"), [people.c.tenant, people.c.slug]])
def test_columns_that_are_unique_together_are_a_key(engine: Engine, key: Any) -> None:
    """Keys are tuples, in the order in which the columns are named."""
    source: TableSource[Any, Any] = TableSource(people, engine, key=key)
    source.store_many({(1, "ann"): {"name": "Ann"}, (2, "ann"): {"name": "Other"}})
    assert source.load((2, "ann"))["name"] == "Other"


def test_attribute_of_a_mapped_class_is_a_key(engine: Engine) -> None:
    """The attribute itself may be given."""
    source = TableSource(User, engine, key=User.email)
    source.store("ann@x", User(full_name="Ann"))
    assert source.load("ann@x").full_name == "Ann"


@pytest.mark.parametrize("key", ["name", "tenant", ("slug",), "nothing", ()])
def test_key_that_is_not_unique_is_refused(engine: Engine, key: Any) -> None:
    """It would stand for several rows, or for none."""
    with pytest.raises(ConfigurationError, match=r"unique|no column|no primary key"):
        TableSource(people, engine, key=key)


def test_unique_index_is_known_unless_it_leaves_rows_out(engine: Engine) -> None:
    """An index over all rows identifies them; one with a condition does not."""
    metadata = MetaData()
    whole = Table("whole", metadata, Column("id", Integer, primary_key=True), Column("code", String))
    Index("whole_code", whole.c.code, unique=True)
    partial = Table("partial", metadata, Column("id", Integer, primary_key=True), Column("code", String))
    Index(
        "partial_code",
        partial.c.code,
        unique=True,
        sqlite_where=partial.c.id > 5,
        postgresql_where=partial.c.id > 5,
    )
    metadata.create_all(engine)
    source: TableSource[str, Any] = TableSource(whole, engine, key="code")
    source.store("a", {})
    source.store("a", {})
    assert list(source.load_many(["a"])) == ["a"]
    with pytest.raises(ConfigurationError, match="not known to be"):
        TableSource(partial, engine, key="code")


# Kinds of values ------------------------------------------------------------------------------------------------------


def test_dataclass_values_are_read_and_written_by_their_fields(engine: Engine, statements: list[str]) -> None:
    """Only the columns that are fields are read, and others stay as they are."""
    TableSource(people, engine).store(1, {"name": "Ann", "city": "Oslo"})
    source = TableSource(people, engine, value=Person)
    statements.clear()
    assert source.load(1) == Person(1, "Ann")
    assert "city" not in statements[0]
    source.store(1, Person(1, "Anna"))
    assert TableSource(people, engine).load(1)["city"] == "Oslo"


def test_dataclass_without_the_key_can_be_a_value(engine: Engine) -> None:
    """The key is read all the same, to tell the rows apart."""

    @dataclass(frozen=True)
    class Name:
        name: str

    source = TableSource(people, engine, value=Name)
    source.store_many({1: Name("Ann"), 2: Name("Bob")})
    assert source.load_many([1, 2, 3]) == {1: Name("Ann"), 2: Name("Bob")}


def test_own_functions_make_values_and_columns(engine: Engine) -> None:
    """Values of any class; the names are the attributes of a mapped class."""
    source = TableSource(
        User, engine, row=lambda row: row["full_name"].upper(), columns=lambda name: {"full_name": name}
    )
    source.store(1, "Ann")
    assert source.load(1) == "ANN"


def test_dataclasses_travel_through_a_shared_tier(engine: Engine, statements: list[str]) -> None:
    """Another process's memory is filled from the tier with values of the same class."""
    tier = DictTier()
    caches = [Cache(remote=tier) for _ in range(2)]
    first, second = (
        cache.repository(TableSource(people, engine, value=Person), key="person:{}", type=Person) for cache in caches
    )
    first.put(1, Person(1, "Ann"))
    assert first.get(1) == Person(1, "Ann")
    statements.clear()
    assert second.get(1) == Person(1, "Ann")
    assert statements == []
    for cache in caches:
        cache.close()


@pytest.mark.parametrize(
    "options",
    [
        {"row": dict},
        {"columns": dict},
        {"value": Person, "row": dict, "columns": dict},
        {"value": dict},
        {"value": User},
        {"value": type("Unknown", (), {})},
    ],
)
def test_contradictory_kinds_of_values_are_refused(engine: Engine, options: dict[str, Any]) -> None:
    """What a value is must be said once, for reading and writing."""
    with pytest.raises(ConfigurationError, match=r"row= and columns="):
        TableSource(people, engine, **options)


def test_dataclass_with_a_field_that_is_no_column_is_refused(engine: Engine) -> None:
    """The message names the field."""

    @dataclass
    class Odd:
        id: int
        shoe_size: int

    with pytest.raises(ConfigurationError, match="has no shoe_size"):
        TableSource(people, engine, value=Odd)


@pytest.mark.parametrize(
    ("options", "value"),
    [({}, Person(1, "Ann")), ({"value": Person}, {"name": "Ann"}), ({}, "Ann")],
)
def test_value_of_another_type_is_a_usage_error(engine: Engine, options: dict[str, Any], value: Any) -> None:
    """It is refused before anything is written."""
    source: TableSource[int, Any] = TableSource(people, engine, **options)
    with pytest.raises(UsageError, match="values are"):
        source.store(1, value)
    with pytest.raises(UsageError, match="values are instances of User"):
        TableSource(User, engine).store(1, value)


def test_value_with_an_unknown_column_is_a_usage_error(engine: Engine) -> None:
    """A misspelt column is not dropped silently."""
    source: TableSource[int, Any] = TableSource(people, engine)
    with pytest.raises(UsageError, match="has no nmae"):
        source.store(1, {"name": "Ann", "nmae": "Ann"})


def test_value_without_a_column_that_must_be_given_is_a_usage_error(engine: Engine) -> None:
    """A new row could not be made of it, whatever is there now."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store(1, {"name": "Ann"})
    with pytest.raises(UsageError, match="needs name"):
        source.store(1, {"city": "Oslo"})


def test_expired_instance_is_a_usage_error(engine: Engine) -> None:
    """What its session has forgotten cannot be written, and is not taken for left out."""
    with Session(engine) as session:
        user = User(id=1, full_name="Ann")
        session.add(user)
        session.commit()
        with pytest.raises(UsageError, match="expire_on_commit"):
            TableSource(User, engine).store(1, user)


# Columns that the database fills --------------------------------------------------------------------------------------


def test_columns_with_defaults_may_be_left_out(engine: Engine) -> None:
    """Defaults of either side fill a new row; `onupdate` works on a row that exists, and computed columns are never written."""
    clock = iter(range(1, 100))
    metadata = MetaData()
    table = Table(
        "filled",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String, nullable=False),
        Column("state", String, nullable=False, server_default="new"),
        Column("token", Integer, nullable=False, default=lambda: next(clock)),
        Column("seen", Integer, onupdate=7),
        Column("changed", DateTime, onupdate=lambda: NEW_YEAR),
        Column("stamp", String, onupdate=func.upper("later")),
        Column("double", Integer, Computed("id * 2")),
    )
    metadata.create_all(engine)
    source: TableSource[int, Any] = TableSource(table, engine)
    source.store_many({1: {"name": "Ann"}, 2: {"name": "Bob"}})
    first = source.load(1)
    assert (first["state"], first["token"], first["seen"], first["double"]) == ("new", 1, None, 2)
    assert source.load(2)["token"] == 2
    source.store(1, {**first, "name": "Anna"})
    again = source.load(1)
    assert (again["name"], again["token"], again["seen"], again["stamp"]) == ("Anna", 1, 7, "LATER")
    assert again["changed"] == NEW_YEAR


def test_row_that_is_only_its_key_can_be_stored_twice(engine: Engine) -> None:
    """There is nothing to update then."""
    metadata = MetaData()
    table = Table(
        "pairs", metadata, Column("left", Integer, primary_key=True), Column("right", Integer, primary_key=True)
    )
    metadata.create_all(engine)
    source: TableSource[Any, Any] = TableSource(table, engine)
    for _ in range(2):
        source.store((1, 2), {})
    assert source.load((1, 2)) == {"left": 1, "right": 2}


def test_columns_that_are_always_generated_are_not_written(engine: Engine) -> None:
    """A loaded value can be put back under another key though it has a number that only the server gives."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no such columns")
    metadata = MetaData()
    table = Table(
        "numbered",
        metadata,
        Column("code", String, primary_key=True),
        Column("number", Integer, Identity(always=True)),
        Column("name", String),
    )
    metadata.create_all(engine)
    source: TableSource[str, Any] = TableSource(table, engine)
    source.store("a", {"name": "Ann"})
    source.store("a", {**source.load("a"), "name": "Anna"})
    assert source.load("a") == {"code": "a", "number": 1, "name": "Anna"}


def test_names_of_attributes_and_keys_of_columns_are_those_of_values(engine: Engine) -> None:
    """A column that the table calls otherwise is known by its key in Python."""
    table = Table(
        "renamed", MetaData(), Column("ID", Integer, key="id", primary_key=True), Column("n", Integer, key="size")
    )
    with engine.begin() as connection:
        connection.execute(text('CREATE TABLE renamed ("ID" INTEGER PRIMARY KEY, n INTEGER)'))
    source: TableSource[int, Any] = TableSource(table, engine)
    source.store_many({1: {"size": 5}, 2: {"size": 6}})
    assert source.load(1) == {"id": 1, "size": 5}
    source.delete(1)
    assert list(source.load_many([1, 2])) == [2]
