"""What the compiled shortcuts use of a cache's state and of a flight, apart from the rest so that it can be fields in C."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


class StateFields:
    """The base of `State`, which sets all of them.

    Attributes:
        lock: guards the state.
        flights: the loads under way by key.
        random: returns what ttls are shortened by.
        arrivals: the number of the flight that began last.
        is_closed: nothing is stored any more.
    """

    lock: Any  # Any: a re-entrant lock, also that of a simulation
    flights: dict[Hashable, Any]  # Any: a flight, which is made of these fields
    random: Callable[[], float]
    arrivals: int
    is_closed: bool


class FlightFields:
    """The base of `Flight`, which says what they are."""

    outcome: int = 0  # PENDING; what the numbers mean is said where flights are
    value: Any = None  # Any: a value of any type
    load_ns: int = 0
    signal: Any = None  # Any: a signal, where somebody waits

    def __init__(self, key: Hashable, number: int, epoch: int, now_ns: int) -> None:
        self.key = key
        self.number = number
        self.epoch = epoch
        self.began_ns = now_ns
