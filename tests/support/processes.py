"""Several processes over one shared tier: caches of one test, whose keepers the test turns by hand.

Each process has a clock of its own, a tier object of its own that the test can make fail or stop at, and uses its cache
from threads or from an event loop. One clock drives them all, the tier's too; nothing waits for real time.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from tests.support.invariants import check_state
from tests.support.waiting import DEADLINE, Call, HeldAsyncLoader, HeldLoader, LoopThread, until, wait_until

from credenza import Cache, TierError
from credenza.events import Event, EventKind
from credenza.flow.keep import keep_up
from credenza.runtime.base import block
from credenza.runtime.keeper import _Direct
from credenza.runtime.tasks import Tasks, is_coroutine_function
from credenza.runtime.threads import Threads
from credenza.strategies import Strategy
from credenza.testing import AsyncDictSource, DictSource, DictTier, FakeClock
from credenza.tiers.base import NO_TOKEN, Lease, Operation, Reply
from credenza.tiers.records import refresh_of

T = TypeVar("T")
Colour = Literal["sync", "async"]
Kind = type[Any]  # of an operation
Action = Callable[[], object]

TTL = 100.0
STALENESS = 1.0
LEASE_SECONDS, FENCE_SECONDS = 2.0, 10.0


# The tier as one process sees it --------------------------------------------------------------------------------------


class Hold:
    """A place where exchanges stop until the test lets them go on."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.reached = 0

    def wait_until_reached(self, times: int = 1) -> None:
        """Return once so many exchanges have come here."""
        wait_until(lambda: self.reached >= times, f"{times} exchanges come to the hold")

    def release(self) -> None:
        """Let all go on, now and later."""
        self._open.set()

    def stop(self) -> None:
        """Wait here."""
        self.reached += 1
        assert self._open.wait(DEADLINE), "nobody released the exchange"

    async def stop_async(self) -> None:
        """Wait here while the event loop goes on."""
        self.reached += 1
        await asyncio.sleep(0)
        await until(self._open.is_set, "the exchange is released")


_NO_HOLD = Hold()
_NO_HOLD.release()


class _Step:
    """What happens at the exchanges of one kind."""

    def __init__(self, kind: Kind, action: Action | Hold, times: int, *, is_after: bool) -> None:
        self.kind = kind
        self.action = action
        self.left = times
        self.is_after = is_after

    def takes(self, operations: Sequence[Operation], *, is_after: bool) -> bool:
        """Tell whether it happens now, and count it."""
        meets = is_after == self.is_after and any(isinstance(operation, self.kind) for operation in operations)
        if meets and self.left > 0:
            self.left -= 1
            return True
        return False


class StagedTier:
    """A tier before another one. It counts, and stops or fails where the test says.

    Attributes:
        batches: what it was asked, one list for each exchange.
        is_away: every exchange fails before it is performed.
        refused: operations of these kinds are answered with an error, and not performed.
        closings, watches: how often it was closed and watched.
    """

    def __init__(self, inner: DictTier) -> None:
        self.inner = inner
        self.namespace, self.max_bytes = inner.namespace, inner.max_bytes
        self.batches: list[list[Operation]] = []
        self.is_away = False
        self.refused: tuple[Kind, ...] = ()
        self.closings = self.watches = 0
        self._steps: list[_Step] = []

    def before(self, kind: Kind, action: Action | Hold, *, times: int = 1) -> None:
        """Do this before the next exchanges that have an operation of `kind`; what it raises, they raise."""
        self._steps.append(_Step(kind, action, times, is_after=False))

    def after(self, kind: Kind, action: Action | Hold, *, times: int = 1) -> None:
        """Do this after them, before their replies arrive; what it raises is raised instead of the replies."""
        self._steps.append(_Step(kind, action, times, is_after=True))

    def hold(self, kind: Kind, *, after: bool = False) -> Hold:
        """Stop the next exchange that has an operation of `kind`."""
        hold = Hold()
        (self.after if after else self.before)(kind, hold)
        return hold

    def lose_request(self, kind: Kind) -> None:
        """Fail the next exchange that has an operation of `kind`, without performing it."""
        self.before(kind, _fail)

    def lose_reply(self, kind: Kind) -> None:
        """Perform the next exchange that has an operation of `kind`, and fail all the same."""
        self.after(kind, _fail)

    def asked(self, *kinds: Kind) -> int:
        """Return how many operations of these kinds it was asked for."""
        return sum(isinstance(operation, kinds) for batch in self.batches for operation in batch)

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        self._note(operations)
        for step in self._due(operations, is_after=False):
            _do(step.action)
        replies = self._perform(operations, timeout_ns)
        for step in self._due(operations, is_after=True):
            _do(step.action)
        return replies

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        self._note(operations)
        for step in self._due(operations, is_after=False):
            await _do_async(step.action)
        replies = self._perform(operations, timeout_ns)
        for step in self._due(operations, is_after=True):
            await _do_async(step.action)
        return replies

    def _note(self, operations: Sequence[Operation]) -> None:
        self.batches.append(list(operations))
        if self.is_away:
            _fail()

    def _due(self, operations: Sequence[Operation], *, is_after: bool) -> list[_Step]:
        return [step for step in self._steps if step.takes(operations, is_after=is_after)]

    def _perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        taken = [operation for operation in operations if not isinstance(operation, self.refused)]
        replies = iter(self.inner.perform(taken, timeout_ns))
        return [
            TierError("OOM: staged") if isinstance(operation, self.refused) else next(replies)
            for operation in operations
        ]

    def watch(self, after: int, timeout_ns: int) -> None:
        self.watches += 1
        if self.is_away:
            _fail()
        self.inner.watch(after, timeout_ns)

    def forget_parent(self) -> None:
        self.inner.forget_parent()

    def close(self) -> None:
        self.closings += 1
        self.inner.close()

    async def close_async(self) -> None:
        await self.inner.close_async()


def _fail() -> None:
    raise TierError("staged")


def _do(action: Action | Hold) -> None:
    if isinstance(action, Hold):
        action.stop()
    else:
        action()


async def _do_async(action: Action | Hold) -> None:
    if isinstance(action, Hold):
        await action.stop_async()
    else:
        action()


# Calls that go on while the test does something else ------------------------------------------------------------------


class Pending:
    """A call under way in a thread or as a task."""

    def __init__(self, inner: Call[Any] | Future[Any]) -> None:
        self._inner = inner

    @property
    def is_done(self) -> bool:
        """Whether the call has returned or raised."""
        return self._inner.is_done if isinstance(self._inner, Call) else self._inner.done()

    def result(self) -> Any:
        """Return what it returned, or raise what it raised; fail if it does not end."""
        return self._inner.result() if isinstance(self._inner, Call) else self._inner.result(DEADLINE)

    def error(self) -> BaseException:
        """Return what it raised; fail if it did not."""
        if isinstance(self._inner, Call):
            return self._inner.error()
        error = self._inner.exception(DEADLINE)
        assert error is not None, f"no error, but {self._inner.result()!r}"
        return error

    def cancel(self) -> None:
        """Cancel the task; threads cannot be."""
        assert isinstance(self._inner, Future)
        self._inner.cancel()


def elsewhere(function: Callable[[], T]) -> T:
    """Call `function` in a thread of its own, as another process would: no load of this thread is around it."""
    return Call(function).result()


# Processes ------------------------------------------------------------------------------------------------------------


class Process:
    """A cache, as one of several processes has it, used in one colour.

    Attributes:
        colour: which face is used.
        events: what it has told.
        pauses: how often it waited for nothing but time, in nanoseconds; the clock went on by that.
        at_pause: called then, with the number of the pause from 1; may return a `Hold` to stop at.
    """

    def __init__(self, world: World, offset: float, **options: Any) -> None:
        clock = world.clock
        self.world = world
        self.colour = world.colour
        self.tier = StagedTier(world.tier)
        self.cache: Cache[Any, Any] = Cache(remote=self.tier, clock=lambda: clock() + offset, **options)
        self.engine = self.cache._engine
        self.state = self.engine.state
        assert self.state.shared is not None
        self.shared = self.state.shared
        self.pauses: list[int] = []
        self.at_pause: Callable[[int], object] | None = None
        self.events: list[Event] = []
        self.cache.subscribe(self.events.append)
        self._loop: LoopThread | None = None
        self._take_the_wheel()

    def _take_the_wheel(self) -> None:
        """Let the test do what the keeper would, and let time pass where the cache waits for time only."""
        self.shared.keep = self.shared.wake = lambda: None
        engine = self.engine
        assert engine.keeper is not None
        engine.threads = _PausingThreads(engine.threads, self)
        engine.tasks = _PausingTasks(engine.tasks, self)

    def pause(self, timeout_ns: int) -> Hold:
        """Let the time pass that the cache waits for; return where to stop then."""
        self.pauses.append(timeout_ns)
        self.world.clock.advance(timeout_ns / 1e9)
        stop = None if self.at_pause is None else self.at_pause(len(self.pauses))
        return stop if isinstance(stop, Hold) else _NO_HOLD

    def keep_up(self) -> None:
        """Do what the keeper does in one round, past the queue of the callers as it does."""
        block(keep_up(self.state, _Direct()))

    def clock_stops_proving(self) -> None:
        """Let time pass until no process has a proof, so that reads go to the tier."""
        self.world.clock.advance(STALENESS)

    # Calls ------------------------------------------------------------------------------------------------------------

    @property
    def loop(self) -> LoopThread:
        """Its event loop."""
        if self._loop is None:
            self._loop = LoopThread()
        return self._loop

    @property
    def is_async(self) -> bool:
        """Whether it is used from an event loop."""
        return self.colour == "async"

    @contextmanager
    def in_the_other_face(self) -> Iterator[None]:
        """Use the other face for a while: its exchanges do not queue behind one that is held."""
        self.colour, before = ("sync" if self.is_async else "async"), self.colour
        try:
            yield
        finally:
            self.colour = before

    def run(self, call: Callable[[], Any]) -> Any:
        """Return what `call` returns, or what that awaitable brings on the event loop."""
        return self.loop.result(_await(call)) if self.is_async else call()

    def start(self, call: Callable[[], Any]) -> Pending:
        """Begin the same, in a thread or as a task."""
        return Pending(self.loop.submit(_await(call)) if self.is_async else Call(call))

    def do(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the cache; plain loaders become coroutine functions in the async face."""
        return self.run(self._call(name, arguments, options))

    def begin(self, name: str, *arguments: Any, **options: Any) -> Pending:
        """Begin the same."""
        return self.start(self._call(name, arguments, options))

    def _call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Callable[[], Any]:
        if not self.is_async:
            return lambda: getattr(self.cache, name)(*arguments, **options)
        coloured = [_as_coroutine_function(each) if callable(each) else each for each in arguments]
        return lambda: getattr(self.cache.aio, name)(*coloured, **options)

    def read(self, key: Any, loader: Any, **options: Any) -> Any:
        """Return the value of `key`; a loader that is no callable is the value that one returns."""
        return self.do("get_or_load", key, loader if callable(loader) else lambda: loader, **options)

    def fetch(self, key: Any, loader: Any, **options: Any) -> tuple[Any, str]:
        """Do the same, and return the value with its status."""
        fetched = self.do("fetch", key, loader if callable(loader) else lambda: loader, **options)
        return fetched.value, str(fetched.status)

    def begin_read(self, key: Any, loader: Any, **options: Any) -> Pending:
        """Begin a read."""
        return self.begin("get_or_load", key, loader, **options)

    def held(self, value: object = "value") -> Any:
        """Return a loader that waits until the test releases it."""
        return HeldAsyncLoader(value) if self.is_async else HeldLoader(value)

    @contextmanager
    def writing(self, *keys: Any, tags: Sequence[str] = ()) -> Iterator[Callable[[], Any]]:
        """Fence a write; yields `confirm`."""
        if not self.is_async:
            with self.cache.writing(*keys, tags=tags) as fence:
                yield fence.confirm
            return
        manager = self.cache.aio.writing(*keys, tags=tags)
        entered: Any = self.loop.result(_await(manager.__aenter__))
        try:
            yield lambda: self.loop.result(entered.confirm())
        except BaseException as error:
            failure = error
            self.loop.result(_await(lambda: manager.__aexit__(type(failure), failure, failure.__traceback__)))
            raise
        self.loop.result(_await(lambda: manager.__aexit__(None, None, None)))

    # Looking ----------------------------------------------------------------------------------------------------------

    def told(self, *kinds: EventKind) -> list[Event]:
        """Return the events of these kinds."""
        return [event for event in self.events if event.kind in kinds]

    def has_in_memory(self, key: Any) -> bool:
        """Tell whether memory holds a living entry, whether it may be used now or not."""
        with self.state.lock:
            entry = self.state.table.find(key)
            return entry is not None and self.state.table.is_alive(entry, self.state.clock_ns())

    def end(self) -> None:
        """Close the cache and the event loop."""
        if self._loop is not None:
            self._loop.stop()
        self.cache.close()


class World:
    """Processes, their tier, and the time.

    Args:
        colour: how the processes use their caches.

    Attributes:
        may_leave_records: leases and fences may be left in the tier when the test ends, since it kills their holders.
    """

    def __init__(self, colour: Colour) -> None:
        self.colour: Colour = colour
        self.clock = FakeClock(1_000_000)
        self.tier = DictTier(now_ms=lambda: int(self.clock() * 1_000))
        self.processes: list[Process] = []
        self.may_leave_records = False

    def process(self, *, keeps_up: bool = True, **options: Any) -> Process:
        """Return another process; with `keeps_up` it has its first proof."""
        chosen: dict[str, Any] = {"ttl": TTL, "jitter": 0, "tier_timeout": 60, "max_staleness": STALENESS} | options
        process = Process(self, 5_000.0 * len(self.processes), **chosen)
        self.processes.append(process)
        if keeps_up:
            process.keep_up()
        return process

    def pair(self, **options: Any) -> tuple[Process, Process]:
        """Return two processes with the same options."""
        return self.process(**options), self.process(**options)

    def advance(self, seconds: float) -> None:
        """Let time pass while all keepers go on."""
        steps = max(1, round(seconds / (STALENESS / 2)))
        for _ in range(min(steps, 4)):
            self.clock.advance(seconds / min(steps, 4))
            self.keep_up()

    def keep_up(self) -> None:
        """Do what all the keepers do in one round."""
        for process in self.processes:
            process.keep_up()

    def record(self, key: str) -> bytes:
        """Return the record of a text key."""
        return self.tier.shelf.record(self.name(key), int(self.clock() * 1_000))

    def name(self, key: str) -> bytes:
        """Return the name of the record of a text key."""
        return f"{self.tier.namespace}:{key}".encode()

    def lease_elsewhere(self, key: str, token: bytes = b"somebody else's.") -> None:
        """Take the lease of a key as a process would that is killed in the middle of its load."""
        assert self.tier.perform([Lease(self.name(key), token, int(LEASE_SECONDS * 1_000))], 1) == [b"L" + token]

    def end(self) -> None:
        """Check that nothing is left behind, and close everything."""
        try:
            for process in self.processes:
                check_state(process.state)
            assert self.may_leave_records or not self._left(), f"left in the tier: {self._left()}"
        finally:
            for process in self.processes:
                process.end()

    def _left(self) -> list[bytes]:
        """Return the names of the records that are leased, refreshed or fenced."""
        now_ms = int(self.clock() * 1_000)
        records = {name: self.tier.shelf.record(name, now_ms) for name in list(self.tier.shelf.held)}
        return [name for name, record in records.items() if record[:1] in (b"L", b"B") or _is_refreshed(record, now_ms)]


def _is_refreshed(record: bytes, now_ms: int) -> bool:
    if record[:1] != b"V":
        return False
    token, deadline_ms = refresh_of(record)
    return token != NO_TOKEN and deadline_ms > now_ms


# Waiting for time -----------------------------------------------------------------------------------------------------


class _PausingThreads(Threads):
    """Threads that let the clock go on where they would wait for nothing but time."""

    __slots__ = ("_process",)

    def __init__(self, threads: Threads, process: Process) -> None:
        super().__init__(threads._workers, threads._gather)
        self._process = process

    async def join(self, signal: Any, home: Any, timeout_ns: int | None, /) -> bool:
        if _waits_for_time(self._process, signal, timeout_ns):
            self._process.pause(timeout_ns or 0).stop()
            return False
        return await super().join(signal, home, timeout_ns)


class _PausingTasks(Tasks):
    """Tasks that do."""

    __slots__ = ("_process",)

    def __init__(self, tasks: Tasks, process: Process) -> None:
        super().__init__(tasks.workers, tasks.gathers)
        self._process = process

    async def join(self, signal: Any, home: Any, timeout_ns: int | None, /) -> bool:
        if _waits_for_time(self._process, signal, timeout_ns):
            await self._process.pause(timeout_ns or 0).stop_async()
            return False
        return await super().join(signal, home, timeout_ns)


def _waits_for_time(process: Process, signal: Any, timeout_ns: int | None) -> bool:
    """Tell whether nobody can set the signal: it is no flight's and no turn's."""
    flights = list(process.state.flights.values())
    gates = list(process.state.gates.values())
    is_known = any(flight.signal is signal for flight in flights) or any(gate._queue for gate in gates)
    return timeout_ns is not None and not is_known


def _as_coroutine_function(function: Any) -> Any:
    if is_coroutine_function(function):
        return function

    async def call(*arguments: Any) -> Any:
        return function(*arguments)

    if inspect.isfunction(function):
        call.__annotations__ = inspect.get_annotations(function, eval_str=True)
    return call


async def _await(call: Callable[[], Awaitable[Any] | Any]) -> Any:
    result = call()
    return await result if isinstance(result, Awaitable) else result


# Records --------------------------------------------------------------------------------------------------------------


class Source(DictSource[str, Any]):
    """Records that all processes read and write; a test may do something in the middle of a write or a load.

    Attributes:
        at_store: called with each write after it has reached the records, before its caller knows.
        at_load: the same for each load.
    """

    def __init__(self) -> None:
        super().__init__({"k": "old"})
        self.at_store: Callable[[str], object] | None = None
        self.at_load: Callable[[str], object] | None = None

    def load(self, key: str, /) -> Any:
        value = super().load(key)
        if self.at_load is not None:
            self.at_load(key)
        return value

    def store(self, key: str, value: Any, /) -> None:
        super().store(key, value)
        if self.at_store is not None:
            self.at_store(key)


class Records:
    """The records as one process has access to them."""

    def __init__(self, process: Process, source: Source, strategy: Strategy | None = None, **options: Any) -> None:
        self.process = process
        self._face: Any
        if process.is_async:
            wrapped: AsyncDictSource[str, Any] = AsyncDictSource()
            wrapped.inner = source
            self._face = process.cache.repository(wrapped, strategy=strategy, **options).aio
        else:
            self._face = process.cache.repository(source, strategy=strategy, **options)

    def get(self, key: str) -> Any:
        """Return a record."""
        return self.process.run(lambda: self._face.get(key))

    def fetch(self, key: str) -> tuple[Any, str]:
        """Return a record, and where it came from."""
        fetched = self.process.run(lambda: self._face.fetch(key))
        return fetched.value, str(fetched.status)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the records that there are."""
        found: dict[str, Any] = self.process.run(lambda: self._face.get_many(keys))
        return found

    def put(self, key: str, value: Any) -> None:
        """Write a record."""
        self.process.run(lambda: self._face.put(key, value))

    def delete(self, key: str) -> None:
        """Delete a record."""
        self.process.run(lambda: self._face.delete(key))
