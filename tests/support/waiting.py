"""Staging callers: threads, tasks and loops that a test holds and lets go, with no sleep for a fixed time."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds that a condition may take on a slow machine, below the 20 s after which a test counts as hanging."""

_PAUSE = 0.001


def wait_until(condition: Callable[[], object], what: str, *, deadline: float = DEADLINE) -> None:
    """Return once the condition holds; fail if it does not come to hold."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"waited in vain: {what}"
        time.sleep(_PAUSE)


async def until(condition: Callable[[], object], what: str, *, deadline: float = DEADLINE) -> None:
    """Do as `wait_until` while the event loop goes on."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"waited in vain: {what}"
        await asyncio.sleep(_PAUSE)


async def turns(count: int = 5) -> None:
    """Let the event loop take a few turns."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run `main` in a new event loop; a task that is left over, or an error that nobody took, is a failure."""
    stray: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: stray.append(context))
        async with asyncio.timeout(DEADLINE):
            result = await main
        await _settle()
        return result

    with asyncio.Runner(debug=debug) as runner:
        result = runner.run(watched())
    assert not stray, f"errors that nobody took: {stray}"
    return result


async def _settle() -> None:
    def left() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    ends = time.monotonic() + DEADLINE / 5
    while left() and time.monotonic() < ends:
        await asyncio.sleep(_PAUSE)
    assert not left(), f"tasks left over: {left()}"


# Threads --------------------------------------------------------------------------------------------------------------


class Call(Generic[T]):
    """A call in a thread of its own. Daemon, so that a hang fails the test and not the whole run."""

    def __init__(self, function: Callable[[], T], *, name: str = "caller") -> None:
        self._function = function
        self._outcome: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._function())
        except BaseException as error:  # a test may want to look at a KeyboardInterrupt
            self._outcome.set_exception(error)

    @property
    def is_done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._outcome.done()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; fail if it does not end."""
        self._wait()
        error = self._outcome.exception()
        assert error is None or isinstance(error, Exception), f"the call was interrupted: {error!r}"
        return self._outcome.result()

    def error(self) -> BaseException:
        """Return what the call raised; fail if it did not."""
        self._wait()
        error = self._outcome.exception()
        assert error is not None, f"no error, but {self._outcome.result()!r}"
        return error

    def _wait(self) -> None:
        wait_until(lambda: self._outcome.done(), "the call in a thread ends")
        self._thread.join(DEADLINE)


def start_together(count: int, function: Callable[[], T]) -> list[Call[T]]:
    """Start `count` threads that call `function` at the same moment."""
    barrier = threading.Barrier(count)

    def call() -> T:
        barrier.wait(DEADLINE)
        return function()

    return [Call(call) for _ in range(count)]


def results(calls: Sequence[Call[T]]) -> list[T]:
    """Return what each of the calls returned."""
    return [call.result() for call in calls]


# Event loops ----------------------------------------------------------------------------------------------------------


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="event-loop", daemon=True)
        self._thread.start()
        wait_until(self.loop.is_running, "the event loop runs")

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a task on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def result(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a task on the loop to its end."""
        return self.submit(coroutine).result(DEADLINE)

    def die(self) -> None:
        """Stop the loop at once, and close it: its tasks are left as they are and never go on."""
        if not self.loop.is_closed():
            self.loop.set_exception_handler(lambda _loop, _context: None)  # it complains about tasks that never end
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(DEADLINE)
            assert not self._thread.is_alive(), "the event loop did not stop"
            self.loop.close()

    def stop(self) -> None:
        """Cancel the tasks of the loop, let them end, and close it."""
        if not self.loop.is_closed():
            self.submit(_cancel_all()).result(DEADLINE)
            self.die()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def loops(count: int) -> Iterator[list[LoopThread]]:
    """Run `count` event loops, each in a thread of its own."""
    made = [LoopThread() for _ in range(count)]
    try:
        yield made
    finally:
        for loop in made:
            loop.stop()


# Loaders --------------------------------------------------------------------------------------------------------------


class HeldLoader:
    """A plain loader that waits until the test lets it go on.

    Args:
        value: what it returns; an exception is raised, a callable is called with the number of the call, from 1.
    """

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.calls = 0
        self._lock = threading.Lock()
        self._gate = threading.Event()

    def __call__(self, *_arguments: object) -> Any:
        with self._lock:
            self.calls += 1
            number = self.calls
        assert self._gate.wait(DEADLINE), "nobody released the loader"
        return _outcome_of(self.value, number)

    def release(self) -> None:
        """Let all calls go on, now and later."""
        self._gate.set()

    def hold(self) -> None:
        """Hold the calls that come from now on."""
        self._gate.clear()

    def wait_until_called(self, times: int = 1) -> None:
        """Return once the loader has been called that often."""
        wait_until(lambda: self.calls >= times, f"the loader is called {times} times")


class HeldAsyncLoader:
    """The same as a coroutine function, on any number of event loops.

    Attributes:
        cancelled: how many calls were cancelled.
        finished: how many calls came to their end undisturbed.
    """

    def __init__(self, value: object = "value") -> None:
        self.value = value
        self.calls = 0
        self.cancelled = 0
        self.finished = 0
        self._lock = threading.Lock()
        self._is_open = False
        self._held: list[asyncio.Future[None]] = []

    async def __call__(self, *_arguments: object) -> Any:
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            self.calls += 1
            number = self.calls
            if not self._is_open:
                self._held.append(future)
            else:
                future.set_result(None)
        try:
            await future
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return _outcome_of(self.value, number)

    def release(self) -> None:
        """Let all calls go on, now and later."""
        with self._lock:
            self._is_open = True
            held, self._held = self._held, []
        for future in held:
            try:
                future.get_loop().call_soon_threadsafe(_set, future)
            except RuntimeError:
                pass  # its event loop is gone

    def wait_until_called(self, times: int = 1) -> None:
        """Return once it has been called that often; not for the loop's own thread."""
        wait_until(lambda: self.calls >= times, f"the loader is called {times} times")


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _outcome_of(value: object, number: int) -> object:
    if isinstance(value, BaseException):
        raise value
    return value(number) if callable(value) else value


# What a cache is doing ------------------------------------------------------------------------------------------------


def callers_of(cache: Any, key: object) -> int:
    """Return how many callers, the leader included, a load of `key` that is under way has; for `Flights` too."""
    flight = cache._engine.state.flights.get(key)
    return 0 if flight is None else flight.waiters


def wait_for_callers(cache: Any, key: object, count: int) -> None:
    """Return once `count` callers, the leader included, are at the load of `key`."""
    wait_until(lambda: callers_of(cache, key) == count, f"{count} callers at {key!r}, now {callers_of(cache, key)}")


async def until_callers(cache: Any, key: object, count: int) -> None:
    """Do as `wait_for_callers` while the event loop goes on."""
    await until(lambda: callers_of(cache, key) == count, f"{count} callers at {key!r}")


async def gather_errors(*awaitables: Awaitable[Any]) -> list[Any]:
    """Await all of them and return values and errors alike."""
    return await asyncio.gather(*awaitables, return_exceptions=True)
