"""The follower and its rules, over a feed that the test drives."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies
from tests.feeds.places import Recorder
from tests.support.waiting import wait_until

from credenza import Cache, ConfigurationError, FeedError
from credenza.feeds import sqlite as feeds
from credenza.feeds.base import Batch, RowChange
from credenza.feeds.follower import Follower
from credenza.feeds.mapping import Rules, Stale
from credenza.feeds.postgres.snapshot import Snapshot

TOLD = {"users": frozenset({"id", "team"})}
KEYS = {"users": "user:{id}"}


class StagedFeed:
    """A feed of batches that the test gives; notes what it is asked, in order."""

    def __init__(self, *batches: Batch, name: str | None = "shop") -> None:
        self.name = name
        self.rest = 0.01
        self.position = "somewhere"
        self.batches = list(batches)
        self.asked: list[str] = []
        self.before_read: Callable[[], object] = lambda: None
        self.told = TOLD
        self._bell = threading.Event()

    def connect(self, timeout: float) -> Any:
        return self.told

    def elect(self, timeout: float) -> bool:
        return True

    def read(self, timeout: float) -> Batch:
        self.before_read()
        self.asked.append("read")
        return self.batches[0] if self.batches else Batch()

    def settle(self) -> None:
        self.asked.append("settle")
        if self.batches:
            self.batches.pop(0)

    def save(self, timeout: float) -> None:
        self.asked.append("save")

    def trim(self, timeout: float) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self._bell.wait(min(seconds, 0.01))

    def wake(self) -> None:
        pass

    def mark(self, timeout: float) -> int:
        return 0

    def has_reached(self, mark: int) -> bool:
        return not self.batches

    def disconnect(self) -> None:
        self.asked.append("disconnect")


def rows(*ids: object) -> Batch:
    return Batch([RowChange("users", {"id": number, "team": 1}) for number in ids])


def rules(**options: Any) -> Rules:
    return Rules(**{"keys": KEYS, "tags": None, "whole": None, **options})


def test_position_is_settled_and_saved_after_the_cache_has_forgotten() -> None:
    """Between the two a process may die, and then the changes are read again."""
    feed, recorder = StagedFeed(rows(1)), Recorder()
    order: list[str] = feed.asked
    recorder.invalidate = lambda *keys: order.append("invalidate")  # type: ignore[method-assign]
    with Follower(recorder, feed, rules()) as follower:
        assert follower.wait_until_caught_up()
        wait_until(lambda: "save" in order, "it is saved")
    assert order[:4] == ["read", "invalidate", "settle", "save"]


def test_keys_and_tags_of_a_batch_are_forgotten_once_each() -> None:
    """A row that changed a hundred times costs as much as one that changed once."""
    feed, recorder = StagedFeed(rows(*[1, 2] * 50)), Recorder()
    with Follower(recorder, feed, rules(tags={"users": ["users", "team:{team}"]})) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.keys == ["user:1", "user:2"]
        assert recorder.tags == ["users", "team:1"]
        assert follower.status().applied == 100


def test_gap_empties_the_cache_and_says_so() -> None:
    """Further changes may have been missed."""
    feed, recorder = StagedFeed(Batch(is_gap=True)), Recorder()
    with Follower(recorder, feed, rules()) as follower:
        assert follower.wait_until_caught_up()
        assert recorder.clears == follower.status().clears == 1


def test_feed_that_fails_is_said_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it is lost, one when it is back; the status has the reason meanwhile."""
    feed, recorder = StagedFeed(), Recorder()
    failures = 3

    def fail() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise FeedError("staged")

    feed.before_read = fail
    with caplog.at_level("WARNING", "credenza"), Follower(recorder, feed, rules()) as follower:
        wait_until(lambda: "settle" in feed.asked and follower.status().role == "reading", "the feed is back")
    said = [record.message.split(",")[0].split(":")[0] for record in caplog.records]
    assert feed.asked.count("disconnect") >= 3
    assert set(said) == {"the change feed is away", "the change feed is back"}


def test_feed_that_no_longer_tells_what_is_needed_empties_the_cache() -> None:
    """What is changed meanwhile is nowhere."""
    feed, recorder = StagedFeed(), Recorder()
    with Follower(recorder, feed, rules()) as follower:
        wait_until(lambda: "read" in feed.asked, "it reads")
        feed.told = {}
        wait_until(lambda: recorder.clears == 1, "the cache is emptied")
        assert "'users'" in str(follower.status().error)


def test_error_of_an_unforeseen_kind_ends_nothing() -> None:
    """The thread goes on; the status names the kind and not its text, which may quote values."""
    feed, recorder = StagedFeed(rows(1)), Recorder()
    recorder.error = RuntimeError("secret-word")
    with Follower(recorder, feed, rules()) as follower:
        wait_until(lambda: follower.status().role == "away", "it fails")
        assert follower.status().error == "RuntimeError"
        recorder.error = None
        assert follower.wait_until_caught_up()
        assert recorder.keys == ["user:1"]


@pytest.mark.parametrize("max_lag", [0, -1, "never"])
def test_max_lag_that_cannot_be_is_refused(max_lag: Any) -> None:
    """At the start."""
    with pytest.raises(ConfigurationError, match="max_lag"):
        Follower(Recorder(), StagedFeed(), rules(), max_lag=max_lag)


def test_cache_is_emptied_while_a_reading_hangs() -> None:
    """`max_lag` holds whatever the database does to the thread that reads."""
    feed, recorder, gate = StagedFeed(), Recorder(), threading.Event()
    feed.before_read = lambda: gate.wait(10)
    follower = Follower(recorder, feed, rules(), max_lag=0.05)
    wait_until(lambda: recorder.clears >= 3, "it is emptied again and again")
    gate.set()
    follower.close()


# Rules ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({}, "keys or tags"),
        ({"users": 7}, "'users'"),
        ({"users": ["user:{id}", 7]}, "'users'"),
        ({"users": "user:{id.name}"}, "columns"),
        ({"users": "user:{}"}, "columns"),
        ({"users": "user:{id}{team}"}, "kept apart"),
    ],
)
def test_rules_that_cannot_work_are_refused(keys: Any, word: str) -> None:
    """When they are made."""
    with pytest.raises(ConfigurationError, match=word):
        rules(keys=keys)


def test_whole_of_a_table_without_keys_is_refused() -> None:
    """It would never be used."""
    with pytest.raises(ConfigurationError, match="'orders'"):
        rules(whole={"orders": "orders"})


def test_templates_render_as_those_of_decorated_functions() -> None:
    """Integers and plain text as they are, the rest quoted, so that no value forges another key."""
    made = rules().stale([RowChange("users", {"id": value}) for value in (42, "ann", "42", "a:b", None)])
    assert made.keys == ("user:42", "user:ann", "user:'42'", "user:'a:b'", "user:None")


def test_callable_makes_several_keys_and_other_tables_make_none() -> None:
    """A row may stand in many values; tables that nobody named are for others."""
    made = rules(keys={"users": lambda row: [("u", row["id"]), ("t", row["team"])]})
    assert made.stale([*rows(1).changes, RowChange("orders", {"id": 1})]) == Stale((("u", 1), ("t", 1)), ())


@pytest.mark.parametrize(
    "maker", [lambda row: row["none"], lambda row: "user:1", lambda row: [[]], lambda row: 1 / 0, lambda row: None]
)
def test_row_that_no_key_can_be_made_of_empties_the_cache(maker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can tell what it was for; the log names the table and no value."""
    made = rules(keys={"users": maker}).stale(rows("secret-word").changes)
    assert made.is_all
    assert "secret-word" not in caplog.text
    assert "'users'" in caplog.text


def test_table_as_a_whole_is_everything_unless_a_tag_covers_it() -> None:
    """TRUNCATE, and DDL."""
    change = RowChange("users", None)
    assert rules().stale([change]).is_all
    assert rules(whole={"users": ["users", "lists"]}).stale([change]) == Stale((), ("users", "lists"))


# Snapshots ------------------------------------------------------------------------------------------------------------


@strategies.composite
def snapshots(draw: Any) -> Snapshot:
    xmax = draw(strategies.integers(3, 12))
    running = draw(strategies.frozensets(strategies.integers(3, 11).filter(lambda xid: xid < xmax), max_size=6))
    return Snapshot(min(running, default=xmax), xmax, running)


@given(snapshots(), snapshots())
def test_snapshot_that_covers_another_sees_all_that_it_sees(one: Snapshot, other: Snapshot) -> None:
    """Whatever was seen then is seen now; where that cannot be told from the numbers alone the answer is no."""
    if one.covers(other):
        assert all(one.sees(xid) for xid in range(1, 15) if other.sees(xid))
    elif other.xmax <= one.xmax:
        assert not all(one.sees(xid) for xid in range(1, 15) if other.sees(xid))
    assert Snapshot.parse(str(one)) == one
    assert one.covers(one)


@pytest.mark.parametrize("face", ["sync", "async"])
def test_cache_that_is_closed_ends_its_followers(tmp_path: Path, face: str) -> None:
    """`cache.follow` makes a follower that goes with the cache: no thread and no connection is left."""
    path = tmp_path / "followed.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        feeds.install(path, {"users": ["id"]})
        cache: Cache[str, str] = Cache(ttl=None)
        follower = cache.follow(feeds.SqliteFeed(path), keys={"users": "user:{id}"})
        assert follower.wait_until_caught_up()
        cache.set("user:1", "old")
        with database:
            database.execute("INSERT INTO users VALUES (1, 'new')")
        assert follower.wait_until_caught_up()
        assert cache.get("user:1") is None
        if face == "sync":
            cache.close()
        else:
            asyncio.run(cache.aio.close())
    assert follower.status().role == "closed"
