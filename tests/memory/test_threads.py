"""Many threads on one small table: no crash, no wrong value, and everything adds up."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest
from tests.support.hammer import Hammer
from tests.support.invariants import check_cache
from tests.support.waiting import start_together

from credenza import Cache

pytestmark = pytest.mark.usefixtures("implementation")

evictions = pytest.mark.parametrize("eviction", ["s3fifo", "lru"])


@pytest.fixture(autouse=True)
def short_turns() -> Any:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.timeout(60)
@evictions
@pytest.mark.parametrize("with_weights", [False, True], ids=["counted", "weighed"])
def test_eight_threads_hammer_one_small_cache(eviction: str, with_weights: bool) -> None:
    """Issue 5: inserts, hits, invalidations and tags at once; the long run is `python -m tests.support.hammer`."""
    hammer = Hammer(eviction=eviction, with_weights=with_weights)
    hammer.run(0.8)
    assert hammer.steps > 0


def test_hits_see_a_whole_value_or_none_while_it_is_replaced() -> None:
    """A reader without a lock gets the old value or the new one, alive, however often it is replaced meanwhile."""
    cache: Cache[Any, Any] = Cache(maxsize=2)
    function = cache.cached(lambda key: [key] * 50)
    stop = threading.Event()

    def read() -> int:
        count = 0
        while not stop.is_set():
            for key in range(3):
                value = cache.get(key)
                assert value is None or (len(value) == 50 and set(value) == {key})
                assert function(key) == [key] * 50
                count += 1
        return count

    def write() -> None:
        for number in range(3_000):
            key = number % 3
            cache.set(key, [key] * 50)
            if number % 7 == 0:
                function.invalidate(key)
            if number % 31 == 0:
                cache.clear()
        stop.set()

    readers = start_together(4, read)
    writers = start_together(1, write)
    for call in [*writers, *readers]:
        call.result()
    check_cache(cache)


def test_first_calls_from_many_threads_bind_alike() -> None:
    """The first use of a cached function, by position, by name and with the default, from many threads at once."""
    for _ in range(30):
        cache: Cache[Any, Any] = Cache()
        calls: list[Any] = []

        @cache.cached
        def load(number: int, other: int = 2) -> tuple[int, int]:
            calls.append((number, other))
            return number, other

        forms = [lambda: load(1), lambda: load(number=1), lambda: load(1, 2), lambda: load(1, other=2)]
        turn = iter(forms * 2)
        results = [call.result() for call in start_together(8, lambda: next(turn)())]
        assert results == [(1, 2)] * 8
        assert calls == [(1, 2)]


def test_hits_of_one_async_function_in_loops_of_many_threads() -> None:
    """A cached coroutine function answers hits in any loop of any thread."""
    cache: Cache[Any, Any] = Cache()

    @cache.cached
    async def load(key: int) -> list[int]:
        return [key]

    async def use() -> None:
        for number in range(300):
            key = number % 4
            assert await load(key) == [key]
            assert await asyncio.gather(load(key), load(key=key)) == [[key], [key]]
            if number % 50 == 0:
                load.invalidate(key)

    for call in start_together(4, lambda: asyncio.run(use())):
        call.result()
    check_cache(cache)
