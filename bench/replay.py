"""Replay traces through the public API: section 7.3, hit ratios beside those of other policies."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import credenza
from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread
from bench.scale import Scale
from bench.traces import Reference, Requests, capacities, find_traces, name_of, read_reference, read_trace

Eviction = Literal["s3fifo", "lru"]
EVICTIONS: tuple[Eviction, ...] = ("s3fifo", "lru")
RIVALS = ("LRU", "Sieve", "S3FIFO", "WTinyLFU", "ARC", "LIRS", "Clock2QPlus")
SHOWN = (*RIVALS, "Belady")
PROCESSES = 2


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
    """Return the hit ratio in percent: each request is a `get`, and a `set` where that missed."""
    misses = 0
    with credenza.Cache(maxsize=capacity, eviction=eviction, ttl=None) as cache:
        get, store = cache.get, cache.set
        for key in requests:
            if get(key) is None:
                misses += 1
                store(key, True)
    return 100 * (1 - misses / len(requests))


def replay(scale: Scale, places: Sequence[Path]) -> Result:
    """Replay every trace at 1, 5, 10 and 20 percent of its unique keys, two processes at a time."""
    reference = [row for place in places for row in read_reference(place)]
    jobs, left_out = _jobs(scale, places, reference)
    if not jobs:
        return _nothing(f"traces too long for a quick run: {', '.join(left_out)}" if left_out else "no traces")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
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
    behind = sum(row.gap > GOALS["H2"].limit for row in rows)
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
    return Table("Hit ratio", columns, shown, f"{said} {note}.")


def _means(rows: Sequence[Row]) -> tuple[Table, ...]:
    if not rows:
        return ()
    means = {f"credenza {eviction}": statistics.fmean(row.ours[eviction] for row in rows) for eviction in EVICTIONS}
    means |= {name: statistics.fmean(row.others[name] for row in rows) for name in SHOWN}
    apart = max(abs(row.ours["lru"] - row.others["LRU"]) for row in rows)
    note = f"As a check of the replay: our lru is at most {apart:.2f} points away from the reference's LRU."
    shown = [(name, f"{means[name]:.2f}") for name in sorted(means, key=means.__getitem__, reverse=True)]
    return (Table("Mean hit ratio", ("policy", "percent"), shown, note),)
