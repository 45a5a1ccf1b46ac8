"""Rules B1 and B3: what a cache holds is bounded, and what has expired is reclaimed by and by."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.invariants import check_cache
from tests.support.waiting import Call, HeldLoader, run, start_together, wait_for_callers

from credenza import Cache, ConfigurationError, Event, Loaded
from credenza.testing import FakeClock

evictions = pytest.mark.parametrize("eviction", ["s3fifo", "lru"])


def kinds_of(cache: Cache[Any, Any]) -> list[tuple[str, Any]]:
    """Return the list that the events of `cache` are noted in."""
    events: list[tuple[str, Any]] = []

    def note(event: Event) -> None:
        events.append((str(event.kind), event.key))

    cache.subscribe(note)
    return events


# B1: maxsize ----------------------------------------------------------------------------------------------------------


def test_cache_without_options_is_bounded() -> None:
    """B1: 10,000 entries unless told otherwise."""
    cache: Cache[int, int] = Cache()
    for key in range(12_000):
        cache.set(key, key)
    assert len(cache) == 10_000
    assert cache.stats().evictions == 2_000
    assert cache.cache_info().maxsize == 10_000


@evictions
@pytest.mark.parametrize("maxsize", [1, 2, 3, 9, 10, 11, 100])
def test_cache_never_holds_more_than_maxsize(eviction: str, maxsize: int) -> None:
    """B1: the bound holds after every operation, and the newest value is there."""
    cache: Cache[Any, Any] = Cache(maxsize=maxsize, eviction=eviction)
    rng = random.Random(maxsize)
    for number in range(1_000):
        key = rng.randrange(maxsize * 3)
        match rng.randrange(4):
            case 0:
                cache.set(key, number)
                assert cache.get(key) == number
            case 1:
                cache.get_or_load(key, lambda number=number: number)
            case 2:
                cache.get_or_load_many(range(key, key + 3), lambda keys: dict.fromkeys(keys, 1))
            case _:
                cache.invalidate(key)
        assert len(cache) <= maxsize


@evictions
def test_full_cache_stays_full(eviction: str) -> None:
    """B1: one comes, one goes; nothing is evicted while there is room."""
    cache: Cache[int, int] = Cache(maxsize=50, eviction=eviction)
    events = kinds_of(cache)
    for key in range(50):
        cache.set(key, key)
    cache.set(7, 8)
    assert not [event for event in events if event[0] == "evicted"]
    for key in range(50, 150):
        cache.set(key, key)
        assert len(cache) == 50
    evicted = [key for kind, key in events if kind == "evicted"]
    assert len(evicted) == len(set(evicted)) == 100 == cache.stats().evictions
    assert sorted(evicted + [key for key in range(150) if key in cache]) == list(range(150))


def test_unbounded_on_request() -> None:
    """B1: `maxsize=None` is no bound."""
    cache: Cache[int, int] = Cache(maxsize=None)
    for key in range(20_000):
        cache.set(key, key)
    assert len(cache) == 20_000
    assert cache.cache_info().maxsize is None


def test_bulk_load_of_more_than_fits_returns_all() -> None:
    """B1: the bound is on what stays, not on what a call returns."""
    cache: Cache[int, int] = Cache(maxsize=3)
    assert cache.get_or_load_many(range(100), lambda keys: {key: key for key in keys}) == {
        key: key for key in range(100)
    }
    assert len(cache) == 3


@pytest.mark.parametrize("bound", [0, -1, 1.5, "10", True, False])
@pytest.mark.parametrize("name", ["maxsize", "max_weight"])
def test_wrong_bound_raises_and_says_what_to_do(name: str, bound: Any) -> None:
    """Bad input: a bound is an int of at least 1, or None."""
    options = {name: bound} | ({"weigher": len} if name == "max_weight" else {})
    with pytest.raises(
        ConfigurationError, match=rf"{name} must be .*None.*{bound!r}|{name} must be .*{bound!r}.*None"
    ) as caught:
        Cache(**options)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("eviction", ["fifo", "LRU", None, 1])
def test_unknown_eviction_raises_and_lists_the_known(eviction: Any) -> None:
    """Bad input: the message names both."""
    with pytest.raises(ConfigurationError, match=r'"s3fifo" or "lru"'):
        Cache(eviction=eviction)


# B1: weights ----------------------------------------------------------------------------------------------------------


@evictions
def test_sum_of_weights_is_bounded(eviction: str) -> None:
    """B1: with a weigher the sum of the weights never passes `max_weight`, whatever comes, replaced values included."""
    cache: Cache[int, str] = Cache(maxsize=None, max_weight=100, weigher=len, eviction=eviction)
    rng = random.Random(1)
    for _ in range(2_000):
        key = rng.randrange(40)
        cache.set(key, "x" * rng.randrange(30))
        assert cache.stats().weight <= 100
        if rng.random() < 0.3:
            cache.get(rng.randrange(40))
        if rng.random() < 0.1:
            cache.invalidate(rng.randrange(40))
    held = [value for value in (cache.get(key) for key in range(40)) if value is not None]
    assert cache.stats().weight == sum(map(len, held))
    assert len(cache) == len(held)


@evictions
def test_both_bounds_hold_together(eviction: str) -> None:
    """B1: number and weight are two bounds."""
    cache: Cache[int, int] = Cache(maxsize=5, max_weight=100, weigher=lambda value: value, eviction=eviction)
    for key in range(20):
        cache.set(key, 1)
    assert (len(cache), cache.stats().weight) == (5, 5)
    for key in range(20):
        cache.set(key, 40)
    assert (len(cache), cache.stats().weight) == (2, 80)


@evictions
def test_entry_heavier_than_the_cache_is_not_stored_and_an_event_says_so(eviction: str) -> None:
    """B1: it evicts nobody, the caller gets the value, and the old value of its key is gone."""
    cache: Cache[str, str] = Cache(max_weight=10, weigher=len, eviction=eviction)
    events = kinds_of(cache)
    cache.set("other", "12345")
    cache.set("k", "old")
    cache.set("k", "x" * 11)
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "y" * 11) == "y" * 11
    assert cache.get_or_load_many(["k"], lambda keys: {"k": "z" * 11}) == {"k": "z" * 11}
    assert cache.get("k") is None
    assert cache.get("other") == "12345"
    assert Counter(kind for kind, _ in events if kind in ("too_heavy", "evicted")) == {"too_heavy": 3}
    cache.set("k", "x" * 10)
    assert cache.get("k") == "x" * 10


def test_heavier_value_for_a_key_makes_room_by_evicting_others() -> None:
    """B1: a replaced value's weight is taken back before the bound is looked at."""
    cache: Cache[int, int] = Cache(max_weight=10, weigher=lambda value: value, eviction="lru")
    for key in range(5):
        cache.set(key, 2)
    cache.set(4, 4)
    assert cache.stats().evictions == 1
    assert cache.get_many(range(5)) == {1: 2, 2: 2, 3: 2, 4: 4}
    cache.set(4, 10)
    assert cache.get_many(range(5)) == {4: 10}


@pytest.mark.parametrize("count", [1, 2])
def test_weigher_gets_the_value_or_key_and_value(count: int) -> None:
    """B1: a weigher takes the value, or key and value if it takes two arguments."""
    seen: list[Any] = []
    weighers: list[Callable[..., int]] = [
        lambda value: seen.append(value) or 7,
        lambda key, value: seen.append((key, value)) or 7,
    ]
    cache: Cache[str, str] = Cache(max_weight=100, weigher=weighers[count - 1])
    cache.set("k", "v")
    cache.get_or_load("l", lambda: Loaded("w", ttl=5))
    assert seen == (["v", "w"] if count == 1 else [("k", "v"), ("l", "w")])
    assert cache.stats().weight == 14


def test_built_in_without_a_signature_can_weigh() -> None:
    """B1: `sys.getsizeof` is a weigher."""
    cache: Cache[str, str] = Cache(max_weight=1_000, weigher=sys.getsizeof)
    cache.set("k", "v")
    assert cache.stats().weight == sys.getsizeof("v")


@evictions
def test_entries_without_weight_are_bounded_by_number(eviction: str) -> None:
    """B1: a weight of 0 is allowed, and takes part in eviction."""
    cache: Cache[int, int] = Cache(maxsize=10, max_weight=5, weigher=lambda value: value, eviction=eviction)
    for key in range(30):
        cache.set(key, 0)
    cache.set(99, 5)
    assert len(cache) == 10
    assert cache.get(99) == 5
    for key in range(30):
        cache.set(key, 5)
    assert cache.stats().weight <= 5


@pytest.mark.parametrize("weight", [-1, 1.5, "1", None, True])
def test_wrong_weight_raises_stores_nothing_and_hangs_nobody(weight: Any) -> None:
    """Bad input: a weigher returns an int of at least 0; what it returned instead is in the message."""
    cache: Cache[str, str] = Cache(max_weight=10, weigher=lambda value: weight)
    for call in (
        lambda: cache.set("k", "v"),
        lambda: cache.get_or_load("k", lambda: "v"),
        lambda: cache.cached(lambda: 1)(),
    ):
        with pytest.raises(ConfigurationError, match=rf"weigher must return an int of at least 0, got {weight!r}"):
            call()
    assert len(cache) == 0


def test_weigher_that_raises_fails_its_call_only() -> None:
    """L3: an error of the user's weigher reaches the caller; waiters and later callers do not hang."""
    cache: Cache[str, Any] = Cache(max_weight=10, weigher=len)
    with pytest.raises(TypeError):
        cache.set("k", 5)
    load = HeldLoader(5)
    calls = [Call(lambda: cache.get_or_load("k", load)) for _ in range(4)]
    wait_for_callers(cache, "k", 4)
    load.release()
    assert {type(call.error()) for call in calls} == {TypeError}
    assert cache.get_or_load("k", lambda: "v") == "v"


@pytest.mark.parametrize("options", [{"max_weight": 10}, {"weigher": len}])
def test_weigher_and_max_weight_need_each_other(options: dict[str, Any]) -> None:
    """Bad input: one without the other does nothing, and the message says so."""
    with pytest.raises(ConfigurationError, match="need each other"):
        Cache(**options)


def test_weigher_that_is_no_callable_raises() -> None:
    """Bad input: at once, when the cache is made."""
    with pytest.raises(ConfigurationError, match="callable"):
        Cache(max_weight=10, weigher=5)  # type: ignore[arg-type]  # on purpose


# maxsize=1 under load -------------------------------------------------------------------------------------------------


@evictions
@pytest.mark.parametrize(
    "bounds", [{"maxsize": 1}, {"maxsize": None, "max_weight": 1, "weigher": lambda value: 1}], ids=["size", "weight"]
)
def test_cache_of_one_entry_under_threads_and_tasks_loses_nobody(eviction: str, bounds: dict[str, Any]) -> None:
    """Issue 2: `maxsize=1` under any load: no `KeyError`, no lost waiter, and everybody gets the value of their key."""
    cache: Cache[Any, Any] = Cache(eviction=eviction, **bounds)

    def work() -> int:
        rng = random.Random(threading.get_ident())
        for _ in range(150):
            key = rng.randrange(4)
            match rng.randrange(8):
                case 0:
                    cache.invalidate(key)
                case 1:
                    cache.set(key, key, tags=["t"])
                case 2:
                    cache.invalidate_tags("t")
                case 3:
                    assert cache.get_or_load_many([key, key + 1], lambda keys: {k: k for k in keys}) == {
                        key: key,
                        key + 1: key + 1,
                    }
                case 4:
                    with cache.writing(key):
                        assert cache.get_or_load(key, lambda key=key: key) == key
                case 5:
                    cache.clear()
                case _:
                    assert cache.get_or_load(key, lambda key=key: key, tags=["t"]) == key
            assert cache.get(key, key) == key
        return 1

    async def task(number: int) -> int:
        rng = random.Random(number)
        for _ in range(20):
            key = rng.randrange(4)

            async def load(key: int = key) -> int:
                await asyncio.sleep(0)
                return key

            assert await cache.aio.get_or_load(key, load, tags=["t"]) == key
            assert await cache.aio.get(key, key) == key
        return 1

    async def many_tasks() -> int:
        return sum(await asyncio.gather(*map(task, range(50))))

    calls = [*start_together(4, work), Call(lambda: run(many_tasks()))]
    assert sum(call.result() for call in calls) == 54
    assert len(cache) <= 1


@evictions
def test_flight_survives_the_eviction_of_its_key(eviction: str) -> None:
    """L4: while a load is under way, its key may be evicted, expire or be cleared a hundred times."""
    cache: Cache[Any, Any] = Cache(maxsize=1, eviction=eviction)
    load = HeldLoader()
    calls = [Call(lambda: cache.get_or_load("k", load)) for _ in range(8)]
    wait_for_callers(cache, "k", 8)
    for number in range(100):
        cache.set(number, number)
    load.release()
    assert [call.result() for call in calls] == ["value"] * 8
    assert load.calls == 1
    assert cache.get("k") == "value"


# B3: expiry -----------------------------------------------------------------------------------------------------------


@evictions
def test_expired_entries_are_reclaimed_by_later_stores(eviction: str) -> None:
    """B3: as many stores as there are expired entries, at most, and they are all gone."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=10, clock=clock, eviction=eviction)
    for key in range(1_000):
        cache.set(key, key)
    clock.advance(60)
    for key in range(1_000):
        cache.set(("new", key), key)
    assert len(cache) == 1_000
    assert cache.stats().expirations == 1_000


def test_no_operation_sweeps_all_that_expired() -> None:
    """B3: one store reclaims a few, however many have expired."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=10, clock=clock)
    for key in range(5_000):
        cache.set(key, key)
    clock.advance(60)
    reclaimed = []
    for key in range(200):
        before = cache.stats().expirations
        cache.get_or_load(("new", key), lambda: 1)
        reclaimed.append(cache.stats().expirations - before)
    assert max(reclaimed) <= 10
    assert sum(reclaimed) >= 200


def test_work_of_a_store_does_not_grow_with_the_expired() -> None:
    """B3: the lines that a store runs are as many with a hundred expired entries as with ten thousand."""

    def lines_of_a_store(expired: int) -> int:
        clock = FakeClock()
        cache: Cache[Any, Any] = Cache(maxsize=None, ttl=10, clock=clock)
        for key in range(expired):
            cache.set(key, key)
        clock.advance(60)
        return lines_run_by(lambda: cache.set("new", 1))

    assert lines_of_a_store(10_000) == lines_of_a_store(100)


def lines_run_by(action: Callable[[], object]) -> int:
    """Return how many lines of Python `action` runs."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.collect()
    gc.disable()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_expired_entries_go_before_living_ones_are_evicted() -> None:
    """B3: room that the expired leave is used before anything alive is evicted."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=100, jitter=0, clock=clock)
    for key in range(50):
        cache.set(("short", key), 1, ttl=10)
        cache.set(("long", key), 1, ttl=1_000)
    clock.advance(60)
    for key in range(50):
        cache.set(("new", key), 1, ttl=1_000)
    assert cache.stats().evictions == 0
    assert cache.stats().expirations == 50
    assert len(cache) == 100


def test_reading_an_expired_entry_reclaims_it() -> None:
    """B3: who meets an expired entry takes it out."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(ttl=10, clock=clock)
    events = kinds_of(cache)
    cache.set("k", 1)
    clock.advance(10)
    assert cache.get("k") is None
    assert len(cache) == 0
    assert ("expired", "k") in events


def test_idle_entries_are_reclaimed_too() -> None:
    """B3: entries that were read lately are left, idle ones go."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=10_000, idle_ttl=10, jitter=0, clock=clock)
    for key in range(500):
        cache.set(key, key)
    for _ in range(10):
        clock.advance(9)
        assert len(cache.get_many(range(100))) == 100
    for key in range(500):
        cache.set(("new", key), key)
    assert len(cache.get_many(range(500))) == 100
    assert len(cache) == 600


def test_values_that_never_expire_cost_no_reclaiming() -> None:
    """B3: entries without a ttl are not reclaimed by time."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=None, clock=clock)
    for key in range(100):
        cache.set(key, key)
    clock.advance(1e9)
    cache.set("k", 1)
    assert len(cache) == 101


# What left is freed ---------------------------------------------------------------------------------------------------


class Value:
    """A value that can be referenced weakly."""


def _leave(cache: Cache[Any, Any], clock: FakeClock, way: str) -> None:
    if way == "invalidate":
        cache.invalidate("k")
    elif way == "clear":
        cache.clear()
    elif way == "set":
        cache.set("k", 1)
    elif way == "writing":
        with cache.writing("k"):
            pass
    elif way == "expire":
        clock.advance(10_000)
        cache.get("k")
    elif way == "evict":
        for key in range(20):
            cache.set(key, key)
    elif way == "expire on load":
        clock.advance(10_000)
        cache.get_or_load("k", lambda: 1)
    elif way == "reclaim":
        clock.advance(10_000)
        cache.set("other", 1)
    else:
        cache.close()


WAYS = ["invalidate", "clear", "set", "writing", "expire", "evict", "expire on load", "reclaim", "close"]


@evictions
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_loaded", [False, True], ids=["set", "loaded"])
def test_value_that_left_is_freed_at_once(eviction: str, way: str, is_loaded: bool) -> None:
    """B1: no queue, bucket, flight or event keeps a value that left, without waiting for the collector."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=5, eviction=eviction, clock=clock)
    value = Value()
    dead = weakref.ref(value)
    if is_loaded:
        cache.get_or_load("k", lambda value=value: value)
    else:
        cache.set("k", value)
    del value
    assert dead() is not None
    gc.disable()
    try:
        _leave(cache, clock, way)
        assert dead() is None
    finally:
        gc.enable()


class Tell:
    """A value whose finalizer uses the cache that it leaves."""

    def __init__(self, cache: Cache[Any, Any], told: list[Any]) -> None:
        self._cache = cache
        self._told = told

    def __del__(self) -> None:
        def use() -> None:
            self._cache.get("other")
            self._told.append(self._cache.get_or_load("told", lambda: "told"))

        use()
        Call(use).result()


@evictions
@pytest.mark.parametrize("way", [way for way in WAYS if way != "close"])
def test_finalizer_of_a_value_may_use_the_cache(eviction: str, way: str) -> None:
    """B1: values are let go outside the lock, so a finalizer can call the cache, from its thread and from another."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=5, eviction=eviction, clock=clock)
    told: list[Any] = []
    cache.set("k", Tell(cache, told))
    _leave(cache, clock, way)
    assert told == ["told", "told"]


class CollectingKey:
    """A key in whose `__hash__` the collector runs, as it may in that of a dataclass, which builds a tuple."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CollectingKey) and self.number == other.number

    def __hash__(self) -> int:
        _countdown[0] -= 1
        if _countdown[0] == 0:
            gc.collect()
        return hash(self.number)


_countdown = [0]


class Writer:
    """Garbage, as it refers to itself, whose finalizer writes to the cache."""

    def __init__(self, cache: Cache[Any, Any]) -> None:
        self._cache = cache
        self._self = self

    def __del__(self) -> None:
        self._cache.invalidate(CollectingKey(1), CollectingKey(2))
        for number in (7, 8, 9):
            self._cache.set(CollectingKey(number), "by the finalizer")


@evictions
@pytest.mark.parametrize("hashes", range(1, 13))
@pytest.mark.parametrize("operation", ["set a new key", "set again", "load", "invalidate", "write"])
def test_collector_that_runs_a_finalizer_in_the_middle_of_a_step_breaks_nothing(
    operation: str, hashes: int, eviction: str
) -> None:
    """B1: the table stays whole if a finalizer uses the cache while its own thread is in the middle of a step."""
    cache: Cache[Any, Any] = Cache(maxsize=3, eviction=eviction)
    for number in (1, 2, 3):
        cache.set(CollectingKey(number), number, tags=["t"])
    gc.disable()
    try:
        Writer(cache)
        _countdown[0] = hashes
        match operation:
            case "set a new key":
                cache.set(CollectingKey(4), 4, tags=["t"])
            case "set again":
                cache.set(CollectingKey(1), 4, tags=["t"])
            case "load":
                assert cache.get_or_load(CollectingKey(4), lambda: 4) == 4
            case "invalidate":
                cache.invalidate(CollectingKey(1), CollectingKey(3))
            case _:
                with cache.writing(CollectingKey(1)):
                    pass
        _countdown[0] = 0
        gc.collect()
    finally:
        gc.enable()
    check_cache(cache)
    for number in range(20):
        cache.set(CollectingKey(number), number)
        assert cache.get(CollectingKey(number)) == number


# Many inserts ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
def test_a_million_inserts_with_tags_leave_a_bounded_process() -> None:
    """Issue 2: a million inserts into 10,000 places: neither entries, nor keys, nor tags of evicted ones stay."""
    cache: Cache[Any, Any] = Cache(maxsize=10_000)

    def insert(first: int, last: int) -> None:
        put = cache.set
        for number in range(first, last):
            put(number, number, tags=("all",) if number % 10 else (f"tag {number}",))

    insert(0, 100_000)
    gc.collect()
    before = sys.getallocatedblocks()
    insert(100_000, 1_000_000)
    gc.collect()
    assert sys.getallocatedblocks() < before * 1.05 + 1_000
    assert len(cache) == 10_000
    assert cache.stats().evictions == 990_000


@evictions
def test_invalidating_and_setting_for_ever_grows_nothing(eviction: str) -> None:
    """B1: what is marked and skipped later is not kept for ever: queues, buckets and ghosts are bounded."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=100, eviction=eviction, clock=clock)

    def churn(times: int) -> None:
        for number in range(times):
            key = number % 150
            cache.set(key, number, tags=[f"tag {number}"])
            if number % 3 == 0:
                cache.invalidate(key)
            elif number % 3 == 1:
                cache.invalidate_tags(f"tag {number}")
            if number % 50 == 0:
                clock.advance(1)

    churn(5_000)
    gc.collect()
    before = sys.getallocatedblocks()
    churn(50_000)
    gc.collect()
    assert sys.getallocatedblocks() < before + 2_000


def test_loads_of_ever_new_keys_grow_nothing() -> None:
    """L4, B1: flights, fences, tags and counters of a million different keys leave nothing behind."""
    cache: Cache[Any, Any] = Cache(maxsize=10)
    function = cache.cached(tags=["n:{number}"])(lambda number: number)

    def load(first: int, last: int) -> None:
        for number in range(first, last):
            function(number)
            cache.get_or_load(number, lambda: 1, tags=[f"t:{number}"])
            with cache.writing(number, tags=[f"t:{number}"]):
                cache.get_or_load(number, lambda: 1)
            cache.invalidate_tags(f"n:{number}")

    load(0, 500)
    gc.collect()
    before = sys.getallocatedblocks()
    load(500, 5_000)
    gc.collect()
    assert sys.getallocatedblocks() < before + 1_000
