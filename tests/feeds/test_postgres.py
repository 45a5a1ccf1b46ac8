"""The change log of PostgreSQL: whatever can happen to a table, a transaction, a server and a follower."""

import datetime
import decimal
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.feeds.places import Place, Recorder, follow, following
from tests.support.servers.impostors import proxy_to
from tests.support.waiting import wait_until

from credenza import Cache, ConfigurationError, FeedError
from credenza.feeds import postgres
from credenza.feeds.postgres import PostgresFeed, feed, install, migration, uninstall

USER = "INSERT INTO users VALUES (%s, 'Ann', 1)"


def filled(cache: Any, *keys: str) -> None:
    for key in keys:
        cache.set(key, "old")


# Transactions ---------------------------------------------------------------------------------------------------------


def late_commit_is_told(place: Place) -> bool:
    """Commit a transaction after a later one was read; tell whether it was told."""
    early, late = place.connect(), place.connect()
    with following(place) as (cache, follower):
        filled(cache, "user:1", "user:2")
        early.execute("BEGIN")
        early.execute(USER, (1,))
        late.execute(USER, (2,))
        assert follower.wait_until_caught_up()
        assert "user:2" not in cache
        early.execute("COMMIT")
        assert follower.wait_until_caught_up()
        return "user:1" not in cache


def test_transaction_that_commits_after_later_ones_is_told(triggers: Place) -> None:
    """Numbers are given out at the write and commits come in any order."""
    assert late_commit_is_told(triggers)


def test_reading_by_number_would_skip_a_late_commit(triggers: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a reader that goes on behind the last transaction that it saw is caught by the test above."""
    broken = feed._READ.replace(
        "xid = ANY (%(running)s::text[]::xid8[])", "xid = ANY (%(running)s::text[]::xid8[]) AND false"
    )
    assert broken != feed._READ
    monkeypatch.setattr(feed, "_READ", broken)
    assert not late_commit_is_told(triggers)


def test_transaction_that_idles_holds_nobody_up(triggers: Place) -> None:
    """What commits beside it is told at once, however long it takes."""
    idle, writer = triggers.connect(), triggers.connect()
    with following(triggers) as (cache, follower):
        idle.execute("BEGIN")
        idle.execute(USER, (1,))
        for number in range(2, 30):
            filled(cache, f"user:{number}")
            writer.execute(USER, (number,))
            assert follower.wait_until_caught_up()
            assert f"user:{number}" not in cache
        filled(cache, "user:1")
        idle.execute("COMMIT")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache
        assert follower.status().applied == 29


def test_prepared_transaction_is_told_when_it_commits(triggers: Place) -> None:
    """PREPARE TRANSACTION refuses NOTIFY, so the log is installed without it; followers poll."""
    writer = triggers.connect()
    install(writer, {"users": ["id", "team"]}, notify=False)
    with following(triggers) as (cache, follower):
        filled(cache, "user:1")
        writer.execute("BEGIN")
        writer.execute(USER, (1,))
        writer.execute("PREPARE TRANSACTION 'shop'")
        assert follower.wait_until_caught_up()
        assert "user:1" in cache
        writer.execute("COMMIT PREPARED 'shop'")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_commit_wakes_the_follower_before_it_would_ask(triggers: Place) -> None:
    """NOTIFY brings the news; polling is for what it loses."""
    writer = triggers.connect()
    with following(triggers, feed={"poll": 3600}) as (cache, _):
        for number in range(20):
            filled(cache, f"user:{number}")
            writer.execute(USER, (number,))
            wait_until(lambda number=number: f"user:{number}" not in cache, "the follower was woken")


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE users",
        "ALTER TABLE users ALTER team TYPE bigint",
        "ALTER TABLE users RENAME name TO label",
        "DROP TABLE users",
    ],
)
def test_truncate_and_ddl_empty_the_cache(triggers: Place, statement: str) -> None:
    """Nobody can tell which keys were made of the table."""
    writer = triggers.connect()
    with following(triggers) as (cache, follower):
        filled(cache, "user:1", "other")
        writer.execute(statement)
        follower.wake()
        wait_until(lambda: not len(cache), "the cache is emptied")


def test_ddl_without_an_event_trigger_is_noticed_by_looking(triggers: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event triggers are for superusers; the shape of the tables is looked at every few seconds instead."""
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 0.01)
    writer = triggers.connect()
    writer.execute("DROP EVENT TRIGGER credenza_ddl; DROP EVENT TRIGGER credenza_drop")
    with following(triggers, feed={"poll": 0.02}) as (cache, _):
        filled(cache, "user:1")
        writer.execute("ALTER TABLE users ADD COLUMN age integer")
        wait_until(lambda: not len(cache), "the cache is emptied")


def test_renamed_key_column_empties_the_cache_and_no_write_fails(triggers: Place) -> None:
    """A trigger that does not find its column must not fail the application's writes."""
    writer = triggers.connect()
    with following(triggers) as (cache, follower):
        filled(cache, "user:1")
        writer.execute("DROP EVENT TRIGGER credenza_ddl; ALTER TABLE users RENAME team TO squad")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        wait_until(lambda: not len(cache), "the cache is emptied")
        wait_until(lambda: follower.status().role == "away", "the follower says what is wrong")
        assert "'team'" in str(follower.status().error)
        writer.execute("ALTER TABLE users RENAME squad TO team")
        assert follower.wait_until_caught_up()
        assert follower.status().role == "reading"


def test_table_without_its_triggers_is_said_to_be_unfollowed(triggers: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written meanwhile is nowhere: the cache is emptied then, and when the triggers are back."""
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 0.01)
    writer = triggers.connect()
    with following(triggers, feed={"poll": 0.02}) as (cache, follower):
        writer.execute("ALTER TABLE users DISABLE TRIGGER credenza_row")
        wait_until(lambda: follower.status().role == "away", "the follower notices")
        wait_until(lambda: follower.status().clears >= 2, "the cache is emptied")
        filled(cache, "user:1")
        writer.execute(USER, (1,))
        install(writer, {"users": ["id", "team"]})
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_partitions_are_told_under_the_name_of_their_table(triggers: Place) -> None:
    """Be they written, truncated or altered by themselves, or made later."""
    writer = triggers.connect()
    writer.execute("CREATE TABLE sales (id integer, day integer) PARTITION BY RANGE (day)")
    writer.execute("CREATE TABLE sales1 PARTITION OF sales FOR VALUES FROM (0) TO (10)")
    install(writer, {"sales": ["id"]})
    writer.execute("CREATE TABLE sales2 PARTITION OF sales FOR VALUES FROM (10) TO (20)")
    with following(triggers, keys={"sales": "sale:{id}"}, tags=None) as (cache, follower):
        filled(cache, "sale:1", "sale:2", "sale:3")
        writer.execute("INSERT INTO sales VALUES (1, 1), (3, 15)")
        writer.execute("INSERT INTO sales1 VALUES (2, 2)")
        assert follower.wait_until_caught_up()
        assert not len(cache)
        for statement in ("TRUNCATE sales1", "ALTER TABLE sales DETACH PARTITION sales2"):
            filled(cache, "sale:1")
            writer.execute(statement)
            assert follower.wait_until_caught_up()
            assert not len(cache), statement


def test_heirs_that_are_written_through_their_parent_are_told(triggers: Place) -> None:
    """A statement names the parent alone, so an heir with an installation of its own is logged by the row."""
    writer = triggers.connect()
    writer.execute("CREATE TABLE guests () INHERITS (users)")
    install(writer, {"users": ["id", "team"], "guests": ["id"]})
    writer.execute("INSERT INTO guests VALUES (1, 'Ann', 1)")
    with following(triggers, keys={"guests": "guest:{id}"}, tags=None) as (cache, follower):
        filled(cache, "guest:1")
        writer.execute("UPDATE users SET name = 'Anna'")
        assert follower.wait_until_caught_up()
        assert "guest:1" not in cache


def test_table_that_becomes_a_partition_is_unfollowed_until_it_is_installed_again(triggers: Place) -> None:
    """What is written through its parent would not be told; the follower says so instead."""
    writer, tables = triggers.connect(), {"sales1": ["id"]}
    writer.execute("CREATE TABLE sales (id integer, day integer) PARTITION BY RANGE (day)")
    writer.execute("CREATE TABLE sales1 (id integer, day integer)")
    install(writer, tables)
    with following(triggers, keys={"sales1": "sale:{id}"}, tags=None) as (cache, follower):
        filled(cache, "sale:1")
        writer.execute("ALTER TABLE sales ATTACH PARTITION sales1 FOR VALUES FROM (0) TO (10)")
        wait_until(lambda: follower.status().role == "away", "the follower notices")
        wait_until(lambda: not len(cache), "the cache is emptied")
        install(writer, tables)
        assert follower.wait_until_caught_up()
        filled(cache, "sale:1")
        writer.execute("INSERT INTO sales VALUES (1, 1)")
        assert follower.wait_until_caught_up()
        assert "sale:1" not in cache


MANY = "SELECT n, 'x', 1 FROM generate_series(1, 3) n"
STATEMENTS = {
    "insert": f"INSERT INTO users {MANY} WHERE n <> 2",
    "upsert": f"INSERT INTO users {MANY} ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    "update": "UPDATE users SET id = id + 1",
    "delete": "DELETE FROM users",
    "merge": f"MERGE INTO users u USING ({MANY}) s (id, name, team) ON u.id = s.id "
    "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name, s.team)",
    "several": "WITH gone AS (DELETE FROM users RETURNING *) INSERT INTO users SELECT id + 1, name, team FROM gone",
    "cascade": "DELETE FROM teams",
    "copy": "COPY users FROM PROGRAM 'echo 1,x,1'  (FORMAT csv)",
    "view": "UPDATE views SET name = 'y'",
}
TOLD = {"insert": {1, 3}, "upsert": {1, 2, 3}, "update": {2, 3}, "merge": {1, 2, 3}, "several": {2, 3}, "copy": {1}}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_each_row_that_a_statement_changes_is_told(triggers: Place, statement: str) -> None:
    """However many there are, by whatever way, and no others."""
    writer = triggers.connect()
    writer.execute("CREATE TABLE teams (id integer PRIMARY KEY); INSERT INTO teams VALUES (1)")
    writer.execute("ALTER TABLE users ADD FOREIGN KEY (team) REFERENCES teams ON DELETE CASCADE")
    writer.execute("CREATE VIEW views AS SELECT * FROM users")
    if statement not in ("insert", "copy"):
        writer.execute(USER, (2,))
    with following(triggers, keys={"users": "user:{id}"}, tags=None) as (cache, follower):
        filled(cache, *(f"user:{number}" for number in range(5)))
        writer.execute(STATEMENTS[statement])
        assert follower.wait_until_caught_up()
        assert {number for number in range(5) if f"user:{number}" not in cache} == TOLD.get(statement, {2})
        assert follower.status().clears == 1


def test_statement_that_changes_nothing_logs_nothing(triggers: Place) -> None:
    """And wakes nobody: NOTIFY is not for free."""
    writer = triggers.connect()
    writer.execute("TRUNCATE credenza.changes; LISTEN credenza_changes")
    writer.execute("UPDATE users SET name = 'x' WHERE id = 7; DELETE FROM users; INSERT INTO users SELECT * FROM users")
    assert writer.execute("SELECT count(*) FROM credenza.changes").fetchone() == (0,)
    writer.execute("NOTIFY credenza_changes, 'the first'")
    assert next(writer.notifies(timeout=5, stop_after=1)).payload == "the first"


def test_statement_that_leaves_what_is_told_as_it_was_logs_one_row_each(triggers: Place) -> None:
    """Two are needed only where a key may have changed, be it to another way to write the same number."""
    writer = triggers.connect()
    writer.execute("CREATE TABLE prices (id integer, price numeric); INSERT INTO prices VALUES (1, 1.0), (2, 2.0)")
    install(writer, {"prices": ["id", "price"]})
    writer.execute("TRUNCATE credenza.changes; UPDATE prices SET price = price")
    assert writer.execute("SELECT count(*) FROM credenza.changes").fetchone() == (2,)
    writer.execute("TRUNCATE credenza.changes; UPDATE prices SET price = 1.00 WHERE id = 1")
    rows = writer.execute("SELECT \"row\" ->> 'price' FROM credenza.changes").fetchall()
    assert sorted(rows) == [("1.0",), ("1.00",)]


def test_writes_outside_of_savepoints_take_no_subtransactions(triggers: Place) -> None:
    """More than 64 of them in a transaction would slow the snapshots of everybody."""
    writer = triggers.connect()
    writer.execute("BEGIN")
    for number in range(80):
        writer.execute(USER, (number,))
    if writer.info.server_version >= 160000:
        query = (
            "SELECT s.subxact_count, s.subxact_overflowed FROM pg_stat_get_backend_idset() AS id, "
            "pg_stat_get_backend_subxact(id) AS s WHERE pg_stat_get_backend_pid(id) = pg_backend_pid()"
        )
        assert writer.execute(query).fetchone() == (0, False)
    writer.execute("ROLLBACK")


def test_log_that_was_installed_with_triggers_by_row_is_followed_and_replaced(triggers: Place) -> None:
    """They tell as much; the migration takes them away."""
    writer = triggers.connect()
    (function,) = writer.execute(
        "SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgname = 'credenza_row'"
    ).fetchone()
    for name in ("row", "insert", "update", "delete"):
        writer.execute(f"DROP TRIGGER credenza_{name} ON users")
    writer.execute(
        "CREATE TRIGGER credenza_row AFTER INSERT OR UPDATE OR DELETE ON users "
        f"FOR EACH ROW EXECUTE FUNCTION {function}()"
    )
    with following(triggers) as (cache, follower):
        for number in (1, 2):
            filled(cache, f"user:{number}")
            writer.execute(USER, (number,))
            assert follower.wait_until_caught_up()
            assert f"user:{number}" not in cache
            assert follower.status().error is None
            install(writer, {"users": ["id", "team"]})
    names = writer.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'credenza%' AND tgqual IS NULL ORDER BY 1")
    assert [name for (name,) in names] == ["credenza_delete", "credenza_insert", "credenza_truncate", "credenza_update"]


def test_rows_that_a_subscription_applies_are_told(triggers: Place) -> None:
    """It fires triggers for rows and none for statements."""
    assert triggers.server is not None
    writer = triggers.connect()
    with triggers.server.connect() as admin:
        admin.execute("CREATE DATABASE publisher")
        try:
            with triggers.server.connect("publisher") as publisher:
                publisher.execute("CREATE TABLE users (id integer PRIMARY KEY, name text, team integer)")
                publisher.execute("CREATE PUBLICATION outside FOR TABLE users")
                publisher.execute("SELECT pg_create_logical_replication_slot('inside', 'pgoutput')")
                writer.execute(
                    f"CREATE SUBSCRIPTION inside CONNECTION '{triggers.server.url('publisher')}' PUBLICATION outside "
                    "WITH (create_slot = false, copy_data = false)"
                )
                with following(triggers) as (cache, follower):
                    for statement in (f"INSERT INTO users {MANY}", "UPDATE users SET name = 'y'", "DELETE FROM users"):
                        filled(cache, "user:1", "user:2")
                        publisher.execute(statement)
                        wait_until(lambda: not len(cache), "the rows are told")
                    assert follower.status().clears == 1
        finally:
            writer.execute("ALTER SUBSCRIPTION inside DISABLE")
            writer.execute("ALTER SUBSCRIPTION inside SET (slot_name = NONE); DROP SUBSCRIPTION inside")
            admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'publisher'")
            with triggers.server.connect("publisher") as publisher:
                publisher.execute("SELECT pg_drop_replication_slot('inside')")
            admin.execute("DROP DATABASE publisher WITH (FORCE)")


def test_rows_that_replication_writes_are_told(triggers: Place) -> None:
    """Its sessions skip ordinary triggers; these always fire."""
    writer = triggers.connect()
    with following(triggers) as (cache, follower):
        filled(cache, "user:1")
        writer.execute("SET session_replication_role = replica")
        writer.execute(USER, (1,))
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_table_and_columns_of_odd_names_are_told(triggers: Place) -> None:
    """Names are quoted in all the SQL that is made of them."""
    writer = triggers.connect()
    name = '"my shop"."it\'s %s {x}"'
    writer.execute('CREATE SCHEMA "my shop"')
    writer.execute(f'CREATE TABLE {name} ("a ""b""" integer)')
    install(writer, {name: ['a "b"']})
    install(writer, {name: ['a "b"']})
    with following(triggers, keys={name: lambda row: [("odd", row['a "b"'])]}, tags=None) as (cache, follower):
        cache.set(("odd", 7), "old")
        writer.execute(f"INSERT INTO {name} VALUES (7)")
        assert follower.wait_until_caught_up()
        assert not len(cache)


VALUES = {
    "integer": 42,
    "bigint": 1 << 60,
    "text": "it's \U0001f375",
    "boolean": True,
    "uuid": uuid.UUID("6f1a3a52-32ab-4d0b-b5f3-0e9a3ad1f0aa"),
    "numeric": decimal.Decimal("12.50"),
    "double precision": 0.1,
    "date": datetime.date(2026, 11, 23),
    "timestamp": datetime.datetime(2026, 11, 23, 10, 30, 0, 123),  # noqa: DTZ001  # the type has none
    "timestamptz": datetime.datetime(2026, 11, 23, 10, 30, tzinfo=datetime.UTC),
    "bytea": b"\x00\xff",
    "varchar(9)": "plain",
}


@pytest.mark.parametrize("type_", VALUES)
@pytest.mark.parametrize("kind", ["triggers", "logical"])
def test_key_of_any_type_is_the_one_that_the_application_makes(
    kind: str, type_: str, request: pytest.FixtureRequest
) -> None:
    """A column comes as the value that psycopg gives the application, so templates render it alike."""
    place: Place = request.getfixturevalue(kind)
    writer, value = place.connect(), VALUES[type_]
    writer.execute(f"CREATE TABLE things (id {type_} PRIMARY KEY)")
    if kind == "triggers":
        install(writer, {"things": ["id"]})
    else:
        writer.execute("ALTER PUBLICATION shop ADD TABLE things")
    with following(place, keys={"things": "thing:{id}"}, tags=None) as (cache, follower):
        loads = []

        @cache.cached(key="thing:{number}")
        def thing(number: Any) -> str:
            loads.append(number)
            return "value"

        thing(value)
        writer.execute("SET TimeZone = 'Asia/Tokyo'; SET bytea_output = 'escape'; SET DateStyle = 'German'")
        writer.execute("INSERT INTO things VALUES (%s)", (value,))
        assert follower.wait_until_caught_up()
        assert follower.status().clears == 1
        thing(value)
        assert len(loads) == 2


# The log --------------------------------------------------------------------------------------------------------------


def test_migration_can_be_read_run_twice_and_removed(triggers: Place) -> None:
    """Nothing is left, and the table stays."""
    writer = triggers.connect()
    text = migration({"users": ["id", "team"]}, readers=["postgres"])
    assert "CREATE TRIGGER" in text
    writer.execute(text)
    writer.execute(text)
    uninstall(writer)
    uninstall(writer)
    writer.execute(USER, (1,))
    assert not writer.execute("SELECT FROM pg_namespace WHERE nspname = 'credenza'").fetchall()
    assert not writer.execute("SELECT FROM pg_trigger WHERE tgname LIKE 'credenza%'").fetchall()
    assert not writer.execute("SELECT FROM pg_event_trigger").fetchall()


def test_log_of_a_later_version_is_left_alone(triggers: Place) -> None:
    """By the migration, and by followers."""
    writer = triggers.connect()
    writer.execute("UPDATE credenza.state SET version = 99")
    with pytest.raises(psycopg.errors.RaiseException, match="later version"):
        install(writer, {"users": ["id"]})
    with Cache[str, str]() as cache, pytest.raises(ConfigurationError, match="version"):
        follow(cache, triggers.feed())


def test_missing_log_is_said_at_the_start(triggers: Place) -> None:
    """The message says what to run."""
    uninstall(triggers.where)
    with Cache[str, str]() as cache, pytest.raises(ConfigurationError, match="migration"):
        follow(cache, triggers.feed())


def test_role_without_rights_but_those_of_a_reader_can_follow(triggers: Place) -> None:
    """And a writer needs none; event triggers are left out where they are refused."""
    admin = triggers.connect()
    admin.execute("DROP ROLE IF EXISTS clerk; DROP ROLE IF EXISTS owner_; DROP ROLE IF EXISTS follower_")
    admin.execute("CREATE ROLE clerk LOGIN; CREATE ROLE owner_ LOGIN; CREATE ROLE follower_ LOGIN")
    admin.execute("GRANT USAGE ON SCHEMA public TO clerk, owner_; GRANT ALL ON DATABASE followed TO owner_")
    uninstall(admin)
    admin.execute("ALTER TABLE users OWNER TO owner_; GRANT ALL ON users TO clerk")
    url = triggers.where.replace("postgres@", "{}@")
    try:
        install(url.format("owner_"), {"users": ["id", "team"]}, readers=["follower_"])
        with Cache[str, str](ttl=None) as cache, follow(cache, PostgresFeed(url.format("follower_"))) as follower:
            assert follower.wait_until_caught_up()
            cache.set("user:1", "old")
            with psycopg.connect(url.format("clerk"), autocommit=True) as writer:
                writer.execute(USER, (1,))
            assert follower.wait_until_caught_up()
            assert "user:1" not in cache
            assert follower.status().error is None
    finally:
        admin.execute("DROP SCHEMA credenza CASCADE; DROP OWNED BY clerk, owner_, follower_ CASCADE")
        admin.execute("DROP ROLE clerk; DROP ROLE owner_; DROP ROLE follower_")


def test_rows_are_deleted_when_they_are_old_and_read_by_then(triggers: Place) -> None:
    """The log does not grow for ever; who keeps up misses nothing."""
    writer = triggers.connect()
    with following(triggers, feed={"retention": 0.05, "poll": 0.02}) as (_, follower):
        writer.execute("INSERT INTO users SELECT n, 'x', 1 FROM generate_series(1, 500) n")
        wait_until(
            lambda: writer.execute("SELECT count(*) FROM credenza.changes").fetchone() == (0,), "the log is trimmed"
        )
        assert follower.wait_until_caught_up()
        assert follower.status().clears == 1
        assert follower.status().applied == 500


def test_follower_that_was_away_for_longer_than_the_log_is_kept_begins_anew(triggers: Place) -> None:
    """The log says up to where it was trimmed; a position before that is a gap."""
    writer = triggers.connect()
    kept, trimmed = Recorder(), Recorder()
    with follow(kept, triggers.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    with follow(trimmed, triggers.feed(retention=0.05, poll=0.02)) as follower:
        assert follower.wait_until_caught_up()
        writer.execute(USER, (1,))
        wait_until(
            lambda: writer.execute("SELECT count(*) FROM credenza.changes").fetchone() == (0,), "the log is trimmed"
        )
    before = kept.clears
    with follow(kept, triggers.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert kept.clears == before + 1


def test_position_in_another_server_or_after_a_fail_over_is_void(triggers: Place) -> None:
    """Numbers of transactions that were lost are given out again."""
    recorder = Recorder()
    with follow(recorder, triggers.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    triggers.connect().execute("UPDATE credenza.followers SET identity = 'another'")
    with follow(recorder, triggers.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.clears == 2


# Connections ----------------------------------------------------------------------------------------------------------


def test_server_that_freezes_is_noticed(triggers: Place) -> None:
    """Its port still takes connections and nothing answers; with `max_lag` the cache is emptied meanwhile, again and again."""
    admin = triggers.connect()
    with following(triggers, max_lag=0.4) as (cache, follower):
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'credenza' AND datname = current_database()"
        (pid,) = admin.execute(query).fetchone()
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: follower.status().role == "away", "the follower gives up waiting")
        finally:
            os.kill(pid, signal.SIGCONT)
        filled(cache, "user:1")
        admin.execute(USER, (1,))
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_cache_is_emptied_every_max_lag_while_the_feed_is_away(triggers: Place) -> None:
    """What is loaded meanwhile may be stale for so long and no longer; what was missed is applied afterwards."""
    assert triggers.server is not None
    with proxy_to(triggers.server.port) as proxy:
        away = PostgresFeed(triggers.server.url("followed", port=proxy.port))
        cache: Cache[str, str] = Cache(ttl=None)
        with follow(cache, away, max_lag=0.2) as follower:
            assert follower.wait_until_caught_up()
            proxy.hold()
            proxy.cut()
            for _ in range(3):
                cache.set("user:1", "old")
                wait_until(lambda: "user:1" not in cache, "the cache is emptied")
            assert follower.status().role == "away"
            proxy.let_go()
            assert follower.wait_until_caught_up()
        cache.close()


def test_server_that_is_away_at_the_start_is_followed_when_it_comes(triggers: Place) -> None:
    """A service starts without it. Its password is in no message."""
    recorder = Recorder()
    url = "postgresql://ann:secret-word@127.0.0.1:1/none"
    with follow(recorder, PostgresFeed(url)) as follower:
        assert follower.status().role == "away"
        assert "secret-word" not in str(follower.status())
        with pytest.raises(FeedError) as caught:
            follower.wait_until_caught_up(2)
        assert "secret-word" not in str(caught.value)


CHILD = """
import sys
from credenza import Cache
from credenza.feeds.follower import Follower
from credenza.feeds.mapping import Rules
from credenza.feeds.postgres import PostgresFeed
cache = Cache.from_url(sys.argv[2])
follower = Follower(cache, PostgresFeed(sys.argv[1], name="shop"), Rules(keys={"users": "user:{id}"}, tags=None, whole=None))
assert follower.wait_until_caught_up()
print("reading", flush=True)
sys.stdin.read()
"""


def test_process_that_is_killed_is_succeeded_and_nothing_is_lost(triggers: Place, tmp_path: Path) -> None:
    """One reads for the shared tier; after kill -9 another goes on from the position that is kept."""
    tier = f"sqlite:///{tmp_path}/tier.db"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, triggers.where, tier], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reading\n"
        cache: Cache[str, str] = Cache.from_url(tier, ttl=None)
        with following(triggers, cache, name="shop", keys={"users": "user:{id}"}, tags=None) as (_, follower):
            assert follower.status().role == "standby"
            writer = triggers.connect()
            for number in range(20):
                cache.set(f"user:{number}", "old")
                if number == 10:
                    child.kill()
                writer.execute(USER, (number,))
            wait_until(lambda: follower.status().role == "reading", "the other one takes over")
            assert follower.wait_until_caught_up()
            assert [number for number in range(20) if f"user:{number}" in cache] == []
            assert follower.status().clears == 0
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            stream.close()


def test_package_names_what_it_has() -> None:
    """What users import."""
    assert postgres.__all__ == sorted(postgres.__all__)
