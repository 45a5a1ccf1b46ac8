"""Durations as people write them, and as the library counts them."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from .errors import ConfigurationError

Duration = float | int | timedelta | str
"""Seconds as a number, a `timedelta`, or text such as "250ms", "30s", "5m", "1h30m", "2d"."""

NANOSECONDS = 1_000_000_000
FOREVER_NS = 1 << 62
"""A point in time that no clock reaches (146 years)."""

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds_of(duration: Duration, *, name: str) -> float:
    """Return `duration` in seconds.

    Args:
        duration: see `Duration`. Zero and negative numbers are allowed here; the option decides about them.
        name: the option's name, for the message.

    Raises:
        ConfigurationError: it is no duration, or not finite.
    """
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        if math.isfinite(duration):
            return float(duration)
    elif isinstance(duration, str):
        text = duration.strip().lower()
        if _WHOLE.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    raise ConfigurationError(
        f'{name} must be seconds as a number, a timedelta or text such as "250ms", "30s", "5m", "1h30m", got {duration!r}'
    )


def nanoseconds_of(duration: Duration, *, name: str) -> int:
    """Return `duration` in nanoseconds, at most `FOREVER_NS`; raises as `seconds_of` does."""
    return min(round(seconds_of(duration, name=name) * NANOSECONDS), FOREVER_NS)
