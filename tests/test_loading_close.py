"""What `close` means for loads: nobody hangs, nothing is kept, later calls are refused."""

import asyncio
from collections.abc import Callable

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    gather_errors,
    results,
    run,
    until,
    until_callers,
    wait_for_callers,
)

from credenza import Cache, CacheClosed, CacheError
from credenza.testing import FakeClock

CALLS: dict[str, Callable[[Cache[object, object]], object]] = {
    "get_or_load": lambda cache: cache.get_or_load("k", lambda: 1),
    "get_or_load of what was there": lambda cache: cache.get_or_load("there", lambda: 1),
    "fetch": lambda cache: cache.fetch("k", lambda: 1),
    "get_or_load_many": lambda cache: cache.get_or_load_many(["k"], lambda keys: {}),
    "get": lambda cache: cache.get("there"),
    "get_many": lambda cache: cache.get_many(["there"]),
    "set": lambda cache: cache.set("k", 1),
    "writing": lambda cache: cache.writing("k").__enter__(),
    "decorated": lambda cache: cache.cached(lambda: 1)(),
    "aio.get_or_load": lambda cache: run(cache.aio.get_or_load("k", lambda: 1)),
    "aio.get_or_load_many": lambda cache: run(cache.aio.get_or_load_many(["k"], lambda keys: {})),
    "aio.get": lambda cache: run(cache.aio.get("there")),
    "aio.set": lambda cache: run(cache.aio.set("k", 1)),
}


@pytest.mark.parametrize("call", CALLS)
def test_closed_cache_refuses_calls(call: str) -> None:
    """A call after `close` raises `CacheClosed`, which names the cache and says what to do."""
    cache: Cache[object, object] = Cache(name="shop")
    cache.set("there", 1)
    cache.close()
    with pytest.raises(CacheClosed, match="shop") as caught:
        CALLS[call](cache)
    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, RuntimeError)


def test_closing_twice_and_invalidating_afterwards_is_fine() -> None:
    """`close` may be called again; telling a closed cache that something changed harms nobody."""
    cache: Cache[object, object] = Cache()
    cache.set("k", 1)
    cache.close()
    cache.close()
    cache.invalidate("k")
    cache.invalidate_tags("t")
    cache.clear()
    assert len(cache) == 0
    assert "k" not in cache


def test_with_blocks_close_the_cache() -> None:
    """`with cache` and `async with cache.aio` close it, on an error too."""
    cache: Cache[object, object] = Cache()
    with pytest.raises(ZeroDivisionError), cache:
        raise ZeroDivisionError
    with pytest.raises(CacheClosed):
        cache.get("k")
    other: Cache[object, object] = Cache()

    async def main() -> None:
        async with other.aio as face:
            await face.set("k", 1)
        with pytest.raises(CacheClosed):
            await face.get("k")

    run(main())


def test_closing_lets_threads_have_their_value() -> None:
    """L3: a plain load under way cannot be stopped; its callers get its value, and nothing is kept."""
    cache: Cache[object, object] = Cache(clock=FakeClock())
    loader = HeldLoader()
    calls = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(3)]
    wait_for_callers(cache, "k", 3)
    cache.close()
    loader.release()
    assert results(calls) == ["value"] * 3
    assert len(cache) == 0


@pytest.mark.parametrize("wait", [True, False], ids=["under way", "in the turn of its start"])
def test_closing_cancels_async_loads_and_tells_their_callers(wait: bool) -> None:
    """L3, L2: the loader sees `CancelledError`; its callers, whom nobody cancelled, get `CacheClosed`."""

    async def main() -> None:
        cache: Cache[object, object] = Cache()
        loader, batch = HeldAsyncLoader(), HeldAsyncLoader()

        async def close() -> None:
            cache.close()

        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(3)]
        tasks.append(asyncio.create_task(cache.aio.get_or_load_many(["a", "b"], batch)))  # type: ignore[arg-type]
        if wait:
            await until_callers(cache, "k", 3)
            cache.close()
        else:
            await asyncio.create_task(close())
        errors = await gather_errors(*tasks)
        assert {type(error) for error in errors} == {CacheClosed}
        await until(lambda: (loader.cancelled, batch.cancelled) == (1, 1), "the loaders are cancelled")

    run(main())


def test_closing_tells_threads_that_wait_for_a_task() -> None:
    """L3: a thread that waits for an async load gets `CacheClosed` when that is stopped."""

    async def main() -> None:
        cache: Cache[object, object] = Cache()
        task = asyncio.create_task(cache.aio.get_or_load("k", HeldAsyncLoader()))
        await until_callers(cache, "k", 1)
        thread = Call(lambda: cache.get_or_load("k", lambda: "mine"))
        await until_callers(cache, "k", 2)
        cache.close()
        await gather_errors(task)
        await until(lambda: thread.is_done, "the thread is told")
        assert isinstance(thread.error(), CacheClosed)

    run(main())


def test_closing_does_not_strand_those_that_queue_for_a_turn() -> None:
    """L3: callers behind `max_concurrent_loads` end too."""
    cache: Cache[object, object] = Cache(max_concurrent_loads=1)
    loader, second = HeldLoader(), HeldLoader()
    second.release()
    first = Call(lambda: cache.get_or_load("busy", loader))
    loader.wait_until_called()
    queued = Call(lambda: cache.get_or_load("k", second))
    wait_for_callers(cache, "k", 1)
    cache.close()
    loader.release()
    assert first.result() == "value"
    try:
        assert queued.result() == "value"
    except CacheClosed:
        assert second.calls == 0
    assert len(cache) == 0


def test_task_cancelled_by_its_owner_while_the_cache_closes_stays_cancelled() -> None:
    """L2: a caller's own cancellation is its own, closed cache or not."""

    async def main() -> None:
        cache: Cache[object, object] = Cache()
        task = asyncio.create_task(cache.aio.get_or_load("k", HeldAsyncLoader()))
        await until_callers(cache, "k", 1)
        task.cancel()
        cache.close()
        (error,) = await gather_errors(task)
        assert isinstance(error, asyncio.CancelledError)

    run(main())
