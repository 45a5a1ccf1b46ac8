"""Threads: P9, the throughput of eight threads that hit, and the slowest hit in a thousand."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns

from bench import ours
from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread, spread
from bench.peers import SYNC_PEERS
from bench.scale import Scale
from bench.streams import HOT_KEYS, hot_stream

THREADS = 8
STREAM = 160_000
RUN_NS = 200_000_000
"""How long one thread hits; long enough that each of eight gives the interpreter away many times."""

TAILS = 3

Function = Callable[[str], object]


def hits_of_threads(scale: Scale) -> Result:
    """Compare the hits per second of one thread and of eight, round by round; both make the same hits in all."""
    shown = ("functools.lru_cache", "cachebox.cached", "moka_py.cached", "cachetools.cached, lock")
    functions = {ours.NAME: ours.cached(ours.load)}
    functions |= {p.name: p.build(ours.load) for p in SYNC_PEERS if p.name in shown and p.is_installed()}
    stream = hot_stream(STREAM)
    for function in functions.values():
        _ask(function, HOT_KEYS)
    hits = {name: _hits_in_a_run(function, stream) for name, function in functions.items()}
    rounds = max(5, scale.rounds // 3)
    alone: dict[str, list[float]] = {name: [] for name in functions}
    together: dict[str, list[float]] = {name: [] for name in functions}
    runs = [(rates, name, threads) for rates, threads in ((alone, 1), (together, THREADS)) for name in functions]
    shuffled = random.Random(1)
    for _ in range(rounds):
        shuffled.shuffle(runs)
        for rates, name, threads in runs:
            rates[name].append(hits[name] / _elapsed(functions[name], stream, hits[name], threads) * 1e9)
    ratios = {name: spread([b / a for a, b in zip(alone[name], together[name], strict=True)]) for name in functions}
    tails = _tails(functions, stream)
    rows = [
        (name, _millions(alone[name]), _millions(together[name]), _text(ratios[name]), f"{tails[name] / 1e3:,.1f}")
        for name in functions
    ]
    columns = ("contender", "1 thread, M hits/s", f"{THREADS} threads, M hits/s", "ratio", "p99.9 of one hit, us")
    note = (
        f"A run is as many hits as one thread makes in {RUN_NS / 1e9:g} s. p99.9 over {STREAM:,} hits of {THREADS} threads, "
        f"the two clock readings included; the median of {TAILS}."
    )
    return Result(
        (
            Outcome(
                GOALS["P9"],
                ratios[ours.NAME],
                f"{_millions(together[ours.NAME])} M/s",
                f"{_millions(alone[ours.NAME])} M/s (1 thread)",
                f"p99.9 of one hit {tails[ours.NAME] / 1e3:,.1f} us",
            ),
        ),
        (Table("Hits of eight threads", columns, rows, note),),
    )


def _hits_in_a_run(function: Function, stream: Sequence[str]) -> int:
    """Return how many hits take about as long as a run, a multiple of what the threads can share."""
    some = stream[:2_000]
    taken = min(_elapsed(function, some, len(some), 1) for _ in range(5))
    return max(1, round(RUN_NS * len(some) / taken / len(stream) * 20)) * len(stream) // 20


def _elapsed(function: Function, stream: Sequence[str], hits: int, threads: int) -> int:
    """Return the nanoseconds from the first hit of any thread to the last one, each with its share of the hits.

    Each thread reads the clock itself: whoever gave the start signal would read it late, when others hit already.
    """
    ready = threading.Barrier(threads)
    times: list[int] = []

    def work(share: Sequence[str]) -> None:
        ready.wait()
        start = perf_counter_ns()
        _ask(function, share)
        times.extend((start, perf_counter_ns()))

    everything = list(itertools.islice(itertools.cycle(stream), hits))
    workers = [threading.Thread(target=work, args=(everything[number::threads],)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(times) - min(times)


def _ask(function: Function, keys: Sequence[str]) -> None:
    for key in keys:
        function(key)


def _tails(functions: Mapping[str, Function], stream: Sequence[str]) -> dict[str, float]:
    found: dict[str, list[int]] = {name: [] for name in functions}
    for _ in range(TAILS):
        for name, function in functions.items():
            found[name].append(_slowest_in_a_thousand(function, stream))
    return {name: statistics.median(row) for name, row in found.items()}


def _slowest_in_a_thousand(function: Function, stream: Sequence[str]) -> int:
    """Return the 99.9th percentile in nanoseconds of single hits while eight threads hit."""
    ready = threading.Barrier(THREADS)
    taken: list[list[int]] = [[] for _ in range(THREADS)]

    def work(number: int) -> None:
        share, row = stream[number::THREADS], taken[number]
        ready.wait()
        for key in share:
            start = perf_counter_ns()
            function(key)
            row.append(perf_counter_ns() - start)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    everything = sorted(figure for row in taken for figure in row)
    return everything[len(everything) * 999 // 1000]


def _millions(rates: Sequence[float]) -> str:
    return f"{spread(rates).median / 1e6:.2f}"


def _text(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"
