"""Events, `stats()` and `cache_info()`: what a cache tells about itself."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.waiting import Call, HeldLoader, run, wait_for_callers, wait_until

from credenza import MISSING, Cache, CacheInfo, Event, EventKind, Fetched, Loaded, NoCache, NotFound, Stats, UsageError
from credenza.testing import CountingLoader, DictSource, FakeClock


def noted(cache: Cache[Any, Any]) -> list[tuple[str, Any]]:
    """Return the list that the events of `cache` are noted in."""
    events: list[tuple[str, Any]] = []

    def note(event: Event) -> None:
        assert isinstance(event, Event)
        assert isinstance(event.kind, EventKind)
        events.append((event.kind.value, event.key))

    cache.subscribe(note)
    return events


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache[Any, Any]:
    return Cache(maxsize=3, ttl=10, jitter=0, clock=clock, eviction="lru")


# Events ---------------------------------------------------------------------------------------------------------------


def test_load_tells_miss_load_and_stored(cache: Cache[Any, Any]) -> None:
    """Events: a miss is told before its load, a store after it; a hit is no event."""
    events = noted(cache)
    cache.get_or_load("k", lambda: events.append(("loader", "k")) or "v")
    cache.get_or_load("k", lambda: "v")
    cache.get("k")
    assert events == [("miss", "k"), ("loader", "k"), ("load", "k"), ("stored", "k")]


@pytest.mark.parametrize("is_async", [False, True])
def test_failed_load_is_told(cache: Cache[Any, Any], is_async: bool) -> None:
    """Events: a failed load stores nothing and says so, in both faces."""
    events = noted(cache)
    loader = CountingLoader("v", error=ConnectionError("down"))
    with pytest.raises(ConnectionError):
        run(cache.aio.get_or_load("k", loader)) if is_async else cache.get_or_load("k", loader)
    assert events == [("miss", "k"), ("load_failed", "k")]


def test_joined_load_is_told(cache: Cache[Any, Any]) -> None:
    """Events: everybody who joins is told once."""
    events = noted(cache)
    load = HeldLoader()
    calls = [Call(lambda: cache.get_or_load("k", load)) for _ in range(3)]
    wait_for_callers(cache, "k", 3)
    load.release()
    [call.result() for call in calls]
    assert sorted(kind for kind, _ in events) == ["join", "join", "load", "miss", "stored"]


def test_writes_are_told(cache: Cache[Any, Any]) -> None:
    """Events: set, invalidate, tags, clear and fences."""
    events = noted(cache)
    cache.set("k", 1, tags=["t"])
    cache.set_many({"a": 1, "b": 1})
    cache.invalidate("k", "never there")
    cache.invalidate_tags("t", "u")
    cache.clear()
    with cache.writing("k", tags=["t"]):
        assert events.pop() == ("cleared", MISSING)
        cache.set("k", 1)
        assert events.pop() == ("refused", "k")
    assert events == [
        ("stored", "k"),
        ("stored", "a"),
        ("stored", "b"),
        ("invalidated", "k"),
        ("invalidated", "never there"),
        ("tag_invalidated", "t"),
        ("tag_invalidated", "u"),
        ("invalidated", "k"),
        ("tag_invalidated", "t"),
    ]


def test_what_leaves_by_itself_is_told(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Events: evicted by size, expired by time; and each entry leaves once."""
    events = noted(cache)
    for key in "abcd":
        cache.set(key, 1)
    clock.advance(10)
    for key in "abcd":
        cache.get(key)
    cache.get("b")
    assert [event for event in events if event[0] != "stored"] == [
        ("evicted", "a"),
        ("expired", "b"),
        ("expired", "c"),
        ("expired", "d"),
    ]


def test_refused_and_too_heavy_values_are_told() -> None:
    """Events: a value that may not be stored, and one that cannot."""
    cache: Cache[Any, Any] = Cache(max_weight=3, weigher=len)
    events = noted(cache)
    cache.get_or_load("k", lambda: cache.invalidate("k") or "abc")
    assert events == [("miss", "k"), ("invalidated", "k"), ("load", "k"), ("refused", "k")]
    events.clear()
    cache.get_or_load("k", lambda: "abcd")
    cache.set("k", "abcd")
    assert events == [("miss", "k"), ("load", "k"), ("too_heavy", "k"), ("too_heavy", "k")]


def test_stale_hits_and_failed_refreshes_are_told(clock: FakeClock) -> None:
    """Events: a stale value that was handed out, and a refresh behind it that failed, with the error's type only."""
    cache: Cache[Any, Any] = Cache(ttl=10, jitter=0, stale_while_revalidate=50, clock=clock)
    cache.set("k", "old")
    clock.advance(10)
    events = noted(cache)
    details: list[str] = []
    cache.subscribe(lambda event: details.append(event.detail) if event.kind == "refresh_failed" else None)
    cache.get_or_load("k", CountingLoader("", error=ConnectionError("the secret")))
    wait_until(lambda: cache.stats().flights == 0 and details, "the refresh has failed")
    assert ("stale", "k") in events
    assert ("refresh_failed", "k") in events
    assert details == ["ConnectionError"]


def test_bulk_load_tells_each_key(cache: Cache[Any, Any]) -> None:
    """Events: a bulk load is told per key."""
    events = noted(cache)
    cache.get_or_load_many(["a", "b"], lambda keys: {"a": 1})
    assert sorted(events) == [("load", "a"), ("load_failed", "b"), ("miss", "a"), ("miss", "b"), ("stored", "a")]


def test_events_never_carry_a_value(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """STYLE 24: values and secrets appear in no event, no log and no repr."""
    told: list[str] = []
    cache.subscribe(lambda event: told.append(repr(event)))
    cache.set("k", "the secret", tags=["t"])
    cache.get_or_load("l", lambda: "the secret")
    with pytest.raises(RuntimeError):
        cache.get_or_load("m", CountingLoader("", error=RuntimeError("the secret")))
    for key in range(5):
        cache.set(key, "the secret")
    clock.advance(10)
    cache.get(4)
    cache.clear()
    assert told
    assert not [text for text in told if "secret" in text]
    assert "secret" not in repr(cache)
    assert "secret" not in repr(cache.stats())


def test_event_is_frozen() -> None:
    """STYLE 10: one listener cannot change what the next one gets."""
    event = Event(EventKind.MISS, "k")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.key = "l"  # type: ignore[misc]  # on purpose
    assert event == Event(EventKind.MISS, "k")
    assert event.kind == "miss"


def test_unsubscribed_listener_hears_nothing_more(cache: Cache[Any, Any]) -> None:
    """Contract: `subscribe` returns what ends it, which may be called again."""
    first: list[Event] = []
    second: list[Event] = []
    stop = cache.subscribe(first.append)
    cache.subscribe(second.append)
    cache.set("k", 1)
    stop()
    stop()
    cache.set("k", 2)
    assert (len(first), len(second)) == (1, 2)


def test_unsubscribing_one_of_two_subscriptions_leaves_the_other(cache: Cache[Any, Any]) -> None:
    """Contract: what `subscribe` returned ends that subscription, and not another one of the same listener."""
    events: list[Event] = []
    stop, _ = cache.subscribe(events.append), cache.subscribe(events.append)
    stop()
    cache.set("k", 1)
    assert len(events) == 1


def test_bound_method_can_unsubscribe(cache: Cache[Any, Any]) -> None:
    """Contract: a bound method is a new object each time it is looked up; unsubscribing works all the same."""

    class Monitor:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def note(self, event: Event) -> None:
            self.events.append(event)

    monitor = Monitor()
    stop = cache.subscribe(monitor.note)
    cache.set("k", 1)
    stop()
    cache.set("k", 1)
    assert len(monitor.events) == 1


def test_listener_that_raises_is_logged_and_stops_nobody(
    cache: Cache[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Contract: an exception in a listener is logged by "credenza", never raised, and the next listener is told."""

    def fail(event: Event) -> None:
        raise RuntimeError("a bad listener")

    cache.subscribe(fail)
    events = noted(cache)
    with caplog.at_level(logging.ERROR, "credenza"):
        assert cache.get_or_load("k", lambda: "v") == "v"
        cache.set("k", 1)
        cache.invalidate("k")
    assert [kind for kind, _ in events] == ["miss", "load", "stored", "stored", "invalidated"]
    assert {record.name for record in caplog.records} == {"credenza"}
    assert len(caplog.records) == 5


def test_listener_may_use_the_cache_from_any_thread(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Contract: listeners run outside the lock."""
    seen: list[Any] = []

    def look(event: Event) -> None:
        seen.append(Call(lambda: (cache.get("k"), len(cache), cache.stats().size)).result())

    cache.subscribe(look)
    cache.get_or_load("k", lambda: 1, tags=["t"])
    for key in range(4):
        cache.set(key, 1)
    cache.invalidate("k")
    cache.invalidate_tags("t")
    with cache.writing("k", tags=["t"]):
        cache.set("k", 2)
    clock.advance(10)
    cache.get(3)
    cache.set("k", 1)
    cache.clear()
    assert len(seen) > 12


def test_listener_that_writes_does_not_recurse_for_ever(cache: Cache[Any, Any]) -> None:
    """Contract: a listener may invalidate what depends on what it hears."""
    cache.set("page", "html")

    def forget_the_page(event: Event) -> None:
        if event.kind == EventKind.INVALIDATED and event.key != "page":
            cache.invalidate("page")

    cache.subscribe(forget_the_page)
    cache.invalidate("user")
    assert "page" not in cache


@pytest.mark.parametrize("listener", [None, 1, "print"])
def test_listener_that_is_no_callable_raises(cache: Cache[Any, Any], listener: Any) -> None:
    """Bad input: at once, when it is subscribed."""
    with pytest.raises(UsageError, match="callable"):
        cache.subscribe(listener)


# Statistics -----------------------------------------------------------------------------------------------------------


def test_new_cache_has_counted_nothing() -> None:
    """Stats: all zero, and ratios of nothing are zero."""
    stats = Cache[Any, Any]().stats()
    assert stats == Stats()
    assert (stats.requests, stats.hit_ratio, stats.mean_load_seconds) == (0, 0.0, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.hits = 1  # type: ignore[misc]  # on purpose


def test_reads_are_counted(cache: Cache[Any, Any]) -> None:
    """Stats: hits and misses of every way to read, by hand and by function, once each."""
    function = cache.cached(lambda key: key)
    template = cache.cached(key="t:{key}")(lambda key: key)
    cache.get("k")
    cache.get_many(["k", "l"])
    cache.get_or_load("k", lambda: 1)
    cache.get_or_load("k", lambda: 1)
    cache.get("k")
    cache.fetch("k", lambda: 1)
    cache.get_many(["k"])
    cache.get_or_load_many(["k"], lambda keys: {})
    run(cache.aio.get("k"))
    run(cache.aio.get_or_load("k", lambda: 1))
    function(1), function(1), function(key=1)
    template(1), template(1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.stores) == (10, 6, 3, 3)
    assert stats.requests == 16
    assert stats.hit_ratio == 10 / 16
    assert stats.size == stats.weight == 3
    assert "k" in cache
    assert function.peek(1) == 1
    assert cache.stats() == stats


def test_load_times_are_measured_by_the_clock(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Stats: seconds in loaders, failed ones too, and their mean."""
    cache.get_or_load("a", lambda: clock.advance(3))
    with pytest.raises(ConnectionError):
        cache.get_or_load("b", lambda: (clock.advance(1), CountingLoader("", error=ConnectionError())()))
    stats = cache.stats()
    assert (stats.loads, stats.load_failures, stats.load_seconds, stats.mean_load_seconds) == (2, 1, 4.0, 2.0)


def test_bulk_load_is_one_load(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Stats: a bulk load is counted once, its keys one by one."""
    cache.get_or_load_many(["a", "b", "c"], lambda keys: clock.advance(2) or {"a": 1, "b": 1})
    stats = cache.stats()
    assert (stats.loads, stats.misses, stats.stores, stats.load_seconds) == (1, 3, 2, 2.0)


def test_joins_are_counted(cache: Cache[Any, Any]) -> None:
    """Stats: the leader missed, the others joined; flights are counted while they are open."""
    load = HeldLoader()
    calls = [Call(lambda: cache.get_or_load("k", load)) for _ in range(5)]
    wait_for_callers(cache, "k", 5)
    assert cache.stats().flights == 1
    load.release()
    [call.result() for call in calls]
    stats = cache.stats()
    assert (stats.misses, stats.joins, stats.loads, stats.flights) == (1, 4, 1, 0)
    assert cache.cache_info() == CacheInfo(hits=0, misses=5, maxsize=3, currsize=1)


def test_departures_are_counted(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Stats: evictions, expirations and invalidations, each by its own name."""
    for key in range(5):
        cache.set(key, 1)
    cache.invalidate(2, "never there")
    cache.invalidate_tags("t")
    clock.advance(10)
    cache.get(3), cache.get(4)
    stats = cache.stats()
    assert (stats.stores, stats.evictions, stats.invalidations, stats.expirations, stats.size) == (5, 2, 3, 2, 0)


def test_refused_values_are_counted(cache: Cache[Any, Any]) -> None:
    """Stats: a load that a write overtook was a load, and its value was refused."""
    cache.get_or_load("k", lambda: cache.set("k", "new") or "old")
    stats = cache.stats()
    assert (stats.loads, stats.stores, stats.refused_stores) == (1, 1, 1)


def test_reads_inside_a_fence_are_counted_as_requests(cache: Cache[Any, Any]) -> None:
    """Stats: whatever went to the source is in `requests`, once."""
    with cache.writing("k"):
        cache.get_or_load("k", lambda: 1)
        cache.get_or_load("k", lambda: 1)
    stats = cache.stats()
    assert (stats.requests, stats.loads, stats.hits) == (2, 2, 0)


def test_bypasses_are_counted() -> None:
    """Stats: reads past the cache are requests, and no misses."""
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(DictSource[Any, Any]({1: "Ann", 2: "Bob"}), strategy=NoCache())
    users.get(1), users.get_many([1, 2])
    stats = cache.stats()
    assert (stats.bypasses, stats.requests, stats.hits, stats.misses) == (3, 3, 0, 0)
    assert len(cache) == 0


def test_counts_of_many_threads_add_up() -> None:
    """Stats: with the interpreter's lock no count is lost."""
    cache: Cache[Any, Any] = Cache()
    cache.set("k", 1)

    def read() -> None:
        for _ in range(2_000):
            cache.get_or_load("k", lambda: 1)
            cache.get("k")

    [call.result() for call in [Call(read) for _ in range(4)]]
    assert cache.stats().hits == 16_000


def test_fetched_says_where_a_value_came_from(cache: Cache[Any, Any], clock: FakeClock) -> None:
    """Contract: status, age and load time of a miss, a hit, a joined, a stale and a bypassing call."""
    assert cache.fetch("k", lambda: clock.advance(2) or "v") == Fetched("v", "miss", 0.0, 2.0)  # type: ignore[arg-type]
    clock.advance(3)
    assert cache.fetch("k", lambda: "w") == Fetched("v", "hit", 3.0, 0.0)  # type: ignore[arg-type]  # a str-enum
    assert f"X-Cache: {cache.fetch('k', lambda: 'w').status}" == "X-Cache: hit"
    with cache.writing("k"):
        assert cache.fetch("k", lambda: "w").status == "bypass"
    users = cache.repository(DictSource[Any, Any]({1: "Ann"}), strategy=NoCache())
    assert users.fetch(1).status == "bypass"
    load = HeldLoader()
    calls = [Call(lambda: cache.fetch("j", load)) for _ in range(2)]
    wait_for_callers(cache, "j", 2)
    load.release()
    assert sorted(call.result().status for call in calls) == ["joined", "miss"]


def test_set_and_loaded_values_are_counted_as_stores(cache: Cache[Any, Any]) -> None:
    """Stats: what is not kept is no store."""
    cache.set("a", 1)
    cache.set_many({"b": 1, "c": 1})
    cache.get_or_load("d", lambda: Loaded(1, ttl=0))
    with pytest.raises(NotFound):
        cache.get_or_load("e", CountingLoader("", error=NotFound()))
    assert cache.stats().stores == 3


def test_repr_names_the_cache_and_its_size(cache: Cache[Any, Any]) -> None:
    """Looks: what a debugger shows."""
    cache.set("k", 1)
    assert "maxsize=3" in repr(cache)
    assert "1 entries" in repr(cache) or "1 entry" in repr(cache)
    assert "shop" in repr(Cache[Any, Any](name="shop"))


def test_stats_can_be_read_while_others_write(cache: Cache[Any, Any]) -> None:
    """Stats: a snapshot is consistent: size, weight and bounds fit together at every moment."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            cache.set(number % 7, number, tags=["t"])
            cache.invalidate(number % 5)

    writers = [Call(write) for _ in range(2)]
    for _ in range(2_000):
        stats = cache.stats()
        assert stats.size == stats.weight <= 3
    stop.set()
    [writer.result() for writer in writers]


def test_listeners_hear_of_a_value_after_it_can_be_read(cache: Cache[Any, Any]) -> None:
    """Contract: an event tells what has happened."""
    seen: dict[str, Any] = {}
    tell: Callable[[Event], object] = lambda event: seen.setdefault(event.kind.value, cache.get("k"))  # noqa: E731
    cache.subscribe(tell)
    cache.get_or_load("k", lambda: "v")
    assert seen["stored"] == "v"
    cache.invalidate("k")
    assert seen["invalidated"] is None
