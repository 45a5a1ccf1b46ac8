"""What holds for every feed: what a database changes is forgotten, once it is committed, whatever happens on the way."""

import gc
import weakref
from typing import Any

import pytest
from tests.feeds.places import Place, Recorder, follow, following
from tests.support.forking import in_child
from tests.support.waiting import wait_until

from credenza import Cache, TierError
from credenza.errors import CacheClosed, ConfigurationError


def filled(cache: Any, *keys: str) -> None:
    for key in keys:
        cache.set(key, "old", tags=["users"] if key == "page" else ())


@pytest.mark.parametrize(
    ("statement", "gone"),
    [
        ("INSERT INTO users VALUES (3, 'Cleo', 7)", {"user:3", "team:7"}),
        ("UPDATE users SET name = 'Anna' WHERE id = 1", {"user:1", "team:1"}),
        ("UPDATE users SET team = 7 WHERE id = 1", {"user:1", "team:1", "team:7"}),
        ("UPDATE users SET id = 3 WHERE id = 1", {"user:1", "user:3", "team:1"}),
        ("DELETE FROM users WHERE id = 2", {"user:2", "team:2"}),
        ("DELETE FROM users", {"user:1", "user:2", "team:1", "team:2"}),
    ],
)
def test_row_changed_by_others_is_forgotten_and_nothing_else(place: Place, statement: str, gone: set[str]) -> None:
    """Insert, update, a changed key, delete: the keys of the row before and after are forgotten, and its tags."""
    writer = place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 2)")
    with following(place) as (cache, follower):
        keys = {"user:1", "user:2", "user:3", "team:1", "team:2", "team:7", "other"}
        filled(cache, *keys, "page")
        writer.execute(statement)
        assert follower.wait_until_caught_up()
        assert {key for key in keys if key not in cache} == gone
        assert "page" not in cache


def test_rollback_and_rolled_back_savepoint_leave_the_cache_alone(place: Place) -> None:
    """What was not committed is not told; what was, beside it, is."""
    writer = place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 2)")
    with following(place) as (cache, follower):
        filled(cache, "user:1", "user:2")
        writer.execute("BEGIN")
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        writer.execute("ROLLBACK")
        writer.execute("BEGIN")
        writer.execute("SAVEPOINT s")
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        writer.execute("ROLLBACK TO s")
        writer.execute("UPDATE users SET name = 'x' WHERE id = 2")
        writer.execute("COMMIT")
        assert follower.wait_until_caught_up()
        assert "user:1" in cache
        assert "user:2" not in cache


def test_uncommitted_change_is_told_when_it_commits(place: Place) -> None:
    """Until the commit the old value is right."""
    writer, other = place.connect(), place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1), (2, 'Bob', 2)")
    with following(place) as (cache, follower):
        filled(cache, "user:1")
        writer.execute("BEGIN")
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        if place.is_postgres:  # SQLite has one writer at a time
            other.execute("UPDATE users SET name = 'x' WHERE id = 2")
            assert follower.wait_until_caught_up()
        assert "user:1" in cache
        writer.execute("COMMIT")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_what_was_cached_before_following_began_is_emptied(place: Place) -> None:
    """Nobody knows what was changed before; and an empty cache loses nothing."""
    cache: Cache[str, str] = Cache(ttl=None)
    cache.set("user:1", "old")
    with following(place, cache):
        assert "user:1" not in cache


def test_more_changes_than_one_reading_are_all_told(place: Place) -> None:
    """A large transaction is read page by page."""
    writer = place.connect()
    with following(place) as (cache, follower):
        filled(cache, *[f"user:{number}" for number in range(0, 12_000, 100)])
        writer.execute("BEGIN")
        series = (
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 11999) SELECT n, 'x', 1 FROM s"
        )
        writer.execute(f"INSERT INTO users {series}")
        writer.execute("COMMIT")
        assert follower.wait_until_caught_up(15)
        assert list(cache._engine.state.table.entries) == ["user:0"]
        assert follower.status().applied >= 11_999


def test_change_while_the_connection_is_cut_is_told_afterwards(place: Place) -> None:
    """The position is kept over a lost connection."""
    writer = place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    with following(place, name=None) as (cache, follower):
        filled(cache, "user:1")
        place.cut()
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache


def test_failed_invalidation_is_done_again_before_the_position_moves(place: Place) -> None:
    """The cache cannot forget, as its shared tier is away: the change is read again until it can."""
    writer = place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    recorder = Recorder()
    with follow(recorder, place.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        recorder.error, calls, clears = TierError("staged"), recorder.calls, recorder.clears
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        wait_until(lambda: recorder.calls >= calls + 2, "it was tried twice")
        wait_until(lambda: follower.status().role == "away", "the failure to be told")
        recorder.error = None
        assert follower.wait_until_caught_up()
        # Where the update kept the first position from being saved, the follower knows no place to read from, and empties.
        assert "user:1" in recorder.keys or recorder.clears > clears


def test_follower_that_dies_while_it_applies_is_replaced_by_one_that_applies_again(place: Place) -> None:
    """The position is saved after the cache has forgotten, so nothing is lost between the two."""
    writer = place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    dying, heir = Recorder(), Recorder()
    with follow(dying, place.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
    with follow(dying, place.feed("shop")) as follower:  # closing keeps the position, from which this one goes on
        assert follower.wait_until_caught_up()
        dying.error, calls = TierError("staged"), dying.calls
        writer.execute("UPDATE users SET name = 'x' WHERE id = 1")
        wait_until(lambda: dying.calls > calls, "the change has arrived")
    with follow(heir, place.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert "user:1" in heir.keys
        assert heir.clears == 0


def test_position_is_not_kept_while_the_shared_tier_owes(place: Place) -> None:
    """An invalidation that is owed in one process's memory would be lost with it."""
    writer = place.connect()
    owing, heir = Recorder(), Recorder()
    with follow(owing, place.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        follower.close()
    owing.owed = 1
    with follow(owing, place.feed("shop")) as follower:
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        wait_until(lambda: "user:1" in owing.keys, "the change has arrived")
    with follow(heir, place.feed("shop")) as follower:
        assert follower.wait_until_caught_up()
        assert "user:1" in heir.keys


def test_second_follower_of_one_name_stands_by_and_takes_over(place: Place) -> None:
    """One reads for all; if it goes another one goes on from where it was."""
    writer = place.connect()
    first, second = Recorder(), Recorder()
    reader = follow(first, place.feed("shop"))
    assert reader.wait_until_caught_up()
    with follow(second, place.feed("shop")) as standby:
        wait_until(lambda: standby.status().role == "standby", "the second stands by")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        assert reader.wait_until_caught_up()
        assert "user:1" in first.keys
        assert standby.wait_until_caught_up()
        assert (second.keys, second.clears) == ([], 0)
        reader.close()
        writer.execute("INSERT INTO users VALUES (2, 'Bob', 2)")
        assert standby.wait_until_caught_up()
        assert standby.status().role == "reading"
        assert "user:2" in second.keys
        assert second.clears == 0


def test_two_followers_without_a_name_both_read(place: Place) -> None:
    """Each process with a memory of its own follows for itself."""
    writer = place.connect()
    with following(place) as (one, first), following(place) as (other, second):
        filled(one, "user:1")
        filled(other, "user:1")
        writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        assert first.wait_until_caught_up()
        assert second.wait_until_caught_up()
        assert "user:1" not in one
        assert "user:1" not in other


def test_name_without_a_shared_tier_is_refused(place: Place) -> None:
    """The other processes would never be told."""
    with Cache[str, str]() as cache, pytest.raises(ConfigurationError, match="no shared tier"):
        follow(cache, place.feed("shop"))


def test_unknown_table_or_column_is_refused_at_the_start(place: Place) -> None:
    """The message names what is there."""
    with Cache[str, str]() as cache:
        with pytest.raises(ConfigurationError, match=r"'orders'.*users"):
            follow(cache, place.feed(), keys={"orders": "order:{id}"}, tags=None)
        with pytest.raises(ConfigurationError, match=r"'email'.*id"):
            follow(cache, place.feed(), keys={"users": "mail:{email}"})


def test_load_that_began_before_the_change_is_not_kept(place: Place) -> None:
    """A value that was read before the commit, and arrives after the invalidation, is stale."""
    writer, reader = place.connect(), place.connect()
    writer.execute("INSERT INTO users VALUES (1, 'Ann', 1)")
    with following(place) as (cache, follower):

        def load() -> str:
            name: str = reader.execute("SELECT name FROM users WHERE id = 1").fetchone()[0]
            writer.execute("UPDATE users SET name = 'Anna' WHERE id = 1")
            assert follower.wait_until_caught_up()
            return name

        assert cache.get_or_load("user:1", load) == "Ann"
        assert "user:1" not in cache


def test_whole_table_is_emptied_by_its_tag_where_one_is_named(place: Place) -> None:
    """DDL makes the table as a whole stale; without such a tag that is everything."""
    writer = place.connect()
    with following(place, whole={"users": "users"}) as (cache, follower):
        filled(cache, "page", "other")
        writer.execute("ALTER TABLE users ADD COLUMN age integer")
        writer.execute("INSERT INTO users (id) VALUES (1)")  # logical decoding hears of DDL with the next change
        assert follower.wait_until_caught_up()
        assert "page" not in cache
        assert "other" in cache


def test_closed_or_collected_cache_ends_the_thread(place: Place) -> None:
    """A follower keeps no cache alive, and does not outlive it."""
    alone = follow(Cache(ttl=None), place.feed())
    gc.collect()
    wait_until(lambda: not alone._thread.is_alive(), "the thread ends with the cache")
    recorder = Recorder()
    with follow(recorder, place.feed()) as follower:
        assert follower.wait_until_caught_up()
        recorder.error = CacheClosed("staged")
        place.connect().execute("INSERT INTO users VALUES (1, 'Ann', 1)")
        wait_until(lambda: not follower._thread.is_alive(), "the thread ends when the cache is closed")
    reference = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert reference() is None


def test_forked_child_goes_on_from_where_the_parent_was(place: Place) -> None:
    """Parent and child each follow, over connections of their own."""
    writer = place.connect()
    with following(place) as (cache, follower):
        filled(cache, "user:1", "user:2")

        def child() -> tuple[bool, int]:
            place.connect().execute("INSERT INTO users VALUES (1, 'Ann', 1)")
            return follower.wait_until_caught_up() and "user:1" not in cache, follower.status().clears

        if not place.is_postgres:
            writer.close()  # a connection of SQLite must not be open over a fork
        emptied = 2 if place.kind == "logical" else 1  # a slot without a name is the connection's, and not inherited
        assert in_child(child) == f"(True, {emptied})"
        assert follower.wait_until_caught_up()
        assert "user:1" not in cache
        place.connect().execute("INSERT INTO users VALUES (2, 'Bob', 2)")
        assert follower.wait_until_caught_up()
        assert "user:2" not in cache
        assert follower.status().clears == 1


def test_status_tells_position_lag_and_role(place: Place) -> None:
    """What an operator wants to know."""
    with following(place) as (_, follower):
        status = follower.status()
        assert status.role == "reading"
        assert status.position
        assert status.lag is not None
        assert (status.error, status.applied, status.clears) == (None, 0, 1)
    assert follower.status().role == "closed"
    follower.close()
