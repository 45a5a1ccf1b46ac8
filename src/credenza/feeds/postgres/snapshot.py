"""Snapshots of PostgreSQL: which transactions had committed at one time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A value of the type `pg_snapshot`. Transactions commit out of the order of their numbers; a snapshot knows which had.

    Attributes:
        xmin: whatever has a lower number had ended.
        xmax: whatever has this number or a higher one had not begun.
        running: those between the two that were under way.
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Return what PostgreSQL writes as `xmin:xmax:running,...`; raises `ValueError` for anything else."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xid: int) -> bool:
        """Tell whether the transaction had ended."""
        return xid < self.xmax and xid not in self.running

    def covers(self, other: Snapshot) -> bool:
        """Tell whether everything that `other` sees is seen here, too."""
        return other.xmax <= self.xmax and not any(other.sees(xid) for xid in self.running)


NOTHING = Snapshot(1, 1, frozenset())
"""From before the first transaction."""
