"""The loading rules for decorated coroutine functions, whose misses may take a shorter way: L1-L5, L7 and L10."""

import asyncio
import contextvars
from typing import Any

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    LoopThread,
    callers_of,
    gather_errors,
    results,
    run,
    until,
    until_callers,
    wait_for_callers,
)
from tests.support.ways import WAYS, decorated_async

from credenza import Cache, CacheClosed, DeadlockError
from credenza.testing import FakeClock

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each way in turn."""
    return str(request.param)


@pytest.fixture
def cache(way: str) -> Cache[Any, Any]:
    """A cache whose clock stands still."""
    cache: Cache[Any, Any] = Cache(clock=FakeClock(), jitter=0)
    if way == "listener":
        cache.subscribe(lambda event: None)
    return cache


def test_many_tasks_load_once(cache: Cache[Any, Any], way: str) -> None:
    """L1: 500 tasks and 8 threads make one load; once with a coroutine that waits, once with one that does not."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        read = decorated_async(cache, way, loader)
        tasks = [asyncio.create_task(read(1)) for _ in range(500)]
        await until_callers(cache, read.key_for(1), 500)
        threads = [Call(lambda: cache.get_or_load(read.key_for(1), lambda: "never")) for _ in range(8)]
        await until_callers(cache, read.key_for(1), 508)
        loader.release()
        assert await asyncio.gather(*tasks) == ["value"] * 500
        await until(lambda: all(thread.is_done for thread in threads), "the threads get it too")
        assert results(threads) == ["value"] * 8
        assert loader.calls == 1
        calls: list[int] = []

        async def at_once(number: int) -> int:
            calls.append(number)
            return number

        quick = decorated_async(cache, way, at_once)
        cache.clear()
        assert await asyncio.gather(*(quick(2) for _ in range(500))) == [2] * 500
        assert calls == [2]

    run(main())


def test_leader_cancelled_while_50_wait_costs_nobody_the_value(cache: Cache[Any, Any], way: str) -> None:
    """L5: the first caller is cancelled, the 50 others get the value of the same run."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        read = decorated_async(cache, way, loader)
        leader, *waiters = [asyncio.create_task(read(1)) for _ in range(51)]
        await until_callers(cache, read.key_for(1), 51)
        leader.cancel()
        await gather_errors(leader)
        loader.release()
        assert await asyncio.gather(*waiters) == ["value"] * 50
        assert loader.calls == 1

    run(main())


def test_all_cancelled_cancels_the_function(cache: Cache[Any, Any], way: str) -> None:
    """L5: when all have left, the function sees `CancelledError`, and the next call runs it anew."""

    async def main() -> None:
        loader = HeldAsyncLoader(lambda number: number)
        read = decorated_async(cache, way, loader)
        tasks = [asyncio.create_task(read(1)) for _ in range(3)]
        await until_callers(cache, read.key_for(1), 3)
        for task in tasks:
            task.cancel()
        assert {type(error) for error in await gather_errors(*tasks)} == {asyncio.CancelledError}
        await until(lambda: loader.cancelled == 1, "the function is cancelled")
        loader.release()
        assert await read(1) == 2

    run(main())


def test_error_reaches_all_tasks_at_once(cache: Cache[Any, Any], way: str) -> None:
    """L2, L3: raised before or after the first wait; each task has its own error; the next call runs anew."""

    async def main() -> None:
        loader = HeldAsyncLoader(OSError(5, "down"))
        read = decorated_async(cache, way, loader)
        for is_held in (True, False):
            tasks = [asyncio.create_task(read(1)) for _ in range(50)]
            if is_held:
                await until_callers(cache, read.key_for(1), 50)
                loader.release()
            errors = await gather_errors(*tasks)
            assert {(type(error), error.args) for error in errors} == {(OSError, (5, "down"))}
            assert len({id(error) for error in errors}) == 50 or not is_held
        loader.value = "fine"
        assert await read(1) == "fine"

    run(main())


@pytest.mark.parametrize("waits", [True, False])
def test_loader_that_cancels_its_own_task_ends(cache: Cache[Any, Any], way: str, waits: bool) -> None:
    """L3: a coroutine may cancel the task that it runs in, as a task group does, even in its very first step."""

    async def main() -> None:
        async def loader(_number: int) -> str:
            if waits:
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            return "never"

        read = decorated_async(cache, way, loader)
        for _ in range(3):  # the first call finds a task that has not run yet, the next ones may not
            async with asyncio.timeout(3):
                (error,) = await gather_errors(asyncio.create_task(read(1)))
            assert isinstance(error, asyncio.CancelledError)
        assert await decorated_async(cache, way, HeldAsyncLoaderFree())(1) == "free"

    run(main())


class HeldAsyncLoaderFree:
    async def __call__(self, _number: int) -> str:
        return "free"


def test_async_function_that_asks_for_its_own_result_raises(cache: Cache[Any, Any], way: str) -> None:
    """L7: at once, after a wait, and from a task that it starts."""

    async def main() -> None:
        async def at_once(number: int) -> object:
            return await read(number)

        async def late(number: int) -> object:
            await asyncio.sleep(0)
            return await asyncio.create_task(read(number))

        for loader in (at_once, late):
            read = decorated_async(cache, way, loader)
            with pytest.raises(DeadlockError):
                await read(1)

    run(main())


def test_sync_call_on_the_loop_that_runs_the_function_raises(cache: Cache[Any, Any], way: str) -> None:
    """L7: in the sync face, on the loop's own thread, for a key that a task of the loop is loading."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        read = decorated_async(cache, way, loader)
        task = asyncio.create_task(read(1))
        await until_callers(cache, read.key_for(1), 1)
        with pytest.raises(DeadlockError):
            cache.get_or_load(read.key_for(1), lambda: "never")
        loader.release()
        assert await task == "value"

    Call(lambda: run(main())).result()


def test_async_function_sees_the_callers_variables_and_leaves_them(cache: Cache[Any, Any], way: str) -> None:
    """L10: all its steps run in one copy of its caller's context."""

    async def loader(_number: int) -> tuple[str, str]:
        was = user.get()
        token = user.set("the function")
        await asyncio.sleep(0)
        assert await asyncio.create_task(_whose()) == "the function"
        user.reset(token)
        return was, user.get()

    async def main() -> None:
        user.set("ann")
        assert await decorated_async(cache, way, loader)(1) == ("ann", "ann")
        assert user.get() == "ann"

    run(main())


async def _whose() -> str:
    return user.get()


def test_closing_tells_the_functions_callers(cache: Cache[Any, Any], way: str) -> None:
    """L3: the function sees `CancelledError`, its callers get `CacheClosed`."""

    async def main() -> None:
        loader = HeldAsyncLoader()
        read = decorated_async(cache, way, loader)
        tasks = [asyncio.create_task(read(1)) for _ in range(3)]
        await asyncio.sleep(0)
        cache.close()
        assert {type(error) for error in await gather_errors(*tasks)} == {CacheClosed}
        await until(lambda: loader.cancelled == 1, "the function is cancelled")

    run(main())


def test_loop_that_dies_hands_the_function_over(cache: Cache[Any, Any], way: str) -> None:
    """L3: waiters on another loop and newcomers run the function themselves."""
    loader = HeldAsyncLoader(lambda number: number)
    read = decorated_async(cache, way, loader)
    home, other = LoopThread(), LoopThread()
    home.submit(read(1))
    wait_for_callers(cache, read.key_for(1), 1)
    waiter = other.submit(read(1))
    wait_for_callers(cache, read.key_for(1), 2)
    home.die()
    loader.release()
    assert waiter.result(10) == 2
    assert other.result(read(1)) == 2
    assert callers_of(cache, read.key_for(1)) == 0
    other.stop()


def test_call_without_an_event_loop_leaves_the_key_free(cache: Cache[Any, Any], way: str) -> None:
    """L3: a run that could not be started blocks nobody after it."""
    read = decorated_async(cache, way, HeldAsyncLoaderFree())
    with pytest.raises(RuntimeError, match="event loop"):
        read(1).send(None)
    assert run(read(1)) == "free"
