"""Replay traces through the table of the cache: section 7.3, hit ratios beside those of other policies.

It is the table that a cache has, driven as a cache drives it on `get`, and on `set` where that missed; without what is around
it, a trace of millions takes seconds.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread
from bench.plots.curves import Curve, Curves, Panel
from bench.scale import Scale
from bench.traces import Reference, Requests, capacities, find_traces, name_of, read_reference, read_trace
from credenza.durations import FOREVER_NS
from credenza.memory import implementation as memory
from credenza.policy import Policy

Eviction = Literal["s3fifo", "lru"]
EVICTIONS: tuple[Eviction, ...] = ("s3fifo", "lru")
RIVALS = ("LRU", "Sieve", "S3FIFO", "WTinyLFU", "ARC", "LIRS", "Clock2QPlus")
SHOWN = (*RIVALS, "Belady")
OURS, BEST = "credenza", "the best other policy"
CURVES = {
    "LRU": Curve("other", 1.4),
    "Belady, who knows the future": Curve("quiet", 1.2, "2 3"),
    BEST: Curve("goal", 1.8, "6 3"),
    OURS: Curve("ours", 2.2),
}
GONE_AT_ONCE = 1_000
MOST_FREQ = 3
"""Where a hit stops counting, here as on every hit path of the cache."""


@dataclass(frozen=True, slots=True)
class Job:
    """One replay: a trace through one capacity under one eviction."""

    path: Path
    fraction: str
    capacity: int
    eviction: Eviction


@dataclass(frozen=True, slots=True)
class Row:
    """Our hit ratios in percent on one trace at one capacity, and those of the others where they are known."""

    trace: str
    fraction: str
    capacity: int
    ours: dict[Eviction, float]
    others: dict[str, float]

    @property
    def gap(self) -> float:
        """Return how many points the best of the others is ahead of us; negative if we are ahead."""
        return max(self.others[name] for name in RIVALS) - self.ours["s3fifo"]


def hit_ratio(requests: Requests, capacity: int, eviction: Eviction) -> float:
    """Return the hit ratio in percent: each request is a look-up, and a store of an entry of weight 1 where that missed."""
    policy = Policy(ttl=None)
    table = memory.Table(maxsize=capacity, max_weight=None, eviction=eviction)
    find, put, touch, needs_touch = table.find, table.put, table.touch, table.needs_touch
    misses = 0
    for key in requests:
        entry = find(key)
        if entry is None:
            misses += 1
            put(memory.Entry(key, True, policy, 0, FOREVER_NS, 0, 1), (), 0)
            if len(table.gone) >= GONE_AT_ONCE:
                table.gone = []
        elif needs_touch:
            touch(entry)
        elif entry.freq < MOST_FREQ:
            entry.freq += 1
    return 100 * (1 - misses / len(requests))


def replay(scale: Scale, places: Sequence[Path]) -> Result:
    """Replay every trace at 1, 5, 10 and 20 percent of its unique keys, one on each core at a time."""
    reference = [row for place in places for row in read_reference(place)]
    jobs, left_out = _jobs(scale, places, reference)
    if not jobs:
        return _nothing(f"traces too long for a quick run: {', '.join(left_out)}" if left_out else "no traces")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=spawn) as pool:
        ratios = dict(zip(jobs, pool.map(_run, jobs), strict=True))
    rows = _rows(ratios, reference)
    compared = [row for row in rows if row.others]
    note = f"{len({row.trace for row in compared})} traces"
    if left_out:
        note += f"; left out because they are long: {', '.join(left_out)}"
    outcomes = _nothing(f"judged on all traces only; {note}").outcomes if left_out else _outcomes(compared, note)
    return Result(outcomes, (_table(rows, note), *_means(compared)))


def _nothing(why: str) -> Result:
    return Result([Outcome(GOALS[number], None, note=why) for number in ("H1", "H2")])


def _jobs(scale: Scale, places: Sequence[Path], reference: Sequence[Reference]) -> tuple[list[Job], list[str]]:
    """Return what to replay, the longest first, and the names of the traces that a quick run leaves out."""
    sized: list[tuple[int, Job]] = []
    left_out: list[str] = []
    for path in (path for place in places for path in find_traces(place)):
        requests = _requests(path)
        name = name_of(path)
        if scale.longest_trace is not None and len(requests) > scale.longest_trace:
            left_out.append(name)
            continue
        sizes = {row.fraction: row.capacity for row in reference if row.trace == name} or capacities(requests)
        sized += [
            (len(requests), Job(path, fraction, capacity, eviction))
            for fraction, capacity in sizes.items()
            for eviction in EVICTIONS
        ]
    sized.sort(key=lambda pair: pair[0], reverse=True)
    return [job for _, job in sized], left_out


@functools.lru_cache(maxsize=2)
def _requests(path: Path) -> Requests:
    return read_trace(path)


def _run(job: Job) -> float:
    return hit_ratio(_requests(job.path), job.capacity, job.eviction)


def _rows(ratios: dict[Job, float], reference: Sequence[Reference]) -> list[Row]:
    known = {(row.trace, row.fraction): row.ratios for row in reference}
    found: dict[tuple[str, str], Row] = {}
    for job, ratio in ratios.items():
        place = (name_of(job.path), job.fraction)
        row = found.setdefault(place, Row(*place, job.capacity, {}, known.get(place, {})))
        row.ours[job.eviction] = ratio
    return [found[place] for place in sorted(found)]


def _outcomes(rows: Sequence[Row], note: str) -> Sequence[Outcome]:
    if not rows:
        return _nothing("no reference figures beside the traces").outcomes
    ours = statistics.fmean(row.ours["s3fifo"] for row in rows)
    means = {name: statistics.fmean(row.others[name] for row in rows) for name in RIVALS}
    best = max(means, key=means.__getitem__)
    lead = ours - means[best]
    worst = max(rows, key=lambda row: row.gap)
    behind = sum(not GOALS["H2"].is_reached(row.gap) for row in rows)
    return (
        Outcome(GOALS["H1"], Spread(lead, lead, lead), f"{ours:.2f} %", f"{means[best]:.2f} % ({best})", note),
        Outcome(
            GOALS["H2"],
            Spread(worst.gap, worst.gap, worst.gap),
            f"{worst.ours['s3fifo']:.2f} % ({worst.trace}, {worst.capacity:,})",
            f"{max(worst.others[name] for name in RIVALS):.2f} %",
            f"more than a point behind in {behind} of {len(rows)}",
        ),
    )


def _table(rows: Sequence[Row], note: str) -> Table:
    shown = []
    for row in rows:
        others = [f"{row.others[name]:.2f}" if name in row.others else "-" for name in SHOWN]
        gap = f"{row.gap:+.2f}" if row.others else "-"
        mine = [f"{row.ours[eviction]:.2f}" for eviction in EVICTIONS]
        shown.append((row.trace, row.fraction, f"{row.capacity:,}", *mine, *others, gap))
    columns = ("trace", "size", "entries", "s3fifo", "lru", *SHOWN, "gap")
    said = "Percent of the requests; s3fifo and lru are ours. Gap: by how many points the best of the others leads."
    return Table("Hit ratio", columns, shown, f"{said} {note}.", _curves(rows))


def _curves(rows: Sequence[Row]) -> Curves:
    """Return a panel for each trace."""
    panels = []
    for trace in dict.fromkeys(row.trace for row in rows):
        sizes = [row for row in rows if row.trace == trace]
        known = all(row.others for row in sizes)
        percents = {OURS: [row.ours["s3fifo"] for row in sizes], "LRU": [row.ours["lru"] for row in sizes]}
        if known:
            percents[BEST] = [max(row.others[name] for name in RIVALS) for row in sizes]
            percents["Belady, who knows the future"] = [row.others["Belady"] for row in sizes]
        worst = max((row.gap for row in sizes), default=0.0) if known else 0.0
        remark = "" if not known else f"worst gap {worst:.2f}" if worst >= 0.005 else "never behind"
        panels.append(Panel(trace, [f"{float(row.fraction):.0%}" for row in sizes], percents, remark))
    return Curves("Hit ratio over the size of the cache, in percent of the trace's unique keys", panels, CURVES)


def _means(rows: Sequence[Row]) -> tuple[Table, ...]:
    if not rows:
        return ()
    means = {f"credenza {eviction}": statistics.fmean(row.ours[eviction] for row in rows) for eviction in EVICTIONS}
    means |= {name: statistics.fmean(row.others[name] for row in rows) for name in SHOWN}
    apart = max(abs(row.ours["lru"] - row.others["LRU"]) for row in rows)
    note = f"As a check of the replay: our lru is at most {apart:.2f} points away from the reference's LRU."
    shown = [(name, f"{means[name]:.2f}") for name in sorted(means, key=means.__getitem__, reverse=True)]
    return (Table("Mean hit ratio", ("policy", "percent"), shown, note),)
