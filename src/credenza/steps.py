"""The atomic steps of a read: each takes the state's lock once and waits for nothing."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final

from .codec import TypedCodec
from .durations import Duration, nanoseconds_of
from .errors import LoadTimeout, NotFound, copy_exception
from .events import EventKind
from .flight import ABANDONED, FAILED, LANDED, PENDING, Flight, Signal
from .keys import check_tags
from .memory.entry import Entry
from .policy import Policy, ttl_ns_of
from .sentinel import MISSING, MissingType
from .source import Loaded
from .state import Look, State, make_entry
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
    LOOK = enum.auto()
    """Look in the shared tier, and ask again."""


AGAIN: Final = object()
"""No value yet: the caller has to wait, or to ask again."""

SERVE: Final = Move.SERVE
SERVE_STALE: Final = Move.SERVE_STALE
REFRESH: Final = Move.REFRESH
LEAD: Final = Move.LEAD
JOIN: Final = Move.JOIN
WAIT: Final = Move.WAIT
LOOK: Final = Move.LOOK


class Request:
    """What one call wants for one key, and what it found.

    Attributes:
        loader: the user's loader, as the caller's face takes it.
        tags: what the value will carry at least.
        seen_epoch: the table's epoch when the caller joined its flight.
        is_async: calling the loader gives a coroutine.
        is_forced: load even if a fresh value is at hand (`refresh`).
        keeps: whether what is loaded may be stored at all; False for `Flights`.
        place: how many callers had joined its flight when it did, itself included; `boarded_ns` is when that was.
        has_looked: the shared tier has been asked.
        look: its look-up in the shared tier, which has not been ended.
        is_from_tier: what is served is what its look-up found.
        tier_ns: how long the shared tier may take for it, 0 for as long as the policy says.
        found: what that brought, and `found_tags` the tags of it; not in memory yet, and to go there if `found_is_kept`.
        settlements: how many settlements of what is owed there had been when the shared tier was asked.
        seen: the beginning of the shared record that is to be replaced; b"" if there is none. `replaces_readable` tells
            whether others can still use it.
        typed: what decodes and encodes its values for the shared tier; None where there is none.
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
    place: int = 0
    boarded_ns: int = 0
    has_looked: bool = False
    look: Look | None = None
    found: Entry | None = None
    found_tags: tuple[object, ...] = ()
    found_is_kept: bool = True
    seen: bytes = b""
    replaces_readable: bool = False
    is_from_tier: bool = False
    tier_ns: int = 0
    settlements: int = 0
    typed: TypedCodec | None = None
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
            if request.look is not None:
                state.end_look(key, request.look)
                request.look = None
            state.check_open()
        if request.arrived < 0:
            request.arrived = state.arrivals
        entry = state.table.find(key) if now_ns < state.table.fresh_until_ns else None
        request.is_from_tier = False
        if request.look is not None:
            entry = _adopt(state, request, now_ns) or entry
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


def _adopt(state: State, request: Request, now_ns: int) -> Entry | None:
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
            is_under_way = flight is not None and _is_joinable(state, flight, request, now_ns)
            is_fenced = bool(state.fences) and state.fences.covers(request.key, request.tags)
            if is_at_hand or is_under_way or is_fenced:
                continue
            if state.shared is not None and state.shared.may_ask(request.key):
                request.look = state.begin_look(request.key)
                looking.append(request)
    return looking


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


def end_look(state: State, request: Request) -> bool:
    """Keep what the look-up found; tell whether it is a fresh value, which the request has then."""
    now_ns = state.clock_ns()
    with state.lock:
        entry = _adopt(state, request, now_ns) if request.look is not None else None
        is_fresh = entry is not None and not entry.is_absent and now_ns < entry.fresh_ns
        if entry is not None and is_fresh:
            take(state, request, entry, now_ns)
        gone = state.take_gone()
    state.bury(gone)
    return is_fresh


def may_share(state: State, flight: Flight, request: Request) -> bool:
    """Tell whether the value of a flight will do for a caller that joined it, by what the shared tier has shown.

    It will if the caller came before the flight began, or joined before what shows that the value was current; a bound on
    staleness allows for as much more.
    """
    if request.place <= flight.seal or flight.number > request.arrived:
        return True
    return state.shared is not None and request.boarded_ns - flight.sealed_ns < state.shared.allowance_ns


def give_up_look(state: State, request: Request) -> None:
    """End the look-up of a caller that leaves."""
    with state.lock:
        if request.look is not None:
            state.end_look(request.key, request.look)
            request.look = None


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
    if flight is not None and _is_joinable(state, flight, request, now_ns):
        return None
    if now_ns < entry.retry_ns:
        return None
    request.flight = begin(state, request, now_ns)
    request.flight.waiters = 0
    request.flight.is_kept = True
    request.seen, request.replaces_readable = entry.seen, bool(entry.seen)
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
    request.flight = flight
    try:
        value, entry, tags = appraise(state, request, result, now_ns)
    except Exception as error:
        fail(state, flight, error, request)
        return
    _end(state, flight, LANDED, value, entry, tags, now_ns)


def appraise(
    state: State, request: Request, result: Any, now_ns: int
) -> tuple[Any, Entry | None, tuple[object, ...]]:  # Any: what the loader returned, and the value in it
    """Return the value that a loader returned, the entry to keep it in, None for not at all, and its tags.

    Raises: what a `ttl` callable or a weigher raises; both are the user's.
    """
    tags = request.tags
    value: Any = result  # Any: as above
    ttl: Duration | None | MissingType = MISSING
    if isinstance(result, Loaded):
        value, ttl = result.value, result.ttl
        tags = tuple(dict.fromkeys((*tags, *check_tags(result.tags))))
    if not request.keeps:
        return value, None, tags
    policy = request.policy
    is_usual = ttl is MISSING and value is not None and not policy.has_own_ttl
    ttl_ns = policy.ttl_ns if is_usual else ttl_ns_for(policy, value, ttl)
    if not ttl_ns:
        return value, None, tags
    load_ns = now_ns - request.flight.began_ns
    entry = make_entry(state, request.key, value, policy, ttl_ns, now_ns, load_ns)
    if value is None and policy.negative_ttl_ns and ttl is MISSING:
        entry.expire_ns = entry.fresh_ns  # "not found" is never served stale, however it was said
    return value, entry, tags


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
    request.flight = flight
    entry = absence(state, request, error, now_ns) if isinstance(error, NotFound) else None
    outcome = FAILED if isinstance(error, Exception) else ABANDONED
    if outcome is FAILED and flight.is_kept and state.events.listeners:
        state.events.emit(EventKind.REFRESH_FAILED, flight.key, type(error).__qualname__)
    _end(state, flight, outcome, error, entry, request.tags, now_ns)


def absence(state: State, request: Request, error: NotFound, now_ns: int) -> Entry | None:
    """Return the entry that remembers `error`, None if the policy remembers nothing of the kind."""
    ttl_ns = request.policy.negative_ttl_ns
    if not ttl_ns or not request.keeps:
        return None
    kept = copy_exception(error).with_traceback(None)  # which would keep the frames of whoever led
    kept.__context__ = kept.__cause__ = None
    load_ns = now_ns - request.flight.began_ns
    return make_entry(state, request.key, kept, request.policy, ttl_ns, now_ns, load_ns, is_absent=True)


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
