"""The change log of SQLite: whatever can happen to a file and a table in it."""

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.feeds.places import Place, Recorder, follow, following
from tests.support.waiting import wait_until

from credenza import Cache, ConfigurationError, FeedError
from credenza.feeds.sqlite import SqliteFeed, install, migration, uninstall


def filled(cache: Any, *keys: str) -> None:
    for key in keys:
        cache.set(key, "old")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO mails VALUES (3, 'ann@x', 9)",
        "UPDATE OR REPLACE mails SET address = 'ann@x' WHERE id = 2",
    ],
)
def test_row_that_was_replaced_by_another_is_told(file: Place, statement: str) -> None:
    """REPLACE removes what is in its way and fires no trigger for it."""
    writer = file.connect()
    writer.execute("CREATE TABLE mails (id INTEGER PRIMARY KEY, address TEXT UNIQUE, owner INTEGER)")
    writer.execute("INSERT INTO mails VALUES (1, 'ann@x', 7), (2, 'bob@x', 8)")
    install(writer, {"mails": ["id", "owner"]})
    with following(file, keys={"mails": ["mail:{id}", "owner:{owner}"]}, tags=None) as (cache, follower):
        filled(cache, "mail:1", "owner:7", "mail:9")
        writer.execute(statement)
        assert follower.wait_until_caught_up()
        assert list(cache._engine.state.table.entries) == ["mail:9"]


def test_table_without_rowid_with_a_composite_key_is_told(file: Place) -> None:
    """Columns of every type arrive as they are, collations notwithstanding."""
    writer = file.connect()
    writer.execute(
        'CREATE TABLE "odd ""one""" (a TEXT COLLATE NOCASE, "b c" BLOB, PRIMARY KEY (a, "b c")) WITHOUT ROWID'
    )
    install(writer, {'odd "one"': ["a", "b c"]})
    keys = {'odd "one"': lambda row: [(row["a"], row["b c"])]}
    with following(file, keys=keys, tags=None) as (cache, follower):
        for key in (("x", b"\0\xff"), ("X", b"\0\xff"), ("y", 1.5)):
            cache.set(key, "old")
        writer.execute('INSERT INTO "odd ""one""" VALUES (?, ?), (?, ?)', ("x", b"\0\xff", "y", 1.5))
        assert follower.wait_until_caught_up()
        assert list(cache._engine.state.table.entries) == [("X", b"\0\xff")]
        cache.set(("x", b"\0\xff"), "old")
        writer.execute('UPDATE "odd ""one""" SET a = \'X\' WHERE a = \'x\'')
        assert follower.wait_until_caught_up()
        assert not len(cache)


def test_file_that_is_replaced_empties_the_cache(file: Place, tmp_path: Path) -> None:
    """Another file has another past; the new one is followed from then on."""
    place = file
    writer = place.connect()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(place.where, tmp_path / "copy.db")
    with following(place) as (cache, follower):
        filled(cache, "user:1", "other")
        writer.close()
        os.replace(tmp_path / "copy.db", place.where)
        wait_until(lambda: not len(cache), "the cache is emptied")
        filled(cache, "user:1")
        place.connect().execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_file_that_is_missing_for_a_while_is_followed_when_it_is_back(file: Place, tmp_path: Path) -> None:
    """A database that is away is no error at the start, and none later."""
    os.rename(file.where, tmp_path / "aside")
    recorder = Recorder()
    with follow(recorder, file.feed()) as follower:
        assert follower.status().role == "away"
        with pytest.raises(FeedError):
            follower.wait_until_caught_up(1)
        os.rename(tmp_path / "aside", file.where)
        wait_until(lambda: follower.status().role == "reading", "the file is followed")


def test_change_of_the_schema_makes_the_tables_as_a_whole_stale(file: Place) -> None:
    """Even while nobody reads: the version of the schema is kept with the position."""
    writer, recorder = file.connect(), Recorder()
    for expected in (1, 2):
        with follow(recorder, file.feed("shop")) as follower:
            assert follower.wait_until_caught_up()
            assert recorder.clears == expected
        writer.execute(f"ALTER TABLE users ADD COLUMN age{expected} INTEGER")
    with follow(recorder, file.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.clears == 3


def test_table_that_was_made_anew_without_triggers_is_said_to_be_unfollowed(file: Place) -> None:
    """Its triggers went with it; until they are installed again the follower says so."""
    writer = file.connect()
    with following(file) as (cache, follower):
        filled(cache, "user:1")
        writer.execute("DROP TABLE users")
        writer.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, team INTEGER)")
        wait_until(lambda: not len(cache), "the cache is emptied")
        wait_until(lambda: follower.status().role == "away", "the follower says what is wrong")
        filled(cache, "user:1")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        install(writer, {"users": ["id", "team"]})
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_rows_are_deleted_when_they_are_old_and_who_missed_them_begins_anew(file: Place) -> None:
    """The log does not grow for ever, and says up to where it was trimmed."""
    writer, missing, recorder = file.connect(), Recorder(), Recorder()
    with follow(missing, file.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    writer.execute("UPDATE credenza_changes SET at = at - 10")
    with follow(recorder, file.feed(retention=1)) as follower:
        wait_until(lambda: writer.execute("SELECT count(*) FROM credenza_changes").fetchone() == (0,), "it is trimmed")
        assert follower.wait_until_caught_up()
    with follow(missing, file.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert missing.clears == 2


def test_older_copy_of_the_file_is_noticed_by_its_position(file: Place, tmp_path: Path) -> None:
    """Numbers beyond the end of the log are from another past."""
    writer, recorder = file.connect(), Recorder()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(file.where, tmp_path / "old.db")
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    with follow(recorder, file.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    kept = writer.execute("SELECT * FROM credenza_followers").fetchone()
    file.close()  # with the last connection the write-ahead log goes, which would be taken for that of the copy
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("INSERT INTO credenza_followers VALUES (?, ?, ?, ?)", kept)
    old.close()
    os.replace(tmp_path / "old.db", file.where)
    with follow(recorder, file.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.clears == 2


def test_position_of_another_past_is_not_one_that_was_reached(file: Place) -> None:
    """Between the election and the first reading a position beyond the log's end was taken for one past every mark."""
    writer, feed = file.connect(), file.feed("shop")
    feed.connect(10)
    ours = feed.mark(10)
    kept = "INSERT OR REPLACE INTO credenza_followers SELECT 'shop', epoch, ?, ? FROM credenza_state"
    for number, has_reached in [(ours.number, True), (ours.number + 1, False)]:
        writer.execute(kept, (number, ours.schema))
        assert feed.elect(10)
        assert feed.has_reached(feed.mark(10)) is has_reached
        feed.disconnect()
        feed.connect(10)
    feed.disconnect()


def test_writers_are_not_held_up_by_a_follower_that_trims(file: Place) -> None:
    """It gives way at once when somebody else writes."""
    writer, recorder = file.connect(), Recorder()
    with follow(recorder, file.feed(retention=0.05)) as follower:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        wait_until(lambda: follower._feed._trimmed > 0, "it came to trimming")
        writer.execute("COMMIT")
        assert follower.wait_until_caught_up()
        assert follower.status().error is None


def test_rollback_journal_is_followed_too(tmp_path: Path) -> None:
    """Not every file is in WAL mode."""
    path = tmp_path / "plain.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, team INTEGER)")
    install(path, {"users": ["id", "team"]})
    cache: Cache[str, str] = Cache(ttl=None)
    with follow(cache, SqliteFeed(path, poll=0.01)) as follower:
        assert follower.wait_until_caught_up()
        cache.set("user:1", "old")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache
    cache.close()
    writer.close()


def test_migration_can_be_read_run_twice_and_removed(file: Place) -> None:
    """Nothing is left, and the table stays; errors name what is wrong."""
    assert "CREATE TRIGGER" in migration(file.where, {"users": ["id"]})
    install(file.where, {"users": ["id", "team", "name"]})
    with pytest.raises(ConfigurationError, match=r"no column 'email'.*id"):
        install(file.where, {"users": ["email"]})
    with pytest.raises(ConfigurationError, match="name the columns"):
        install(file.where, {"users": "id"})
    connection = file.connect()
    connection.execute("BEGIN")
    with pytest.raises(ConfigurationError, match="transaction"):
        install(connection, {"users": ["id"]})
    connection.execute("ROLLBACK")
    uninstall(file.where)
    uninstall(file.where)
    connection.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    left = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%credenza%'").fetchall()
    assert left == []
    with Cache[str, str]() as cache, pytest.raises(ConfigurationError, match="install"):
        follow(cache, file.feed())
