"""Rules F1 to F4: how long values live, what may be served stale, and what is remembered of absence."""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.waiting import Call, HeldLoader, run, wait_for_callers, wait_until

from credenza import MISSING, Cache, Loaded, NotFound
from credenza.testing import CountingLoader, FakeClock

TTL = 100.0


def make(**options: Any) -> tuple[Cache[Any, Any], FakeClock]:
    clock = FakeClock(1_000.0)
    options.setdefault("jitter", 0)
    options.setdefault("ttl", TTL)
    return Cache(clock=clock, **options), clock


def at_rest(cache: Cache[Any, Any]) -> None:
    """Wait for the refreshes that run behind the readers."""
    wait_until(lambda: cache.stats().flights == 0, "all refreshes have ended")


def _get(cache: Cache[Any, Any], key: str) -> Any:
    return cache.get(key, MISSING)


def _get_many(cache: Cache[Any, Any], key: str) -> Any:
    return cache.get_many([key]).get(key, MISSING)


def _aio_get(cache: Cache[Any, Any], key: str) -> Any:
    return run(cache.aio.get(key, MISSING))


def _get_or_load(cache: Cache[Any, Any], key: str) -> Any:
    return cache.get_or_load(key, lambda: Loaded(MISSING, ttl=0))


def _aio_get_or_load(cache: Cache[Any, Any], key: str) -> Any:
    return run(cache.aio.get_or_load(key, lambda: Loaded(MISSING, ttl=0)))


def _fetch(cache: Cache[Any, Any], key: str) -> Any:
    return cache.fetch(key, lambda: Loaded(MISSING, ttl=0)).value


def _bulk(cache: Cache[Any, Any], key: str) -> Any:
    return cache.get_or_load_many([key], lambda keys: {}).get(key, MISSING)


def _in(cache: Cache[Any, Any], key: str) -> Any:
    return "value" if key in cache else MISSING


READERS = [_get, _get_many, _aio_get, _get_or_load, _aio_get_or_load, _fetch, _bulk, _in]
Reader = Callable[[Cache[Any, Any], str], Any]


# F1: ttl --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
def test_value_at_its_ttl_is_not_served(read: Reader, eviction: str) -> None:
    """F1: a value is served until just before its ttl, and not from then on, however it is read."""
    cache, clock = make(eviction=eviction)
    cache.set("k", "value")
    assert read(cache, "k") == "value"
    clock.advance(TTL - 0.001)
    assert read(cache, "k") == "value"
    clock.advance(0.001)
    assert read(cache, "k") is MISSING


@pytest.mark.parametrize("is_async", [False, True])
def test_cached_function_at_its_ttl_loads_again(is_async: bool) -> None:
    """F1: the decorator's own hit path looks at the clock too."""
    cache, clock = make()
    calls: list[int] = []

    if is_async:

        @cache.cached
        async def load(number: int) -> int:
            calls.append(number)
            return len(calls)

        def call() -> int:
            return run(load(7))
    else:

        @cache.cached
        def plain(number: int) -> int:
            calls.append(number)
            return len(calls)

        def call() -> int:
            return plain(7)

    assert [call(), call()] == [1, 1]
    clock.advance(TTL - 0.001)
    assert call() == 1
    clock.advance(0.001)
    assert call() == 2


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (2, 2.0),
        (0.5, 0.5),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        (timedelta(minutes=3), 180.0),
    ],
)
def test_ttl_in_every_notation_lasts_as_long_as_it_says(ttl: Any, seconds: float) -> None:
    """F1: seconds, a `timedelta` and text mean the same, for the cache, for `set`, for a load and for `Loaded`."""
    for store in (
        lambda cache: cache.set("k", 1, ttl=ttl),
        lambda cache: cache.get_or_load("k", lambda: 1, ttl=ttl),
        lambda cache: cache.get_or_load("k", lambda: Loaded(1, ttl=ttl)),
        lambda cache: cache.get_or_load("k", lambda: 1, ttl=lambda value: ttl),
        lambda cache: cache.set_many({"k": 1}, ttl=ttl),
    ):
        cache, clock = make(ttl=7_777_777)
        store(cache)
        clock.advance(seconds * 0.999)
        assert cache.get("k") == 1
        clock.advance(seconds * 0.002)
        assert cache.get("k") is None


def test_ttl_none_never_expires() -> None:
    """F1: `ttl=None` means never."""
    cache, clock = make(ttl=None, jitter=0.5)
    cache.set("k", 1)
    clock.advance(1e9)
    assert cache.get("k") == 1


def test_ttl_of_a_call_does_not_change_that_of_the_cache() -> None:
    """F1: an option of one call is that call's."""
    cache, clock = make()
    cache.get_or_load("short", lambda: 1, ttl=1)
    cache.get_or_load("usual", lambda: 1)
    clock.advance(1)
    assert "short" not in cache
    assert "usual" in cache


def test_loaded_with_ttl_zero_is_handed_out_and_not_kept() -> None:
    """F1: `Loaded(value, ttl=0)` means "do not keep"."""
    cache, _ = make()
    loader = CountingLoader(lambda: Loaded("value", ttl=0))
    assert cache.get_or_load("k", loader) == "value"
    assert cache.get_or_load("k", loader) == "value"
    assert loader.calls == 2
    assert len(cache) == 0


def test_callable_ttl_decides_per_value() -> None:
    """F1: a callable ttl gets the value, and 0 from it means "do not keep"."""
    cache, clock = make()

    @cache.cached(ttl=lambda value: value)
    def load(seconds: float | None) -> float | None:
        return seconds

    load(10), load(20), load(0), load(None)
    assert [load.peek(10), load.peek(20), load.peek(0)] == [10, 20, None]
    clock.advance(10)
    assert [load.peek(10), load.peek(20)] == [None, 20]
    clock.advance(1e9)
    assert load.cache_info().misses == 4
    load(None)
    assert load.cache_info().misses == 4


def test_callable_ttl_that_raises_fails_the_load_and_hangs_nobody() -> None:
    """L3: an error of the user's `ttl` callable is one of the load; the next call loads again."""
    cache, _ = make()

    def ttl(value: int) -> float:
        raise KeyError("no such ttl")

    with pytest.raises(KeyError, match="no such ttl"):
        cache.get_or_load("k", lambda: 1, ttl=ttl)
    assert cache.stats().flights == 0
    assert cache.get_or_load("k", lambda: 2) == 2


def test_set_again_begins_a_new_ttl() -> None:
    """F1: the age of a value is counted from its own store."""
    cache, clock = make()
    cache.set("k", 1)
    clock.advance(TTL - 1)
    cache.set("k", 2)
    clock.advance(TTL - 1)
    assert cache.get("k") == 2
    clock.advance(1)
    assert cache.get("k") is None


def test_reads_do_not_prolong_a_ttl() -> None:
    """F1: without an idle ttl a read changes nothing about the age."""
    cache, clock = make()
    cache.set("k", 1)
    for _ in range(99):
        clock.advance(1)
        assert cache.get("k") == 1
    clock.advance(1)
    assert cache.get("k") is None


def test_load_that_takes_long_ages_from_its_end() -> None:
    """F1: a value is fresh for its ttl after it was stored."""
    cache, clock = make()

    def load() -> str:
        clock.advance(50)
        return "value"

    found = cache.fetch("k", load)
    assert (found.value, found.status, found.age, found.load_time) == ("value", "miss", 0.0, 50.0)
    clock.advance(60)
    found = cache.fetch("k", load)
    assert (found.status, found.age, found.load_time) == ("hit", 60.0, 0.0)


# Jitter ---------------------------------------------------------------------------------------------------------------


def test_jitter_shortens_by_at_most_its_share_and_never_lengthens() -> None:
    """F1: with a jitter of a half, keys expire spread between half the ttl and the ttl."""
    cache, clock = make(jitter=0.5)
    cache.set_many(dict.fromkeys(range(400), "value"))
    clock.advance(TTL / 2 - 0.01)
    assert len(cache.get_many(range(400))) == 400
    clock.advance(TTL / 4)
    assert 130 < len(cache.get_many(range(400))) < 270
    clock.advance(TTL / 4 + 0.01)
    assert cache.get_many(range(400)) == {}


def test_jitter_of_loads_is_the_same() -> None:
    """F1: loaded values are spread as well."""
    cache, clock = make(jitter=1.0)
    cache.get_or_load_many(range(400), lambda keys: dict.fromkeys(keys, 1))
    clock.advance(TTL / 2)
    assert 130 < len(cache.get_many(range(400))) < 270


def test_default_jitter_is_a_tenth() -> None:
    """F1: nothing expires before nine tenths of the ttl by default, and nothing lives longer than it."""
    clock = FakeClock()
    cache: Cache[int, int] = Cache(clock=clock, ttl=TTL)
    cache.set_many(dict.fromkeys(range(200), 1))
    clock.advance(TTL * 0.9 - 0.01)
    assert len(cache.get_many(range(200))) == 200
    clock.advance(TTL * 0.1 + 0.01)
    assert cache.get_many(range(200)) == {}


# Idle ttl -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
@pytest.mark.parametrize("read", [read for read in READERS if read is not _in])
def test_idle_value_expires_and_a_read_one_does_not(read: Reader, eviction: str) -> None:
    """F1: `idle_ttl` counts from the last read, however it was read."""
    cache, clock = make(idle_ttl=10, eviction=eviction)
    cache.set_many({"read": "value", "idle": "value"})
    for _ in range(5):
        clock.advance(9)
        assert read(cache, "read") == "value"
    assert "idle" not in cache
    clock.advance(10)
    assert read(cache, "read") is MISSING


def test_idle_ttl_never_outlasts_the_ttl() -> None:
    """F1: reads keep a value from being idle, not from getting old."""
    cache, clock = make(idle_ttl=10, ttl=25)
    cache.set("k", 1)
    for _ in range(3):
        clock.advance(8)
        assert cache.get("k") == 1
    clock.advance(1)
    assert cache.get("k") is None


def test_idle_cached_function_loads_again() -> None:
    """F1: the decorator's hit path notes reads for the idle ttl."""
    cache, clock = make(idle_ttl=10)
    loader = CountingLoader("value")

    @cache.cached
    def load() -> str:
        return loader()

    for _ in range(4):
        assert load() == "value"
        clock.advance(9)
    assert loader.calls == 1
    clock.advance(1)
    load()
    assert loader.calls == 2


def test_looking_whether_a_key_is_there_does_not_count_as_a_read() -> None:
    """F1: `in` leaves no trace."""
    cache, clock = make(idle_ttl=10)
    cache.set("k", 1)
    clock.advance(9)
    assert "k" in cache
    clock.advance(1)
    assert "k" not in cache


# Stale while revalidate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_stale_value_is_served_while_one_refresh_runs(is_async: bool) -> None:
    """F1, F3: within the window everybody gets the old value at once, and one refresh runs behind them."""
    cache, clock = make(stale_while_revalidate=50)
    cache.set("k", "old")
    clock.advance(TTL)
    load = HeldLoader("new")

    async def fetch_many_times() -> list[Any]:
        found = [await cache.aio.fetch("k", load) for _ in range(20)]
        load.release()
        return found

    if is_async:
        found = run(fetch_many_times())
    else:
        found = [cache.fetch("k", load) for _ in range(20)]
        load.release()
    at_rest(cache)
    assert {(fetched.value, fetched.status) for fetched in found} == {("old", "stale")}
    assert all(fetched.age == TTL for fetched in found)
    assert load.calls == 1
    assert cache.get("k") == "new"
    assert cache.stats().stale_hits == 20
    assert cache.stats().refreshes == 1


def test_get_never_serves_a_stale_value() -> None:
    """F1: `get` and `in` know fresh values only; nobody would refresh behind them."""
    cache, clock = make(stale_while_revalidate=50, stale_if_error=50)
    cache.set("k", "old")
    clock.advance(TTL)
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}
    assert "k" not in cache


@pytest.mark.parametrize("window", ["stale_while_revalidate", "stale_if_error"])
def test_value_past_its_stale_window_is_never_served(window: str) -> None:
    """F1: at ttl plus window the old value is gone, even if the load fails."""
    cache, clock = make(**{window: 50})
    cache.set("k", "old")
    clock.advance(TTL + 50)
    with pytest.raises(ConnectionError):
        cache.get_or_load("k", CountingLoader("", error=ConnectionError("down")))
    assert cache.get_or_load("k", lambda: "new") == "new"


def test_value_just_within_the_revalidate_window_is_served() -> None:
    """F1: the window is open until its very end."""
    cache, clock = make(stale_while_revalidate=50)
    cache.set("k", "old")
    clock.advance(TTL + 49.99)
    assert cache.get_or_load("k", lambda: "new") == "old"
    at_rest(cache)
    assert cache.get("k") == "new"


def test_window_of_one_kind_does_not_lend_itself_to_the_other() -> None:
    """F1: `stale_if_error` alone serves nothing stale while loads succeed."""
    cache, clock = make(stale_if_error=50)
    cache.set("k", "old")
    clock.advance(TTL)
    assert cache.get_or_load("k", lambda: "new") == "new"


def test_revalidate_window_alone_does_not_hide_errors_after_it() -> None:
    """F1: with a longer `stale_if_error` the value is there for errors, but not for plain loads after that window."""
    cache, clock = make(stale_while_revalidate=10, stale_if_error=50)
    cache.set("k", "old")
    clock.advance(TTL + 10)
    assert cache.get_or_load("k", lambda: "new") == "new"


@pytest.mark.parametrize(("age", "is_served"), [(9.9, True), (10, False), (49, False)])
def test_shorter_error_window_ends_before_the_revalidate_window(age: float, is_served: bool) -> None:
    """F1: a load that fails falls back to an old value within `stale_if_error`, however long the other window is."""
    cache, clock = make(stale_while_revalidate=50, stale_if_error=10)
    load = HeldLoader(ConnectionError("down"))
    call = Call(lambda: cache.get_or_load("k", load))
    load.wait_until_called()
    cache.set("k", "old")
    clock.advance(TTL + age)
    load.release()
    if is_served:
        assert call.result() == "old"
    else:
        assert isinstance(call.error(), ConnectionError)


def test_stale_bulk_read_serves_the_old_and_refreshes_with_one_call() -> None:
    """F3, L9: stale keys of a bulk call are refreshed by one call of the batch loader, behind the caller."""
    cache, clock = make(stale_while_revalidate=50)
    cache.set_many({"a": "old", "b": "old"})
    clock.advance(TTL)
    batches: list[list[str]] = []

    def load(keys: list[str]) -> dict[str, str]:
        batches.append(sorted(keys))
        return dict.fromkeys(keys, "new")

    assert cache.get_or_load_many(["a", "b", "c"], load) == {"a": "old", "b": "old", "c": "new"}
    at_rest(cache)
    assert sorted(batches) == [["a", "b"], ["c"]]
    assert cache.get_many(["a", "b"]) == {"a": "new", "b": "new"}


def test_foreground_load_after_the_window_joins_the_refresh_under_way() -> None:
    """F3: a refresh and a load of one key are one flight."""
    cache, clock = make(stale_while_revalidate=50)
    cache.set("k", "old")
    clock.advance(TTL)
    load = HeldLoader("new")
    assert cache.get_or_load("k", load) == "old"
    load.wait_until_called()
    clock.advance(50)
    joining = Call(lambda: cache.fetch("k", load))
    wait_for_callers(cache, "k", 1)
    load.release()
    found = joining.result()
    assert (found.value, found.status) == ("new", "joined")
    assert load.calls == 1


def test_old_value_is_served_during_refresh_by_hand() -> None:
    """F3: `refresh` loads anew although the value is fresh, and others are served the old one meanwhile."""
    cache, _ = make()
    loader = HeldLoader(lambda number: ["old", "new"][number - 1])
    loader.release()

    @cache.cached
    def load(key: str) -> str:
        return loader()

    assert load("k") == "old"
    loader.hold()
    refreshing = Call(lambda: load.refresh("k"))
    loader.wait_until_called(2)
    assert load("k") == "old"
    loader.release()
    assert refreshing.result() == "new"
    assert load("k") == "new"


# Failed refreshes -----------------------------------------------------------------------------------------------------


def test_failed_refresh_backs_off_and_doubles() -> None:
    """F3: after a failed refresh the next waits for `error_backoff`, then for twice as long, and so on."""
    cache, clock = make(stale_while_revalidate=1_000, error_backoff=4)
    cache.set("k", "old")
    clock.advance(TTL)
    loader = CountingLoader("new", error=ConnectionError("down"))
    times = []
    for second in range(40):
        before = loader.calls
        assert cache.get_or_load("k", loader) == "old"
        at_rest(cache)
        if loader.calls > before:
            times.append(second)
        clock.advance(1)
    assert times == [0, 4, 12, 28]


def test_successful_refresh_ends_the_backoff() -> None:
    """F3: the doubling begins anew once a refresh succeeded."""
    cache, clock = make(stale_while_revalidate=1_000, error_backoff=4)
    cache.set("k", "old")
    loader = CountingLoader("new", error=ConnectionError("down"))
    clock.advance(TTL)
    for _ in range(3):
        cache.get_or_load("k", loader)
        at_rest(cache)
        clock.advance(4)
    assert loader.calls == 2
    loader.error = None
    cache.get_or_load("k", loader)
    at_rest(cache)
    assert (loader.calls, cache.get("k")) == (3, "new")
    loader.error = ConnectionError("down")
    clock.advance(TTL)
    cache.get_or_load("k", loader)
    at_rest(cache)
    clock.advance(3.9)
    cache.get_or_load("k", loader)
    at_rest(cache)
    assert loader.calls == 4
    clock.advance(0.2)
    cache.get_or_load("k", loader)
    at_rest(cache)
    assert loader.calls == 5


def test_backoff_with_jitter_only_shortens() -> None:
    """F3: the backoff is jittered, and never longer than it says."""
    cache, clock = make(stale_while_revalidate=1_000, error_backoff=10, jitter=0.5)
    loader = CountingLoader("new", error=ConnectionError("down"))
    cache.set_many(dict.fromkeys(range(50), "old"))
    clock.advance(TTL)
    for key in range(50):
        cache.get_or_load(key, loader)
    at_rest(cache)
    clock.advance(4.9)
    for key in range(50):
        cache.get_or_load(key, loader)
    at_rest(cache)
    assert loader.calls == 50
    clock.advance(5.2)
    for key in range(50):
        assert cache.get_or_load(key, loader) == "old"
    at_rest(cache)
    assert loader.calls == 100


@pytest.mark.parametrize("is_async", [False, True])
def test_failed_load_within_the_error_window_serves_the_old_value(is_async: bool) -> None:
    """F1: `stale_if_error` stands in for a load that failed."""
    cache, clock = make(stale_if_error=50)
    cache.set("k", "old")
    clock.advance(TTL + 49.9)
    loader = CountingLoader("new", error=ConnectionError("down"))
    found = run(cache.aio.fetch("k", loader)) if is_async else cache.fetch("k", loader)
    assert (found.value, found.status) == ("old", "stale")
    assert found.age == pytest.approx(TTL + 49.9)
    assert loader.calls == 1


def test_failing_source_is_not_pressed_within_the_error_window() -> None:
    """F3: while the backoff lasts the old value is served without asking the source again."""
    cache, clock = make(stale_if_error=50, error_backoff=10)
    cache.set("k", "old")
    clock.advance(TTL)
    loader = CountingLoader("new", error=ConnectionError("down"))
    assert [cache.get_or_load("k", loader) for _ in range(10)] == ["old"] * 10
    assert loader.calls == 1
    clock.advance(10)
    loader.error = None
    assert cache.get_or_load("k", loader) == "new"


def test_backoff_ends_with_the_error_window() -> None:
    """F1: a backoff keeps nothing alive past its window."""
    cache, clock = make(stale_if_error=5, error_backoff=60)
    cache.set("k", "old")
    clock.advance(TTL)
    loader = CountingLoader("new", error=ConnectionError("down"))
    assert cache.get_or_load("k", loader) == "old"
    loader.error = None
    clock.advance(5)
    assert cache.get_or_load("k", loader) == "new"


@pytest.mark.parametrize("negative_ttl", [0, 30])
def test_not_found_is_no_error_that_an_old_value_stands_in_for(negative_ttl: float) -> None:
    """F1: a record that the source no longer has is not served stale, neither now nor later."""
    cache, clock = make(stale_if_error=50, negative_ttl=negative_ttl)
    cache.set("k", "old")
    clock.advance(TTL)
    gone = CountingLoader("", error=NotFound("gone"))
    with pytest.raises(NotFound):
        cache.get_or_load("k", gone)
    with pytest.raises((ConnectionError, NotFound)):
        cache.get_or_load("k", CountingLoader("", error=ConnectionError("down")))


@pytest.mark.parametrize("negative_ttl", [0, 30])
def test_background_refresh_that_finds_nothing_takes_the_old_value_out(negative_ttl: float) -> None:
    """F1: once a refresh learnt that the record is gone, nobody gets the old value."""
    cache, clock = make(stale_while_revalidate=50, negative_ttl=negative_ttl)
    cache.set("k", "old")
    clock.advance(TTL)
    gone = CountingLoader("", error=NotFound("gone"))
    assert cache.get_or_load("k", gone) == "old"
    at_rest(cache)
    with pytest.raises(NotFound):
        cache.get_or_load("k", gone)


def test_failed_refresh_of_a_fresh_value_leaves_it() -> None:
    """L3: a forced load that fails raises, and takes nothing away."""
    cache, _ = make()
    loader = CountingLoader("value")

    @cache.cached(key="k")
    def load() -> str:
        return loader()

    load()
    loader.error = ConnectionError("down")
    with pytest.raises(ConnectionError):
        load.refresh()
    assert load() == "value"


def test_soft_timeout_serves_the_old_value_and_the_load_goes_on() -> None:
    """F1: with a stale value at hand a slow load is waited for only so long; its value is stored when it comes."""
    cache, clock = make(stale_if_error=50, soft_timeout=0.01)
    cache.set("k", "old")
    clock.advance(TTL)
    load = HeldLoader("new")
    found = cache.fetch("k", load)
    assert (found.value, found.status) == ("old", "stale")
    load.release()
    at_rest(cache)
    assert cache.get("k") == "new"


# Early refresh --------------------------------------------------------------------------------------------------------


def _load_with_time(clock: FakeClock, seconds: float, value: str) -> Callable[[], str]:
    def load() -> str:
        clock.advance(seconds)
        return value

    return load


def test_early_refresh_renews_a_hot_value_before_it_expires() -> None:
    """F3: with an early refresh the reader gets the fresh value, and one load runs behind it."""
    cache, clock = make(early_refresh=1e9)
    cache.get_or_load("k", _load_with_time(clock, 10, "old"))
    found = cache.fetch("k", lambda: "new")
    assert (found.value, found.status) == ("old", "hit")
    at_rest(cache)
    assert cache.get("k") == "new"
    assert cache.stats().refreshes == 1


def test_early_refresh_of_a_cached_function_happens_too() -> None:
    """F3: the decorator's hit path does not pass early refresh by."""
    cache, clock = make(early_refresh=1e9)
    versions = iter(["old", "new", "newer"])

    @cache.cached
    def load(key: str) -> str:
        clock.advance(10)
        return next(versions)

    assert load("k") == "old"
    assert load("k") == "old"
    at_rest(cache)
    assert load.peek("k") == "new"


def test_early_refresh_is_off_by_default() -> None:
    """F3: no load before its time unless asked for."""
    cache, clock = make()
    cache.get_or_load("k", _load_with_time(clock, 50, "old"))
    clock.advance(TTL - 0.001)
    assert cache.get_or_load("k", lambda: "new") == "old"
    assert cache.stats().refreshes == 0


def test_early_refresh_runs_one_at_a_time_and_backs_off() -> None:
    """F3: readers of a hot value start one refresh; one that failed is not repeated before its backoff has passed."""
    cache, clock = make(early_refresh=1e9, error_backoff=5)
    cache.get_or_load("k", _load_with_time(clock, 10, "old"))
    load = HeldLoader(ConnectionError("down"))
    assert [cache.get_or_load("k", load) for _ in range(20)] == ["old"] * 20
    load.release()
    at_rest(cache)
    assert load.calls == 1
    assert cache.get_or_load("k", load) == "old"
    at_rest(cache)
    assert load.calls == 1
    clock.advance(5)
    assert cache.get_or_load("k", load) == "old"
    at_rest(cache)
    assert load.calls == 2


def test_early_refresh_happens_as_often_as_the_paper_says() -> None:
    """F3: XFetch refreshes with probability exp(-left / (load time * beta)), here 1/e."""
    cache, clock = make(early_refresh=2.0)
    count = 1_500

    cache.get_or_load_many(range(count), lambda keys: clock.advance(10) or dict.fromkeys(keys, "old"))
    clock.advance(TTL - 20)

    async def load() -> str:
        return "new"

    async def measure() -> int:
        for key in range(count):
            assert await cache.aio.get_or_load(key, load) == "old"
        return cache.stats().refreshes

    refreshes = run(measure())
    expected = count * math.exp(-1)
    assert abs(refreshes - expected) < 6 * math.sqrt(expected)


# F2 -------------------------------------------------------------------------------------------------------------------


def test_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """F2: time is monotonic; nobody looks at the wall clock."""
    cache: Cache[str, int] = Cache(ttl="1h")
    cache.set("k", 1)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(time, "time_ns", lambda: 4 * 10**18)
    assert cache.get("k") == 1
    assert cache.get_or_load("k", lambda: 2) == 1


# F4 -------------------------------------------------------------------------------------------------------------------


def test_none_is_a_value_like_any_other() -> None:
    """F4: None is stored, found, counted as a hit and told from absence."""
    cache, clock = make()
    loader = CountingLoader(None)
    assert cache.get_or_load("k", loader) is None
    assert cache.get_or_load("k", loader) is None
    assert loader.calls == 1
    assert cache.get("k", "default") is None
    assert "k" in cache
    assert cache.get_many(["k", "other"]) == {"k": None}
    assert cache.get_or_load_many(["k"], lambda keys: {}) == {"k": None}
    assert cache.get_or_load_many(["n"], lambda keys: {"n": None}) == {"n": None}
    assert cache.stats().hits == 4
    clock.advance(TTL)
    assert cache.get("k", "default") == "default"


@pytest.mark.parametrize("is_async", [False, True])
def test_function_that_returns_none_is_called_once(is_async: bool) -> None:
    """F4: a cached function's None is cached."""
    cache, _ = make()
    calls: list[int] = []

    @cache.cached
    def plain(key: int) -> None:
        calls.append(key)

    @cache.cached
    async def coloured(key: int) -> None:
        calls.append(key)

    for _ in range(3):
        assert (run(coloured(1)) if is_async else plain(1)) is None
    assert calls == [1]


# Negative caching -----------------------------------------------------------------------------------------------------


def _absent(cache: Cache[Any, Any], is_async: bool) -> Callable[[CountingLoader[Any]], Any]:
    def call(loader: CountingLoader[Any]) -> Any:
        return run(cache.aio.get_or_load("k", loader)) if is_async else cache.get_or_load("k", loader)

    return call


@pytest.mark.parametrize("is_async", [False, True])
def test_not_found_is_remembered_for_negative_ttl(is_async: bool) -> None:
    """Policy: a raised `NotFound` is raised again without a load, as long as `negative_ttl` says."""
    cache, clock = make(negative_ttl=10)
    call = _absent(cache, is_async)
    loader = CountingLoader("value", error=NotFound("no user 42"))
    for _ in range(5):
        with pytest.raises(NotFound, match="no user 42"):
            call(loader)
    assert loader.calls == 1
    clock.advance(9.99)
    with pytest.raises(NotFound):
        call(loader)
    assert loader.calls == 1
    clock.advance(0.01)
    loader.error = None
    assert call(loader) == "value"
    assert loader.calls == 2


def test_not_found_is_not_remembered_by_default() -> None:
    """L3: without `negative_ttl` a `NotFound` stores nothing."""
    cache, _ = make()
    loader = CountingLoader("value", error=NotFound("no"))
    for _ in range(2):
        with pytest.raises(NotFound):
            cache.get_or_load("k", loader)
    assert loader.calls == 2
    assert len(cache) == 0


def test_remembered_absence_is_no_value() -> None:
    """Policy: `get`, `in`, `get_many`, `peek` and bulk calls see nothing where a `NotFound` is remembered."""
    cache, _ = make(negative_ttl=10)
    with pytest.raises(NotFound):
        cache.get_or_load("k", CountingLoader("", error=NotFound("no")))
    assert cache.get("k") is None
    assert cache.get("k", "default") == "default"
    assert "k" not in cache
    assert cache.get_many(["k"]) == {}
    asked: list[list[str]] = []
    assert cache.get_or_load_many(["k"], lambda keys: asked.append(keys) or {}) == {}
    assert asked == []


@pytest.mark.parametrize("is_async", [False, True])
def test_cached_function_remembers_not_found(is_async: bool) -> None:
    """Policy: the decorator's hit path raises the remembered `NotFound`, it does not return it."""
    cache, _ = make(negative_ttl=10)
    calls: list[int] = []

    @cache.cached
    def plain(key: int) -> str:
        calls.append(key)
        raise NotFound(key)

    @cache.cached
    async def coloured(key: int) -> str:
        return plain.__wrapped__(key)

    for _ in range(3):
        with pytest.raises(NotFound):
            run(coloured(1)) if is_async else plain(1)
    assert calls == [1]
    assert plain.peek(1) is None


def test_keys_that_a_batch_leaves_out_are_remembered() -> None:
    """L9, policy: keys that the batch loader did not return are absent for `negative_ttl`."""
    cache, clock = make(negative_ttl=10)
    batches: list[list[str]] = []

    def load(keys: list[str]) -> dict[str, int]:
        batches.append(sorted(keys))
        return {key: 1 for key in keys if key == "there"}

    for _ in range(3):
        assert cache.get_or_load_many(["there", "absent"], load) == {"there": 1}
    assert batches == [["absent", "there"]]
    clock.advance(10)
    cache.get_or_load_many(["there", "absent"], load)
    assert batches[1:] == [["absent"]]


def test_none_is_kept_for_negative_ttl_where_that_is_set() -> None:
    """Policy: None means "not found" once `negative_ttl` is set, and lives as long as that says."""
    cache, clock = make(negative_ttl=10)
    loader = CountingLoader(None)
    assert cache.get_or_load("k", loader) is None
    clock.advance(9.99)
    assert cache.get_or_load("k", loader) is None
    assert loader.calls == 1
    clock.advance(0.01)
    cache.get_or_load("k", loader)
    assert loader.calls == 2


@pytest.mark.parametrize("end", ["set", "invalidate", "invalidate_tags", "clear"])
def test_write_ends_a_remembered_absence(end: str) -> None:
    """I1, I2: a record that was not found and is then written is found."""
    cache, _ = make(negative_ttl=1_000)
    loader = CountingLoader("value", error=NotFound("no"))
    with pytest.raises(NotFound):
        cache.get_or_load("k", loader, tags=["t"])
    loader.error = None
    {
        "set": lambda: cache.set("k", "value"),
        "invalidate": lambda: cache.invalidate("k"),
        "invalidate_tags": lambda: cache.invalidate_tags("t"),
        "clear": cache.clear,
    }[end]()
    assert cache.get_or_load("k", loader) == "value"


def test_remembered_not_found_keeps_its_type_and_does_not_grow() -> None:
    """L2: every caller gets an error of its own, of the type and with the arguments that the loader raised."""

    class NoSuchUser(NotFound):
        def __init__(self, user_id: int) -> None:
            super().__init__(f"no user {user_id}")
            self.user_id = user_id

    cache, _ = make(negative_ttl=1_000)
    errors, depths = [], []
    for _ in range(20):
        with pytest.raises(NoSuchUser, match="no user 42") as caught:
            cache.get_or_load("k", CountingLoader("", error=NoSuchUser(42)))
        errors.append(caught.value)
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert {error.user_id for error in errors} == {42}
    assert len({id(error) for error in errors[1:]}) == 19
    assert len(set(depths[1:])) == 1


def test_negative_hits_count_as_hits() -> None:
    """Stats: an absence that is remembered answers from memory."""
    cache, _ = make(negative_ttl=10)
    for _ in range(3):
        with pytest.raises(NotFound):
            cache.get_or_load("k", CountingLoader("", error=NotFound("no")))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (2, 1, 1, 0)


# copy -----------------------------------------------------------------------------------------------------------------


def _copies() -> tuple[Cache[Any, Any], FakeClock]:
    return make(copy=copy.deepcopy, stale_while_revalidate=50)


@pytest.mark.parametrize(
    "read",
    [
        lambda cache: cache.get("k"),
        lambda cache: cache.get_many(["k"])["k"],
        lambda cache: cache.get_or_load("k", lambda: {"names": ["Ann"]}),
        lambda cache: cache.fetch("k", lambda: {"names": ["Ann"]}).value,
        lambda cache: cache.get_or_load_many(["k"], lambda keys: {"k": {"names": ["Ann"]}})["k"],
        lambda cache: run(cache.aio.get("k")),
        lambda cache: run(cache.aio.get_many(["k"]))["k"],
        lambda cache: run(cache.aio.get_or_load("k", lambda: {"names": ["Ann"]})),
    ],
    ids=["get", "get_many", "get_or_load", "fetch", "bulk", "aio.get", "aio.get_many", "aio.get_or_load"],
)
def test_caller_that_mutates_a_copy_changes_nothing(read: Callable[[Cache[Any, Any]], Any]) -> None:
    """Policy: `copy` makes the copy that every caller gets, the one that loaded it and those that hit it."""
    cache, _ = _copies()
    cache.get_or_load("k", lambda: {"names": ["Ann"]})["names"].append("Eve")
    for _ in range(3):
        found = read(cache)
        assert found == {"names": ["Ann"]}
        found["names"].append("Eve")
        found["more"] = True


@pytest.mark.parametrize("is_async", [False, True])
def test_cached_function_hands_out_copies(is_async: bool) -> None:
    """Policy: the decorator's hit path copies as well, and so does `peek`."""
    cache, _ = _copies()

    @cache.cached
    def plain() -> list[int]:
        return [1]

    @cache.cached
    async def coloured() -> list[int]:
        return [1]

    for _ in range(3):
        found = run(coloured()) if is_async else plain()
        assert found == [1]
        found.append(2)
    plain()
    peeked = plain.peek()
    assert peeked == [1]
    peeked.append(2)
    assert plain.peek() == [1]


def test_stale_value_is_copied_too() -> None:
    """Policy: what is served stale is a copy."""
    cache, clock = _copies()
    cache.set("k", [1])
    clock.advance(TTL)
    cache.get_or_load("k", lambda: [9]).append(2)
    at_rest(cache)
    clock.advance(TTL)
    assert cache.get_or_load("k", lambda: [1]) == [9]
    at_rest(cache)


def test_copy_asked_for_by_one_call_is_made_although_others_did_not_ask() -> None:
    """Policy: an option overridden per call holds for that call, for a hit as for a load."""
    cache, _ = make()
    cache.set("k", [1])
    cache.get_or_load("k", lambda: [9], copy=copy.deepcopy).append(2)
    assert cache.get("k") == [1]


def test_without_copy_every_caller_gets_the_same_object() -> None:
    """Policy: nothing is copied unless asked for."""
    cache, _ = make()
    value = [1]
    cache.set("k", value)
    assert cache.get("k") is value
    assert cache.get_or_load("k", list) is value
