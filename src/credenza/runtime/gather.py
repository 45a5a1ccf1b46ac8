"""Gathering what many callers ask of a shared tier into few round trips.

While one batch is under way the next one collects, so that a thousand callers need one connection and a few round trips,
and a single caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ..durations import NANOSECONDS
from ..errors import TierError
from ..tiers.base import Crowded, Operation, Reply, Tier

_log = logging.getLogger("credenza")

_MOST_OPERATIONS: Final = 256
"""So many operations make one round trip: more take so long to write and to read that they would time out."""

_BUSY_SECONDS: Final = 0.02
"""An event loop that is so late to notice that a time is over was busy itself; replies may have come meanwhile."""

_MORE_TURNS: Final = 10


class _Batch:
    """What threads have asked for while another batch was under way. The first of them to wake performs it.

    Attributes:
        turn: the batch before it has ended.
        members: how many wait for it.
        is_led: one of them performs it.
        timeout_ns: as long as the most patient of them has.
    """

    __slots__ = ("done", "error", "is_led", "members", "operations", "replies", "timeout_ns", "turn")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.turn = threading.Event()
        self.done = threading.Event()
        self.members = 0
        self.is_led = False
        self.timeout_ns = 0
        self.replies: list[Reply] = []
        self.error: str | None = None


class ThreadGather:
    """Gathers for threads: one performs for all who came while the last batch was under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._is_busy = False
        self._next: _Batch | None = None

    def exchange(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """Perform `operations`, alone or with those of others; return the replies.

        Raises:
            Crowded: the time was over while others were served.
            TierError: as `Tier.perform`.
        """
        with self._lock:
            boarded = self._board(operations, timeout_ns) if self._is_busy else None
            self._is_busy = True
        if boarded is None:
            return self._perform_alone(tier, operations, timeout_ns)
        batch, start = boarded
        ends = time.monotonic() + timeout_ns / NANOSECONDS
        try:
            if self._leads(batch, ends):
                self._lead(batch, tier)
            elif not batch.done.wait(max(0.0, ends - time.monotonic())):
                raise Crowded("no time was left while other threads were served")
        finally:
            self._leave(batch)
        if batch.error is not None:
            raise TierError(batch.error)
        return batch.replies[start : start + len(operations)]

    def _perform_alone(self, tier: Tier, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        error: str | None = None
        try:
            return _perform(tier, operations, timeout_ns)
        except TierError as raised:
            error = str(raised)
            raise
        finally:
            self._hand_on(error, timeout_ns)

    def _board(self, operations: Sequence[Operation], timeout_ns: int) -> tuple[_Batch, int]:
        batch = self._next
        if batch is None:
            batch = self._next = _Batch()
        start = len(batch.operations)
        batch.operations.extend(operations)
        batch.members += 1
        batch.timeout_ns = max(batch.timeout_ns, timeout_ns)
        return batch, start

    def _leads(self, batch: _Batch, ends: float) -> bool:
        """Wait for the batch's turn; tell whether this thread is the one that performs it."""
        has_come = batch.turn.wait(max(0.0, ends - time.monotonic()))
        with self._lock:
            if not has_come or batch.is_led or batch.done.is_set():
                return False
            batch.is_led = True
            return True

    def _leave(self, batch: _Batch) -> None:
        """Stop waiting; the turn of a batch that nobody waits for any more goes to the next."""
        with self._lock:
            batch.members -= 1
            is_forsaken = not batch.members and batch.turn.is_set() and not batch.is_led and not batch.done.is_set()
            batch.is_led = batch.is_led or is_forsaken
        if is_forsaken:
            self._hand_on(None, 0)

    def _lead(self, batch: _Batch, tier: Tier) -> None:
        """Perform a batch; whatever stops this thread, the others learn of it."""
        failure: str | None = None
        try:
            batch.replies = _perform(tier, batch.operations, batch.timeout_ns)
        except TierError as error:
            failure = batch.error = str(error)
        except BaseException:
            batch.error = "whoever asked the tier was interrupted"
            raise
        finally:
            batch.done.set()
            self._hand_on(failure, batch.timeout_ns)

    def _hand_on(self, failure: str | None, timeout_ns: int) -> None:
        """Let the next batch have its turn. After a failure it fails too, unless it has more time: it would wait for the same."""
        with self._lock:
            batch, self._next = self._next, None
            fails_too = failure is not None and batch is not None and batch.timeout_ns <= timeout_ns
            if batch is not None and (fails_too or not batch.members):
                batch.error = failure
                batch.done.set()
                batch.turn.set()
                batch = None
            self._is_busy = batch is not None
        if batch is not None:
            batch.turn.set()


def _perform(tier: Tier, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
    """Perform operations, many of them in several round trips, each of which has the whole time."""
    try:
        if len(operations) <= _MOST_OPERATIONS:
            return tier.perform(operations, timeout_ns)
        replies: list[Reply] = []
        for start in range(0, len(operations), _MOST_OPERATIONS):
            replies += tier.perform(operations[start : start + _MOST_OPERATIONS], timeout_ns)
    except TierError:
        raise
    except Exception as error:
        raise _fault(error) from error
    return replies


def _fault(error: Exception) -> TierError:
    """Report what a tier should not have raised, and return what it should have: no reader suffers for it (E1)."""
    _log.error("a shared tier failed", exc_info=error)
    return TierError(f"the tier failed with {type(error).__name__}")


class _Parcel:
    """What one task has asked for."""

    __slots__ = ("future", "operations", "timeout_ns")

    def __init__(self, future: asyncio.Future[list[Reply]], operations: Sequence[Operation], timeout_ns: int) -> None:
        self.future = future
        self.operations = operations
        self.timeout_ns = timeout_ns


class LoopGather:
    """Gathers for the tasks of one event loop: those of one turn of the loop share a round trip."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._waiting: deque[_Parcel] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_late = False
        self._alarm: asyncio.Handle | None = None

    async def exchange(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """Perform `operations` with those of others; return the replies.

        Raises:
            TierError: as `Tier.perform`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Reply]] = loop.create_future()
        self._waiting.append(_Parcel(future, operations, timeout_ns))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._perform_all(loop), context=contextvars.Context())
        return await future

    async def _perform_all(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._waiting:
                await self._perform(loop, self._load())
        finally:
            self._task = None
            for parcel in self._waiting:
                _settle(parcel.future, TierError("the event loop is shutting down"))

    def _load(self) -> list[_Parcel]:
        """Take what makes one round trip; a caller that has left asks for nothing any more."""
        parcels: list[_Parcel] = []
        count = 0
        while self._waiting and (not parcels or count + len(self._waiting[0].operations) <= _MOST_OPERATIONS):
            parcel = self._waiting.popleft()
            if not parcel.future.done():
                parcels.append(parcel)
                count += len(parcel.operations)
        return parcels

    async def _perform(self, loop: asyncio.AbstractEventLoop, parcels: list[_Parcel]) -> None:
        """Perform what these have asked for, and hand the replies out."""
        operations = [operation for parcel in parcels for operation in parcel.operations]
        replies: list[Reply] = []
        try:
            for start in range(0, len(operations), _MOST_OPERATIONS):
                part = operations[start : start + _MOST_OPERATIONS]
                replies += await self._ask(loop, part, max(parcel.timeout_ns for parcel in parcels))
        except Exception as error:
            self._fail(parcels, str(error if isinstance(error, TierError) else _fault(error)))
            return
        except BaseException:
            self._fail(parcels, "the event loop is shutting down")
            raise
        start = 0
        for parcel in parcels:
            end = start + len(parcel.operations)
            _settle(parcel.future, replies[start:end])
            start = end

    def _fail(self, parcels: list[_Parcel], said: str) -> None:
        """Fail these and those who wait, who would only wait for the same."""
        for parcel in (*parcels, *self._waiting):
            _settle(parcel.future, TierError(said))
        self._waiting.clear()

    async def _ask(self, loop: asyncio.AbstractEventLoop, operations: list[Operation], timeout_ns: int) -> list[Reply]:
        """Ask the tier, within the time; a loop that was busy itself is not held against it."""
        task = asyncio.current_task()
        assert task is not None
        seconds = timeout_ns / NANOSECONDS
        due = loop.time() + seconds
        self._is_late = False
        self._alarm = loop.call_at(due, self._give_up, loop, task, due)
        try:
            # The tier has a little less, so that it gives up first and says why.
            return await self._tier.perform_async(operations, timeout_ns * 4 // 5)
        except asyncio.CancelledError:
            if not self._is_late:
                raise
            task.uncancel()
            raise TierError(f"no reply within tier_timeout={seconds:g} s") from None
        finally:
            self._alarm.cancel()
            self._alarm = None  # it holds the loop, which holds us

    def _give_up(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], due: float) -> None:
        """Stop waiting for a reply; a loop that comes late to this was busy itself, and may find it in its next turns."""
        late = loop.time() - due
        if late > _BUSY_SECONDS:
            self._alarm = loop.call_later(2 * late, self._wait_turns, loop, task, _MORE_TURNS)
            return
        self._is_late = True
        task.cancel()

    def _wait_turns(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], turns: int) -> None:
        """Let the loop go round a few times more before giving up."""
        if turns:
            self._alarm = loop.call_soon(self._wait_turns, loop, task, turns - 1)
            return
        self._is_late = True
        task.cancel()


def _settle(future: asyncio.Future[list[Reply]], outcome: list[Reply] | TierError) -> None:
    """Hand an outcome out, unless the caller has left."""
    if future.done():
        return
    if isinstance(outcome, TierError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class Gathers:
    """The gathers of one cache: one for its threads, one for each event loop."""

    __slots__ = ("_latest", "_loops", "threads")

    def __init__(self) -> None:
        self.threads = ThreadGather()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopGather] = weakref.WeakKeyDictionary()
        self._latest: tuple[Callable[[], asyncio.AbstractEventLoop | None], LoopGather | None] = (_no_loop, None)

    def of_running_loop(self, tier: Tier) -> LoopGather:
        """Return the gather of the running loop."""
        loop = asyncio.get_running_loop()
        latest_loop, gather = self._latest
        if gather is not None and latest_loop() is loop:
            return gather
        gather = self._loops.get(loop)
        if gather is None:
            gather = self._loops[loop] = LoopGather(tier)
        self._latest = (weakref.ref(loop), gather)
        return gather


def _no_loop() -> None:
    return None
