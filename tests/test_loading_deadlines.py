"""Deadlines of calls: `timeout=`, rule L6."""

import asyncio
import time
from datetime import timedelta

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
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

from credenza import Cache, CacheError, ConfigurationError, LoadTimeout
from credenza.testing import FakeClock

SOON = 0.02
"""Seconds after which a call under test gives up; deadlines are waited for in real time."""


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache[object, object]:
    """A cache on that clock."""
    return Cache(clock=clock, ttl=10, jitter=0)


@pytest.mark.parametrize("timeout", [SOON, timedelta(seconds=SOON), "20ms"], ids=repr)
def test_waiter_past_its_deadline_leaves_and_nobody_notices(cache: Cache[object, object], timeout: object) -> None:
    """L6, L5: a waiter gets `LoadTimeout`, with the key; leader and other waiters get the value of the same load."""
    loader = HeldLoader()
    others = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(3)]
    wait_for_callers(cache, "k", 3)
    with pytest.raises(LoadTimeout) as caught:
        cache.get_or_load("k", loader, timeout=timeout)  # type: ignore[arg-type]
    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.key == "k"
    assert callers_of(cache, "k") == 3
    loader.release()
    assert results(others) == ["value"] * 3
    assert loader.calls == 1


def test_sync_leader_past_its_deadline_leaves_its_load_to_the_waiters(cache: Cache[object, object]) -> None:
    """L6, L5: a sync leader with a deadline leaves while its loader runs; those that wait get its value."""
    loader = HeldLoader()
    leader = Call(lambda: cache.get_or_load("k", loader, timeout=0.3))
    loader.wait_until_called()
    waiters = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(3)]
    wait_for_callers(cache, "k", 4)
    assert isinstance(leader.error(), LoadTimeout)
    loader.release()
    assert results(waiters) == ["value"] * 3
    assert loader.calls == 1


def test_lone_sync_leader_past_its_deadline_has_its_value_kept(cache: Cache[object, object]) -> None:
    """L5, L6: the load of a caller that left cannot be stopped; its value serves the next call."""
    loader = HeldLoader()
    with pytest.raises(LoadTimeout):
        cache.get_or_load("k", loader, timeout=SOON)
    loader.release()
    wait_until(lambda: "k" in cache, "the value is stored")
    assert cache.get_or_load("k", loader) == "value"
    assert loader.calls == 1


def test_lone_task_past_its_deadline_cancels_its_load() -> None:
    """L5, L6: with the last caller an async load goes too; the next call loads anew."""

    async def main() -> None:
        cache: Cache[str, object] = Cache()
        loader = HeldAsyncLoader(lambda number: number)
        with pytest.raises(LoadTimeout):
            await cache.aio.get_or_load("k", loader, timeout=SOON)
        await until(lambda: loader.cancelled == 1, "the loader is cancelled")
        loader.release()
        assert await cache.aio.get_or_load("k", loader, timeout=5) == 2

    run(main())


def test_task_leader_past_its_deadline_leaves_its_load_to_the_waiters() -> None:
    """L6, L5: a leading task leaves; a task and a thread that wait get the value of the same load."""

    async def main() -> None:
        cache: Cache[str, object] = Cache()
        loader = HeldAsyncLoader()
        leader = asyncio.create_task(cache.aio.get_or_load("k", loader, timeout=0.3))
        await until_callers(cache, "k", 1)
        task = asyncio.create_task(cache.aio.get_or_load("k", loader))
        thread = Call(lambda: cache.get_or_load("k", lambda: "mine"))
        await until_callers(cache, "k", 3)
        assert isinstance((await gather_errors(leader))[0], LoadTimeout)
        loader.release()
        assert await task == "value"
        await until(lambda: thread.is_done, "the thread gets its value")
        assert thread.result() == "value"
        assert (loader.calls, loader.cancelled) == (1, 0)

    run(main())


def test_deadline_covers_waiting_for_another_loop(cache: Cache[object, object]) -> None:
    """L6: threads and tasks that wait for a task of another loop leave in time."""
    loader = HeldAsyncLoader()
    with loops(2) as (home, other):
        leader = home.submit(cache.aio.get_or_load("k", loader))
        wait_for_callers(cache, "k", 1)
        with pytest.raises(LoadTimeout):
            cache.get_or_load("k", lambda: "mine", timeout=SOON)
        with pytest.raises(LoadTimeout):
            other.result(cache.aio.get_or_load("k", loader, timeout=SOON))
        with pytest.raises(LoadTimeout):
            cache.get_or_load_many(["k"], lambda keys: {}, timeout=SOON)
        assert callers_of(cache, "k") == 1
        loader.release()
        assert leader.result(10) == "value"


def test_deadline_covers_the_queue_for_a_turn() -> None:
    """L6: who queues behind `max_concurrent_loads` leaves in time, and its loader is never called."""
    cache: Cache[str, object] = Cache(max_concurrent_loads=1)
    first, second = HeldLoader(), HeldLoader()
    busy = Call(lambda: cache.get_or_load("busy", first))
    first.wait_until_called()
    with pytest.raises(LoadTimeout):
        cache.get_or_load("k", second, timeout=SOON)
    with pytest.raises(LoadTimeout):
        run(cache.aio.get_or_load("l", second, timeout=SOON))
    first.release()
    assert busy.result() == "value"
    wait_until(lambda: cache.stats().flights == 0, "those that queued have gone")
    assert second.calls == 0


def test_deadline_covers_the_round_before_in_a_write(cache: Cache[object, object]) -> None:
    """L6, I3: inside `writing`, who waits for a load whose value it may not use leaves in time."""
    loader = HeldLoader()
    with cache.writing("k"):
        other = Call(lambda: cache.get_or_load("k", loader))
        wait_for_callers(cache, "k", 1)
        with pytest.raises(LoadTimeout):
            cache.get_or_load("k", loader, timeout=SOON)
        loader.release()
        assert other.result() == "value"
    assert loader.calls == 1


def test_deadline_of_a_bulk_call_covers_all_of_it(cache: Cache[object, object]) -> None:
    """L6, L9: a bulk call with keys that it leads and keys that it joins has one deadline for everything."""
    loader, batch = HeldLoader(), HeldLoader()
    other = Call(lambda: cache.get_or_load("joined", loader))
    wait_for_callers(cache, "joined", 1)
    began = time.monotonic()
    with pytest.raises(LoadTimeout):
        cache.get_or_load_many(["led", "joined", "led too"], batch, timeout=0.2)
    assert time.monotonic() - began < 5
    batch.value = {"led": 1, "led too": 2}
    batch.release()
    loader.release()
    assert other.result() == "value"
    wait_until(lambda: "led too" in cache, "what was loaded is kept")


def test_value_within_the_deadline_is_returned_as_ever(cache: Cache[object, object]) -> None:
    """L6: a deadline that is met changes nothing, for a load, a hit, an error and a bulk load."""
    assert cache.get_or_load("k", lambda: 1, timeout=5) == 1
    assert cache.get_or_load("k", lambda: 2, timeout=5) == 1
    assert cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 3), timeout=5) == {"k": 1, "l": 3}
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("z", lambda: 1 / 0, timeout=5)
    assert run(cache.aio.get_or_load("m", lambda: 4, timeout="5s")) == 4


@pytest.mark.parametrize("timeout", [0, -1, "soon", float("nan"), True])
def test_timeout_that_cannot_work_is_refused(cache: Cache[object, object], timeout: object) -> None:
    """L6: a timeout of zero, less, or none at all raises at once, and nothing is loaded."""
    loader = HeldLoader()
    with pytest.raises(ConfigurationError, match="timeout"):
        cache.get_or_load("k", loader, timeout=timeout)  # type: ignore[arg-type]
    assert loader.calls == 0
