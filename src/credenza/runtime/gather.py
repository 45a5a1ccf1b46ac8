"""Gathering what many callers ask of a shared tier into few round trips.

While one batch is under way the next one collects, so that a thousand callers need one connection and a few round trips,
and a single caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final

from ..durations import NANOSECONDS
from ..errors import TierError
from ..tiers.base import Operation, Reply, Tier

_MOST_OPERATIONS: Final = 256
"""So many operations make one round trip: more take so long to write and to read that they would time out."""

_BUSY_SECONDS: Final = 0.02
"""An event loop that is so late to notice that a time is over was busy itself; replies may have come meanwhile."""

_MORE_TURNS: Final = 10


class _Batch:
    """What threads have asked for while another batch was under way. The first of them performs it."""

    __slots__ = ("done", "error", "operations", "replies", "turn")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.turn = threading.Event()
        self.done = threading.Event()
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
            TierError: as `Tier.perform`.
        """
        with self._lock:
            boarded = self._board(operations) if self._is_busy else None
            self._is_busy = True
        if boarded is None:
            try:
                return _perform(tier, operations, timeout_ns)
            finally:
                self._hand_on()
        batch, start, leads = boarded
        if leads:
            self._lead(batch, tier, timeout_ns)
        else:
            batch.done.wait()
        if batch.error is not None:
            raise TierError(batch.error)
        return batch.replies[start : start + len(operations)]

    def _board(self, operations: Sequence[Operation]) -> tuple[_Batch, int, bool]:
        batch = self._next
        leads = batch is None
        if batch is None:
            batch = self._next = _Batch()
        start = len(batch.operations)
        batch.operations.extend(operations)
        return batch, start, leads

    def _lead(self, batch: _Batch, tier: Tier, timeout_ns: int) -> None:
        """Perform a batch when its turn has come; whatever stops this thread, the others learn of it."""
        try:
            batch.turn.wait()
        except BaseException:
            with self._lock:
                if self._next is batch:
                    self._next = None
            batch.error = "whoever was to ask the tier was interrupted"
            batch.done.set()
            if batch.turn.is_set():
                self._hand_on()
            raise
        try:
            batch.replies = _perform(tier, batch.operations, timeout_ns)
        except TierError as error:
            batch.error = str(error)
        except BaseException:
            batch.error = "whoever asked the tier was interrupted"
            raise
        finally:
            batch.done.set()
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            batch, self._next = self._next, None
            self._is_busy = batch is not None
        if batch is not None:
            batch.turn.set()


def _perform(tier: Tier, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
    """Perform operations, many of them in several round trips, each of which has the whole time."""
    if len(operations) <= _MOST_OPERATIONS:
        return tier.perform(operations, timeout_ns)
    replies: list[Reply] = []
    for start in range(0, len(operations), _MOST_OPERATIONS):
        replies += tier.perform(operations[start : start + _MOST_OPERATIONS], timeout_ns)
    return replies


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
        self._alarm: asyncio.Handle

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
        except BaseException as error:
            for parcel in parcels:
                _settle(
                    parcel.future, TierError(str(error) if isinstance(error, TierError) else "the tier was not asked")
                )
            if not isinstance(error, TierError):
                raise
            return
        start = 0
        for parcel in parcels:
            end = start + len(parcel.operations)
            _settle(parcel.future, replies[start:end])
            start = end

    async def _ask(self, loop: asyncio.AbstractEventLoop, operations: list[Operation], timeout_ns: int) -> list[Reply]:
        """Ask the tier, within the time; a loop that was busy itself is not held against it."""
        task = asyncio.current_task()
        assert task is not None
        seconds = timeout_ns / NANOSECONDS
        due = loop.time() + seconds
        self._is_late = False
        self._alarm = loop.call_at(due, self._give_up, loop, task, due)
        try:
            return await self._tier.perform_async(
                operations, timeout_ns * 4 // 5
            )  # it is to give up first, and say why
        except asyncio.CancelledError:
            if not self._is_late:
                raise
            task.uncancel()
            raise TierError(f"no reply within tier_timeout={seconds:g} s") from None
        finally:
            self._alarm.cancel()

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

    __slots__ = ("_loops", "threads")

    def __init__(self) -> None:
        self.threads = ThreadGather()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopGather] = weakref.WeakKeyDictionary()

    def of_running_loop(self, tier: Tier) -> LoopGather:
        """Return the gather of the running loop."""
        loop = asyncio.get_running_loop()
        gather = self._loops.get(loop)
        if gather is None:
            gather = self._loops[loop] = LoopGather(tier)
        return gather
