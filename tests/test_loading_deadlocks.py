"""What would deadlock raises instead: loaders that ask for what waits for them (L7)."""

import asyncio
import contextvars
import threading
from collections.abc import Callable

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    gather_errors,
    loops,
    run,
    wait_for_callers,
)

from credenza import Cache, CacheError, DeadlockError


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache with the defaults."""
    return Cache()


def outcome(call: Call[object]) -> object:
    """Return what a call returned, or the type of what it raised."""
    try:
        return call.result()
    except CacheError as error:
        return type(error)


# A loader that asks for its own key ----------------------------------------------------------------------------------


def test_loader_that_asks_for_its_own_key_raises(cache: Cache[object, object]) -> None:
    """L7: the error names the key and says what to do, and the key is free afterwards."""

    def loader() -> object:
        return cache.get_or_load("k", lambda: 1)

    error = Call(lambda: cache.get_or_load("k", loader)).error()
    assert isinstance(error, DeadlockError)
    assert isinstance(error, RuntimeError)
    assert error.key == "k"
    assert "'k'" in str(error)
    assert "__wrapped__" in str(error)
    assert cache.get_or_load("k", lambda: 1) == 1


def test_async_loader_that_asks_for_its_own_key_raises(cache: Cache[object, object]) -> None:
    """L7: the same with tasks, directly and from a task that the loader starts."""

    async def directly() -> object:
        return await cache.aio.get_or_load("k", lambda: 1)

    async def in_a_task() -> object:
        return await asyncio.create_task(directly())

    async def main() -> None:
        for loader in (directly, in_a_task):
            with pytest.raises(DeadlockError):
                await cache.aio.get_or_load("k", loader)
        assert await cache.aio.get_or_load("k", lambda: 1) == 1

    run(main())


@pytest.mark.parametrize("timeout", [None, 5])
def test_every_way_to_ask_for_ones_own_key_raises(cache: Cache[object, object], timeout: float | None) -> None:
    """L7: bulk in single, single in bulk, bulk in bulk, in a worker thread with a deadline, and by the other face."""

    def single() -> object:
        return cache.get_or_load("k", lambda: 1)

    def bulk(*_: object) -> object:
        return cache.get_or_load_many(["j", "k"], lambda keys: dict.fromkeys(keys, 1))

    def other_face(*_: object) -> object:
        return asyncio.run(_own_key(cache))

    calls: list[Callable[[], object]] = [
        lambda: cache.get_or_load("k", bulk, timeout=timeout),
        lambda: cache.get_or_load_many(["j", "k"], lambda keys: {"k": single()}, timeout=timeout),
        lambda: cache.get_or_load_many(["k", "l"], bulk, timeout=timeout),
        lambda: cache.get_or_load("k", other_face, timeout=timeout),
    ]
    for call in calls:
        assert isinstance(Call(call).error(), DeadlockError)
    assert cache.get_or_load("k", lambda: 1, timeout=5) == 1


async def _own_key(cache: Cache[object, object]) -> object:
    return await cache.aio.get_or_load("k", lambda: 1)


def test_recursive_function_works_until_it_asks_for_itself(cache: Cache[object, object]) -> None:
    """L7: recursion to other arguments is fine, to the same arguments it raises."""

    @cache.cached
    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    @cache.cached
    def endless(number: int) -> int:
        return endless(number % 3 + 1)

    assert fibonacci(30) == 832_040
    assert isinstance(Call(lambda: endless(1)).error(), DeadlockError)
    assert cache.stats().flights == 0


def test_loader_that_catches_the_deadlock_goes_on(cache: Cache[object, object]) -> None:
    """L7: `DeadlockError` is an exception like any other to the loader that gets it."""

    def loader() -> object:
        try:
            return cache.get_or_load("k", lambda: 1)
        except DeadlockError:
            return "without"

    assert Call(lambda: cache.get_or_load("k", loader)).result() == "without"
    assert cache.get("k") == "without"


def test_same_key_in_another_cache_is_no_deadlock(cache: Cache[object, object]) -> None:
    """L7: layers of caches may use the same keys."""
    inner: Cache[object, object] = Cache()
    assert Call(lambda: cache.get_or_load("k", lambda: inner.get_or_load("k", lambda: 1))).result() == 1


def test_thread_in_the_loaders_context_that_asks_for_its_key_raises(cache: Cache[object, object]) -> None:
    """L7: a helper thread that runs in a copy of the loader's context belongs to the loader."""

    def loader() -> object:
        context = contextvars.copy_context()
        return Call(lambda: context.run(cache.get_or_load, "k", lambda: 1)).result()

    assert isinstance(Call(lambda: cache.get_or_load("k", loader)).error(), DeadlockError)


# Loaders that ask for each other's keys ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_loaders_in_a_circle_of_threads_all_end(cache: Cache[object, object], count: int) -> None:
    """L7: each loader asks for the next one's key: at least one is told, and nobody hangs."""
    barrier = threading.Barrier(count)

    def loader(number: int) -> object:
        barrier.wait(10)
        return cache.get_or_load((number + 1) % count, lambda: "never")

    calls = [Call(lambda n=number: cache.get_or_load(n, lambda: loader(n))) for number in range(count)]  # type: ignore[misc]
    assert {outcome(call) for call in calls} == {DeadlockError}
    assert cache.get_or_load(0, lambda: 1) == 1


def test_loaders_in_a_circle_of_tasks_all_end(cache: Cache[object, object]) -> None:
    """L7: the same with tasks of one loop."""

    async def main() -> None:
        barrier = asyncio.Barrier(3)

        async def loader(number: int) -> object:
            await barrier.wait()
            return await cache.aio.get_or_load((number + 1) % 3, HeldAsyncLoader())

        errors = await gather_errors(*(cache.aio.get_or_load(n, lambda n=n: loader(n)) for n in range(3)))  # type: ignore[misc]
        assert {type(error) for error in errors} == {DeadlockError}

    run(main())


def test_loaders_in_a_circle_of_threads_tasks_and_loops_all_end(cache: Cache[object, object]) -> None:
    """L7: a thread, a task and a task of another loop ask for each other's keys."""
    barrier = threading.Barrier(3)

    async def task(key: str, following: str) -> object:
        async def loader() -> object:
            await asyncio.to_thread(barrier.wait, 10)
            return await cache.aio.get_or_load(following, HeldAsyncLoader())

        return await cache.aio.get_or_load(key, loader)

    def loader() -> object:
        barrier.wait(10)
        return cache.get_or_load("a", lambda: "never")

    with loops(2) as (one, two):
        tasks = [one.submit(task("a", "b")), two.submit(task("b", "c"))]
        thread = Call(lambda: cache.get_or_load("c", loader))
        assert isinstance(thread.error(), DeadlockError)
        assert {type(one.exception(10)) for one in tasks} == {DeadlockError}


def test_circle_through_bulk_loads_ends(cache: Cache[object, object]) -> None:
    """L7, L9: bulk loads that ask for one of each other's keys."""
    barrier = threading.Barrier(2)

    def loader(keys: list[object], wanted: str) -> dict[object, object]:
        barrier.wait(10)
        return {**dict.fromkeys(keys, 1), **cache.get_or_load_many([wanted], lambda keys: {})}

    first = Call(lambda: cache.get_or_load_many(["a", "b"], lambda keys: loader(keys, "d")))
    second = Call(lambda: cache.get_or_load_many(["c", "d"], lambda keys: loader(keys, "a")))
    assert {outcome(first), outcome(second)} == {DeadlockError}  # type: ignore[arg-type]


def test_third_parties_of_a_circle_end_too(cache: Cache[object, object]) -> None:
    """L7, L2: whoever merely waits for one of the keys gets an error as well, and no hang."""
    held = HeldLoader()

    def loader(other: str) -> object:
        held()
        return cache.get_or_load(other, lambda: "never")

    calls = [Call(lambda: cache.get_or_load("a", lambda: loader("b")))]
    calls.append(Call(lambda: cache.get_or_load("b", lambda: loader("a"))))
    held.wait_until_called(2)
    calls += [Call(lambda: cache.get_or_load("a", lambda: "never")) for _ in range(3)]
    wait_for_callers(cache, "a", 4)
    held.release()
    assert {outcome(call) for call in calls} == {DeadlockError}


def test_many_loads_that_wait_for_one_are_no_circle(cache: Cache[object, object]) -> None:
    """L7: a diamond of dependencies is fine; nobody is told of a deadlock that is none."""
    held = HeldLoader(1)
    shared = Call(lambda: cache.get_or_load("shared", held))
    wait_for_callers(cache, "shared", 1)
    calls = [Call(lambda n=n: cache.get_or_load(n, lambda: cache.get_or_load("shared", lambda: 2))) for n in range(8)]  # type: ignore[misc]
    wait_for_callers(cache, "shared", 9)
    top = Call(lambda: cache.get_or_load_many(range(8), lambda keys: {}))
    held.release()
    assert shared.result() == 1
    assert {call.result() for call in calls} == {1}
    assert top.result() == dict.fromkeys(range(8), 1)
