"""Wrong versions of the cache, each of which breaks a rule: the simulation has to notice.

A mutant replaces functions of the core for the time of a test. Modules that imported a function by name get it too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from credenza import Loaded, NotFound, fence, flight, state
from credenza.flight import PENDING, Flight
from credenza.flow import read
from credenza.memory.implementation import Table
from credenza.state import State
from credenza.steps import appraisal, approach, landing, leaving
from credenza.steps.request import JOIN, LEAD, SERVE_STALE, WAIT, Move, Request

Patch = tuple[Any, str, Callable[[Any], Any]]  # where, which name, and what makes the wrong one of the right one

MUTANTS: dict[str, list[Patch]] = {}
"""By name; what each does is its docstring."""


def _mutant(where: Any, name: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def add(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MUTANTS.setdefault(make.__name__, []).append((where, name, make))
        return make

    return add


def mutated(name: str) -> contextlib.AbstractContextManager[None]:
    """Return a context with the mutant `name` in the place of the core."""
    return patched(MUTANTS[name])


@contextlib.contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """Run the block with wrong versions of functions, wherever they were imported."""
    changed: list[tuple[Any, str, Any]] = []
    try:
        for where, attribute, make in patches:
            right = getattr(where, attribute)
            wrong = make(right)
            for place in _places(where, attribute, right):
                changed.append((place, attribute, right))
                setattr(place, attribute, wrong)
        yield
    finally:
        for place, attribute, right in reversed(changed):
            setattr(place, attribute, right)


def _places(where: Any, attribute: str, right: Any) -> list[Any]:
    modules = [module for name, module in sys.modules.items() if name.startswith("credenza")]
    return [where, *(module for module in modules if module is not where and vars(module).get(attribute) is right)]


# Invalidation ---------------------------------------------------------------------------------------------------------


@_mutant(state.State, "_drop")
def invalidation_leaves_the_flight(right: Any) -> Any:
    """Who comes after an invalidation joins a load from before it, and that load is stored (I1)."""

    def wrong(self: State, key: Any) -> None:
        self.fences.disturb(key)
        self.table.remove(key)

    return wrong


@_mutant(state.State, "store")
def set_leaves_the_flight(right: Any) -> Any:
    """An older load overwrites a newer `set` (I2)."""

    def wrong(self: State, entry: Any, tags: Any, now_ns: int) -> None:
        flying = self.flights.get(entry.key)
        right(self, entry, tags, now_ns)
        if flying is not None and flying.outcome == PENDING and entry.key not in self.flights:
            self.flights[entry.key] = flying

    return wrong


@_mutant(state.State, "is_overtaken")
def tags_overtake_nothing(right: Any) -> Any:
    """A load that carries a tag invalidated meanwhile is stored (I2)."""
    return lambda self, epoch, tags: False


@_mutant(state.State, "clear")
def clear_forgets_the_flights(right: Any) -> Any:
    """`clear` takes out entries, and loads from before it are stored (I2)."""

    def wrong(self: State) -> None:
        self._take_out(self.table.living())

    return wrong


@_mutant(flight.Flight, "was_overtaken")
def overtaken_values_are_handed_to_all(right: Any) -> Any:
    """A value that turns out to carry an invalidated tag goes to those who came after that too (L2)."""
    return property(lambda self: False, lambda self, value: None)


@_mutant(state.State, "retire")
def retired_flights_count_as_current(right: Any) -> Any:
    """A detached flight takes its successor off the register, and is stored (I1, L1)."""
    return lambda self, flown: bool(self.flights.pop(flown.key, None)) or True


@_mutant(landing, "_end")
def detached_loads_are_stored(right: Any) -> Any:
    """A load is stored although an invalidation has detached its flight (I1)."""

    def wrong(where: State, flown: Flight, *how: Any) -> None:
        with where.lock:
            if flown.outcome == PENDING and flown.key not in where.flights:
                where.flights[flown.key] = flown
        right(where, flown, *how)

    return wrong


# Fences ---------------------------------------------------------------------------------------------------------------


@_mutant(fence.Fences, "covers")
def fences_cover_nothing(right: Any) -> Any:
    """What is loaded during a write is stored (I3)."""
    return lambda self, key, tags: False


@_mutant(fence.Fences, "was_alone")
def write_through_looks_at_nobody_else(right: Any) -> Any:
    """Write-through stores its value although others wrote too (I5)."""
    return lambda self, permit, key: True


@_mutant(fence.Fences, "leave")
def the_first_to_leave_takes_the_fence_down(right: Any) -> Any:
    """Of two writers of one key the first one to end ends the fence of the other (I3)."""

    def wrong(self: Any, permit: Any) -> None:
        for key in permit.keys:
            self._keys.pop(key, None)
        for tag in permit.tags:
            self._tags.pop(tag, None)

    return wrong


@_mutant(approach, "approach")
def readers_inside_a_fence_join_older_flights(right: Any) -> Any:
    """Inside a fence a reader takes what a load from before it brings (I3)."""

    def wrong(where: State, request: Request) -> Move:
        move = right(where, request)
        if move is WAIT:
            request.flight.waiters += 1
            return JOIN
        return move

    return wrong


@_mutant(state.State, "leave_fence")
def leaving_a_fence_invalidates_nothing(right: Any) -> Any:
    """What was loaded before the write ended is joined after it (I3)."""

    def wrong(self: State, permit: Any, entry: Any = None, tags: Any = ()) -> None:
        with self.lock:
            flying = {key: self.flights[key] for key in permit.keys if key in self.flights}
            right(self, permit, entry, tags)
            for key, flown in flying.items():
                if key not in self.flights:
                    self.flights[key] = flown

    return wrong


# Flights --------------------------------------------------------------------------------------------------------------


@_mutant(landing, "_end")
def retired_before_published(right: Any) -> Any:
    """Between the end of a flight and the storing of its value a second load starts (L8)."""

    def wrong(where: State, flown: Flight, *how: Any) -> None:
        with where.lock:
            is_current = where.flights.get(flown.key) is flown and flown.outcome == PENDING
            if is_current:
                del where.flights[flown.key]
        with where.lock:
            other = where.flights.pop(flown.key, None)
            if is_current:
                where.flights[flown.key] = flown
            right(where, flown, *how)
            if other is not None:
                where.flights[flown.key] = other

    return wrong


@_mutant(leaving, "leave")
def who_leaves_cancels_nothing(right: Any) -> Any:
    """A load goes on though nobody waits for it (L5)."""

    def wrong(where: State, flown: Flight) -> None:
        with where.lock:
            flown.waiters -= 1

    return wrong


@_mutant(leaving, "leave")
def who_leaves_cancels_for_all(right: Any) -> Any:
    """One client that leaves stops the load of all others (L5)."""

    def wrong(where: State, flown: Flight) -> None:
        with where.lock:
            flown.waiters = 1
        right(where, flown)

    return wrong


@_mutant(leaving, "keep")
def soft_timeout_leaves_without_keeping(right: Any) -> Any:
    """Who takes the stale value stays counted as a waiter, and nobody can stop the load any more (L5)."""
    return lambda where, flown: None


@_mutant(landing, "fail")
def cancellations_are_shared(right: Any) -> Any:
    """A load that was cancelled or interrupted ends all who wait for it (L2)."""

    def wrong(where: State, flown: Flight, error: BaseException, request: Request) -> None:
        outcome, landing.ABANDONED = landing.ABANDONED, landing.FAILED
        try:
            right(where, flown, error, request)
        finally:
            landing.ABANDONED = outcome

    return wrong


@_mutant(landing, "fail")
def failures_wake_nobody(right: Any) -> Any:
    """Who waits for a load that fails waits for ever (L3)."""

    def wrong(where: State, flown: Flight, error: BaseException, request: Request) -> None:
        signal, flown.signal = flown.signal, None
        right(where, flown, error, request)
        if signal is not None:
            signal.is_set = False
            flown.signal = signal

    return wrong


@_mutant(landing, "land")
def values_not_to_be_kept_are_kept(right: Any) -> Any:
    """What is not to be kept is kept: `Loaded(value, ttl=0)` is stored for the policy's ttl (F1)."""

    def wrong(where: State, flown: Flight, result: Any, request: Request) -> None:
        if isinstance(result, Loaded):
            result = Loaded(result.value, tags=result.tags)
        right(where, flown, result, request)

    return wrong


@_mutant(read, "finish")
def timeouts_are_late(right: Any) -> Any:
    """A call ends some time after its timeout (L6)."""

    async def wrong(where: State, run: Any, request: Request) -> Any:
        if request.timeout_ns is not None:
            request.timeout_ns *= 2
        return await right(where, run, request)

    return wrong


# Freshness ------------------------------------------------------------------------------------------------------------


@_mutant(appraisal, "make_entry")
def jitter_lengthens(right: Any) -> Any:
    """Jitter makes a ttl longer (F1)."""

    def wrong(where: State, key: Any, value: Any, policy: Any, ttl_ns: int, now_ns: int, load_ns: int = 0) -> Any:
        longer_ns = ttl_ns + int(ttl_ns * policy.jitter * where.random())
        return right(where, key, value, policy.replace({"jitter": 0.0}), longer_ns, now_ns, load_ns)

    return wrong


@_mutant(approach, "_begin_refresh")
def refreshes_are_not_deduplicated(right: Any) -> Any:
    """Every reader of a stale value starts a refresh (F3)."""

    def wrong(where: State, request: Request, entry: Any, now_ns: int) -> Any:
        where.flights.pop(request.key, None)
        return right(where, request, entry, now_ns)

    return wrong


@_mutant(Table, "is_alive")
def dead_entries_are_served(right: Any) -> Any:
    """An entry is alive as long as nobody takes it out, though its tag was invalidated (I2) or nobody read it (F1)."""
    return lambda self, entry, now_ns: entry.fast_ns != -1


@_mutant(approach, "_serve")
def stale_values_are_served_before_any_failure(right: Any) -> Any:
    """Within `stale_if_error` the old value is served though nothing has failed (F1)."""

    def wrong(where: State, request: Request, entry: Any, now_ns: int) -> Any:
        move = right(where, request, entry, now_ns)
        if move is None and now_ns < entry.expire_ns and where.table.find(request.key) is entry:
            approach.take(where, request, entry, now_ns)
            return SERVE_STALE
        return move

    return wrong


@_mutant(landing, "_note_failure")
def failed_refreshes_do_not_back_off(right: Any) -> Any:
    """After a failed refresh the next reader starts another one at once (F3)."""

    def wrong(where: State, flown: Flight, now_ns: int) -> None:
        if isinstance(flown.error, NotFound):
            right(where, flown, now_ns)

    return wrong


# Bulk -----------------------------------------------------------------------------------------------------------------


@_mutant(read, "outcome")
def waiters_count_as_leaders(right: Any) -> Any:
    """Who joined gets the leader's exception itself, not a copy (L2)."""

    async def wrong(where: State, run: Any, request: Request, ends_ns: int | None) -> Any:
        if request.move is JOIN:
            request.move = LEAD
        return await right(where, run, request, ends_ns)

    return wrong


@_mutant(flight.Gate, "enter")
def gates_let_everybody_through(right: Any) -> Any:
    """`max_concurrent_loads` bounds nothing."""
    return lambda self, flown: None
