"""Anybody may leave a flight, and nobody else notices: rule L5."""

import asyncio

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    LoopThread,
    callers_of,
    gather_errors,
    run,
    turns,
    until,
    until_callers,
    wait_for_callers,
    wait_until,
)

from credenza import Cache
from credenza.testing import FakeClock

Task = asyncio.Task[object]


def make_cache() -> Cache[object, object]:
    return Cache(clock=FakeClock(), jitter=0)


async def start(cache: Cache[object, object], loader: object, count: int) -> list[Task]:
    """Start `count` tasks that ask for "k"; the first one leads."""
    before = callers_of(cache, "k")
    tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(count)]  # type: ignore[arg-type]
    await until_callers(cache, "k", before + count)
    return tasks


async def cancel(*tasks: Task) -> None:
    """Cancel tasks and see them end as cancelled."""
    for task in tasks:
        task.cancel()
    assert {type(error) for error in await gather_errors(*tasks)} == {asyncio.CancelledError}


@pytest.mark.parametrize("kind", [HeldLoader, HeldAsyncLoader])
def test_leader_cancelled_while_50_wait_costs_nobody_the_value(kind: type[HeldLoader]) -> None:
    """L5: the first caller is cancelled, the 50 others get the value of the same load."""

    async def main() -> None:
        cache, loader = make_cache(), kind()
        leader, *waiters = await start(cache, loader, 51)
        await cancel(leader)
        loader.release()
        assert await asyncio.gather(*waiters) == ["value"] * 50
        assert loader.calls == 1
        assert cache.get("k") == "value"

    run(main())


def test_waiter_cancelled_is_not_noticed() -> None:
    """L5: a waiter is cancelled, and leader and other waiters get the value of the same load."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        leader, waiter, *others = await start(cache, loader, 10)
        await cancel(waiter)
        loader.release()
        assert await asyncio.gather(leader, *others) == ["value"] * 9
        assert (loader.calls, loader.cancelled) == (1, 0)

    run(main())


@pytest.mark.parametrize("count", [1, 2, 50])
def test_all_cancelled_cancels_the_load(count: int) -> None:
    """L5: when the last one leaves the loader sees `CancelledError`, and the next call loads anew."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader(lambda number: number)
        await cancel(*await start(cache, loader, count))
        await until(lambda: loader.cancelled == 1, "the loader is cancelled")
        assert "k" not in cache
        loader.release()
        assert await cache.aio.get_or_load("k", loader) == 2

    run(main())


def test_waiters_that_leave_one_by_one_cancel_the_load_only_in_the_end() -> None:
    """L5: the load runs as long as one caller is left."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        tasks = await start(cache, loader, 5)
        for task in tasks[:-1]:
            await cancel(task)
            await turns()
            assert loader.cancelled == 0
        await cancel(tasks[-1])
        await until(lambda: loader.cancelled == 1, "the loader is cancelled")

    run(main())


def test_newcomer_after_all_left_does_not_wait_for_the_cancelled_load() -> None:
    """L5: a load that takes its time to be cancelled holds nobody up, and what it returns is not kept."""

    async def main() -> None:
        cache, stubborn = make_cache(), asyncio.Event()

        async def slow_to_leave() -> str:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await stubborn.wait()
            return "too late"

        (task,) = await start(cache, slow_to_leave, 1)
        await cancel(task)
        assert await cache.aio.get_or_load("k", lambda: "new") == "new"
        stubborn.set()
        await turns()
        assert cache.get("k") == "new"

    run(main())


def test_thread_that_waits_keeps_a_tasks_load_going() -> None:
    """L5: all tasks leave, but a thread still waits, so the load goes on."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        tasks = await start(cache, loader, 3)
        thread = Call(lambda: cache.get_or_load("k", lambda: "mine"))
        await until_callers(cache, "k", 4)
        await cancel(*tasks)
        loader.release()
        await until(lambda: thread.is_done, "the thread gets its value")
        assert thread.result() == "value"

    run(main())


def test_all_left_a_plain_load_and_its_value_is_kept() -> None:
    """L5: a plain loader cannot be stopped; its value is stored for the next call."""

    async def main() -> None:
        cache, loader = make_cache(), HeldLoader()
        tasks = await start(cache, loader, 3)
        await cancel(*tasks)
        loader.release()
        await until(lambda: "k" in cache, "the value is stored")
        assert await cache.aio.get_or_load("k", loader) == "value"
        assert loader.calls == 1

    run(main())


def test_all_left_before_a_lambda_returned_its_coroutine_stops_it() -> None:
    """L5: a coroutine that a plain loader returns when all have left does not run on for nobody."""

    async def main() -> None:
        cache, held, loader = make_cache(), HeldLoader(), HeldAsyncLoader()
        (task,) = await start(cache, lambda: (held(), loader())[1], 1)
        await cancel(task)
        held.release()
        await until(lambda: cache.stats().flights == 0, "the load is over")
        assert loader.finished == 0
        assert await cache.aio.get_or_load("k", lambda: "new") == "new"

    run(main())


def test_newcomer_joins_a_plain_load_that_everybody_left() -> None:
    """L1, L5: while a plain load runs on alone, whoever comes joins it."""

    async def main() -> None:
        cache, loader = make_cache(), HeldLoader()
        await cancel(*await start(cache, loader, 3))
        newcomer = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await until_callers(cache, "k", 1)
        loader.release()
        assert await newcomer == "value"
        assert loader.calls == 1

    run(main())


def test_cancellation_and_value_in_the_same_turn_harm_nobody() -> None:
    """L5: a waiter that is cancelled in the turn in which the load ends takes nothing from the others."""

    async def main() -> None:
        for victim in range(3):
            cache, loader = make_cache(), HeldAsyncLoader()
            tasks = await start(cache, loader, 3)
            loader.release()
            await asyncio.sleep(0)
            tasks[victim].cancel()
            got = await gather_errors(*tasks)
            assert [one for number, one in enumerate(got) if number != victim] == ["value"] * 2
            assert cache.get("k") == "value"

    run(main())


def test_task_cancelled_before_it_ran_leaves_nothing() -> None:
    """L5: a call that is cancelled before its first step was never there."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        task = asyncio.create_task(cache.aio.get_or_load("k", loader))
        task.cancel()
        await gather_errors(task)
        assert loader.calls == 0
        assert cache.stats().flights == 0

    run(main())


def test_wait_for_around_a_call_leaves_like_any_cancellation() -> None:
    """L5: `asyncio.wait_for` and `asyncio.timeout` end the one call that they are around."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        (other,) = await start(cache, loader, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aio.get_or_load("k", loader), 0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await cache.aio.get_or_load("k", loader)
        loader.release()
        assert await other == "value"
        assert loader.calls == 1

    run(main())


def test_tasks_of_another_loop_may_leave_the_leaders_loop_alone() -> None:
    """L5: all callers leave, the last one on another loop: the load is cancelled on its own loop."""
    cache, loader = make_cache(), HeldAsyncLoader()
    home, other = LoopThread(), LoopThread()
    try:
        leader = home.submit(cache.aio.get_or_load("k", loader))
        wait_for_callers(cache, "k", 1)
        waiter = other.submit(cache.aio.get_or_load("k", loader))
        wait_for_callers(cache, "k", 2)
        leader.cancel()
        wait_for_callers(cache, "k", 1)
        assert loader.cancelled == 0
        waiter.cancel()
        wait_until(lambda: loader.cancelled == 1, "the loader is cancelled")
    finally:
        home.stop()
        other.stop()
