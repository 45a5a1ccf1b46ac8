"""Run the comparisons that were asked for and report them."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import machine, ours, report
from bench.coldkey import cold_key
from bench.crowds import cold_key_of_processes
from bench.files import hits_in_files
from bench.footprint import footprint
from bench.forms import hits_by_template, hits_of_methods, hits_over_a_tier
from bench.goals import GOALS, Outcome, Result, Table
from bench.hits import async_hits, get_hits, sync_hits
from bench.misses import async_misses, stores, sync_misses
from bench.pure import pure_hits
from bench.remote import bulk_gets, crowds_of_tasks, sync_gets
from bench.remote_hits import async_hits_in_redis, sync_hits_in_redis
from bench.replay import replay
from bench.scale import FULL, QUICK, Scale
from bench.threads import hits_of_threads
from bench.traces import find_traces
from bench.writes import puts_on_hot_keys, puts_over_postgres, puts_over_sqlite

ROOT = Path(__file__).resolve().parent.parent
COMPARISONS: tuple[tuple[tuple[str, ...], Callable[[Scale], Result]], ...] = (
    (("P1", "P4"), sync_hits),
    (("P1a",), hits_by_template),
    (("P1b",), hits_of_methods),
    (("P1c",), hits_over_a_tier),
    (("P2",), get_hits),
    (("P3",), async_hits),
    (("P5",), stores),
    (("P6",), sync_misses),
    (("P6a",), async_misses),
    (("P7",), footprint),
    (("P8",), pure_hits),
    (("P9",), hits_of_threads),
    (("P10",), cold_key),
    (("S1",), crowds_of_tasks),
    (("S2",), sync_gets),
    (("S3",), bulk_gets),
    (("S4", "S4b"), sync_hits_in_redis),
    (("S4a", "S4c"), async_hits_in_redis),
    (("S5",), hits_in_files),
    (("S6",), cold_key_of_processes),
    (("W1", "W1a"), puts_over_sqlite),
    (("W2", "W2a"), puts_over_postgres),
    (("W3",), puts_on_hot_keys),
)
REPLAYED = ("H1", "H2")
FAILED = "the comparison failed: {!r}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report, and write it unless the run was a partial one without `--output`.

    A missed goal is reported and is no failure. A comparison that raises leaves its goals unmeasured, and the exit
    status is then 1.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    places = _places(options.traces)
    try:
        for place in places:
            find_traces(place)
    except FileNotFoundError as exc:
        parser.error(str(exc))
    scale = QUICK if options.quick else FULL
    started = time.monotonic()
    before = machine.load_average()
    outcomes, tables = _run(scale, options.only, places)
    conditions = {
        "run": "quick" if scale.is_quick else "full",
        "rounds": str(scale.rounds),
        "load average before and after": f"{before}, {machine.load_average()}",
        "seconds": f"{time.monotonic() - started:.0f}",
    }
    found = report.Report(machine.describe(), machine.versions(), conditions, outcomes, tables)
    print(report.as_text(found))
    if options.output is not None:
        report.write(found, results=options.output / "results.json", page=options.output / "benchmarks.md")
    elif not options.quick and options.only is None:
        report.write(found, results=ROOT / "bench" / "results.json", page=ROOT / "docs" / "benchmarks.md")
    return int(any(outcome.note.startswith(FAILED.partition("{")[0]) for outcome in outcomes))


def _run(scale: Scale, only: Sequence[str] | None, places: Sequence[Path]) -> tuple[list[Outcome], list[Table]]:
    outcomes: list[Outcome] = []
    tables: list[Table] = []

    def take(numbers: Sequence[str], comparison: Callable[[], Result]) -> None:
        if only is not None and not set(numbers) & set(only):
            return
        print(f"measuring {', '.join(numbers)} ...", file=sys.stderr, flush=True)
        try:
            result = comparison()
        except Exception as exc:
            traceback.print_exception(exc, limit=-3)
            result = Result([Outcome(GOALS[number], None, note=FAILED.format(exc)) for number in numbers])
        outcomes.extend(_with_implementation(outcome) for outcome in result.outcomes)
        tables.extend(result.tables)

    for numbers, comparison in COMPARISONS:
        take(numbers, functools.partial(comparison, scale))
    take(REPLAYED, functools.partial(replay, scale, places))
    order = list(GOALS)
    wanted = [outcome for outcome in outcomes if only is None or outcome.goal.number in only]
    return sorted(wanted, key=lambda outcome: order.index(outcome.goal.number)), tables


def _with_implementation(outcome: Outcome) -> Outcome:
    """Say which table ran, where the comparison did not say so itself and something was measured."""
    if outcome.implementation or outcome.value is None:
        return outcome
    return dataclasses.replace(outcome, implementation=ours.implementation())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the cache beside its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, short traces only; about a minute")
    parser.add_argument("--only", type=_numbers, metavar="P1,P8", help=f"only these: {', '.join(GOALS)}")
    parser.add_argument(
        "--trace",
        "--traces",
        dest="traces",
        type=Path,
        action="append",
        metavar="PATH",
        help="a trace or a directory of traces, may be given again; default: $CREDENZA_TRACES, or ../shared/traces",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write results.json, benchmarks.md and plots/ here; a full run without it writes bench/ and docs/",
    )
    return parser


def _numbers(text: str) -> list[str]:
    by_name = {number.lower(): number for number in GOALS}
    chosen = [word.strip().lower() for word in text.split(",") if word.strip()]
    unknown = [word for word in chosen if word not in by_name]
    if unknown or not chosen:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown) or text!r}; choose from {', '.join(GOALS)}")
    return [by_name[word] for word in chosen]


def _places(given: Sequence[Path] | None) -> list[Path]:
    if given:
        return list(given)
    named = os.environ.get("CREDENZA_TRACES")
    if named:
        return [Path(named)]
    usual = ROOT.parent / "shared" / "traces"
    return [usual] if usual.is_dir() else []


if __name__ == "__main__":
    sys.exit(main())
