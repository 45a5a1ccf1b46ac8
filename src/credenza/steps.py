"""The atomic steps of a read: each takes the state's lock once and waits for nothing."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Hashable
from typing import Any, Final

from .durations import Duration, nanoseconds_of
from .errors import LoadTimeout, NotFound, copy_exception
from .events import EventKind
from .flight import ABANDONED, FAILED, LANDED, PENDING, Flight, Signal
from .keys import check_tags
from .memory.entry import Entry
from .policy import Policy, ttl_ns_of
from .sentinel import MISSING, MissingType
from .source import Loaded
from .state import State, make_entry
from .stats import Status, Tally

_MOST_DOUBLINGS = 10


class Move(enum.Enum):
    """What a caller has to do next."""

    SERVE = enum.auto()
    """Take the value that was found; it is fresh."""
    SERVE_STALE = enum.auto()
    """Take the value that was found; it is stale."""
    REFRESH = enum.auto()
    """Take the value that was found, fresh or stale, and start the flight behind the caller's back."""
    LEAD = enum.auto()
    """Run the load of the flight."""
    JOIN = enum.auto()
    """Wait for the flight and use what it brings."""
    WAIT = enum.auto()
    """Wait for the flight, use nothing of it, and ask again: it began before a write that is under way."""


AGAIN: Final = object()
"""No value yet: the caller has to wait, or to ask again."""

SERVE: Final = Move.SERVE
SERVE_STALE: Final = Move.SERVE_STALE
REFRESH: Final = Move.REFRESH
LEAD: Final = Move.LEAD
JOIN: Final = Move.JOIN
WAIT: Final = Move.WAIT


class Request:
    """What one call wants for one key, and what it found.

    Attributes:
        loader: the user's loader, as the caller's face takes it.
        tags: what the value will carry at least.
        seen_epoch: the table's epoch when the caller joined its flight.
        is_async: calling the loader gives a coroutine.
        is_forced: load even if a fresh value is at hand (`refresh`).
        keeps: whether what is loaded may be stored at all; False for `Flights`.
        value, is_absent, is_stale: what was found in memory; taken under the lock, as an entry that leaves loses its value.
        status, age_ns, load_ns: for `Fetched`, filled in on the way.
    """

    timeout_ns: int | None = None
    is_forced: bool = False
    keeps: bool = True
    arrived: int = -1
    seen_epoch: int = 0
    status: Status = Status.MISS
    value: Any = MISSING  # Any: a value of any type
    awaitable: Any = None  # Any: what a plain loader returned in the async face, if it is to be awaited
    is_absent: bool = False
    is_stale: bool = False
    age_ns: int = 0
    load_ns: int = 0
    move: Move
    flight: Flight

    def __init__(
        self,
        key: Hashable,
        loader: Callable[..., Any],  # Any: a value, or an awaitable of one in the async face
        policy: Policy,
        tags: tuple[object, ...],
        tally: Tally,
        is_async: bool,  # noqa: FBT001  # made on every miss, where keywords would show in the figures
    ) -> None:
        self.key = key
        self.loader = loader
        self.policy = policy
        self.tags = tags
        self.tally = tally
        self.is_async = is_async


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
            state.check_open()
        if request.arrived < 0:
            request.arrived = state.arrivals
        entry = state.table.find(key)
        if entry is not None and not request.is_forced:
            move = _serve(state, request, entry, now_ns)
            if move is not None:
                return move
        is_fenced = bool(state.fences) and state.fences.covers(key, request.tags)
        flight = state.flights.get(key)
        if flight is not None and _is_joinable(state, flight, request, now_ns):
            request.flight = flight
            if is_fenced and flight.number <= request.arrived:
                return WAIT
            flight.waiters += 1
            request.seen_epoch = state.table.epoch
            return JOIN
        request.flight = begin(state, request, now_ns)
        if is_fenced:
            request.flight.is_fenced = True
        return LEAD


def take(state: State, request: Request, entry: Entry, now_ns: int) -> None:
    """Read `entry` for the caller; the lock is held."""
    state.note_read(entry, now_ns)
    request.value, request.is_absent = entry.value, entry.is_absent
    request.age_ns = now_ns - entry.stored_ns
    request.is_stale = now_ns >= entry.fresh_ns


def _serve(state: State, request: Request, entry: Entry, now_ns: int) -> Move | None:
    """Return the move that serves `entry`, or None if it takes a load first; the lock is held."""
    if not state.table.is_alive(entry, now_ns):
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
    if flight is not None and _is_joinable(state, flight, request, now_ns):
        return None
    if now_ns < entry.retry_ns:
        return None
    request.flight = begin(state, request, now_ns)
    request.flight.waiters = 0
    request.flight.is_kept = True
    state.refreshes += 1
    return REFRESH


def _is_joinable(state: State, flight: Flight, request: Request, now_ns: int) -> bool:
    """Tell whether the value of `flight` will do for a caller that comes now; take it off the register if not."""
    if now_ns >= flight.deadline_ns:
        _settle_late(state, flight)
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


def signal_of(state: State, flight: Flight) -> Signal:
    """Return what is set when `flight` has ended."""
    with state.lock:
        if flight.signal is None:
            flight.signal = Signal()
            if flight.outcome != PENDING:
                flight.signal.set()
        return flight.signal


def land(state: State, flight: Flight, result: Any, request: Request) -> None:  # Any: what the loader returned
    """End `flight` with what its loader returned: store it if nothing overtook it, and let the waiters have it.

    Publishing and retiring are one step (L8). An error out of a `ttl` callable or a weigher is one of the loader.
    """
    now_ns = state.clock_ns()
    load_ns = now_ns - flight.began_ns
    tags, entry = request.tags, None
    value: Any = result  # Any: as above
    ttl: Duration | None | MissingType = MISSING
    if isinstance(result, Loaded):
        value, ttl = result.value, result.ttl
        tags = tuple(dict.fromkeys((*tags, *check_tags(result.tags))))
    if request.keeps:
        policy = request.policy
        try:
            is_usual = ttl is MISSING and value is not None and not policy.has_own_ttl
            ttl_ns = policy.ttl_ns if is_usual else ttl_ns_for(policy, value, ttl)
            if ttl_ns:
                entry = make_entry(state, request.key, value, policy, ttl_ns, now_ns, load_ns)
                if value is None and policy.negative_ttl_ns and ttl is MISSING:
                    entry.expire_ns = entry.fresh_ns  # "not found" is never served stale, however it was said
        except Exception as error:
            fail(state, flight, error, request)
            return
    _end(state, flight, LANDED, value, entry, tags, now_ns)


def ttl_ns_for(policy: Policy, value: Any, ttl: Any) -> int:  # Any: a value; a ttl or MISSING
    """Return how long to keep `value`; 0 for not at all."""
    if ttl is not MISSING:
        return 0 if ttl is not None and not nanoseconds_of(ttl, name="ttl") else ttl_ns_of(ttl)
    if value is None and policy.negative_ttl_ns:
        return policy.negative_ttl_ns
    if policy.has_own_ttl and callable(policy.ttl):
        chosen = policy.ttl(value)
        return 0 if chosen is not None and not nanoseconds_of(chosen, name="ttl") else ttl_ns_of(chosen)
    return policy.ttl_ns


def fail(state: State, flight: Flight, error: BaseException, request: Request) -> None:
    """End `flight` with what its loader raised.

    Nothing is stored, but for a `NotFound` that the policy remembers. An error that concerns its leader alone
    (`CancelledError`, `KeyboardInterrupt` and their like) abandons the flight, and a waiter leads the next one (L2).
    """
    now_ns = state.clock_ns()
    entry = None
    if isinstance(error, NotFound) and request.policy.negative_ttl_ns and request.keeps:
        ttl_ns = request.policy.negative_ttl_ns
        kept = copy_exception(error).with_traceback(None)  # which would keep the frames of whoever led
        kept.__context__ = kept.__cause__ = None
        entry = make_entry(
            state, request.key, kept, request.policy, ttl_ns, now_ns, now_ns - flight.began_ns, is_absent=True
        )
    outcome = FAILED if isinstance(error, Exception) else ABANDONED
    if outcome is FAILED and flight.is_kept and state.events.listeners:
        state.events.emit(EventKind.REFRESH_FAILED, flight.key, type(error).__qualname__)
    _end(state, flight, outcome, error, entry, request.tags, now_ns)


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
    if not is_current or flight.was_overtaken or (state.fences and state.fences.covers(flight.key, tags)):
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
    if flight.first() is not flight:
        return
    state.loads += 1
    state.load_total_ns += flight.load_ns
    state.load_failures += has_failed and not isinstance(flight.error, NotFound)


def _tell(state: State, flight: Flight, kind: EventKind | None) -> None:
    if flight.outcome == LANDED:
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


def give_up_late(state: State, flight: Flight) -> None:
    """End `flight` for everyone, since its load took longer than `load_timeout`."""
    with state.lock:
        is_late = flight.outcome == PENDING
        _settle_late(state, flight)
    if is_late and state.events.listeners:
        _tell(state, flight, None)


def _settle_late(state: State, flight: Flight) -> None:
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
    entry = state.table.find(request.key)
    if entry is None or request.is_forced or entry.is_absent or not state.table.is_alive(entry, now_ns):
        return None
    return entry


def may_begin(state: State, flight: Flight) -> bool:
    """Tell whether the loader is still wanted after it queued for its turn; end the flight if not."""
    with state.lock:
        if flight.outcome == PENDING and flight.is_wanted() and not state.is_closed:
            return True
        for member in flight.crew or (flight,):
            state.retire(member)
            if member.outcome == PENDING:
                member.outcome = ABANDONED
                member.was_closed = state.is_closed
                if member.signal is not None:
                    member.signal.set()
        return False
