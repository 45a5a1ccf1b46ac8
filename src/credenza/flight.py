"""Flights: loads under way, and who waits for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final

from .errors import DeadlockError
from .memory.implementation import FlightFields

PENDING: Final = 0
LANDED: Final = 1
FAILED: Final = 2
ABANDONED: Final = 3
"""The load ended by what concerns nobody but its leader (`CancelledError`, `KeyboardInterrupt`): a waiter leads the next."""

_NEVER_NS = 1 << 62


class Signal:
    """Something that happens once, told to wakers. Thread-safe without a lock, as dict operations are atomic."""

    __slots__ = ("_wakers", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._wakers: dict[object, Callable[[], None]] = {}

    def listen(self, token: object, waker: Callable[[], None]) -> None:
        """Call `waker` when it happens, at once if it has; it may be called twice, from any thread."""
        self._wakers[token] = waker
        if self.is_set:
            waker()

    def forget(self, token: object) -> None:
        """Do not call the waker of `token` any more."""
        self._wakers.pop(token, None)

    def set(self) -> None:
        """Let it happen: everybody is told before anybody can act on it."""
        self.is_set = True
        for waker in list(self._wakers.values()):
            waker()


class Flight(FlightFields):
    """One load of one key. All but `wait_for` and `done_waiting` is guarded by the lock of the state that it flies in.

    Attributes:
        number: counts the flights of a cache; a caller that noted the count when it came can tell older from younger.
        epoch: the table's epoch when the load began, to tell which tag invalidations overtook it.
        waiters: callers that are interested now, the leader included.
        is_kept: it goes on although nobody waits, since it refreshes a value behind its readers.
        home: the event loop that its load needs in order to go on, None for a load that runs in a thread.
        cancel: asks the load to stop; None where it cannot be stopped.
        task: the load's task, which its event loop holds weakly.
        crew: the flights of the same bulk load, None for a single one. `cancel`, `gate`, `task` and `waits_for` are
            those of the first.
        parent: the flight whose loader led this one and waits for it.
        loans: how many waits of its loader its place in the gate is lent for.
        blocks: event loops whose thread waits for it in a sync call.
        was_closed: the cache was closed, which stopped it.
        gate: where it holds a place among the concurrent loads.
        queue: the gate before which it waits for its turn.
        spare: a copy of the error that nobody raises, to make the waiters' copies from.
        signal: made for the first who has to wait.
        was_overtaken: an invalidation made the value too old for callers that came after it.
        joined: how many callers have joined it so far.
        seal: with a shared tier, the first so many of them may share the value: they came before what shows that it was
            current then. `sealed_ns` is when that was.
        is_found: the shared tier had the value, and nothing was loaded.
        is_refused: the shared tier did not take the value, so memory must not either.
    """

    signal: Signal | None
    deadline_ns: int = _NEVER_NS
    error: BaseException | None = None
    waiters: int = 1
    is_kept: bool = False
    is_fenced: bool = False
    was_overtaken: bool = False
    joined: int = 0
    seal: int = _NEVER_NS
    sealed_ns: int = _NEVER_NS
    is_refused: bool = False
    is_found: bool = False
    parent: Flight | None = None
    gate: Gate | None = None
    queue: Gate | None = None
    spare: BaseException | None = None
    crew: tuple[Flight, ...] | None = None
    home: Any = None  # Any: an event loop, of whatever make
    cancel: Callable[[], object] | None = None
    task: object = None
    waits_for: list[Flight] | None = None
    loans: int = 0
    blocks: tuple[object, ...] = ()
    was_closed: bool = False

    def has_deadline(self) -> bool:
        """Tell whether the load has a time limit."""
        return self.deadline_ns < _NEVER_NS

    def is_wanted(self) -> bool:
        """Tell whether somebody wants what the load brings, for this key or another of the same bulk load."""
        return any(member.waiters > 0 or member.is_kept for member in self.crew or (self,))

    def first(self) -> Flight:
        """Return the flight that stands for the whole load."""
        return self if self.crew is None else self.crew[0]

    def wait_for(self, other: Flight, stuck_loop: object) -> None:
        """Note that this flight's loader waits for `other`, or raise if neither could ever end.

        The edge is added before the graph is searched: of two threads that close a cycle together, one sees it.

        Raises:
            DeadlockError: `other` waits for this flight, or for an event loop that the call would block.
        """
        if self.waits_for is None:
            self.waits_for = []
        self.waits_for.append(other)
        try:
            for loop in (stuck_loop, *self._blocked_loops()):
                check_progress(other, self, loop)
        except DeadlockError:
            self.waits_for.remove(other)
            raise
        if self.gate is not None:
            self.gate.lend(self)

    def done_waiting(self, other: Flight) -> None:
        """Take back `wait_for`."""
        if self.waits_for is not None:
            self.waits_for.remove(other)
        if self.loans and self.gate is not None:
            self.gate.take_back(self)

    def _blocked_loops(self) -> Iterator[object]:
        """Yield the loops that cannot go on until this flight ends."""
        flight: Flight | None = self
        while flight is not None:
            yield from flight.blocks
            flight = flight.parent


loading: ContextVar[Flight | None] = ContextVar("credenza_loading", default=None)
"""The flight whose loader the running code belongs to."""


def check_progress(target: Flight, waiting: Flight | None, stuck_loop: object) -> None:
    """Raise `DeadlockError` if `target` cannot end while `waiting` waits for it and `stuck_loop` is blocked by the call."""
    for flight in _reachable(target):
        if waiting is not None and flight is waiting:
            raise DeadlockError(
                f"the loader of {waiting.key!r} waits for {target.key!r}, which waits for {waiting.key!r}; "
                "load what both need under a key of its own, or call the undecorated function (__wrapped__)"
            ).about(target.key)
        queue = flight.queue
        if stuck_loop is not None and (flight.home is stuck_loop or (queue is not None and queue.needs(stuck_loop))):
            raise DeadlockError(
                f"a sync call on an event loop's thread would wait for {flight.key!r}, which a task of that loop is loading; "
                "await cache.aio there, or call from a worker thread"
            ).about(target.key)


def _reachable(flight: Flight) -> Iterator[Flight]:
    queue = deque([flight.first()])
    seen = {id(queue[0])}
    while queue:
        flight = queue.popleft()
        if flight.outcome != PENDING:
            continue
        yield flight
        for target in list(flight.waits_for or ()):
            other = target.first()
            if id(other) not in seen:
                seen.add(id(other))
                queue.append(other)


class Gate:
    """Lets a number of loads through at a time; the others queue in order. Thread-safe.

    A load whose loader waits for another load presses nothing meanwhile, so it lends its place: else loads that wait for
    each other could fill the gate. When the wait is over it takes a place at once, even if that is one too many.
    """

    __slots__ = ("_free", "_lock", "_queue", "holders")

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._free = limit
        self._queue: deque[tuple[Flight, Signal]] = deque()
        self.holders: list[Flight] = []

    def enter(self, flight: Flight) -> Signal | None:
        """Take a place, or a place in the queue: a signal that is set when it is one's turn."""
        with self._lock:
            if self._free > 0:
                self._hand_to(flight)
                return None
            turn = Signal()
            flight.queue = self
            self._queue.append((flight, turn))
            return turn

    def leave(self, flight: Flight) -> None:
        """Give up the place, or the wait for it; the next in the queue has it then."""
        with self._lock:
            if flight in self.holders:
                self.holders.remove(flight)
                self._free += not flight.loans
                flight.gate = None
            else:
                self._queue = deque(waiting for waiting in self._queue if waiting[0] is not flight)
                flight.queue = None
            self._call_next()

    def lend(self, flight: Flight) -> None:
        """Let others have the place of `flight` while its loader waits; counted, as it may wait for several at once."""
        with self._lock:
            flight.loans += 1
            self._free += flight.loans == 1
            self._call_next()

    def take_back(self, flight: Flight) -> None:
        """End one `lend`."""
        with self._lock:
            flight.loans -= 1
            self._free -= not flight.loans and flight.gate is self

    def needs(self, loop: object) -> bool:
        """Tell whether no place can become free unless `loop` goes on."""
        with self._lock:
            return bool(self.holders) and all(holder.home is loop for holder in self.holders if not holder.loans)

    def drop_dead(self, now_ns: int) -> list[Flight]:
        """Take back the places of loads that nobody will end in time: their event loop has stopped, or they are late.

        Returns those that are late and have not been ended.
        """
        late = []
        for holder in list(self.holders):
            is_late = now_ns >= holder.deadline_ns
            if is_late or (holder.home is not None and not holder.home.is_running()):
                self.leave(holder)
            if is_late and holder.outcome == PENDING:
                late.append(holder)
        return late

    def _hand_to(self, flight: Flight) -> None:
        self._free -= 1
        self.holders.append(flight)
        flight.gate, flight.queue = self, None

    def _call_next(self) -> None:
        while self._queue and self._free > 0:
            flight, turn = self._queue.popleft()
            self._hand_to(flight)
            turn.set()
