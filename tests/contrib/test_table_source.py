"""`TableSource`: reading, upserting and deleting the rows of tables and mapped classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from tests.contrib.table_models import Base, Order, Stock, User, people, stock, tables
from tests.support.waiting import start_together

from credenza import Cache, NotFound, UsageError, WriteThrough
from credenza.contrib.sqlalchemy import TableSource


@dataclass(frozen=True)
class Case:
    """One target: two keys, the values to write under a key, and how to look at a value."""

    target: Any
    keys: tuple[Any, ...]
    make: Callable[[Any, str], Any]
    shown: Callable[[Any], Any]


def key_of_number(number: int) -> tuple[str, int]:
    return ("north" if number % 2 else "south", number)


CASES = {
    "table": Case(people, (1, 2, 3), lambda key, word: {"name": word}, lambda value: value["name"]),
    "class": Case(User, (1, 2, 3), lambda key, word: User(id=key, full_name=word), lambda value: value.full_name),
    "composite table": Case(
        stock,
        tuple(map(key_of_number, (1, 2, 3))),
        lambda key, word: {"count": len(word)},
        lambda value: "x" * value["count"],
    ),
    "composite dataclass": Case(
        Stock,
        tuple(map(key_of_number, (1, 2, 3))),
        lambda key, word: Stock(key[0], key[1], len(word)),
        lambda value: "x" * value.count,
    ),
}


@pytest.fixture(autouse=True)
def tables_made(engine: Engine) -> None:
    """All tables, empty."""
    tables.create_all(engine)
    Base.metadata.create_all(engine)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def source(case: Case, engine: Engine) -> TableSource[Any, Any]:
    return TableSource(case.target, engine)


def test_stored_record_is_loaded(case: Case, source: TableSource[Any, Any]) -> None:
    """What was stored under a key is loaded under it, by either way of loading."""
    first, second, _ = case.keys
    source.store(first, case.make(first, "x"))
    source.store(second, case.make(second, "xx"))
    assert case.shown(source.load(first)) == "x"
    assert {key: case.shown(value) for key, value in source.load_many(case.keys).items()} == {first: "x", second: "xx"}


def test_store_over_a_record_replaces_it(case: Case, source: TableSource[Any, Any]) -> None:
    """A second store of a key is an update; others are untouched."""
    first, second, _ = case.keys
    source.store_many({first: case.make(first, "x"), second: case.make(second, "xx")})
    source.store_many({first: case.make(first, "xxx")})
    assert [case.shown(source.load(key)) for key in (first, second)] == ["xxx", "xx"]


def test_record_that_is_not_there_is_not_found(case: Case, source: TableSource[Any, Any]) -> None:
    """`load` raises `NotFound` with the key, `load_many` leaves it out."""
    with pytest.raises(NotFound) as caught:
        source.load(case.keys[0])
    assert caught.value.key == case.keys[0]
    assert source.load_many(case.keys) == {}


def test_deleted_records_are_gone(case: Case, source: TableSource[Any, Any]) -> None:
    """Deleting takes what is there, and may be repeated."""
    first, second, third = case.keys
    source.store_many({key: case.make(key, "x") for key in case.keys})
    source.delete(first)
    source.delete_many([first, second])
    assert list(source.load_many(case.keys)) == [third]


def test_every_call_is_one_statement(case: Case, source: TableSource[Any, Any], statements: list[str]) -> None:
    """Loading, storing and deleting, one or many, each take one statement."""
    values = {key: case.make(key, "x") for key in case.keys}
    calls: list[Callable[[], object]] = [
        lambda: source.store_many(values),
        lambda: source.load_many(case.keys),
        lambda: source.load(case.keys[0]),
        lambda: source.store(case.keys[0], values[case.keys[0]]),
        lambda: source.delete(case.keys[0]),
        lambda: source.delete_many(case.keys),
    ]
    for call in calls:
        statements.clear()
        call()
        assert len(statements) == 1


def test_call_without_keys_is_no_statement(source: TableSource[Any, Any], statements: list[str]) -> None:
    """Nothing to do does not ask the database."""
    statements.clear()
    assert source.load_many([]) == {}
    source.store_many({})
    source.delete_many([])
    assert statements == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "queries"), [("table", 1), ("composite table", 10)])
def test_ten_thousand_records_take_as_few_statements_as_the_database_allows(
    name: str, queries: int, engine: Engine, statements: list[str]
) -> None:
    """Bulk calls are cut only where a statement would be more than a driver or the server takes."""
    case = CASES[name]
    source: TableSource[Any, Any] = TableSource(case.target, engine)
    keys = list(range(10_000)) if name == "table" else [key_of_number(number) for number in range(10_000)]
    statements.clear()
    source.store_many({key: case.make(key, "xx") for key in keys})
    assert len(statements) <= 2
    assert all(statement.count("ON CONFLICT") == 1 for statement in statements)
    assert sum(statement.count("), (") + 1 for statement in statements) >= len(keys)
    statements.clear()
    assert len(source.load_many(keys)) == len(keys)
    assert len(statements) == queries
    source.delete_many(keys[1:])
    assert list(source.load_many(keys)) == keys[:1]


@pytest.mark.timeout(60)
def test_more_keys_than_parameters_are_asked_for_in_parts(engine: Engine, statements: list[str]) -> None:
    """35,000 keys are more than any statement takes; all of them are looked for."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store_many({key: {"name": "x"} for key in (0, 30_000, 34_999)})
    statements.clear()
    assert sorted(source.load_many(range(35_000))) == [0, 30_000, 34_999]
    assert len(statements) == 2
    source.delete_many(range(35_000))
    assert source.load_many([0, 30_000, 34_999]) == {}


def test_failing_bulk_write_leaves_nothing(engine: Engine) -> None:
    """All or none: what the database refuses takes the rest with it, and its error arrives as it is."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store(9, {"name": "Ann", "tenant": 1, "slug": "ann"})
    values = {1: {"name": "Bob"}, 2: {"name": "Cleo", "tenant": 1, "slug": "ann"}}
    with pytest.raises(IntegrityError):
        source.store_many(values)
    assert list(source.load_many([1, 2, 9])) == [9]


def test_values_with_different_columns_are_written_together(engine: Engine) -> None:
    """One call may mix values that give more and fewer columns; what is not given stays."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store_many({1: {"name": "Ann", "city": "Oslo"}, 2: {"name": "Bob", "city": "Rome"}})
    source.store_many({1: {"name": "Anna"}, 2: {"name": "Bob", "city": "Bonn"}, 3: {"name": "Cleo"}})
    found = source.load_many([1, 2, 3])
    assert [(row["name"], row["city"]) for row in found.values()] == [("Anna", "Oslo"), ("Bob", "Bonn"), ("Cleo", None)]


def test_load_sees_what_was_committed_before_it(engine: Engine) -> None:
    """No load lives in an older snapshot: each has a transaction of its own."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store(1, {"name": "Ann"})
    assert source.load(1)["name"] == "Ann"
    with engine.begin() as connection:
        connection.execute(update(people).values(name="Anna"))
    assert source.load(1)["name"] == "Anna"
    assert source.load_many([1])[1]["name"] == "Anna"


def test_load_does_not_see_what_is_not_committed(engine: Engine) -> None:
    """An open transaction of somebody else stays out of the cache."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store(1, {"name": "Ann"})
    with engine.connect() as connection:
        connection.execute(update(people).values(name="Anna"))
        assert source.load(1)["name"] == "Ann"


def test_calls_leave_no_connection_behind(engine: Engine) -> None:
    """Every call gives its connection back, whether it succeeds or fails."""
    source: TableSource[int, Any] = TableSource(people, engine)
    source.store(1, {"name": "Ann", "tenant": 1, "slug": "ann"})
    source.load(1)
    with pytest.raises(NotFound):
        source.load(2)
    with pytest.raises(IntegrityError):
        source.store(3, {"name": "Bob", "tenant": 1, "slug": "ann"})
    source.delete(1)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a QueuePool


def test_key_that_the_database_only_calls_equal_is_not_found(engine: Engine) -> None:
    """A row is found under its own key alone: under another it would be an entry that its invalidation misses."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL needs an extension or an own collation for that")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE plain_stock"))
        connection.execute(
            text(
                "CREATE TABLE plain_stock (shop TEXT COLLATE NOCASE, article INT, count INT, PRIMARY KEY (shop, article))"
            )
        )
        connection.execute(insert(stock), [{"shop": "north", "article": 1, "count": 5}])
        assert connection.execute(select(stock.c.count).where(stock.c.shop == "NORTH")).scalar_one() == 5
    source: TableSource[Any, Any] = TableSource(stock, engine)
    assert list(source.load_many([("NORTH", 1), ("north", 1)])) == [("north", 1)]
    with pytest.raises(NotFound):
        source.load(("NORTH", 1))


def test_concurrent_bulk_writes_of_the_same_rows_do_not_deadlock(engine: Engine) -> None:
    """Rows are written in the order of their keys, so that writers wait for each other and never in a circle."""
    source: TableSource[int, Any] = TableSource(people, engine)
    forwards, backwards = range(300), range(299, -1, -1)
    orders = iter([forwards, backwards, forwards, backwards])

    def write() -> None:
        order = next(orders)
        for _ in range(10):
            source.store_many({key: {"name": "x"} for key in order})

    for call in start_together(4, write):
        call.result()
    assert len(source.load_many(forwards)) == 300


@pytest.mark.parametrize("key", [("north", None), "north", ("north", 1, 2), ("north",), None])
def test_key_of_another_shape_is_a_usage_error(engine: Engine, key: Any) -> None:
    """A composite key is a tuple with a part for each column."""
    source: TableSource[Any, Any] = TableSource(stock, engine)
    for call in (source.load, source.delete, lambda key: source.store(key, {"count": 1})):
        with pytest.raises(UsageError, match="key"):
            call(key)


def test_value_that_contradicts_its_key_is_refused_before_anything_is_written(
    engine: Engine, statements: list[str]
) -> None:
    """A value whose key columns are another record's is a mistake; its content is not in the message."""
    source: TableSource[int, Any] = TableSource(people, engine)
    statements.clear()
    with pytest.raises(UsageError, match="value of 2 has another id") as caught:
        source.store_many({1: {"id": 1, "name": "Ann"}, 2: {"id": 77, "name": "secret"}})
    assert "secret" not in str(caught.value)
    assert "77" not in str(caught.value)
    assert statements == []


def test_mapped_instance_can_be_used_after_its_session(engine: Engine, statements: list[str]) -> None:
    """A loaded instance has all its columns, belongs to no session, and is loaded without its relationships."""
    with Session(engine) as session:
        session.add(User(id=1, full_name="Ann", email="ann@example.org", orders=[Order(id=5)]))
        session.commit()
    statements.clear()
    user = TableSource(User, engine).load(1)
    assert (user.full_name, user.email) == ("Ann", "ann@example.org")
    assert len(statements) == 1
    assert "orders" not in statements[0]
    with Session(engine) as session:
        assert len(session.merge(user, load=False).orders) == 1
    assert user.full_name == "Ann"


def test_repository_reads_and_writes_through_a_table_source(engine: Engine, statements: list[str]) -> None:
    """A repository over the source hits after one query, and writes through."""
    users = Cache().repository(TableSource(people, engine), strategy=WriteThrough(), key="person:{}")
    users.put(1, {"id": 1, "name": "Ann"})
    statements.clear()
    assert users.get(1) == {"id": 1, "name": "Ann"}
    assert statements == []
    users.put(2, {"id": 2, "name": "Bob"})
    users.invalidate(1, 2)
    statements.clear()
    assert sorted(users.get_many([1, 2, 3])) == [1, 2]
    assert len(statements) == 1
    users.delete(1)
    with pytest.raises(NotFound):
        users.get(1)
