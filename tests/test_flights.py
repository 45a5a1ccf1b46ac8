"""`Flights`: one call per key at a time, without a cache."""

import asyncio
import threading

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
    start_together,
    until,
    until_callers,
    wait_for_callers,
    wait_until,
)

from credenza import ConfigurationError, DeadlockError, Flights, LoadTimeout, NotFound, UsageError


@pytest.fixture
def flights() -> Flights:
    """Flights with nobody on board."""
    return Flights()


def test_64_threads_share_one_call(flights: Flights) -> None:
    """L1: 64 threads that ask at once make one call."""
    value = object()
    function = HeldLoader(lambda _number: value)
    calls = start_together(64, lambda: flights.do("k", function))
    wait_for_callers(flights, "k", 64)
    assert len(flights) == 1
    function.release()
    assert results(calls) == [value] * 64
    assert function.calls == 1
    assert len(flights) == 0


def test_10_000_tasks_share_one_call(flights: Flights) -> None:
    """L1: 10,000 tasks that ask at once make one call."""

    async def main() -> None:
        function = HeldAsyncLoader()
        tasks = [asyncio.create_task(flights.aio.do("k", function)) for _ in range(10_000)]
        await until_callers(flights, "k", 10_000)
        function.release()
        assert set(await asyncio.gather(*tasks)) == {"value"}
        assert function.calls == 1

    run(main())


def test_threads_and_tasks_of_four_loops_share_one_call(flights: Flights) -> None:
    """L1: both faces join each other's calls, on several loops."""
    function, plain = HeldAsyncLoader(), HeldLoader()
    with loops(4) as running:
        tasks = [running[number % 4].submit(flights.aio.do("k", function)) for number in range(40)]
        wait_for_callers(flights, "k", 40)
        threads = [Call(lambda: flights.do("k", plain)) for _ in range(8)]
        wait_for_callers(flights, "k", 48)
        function.release()
        assert {task.result(10) for task in tasks} == {"value"}
        assert set(results(threads)) == {"value"}
    assert (function.calls, plain.calls) == (1, 0)


def test_nothing_is_kept_afterwards(flights: Flights) -> None:
    """A call that has ended is forgotten: the next one runs anew, whatever it returned."""
    function = HeldLoader(lambda number: number)
    function.release()
    assert [flights.do("k", function) for _ in range(3)] == [1, 2, 3]
    assert run(flights.aio.do("k", function)) == 4


@pytest.mark.parametrize("value", [None, 0, ValueError("a value"), ...], ids=repr)
def test_any_value_is_passed_on_as_it_is(flights: Flights, value: object) -> None:
    """A result of any kind is a result."""
    assert flights.do("k", lambda: value) is value


@pytest.mark.parametrize("error", [OSError(2, "down"), NotFound("nobody"), KeyError("k")], ids=repr)
def test_error_reaches_every_caller_as_a_copy(flights: Flights, error: Exception) -> None:
    """L2, L3: all see the one call's error at once; the next call works."""
    function = HeldLoader(error)
    calls = start_together(16, lambda: flights.do("k", function))
    wait_for_callers(flights, "k", 16)
    function.release()
    errors = [call.error() for call in calls]
    assert {(type(got), got.args) for got in errors} == {(type(error), error.args)}
    assert len({id(got) for got in errors}) == 16
    assert function.calls == 1
    assert flights.do("k", lambda: 1) == 1


def test_cancelled_caller_is_not_noticed(flights: Flights) -> None:
    """L5: the first caller is cancelled while 50 wait: they get the value of the same call."""

    async def main() -> None:
        function = HeldAsyncLoader()
        leader, *waiters = [asyncio.create_task(flights.aio.do("k", function)) for _ in range(51)]
        await until_callers(flights, "k", 51)
        leader.cancel()
        await gather_errors(leader)
        function.release()
        assert await asyncio.gather(*waiters) == ["value"] * 50
        assert function.calls == 1

    run(main())


def test_last_caller_that_leaves_cancels_the_call(flights: Flights) -> None:
    """L5: when all have left, the function sees `CancelledError`, and the next call runs anew."""

    async def main() -> None:
        function = HeldAsyncLoader(lambda number: number)
        tasks = [asyncio.create_task(flights.aio.do("k", function)) for _ in range(3)]
        await until_callers(flights, "k", 3)
        for task in tasks:
            task.cancel()
        await gather_errors(*tasks)
        await until(lambda: function.cancelled == 1, "the function is cancelled")
        function.release()
        assert await flights.aio.do("k", function) == 2

    run(main())


def test_caller_past_its_deadline_leaves(flights: Flights) -> None:
    """L6: both faces raise `LoadTimeout`; the call goes on for those who wait."""
    function = HeldLoader()
    other = Call(lambda: flights.do("k", function))
    wait_for_callers(flights, "k", 1)
    with pytest.raises(LoadTimeout) as caught:
        flights.do("k", function, timeout="20ms")
    assert caught.value.key == "k"
    with pytest.raises(LoadTimeout):
        run(flights.aio.do("k", function, timeout=0.02))
    assert callers_of(flights, "k") == 1
    function.release()
    assert other.result() == "value"
    assert function.calls == 1


def test_leader_past_its_deadline_leaves_its_call_running(flights: Flights) -> None:
    """L6: a lone leader leaves too; its call ends in a worker thread."""
    function = HeldLoader()
    with pytest.raises(LoadTimeout):
        flights.do("k", function, timeout=0.02)
    function.release()
    wait_until(lambda: len(flights) == 0, "the call ends")


def test_function_that_asks_for_its_own_key_raises(flights: Flights) -> None:
    """L7: neither face hangs."""
    assert isinstance(Call(lambda: flights.do("k", lambda: flights.do("k", lambda: 1))).error(), DeadlockError)

    async def own() -> object:
        return await flights.aio.do("k", lambda: 1)

    with pytest.raises(DeadlockError):
        run(flights.aio.do("k", own))
    assert flights.do("k", lambda: 1) == 1


def test_forgotten_call_is_not_joined_and_keeps_its_callers(flights: Flights) -> None:
    """`forget`: those who wait still get the result, and the next call runs anew beside it."""
    function = HeldLoader(lambda number: number)
    old = Call(lambda: flights.do("k", function))
    wait_for_callers(flights, "k", 1)
    flights.forget("k")
    new = Call(lambda: flights.do("k", function))
    function.wait_until_called(2)
    function.release()
    assert sorted([old.result(), new.result()]) == [1, 2]


def test_no_more_calls_than_allowed_run_at_once() -> None:
    """`max_concurrent_loads`: calls of different keys queue."""
    flights = Flights(max_concurrent_loads=2)
    lock, now, most = threading.Lock(), 0, 0
    held = HeldLoader()

    def function() -> object:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            return held()
        finally:
            with lock:
                now -= 1

    calls = [Call(lambda key=key: flights.do(key, function)) for key in range(8)]  # type: ignore[misc]
    wait_until(lambda: len(flights) == 8 and now == 2, "two run, the others queue")
    held.release()
    assert results(calls) == ["value"] * 8
    assert most == 2


def test_wrong_calls_raise_at_once(flights: Flights) -> None:
    """What cannot work is refused with a message that says what to do."""

    async def coroutine() -> int:
        return 1

    with pytest.raises(UsageError, match="aio"):
        flights.do("k", coroutine)
    with pytest.raises(UsageError, match="hashable"):
        flights.do(["k"], lambda: 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="callable"):
        flights.do("k", 5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="timeout"):
        flights.do("k", lambda: 1, timeout=0)
    with pytest.raises(ConfigurationError, match="max_concurrent_loads"):
        Flights(max_concurrent_loads=0)
    with pytest.raises(UsageError, match="pass the function"):
        run(flights.aio.do("k", coroutine()))  # type: ignore[arg-type]
