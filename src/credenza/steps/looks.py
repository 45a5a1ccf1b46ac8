"""Look-ups in the shared tier, from beginning to end."""

from __future__ import annotations

from collections.abc import Iterable

from ..state import State
from .approach import adopt, is_joinable, take
from .request import Request


def begin_look(state: State, request: Request) -> bool:
    """Begin the look-up of a caller that loads nothing; tell whether the shared tier may be asked."""
    with state.lock:
        state.check_open()
        key = request.key
        is_fenced = bool(state.fences) and state.fences.covers(key, request.tags)
        if state.shared is None or is_fenced or not state.shared.may_ask(key):
            return False
        request.look = state.begin_look(key)
        return True


def begin_looks(state: State, requests: Iterable[Request]) -> list[Request]:
    """Begin the look-ups of those whose value is neither at hand nor being loaded, and return them."""
    looking = []
    now_ns = state.clock_ns()
    with state.lock:
        state.check_open()
        for request in requests:
            request.has_looked = True
            entry = state.table.find(request.key) if now_ns < state.table.fresh_until_ns else None
            is_at_hand = entry is not None and now_ns < entry.fresh_ns and state.table.is_alive(entry, now_ns)
            flight = state.flights.get(request.key)
            is_under_way = flight is not None and is_joinable(state, flight, request, now_ns)
            is_fenced = bool(state.fences) and state.fences.covers(request.key, request.tags)
            if is_at_hand or is_under_way or is_fenced:
                continue
            if state.shared is not None and state.shared.may_ask(request.key):
                request.look = state.begin_look(request.key)
                looking.append(request)
    return looking


def end_look(state: State, request: Request) -> bool:
    """Keep what the look-up found; tell whether it is a fresh value, which the request has then."""
    now_ns = state.clock_ns()
    with state.lock:
        entry = adopt(state, request, now_ns) if request.look is not None else None
        is_fresh = entry is not None and not entry.is_absent and now_ns < entry.fresh_ns
        if entry is not None and is_fresh:
            take(state, request, entry, now_ns)
        gone = state.take_gone()
    state.bury(gone)
    return is_fresh


def give_up_look(state: State, request: Request) -> None:
    """End the look-up of a caller that leaves."""
    with state.lock:
        if request.look is not None:
            state.end_look(request.key, request.look)
            request.look = None
