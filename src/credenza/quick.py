"""The miss that meets nobody: the shortest way from a missing entry to a stored one.

A function without windows, limits and listeners (`may_be_quick`) takes it as long as no other call, write or load is
concerned. It is the same as `flow.read` with what cannot happen left out, and gives way to that as soon as something
does: both steps are atomic, and each tells whether it was possible. `bench` has what it saves.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable
from typing import Any

from .flight import ABANDONED, LANDED, Flight, loading
from .memory.implementation import Entry, Tally, compiled
from .policy import Policy
from .source import Loaded
from .state import State
from .steps.landing import strike

_DRAWS = 257
"""How many jittered ttls a function draws ahead; a draw costs more than storing the entry does."""


def may_be_quick(state: State, policy: Policy) -> bool:
    """Tell whether nothing in the policy takes more than loading and storing."""
    return (
        state.shared is None
        and policy.is_plain
        and not policy.has_own_ttl
        and not policy.negative_ttl_ns
        and not policy.stale_window_ns
        and policy.max_concurrent_loads is None
        and policy.load_timeout_ns is None
        and policy.soft_timeout_ns is None
        and state.weigh is None
        and not state.table.needs_touch
    )


def make_shortcut(state: State, policy: Policy, tally: Tally) -> Shortcut:
    """Return the shortcut of a function, compiled where the table is."""
    if compiled is None:
        return Shortcut(state, policy, tally)
    made: Shortcut = compiled.Shortcut(
        state=state,
        table=state.table,
        tally=tally,
        policy=policy,
        ttl_ns=policy.ttl_ns,
        jitter=jitter_of(policy),
        flight_type=Flight,
        loaded_type=Loaded,
        loading=loading,
        landed=LANDED,
        abandoned=ABANDONED,
    )
    return made


def jitter_of(policy: Policy) -> float:
    """Return the share by which a ttl may be shortened; a value that never expires has none."""
    return 0.0 if policy.ttl is None else policy.jitter


class Shortcut:
    """The two steps of a quick miss of one function.

    Attributes:
        strike: abandons a flight that may not have been ended, for want of stack or memory or because of Ctrl+C; harmless if it
            was. It asks for no frame of its own.
    """

    __slots__ = ("_next_ttl_ns", "_policy", "_random", "_state", "_table", "_tally", "strike")

    def __init__(self, state: State, policy: Policy, tally: Tally) -> None:
        self._state = state
        self._tally = tally
        self._table = state.table
        self._policy = policy
        self.strike: Callable[[Flight], None] = functools.partial(strike, state)
        self._draw()

    def flight_to(self, key: Hashable) -> Flight:
        """Return a flight that has not begun; whoever has it can strike it, wherever Ctrl+C comes from then on."""
        return Flight(key, 0, 0, 0)

    def take_off(self, flight: Flight) -> bool:
        """Begin a flight, or return False if there is more to look at."""
        state, key = self._state, flight.key
        if loading.get() is not None or state.events.listeners:
            return False
        flight.began_ns = state.clock_ns()
        with state.lock:
            flights = state.flights
            if self._table.find(key) is not None or key in flights or state.is_closed:
                return False
            flight.number = state.arrivals = state.arrivals + 1
            flight.epoch = self._table.epoch
            flights[key] = flight
        return True

    def touch_down(self, flight: Flight, value: Any, tags: tuple[object, ...]) -> bool:  # Any: what the loader returned
        """End the flight and store the value, or return False if there is more to look at.

        No tag was invalidated since the flight began as long as nothing was: then the table has the same epoch.
        """
        if isinstance(value, Loaded):
            return False
        state, table, key = self._state, self._table, flight.key
        if state.random is not self._random:
            self._draw()
        now_ns = state.clock_ns()
        load_ns = now_ns - flight.began_ns
        entry = Entry(key, value, self._policy, now_ns, now_ns + self._next_ttl_ns(), load_ns, 1)
        with state.lock:
            flights = state.flights
            if flights.get(key) is not flight or flight.epoch != table.epoch or state.fences:
                return False
            table.put(entry, tags, now_ns)
            flights.pop(key, None)  # unless the key's `__hash__` or `__eq__` has invalidated it just now
            tally = self._tally
            tally.loads += 1
            tally.stores += 1
            tally.load_ns += load_ns
            flight.value = value
            flight.load_ns = load_ns
            flight.outcome = LANDED
            gone = table.gone
            if gone:
                table.gone = []
        if flight.signal is not None:
            flight.signal.set()
        if gone:
            state.bury(gone)
        return True

    def _draw(self) -> None:
        """Draw the ttls of the next entries, anew if the source of randomness is another one."""
        random = self._random = self._state.random
        ttl_ns, jitter = self._policy.ttl_ns, jitter_of(self._policy)
        drawn = [ttl_ns - int(ttl_ns * jitter * random()) for _ in range(_DRAWS)]
        self._next_ttl_ns: Callable[[], int] = itertools.cycle(drawn).__next__
