"""The figures of a run as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.kills.run import Outcome

_COLUMNS = (
    "",
    "kills",
    "checks",
    "acknowledged",
    "cut off",
    "rescued",
    "rows written",
    "reads",
    "lost",
    "stale",
    "wrong order",
    "never sent",
    "left",
    "again",
    "seconds",
    "",
)

_LEGEND = """\
cut off: writes under way when their process died, or that failed; rescued: pending writes that a start found; rows written:
how often a row of the source was written; lost: keys of which the source had an older value than the last acknowledged one;
stale: reads that saw such a value; wrong order: an older value written over a newer one; left: not delivered, or dead
letters; again: the same write applied twice, which "at least once" allows"""


def as_text(outcomes: Sequence[Outcome], heading: str) -> str:
    """Return a table of the arms, how the kills fell, and what broke."""
    rows = [_COLUMNS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    promised = [outcome for outcome in outcomes if not outcome.arm.is_control]
    kills: Counter[str] = sum((outcome.kills for outcome in promised), Counter())
    kills += Counter({"the journal's server": sum(outcome.server_kills for outcome in promised)})
    lines += [
        "",
        f"{heading}; killed: {', '.join(f'{kind} {count:,}' for kind, count in kills.most_common()) or 'none'}",
    ]
    lines.append(_LEGEND)
    for outcome in outcomes:
        if not outcome.arm.is_control or not outcome.is_as_promised:
            lines += [f"{outcome.arm.name}: {example}" for example in outcome.verdict.examples]
        lines += [f"{outcome.arm.name}: {failure}" for failure in outcome.failures]
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    verdict = outcome.verdict
    if outcome.arm.is_control:
        ending = "caught" if outcome.is_as_promised else "NOT CAUGHT"
    else:
        ending = "kept" if outcome.is_as_promised else "BROKEN"
    numbers = (
        outcome.kills.total(),
        outcome.checks,
        verdict.acknowledged,
        verdict.cut_off,
        outcome.rescued,
        verdict.rows,
        verdict.reads,
        verdict.lost,
        verdict.stale,
        verdict.backwards,
        verdict.invented,
        verdict.left + verdict.dead,
        verdict.twice,
    )
    return (outcome.arm.name, *(f"{number:,}" for number in numbers), f"{outcome.seconds:,.0f}", ending)


def write_json(outcomes: Sequence[Outcome], heading: str, path: Path) -> None:
    """Write everything that `as_text` shows."""
    content = {
        "run": heading,
        "arms": [
            {
                **dataclasses.asdict(outcome.arm),
                **dataclasses.asdict(outcome.verdict),
                "seconds": outcome.seconds,
                "kills": dict(outcome.kills),
                "server_kills": outcome.server_kills,
                "rescued": outcome.rescued,
                "checks": outcome.checks,
                "failures": outcome.failures,
                "as_promised": outcome.is_as_promised,
            }
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
