"""The figures of a run as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.plan import TTL
from bench.chaos.run import PROCESSES, Outcome

_COLUMNS = (
    "",
    "reads",
    "writes",
    "missed",
    "worst ms",
    "allowed",
    "not lin.",
    "broken",
    "beyond",
    "worst ms",
    "at once",
    "",
)

_LEGEND = """\
missed: reads that missed a completed write; worst: by how long; not lin.: not linearizable; broken: against the promise
of the level; beyond: reads that missed a write during which the tier lost its memory or its fence, or that is owed, and
by how long; at once: most loads of one key at the same time"""


def as_text(outcomes: Sequence[Outcome], seed: int) -> str:
    """Return a table of the runs, the faults by kind, and what broke."""
    rows = [_COLUMNS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    verdicts = [outcome.verdict for outcome in outcomes if not outcome.arm.is_control]
    figures = (
        f"{sum(verdict.reads for verdict in verdicts):,} reads",
        f"{sum(verdict.writes for verdict in verdicts):,} completed writes under a promise",
        f"{sum(verdict.unfinished for verdict in verdicts):,} writes cut off by a kill",
        f"{sum(verdict.owed for verdict in verdicts):,} owed",
    )
    lines += ["", f"{PROCESSES} processes at a time, seed {seed}; {', '.join(figures)}"]
    lines += [f"faults: {', '.join(f'{kind} {count:,}' for kind, count in faults.most_common()) or 'none'}", _LEGEND]
    for outcome in outcomes:
        lines += [
            f"{outcome.arm.name}: {example}" for example in outcome.verdict.examples if not outcome.arm.is_control
        ]
        lines += [f"{outcome.arm.name}: {error.strip()}" for error in outcome.errors]
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    verdict = outcome.verdict
    if outcome.arm.is_control:
        ending = "caught" if outcome.is_as_promised else "NOT CAUGHT"
    else:
        ending = "kept" if outcome.is_as_promised else "BROKEN"
    return (
        outcome.arm.name,
        f"{verdict.reads:,}",
        f"{verdict.writes:,}",
        f"{verdict.missed:,}",
        f"{1000 * verdict.worst:,.0f}",
        _allowed(outcome),
        f"{verdict.not_linearizable:,}",
        f"{verdict.broken:,}",
        f"{verdict.beyond:,}",
        f"{1000 * verdict.worst_beyond:,.0f}",
        f"{verdict.loads_at_once}",
        ending,
    )


def _allowed(outcome: Outcome) -> str:
    """Return how stale a read may be, in milliseconds."""
    arm = outcome.arm
    if arm.coherence == "ttl":
        return f"{1000 * TTL:.0f}"
    is_bounded = arm.memory and arm.coherence != "strict"
    return f"{1000 * outcome.max_staleness:.0f}" if is_bounded else "0"


def write_json(outcomes: Sequence[Outcome], seed: int, path: Path) -> None:
    """Write everything that `as_text` shows, and the counters of the caches."""
    content = {
        "seed": seed,
        "processes": PROCESSES,
        "runs": [
            {
                **dataclasses.asdict(outcome.arm),
                "seconds": outcome.seconds,
                "max_staleness": outcome.max_staleness,
                **dataclasses.asdict(outcome.verdict),
                "faults": dict(outcome.faults),
                "errors": outcome.errors,
                "counted": dict(outcome.counted),
                "as_promised": outcome.is_as_promised,
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
