"""One load per key whoever asks: threads, tasks, several event loops, single and bulk calls together (L1, L5, L8)."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    LoopThread,
    loops,
    results,
    run,
    until_callers,
    wait_for_callers,
    wait_until,
)

from credenza import Cache
from credenza.testing import FakeClock

EVERYBODY = 232


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let what a dead loop leaves behind be collected within the test that it belongs to."""
    yield
    gc.collect()


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache whose clock stands still."""
    return Cache(clock=FakeClock(), jitter=0)


@pytest.mark.parametrize("leader", ["thread", "task"])
def test_32_threads_and_200_tasks_on_4_loops_load_once(cache: Cache[object, object], leader: str) -> None:
    """L1: 32 threads and 200 tasks on 4 event loops that ask for one key make one load, whoever came first."""
    plain, coroutine = HeldLoader(), HeldAsyncLoader()
    with loops(4) as running:

        def start_task(number: int) -> Future[object]:
            return running[number % 4].submit(cache.aio.get_or_load("k", coroutine))

        first: Call[object] | Future[object]
        first = Call(lambda: cache.get_or_load("k", plain)) if leader == "thread" else start_task(0)
        wait_for_callers(cache, "k", 1)
        threads = [Call(lambda: cache.get_or_load("k", plain)) for _ in range(31 + (leader == "task"))]
        tasks = [start_task(number) for number in range(199 + (leader == "thread"))]
        wait_for_callers(cache, "k", EVERYBODY)
        plain.release()
        coroutine.release()
        assert [call.result(10) for call in tasks] == ["value"] * len(tasks)
        assert results(threads) == ["value"] * len(threads)
        assert (first.result(10) if isinstance(first, Future) else first.result()) == "value"
    assert plain.calls + coroutine.calls == 1
    assert cache.stats().joins == EVERYBODY - 1


def test_everybody_at_once_without_an_order_loads_once(cache: Cache[object, object]) -> None:
    """L1: the same in a free-for-all, in several rounds, with a loader that does not wait."""
    calls: list[str] = []

    async def coroutine() -> str:
        calls.append("task")
        return "value"

    def plain() -> str:
        calls.append("thread")
        return "value"

    with loops(4) as running:
        for key in range(5):
            tasks = [running[number % 4].submit(cache.aio.get_or_load(key, coroutine)) for number in range(200)]
            threads = [Call(lambda key=key: cache.get_or_load(key, plain)) for _ in range(32)]  # type: ignore[misc]
            assert results(threads) == ["value"] * 32
            assert [task.result(10) for task in tasks] == ["value"] * 200
            assert len(calls) == key + 1


def test_bulk_calls_of_both_faces_and_single_calls_load_each_key_once(cache: Cache[object, object]) -> None:
    """L1, L9: overlapping bulk and single calls of threads and tasks ask for each key once."""
    asked: list[object] = []
    held = HeldLoader()

    def plain_batch(keys: list[object]) -> dict[object, object]:
        asked.extend(keys)
        held()
        return {key: f"value {key}" for key in keys}

    async def batch(keys: list[object]) -> dict[object, object]:
        return await asyncio.to_thread(plain_batch, keys)

    with loops(2) as running:
        first = Call(lambda: cache.get_or_load_many([1, 2], plain_batch))
        wait_for_callers(cache, 2, 1)
        second = running[0].submit(cache.aio.get_or_load_many([2, 3], batch))
        wait_for_callers(cache, 3, 1)
        third = running[1].submit(cache.aio.get_or_load_many([1, 2, 3, 4], batch))
        wait_for_callers(cache, 4, 1)
        singles = [Call(lambda key=key: cache.get_or_load(key, lambda: "single")) for key in (1, 2, 3, 4)]  # type: ignore[misc]
        for key, count in ((1, 3), (2, 4), (3, 3), (4, 2)):
            wait_for_callers(cache, key, count)
        held.release()
        assert first.result() == {1: "value 1", 2: "value 2"}
        assert second.result(10) == {2: "value 2", 3: "value 3"}
        assert third.result(10) == {key: f"value {key}" for key in (1, 2, 3, 4)}
        assert results(singles) == [f"value {key}" for key in (1, 2, 3, 4)]
    assert sorted(asked) == [1, 2, 3, 4]  # type: ignore[type-var]


@pytest.mark.parametrize("error", [OSError("down"), ValueError("odd", 3)], ids=repr)
def test_error_of_a_tasks_load_reaches_threads_and_other_loops(cache: Cache[object, object], error: Exception) -> None:
    """L2: the exception crosses loops and threads with its type and arguments."""
    loader = HeldAsyncLoader(error)
    with loops(2) as running:
        tasks = [running[number % 2].submit(cache.aio.get_or_load("k", loader)) for number in range(10)]
        wait_for_callers(cache, "k", 10)
        threads = [Call(lambda: cache.get_or_load("k", lambda: "never")) for _ in range(5)]
        wait_for_callers(cache, "k", 15)
        loader.release()
        errors = [task.exception(10) for task in tasks] + [thread.error() for thread in threads]
    assert {(type(got), got.args) for got in errors if got is not None} == {(type(error), error.args)}
    assert len({id(got) for got in errors}) == 15
    assert loader.calls == 1


def test_two_loops_one_after_another_use_one_cache(cache: Cache[object, object]) -> None:
    """L1: nothing in the cache is bound to the first event loop that used it."""
    loader = HeldAsyncLoader(lambda number: number)
    loader.release()
    for number in (1, 2, 3):
        assert run(cache.aio.get_or_load(f"k{number}", loader)) == number
        assert run(cache.aio.get_or_load(f"k{number}", loader)) == number


# Loops that die -------------------------------------------------------------------------------------------------------


def test_loop_that_dies_while_loading_hands_over_to_a_thread(cache: Cache[object, object]) -> None:
    """L3, L5: a thread that waits for a task of a loop that stopped and was closed becomes the leader."""
    loop, loader = LoopThread(), HeldAsyncLoader()
    loop.submit(cache.aio.get_or_load("k", loader))
    loader.wait_until_called()
    waiters = [Call(lambda: cache.get_or_load("k", lambda: "mine")) for _ in range(4)]
    wait_for_callers(cache, "k", 5)
    loop.die()
    assert results(waiters) == ["mine"] * 4


def test_loop_that_dies_while_loading_hands_over_to_another_loop(cache: Cache[object, object]) -> None:
    """L3, L5: a task of another loop becomes the leader."""
    loop, loader = LoopThread(), HeldAsyncLoader(lambda number: number)
    loop.submit(cache.aio.get_or_load("k", loader))
    loader.wait_until_called()
    with loops(1) as (other,):
        waiters = [other.submit(cache.aio.get_or_load("k", loader)) for _ in range(4)]
        wait_for_callers(cache, "k", 5)
        loop.die()
        wait_until(lambda: loader.calls == 2, "a waiter leads")
        loader.release()
        assert [waiter.result(10) for waiter in waiters] == [2] * 4


def test_loop_that_died_before_does_not_hold_up_a_newcomer(cache: Cache[object, object]) -> None:
    """L3: nobody waits for a load whose loop is gone, neither a thread nor a task, single or bulk."""
    loader = HeldAsyncLoader()
    for key in ("thread", "task", "bulk", "one of two"):
        loop = LoopThread()
        if key == "one of two":
            loop.submit(cache.aio.get_or_load_many([key, "other"], loader))
        else:
            loop.submit(cache.aio.get_or_load(key, loader))
        wait_for_callers(cache, key, 1)
        loop.die()
    assert Call(lambda: cache.get_or_load("thread", lambda: "new")).result() == "new"
    assert run(cache.aio.get_or_load("task", lambda: "new")) == "new"
    new = Call(lambda: cache.get_or_load_many(["bulk", "one of two", "other"], lambda keys: dict.fromkeys(keys, "new")))
    assert new.result() == {"bulk": "new", "one of two": "new", "other": "new"}


def test_loop_that_ends_properly_cancels_its_loads(cache: Cache[object, object]) -> None:
    """L2, L5: `asyncio.run` cancels what is left at its end; a thread that waits for it leads the next load."""
    loader = HeldAsyncLoader()
    waiters: list[Call[object]] = []

    async def main() -> None:
        task = asyncio.create_task(cache.aio.get_or_load("k", loader))
        await until_callers(cache, "k", 1)
        waiters.extend(Call(lambda: cache.get_or_load("k", lambda: "mine")) for _ in range(4))
        await until_callers(cache, "k", 5)
        assert not task.done()

    asyncio.run(main())
    assert loader.cancelled == 1
    assert results(waiters) == ["mine"] * 4


def test_loop_that_pauses_goes_on_with_its_load(cache: Cache[object, object]) -> None:
    """L1: a loop between two `run_until_complete` calls is not dead for the tasks that come back to it."""
    loader = HeldAsyncLoader()
    with asyncio.Runner() as runner:

        async def begin() -> asyncio.Task[object]:
            task = asyncio.create_task(cache.aio.get_or_load("k", loader))
            await until_callers(cache, "k", 1)
            return task

        async def finish(task: "asyncio.Task[object]") -> list[object]:
            joined = asyncio.create_task(cache.aio.get_or_load("k", loader))
            await until_callers(cache, "k", 2)
            loader.release()
            return await asyncio.gather(task, joined)

        assert runner.run(finish(runner.run(begin()))) == ["value"] * 2
    assert loader.calls == 1


def test_waiting_loop_that_dies_is_not_noticed_by_others(cache: Cache[object, object]) -> None:
    """L5: a thread's load ends well although some of its waiters are on a loop that is gone."""
    loader = HeldLoader()
    leader = Call(lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 1)
    loop = LoopThread()
    loop.submit(cache.aio.get_or_load("k", loader))
    wait_for_callers(cache, "k", 2)
    loop.die()
    loader.release()
    assert leader.result() == "value"
    assert cache.get("k") == "value"


def test_loop_that_dies_leaves_no_noise(cache: Cache[object, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: collecting the load of a loop that is gone raises nothing into the void."""
    noise: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: noise.append(unraisable.exc_value))
    for _ in range(3):
        loop = LoopThread()
        loop.submit(cache.aio.get_or_load("k", HeldAsyncLoader()))
        wait_for_callers(cache, "k", 1)
        loop.die()
        del loop
        assert run(cache.aio.get_or_load("k", lambda: "new")) == "new"
        cache.invalidate("k")
        gc.collect()
    assert noise == []
