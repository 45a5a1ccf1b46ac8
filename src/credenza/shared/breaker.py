"""Leaving a tier alone that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_PAUSE_NS: Final = 100_000_000
LONGEST_PAUSE_NS: Final = 5_000_000_000


class Breaker:
    """Says whether a tier may be asked, and when to try one that is away. Not thread-safe: the state's lock guards it.

    One failure is enough: a tier that is frozen costs each caller its whole `tier_timeout`. What brings it back is a
    probe of the keeper, so that no caller ever waits for a tier that is known to be away.

    Args:
        random: draws from [0, 1).

    Attributes:
        is_away: the last thing that the tier did was to fail.
        since_ns: when that changed last.
        probe_ns: when to try again.
        error: the last failure, as text.
    """

    __slots__ = ("_pause_ns", "_random", "error", "is_away", "probe_ns", "since_ns")

    def __init__(self, random: Callable[[], float], now_ns: int) -> None:
        self._random = random
        self._pause_ns = FIRST_PAUSE_NS
        self.is_away = False
        self.since_ns = now_ns
        self.probe_ns = 0
        self.error: str | None = None

    def note_failure(self, error: str, now_ns: int) -> bool:
        """Leave the tier alone for a while, longer each time; tell whether it was there until now."""
        has_changed = not self.is_away
        if has_changed:
            self.is_away, self.since_ns, self._pause_ns = True, now_ns, FIRST_PAUSE_NS
        elif now_ns >= self.probe_ns:
            self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        self.error = error
        self.probe_ns = now_ns + int(self._pause_ns * (0.5 + 0.5 * self._random()))
        return has_changed

    def note_success(self, now_ns: int) -> bool:
        """Ask the tier again from now on; tell whether it was away until now."""
        if not self.is_away:
            return False
        self.is_away, self.since_ns, self.error = False, now_ns, None
        return True
