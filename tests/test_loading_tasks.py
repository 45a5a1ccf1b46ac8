"""One load per key for the async face: rules L1-L3 with tasks of one event loop."""

import asyncio
import threading

import pytest
from tests.support.waiting import HeldAsyncLoader, HeldLoader, gather_errors, run, until, until_callers

from credenza import Cache, Loaded
from credenza.testing import CountingLoader, FakeClock


def make_cache() -> Cache[object, object]:
    return Cache(clock=FakeClock(), jitter=0)


def test_10_000_tasks_on_a_cold_key_load_once() -> None:
    """L1: 10,000 tasks that ask for one cold key make one load, and all get its value."""

    async def main() -> None:
        cache, loader, value = make_cache(), HeldAsyncLoader(), object()
        loader.value = value
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(10_000)]
        await until_callers(cache, "k", 10_000)
        loader.release()
        assert all(got is value for got in await asyncio.gather(*tasks))
        assert loader.calls == 1
        assert cache.stats().joins == 9_999

    run(main())


def test_10_000_tasks_with_a_loader_that_never_waits_load_once() -> None:
    """L1: a coroutine that ends in its first step is no exception."""

    async def main() -> None:
        cache, calls = make_cache(), []

        async def loader() -> str:
            calls.append(1)
            return "value"

        assert await asyncio.gather(*(cache.aio.get_or_load("k", loader) for _ in range(10_000))) == ["value"] * 10_000
        assert len(calls) == 1

    run(main())


def test_plain_loader_of_many_tasks_runs_once_in_a_worker_thread() -> None:
    """L1: a plain loader runs once, off the loop's thread, and the loop goes on meanwhile."""

    async def main() -> None:
        cache, loader, threads = make_cache(), HeldLoader(), []
        loader.value = lambda _number: threads.append(threading.get_ident())
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(200)]
        await until_callers(cache, "k", 200)
        loader.release()
        await asyncio.gather(*tasks)
        assert loader.calls == 1
        assert threads != [threading.get_ident()]

    run(main())


def test_plain_callable_that_returns_a_coroutine_is_awaited() -> None:
    """L1: `lambda: fetch()` is a loader for the async face."""

    async def main() -> None:
        cache = make_cache()

        async def fetch() -> str:
            await asyncio.sleep(0)
            return "value"

        assert await cache.aio.get_or_load("k", lambda: fetch()) == "value"
        assert cache.get("k") == "value"

    run(main())


def test_decorated_coroutine_function_in_many_tasks_runs_once() -> None:
    """L1: calls of a decorated coroutine function share one run per arguments."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()

        @cache.cached
        async def read(number: int) -> object:
            return await loader(number)

        tasks = [asyncio.create_task(read(1) if number % 2 else read(number=1)) for number in range(100)]
        await until_callers(cache, read.key_for(1), 100)
        loader.release()
        assert await asyncio.gather(*tasks) == ["value"] * 100
        assert loader.calls == 1

    run(main())


def test_fetch_by_two_tasks_says_who_loaded() -> None:
    """L1: of two callers one missed and one joined; the next one hits."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        tasks = [asyncio.create_task(cache.aio.fetch("k", loader)) for _ in range(2)]
        await until_callers(cache, "k", 2)
        loader.release()
        assert [fetched.status for fetched in await asyncio.gather(*tasks)] == ["miss", "joined"]
        assert (await cache.aio.fetch("k", loader)).status == "hit"

    run(main())


def test_cancelled_error_out_of_a_loader_makes_a_waiter_lead() -> None:
    """L2: a `CancelledError` that comes out of the leader's loader is not shared; a waiter loads for the others."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader()
        inner: list[asyncio.Task[object]] = []

        async def leading() -> object:
            inner.append(asyncio.create_task(loader()))
            return await inner[0]

        leader = asyncio.create_task(cache.aio.get_or_load("k", leading))
        await until_callers(cache, "k", 1)
        waiters = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(8)]
        await until_callers(cache, "k", 9)
        inner[0].cancel()
        await until(lambda: loader.calls == 2, "a waiter leads")
        loader.release()
        assert await asyncio.gather(*waiters) == ["value"] * 8
        assert isinstance((await gather_errors(leader))[0], asyncio.CancelledError)
        assert loader.calls == 2

    run(main())


def test_value_that_is_not_to_be_kept_reaches_every_task() -> None:
    """L2: `Loaded(ttl=0)` is shared with those who wait, and loaded again by whoever comes later."""

    async def main() -> None:
        cache, loader = make_cache(), HeldAsyncLoader(lambda number: Loaded(number, ttl=0))
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(8)]
        await until_callers(cache, "k", 8)
        loader.release()
        assert await asyncio.gather(*tasks) == [1] * 8
        assert await cache.aio.get_or_load("k", loader) == 2

    run(main())


def test_failed_load_stores_nothing_and_the_next_task_loads() -> None:
    """L3: after an error the next call loads again."""

    async def main() -> None:
        cache, plain = make_cache(), CountingLoader("fine", error=OSError("down"))

        async def loader() -> object:
            return plain()

        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                await cache.aio.get_or_load("k", loader)
        plain.error = None
        assert await cache.aio.get_or_load("k", loader) == "fine"
        assert plain.calls == 3

    run(main())
