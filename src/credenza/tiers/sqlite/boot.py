"""One clock for all processes of a machine, and how to tell that it began anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SAME_SECONDS: Final = 60
_NANOSECONDS: Final = 1_000_000

if hasattr(time, "CLOCK_BOOTTIME"):
    _clock = time.CLOCK_BOOTTIME

    def now_ms() -> int:
        """Return milliseconds since the machine started, time spent asleep included; wall clocks step, this one never."""
        return time.clock_gettime_ns(_clock) // _NANOSECONDS
else:  # pragma: no cover  # systems other than Linux

    def now_ms() -> int:
        """Return milliseconds since the machine started."""
        return time.monotonic_ns() // _NANOSECONDS


def boot_id() -> str:
    """Name the run of the machine that `now_ms` counts in.

    Where the system has no name for it, the wall clock's time of its start serves. A step of the wall clock then looks
    like another start, which costs the cached values and nothing else.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return f"since {time.time() - time.monotonic():.0f}"


def is_same_boot(noted: str, current: str) -> bool:
    """Tell whether two names stand for one run of the machine."""
    if noted.startswith("since ") and current.startswith("since "):
        try:
            return abs(float(noted[6:]) - float(current[6:])) < _SAME_SECONDS
        except ValueError:
            return False
    return noted == current
