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


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


suspended_ns: ClockNs = _boottime_ns if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
"""Monotonic time that goes on while the machine sleeps: a proof must not outlive a nap. Other systems' clock does so."""


def in_nanoseconds(clock: Clock | None, *, counts_sleep: bool = False) -> ClockNs:
    """Return `clock` as one that counts nanoseconds; None stands for the system's monotonic clock."""
    if clock is None and counts_sleep:
        return suspended_ns
    if clock is None or clock is time.monotonic:
        return monotonic_ns
    return lambda: round(clock() * NANOSECONDS)
