"""Reading one key: what is at hand, or a load, once however many ask."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Final

from ..errors import LoadTimeout, NotFound, copy_exception
from ..events import EventKind
from ..flight import ABANDONED, LANDED, PENDING, Flight, check_progress, loading
from ..runtime.base import Load, Runtime, Waiter, block
from ..state import State
from ..stats import Status
from ..steps.approach import approach
from ..steps.landing import fail, give_up_late, land, strike
from ..steps.leaving import fall_back, has_stand_in, keep, leave, may_share, signal_of
from ..steps.request import AGAIN, JOIN, LEAD, LOOK, REFRESH, WAIT, Move, Request
from .lease import SharedLoad
from .look import look_up
from .turns import drop_awaitable, take_turn


class SingleLoad:
    """How the load of one key runs, in either colour. It belongs to no caller: whoever leads merely starts it."""

    __slots__ = ()

    def run_plain(self, state: State, run: Waiter, flight: Flight, request: Request) -> None:
        """Call a plain loader in this thread and end the flight; `run` is one that blocks."""
        loading.set(flight)
        try:
            if request.policy.max_concurrent_loads is not None and not block(take_turn(state, run, flight, request)):
                return
            result = request.loader()
            if run.takes_over(state, self, flight, request, result):
                return
            land(state, flight, result, request)
        except BaseException as error:
            fail(state, flight, error, request)
            if not isinstance(error, Exception):
                raise
        finally:
            if flight.gate is not None and not request.is_async:
                flight.gate.leave(flight)

    def resume(self, request: Request, awaitable: Awaitable[Any]) -> None:  # Any: what the loader brings in the end
        """Let `run_async` await what the loader has returned, instead of calling it."""
        request.awaitable = awaitable
        request.loader = lambda: awaitable

    async def run_async(self, state: State, run: Runtime, flight: Flight, request: Request) -> None:
        """Await a loader and end the flight."""
        try:
            if request.policy.max_concurrent_loads is not None and not await take_turn(state, run, flight, request):
                drop_awaitable(request)
                return
            land(state, flight, await run.call(flight, request.loader), request)
        except BaseException as error:
            fail(state, flight, error, request)
            if not isinstance(error, Exception):
                raise
        finally:
            if flight.gate is not None:
                flight.gate.leave(flight)


single_load: Final = SingleLoad()


def _load(state: State, request: Request) -> Load:
    return single_load if state.shared is None or not request.keeps else SharedLoad((request,))


def attempt(state: State, run: Runtime, request: Request) -> Any:  # Any: a value of any type
    """Return the value of `request.key` if that takes no waiting, else `AGAIN`, and `finish` has to do the rest.

    Raises: as `finish`.
    """
    move = request.move = approach(state, request)
    if move is LEAD:
        flight = request.flight
        try:
            lead(state, run, _load(state, request), (request,))
        except BaseException:  # nearly always it has ended the flight
            strike(state, flight)
            raise
        if flight.outcome != LANDED:
            return AGAIN
        return _received(request, flight)
    if move is JOIN or move is WAIT or move is LOOK:
        return AGAIN
    if move is REFRESH:
        start_behind(state, run, _load(state, request), (request,))
    return serve(state, request)


async def finish(state: State, run: Runtime, request: Request) -> Any:  # Any: a value of any type
    """Wait for the flight that `attempt` boarded, or look in the shared tier; ask again where that brought nothing.

    Raises:
        LoadTimeout: `request.timeout_ns` or the load's own limit passed.
        DeadlockError: waiting would never end.
        Exception: what the loader raised; a copy for all but the leader.
    """
    ends_ns = None if request.timeout_ns is None else state.clock_ns() + request.timeout_ns
    if state.shared is not None:
        request.tier_ns = state.shared.timeout_ns
    while True:
        if request.move is LOOK:
            if ends_ns is not None:
                request.tier_ns = min(request.tier_ns, max(1, ends_ns - state.clock_ns()))
            await look_up(state, run, (request,))
            value = attempt(state, run, request)
        else:
            value = await outcome(state, run, request, ends_ns)
            if value is AGAIN:
                request.has_looked = False
                value = attempt(state, run, request)
        if value is not AGAIN:
            return value


async def read(state: State, run: Runtime, request: Request) -> Any:  # Any: a value of any type
    """Return the value of `request.key`: at hand, joined or loaded; raises as `finish` does."""
    value = attempt(state, run, request)
    return value if value is not AGAIN else await finish(state, run, request)


def serve(state: State, request: Request) -> Any:  # Any: a value of any type
    """Return what was found as a hit, or raise the `NotFound` that is remembered."""
    if request.is_from_tier and not request.is_stale:
        request.tally.shared_hits += 1
        request.status = Status.SHARED
    elif not request.is_stale:
        request.tally.hits += 1
        request.status = Status.HIT
    else:
        request.tally.stale_hits += 1
        request.status = Status.STALE
        if state.events.listeners:
            state.events.emit(EventKind.STALE, request.key)
    if request.is_absent:
        raise copy_exception(request.value)
    return hand_out(request, request.value)


def _received(request: Request, flight: Flight) -> Any:  # Any: a value of any type
    """Return what the flight brought."""
    if flight.is_found:
        request.status = Status.SHARED
    else:
        request.load_ns = flight.load_ns
        if flight.is_fenced and request.move is LEAD:
            request.status = Status.BYPASS
    return hand_out(request, flight.value)


def hand_out(request: Request, value: Any) -> Any:  # Any: a value of any type
    """Return the value, or the copy of it that the policy asks for."""
    return value if request.policy.copy is None else request.policy.copy(value)


def lead(state: State, run: Runtime, load: Load, requests: Sequence[Request]) -> None:
    """Run the load that the requests' flights are, as far as it goes without waiting."""
    for request in requests:
        request.tally.misses += 1
        request.status = Status.BYPASS if request.flight.is_fenced else Status.MISS
        if state.events.listeners:
            state.events.emit(EventKind.MISS, request.key)
    request = requests[0]
    parent = loading.get()
    try:
        if parent is None or parent.outcome != PENDING:
            run.lead(state, load, request.flight, request)
            return
        request.flight.parent = parent
        with _waiting(parent, request.flight, None):
            run.lead(state, load, request.flight, request)
    except BaseException as error:  # no thread to be had, no loop that runs, or what concerns the leader alone
        for request in requests:
            fail(state, request.flight, error, request)
        raise


def start_behind(state: State, run: Runtime, load: Load, requests: Sequence[Request]) -> None:
    """Start a refresh; if it cannot be started, the hit that asked for it does not suffer."""
    try:
        run.start(state, load, requests[0].flight, requests[0])
    except Exception as error:
        for request in requests:
            fail(state, request.flight, error, request)


async def outcome(state: State, run: Runtime, request: Request, ends_ns: int | None) -> Any:  # Any: a value of any type
    """Wait for the request's flight and return what it brought this caller, or `AGAIN`."""
    flight, move = request.flight, request.move
    if flight.outcome == PENDING:
        try:
            has_stand_in = await _wait(state, run, request, flight, ends_ns)
        except BaseException:
            if move is not WAIT:
                leave(state, flight)
            raise
        if has_stand_in:
            return serve(state, request)
        if flight.outcome == PENDING:
            return AGAIN
    if move is not LEAD:
        if move is not JOIN or flight.outcome == ABANDONED:
            return AGAIN
        if flight.was_overtaken and request.seen_epoch != flight.epoch:
            return AGAIN
        if flight.outcome == LANDED and not may_share(state, flight, request):
            return AGAIN
        request.tally.joins += 1
        request.status = Status.JOINED
        if state.events.listeners:
            state.events.emit(EventKind.JOIN, request.key)
    if flight.outcome == LANDED:
        return _received(request, flight)
    return _failed(state, request, flight, move)


def _failed(state: State, request: Request, flight: Flight, move: Move) -> Any:  # Any: a value of any type
    if flight.was_closed:
        state.check_open()
    error = flight.error
    assert error is not None
    may_be_stale = flight.outcome != ABANDONED and not isinstance(error, NotFound)
    if may_be_stale and fall_back(state, request, on_error=True):
        return serve(state, request)
    raise error if move is LEAD else copy_exception(flight.spare or error)


async def _wait(state: State, run: Runtime, request: Request, flight: Flight, ends_ns: int | None) -> bool:
    """Wait until the flight has ended; tell whether a stale value stands in for it, after `soft_timeout`."""
    parent = loading.get()
    signal = signal_of(state, flight)
    soft_ns = request.policy.soft_timeout_ns
    if soft_ns is not None and not has_stand_in(state, request):
        soft_ns = None
    with _waiting(parent, flight, run.stuck_loop()):
        while not signal.is_set:
            now_ns = state.clock_ns()
            hard_ns = None if ends_ns is None else ends_ns - now_ns
            late_ns = flight.deadline_ns - now_ns if flight.has_deadline() else None
            limit_ns = min((limit for limit in (soft_ns, hard_ns, late_ns) if limit is not None), default=None)
            if await run.join(signal, flight.home, None if limit_ns is None else max(limit_ns, 0)):
                break
            if limit_ns is None or (flight.home is not None and not flight.home.is_running()):
                _disown(state, flight)
                break
            if limit_ns == soft_ns:
                if fall_back(state, request, on_error=False):
                    keep(state, flight)
                    return True
                soft_ns = None  # it went while the caller waited
                continue
            if limit_ns == late_ns:
                give_up_late(state, flight)
                break
            raise _timeout(request)
    return False


def _disown(state: State, flight: Flight) -> None:
    """Free the key of a flight whose event loop has stopped; nobody will end it."""
    with state.lock:
        state.retire(flight)
    first = flight.first()
    if first.gate is not None:
        first.gate.leave(first)


def _timeout(request: Request) -> LoadTimeout:
    seconds = (request.timeout_ns or 0) / 1e9
    error = LoadTimeout(f"no value within timeout={seconds:g} s; the load goes on for others that wait for it")
    error.key = request.key
    return error


@contextlib.contextmanager
def _waiting(parent: Flight | None, flight: Flight, stuck_loop: object) -> Generator[None, None, None]:
    """Let the wait of one loader for another be seen, for as long as it lasts."""
    if stuck_loop is not None:
        check_progress(flight, None, stuck_loop)
        flight.blocks += (stuck_loop,)
    is_nested = parent is not None and parent.outcome == PENDING
    try:
        if parent is not None and is_nested:
            parent.wait_for(flight, stuck_loop)
        try:
            yield
        finally:
            if parent is not None and is_nested:
                parent.done_waiting(flight)
    finally:
        if stuck_loop is not None:
            flight.blocks = tuple(loop for loop in flight.blocks if loop is not stuck_loop)
