"""What happened in a storm."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one run.

    Attributes:
        changes: statements that changed rows, those that were rolled back included.
        rows: rows that they changed.
        commits, rollbacks, failures: how transactions ended; a failure is a deadlock, or a lock that was waited for in vain.
        out_of_order: commits of a transaction that had begun to write before another one that was committed already.
        idle: transactions that had been idle before they ended.
        truncates, shapes: how often the table was emptied as a whole, or altered.
        cuts, crashes: how often the follower lost its connections, or died between reading and applying.
        reads, hits: of the cache.
        checks, compared: how often the follower had caught up and the cache was compared, and the entries in all.
        stale: entries that differed from their rows.
    """

    changes: int = 0
    rows: int = 0
    commits: int = 0
    rollbacks: int = 0
    failures: int = 0
    out_of_order: int = 0
    idle: int = 0
    truncates: int = 0
    shapes: int = 0
    cuts: int = 0
    crashes: int = 0
    reads: int = 0
    hits: int = 0
    checks: int = 0
    compared: int = 0
    stale: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def hit_ratio(self) -> float:
        """The share of reads that the cache answered."""
        return self.hits / max(1, self.reads)
