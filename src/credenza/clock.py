"""Monotonic time."""

from __future__ import annotations

import time
from collections.abc import Callable

from .durations import NANOSECONDS

Clock = Callable[[], float]
"""Returns seconds that never go back; what `Cache(clock=...)` takes."""

ClockNs = Callable[[], int]
"""The same in whole nanoseconds; what the library reads inside."""

monotonic_ns: ClockNs = time.monotonic_ns


def in_nanoseconds(clock: Clock | None) -> ClockNs:
    """Return `clock` as one that counts nanoseconds; None stands for the system's monotonic clock."""
    if clock is None or clock is time.monotonic:
        return monotonic_ns
    return lambda: round(clock() * NANOSECONDS)
