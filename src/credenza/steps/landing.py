"""How a flight ends: with a value, an error, or too late."""

from __future__ import annotations

from typing import Any

from ..errors import LoadTimeout, NotFound, copy_exception
from ..events import EventKind
from ..flight import ABANDONED, FAILED, LANDED, PENDING, Flight
from ..memory.implementation import Entry
from ..state import State
from .appraisal import absence, appraise
from .request import Request

_MOST_DOUBLINGS = 10


def land(state: State, flight: Flight, result: Any, request: Request) -> None:  # Any: what the loader returned
    """End `flight` with what its loader returned: store it if nothing overtook it, and let the waiters have it.

    Publishing and retiring are one step (L8). An error out of a `ttl` callable or a weigher is one of the loader.
    """
    now_ns = state.clock_ns()
    request.flight = flight
    try:
        value, entry, tags = appraise(state, request, result, now_ns)
    except Exception as error:
        fail(state, flight, error, request)
        return
    _end(state, flight, LANDED, value, entry, tags, now_ns)


def settle(
    state: State,
    flight: Flight,
    value: Any,
    entry: Entry | None,
    tags: tuple[object, ...],
) -> None:  # Any: a value of any type
    """End `flight` with an appraised value, or the `NotFound` that the entry remembers."""
    outcome = FAILED if entry is not None and entry.is_absent else LANDED
    _end(state, flight, outcome, value, entry, tags, state.clock_ns())


def fail(state: State, flight: Flight, error: BaseException, request: Request) -> None:
    """End `flight` with what its loader raised.

    Nothing is stored, but for a `NotFound` that the policy remembers. An error that concerns its leader alone
    (`CancelledError`, `KeyboardInterrupt` and their like) abandons the flight, and a waiter leads the next one (L2).
    """
    now_ns = state.clock_ns()
    request.flight = flight
    entry = absence(state, request, error, now_ns) if isinstance(error, NotFound) else None
    outcome = FAILED if isinstance(error, Exception) else ABANDONED
    if outcome is FAILED and flight.is_kept and state.events.listeners:
        state.events.emit(EventKind.REFRESH_FAILED, flight.key, type(error).__qualname__)
    _end(state, flight, outcome, error, entry, request.tags, now_ns)


def strike(state: State, flight: Flight) -> None:
    """Abandon a flight that could not be ended, for want of stack or memory; this asks for as little of both as can be (L3)."""
    with state.lock:
        if state.flights.get(flight.key) is flight:
            state.flights.pop(flight.key, None)
        if flight.outcome == PENDING:
            flight.outcome = ABANDONED
        signal = flight.signal
    if signal is not None:
        signal.set()


def give_up_late(state: State, flight: Flight) -> None:
    """End `flight` for everyone, since its load took longer than `load_timeout`."""
    with state.lock:
        is_late = flight.outcome == PENDING
        settle_late(state, flight)
    if is_late and state.events.listeners:
        _tell(state, flight, None)


def settle_late(state: State, flight: Flight) -> None:
    """End what is pending of the crew as too late, and stop its load; the lock is held."""
    for member in flight.crew or (flight,):
        if member.outcome == PENDING:
            seconds = (member.deadline_ns - member.began_ns) / 1e9
            member.error = LoadTimeout(f"the load took longer than load_timeout={seconds:g} s").about(member.key)
            member.load_ns = member.deadline_ns - member.began_ns
            _count_load(state, member, has_failed=True)
            if state.retire(member):
                _note_failure(state, member, member.deadline_ns)
            member.outcome = FAILED
            if member.signal is not None:
                member.signal.set()
    cancel = flight.first().cancel
    if cancel is not None:
        cancel()


def _end(
    state: State,
    flight: Flight,
    outcome: int,
    result: Any,  # Any: the value, or the error
    entry: Entry | None,
    tags: tuple[object, ...],
    now_ns: int,
) -> None:
    """Publish and retire in one step, then wake whoever waits."""
    spare = None if outcome == LANDED else copy_exception(result)
    with state.lock:
        if flight.outcome != PENDING:
            return
        flight.load_ns = now_ns - flight.began_ns
        if outcome == LANDED:
            flight.value = result
        else:
            flight.error, flight.spare = result, spare
        _count_load(state, flight, has_failed=outcome != LANDED)
        is_current = state.retire(flight)
        if is_current and outcome == FAILED:
            _note_failure(state, flight, now_ns)
        flight.was_overtaken = state.is_overtaken(flight.epoch, tags)
        kind = None if entry is None else _publish(state, flight, entry, tags, now_ns, is_current=is_current)
        if is_current and outcome == LANDED and entry is None:
            state.table.remove(flight.key)  # what is newer than the entry is not to be kept
        state.prune_recent_tags()
        flight.outcome = outcome
        signal = flight.signal
        gone = state.take_gone()
    if signal is not None:
        signal.set()
    state.bury(gone)
    if state.events.listeners:
        _tell(state, flight, kind)


def _publish(
    state: State, flight: Flight, entry: Entry, tags: tuple[object, ...], now_ns: int, *, is_current: bool
) -> EventKind:
    """Store what was loaded unless something overtook it; the lock is held."""
    if (
        not is_current
        or flight.was_overtaken
        or flight.is_refused
        or (state.fences and state.fences.covers(flight.key, tags))
    ):
        state.refused_stores += 1
        return EventKind.REFUSED
    if not state.table.fits(entry.weight):
        state.table.remove(flight.key)
        return EventKind.TOO_HEAVY
    state.table.put(entry, tags, now_ns)
    state.stores += 1
    return EventKind.STORED


def _count_load(state: State, flight: Flight, *, has_failed: bool) -> None:
    """Count a load that ended, one of many keys once; that a record is not there is no failure. The lock is held."""
    if flight.first() is not flight or flight.is_found:
        return
    state.loads += 1
    state.load_total_ns += flight.load_ns
    state.load_failures += has_failed and not isinstance(flight.error, NotFound)


def _tell(state: State, flight: Flight, kind: EventKind | None) -> None:
    if flight.is_found:
        pass
    elif flight.outcome == LANDED:
        state.events.emit(EventKind.LOAD, flight.key)
    else:
        state.events.emit(EventKind.LOAD_FAILED, flight.key, type(flight.error).__qualname__)
    if kind is not None:
        state.events.emit(kind, flight.key)


def _note_failure(state: State, flight: Flight, now_ns: int) -> None:
    """Let the stale entry wait before its next refresh; one that the source no longer has goes. The lock is held."""
    entry = state.table.find(flight.key)
    if entry is None:
        return
    if isinstance(flight.error, NotFound):
        state.table.remove(flight.key)
        return
    backoff_ns = entry.policy.error_backoff_ns << min(entry.failures, _MOST_DOUBLINGS)
    entry.failures += 1
    entry.retry_ns = now_ns + int(backoff_ns * (1.0 - entry.policy.jitter * state.random()))
