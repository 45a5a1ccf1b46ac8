"""`max_concurrent_loads`: how many loads press the source at once."""

import asyncio
import threading

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    LoopThread,
    callers_of,
    gather_errors,
    loops,
    results,
    run,
    until,
    until_callers,
    wait_for_callers,
    wait_until,
)

from credenza import Cache
from credenza.testing import FakeClock


class Pressure:
    """A source that notes how many loads press it at once; each waits until it is let go."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0
        self._lock = threading.Lock()
        self.held = HeldLoader()

    def load(self) -> object:
        with self._lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        try:
            return self.held()
        finally:
            with self._lock:
                self.now -= 1

    async def load_async(self) -> object:
        return await asyncio.to_thread(self.load)


@pytest.mark.parametrize("form", ["coroutine", "plain", "lambda"])
def test_no_more_loads_than_allowed_press_the_source(form: str) -> None:
    """Threads and tasks of two loops with twenty keys: two load at a time, the others queue, all get their value."""
    cache: Cache[object, object] = Cache(max_concurrent_loads=2)
    source = Pressure()
    loader = {"coroutine": source.load_async, "plain": source.load, "lambda": lambda: source.load_async()}[form]
    with loops(2) as running:
        threads = [Call(lambda key=key: cache.get_or_load(key, source.load)) for key in range(10)]  # type: ignore[misc]
        tasks = [running[key % 2].submit(cache.aio.get_or_load(-key, loader)) for key in range(1, 11)]
        wait_until(lambda: cache.stats().flights == 20, "everybody has come")
        wait_until(lambda: source.now == 2, "two load")
        source.held.release()
        assert results(threads) == ["value"] * 10
        assert [task.result(10) for task in tasks] == ["value"] * 10
    assert source.most == 2
    assert source.calls == 20


def test_hits_and_joins_do_not_queue() -> None:
    """A full house keeps nobody from a value that is at hand."""
    cache: Cache[str, object] = Cache(max_concurrent_loads=1)
    cache.set("hit", 1)
    loader = HeldLoader()
    busy = Call(lambda: cache.get_or_load("busy", loader))
    loader.wait_until_called()
    assert cache.get_or_load("hit", loader) == 1
    assert cache.get_or_load_many(["hit"], loader) == {"hit": 1}
    loader.release()
    busy.result()


def test_turns_are_taken_in_order() -> None:
    """Who queued first loads first."""
    cache: Cache[int, int] = Cache(max_concurrent_loads=1)
    held, order = HeldLoader(), []
    first = Call(lambda: cache.get_or_load(0, lambda: held()))
    held.wait_until_called()
    queued = []
    for key in range(1, 6):
        queued.append(Call(lambda key=key: cache.get_or_load(key, lambda: order.append(key))))  # type: ignore[misc]
        wait_for_callers(cache, key, 1)
        wait_until(lambda key=key: len(cache._engine.state.gates[1]._queue) == key, "it queues")  # type: ignore[misc]
    held.release()
    results([first, *queued])
    assert order == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [OSError("down"), KeyboardInterrupt()], ids=repr)
def test_failed_load_gives_its_turn_to_the_next(error: BaseException) -> None:
    """A loader that raises, or is interrupted, does not keep its place."""
    cache: Cache[object, object] = Cache(max_concurrent_loads=1)
    for key in range(3):
        with pytest.raises(type(error)):
            cache.get_or_load(key, HeldLoaderRaising(error))
    assert cache.get_or_load("k", lambda: 1, timeout=5) == 1


class HeldLoaderRaising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self) -> object:
        raise self.error


def test_cancelled_load_gives_its_turn_to_the_next() -> None:
    """A task that leaves its load frees the place; one that leaves the queue is forgotten there."""

    async def main() -> None:
        cache: Cache[str, object] = Cache(max_concurrent_loads=1)
        busy, never, after = HeldAsyncLoader(), HeldAsyncLoader(), HeldAsyncLoader()
        after.release()
        first = asyncio.create_task(cache.aio.get_or_load("busy", busy))
        await until_callers(cache, "busy", 1)
        queued = asyncio.create_task(cache.aio.get_or_load("queued", never))
        await until_callers(cache, "queued", 1)
        last = asyncio.create_task(cache.aio.get_or_load("last", after))
        await until_callers(cache, "last", 1)
        queued.cancel()
        await gather_errors(queued)
        assert never.calls == 0
        first.cancel()
        await gather_errors(first)
        assert await last == "value"
        assert never.calls == 0
        await until(lambda: cache.stats().flights == 0, "everybody has gone")

    run(main())


@pytest.mark.parametrize("when", ["queued before", "came after"])
def test_loop_that_dies_gives_its_turn_to_the_next(when: str) -> None:
    """L3: the place of a load whose loop is gone is free, for those that queue already and for newcomers."""
    cache: Cache[str, object] = Cache(max_concurrent_loads=1)
    loop = LoopThread()
    lost = loop.submit(cache.aio.get_or_load("a", HeldAsyncLoader()))
    wait_until(lambda: cache._engine.state.gates[1]._free == 0 if cache._engine.state.gates else False, "it loads")
    if when == "came after":
        loop.die()
    call = Call(lambda: cache.get_or_load("b", lambda: "b"))
    wait_for_callers(cache, "b", 1)
    loop.die()
    assert call.result() == "b"
    assert cache.get_or_load("a", lambda: "a") == "a"
    assert not lost.done()


def test_newcomer_for_a_key_that_was_left_in_the_queue_is_served() -> None:
    """L5: who comes back for a key whose first caller left the queue gets its value."""

    async def main() -> None:
        cache: Cache[str, object] = Cache(max_concurrent_loads=1)
        busy, loader = HeldAsyncLoader(), HeldAsyncLoader()
        loader.release()
        first = asyncio.create_task(cache.aio.get_or_load("busy", busy))
        await until_callers(cache, "busy", 1)
        queued = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await until_callers(cache, "k", 1)
        queued.cancel()
        await gather_errors(queued)
        again = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await until(lambda: callers_of(cache, "k") == 1, "it is there")
        busy.release()
        assert await asyncio.gather(first, again) == ["value"] * 2
        assert loader.calls == 1

    run(main())


def test_bulk_load_takes_one_turn() -> None:
    """L9: a bulk load counts once, however many keys it has."""
    cache: Cache[int, int] = Cache(max_concurrent_loads=1)
    assert cache.get_or_load_many(range(10), lambda keys: {key: key for key in keys}, timeout=5) == {
        key: key for key in range(10)
    }


def test_background_refreshes_queue_too() -> None:
    """F3: refreshes behind readers' backs press the source no more than other loads."""
    clock = FakeClock()
    cache: Cache[int, object] = Cache(clock=clock, ttl=10, jitter=0, stale_while_revalidate=60, max_concurrent_loads=1)
    for key in range(5):
        cache.set(key, "old")
    clock.advance(11)
    source = Pressure()
    assert [cache.get_or_load(key, source.load) for key in range(5)] == ["old"] * 5
    wait_until(lambda: source.now == 1, "one loads")
    source.held.release()
    wait_until(lambda: cache.get_many(range(5)) == dict.fromkeys(range(5), "value"), "all are refreshed")
    assert source.most == 1
