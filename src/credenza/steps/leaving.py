"""How callers part from a flight: with its value, with a stand-in, or with nothing."""

from __future__ import annotations

from ..flight import ABANDONED, PENDING, Flight, Signal
from ..memory.implementation import Entry
from ..state import State
from .approach import take
from .request import Request


def signal_of(state: State, flight: Flight) -> Signal:
    """Return what is set when `flight` has ended."""
    with state.lock:
        if flight.signal is None:
            flight.signal = Signal()
            if flight.outcome != PENDING:
                flight.signal.set()
        return flight.signal


def may_share(state: State, flight: Flight, request: Request) -> bool:
    """Tell whether the value of a flight will do for a caller that joined it, by what the shared tier has shown.

    It will if the caller came before the flight began, or joined before what shows that the value was current; a bound on
    staleness allows for as much more.
    """
    if request.place <= flight.seal or flight.number > request.arrived:
        return True
    return state.shared is not None and request.boarded_ns - flight.sealed_ns < state.shared.allowance_ns


def leave(state: State, flight: Flight) -> None:
    """Stop waiting for `flight`. When the last one leaves, a load that can be stopped is, and the key is free (L5)."""
    with state.lock:
        flight.waiters -= 1
        cancel = flight.first().cancel
        if flight.outcome != PENDING or cancel is None or flight.is_wanted():
            return
        for member in flight.crew or (flight,):
            state.retire(member)
    cancel()


def keep(state: State, flight: Flight) -> None:
    """Stop waiting for `flight`, and let it go on behind its readers."""
    with state.lock:
        flight.is_kept = True
        flight.waiters -= 1


def fall_back(state: State, request: Request, *, on_error: bool) -> bool:
    """Take the stale value that may stand in for a load that failed (`on_error`) or takes too long, if there is one."""
    now_ns = state.clock_ns()
    with state.lock:
        entry = _stand_in(state, request, now_ns)
        if entry is None or (on_error and now_ns >= entry.fresh_ns + entry.policy.stale_if_error_ns):
            return False
        take(state, request, entry, now_ns)
        return True


def has_stand_in(state: State, request: Request) -> bool:
    """Tell whether `fall_back` would find something now, and leave no trace."""
    now_ns = state.clock_ns()
    with state.lock:
        return _stand_in(state, request, now_ns) is not None


def _stand_in(state: State, request: Request, now_ns: int) -> Entry | None:
    entry = state.table.find(request.key) if now_ns < state.table.fresh_until_ns else None
    if entry is None or not state.table.is_alive(entry, now_ns):
        entry = request.found
        if entry is None or now_ns >= entry.expire_ns:
            return None
    return None if request.is_forced or entry.is_absent else entry


def may_begin(state: State, flight: Flight) -> bool:
    """Tell whether the loader is still wanted after it queued for its turn; end the flight if not."""
    with state.lock:
        pending = [member for member in flight.crew or (flight,) if member.outcome == PENDING]
        if not state.is_closed and any(member.waiters > 0 or member.is_kept for member in pending):
            return True
        for member in flight.crew or (flight,):
            state.retire(member)
            if member.outcome == PENDING:
                member.outcome = ABANDONED
                member.was_closed = state.is_closed
                if member.signal is not None:
                    member.signal.set()
        return False
