"""Bulk loads that fail, and callers that leave them: what L2, L3 and L5 mean for L9."""

import asyncio
import threading
from collections.abc import Iterator, Mapping

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    callers_of,
    gather_errors,
    results,
    run,
    turns,
    until,
    until_callers,
    wait_for_callers,
)

from credenza import Cache, UsageError
from credenza.testing import FakeClock

Keys = list[object]


class Batch:
    """A batch loader that notes what it is asked for."""

    def __init__(self, *missing: object) -> None:
        self.asked: list[Keys] = []
        self.missing = missing

    def __call__(self, keys: Keys) -> dict[object, object]:
        self.asked.append(list(keys))
        return {key: f"value {key}" for key in keys if key not in self.missing}

    async def as_coroutine(self, keys: Keys) -> dict[object, object]:
        await asyncio.sleep(0)
        return self(keys)


def values(*keys: object) -> dict[object, object]:
    return {key: f"value {key}" for key in keys}


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Cache[object, object]:
    """A cache on that clock."""
    return Cache(clock=clock, ttl=10, jitter=0)


# Errors ---------------------------------------------------------------------------------------------------------------


def test_batch_loader_that_raises_fails_all_its_keys_and_blocks_none(cache: Cache[object, object]) -> None:
    """L2, L3: bulk callers and single waiters get the error, each a copy; nothing is stored; the next call loads."""
    batch = HeldLoader(OSError("down"))
    calls = [Call(lambda: cache.get_or_load_many([1, 2], batch))]
    wait_for_callers(cache, 1, 1)
    calls += [Call(lambda key=key: cache.get_or_load(key, lambda: "never")) for key in (1, 2)]  # type: ignore[misc,list-item]
    calls.append(Call(lambda: cache.get_or_load_many([2, 3], Batch())))
    wait_for_callers(cache, 2, 3)
    batch.release()
    errors = [call.error() for call in calls]
    assert {(type(error), str(error)) for error in errors} == {(OSError, "down")}
    assert len({id(error) for error in errors}) == 4
    assert [key in cache for key in (1, 2, 3)] == [False, False, True]
    assert cache.get_or_load_many([1, 2], Batch()) == values(1, 2)


def test_error_of_a_joined_load_is_the_calls_error(cache: Cache[object, object]) -> None:
    """L9: one key's error is the error of the bulk call; what was loaded for the others is kept."""
    loader = HeldLoader(OSError("down"))
    single = Call(lambda: cache.get_or_load(1, loader))
    wait_for_callers(cache, 1, 1)
    bulk = Call(lambda: cache.get_or_load_many([2, 1, 3], Batch()))
    wait_for_callers(cache, 1, 2)
    loader.release()
    assert isinstance(bulk.error(), OSError)
    assert isinstance(single.error(), OSError)
    assert cache.get_many([1, 2, 3]) == values(2, 3)


class Odd(Mapping[object, object]):
    """A mapping that breaks while it is read."""

    def __init__(self, *, breaks_on: str) -> None:
        self.breaks_on = breaks_on

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[object]:
        return iter([1, 2])

    def __contains__(self, key: object) -> bool:
        if self.breaks_on == "in":
            raise ZeroDivisionError
        return True

    def __getitem__(self, key: object) -> object:
        if key == 2 and self.breaks_on == "[]":
            raise ZeroDivisionError
        return key


@pytest.mark.parametrize("result", [None, [1, 2], "text", 5, Odd(breaks_on="in"), Odd(breaks_on="[]")])
def test_batch_loader_with_a_wrong_result_fails_the_call_and_blocks_nobody(
    cache: Cache[object, object], result: object
) -> None:
    """L3, L9: what is no mapping, or breaks when it is read, is an error; the next call loads anew."""
    call = Call(lambda: cache.get_or_load_many([1, 2], lambda keys: result))  # type: ignore[arg-type,return-value]
    assert isinstance(call.error(), ZeroDivisionError if isinstance(result, Odd) else UsageError)
    assert Call(lambda: cache.get_or_load_many([1, 2], Batch())).result() == values(1, 2)
    assert Call(lambda: cache.get_or_load(2, lambda: "never")).result() == "value 2"


def test_interrupted_bulk_load_makes_a_waiter_lead(cache: Cache[object, object]) -> None:
    """L2: KeyboardInterrupt is the bulk leader's alone; those who joined load for themselves."""
    held = HeldLoader(KeyboardInterrupt())
    leader = Call(lambda: cache.get_or_load_many([1, 2, 3], held))
    wait_for_callers(cache, 3, 1)
    batch = Batch()
    bulk = Call(lambda: cache.get_or_load_many([1, 2], batch))
    single = Call(lambda: cache.get_or_load(3, lambda: "single"))
    wait_for_callers(cache, 2, 2)
    wait_for_callers(cache, 3, 2)
    held.release()
    assert isinstance(leader.error(), KeyboardInterrupt)
    assert bulk.result() == values(1, 2)
    assert single.result() == "single"


# Leaving --------------------------------------------------------------------------------------------------------------


def test_cancelled_bulk_leader_is_not_noticed(cache: Cache[object, object]) -> None:
    """L5: the bulk caller leaves, and those who joined some of its keys get their values from the same load."""

    async def main() -> None:
        held = HeldAsyncLoader(values(1, 2, 3))
        leader = asyncio.create_task(cache.aio.get_or_load_many([1, 2, 3], held))
        await until_callers(cache, 3, 1)
        single = asyncio.create_task(cache.aio.get_or_load(2, HeldAsyncLoader()))
        await until_callers(cache, 2, 2)
        leader.cancel()
        await gather_errors(leader)
        await turns()
        assert held.cancelled == 0
        assert callers_of(cache, 2) == 1
        held.release()
        assert await single == "value 2"
        assert held.calls == 1
        assert cache.get_many([1, 2, 3]) == values(1, 2, 3)

    run(main())


def test_bulk_load_that_all_left_is_cancelled(cache: Cache[object, object]) -> None:
    """L5: when nobody waits for any of its keys the loader sees `CancelledError`, and the next calls load anew."""

    async def main() -> None:
        held = HeldAsyncLoader()
        tasks = [asyncio.create_task(cache.aio.get_or_load_many([1, 2], held))]
        await until_callers(cache, 2, 1)
        tasks.append(asyncio.create_task(cache.aio.get_or_load_many([2], held)))
        await until_callers(cache, 2, 2)
        for task in tasks:
            task.cancel()
        await gather_errors(*tasks)
        await until(lambda: held.cancelled == 1, "the loader is cancelled")
        assert await cache.aio.get_or_load_many([1, 2], Batch().as_coroutine) == values(1, 2)

    run(main())


def test_bulk_waiter_that_leaves_takes_its_hands_off_every_key(cache: Cache[object, object]) -> None:
    """L5: a bulk call that joined several flights and fails on one is counted out of the others."""
    failing, slow = HeldLoader(OSError("down")), HeldLoader()
    calls = [Call(lambda: cache.get_or_load(1, failing)), Call(lambda: cache.get_or_load(2, slow))]
    wait_for_callers(cache, 1, 1)
    wait_for_callers(cache, 2, 1)
    bulk = Call(lambda: cache.get_or_load_many([1, 2], Batch()))
    wait_for_callers(cache, 2, 2)
    failing.release()
    assert isinstance(bulk.error(), OSError)
    wait_for_callers(cache, 2, 1)
    slow.release()
    assert calls[1].result() == "value"
    calls[0].error()


def test_overlapping_bulk_calls_in_any_order_end(cache: Cache[object, object]) -> None:
    """L9, L7: many bulk calls over the same keys in different orders neither deadlock nor load a key twice."""
    batch, lock = Batch(), threading.Lock()
    barrier = threading.Barrier(8)

    def loader(keys: Keys) -> dict[object, object]:
        with lock:
            return batch(keys)

    def call(shift: int) -> dict[object, object]:
        barrier.wait(10)
        return cache.get_or_load_many([(shift * 3 + number) % 20 for number in range(12)], loader)

    for got in results([Call(lambda n=n: call(n)) for n in range(8)]):  # type: ignore[misc]
        assert got == values(*got)
        assert len(got) == 12
    asked = [key for keys in batch.asked for key in keys]
    assert len(asked) == len(set(asked))
