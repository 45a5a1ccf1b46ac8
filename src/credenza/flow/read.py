"""Reading one key: what is at hand, or a load, once however many ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import LoadTimeout, NotFound, copy_exception
from ..events import EventKind
from ..flight import ABANDONED, LANDED, PENDING, Flight, Gate, check_progress, loading
from ..runtime.base import Load, Runtime
from ..state import State
from ..steps import (
    JOIN,
    LEAD,
    SERVE,
    SERVE_STALE,
    Move,
    Request,
    approach,
    fail,
    fall_back,
    give_up_late,
    keep,
    land,
    leave,
    may_begin,
    signal_of,
)

AGAIN = object()
"""The flight brought nothing for this caller; it asks again."""


async def read(state: State, run: Runtime, request: Request) -> Any:  # Any: a value of any type
    """Return the value of `request.key`: at hand, joined or loaded.

    Raises:
        LoadTimeout: `request.timeout_ns` or the load's own limit passed.
        DeadlockError: waiting would never end.
        Exception: what the loader raised; a copy for all but the leader.
    """
    arrived = state.arrivals
    ends_ns = None if request.timeout_ns is None else state.clock_ns() + request.timeout_ns
    while True:
        move, flight = approach(state, request, arrived)
        if move is SERVE or move is SERVE_STALE:
            if flight is not None:
                run.start(flight, load(state, run, flight, request))
            return serve(state, request, is_fresh=move is SERVE)
        assert flight is not None
        if move is LEAD:
            lead(state, run, (flight,), (request,), load(state, run, flight, request))
        value = await outcome(state, run, request, flight, move, ends_ns)
        if value is not AGAIN:
            return value


def serve(state: State, request: Request, *, is_fresh: bool) -> Any:  # Any: a value of any type
    """Return what was found as a hit, or raise the `NotFound` that is remembered."""
    if is_fresh:
        request.tally.hits += 1
        request.status = "hit"
    else:
        request.tally.stale_hits += 1
        request.status = "stale"
        if state.events.listeners:
            state.events.emit(EventKind.STALE, request.key)
    if request.is_absent:
        raise copy_exception(request.value)
    return hand_out(request, request.value)


def hand_out(request: Request, value: Any) -> Any:  # Any: a value of any type
    """Return the value, or the copy of it that the policy asks for."""
    return value if request.policy.copy is None else request.policy.copy(value)


def lead(state: State, run: Runtime, flights: Sequence[Flight], requests: Sequence[Request], coroutine: Load) -> None:
    """Run the load of `flights` as far as it goes without waiting."""
    first, policy = flights[0], requests[0].policy
    for request, flight in zip(requests, flights, strict=True):
        request.tally.misses += 1
        request.status = "bypass" if flight.is_fenced else "miss"
        if state.events.listeners:
            state.events.emit(EventKind.MISS, request.key)
    patient = requests[0].timeout_ns is None and policy.soft_timeout_ns is None and policy.load_timeout_ns is None
    parent = loading.get()
    if parent is not None and parent.outcome == PENDING:
        first.parent = parent
        with _waiting(parent, first, None):
            run.lead(first, coroutine, patient=patient)
    else:
        run.lead(first, coroutine, patient=patient)


async def outcome(
    state: State, run: Runtime, request: Request, flight: Flight, move: Move, ends_ns: int | None
) -> Any:  # Any: a value of any type
    """Wait for the flight and return what it brought this caller, or `AGAIN`."""
    if flight.outcome == PENDING:
        try:
            has_stand_in = await _wait(state, run, request, flight, ends_ns)
        except BaseException:
            if move is LEAD or move is JOIN:
                leave(state, flight)
            raise
        if has_stand_in:
            return serve(state, request, is_fresh=False)
        if flight.outcome == PENDING:
            return AGAIN
    if move is not LEAD:
        if move is not JOIN or flight.outcome == ABANDONED:
            return AGAIN
        if flight.was_overtaken and request.seen_epoch != flight.epoch:
            return AGAIN
        request.tally.joins += 1
        request.status = "joined"
        if state.events.listeners:
            state.events.emit(EventKind.JOIN, request.key)
    if flight.outcome == LANDED:
        request.load_ns = flight.load_ns
        return hand_out(request, flight.value)
    return _failed(state, request, flight, move)


def _failed(state: State, request: Request, flight: Flight, move: Move) -> Any:  # Any: a value of any type
    error = flight.error
    assert error is not None
    if flight.outcome != ABANDONED and not isinstance(error, NotFound):
        if fall_back(state, request, on_error=True):
            return serve(state, request, is_fresh=False)
    raise error if move is LEAD else copy_exception(error)


async def _wait(state: State, run: Runtime, request: Request, flight: Flight, ends_ns: int | None) -> bool:
    """Wait until the flight has ended; tell whether a stale value stands in for it, after `soft_timeout`."""
    parent = loading.get()
    signal = signal_of(state, flight)
    soft_ns = request.policy.soft_timeout_ns
    if soft_ns is not None and not fall_back(state, request, on_error=False):
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
                keep(state, flight)
                return True
            if limit_ns == late_ns:
                give_up_late(state, flight)
                break
            raise _timeout(request)
    return False


def _disown(state: State, flight: Flight) -> None:
    """Free the key of a flight whose event loop has stopped; nobody will end it."""
    with state.lock:
        state.retire(flight)


def _timeout(request: Request) -> LoadTimeout:
    seconds = (request.timeout_ns or 0) / 1e9
    error = LoadTimeout(f"no value within timeout={seconds:g} s; the load goes on for others that wait for it")
    error.key = request.key
    return error


@contextlib.contextmanager
def _waiting(parent: Flight | None, flight: Flight, stuck_loop: object) -> Iterator[None]:
    """Let the wait of one loader for another be seen, for as long as it lasts."""
    if parent is None or parent.outcome != PENDING:
        if stuck_loop is not None:
            check_progress(flight, None, stuck_loop)
        yield
        return
    parent.wait_for(flight, stuck_loop)
    try:
        yield
    finally:
        parent.done_waiting(flight)


async def load(state: State, run: Runtime, flight: Flight, request: Request) -> None:
    """Run the loader and end the flight. It belongs to no caller: whoever leads merely starts it."""
    limit = request.policy.max_concurrent_loads
    try:
        if limit is not None and not await take_turn(state, run, flight, limit):
            return
        result = await run.call(flight, request.loader, is_async=request.is_async)
    except BaseException as error:
        fail(state, flight, error, request)
        if not isinstance(error, Exception):
            raise
    else:
        land(state, flight, result, request)
    finally:
        if flight.gate is not None:
            with state.lock:
                flight.gate.leave()


async def take_turn(state: State, run: Runtime, flight: Flight, limit: int) -> bool:
    """Queue until fewer than `limit` loads are under way; tell whether the load is still wanted then."""
    with state.lock:
        gate = state.gates.setdefault(limit, Gate(limit))
        if flight.holds(gate):
            return True
        turn = gate.enter()
    if turn is not None:
        try:
            await run.join(turn, None, None)
        except BaseException:
            with state.lock:
                gate.give_up(turn)
            raise
    flight.gate = gate
    return may_begin(state, flight)
