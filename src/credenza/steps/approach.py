"""How a caller finds its value: at hand, in a flight to join, or by leading a new one."""

from __future__ import annotations

import math

from ..events import EventKind
from ..flight import Flight
from ..memory.implementation import Entry
from ..state import State
from .landing import settle_late
from .request import JOIN, LEAD, LOOK, REFRESH, SERVE, SERVE_STALE, WAIT, Move, Request


def approach(state: State, request: Request) -> Move:
    """Decide what the caller does: take what is at hand, join a flight, or lead a new one (`request.flight`)."""
    move = _approach(state, request)
    if state.table.gone:
        with state.lock:
            gone = state.take_gone()
        state.bury(gone)
    return move


def _approach(state: State, request: Request) -> Move:
    now_ns = state.clock_ns()
    key = request.key
    with state.lock:
        if state.is_closed:
            if request.look is not None:
                state.end_look(key, request.look)
                request.look = None
            state.check_open()
        if request.arrived < 0:
            request.arrived = state.arrivals
        entry = state.table.find(key) if now_ns < state.table.fresh_until_ns else None
        request.is_from_tier = False
        if request.look is not None:
            entry = adopt(state, request, now_ns) or entry
        if entry is not None and not request.is_forced:
            move = _serve(state, request, entry, now_ns)
            if move is not None:
                return move
        is_fenced = bool(state.fences) and state.fences.covers(key, request.tags)
        flight = state.flights.get(key)
        if flight is not None and is_joinable(state, flight, request, now_ns):
            request.flight = flight
            if is_fenced and flight.number <= request.arrived:
                return WAIT
            flight.waiters += 1
            flight.joined += 1
            request.place, request.boarded_ns = flight.joined, now_ns
            request.seen_epoch = state.table.epoch
            return JOIN
        if state.shared is not None and request.keeps and not (request.has_looked or is_fenced or request.is_forced):
            request.has_looked = True
            if state.shared.may_ask(key):
                request.look, request.found = state.begin_look(key), None
                return LOOK
        request.flight = begin(state, request, now_ns)
        if is_fenced:
            request.flight.is_fenced = True
        return LEAD


def adopt(state: State, request: Request, now_ns: int) -> Entry | None:
    """Keep what was found in the shared tier, unless something has changed the key meanwhile; the lock is held."""
    look, entry = request.look, request.found
    assert look is not None
    request.look = None
    is_unchanged = state.end_look(request.key, look) and request.found_is_kept
    if entry is None:
        return None
    request.is_from_tier = True
    entry.epoch = state.table.epoch
    tags = request.found_tags
    may_keep = is_unchanged and not state.is_overtaken(look.epoch, tags) and not state.fences.covers(entry.key, tags)
    if may_keep and state.table.fits(entry.weight):
        state.table.put(entry, tags, now_ns)
    return entry


def take(state: State, request: Request, entry: Entry, now_ns: int) -> None:
    """Read `entry` for the caller; the lock is held."""
    if not request.is_from_tier:
        state.note_read(entry, now_ns)
    request.value, request.is_absent = entry.value, entry.is_absent
    request.age_ns = now_ns - entry.stored_ns
    request.is_stale = now_ns >= entry.fresh_ns


def _serve(state: State, request: Request, entry: Entry, now_ns: int) -> Move | None:
    """Return the move that serves `entry`, or None if it takes a load first; the lock is held."""
    if request.is_from_tier:
        if now_ns >= entry.expire_ns:
            return None
    elif not state.table.is_alive(entry, now_ns):
        state.table.take_out(entry, EventKind.EXPIRED if now_ns >= entry.deadline_ns() else None)
        return None
    if now_ns < entry.fresh_ns:
        take(state, request, entry, now_ns)
        if request.policy.early_refresh and _is_early(state, entry, now_ns):
            return _begin_refresh(state, request, entry, now_ns) or SERVE
        return SERVE
    stale_ns = now_ns - entry.fresh_ns
    if stale_ns < entry.policy.stale_while_revalidate_ns:
        take(state, request, entry, now_ns)
        return _begin_refresh(state, request, entry, now_ns) or SERVE_STALE
    if now_ns < entry.retry_ns and stale_ns < entry.policy.stale_if_error_ns:
        take(state, request, entry, now_ns)
        return SERVE_STALE
    return None


def _is_early(state: State, entry: Entry, now_ns: int) -> bool:
    """Tell whether to refresh before the value expires.

    XFetch: Vattani, Chierichetti, Lowenstein, Optimal probabilistic cache stampede prevention, VLDB 2015, algorithm 1.
    """
    gap_ns = entry.load_ns * entry.policy.early_refresh * -math.log(1.0 - state.random())
    return not entry.is_absent and now_ns + gap_ns >= entry.fresh_ns


def _begin_refresh(state: State, request: Request, entry: Entry, now_ns: int) -> Move | None:
    """Begin a flight that nobody waits for, unless one is under way or the last one failed just now (F3)."""
    flight = state.flights.get(request.key)
    if flight is not None and is_joinable(state, flight, request, now_ns):
        return None
    if now_ns < entry.retry_ns:
        return None
    request.flight = begin(state, request, now_ns)
    request.flight.waiters = 0
    request.flight.is_kept = True
    request.seen, request.replaces_readable = entry.seen, bool(entry.seen)
    state.refreshes += 1
    return REFRESH


def is_joinable(state: State, flight: Flight, request: Request, now_ns: int) -> bool:
    """Tell whether the value of `flight` will do for a caller that comes now; take it off the register if not."""
    if now_ns >= flight.deadline_ns:
        settle_late(state, flight)
        return False
    home_is_gone = flight.home is not None and not flight.home.is_running()
    if home_is_gone or state.is_overtaken(flight.epoch, request.tags):
        state.retire(flight)
        gate = flight.first().gate
        if home_is_gone and gate is not None:
            gate.leave(flight.first())
        return False
    return True


def begin(state: State, request: Request, now_ns: int) -> Flight:
    """Register a new flight with the caller as its only waiter; the lock is held."""
    state.arrivals += 1
    flight = Flight(request.key, state.arrivals, state.table.epoch, now_ns)
    if request.policy.load_timeout_ns is not None:
        flight.deadline_ns = now_ns + request.policy.load_timeout_ns
    state.flights[request.key] = flight
    return flight
