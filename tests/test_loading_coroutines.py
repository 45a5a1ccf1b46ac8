"""What loaders of the async face may do, and what they may be: rule L3."""

import asyncio
from collections.abc import Callable

import pytest
from tests.support.invariants import busy_workers
from tests.support.waiting import HeldAsyncLoader, gather_errors, run, turns, until, until_callers

from credenza import Cache, UsageError
from credenza.testing import FakeClock


def make_cache() -> Cache[object, object]:
    return Cache(clock=FakeClock(), jitter=0)


def _next_of_nothing() -> object:
    return next(iter(()))


async def _coroutine_without_end() -> object:
    return _next_of_nothing()


@pytest.mark.parametrize("loader", [_next_of_nothing, _coroutine_without_end])
def test_stop_iteration_out_of_a_loader_reaches_the_task(loader: Callable[[], object]) -> None:
    """L3: `StopIteration`, which no future can carry, still ends the flight; it arrives as PEP 479 says."""

    async def main() -> None:
        cache = make_cache()
        with pytest.raises(RuntimeError) as caught:
            async with asyncio.timeout(5):
                await cache.aio.get_or_load("k", loader)
        assert isinstance(caught.value.__cause__, StopIteration)
        assert await cache.aio.get_or_load("k", lambda: 1) == 1

    run(main())


def test_loaders_that_use_asyncio_timeout_work_in_and_after_their_first_step() -> None:
    """L3: a loader may use `asyncio.timeout` and task groups, which ask for the running task."""

    async def main() -> None:
        cache = make_cache()

        async def quick() -> str:
            async with asyncio.timeout(5):
                return "quick"

        async def grouped() -> str:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(quick())
            return task.result()

        async def late() -> str:
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                return "late"
            return "never"

        for _ in range(3):
            cache.clear()
            loaders = {"quick": quick, "grouped": grouped, "late": late}
            got = await asyncio.gather(*(cache.aio.get_or_load(name, loader) for name, loader in loaders.items()))
            assert got == ["quick", "quick", "late"]

    run(main())


def test_task_group_that_fails_inside_a_loader_fails_the_load() -> None:
    """L3: the error group of a loader's task group reaches its callers, and the key is free afterwards."""

    async def main() -> None:
        cache = make_cache()

        async def fail() -> None:
            raise OSError("down")

        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.get_running_loop().create_future()

        for _ in range(2):
            with pytest.raises(ExceptionGroup) as caught:
                await cache.aio.get_or_load("k", grouped)
            assert isinstance(caught.value.exceptions[0], OSError)
        assert await cache.aio.get_or_load("k", lambda: 1) == 1

    run(main())


@pytest.mark.parametrize("is_new", [True, False])
def test_loader_that_cancels_its_own_task_ends(is_new: bool) -> None:
    """L3: a coroutine may cancel the task that it runs in, as a task group does, even in its very first step."""

    async def main() -> None:
        cache = make_cache()

        async def loader() -> str:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            return "never"

        async def nothing() -> None:
            return None

        if not is_new:  # the task that a first load left idle
            await cache.aio.get_or_load("other", nothing)
            await turns()
        async with asyncio.timeout(3):
            (error,) = await gather_errors(asyncio.create_task(cache.aio.get_or_load("k", loader)))
        assert isinstance(error, asyncio.CancelledError)
        assert await cache.aio.get_or_load("k", lambda: 1) == 1

    run(main())


def test_many_lambdas_that_return_coroutines_take_no_thread_each() -> None:
    """L1: what a plain loader returns is awaited on the loop; it does not keep a worker thread meanwhile."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        tasks = [asyncio.create_task(cache.aio.get_or_load(key, lambda: loader())) for key in range(100)]
        await until(lambda: loader.calls == 100, "all are awaited")
        await until(lambda: busy_workers() == 0, "the workers are free again", deadline=3)
        loader.release()
        assert await asyncio.gather(*tasks) == ["value"] * 100

    run(main())


def test_loader_in_debug_mode_runs_as_ever() -> None:
    """L1: asyncio's debug mode, which checks threads and slow steps, has nothing to say."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(3)]
        await until_callers(cache, "k", 3)
        loader.release()
        assert await asyncio.gather(*tasks) == ["value"] * 3

    run(main(), debug=True)


def test_async_call_without_an_event_loop_leaves_the_key_free() -> None:
    """L3: a load that could not be started blocks nobody after it."""
    cache, loader = make_cache(), HeldAsyncLoader()
    call = cache.aio.get_or_load("k", loader)
    with pytest.raises(RuntimeError, match="event loop"):
        call.send(None)
    assert cache.get_or_load("k", lambda: 1, timeout=5) == 1


def test_coroutine_instead_of_a_loader_is_refused_at_once() -> None:
    """L3: a coroutine is no loader, and the sync face takes no coroutine function; the message says what to do."""
    cache, loader = make_cache(), HeldAsyncLoader()

    async def main() -> None:
        with pytest.raises(UsageError, match="pass the function"):
            await cache.aio.get_or_load("k", loader())  # type: ignore[arg-type]

    run(main())
    with pytest.raises(UsageError, match="aio"):
        cache.get_or_load("k", loader)
    with pytest.raises(UsageError, match="aio"):
        cache.get_or_load("k", lambda: loader())
    assert cache.get_or_load("k", lambda: 1) == 1
