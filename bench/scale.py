"""How much of everything a run does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run.

    `rounds` of each comparison count, `entries` go into a cache whose memory is taken, and traces longer than
    `longest_trace` requests are left out.
    """

    rounds: int
    entries: int
    longest_trace: int | None

    @property
    def slow_rounds(self) -> int:
        """How many rounds count where each operation asks a server."""
        return max(5, self.rounds // 2)

    @property
    def is_quick(self) -> bool:
        """Tell whether something was left out."""
        return self.longest_trace is not None


FULL = Scale(rounds=41, entries=1_000_000, longest_trace=None)
QUICK = Scale(rounds=9, entries=200_000, longest_trace=150_000)
