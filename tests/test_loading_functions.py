"""The loading rules for decorated functions, whose misses may take a shorter way: L1-L5, L7, L8 and L10."""

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.waiting import (
    Call,
    HeldLoader,
    results,
    start_together,
    wait_for_callers,
)
from tests.support.ways import WAYS, decorated

from credenza import Cache, DeadlockError, Loaded, NotFound
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


def test_many_threads_load_once(cache: Cache[Any, Any], way: str) -> None:
    """L1, L8: 32 threads make one load; the value is there when the first of them returns."""
    loader = HeldLoader()
    read = decorated(cache, way, loader)
    calls = start_together(32, lambda: (read(1), read.peek(1)))
    wait_for_callers(cache, read.key_for(1), 32)
    loader.release()
    assert results(calls) == [("value", "value")] * 32
    assert loader.calls == 1
    stats = cache.stats()
    assert (stats.loads, stats.stores, stats.misses, stats.joins, stats.flights) == (1, 1, 1, 31, 0)
    assert read.cache_info()[:2] == (0, 32)


def test_error_reaches_all_threads_at_once(cache: Cache[Any, Any], way: str) -> None:
    """L2, L3: one failing load; each caller has its own error; the next call loads."""
    loader = HeldLoader(OSError(5, "down"))
    read = decorated(cache, way, loader)
    calls = start_together(8, lambda: read(1))
    wait_for_callers(cache, read.key_for(1), 8)
    loader.release()
    errors = [call.error() for call in calls]
    assert {(type(error), error.args) for error in errors} == {(OSError, (5, "down"))}
    assert len({id(error) for error in errors}) == 8
    assert (loader.calls, cache.stats().load_failures) == (1, 1)
    loader.value = "fine"
    assert read(1) == "fine"


@pytest.mark.parametrize(
    "error", [NotFound("nobody"), StopIteration(), ZeroDivisionError(), KeyboardInterrupt()], ids=repr
)
def test_error_leaves_the_key_free(cache: Cache[Any, Any], way: str, error: BaseException) -> None:
    """L3: whatever a function raises, the next call runs it again."""
    loader = HeldLoader(error)
    loader.release()
    read = decorated(cache, way, loader)
    for _ in range(2):
        with pytest.raises((type(error), RuntimeError)):  # PEP 479 makes the one of the other
            read(1)
    loader.value = "fine"
    assert Call(lambda: read(1)).result() == "fine"
    assert loader.calls == 3


def test_interrupted_leader_makes_a_waiter_lead(cache: Cache[Any, Any], way: str) -> None:
    """L2: KeyboardInterrupt is the leader's alone."""

    def outcome(number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return number

    loader = HeldLoader(outcome)
    read = decorated(cache, way, loader)
    leader = Call(lambda: read(1))
    wait_for_callers(cache, read.key_for(1), 1)
    waiters = [Call(lambda: read(1)) for _ in range(4)]
    wait_for_callers(cache, read.key_for(1), 5)
    loader.release()
    assert isinstance(leader.error(), KeyboardInterrupt)
    assert results(waiters) == [2] * 4


@pytest.mark.parametrize(
    "result",
    [Loaded(1, tags=5), Loaded(1, ttl="soon")],
    ids=["tags", "ttl"],  # type: ignore[arg-type]
)
def test_wrong_loaded_blocks_nobody(cache: Cache[Any, Any], way: str, result: object) -> None:
    """L3: a `Loaded` that cannot be understood fails the call, and the next one works."""
    loader = HeldLoader(result)
    loader.release()
    read = decorated(cache, way, loader)
    with pytest.raises((TypeError, ValueError)):
        read(1)
    loader.value = Loaded("fine", tags=["t"], ttl=5)
    assert Call(lambda: read(1)).result() == "fine"
    cache.invalidate_tags("t")
    assert read.peek(1) is None


def test_function_that_asks_for_its_own_result_raises(cache: Cache[Any, Any], way: str) -> None:
    """L7: direct recursion to the same arguments raises; through another key, too."""
    read = decorated(cache, way, lambda number: read(number))
    assert isinstance(Call(lambda: read(1)).error(), DeadlockError)
    turn = decorated(cache, way, lambda number: turn(1 - number))
    assert isinstance(Call(lambda: turn(1)).error(), DeadlockError)
    by_hand = decorated(cache, way, lambda number: cache.get_or_load("k", lambda: by_hand(number)))
    assert isinstance(Call(lambda: by_hand(1)).error(), DeadlockError)
    assert cache.stats().flights == 0


def test_functions_in_a_circle_of_threads_all_end(cache: Cache[Any, Any], way: str) -> None:
    """L7: two threads whose functions need each other's results are told."""
    barrier = threading.Barrier(2)

    def loader(number: int) -> object:
        barrier.wait(10)
        return read(1 - number)

    read = decorated(cache, way, loader)
    calls = [Call(lambda number=number: read(number)) for number in range(2)]  # type: ignore[misc]
    assert {type(call.error()) for call in calls} == {DeadlockError}


def test_function_sees_the_callers_variables_and_leaves_them(cache: Cache[Any, Any], way: str) -> None:
    """L10: it runs in a copy of its caller's context."""
    token = user.set("ann")

    def loader(_number: int) -> str:
        was = user.get()
        user.set("the function")
        return was

    assert decorated(cache, way, loader)(1) == "ann"
    assert user.get() == "ann"
    user.reset(token)


def test_invalidated_while_it_runs_is_not_kept(cache: Cache[Any, Any], way: str) -> None:
    """I1, I2: the value of a load that was overtaken by `invalidate`, `clear` or `set` reaches its caller only."""
    loader = HeldLoader(lambda number: number)
    read = decorated(cache, way, loader)
    overtakers: list[Callable[[], None]] = [
        lambda: read.invalidate(1),
        cache.clear,
        read.cache_clear,
        lambda: cache.invalidate(read.key_for(1)),
    ]
    for number, overtake in enumerate(overtakers, start=1):
        loader.hold()
        old = Call(lambda: read(1))
        wait_for_callers(cache, read.key_for(1), 1)
        overtake()
        loader.release()
        assert old.result() == 2 * number - 1
        assert read.peek(1) is None
        assert read(1) == 2 * number
        read.invalidate(1)
