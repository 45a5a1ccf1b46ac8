"""Limits of loads: `load_timeout` and `soft_timeout`."""

import asyncio

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    gather_errors,
    run,
    turns,
    until,
    wait_for_callers,
    wait_until,
)

from credenza import Cache, LoadTimeout
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


# load_timeout ---------------------------------------------------------------------------------------------------------


def test_load_past_load_timeout_fails_for_everyone() -> None:
    """`load_timeout`: leader and waiters get `LoadTimeout` from one load, and its late value is not stored."""
    cache: Cache[str, object] = Cache(load_timeout=0.3)
    loader = HeldLoader("too late")
    calls = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(5)]
    wait_for_callers(cache, "k", 5)
    assert {type(call.error()) for call in calls} == {LoadTimeout}
    assert cache.get_or_load("k", lambda: "new") == "new"
    loader.release()
    assert loader.calls == 1
    wait_until(lambda: cache.stats().flights == 0, "the load is over")
    assert cache.get("k") == "new"
    assert cache.stats().load_failures == 1


def test_async_load_past_load_timeout_is_cancelled() -> None:
    """`load_timeout`: tasks get `LoadTimeout`, not `CancelledError`, and the loader is cancelled."""

    async def main() -> None:
        cache: Cache[str, object] = Cache(load_timeout=0.1)
        loader = HeldAsyncLoader()
        errors = await gather_errors(*(cache.aio.get_or_load("k", loader) for _ in range(5)))
        assert {type(error) for error in errors} == {LoadTimeout}
        await until(lambda: loader.cancelled == 1, "the loader is cancelled")
        loader.release()
        assert await cache.aio.get_or_load("k", loader) == "value"

    run(main())


def test_load_timeout_reached_in_the_turn_of_its_start_ends_the_load() -> None:
    """`load_timeout`, L3: a load whose time is over before its task had its first turn ends like any other."""

    async def main() -> None:
        clock = FakeClock()
        cache: Cache[str, object] = Cache(clock=clock, load_timeout=5)
        loader = HeldAsyncLoader()

        async def late() -> object:
            clock.advance(6)
            return await cache.aio.get_or_load("k", lambda: "new")

        first = asyncio.create_task(cache.aio.get_or_load("k", loader))
        second = asyncio.create_task(late())
        assert await second == "new"
        await gather_errors(first)
        await until(lambda: loader.cancelled == 1, "the loader is cancelled")

    run(main())


def test_newcomer_after_load_timeout_does_not_join(clock: FakeClock) -> None:
    """`load_timeout`: by the cache's clock the load is over, so a newcomer loads at once."""
    cache: Cache[str, object] = Cache(clock=clock, load_timeout=5)
    loader = HeldLoader("too late")
    leader = Call(lambda: cache.get_or_load("k", loader))
    loader.wait_until_called()
    clock.advance(6)
    assert cache.get_or_load("k", lambda: "new") == "new"
    wait_until(lambda: leader.is_done, "the leader is told, by an error or with the newer value")
    loader.release()
    assert cache.get("k") == "new"


def test_stale_value_stands_in_after_load_timeout(clock: FakeClock) -> None:
    """`load_timeout`: a load that takes too long is a failed one, for which `stale_if_error` has the stale value."""
    cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, load_timeout=SOON, stale_if_error=60)
    cache.set("k", "old")
    clock.advance(11)
    loader = HeldLoader()
    assert cache.fetch("k", loader).status == "stale"
    loader.release()


# soft_timeout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["stale_if_error", "stale_while_revalidate"])
def test_soft_timeout_serves_the_stale_value_and_lets_the_load_go_on(clock: FakeClock, window: str) -> None:
    """`soft_timeout`: with a stale value at hand a slow load is waited for this long; its value serves others."""
    cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, soft_timeout=SOON, **{window: 60})  # type: ignore[arg-type]
    cache.set("k", "old")
    clock.advance(11)
    loader = HeldLoader("new")
    fetched = cache.fetch("k", loader)
    assert (fetched.value, fetched.status) == ("old", "stale")
    assert (cache.fetch("k", loader).value, loader.calls) == ("old", 1)
    loader.release()
    wait_until(lambda: cache.get("k") == "new", "the new value is stored")
    assert loader.calls == 1


def test_soft_timeout_of_tasks_serves_the_stale_value_and_lets_the_load_go_on() -> None:
    """`soft_timeout`: the same in the async face; the load is not cancelled although nobody waits for it."""

    async def main() -> None:
        clock = FakeClock()
        cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, soft_timeout=SOON, stale_if_error=60)
        cache.set("k", "old")
        clock.advance(11)
        loader = HeldAsyncLoader("new")
        calls = [cache.aio.fetch("k", loader) for _ in range(5)]
        assert {(one.value, one.status) for one in await asyncio.gather(*calls)} == {("old", "stale")}
        with pytest.raises(LoadTimeout):  # one who joins that load and leaves does not take it along
            await cache.aio.fetch("k", loader, soft_timeout=5, timeout=SOON)
        await turns()
        loader.release()
        await until(lambda: cache.get("k") == "new", "the new value is stored")
        assert (loader.calls, loader.cancelled) == (1, 0)

    run(main())


def test_soft_timeout_without_a_stale_value_waits_for_the_load(clock: FakeClock) -> None:
    """`soft_timeout`: with nothing at hand there is nothing to serve, so the caller waits."""
    cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, soft_timeout=SOON, stale_if_error=60)
    loader = HeldLoader("new")
    caller = Call(lambda: cache.fetch("k", loader, timeout=5))
    hasty = Call(lambda: cache.fetch("k", loader, timeout=0.2))
    assert isinstance(hasty.error(), LoadTimeout)
    loader.release()
    assert caller.result().value == "new"


def test_load_within_soft_timeout_is_returned(clock: FakeClock) -> None:
    """`soft_timeout`: a load that is quick enough is what the caller gets."""
    cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, soft_timeout=5, stale_if_error=60)
    cache.set("k", "old")
    clock.advance(11)
    assert cache.get_or_load("k", lambda: "new") == "new"
