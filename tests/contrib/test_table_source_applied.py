"""`apply`: each write of a journal has its effect once, whatever crashes and whoever else applies."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import URL, Engine, MetaData, event, inspect, select, text
from sqlalchemy.exc import IntegrityError
from tests.contrib.table_models import Person, people, tables
from tests.support.waiting import DEADLINE, Call, start_together, wait_until

from credenza import DELETED, Change, ConfigurationError, UsageError, WriteBatch
from credenza.contrib.sqlalchemy import TableSource, applied_table

Source = TableSource[int, Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tables_made(engine: Engine) -> None:
    """All tables, empty."""
    tables.create_all(engine)


@pytest.fixture
def source(engine: Engine) -> Source:
    source: Source = TableSource(people, engine, exactly_once=True)
    source.install()
    return source


def batch(*changes: tuple[int, str | None, int], journal: str = "j") -> WriteBatch[int, Any]:
    """Return a batch of (key, name or None for a delete, place)."""
    return WriteBatch(
        journal, [Change(key, DELETED if name is None else {"name": name}, place) for key, name, place in changes]
    )


def names(source: Source) -> dict[int, str]:
    return {key: row["name"] for key, row in source.load_many(range(100)).items()}


def test_batch_is_applied(source: Source) -> None:
    """Values are stored and records deleted, in one call."""
    source.store_many({3: {"name": "Cleo"}, 4: {"name": "Dan"}})
    source.apply(batch((1, "Ann", 1), (3, None, 2), (2, "Bob", 3)))
    assert names(source) == {1: "Ann", 2: "Bob", 4: "Dan"}


def test_batch_that_comes_again_changes_nothing(source: Source) -> None:
    """After a crash before the journal knew: what others have written since stays."""
    both = batch((1, "Ann", 1), (2, None, 2))
    source.apply(both)
    source.store_many({1: {"name": "by hand"}, 2: {"name": "made again"}})
    source.apply(both)
    assert names(source) == {1: "by hand", 2: "made again"}


def test_later_change_of_a_key_is_applied_beside_those_that_come_again(source: Source) -> None:
    """A batch may mix what was applied with what was not."""
    source.apply(batch((1, "Ann", 1), (2, "Bob", 2)))
    source.store(2, {"name": "by hand"})
    source.apply(batch((2, "Bob", 2), (1, "Anna", 3), (3, "Cleo", 4)))
    assert names(source) == {1: "Anna", 2: "by hand", 3: "Cleo"}


def test_older_batch_after_a_later_one_changes_nothing(source: Source) -> None:
    """An applier that was overtaken does not bring old values back."""
    source.apply(batch((1, "new", 7)))
    source.apply(batch((1, "old", 3), (2, "old", 6)))
    assert names(source) == {1: "new"}


def test_journals_have_places_of_their_own(source: Source) -> None:
    """The same place of another journal is another write."""
    source.apply(batch((1, "Ann", 5)))
    source.apply(batch((1, "Anna", 1), journal="other"))
    assert names(source) == {1: "Anna"}


@pytest.mark.parametrize("place", [0, 2**62])
def test_places_may_be_any_number_from_zero(source: Source, place: int) -> None:
    """The first place of a journal is applied, and large ones fit."""
    source.apply(batch((1, "Ann", place)))
    source.store(1, {"name": "by hand"})
    source.apply(batch((1, "Ann", place)))
    assert names(source) == {1: "by hand"}


def test_failing_batch_notes_no_place(source: Source, engine: Engine) -> None:
    """What the database refuses is applied as a whole when it comes again, repaired."""
    source.store(9, {"name": "Zoe", "tenant": 1, "slug": "zoe"})
    bad: WriteBatch[int, Any] = WriteBatch(
        "j", [Change(1, {"name": "Ann"}, 1), Change(2, {"name": "Bob", "tenant": 1, "slug": "zoe"}, 2)]
    )
    with pytest.raises(IntegrityError):
        source.apply(bad)
    assert names(source) == {9: "Zoe"}
    source.apply(batch((1, "Ann", 1), (2, "Bob", 2)))
    assert names(source) == {1: "Ann", 2: "Bob", 9: "Zoe"}


def test_contradictory_value_is_refused_before_the_database_is_asked(source: Source, statements: list[str]) -> None:
    """Nothing of the batch is written, and no lock is taken."""
    statements.clear()
    with pytest.raises(UsageError, match="value of 2 has another id"):
        source.apply(WriteBatch("j", [Change(1, {"name": "Ann"}, 1), Change(2, {"id": 3, "name": "Bob"}, 2)]))
    assert statements == []


def test_batch_takes_four_statements(source: Source, statements: list[str]) -> None:
    """The claim, one upsert, one delete, the new place; one statement if it was all applied, or to ask how far it is."""
    many = batch(*((key, "x" if key % 2 else None, key) for key in range(1, 99)))
    for expected in (4, 1):
        statements.clear()
        source.apply(many)
        assert len(statements) == expected
    statements.clear()
    assert source.apply(batch()) == 98
    assert len(statements) == 1


def test_apply_is_there_only_when_asked_for(engine: Engine) -> None:
    """Without `exactly_once` write-behind finds `store_many` and `delete_many` alone."""
    source: Source = TableSource(people, engine)
    assert not hasattr(source, "apply")
    with pytest.raises(AttributeError, match="exactly_once=True"):
        source.apply(batch((1, "Ann", 1)))


def test_typed_values_are_applied(source: Source, engine: Engine) -> None:
    """Batches carry whatever the source's values are."""
    typed = TableSource(people, engine, value=Person, exactly_once=True)
    typed.apply(WriteBatch("j", [Change(1, Person(1, "Ann"), 1), Change(2, DELETED, 2)]))
    assert typed.load(1) == Person(1, "Ann")


# The table ------------------------------------------------------------------------------------------------------------


def test_missing_table_says_how_to_make_it(engine: Engine) -> None:
    """The first batch fails clearly and writes nothing; after `install` it succeeds, which may be called again."""
    source: Source = TableSource(people, engine, exactly_once=True)
    with pytest.raises(ConfigurationError, match=r"credenza_applied is missing.*install\(\).*ddl\(\)"):
        source.apply(batch((1, "Ann", 1)))
    assert names(source) == {}
    source.install()
    source.install()
    source.apply(batch((1, "Ann", 1)))
    assert names(source) == {1: "Ann"}


def test_ddl_makes_the_table(engine: Engine) -> None:
    """What a migration needs is one statement, as text; the name can be chosen."""
    source: Source = TableSource(people, engine, exactly_once=True, applied="shop_applied")
    with engine.begin() as connection:
        connection.execute(text(source.ddl()))
    assert inspect(engine).has_table("shop_applied")
    source.apply(batch((1, "Ann", 1)))
    assert names(source) == {1: "Ann"}


def test_table_in_the_metadata_of_the_application_is_the_same(engine: Engine) -> None:
    """Migration tools see it there; the source uses it."""
    metadata = MetaData()
    table = applied_table(metadata)
    metadata.create_all(engine)
    source: Source = TableSource(people, engine, exactly_once=True)
    source.apply(batch((1, "Ann", 5)))
    with engine.connect() as connection:
        assert connection.execute(select(table)).all() == [("j", 5)]


def test_table_is_in_the_schema_of_the_target(engine: Engine) -> None:
    """Records and place are in one database and schema."""
    source: Source = TableSource(people.to_metadata(MetaData(), schema="shop"), engine, exactly_once=True)
    assert "shop.credenza_applied" in source.ddl()


# Several appliers -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_before_commit(engine: Engine) -> Iterator[tuple[Event, Event]]:
    """Hold the next commit of the engine; yields what says that it has come there, and what lets it go on."""
    reached, free = Event(), Event()

    def hold(connection: object) -> None:
        reached.set()
        assert free.wait(DEADLINE), "nobody let the commit go on"

    event.listen(engine, "commit", hold, once=True)
    try:
        yield reached, free
    finally:
        free.set()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("is_new", [True, False])
def test_second_applier_of_a_journal_waits_for_the_first(
    database_url: URL, make_engine: Callable[..., Engine], is_new: bool
) -> None:
    """An applier with an older batch waits, then leaves out what the first has applied; also with a journal's first batch."""
    first_engine, second_engine = make_engine(database_url), make_engine(database_url)
    tables.create_all(first_engine)
    first: Source = TableSource(people, first_engine, exactly_once=True)
    second: Source = TableSource(people, second_engine, exactly_once=True)
    first.install()
    if not is_new:
        first.apply(batch((5, "Eve", 0)))
    with held_before_commit(first_engine) as (reached, free):
        ahead = Call(lambda: first.apply(batch((1, "new", 3), (2, "new", 2))))
        assert reached.wait(DEADLINE)
        behind = Call(lambda: second.apply(batch((1, "old", 1), (2, "new", 2), (3, "later", 4))))
        wait_until(lambda: count_waiting(make_engine(database_url)) == 1, "the second applier waits for a lock")
        assert not behind.is_done
        free.set()
        ahead.result()
        behind.result()
    found = names(first)
    assert {key: found[key] for key in (1, 2, 3)} == {1: "new", 2: "new", 3: "later"}


def count_waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
        count = connection.execute(text(waiting)).scalar_one()
    engine.dispose()
    return int(count)


def test_appliers_in_any_order_end_with_the_last_place(
    database_url: URL, make_engine: Callable[..., Engine], source: Source
) -> None:
    """Four appliers race through the same batches, each in an order of its own; no old value comes back."""
    batches = [batch((1, f"{place}", place)) for place in range(40)]
    seeds = iter(range(4))
    options = {"connect_args": {"timeout": 15}} if database_url.drivername == "sqlite" else {}
    engine = make_engine(database_url, **options)

    def apply_all() -> None:
        racer: Source = TableSource(people, engine, exactly_once=True)
        for each in random.Random(next(seeds)).sample(batches, len(batches)):
            racer.apply(each)

    for call in start_together(4, apply_all):
        call.result()
    assert names(source) == {1: "39"}


# Crashes --------------------------------------------------------------------------------------------------------------

CHILD = """
    import os, sys
    from sqlalchemy import create_engine, event
    from tests.contrib.table_models import people
    from credenza import Change, DELETED, WriteBatch
    from credenza.contrib.sqlalchemy import TableSource

    url, moment = os.environ["SOURCE_URL"], sys.argv[1]

    def stop(*_):
        print("reached", flush=True)
        sys.stdin.read()

    engine = create_engine(url)
    source = TableSource(people, engine, exactly_once=True)
    if moment == "before the commit":
        event.listen(engine, "commit", stop)
    source.apply(WriteBatch("j", [Change(1, {"name": "Ann"}, 1), Change(2, DELETED, 2)]))
    stop()
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_killed_applier_leaves_a_batch_applied_once_or_not_at_all(
    database_url: URL, source: Source, moment: str
) -> None:
    """Killed before the commit nothing was applied, and it all is when it comes again; killed after it, before the
    journal settles, the batch comes again and has no second effect.
    """
    source.store(2, {"name": "Bob"})
    environment = {**os.environ, "SOURCE_URL": database_url.render_as_string(hide_password=False)}
    command = [sys.executable, "-c", textwrap.dedent(CHILD), moment]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "reached\n"
        finally:
            child.send_signal(signal.SIGKILL)
    if moment == "before the commit":
        assert names(source) == {2: "Bob"}
        source.apply(batch((1, "Ann", 1), (2, None, 2), (3, "Cleo", 3)))
        assert names(source) == {1: "Ann", 3: "Cleo"}
    else:
        assert names(source) == {1: "Ann"}
        source.store_many({1: {"name": "by hand"}, 2: {"name": "made again"}})
        source.apply(batch((1, "Ann", 1), (2, None, 2), (3, "Cleo", 3)))
        assert names(source) == {1: "by hand", 2: "made again", 3: "Cleo"}


def test_place_of_a_journal_goes_back_with_the_records(source: Source, engine: Engine) -> None:
    """Both are in one transaction: what is rolled back is applied when it comes again."""

    def fail(*_: object) -> None:
        raise RuntimeError("the commit fails")

    event.listen(engine, "commit", fail)
    with pytest.raises(RuntimeError, match="the commit fails"):
        source.apply(batch((1, "Ann", 1)))
    event.remove(engine, "commit", fail)
    source.apply(batch((1, "Ann", 1)))
    assert names(source) == {1: "Ann"}
