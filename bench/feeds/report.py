"""The figures of a run as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.feeds.tally import Tally


@dataclasses.dataclass(frozen=True, slots=True)
class Blown:
    """A storm that is over.

    Attributes:
        control: what was broken on purpose; "" for what must hold.
    """

    kind: str
    control: str
    seed: int
    tally: Tally

    @property
    def is_as_promised(self) -> bool:
        """Nothing stale, and enough that could have been; or a control that was caught."""
        if self.control:
            return bool(self.tally.stale)
        return not self.tally.stale and self.tally.compared >= 20 * self.tally.checks and self.tally.hit_ratio > 0.05


_COLUMNS = (
    "",
    "changes",
    "rows",
    "commits",
    "out of order",
    "rolled back",
    "failed",
    "idle",
    "emptied",
    "altered",
    "cut",
    "died",
    "reads",
    "hits",
    "compared",
    "stale",
    "seconds",
    "",
)
LEGEND = """\
changes: statements of four foreign connections; rows: that they changed; out of order: commits of a transaction that had begun
before one that was committed already; failed: deadlocks, and locks waited for in vain; idle: transactions that idled with a row
written; emptied, altered: TRUNCATE and ALTER TABLE; cut: how often the follower's connections were killed; died: followers that
ended between reading and applying, and were succeeded; compared: entries of the cache, whenever the follower had caught up"""


def storms_as_text(storms: Sequence[Blown]) -> str:
    """Return a table of the storms."""
    return f"{aligned([_COLUMNS, *map(_row, storms)])}\n\n{LEGEND}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its heading."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(storm: Blown) -> tuple[str, ...]:
    tally = storm.tally
    numbers = (
        tally.changes,
        tally.rows,
        tally.commits,
        tally.out_of_order,
        tally.rollbacks,
        tally.failures,
        tally.idle,
        tally.truncates,
        tally.shapes,
        tally.cuts,
        tally.crashes,
        tally.reads,
    )
    name = f"{storm.kind}: {storm.control}" if storm.control else storm.kind
    endings = ("caught", "NOT CAUGHT") if storm.control else ("kept", "BROKEN")
    return (
        name,
        *(f"{number:,}" for number in numbers),
        f"{tally.hit_ratio:.0%}",
        f"{tally.compared:,}",
        f"{len(tally.stale):,}",
        f"{tally.seconds:,.0f}",
        endings[not storm.is_as_promised],
    )


def storm_as_data(storm: Blown) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {
        "kind": storm.kind,
        "control": storm.control,
        "seed": storm.seed,
        "as_promised": storm.is_as_promised,
        "hit_ratio": storm.tally.hit_ratio,
        **dataclasses.asdict(storm.tally),
    }


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write figures to a file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
