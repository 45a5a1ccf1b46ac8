"""Logical decoding: what a publication tells, and what it does not."""

import psycopg
import pytest
from tests.feeds.places import Place, Recorder, follow, following
from tests.support.waiting import wait_until

from credenza import Cache, ConfigurationError
from credenza.feeds.postgres import LogicalFeed
from credenza.feeds.postgres.pgoutput import Change, parse

USER = "INSERT INTO users VALUES (%s, 'Ann', 1)"


def commit_that_waits_is_told_early(place: Place) -> bool:
    """Hold a commit between the log and sight; tell whether it was told before it could be seen."""
    admin, writer = place.connect(), place.connect()
    recorder = Recorder()
    with follow(recorder, place.feed(), keys={"users": "user:{id}"}) as follower:
        assert follower.wait_until_caught_up()
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",), "the setting holds"
        )
        try:
            wait_until(lambda: writer.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",), "there, too")
            wait_until(lambda: commit_waits(admin, writer), "commits wait for a standby")
            writer.pgconn.send_query(b"INSERT INTO users VALUES (1, 'Ann', 1)")
            wait_until(lambda: waiting_commits(admin) == 1, "the commit waits for a standby")
            assert admin.execute("SELECT count(*) FROM users").fetchone() == (0,)
            follower.wake()
            place_now = admin.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
            assert place_now is not None
            told = []

            def is_decided() -> bool:
                told[:] = recorder.keys
                return bool(told) or "cannot be seen" in str(follower.status().error) or waits_for_sight(follower)

            wait_until(is_decided, "the feed has decoded the commit")
            return bool(told)
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")
            wait_until(lambda: not writer.pgconn.is_busy() or writer.pgconn.consume_input(), "the commit ends")
            wait_until(lambda: "user:1" in recorder.keys, "the change is told after all")


def commit_waits(admin: psycopg.Connection, writer: psycopg.Connection) -> bool:
    """Commit something that no feed tells; tell whether that had to wait: the checkpointer takes the setting last."""
    writer.pgconn.send_query(b"CREATE TABLE IF NOT EXISTS commits (); INSERT INTO commits DEFAULT VALUES")

    def has_ended() -> bool:
        writer.pgconn.consume_input()
        while not writer.pgconn.is_busy():
            if writer.pgconn.get_result() is None:
                return True
        return False

    wait_until(lambda: has_ended() or waiting_commits(admin), "the commit ends or waits")
    waits = waiting_commits(admin) > 0
    admin.execute("SELECT pg_cancel_backend(%s)", (writer.info.backend_pid,))
    wait_until(has_ended, "the commit ends")
    return waits


def waiting_commits(admin: psycopg.Connection) -> int:
    """The number of commits that wait for a standby."""
    row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
    return row[0] if row else 0


def waits_for_sight(follower: object) -> bool:
    """Tell whether the follower is at the place where it waits."""
    import sys

    frame = sys._current_frames().get(follower._thread.ident)  # type: ignore[attr-defined]
    while frame is not None:
        if frame.f_code.co_name == "_await_sight" and frame.f_locals.get("wanted"):
            return True
        frame = frame.f_back
    return False


def test_commit_that_nobody_can_see_yet_is_not_told(logical: Place) -> None:
    """Told too early, a reader would load and keep the old value after the invalidation."""
    assert not commit_that_waits_is_told_early(logical)


def test_telling_what_is_decoded_at_once_would_be_too_early(logical: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a feed that does not wait for sight is caught by the test above."""
    monkeypatch.setattr(LogicalFeed, "_await_sight", lambda *arguments: None)
    assert commit_that_waits_is_told_early(logical)


def test_column_outside_the_replica_identity_is_refused(logical: Place) -> None:
    """A DELETE would not tell it."""
    logical.connect().execute("ALTER TABLE users REPLICA IDENTITY DEFAULT")
    with Cache[str, str]() as cache, pytest.raises(ConfigurationError, match=r"'team'.*REPLICA IDENTITY FULL"):
        follow(cache, logical.feed())


def test_primary_key_is_enough_where_keys_are_made_of_it(logical: Place) -> None:
    """The default identity tells the key before and after."""
    writer = logical.connect()
    writer.execute("ALTER TABLE users REPLICA IDENTITY DEFAULT")
    writer.execute(USER, (1,))
    with following(logical, keys={"users": "user:{id}"}, tags=None) as (cache, follower):
        for key in ("user:1", "user:2"):
            cache.set(key, "old")
        writer.execute("UPDATE users SET id = 2")
        assert follower.wait_until_caught_up()
        assert not len(cache)
        cache.set("user:2", "old")
        writer.execute("DELETE FROM users")
        assert follower.wait_until_caught_up()
        assert not len(cache)


def test_long_value_that_was_not_changed_is_taken_from_the_row_before(logical: Place) -> None:
    """The server leaves it out of the new row."""
    writer = logical.connect()
    writer.execute("CREATE TABLE pages (id integer PRIMARY KEY, path text, hits integer)")
    writer.execute("ALTER TABLE pages ALTER path SET STORAGE EXTERNAL")
    writer.execute("ALTER TABLE pages REPLICA IDENTITY FULL; ALTER PUBLICATION shop ADD TABLE pages")
    path = "p" * 5000
    writer.execute("INSERT INTO pages VALUES (1, %s, 0)", (path,))
    with following(logical, keys={"pages": "page:{path}"}, tags=None) as (cache, follower):
        cache.set(f"page:{path}", "old")
        writer.execute("UPDATE pages SET hits = 1")
        assert follower.wait_until_caught_up()
        assert not len(cache)
        assert follower.status().clears == 1


def test_truncate_empties_the_cache(logical: Place) -> None:
    """As with triggers."""
    with following(logical) as (cache, follower):
        cache.set("other", "old")
        logical.connect().execute("TRUNCATE users")
        assert follower.wait_until_caught_up()
        assert not len(cache)


def test_slot_that_was_lost_empties_the_cache(logical: Place) -> None:
    """Its changes are gone; the feed makes another one."""
    recorder, writer = Recorder(), logical.connect()
    with follow(recorder, logical.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    writer.execute("SELECT pg_drop_replication_slot('shop')")
    with follow(recorder, logical.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.clears == 2


def test_slot_of_another_kind_is_refused(logical: Place) -> None:
    """It is somebody else's."""
    recorder = Recorder()
    logical.connect().execute("SELECT pg_create_physical_replication_slot('shop')")
    with follow(recorder, logical.feed("shop")) as follower:
        wait_until(lambda: "choose another name" in str(follower.status().error), "the follower says so")


def test_slot_moves_on_while_other_tables_are_written(logical: Place) -> None:
    """Otherwise the server would keep its log for ever."""
    writer = logical.connect()
    writer.execute("CREATE TABLE noise (id integer)")
    recorder = Recorder()
    with follow(recorder, logical.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        writer.execute("INSERT INTO noise SELECT generate_series(1, 1000)")
        (target,) = writer.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = 'shop'"
        wait_until(lambda: writer.execute(query, (target,)).fetchone() == (True,), "the slot moves")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Z",
        b"I",
        b"I\0\0\0\1X",
        b"R\0\0\0\1ab",
        b"U\0\0\0\1N\0\2t\0\0",
        b"T\0\0\0\x09\0\0",
        b"B\0",
        b"I\0\0\0\1N\0\1q",
    ],
)
def test_message_that_is_cut_short_or_foreign_is_an_error(data: bytes) -> None:
    """Never taken for another one."""
    with pytest.raises(ValueError, match="pgoutput"):
        parse(data)


def test_insert_is_understood() -> None:
    """A row with a text and a null."""
    assert parse(b"I\0\0\0\7N\0\2t\0\0\0\x0242n") == Change(7, None, [b"42", None])
