"""What would deadlock raises instead: sync calls that block an event loop (L7)."""

import asyncio

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    LoopThread,
    loops,
    run,
    until_callers,
    wait_for_callers,
)

from credenza import Cache, CacheError, DeadlockError


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache with the defaults."""
    return Cache()


def outcome(call: Call[object]) -> object:
    """Return what a call returned, or the type of what it raised."""
    try:
        return call.result()
    except CacheError as error:
        return type(error)


@pytest.mark.parametrize("timeout", [None, 5])
def test_sync_call_that_would_wait_for_a_task_of_its_own_loop_raises(
    cache: Cache[object, object], timeout: float | None
) -> None:
    """L7: the call raises at once, says what to do, and the task gets its value."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await until_callers(cache, "k", 1)
        with pytest.raises(DeadlockError, match="aio"):
            cache.get_or_load("k", lambda: "mine", timeout=timeout)
        with pytest.raises(DeadlockError, match="aio"):
            cache.get_or_load_many(["k", "l"], lambda keys: {}, timeout=timeout)
        loader.release()
        assert await task == "value"

    Call(lambda: run(main())).result()


def test_sync_call_in_a_task_that_leads_or_hits_works(cache: Cache[object, object]) -> None:
    """L7: a sync call on an event loop's thread that waits for nobody is slow at worst."""

    async def main() -> None:
        assert cache.get_or_load("k", lambda: 1) == 1
        assert cache.get_or_load("k", lambda: 2) == 1
        assert cache.get_or_load("l", lambda: cache.get_or_load("m", lambda: 3)) == 3

    run(main())


def test_sync_call_may_wait_for_another_loop_and_for_a_thread(cache: Cache[object, object]) -> None:
    """L7: what can go on is waited for."""
    loader, plain = HeldAsyncLoader(), HeldLoader()
    with loops(2) as (home, other):
        leader = home.submit(cache.aio.get_or_load("k", loader))
        thread = Call(lambda: cache.get_or_load("l", plain))
        wait_for_callers(cache, "k", 1)
        wait_for_callers(cache, "l", 1)

        async def blocking(key: str) -> object:
            return cache.get_or_load(key, lambda: "never")

        waiter = other.submit(blocking("k"))
        wait_for_callers(cache, "k", 2)
        loader.release()
        assert leader.result(10) == waiter.result(10) == "value"
        waiter = other.submit(blocking("l"))
        wait_for_callers(cache, "l", 2)
        plain.release()
        assert thread.result() == waiter.result(10) == "value"


def test_sync_call_that_waits_for_the_loop_through_a_thread_raises(cache: Cache[object, object]) -> None:
    """L7: a thread's load that itself waits for a task of the loop cannot be waited for on that loop."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("inner", loader))
        await until_callers(cache, "inner", 1)
        thread = Call(lambda: cache.get_or_load("outer", lambda: cache.get_or_load("inner", lambda: "never")))
        await until_callers(cache, "inner", 2)
        with pytest.raises(DeadlockError):
            cache.get_or_load("outer", lambda: "never")
        loader.release()
        assert await task == "value"
        await asyncio.to_thread(thread.result)

    Call(lambda: run(main())).result()


def test_circle_through_a_blocked_loop_that_closes_late_ends(cache: Cache[object, object]) -> None:
    """L7: a thread's load, which a blocked loop waits for, is told when it comes to need a task of that loop."""
    held, inner = HeldLoader(), HeldAsyncLoader("inner")

    def outer() -> object:
        held()
        return cache.get_or_load("inner", lambda: "never")

    async def blocking() -> object:
        return cache.get_or_load("outer", outer)

    loop = LoopThread()
    task = loop.submit(cache.aio.get_or_load("inner", inner))
    wait_for_callers(cache, "inner", 1)
    thread = Call(lambda: cache.get_or_load("outer", outer))
    wait_for_callers(cache, "outer", 1)
    blocked = loop.submit(blocking())
    wait_for_callers(cache, "outer", 2)
    held.release()
    assert isinstance(thread.error(), DeadlockError)
    assert isinstance(blocked.exception(10), DeadlockError)
    inner.release()
    assert task.result(10) == "inner"
    loop.stop()
