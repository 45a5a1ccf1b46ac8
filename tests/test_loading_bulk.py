"""Bulk loads: what they ask for, and what their callers get (L9)."""

import asyncio

import pytest
from tests.support.waiting import (
    Call,
    HeldLoader,
    run,
    wait_for_callers,
    wait_until,
)

from credenza import Cache, Loaded, NotFound
from credenza.testing import FakeClock

Keys = list[object]


class Batch:
    """A batch loader that notes what it is asked for."""

    def __init__(self, *missing: object) -> None:
        self.asked: list[Keys] = []
        self.missing = missing

    def __call__(self, keys: Keys) -> dict[object, object]:
        self.asked.append(list(keys))
        return {key: f"value {key}" for key in keys if key not in self.missing}

    async def as_coroutine(self, keys: Keys) -> dict[object, object]:
        await asyncio.sleep(0)
        return self(keys)


def values(*keys: object) -> dict[object, object]:
    return {key: f"value {key}" for key in keys}


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache[object, object]:
    """A cache on that clock."""
    return Cache(clock=clock, ttl=10, jitter=0)


def test_loader_is_asked_once_for_what_is_missing(cache: Cache[object, object]) -> None:
    """L9: keys at hand are not asked for, the others are, in one call; the result keeps the caller's order."""
    cache.set(2, "at hand")
    batch = Batch()
    got = cache.get_or_load_many([3, 2, 1, 3], batch)
    assert list(got.items()) == [(3, "value 3"), (2, "at hand"), (1, "value 1")]
    assert batch.asked == [[3, 1]]
    assert cache.get_or_load_many([1, 2, 3], batch) == {1: "value 1", 2: "at hand", 3: "value 3"}
    assert len(batch.asked) == 1
    stats = cache.stats()
    assert (stats.loads, stats.misses, stats.hits) == (1, 2, 4)


@pytest.mark.parametrize("form", ["coroutine", "plain", "lambda"])
def test_async_face_asks_once_for_what_is_missing(cache: Cache[object, object], form: str) -> None:
    """L9: the same with a coroutine function, a plain function, and a lambda that returns a coroutine."""
    batch = Batch()
    loader = {"coroutine": batch.as_coroutine, "plain": batch, "lambda": lambda keys: batch.as_coroutine(keys)}[form]

    async def main() -> None:
        cache.set(2, "at hand")
        got = await cache.aio.get_or_load_many([1, 2, 3], loader)
        assert got == {1: "value 1", 2: "at hand", 3: "value 3"}
        assert batch.asked == [[1, 3]]

    run(main())


@pytest.mark.parametrize("keys", [[], (), {}, iter(())])
def test_no_keys_ask_nobody(cache: Cache[object, object], keys: object) -> None:
    """L9: nothing asked, nothing loaded."""
    batch = Batch()
    assert cache.get_or_load_many(keys, batch) == {}  # type: ignore[arg-type]
    assert run(cache.aio.get_or_load_many(keys, batch)) == {}  # type: ignore[arg-type]
    assert batch.asked == []


def test_keys_may_come_from_an_iterator(cache: Cache[object, object]) -> None:
    """L9: keys are gone through once."""
    assert cache.get_or_load_many((key for key in (1, 2)), Batch()) == values(1, 2)


def test_keys_that_others_load_are_joined(cache: Cache[object, object]) -> None:
    """L9: what a single or another bulk call is loading is not asked for again."""
    single, first, second = HeldLoader("single"), HeldLoader(values(2, 3)), Batch()
    one = Call(lambda: cache.get_or_load(1, single))
    wait_for_callers(cache, 1, 1)
    two = Call(lambda: cache.get_or_load_many([2, 3], first))
    wait_for_callers(cache, 3, 1)
    three = Call(lambda: cache.get_or_load_many([1, 2, 4], second))
    wait_for_callers(cache, 2, 2)
    wait_until(lambda: 4 in cache, "what it leads itself is loaded at once")
    assert second.asked == [[4]]
    single.release()
    first.release()
    assert one.result() == "single"
    assert two.result() == values(2, 3)
    assert three.result() == {1: "single", **values(2, 4)}
    assert first.calls == 1


def test_single_call_joins_a_bulk_load(cache: Cache[object, object]) -> None:
    """L9: a single call gets its key's value out of a bulk load, or `NotFound` if that did not bring it."""
    batch = HeldLoader(values(1))
    bulk = Call(lambda: cache.get_or_load_many([1, 2], batch))
    wait_for_callers(cache, 1, 1)
    there = Call(lambda: cache.get_or_load(1, lambda: "never"))
    missing = Call(lambda: cache.get_or_load(2, lambda: "never"))
    wait_for_callers(cache, 1, 2)
    wait_for_callers(cache, 2, 2)
    batch.release()
    assert bulk.result() == values(1)
    assert there.result() == "value 1"
    error = missing.error()
    assert isinstance(error, NotFound)
    assert "2" in str(error)


def test_keys_that_the_loader_leaves_out_are_not_found(cache: Cache[object, object]) -> None:
    """L9: they are not in the result, and without `negative_ttl` they are asked for again."""
    batch = Batch(2)
    for _ in range(2):
        assert cache.get_or_load_many([1, 2], batch) == values(1)
    assert batch.asked == [[1, 2], [2]]
    assert 2 not in cache


def test_keys_that_were_not_found_are_remembered(cache: Cache[object, object], clock: FakeClock) -> None:
    """L9: with `negative_ttl` they are not asked for until it has passed, by bulk and single calls alike."""
    batch = Batch(2)
    for _ in range(2):
        assert cache.get_or_load_many([1, 2], batch, negative_ttl=5) == values(1)
    with pytest.raises(NotFound):
        cache.get_or_load(2, lambda: "never")
    assert batch.asked == [[1, 2]]
    clock.advance(6)
    assert cache.get_or_load_many([1, 2], Batch(), negative_ttl=5) == values(1, 2)


def test_keys_that_nobody_asked_for_are_left_alone(cache: Cache[object, object]) -> None:
    """L9: what the loader returns beyond its keys is neither in the result nor stored."""
    assert cache.get_or_load_many([1], lambda keys: {1: "one", 2: "two"}) == {1: "one"}
    assert 2 not in cache


def test_values_may_be_none_and_loaded(cache: Cache[object, object], clock: FakeClock) -> None:
    """L9, F4: None is a value; `Loaded` decides for its own key."""
    batch = {1: None, 2: Loaded("short", ttl=1), 3: Loaded("tagged", tags=["t"]), 4: Loaded("not kept", ttl=0)}
    got = cache.get_or_load_many([1, 2, 3, 4], lambda keys: batch, tags=["all"])
    assert got == {1: None, 2: "short", 3: "tagged", 4: "not kept"}
    assert [key in cache for key in (1, 2, 3, 4)] == [True, True, True, False]
    clock.advance(2)
    cache.invalidate_tags("t")
    assert [key in cache for key in (1, 2, 3)] == [True, False, False]
    cache.invalidate_tags("all")
    assert 1 not in cache


def test_decorated_function_asked_for_many_calls_once_per_missing(cache: Cache[object, object]) -> None:
    """L9: `many` of a cached function brings all results, and leaves hits alone."""
    calls: Keys = []

    @cache.cached
    def read(number: int) -> str:
        calls.append(number)
        return f"value {number}"

    read(2)
    assert read.many([1, 2, 3]) == values(1, 2, 3)
    assert sorted(calls) == [1, 2, 3]  # type: ignore[type-var]
