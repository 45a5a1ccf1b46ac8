"""`max_concurrent_loads` with loads that wait for each other: rules L3 and L7."""

import asyncio

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    callers_of,
    results,
    run,
    until,
    until_callers,
    wait_for_callers,
)

from credenza import Cache, CacheError, DeadlockError


@pytest.mark.parametrize("depth", [2, 5])
def test_nested_loads_need_no_second_turn(depth: int) -> None:
    """L7: a loader that loads other keys does not wait for the place that it holds itself."""
    cache: Cache[int, int] = Cache(max_concurrent_loads=1)

    def load(level: int) -> int:
        return cache.get_or_load(level - 1, lambda: load(level - 1)) + 1 if level else 0

    assert Call(lambda: cache.get_or_load(depth, lambda: load(depth))).result() == depth


def test_nested_async_loads_need_no_second_turn() -> None:
    """L7: the same with tasks, and with several inner loads at once."""

    async def main() -> None:
        cache: Cache[int, int] = Cache(max_concurrent_loads=1)

        async def load(level: int) -> int:
            if not level:
                return 1
            inner = [cache.aio.get_or_load(level * 10 + number, lambda: load(level - 1)) for number in range(2)]
            return sum(await asyncio.gather(*inner))

        assert await cache.aio.get_or_load(0, lambda: load(3)) == 8

    run(main())


def test_load_that_waits_for_one_in_the_queue_lets_it_through() -> None:
    """L7, L3: a loader that holds the only place may join a load that queues for it: both end."""
    cache: Cache[str, object] = Cache(max_concurrent_loads=1)
    held = HeldLoader()

    def outer() -> object:
        held()
        return cache.get_or_load("inner", lambda: "never")

    first = Call(lambda: cache.get_or_load("outer", outer))
    held.wait_until_called()
    second = Call(lambda: cache.get_or_load("inner", lambda: "inner"))
    wait_for_callers(cache, "inner", 1)
    held.release()
    assert (first.result(), second.result()) == ("inner", "inner")


def test_tasks_that_wait_for_one_in_the_queue_let_it_through() -> None:
    """L7, L3: the same with tasks, with a place for two, and bulk loads that join."""

    async def main() -> None:
        cache: Cache[str, object] = Cache(max_concurrent_loads=2)
        held, inner = HeldAsyncLoader(), HeldAsyncLoader("inner")
        inner.release()

        async def outer() -> object:
            await held()
            return await cache.aio.get_or_load_many(["inner"], inner)

        outers = [asyncio.create_task(cache.aio.get_or_load(f"outer {number}", outer)) for number in range(2)]
        await until(lambda: held.calls == 2, "both places are taken")
        queued = asyncio.create_task(cache.aio.get_or_load("inner", inner))
        await until_callers(cache, "inner", 1)
        held.release()
        assert await asyncio.gather(*outers, queued) == [{"inner": "inner"}] * 2 + ["inner"]

    run(main())


def test_load_that_waited_for_another_presses_no_more_than_allowed_before_and_after() -> None:
    """While a loader waits for another load its place may be lent; the places add up again afterwards."""
    cache: Cache[object, object] = Cache(max_concurrent_loads=1)
    for number in range(20):
        outer = Call(lambda number=number: cache.get_or_load(("o", number), lambda: cache.get_or_load(number, int)))  # type: ignore[misc]
        other = Call(lambda number=number: cache.get_or_load(number, int))  # type: ignore[misc]
        assert results([outer, other]) == [0, 0]
    gate = cache._engine.state.gates[1]
    assert gate._free == 1


def test_sync_call_on_a_loops_thread_does_not_queue_behind_that_loop() -> None:
    """L7: what would wait for its turn behind a task of the very loop that it blocks raises instead."""

    async def main() -> BaseException | object:
        cache: Cache[str, object] = Cache(max_concurrent_loads=1)
        loader = HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("a", loader))
        await until_callers(cache, "a", 1)
        try:
            return cache.get_or_load("b", lambda: "b")
        except CacheError as error:
            return error
        finally:
            loader.release()
            await task
            assert await cache.aio.get_or_load("b", lambda: "b") == "b"

    assert isinstance(Call(lambda: run(main())).result(), DeadlockError)


def test_sync_call_on_a_loops_thread_does_not_join_what_queues_behind_that_loop() -> None:
    """L7: nor may it wait for a thread's load that waits for its turn behind a task of the blocked loop."""

    async def main() -> BaseException | object:
        cache: Cache[str, object] = Cache(max_concurrent_loads=1)
        loader = HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("a", loader))
        await until_callers(cache, "a", 1)
        thread = Call(lambda: cache.get_or_load("b", lambda: "b"))
        await until(lambda: callers_of(cache, "b") == 1 and cache._engine.state.gates[1]._queue, "the thread queues")
        try:
            return cache.get_or_load("b", lambda: "never")
        except CacheError as error:
            return error
        finally:
            loader.release()
            await task
            assert await asyncio.to_thread(thread.result) == "b"

    assert isinstance(Call(lambda: run(main())).result(), DeadlockError)
