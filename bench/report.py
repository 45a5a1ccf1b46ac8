"""Show and write what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.goals import Outcome, Table, Verdict
from bench.measure import Spread

COLUMNS = ("", "measure", "ours", "theirs", "figure", "quartiles", "goal", "verdict", "table", "note")
PLOTS = "plots"
REMARKS = Path(__file__).with_name("remarks.md")
"""What people have to say about the figures, put into the page below the goals."""

INTRODUCTION = """\
Written by `make bench`. Where a goal has two contenders its figure is ours / theirs. The goal says which side is the good one:
times, bytes and counts (≤) are better when lower, throughput and hit ratios (≥, >) when higher. Every contender is timed once
in each round, in a shuffled order and on the same keys; the figure is the median of the rounds' ratios, with its quartiles.
"Close" says that the quartiles lie on both sides of the goal. Absolute times belong to this machine. "Table" says which table of
ours ran, the compiled or the pure one. S is about a shared tier: on loopback, where a round trip costs least and what a cache
adds to it shows most.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one run found."""

    machine: dict[str, str]
    versions: dict[str, str]
    conditions: dict[str, str]
    outcomes: Sequence[Outcome]
    tables: Sequence[Table]


def as_text(report: Report) -> str:
    """Return the report for a console."""
    parts = [_aligned(COLUMNS, [_cells(outcome) for outcome in report.outcomes])]
    parts += [f"{table.title}\n{_aligned(table.columns, table.rows)}\n{table.note}".rstrip() for table in report.tables]
    facts = {**report.machine, **report.conditions}
    parts.append("\n".join(f"{name}: {value}" for name, value in facts.items()))
    return "\n\n".join(parts) + "\n"


def as_markdown(report: Report) -> str:
    """Return the report as a page of the documentation."""
    machine = "\n".join(f"- {name}: {value}" for name, value in {**report.machine, **report.conditions}.items())
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        "# Benchmarks",
        INTRODUCTION.strip(),
        machine,
        f"Versions: {versions}.",
        "## Goals",
        _piped(COLUMNS, [_cells(outcome) for outcome in report.outcomes]),
    ]
    if REMARKS.exists():
        parts.append(REMARKS.read_text(encoding="utf-8").strip())
    for table in report.tables:
        parts.append(f"## {table.title}")
        if table.plot is not None:
            alt = table.plot.alt().translate(str.maketrans("[]", "()"))
            parts.append(f"![{alt}]({PLOTS}/{_file_of(table)})")
        parts += [*([table.note] if table.note else []), _piped(table.columns, table.rows)]
    return "\n\n".join(parts) + "\n"


def as_json(report: Report) -> str:
    """Return the report for programs."""
    content: dict[str, Any] = {
        "machine": report.machine,
        "versions": report.versions,
        "conditions": report.conditions,
        "goals": [_as_data(outcome) for outcome in report.outcomes],
        "tables": [
            {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
            for table in report.tables
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write(report: Report, *, results: Path, page: Path) -> None:
    """Write the report as JSON to `results`, as Markdown to `page`, and its plots into a directory beside the page.

    Raises:
        ValueError: two tables would have the same plot.
    """
    content = {results: as_json(report), page: as_markdown(report)}
    for table in report.tables:
        if table.plot is not None:
            path = page.parent / PLOTS / _file_of(table)
            if path in content:
                raise ValueError(f"two tables have the plot {path.name}; give them titles of their own")
            content[path] = table.plot.svg()
    for path, text in content.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _file_of(table: Table) -> str:
    """Return the name of a table's plot: its title without figures, so that a quick run's is called the same."""
    words = re.findall("[a-z]+", table.title.lower())
    return "-".join(words) + ".svg"


def _as_data(outcome: Outcome) -> dict[str, Any]:
    value = outcome.value
    figures = None if value is None else {"median": value.median, "low": value.low, "high": value.high}
    return {
        "number": outcome.goal.number,
        "measure": outcome.goal.measure,
        "against": outcome.goal.against,
        "goal": str(outcome.goal),
        "figure": figures,
        "ours": outcome.ours,
        "theirs": outcome.theirs,
        "verdict": outcome.verdict.value,
        "close": outcome.is_close,
        "table": outcome.implementation,
        "note": outcome.note,
    }


def _cells(outcome: Outcome) -> tuple[str, ...]:
    goal, value = outcome.goal, outcome.value
    verdict = outcome.verdict.value
    if outcome.verdict is Verdict.MISSED:
        verdict = verdict.upper()
    if outcome.is_close:
        verdict += ", close"
    figure = "-" if value is None else f"{value.median:.3g}{goal.unit}"
    return (
        goal.number,
        goal.measure,
        outcome.ours or "-",
        outcome.theirs or goal.against,
        figure,
        _quartiles(value),
        str(goal),
        verdict,
        outcome.implementation or "-",
        outcome.note,
    )


def _quartiles(value: Spread | None) -> str:
    if value is None or value.low == value.high:
        return "-"
    return f"{value.low:.3g} - {value.high:.3g}"


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


def _piped(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
