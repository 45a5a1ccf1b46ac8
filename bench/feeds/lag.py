"""How long after the return of a foreign commit an entry is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any

from tests.feeds.places import Place, follow

from bench.feeds.report import aligned
from credenza import Cache
from credenza.feeds import postgres, sqlite

AT_REST = "at rest"
UNDER_LOAD = "under load"
LOADS = (AT_REST, UNDER_LOAD)
_ROWS = 1_000
_LOADED = 100
"""So many rows a second are written meanwhile, by another connection, each in a transaction of its own."""
_MOST_PAUSE = 0.05
"""Commits come at any time between two looks of a follower that polls."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lags:
    """The samples of one kind of feed, in milliseconds."""

    kind: str
    load: str
    samples: tuple[float, ...]
    background: float

    def percentile(self, share: float) -> float:
        """Return the lag that this share of the samples does not exceed."""
        return sorted(self.samples)[min(len(self.samples) - 1, int(share * len(self.samples)))]


def measure(place: Place, load: str, samples: int) -> Lags:
    """Commit changes one by one, each of an entry that is there, and watch the entry go.

    Feeds are at their defaults, and look at the file, or at the write-ahead log, as often as these say.
    """
    writer = place.connect()
    marker = "%s" if place.is_postgres else "?"
    values = ", ".join(f"({number}, 'x', 1)" for number in range(_ROWS))
    writer.execute(f"INSERT INTO users (id, name, team) VALUES {values}")
    statement = f"UPDATE users SET name = {marker} WHERE id = {marker}"
    cache: Cache[Any, Any] = Cache(ttl=None)
    found, written, began = [], 0, time.monotonic()
    with _followed(place, cache), _loaded(place, statement, load) as count:
        for number in range(samples):
            key = f"user:{number % (_ROWS // 2)}"
            cache.set(key, "old")
            time.sleep(random.random() * _MOST_PAUSE)
            writer.execute(statement, (f"n{number}", number % (_ROWS // 2)))
            committed = perf_counter_ns()
            while key in cache:
                time.sleep(0.0001)
            found.append((perf_counter_ns() - committed) / 1e6)
        written = count()
    return Lags(place.kind, load, tuple(found), written / (time.monotonic() - began))


@contextlib.contextmanager
def _followed(place: Place, cache: Any) -> Iterator[None]:
    feed: Any
    if place.kind == "triggers":
        feed = postgres.PostgresFeed(place.where)
    elif place.kind == "logical":
        feed = postgres.LogicalFeed(place.where, publication="shop")
    else:
        feed = sqlite.SqliteFeed(place.where)
    with follow(cache, feed, tags=None, keys={"users": "user:{id}"}) as follower:
        assert follower.wait_until_caught_up()
        yield
    cache.close()


@contextlib.contextmanager
def _loaded(place: Place, statement: str, load: str) -> Iterator[Any]:
    """Change other rows in the background, if asked; yields what counts them."""
    ends, written = threading.Event(), [0]

    def write() -> None:
        connection, chance = place.connect(), random.Random(1)
        due = time.monotonic()
        while not ends.wait(max(0.0, due - time.monotonic())):
            due = max(due + chance.expovariate(_LOADED), time.monotonic() - 1)
            connection.execute(statement, ("load", chance.randrange(_ROWS // 2, _ROWS)))
            written[0] += 1

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write) if load == UNDER_LOAD else None
        try:
            yield lambda: written[0]
        finally:
            ends.set()
    if done is not None:
        done.result()


def as_text(lags: list[Lags]) -> str:
    """Return a table of percentiles."""
    columns = ("milliseconds from the commit on", "", "samples", "p50", "p99", "most", "other changes a second")
    rows = [
        (
            each.kind,
            each.load,
            f"{len(each.samples):,}",
            f"{statistics.median(each.samples):.1f}",
            f"{each.percentile(0.99):.1f}",
            f"{max(each.samples):.1f}",
            f"{each.background:.0f}",
        )
        for each in lags
    ]
    return aligned([columns, *rows])


def as_data(lags: Lags) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {
        "kind": lags.kind,
        "load": lags.load,
        "samples": len(lags.samples),
        "p50_ms": statistics.median(lags.samples),
        "p90_ms": lags.percentile(0.9),
        "p99_ms": lags.percentile(0.99),
        "most_ms": max(lags.samples),
        "background_per_second": lags.background,
    }
