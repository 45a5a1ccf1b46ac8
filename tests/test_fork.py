"""A forked child can use the cache, and the parent does not notice."""

import asyncio
import multiprocessing
import os
import random
from collections.abc import Callable

import pytest
from tests.support.forking import Busy, in_child
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    LoopThread,
    results,
    run,
    wait_for_callers,
    wait_until,
)

from credenza import Cache, Flights
from credenza.testing import FakeClock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    # From Python 3.12 on the interpreter warns of what these tests are about.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache with one entry."""
    cache: Cache[object, object] = Cache(clock=FakeClock(), jitter=0)
    cache.set("there", "from the parent")
    return cache


def use(cache: Cache[object, object], key: object) -> list[object]:
    """Do a bit of everything with a cache, as its own process."""
    loader = HeldLoader("child")
    loader.release()
    got: list[object] = [
        cache.get("there"),
        cache.stats().flights,
        cache.get_or_load(key, loader),
        cache.get_or_load(key, loader),
        loader.calls,
        cache.get_or_load("slow", loader, timeout=5),
        cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, "child")),
        asyncio.run(cache.aio.get_or_load("task", loader)),
    ]
    calls = [Call(lambda: cache.get_or_load("threads", loader)) for _ in range(4)]
    got.append(set(results(calls)))
    with cache.writing("there"):
        pass
    got += [cache.get("there"), loader.calls]
    cache.close()
    return got


USED = repr(
    ["from the parent", 0, "child", "child", 1, "child", {"a": "child", "b": "child"}, "child", {"child"}, None, 4]
)


def test_fork_while_a_thread_loads_leaves_the_child_free(cache: Cache[object, object]) -> None:
    """The child loads the key that a thread of the parent is loading; the parent's callers get the parent's value."""
    loader = HeldLoader("parent")
    calls = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(5)]
    wait_for_callers(cache, "k", 5)
    assert in_child(lambda: use(cache, "k")) == USED
    loader.release()
    assert results(calls) == ["parent"] * 5
    assert loader.calls == 1
    assert cache.get("there") == "from the parent"


def test_fork_while_a_task_loads_leaves_the_child_free(cache: Cache[object, object]) -> None:
    """The same for a load on an event loop, which the child does not have."""
    loader, loop = HeldAsyncLoader("parent"), LoopThread()
    task = loop.submit(cache.aio.get_or_load("k", loader))
    wait_for_callers(cache, "k", 1)
    assert in_child(lambda: use(cache, "k")) == USED
    loader.release()
    assert task.result(10) == "parent"
    loop.stop()


def test_fork_while_a_worker_thread_loads_leaves_the_child_free(cache: Cache[object, object]) -> None:
    """The same for a load in a worker thread; the child makes workers of its own."""
    assert cache.get_or_load("warm", lambda: 1, timeout=5) == 1
    loader = HeldLoader("parent")
    call = Call(lambda: cache.get_or_load("k", loader, timeout=10))
    wait_for_callers(cache, "k", 1)
    assert in_child(lambda: use(cache, "k")) == USED
    loader.release()
    assert call.result() == "parent"


def test_fork_while_a_bulk_load_runs_leaves_the_child_free(cache: Cache[object, object]) -> None:
    """The same for every key of a bulk load."""
    loader = HeldLoader({"a": "parent", "k": "parent"})
    call = Call(lambda: cache.get_or_load_many(["a", "k"], loader))
    wait_for_callers(cache, "k", 1)
    assert in_child(lambda: use(cache, "k")) == USED
    loader.release()
    assert call.result() == {"a": "parent", "k": "parent"}


@pytest.mark.parametrize("timeout", [None, 10])
def test_fork_inside_a_loader_leaves_the_child_free(cache: Cache[object, object], timeout: float | None) -> None:
    """A loader that forks, as one does that calls a program: the child may even load the same key."""
    answers: list[str] = []

    def loader() -> str:
        answers.append(in_child(lambda: use(cache, "k")))
        return "parent"

    assert Call(lambda: cache.get_or_load("k", loader, timeout=timeout)).result() == "parent"
    assert answers == [USED]


def test_fork_on_an_event_loops_thread_leaves_the_child_free(cache: Cache[object, object]) -> None:
    """A task that forks: the child has no running loop any more, and its own loops work."""

    async def main() -> str:
        loader = HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await asyncio.sleep(0)
        answer = in_child(lambda: cache.get_or_load("k", lambda: "child"))
        loader.release()
        assert await task == "value"
        return answer

    assert run(main()) == repr("child")


def test_fork_inside_a_write_leaves_both_with_a_fence_to_leave(cache: Cache[object, object]) -> None:
    """I3: parent and child leave the block that they both are in, each on its own account."""

    def child() -> object:
        writing.__exit__(None, None, None)
        return cache.get_or_load("k", lambda: 1), cache.get("k")

    writing = cache.writing("k")
    with writing:
        assert in_child(child) == repr((1, 1))
        assert cache.get_or_load("k", lambda: 2) == 2
        assert "k" not in cache
    assert cache.get_or_load("k", lambda: 3) == 3


def test_fork_while_the_source_is_at_its_limit_leaves_the_child_free() -> None:
    """`max_concurrent_loads`: the loads of the parent take no places in the child."""
    cache: Cache[object, object] = Cache(max_concurrent_loads=1)
    loader = HeldLoader()
    busy = Call(lambda: cache.get_or_load("busy", loader))
    loader.wait_until_called()
    queued = Call(lambda: cache.get_or_load("queued", lambda: "parent"))
    wait_for_callers(cache, "queued", 1)
    keys = ("busy", "queued", "k")
    assert in_child(lambda: [cache.get_or_load(key, lambda: "child") for key in keys]) == repr(["child"] * 3)
    loader.release()
    assert (busy.result(), queued.result()) == ("value", "parent")


def test_fork_while_flights_are_under_way_leaves_the_child_free() -> None:
    """The same for `Flights`."""
    flights, function = Flights(), HeldLoader("parent")
    call = Call(lambda: flights.do("k", function))
    wait_for_callers(flights, "k", 1)
    assert in_child(lambda: (len(flights), flights.do("k", lambda: "child"))) == repr((0, "child"))
    function.release()
    assert call.result() == "parent"


def test_children_of_children_can_use_the_cache(cache: Cache[object, object]) -> None:
    """A child may fork again, in the middle of its own loads."""

    def child() -> str:
        loader = HeldLoader("child")
        call = Call(lambda: cache.get_or_load("k", loader))
        wait_for_callers(cache, "k", 1)
        answer = in_child(lambda: use(cache, "k"))
        loader.release()
        assert call.result() == "child"
        return answer

    assert in_child(child) == repr(USED)


def test_fork_amid_busy_threads_finds_no_lock_held() -> None:
    """Threads that read, write, invalidate and load without pause: no child inherits a held lock or half a step."""
    cache: Cache[object, object] = Cache(maxsize=8)

    def work() -> None:
        key = random.randrange(16)
        cache.get_or_load(key, lambda: key, tags=["t"])
        cache.set(key, key, tags=["t", str(key)])
        cache.invalidate(key + 1)
        cache.invalidate_tags(str(key))

    def child() -> object:
        for key in range(20):
            assert cache.get_or_load(key, lambda key=key: key) == key  # type: ignore[misc]
        cache.invalidate_tags("t")
        cache.clear()
        return len(cache)

    with Busy(work) as busy:
        wait_until(lambda: busy.rounds > 10, "the threads are busy")
        for _ in range(15):
            assert in_child(child) == "0"


def test_threads_that_fork_at_the_same_time_lock_nobody_out() -> None:
    """Two threads may fork at once, while caches come and go: nobody hangs, and every cache goes on working."""
    caches: list[Cache[object, object]] = [Cache() for _ in range(30)]

    def fork() -> None:
        for number in range(8):
            assert in_child(lambda: [cache.get_or_load("k", lambda: 1) for cache in caches]) == repr([1] * 30)
            assert Cache().get_or_load("k", lambda: number) == number

    def work() -> None:
        for cache in caches:
            cache.set("other", 1)

    with Busy(work, threads=1):
        results([Call(fork) for _ in range(3)])
    assert [cache.get_or_load("k", lambda: 2) for cache in caches] == [2] * 30


def _square(number: int) -> int:
    return _squares(number)


_shared: Cache[object, object] = Cache()


@_shared.cached
def _squares(number: int) -> int:
    return number * number


def test_pool_of_forked_processes_uses_a_decorated_function() -> None:
    """What gunicorn and multiprocessing do: the parent warms up, then forks workers that go on with the cache."""
    assert _squares(3) == 9
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_square, range(12)) == [number * number for number in range(12)]
        pool.close()
        pool.join()
    assert _squares(4) == 16


@pytest.mark.parametrize(
    "make", [dict, lambda: {"max_weight": 100, "weigher": lambda value: 1}, lambda: {"eviction": "lru"}]
)
def test_entries_of_the_parent_serve_the_child(make: Callable[[], dict[str, object]]) -> None:
    """What was at hand before the fork is at hand after it, and each side changes its own copy only."""
    cache: Cache[object, object] = Cache(**make())  # type: ignore[arg-type]
    for key in range(10):
        cache.set(key, "parent", tags=["t"])

    def child() -> object:
        before = len(cache.get_many(range(10)))
        cache.invalidate_tags("t")
        return before, len(cache.get_many(range(10)))

    assert in_child(child) == repr((10, 0))
    assert len(cache.get_many(range(10))) == 10
