"""The miss that meets nobody: the shortest way from a missing entry to a stored one.

A function without tags, windows, limits and listeners (`may_be_quick`) takes it as long as no other call, write or load is
concerned. It is the same as `flow.read` with what cannot happen left out, and gives way to that as soon as something
does: both steps are atomic, and each tells whether it was possible. `bench` has what it saves.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .flight import LANDED, Flight, loading
from .memory.entry import Entry
from .memory.table import Scope
from .policy import Policy
from .source import Loaded
from .state import State


def may_be_quick(state: State, policy: Policy) -> bool:
    """Tell whether nothing in the policy takes more than loading and storing."""
    return (
        policy.is_plain
        and not policy.has_own_ttl
        and not policy.negative_ttl_ns
        and not policy.stale_window_ns
        and policy.max_concurrent_loads is None
        and policy.load_timeout_ns is None
        and policy.soft_timeout_ns is None
        and state.weigh is None
        and not state.table.needs_touch
    )


def take_off(state: State, scope: Scope, slot: Hashable) -> Flight | None:
    """Begin a flight, or return None if there is more to look at."""
    if loading.get() is not None or state.events.listeners:
        return None
    key = (scope, slot)
    now_ns = state.clock_ns()
    with state.lock:
        if slot in scope.entries or key in state.flights or state.fences or state.is_closed:
            return None
        state.arrivals += 1
        flight = state.flights[key] = Flight(key, state.arrivals, state.table.epoch, now_ns)
    return flight


def touch_down(state: State, flight: Flight, value: Any, policy: Policy) -> bool:  # Any: what the loader returned
    """End the flight and store the value, or return False if there is more to look at."""
    if isinstance(value, Loaded):
        return False
    now_ns = state.clock_ns()
    load_ns = now_ns - flight.began_ns
    ttl_ns = policy.ttl_ns
    if policy.jitter and policy.ttl is not None:
        ttl_ns -= int(ttl_ns * policy.jitter * state.random())
    entry = Entry(flight.key, value, policy, now_ns, now_ns + ttl_ns, load_ns, 1)
    table, flights = state.table, state.flights
    with state.lock:
        if flights.get(flight.key) is not flight or flight.epoch != table.epoch or state.fences:
            return False
        del flights[flight.key]
        table.put(entry, (), now_ns)
        state.loads += 1
        state.stores += 1
        state.load_total_ns += load_ns
        flight.value = value
        flight.load_ns = load_ns
        flight.outcome = LANDED
        signal = flight.signal
        gone, table.gone = table.gone, []
    if signal is not None:
        signal.set()
    if gone:
        state.bury(gone)
    return True
