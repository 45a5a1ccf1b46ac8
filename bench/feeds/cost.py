"""What the triggers of a change log cost those who write."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

from tests.feeds.places import TABLES, Place

from bench.feeds.report import aligned
from bench.measure import Spread, spread
from credenza.feeds import postgres, sqlite

BULK = 10_000
_SINGLE = 200
_BARE = "CREATE TABLE bare (id integer PRIMARY KEY, name text, team integer)"
_SERIES = (
    f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {BULK}) SELECT n, 'x', n & 7 FROM s"
)
_BULKS = (
    ("insert", f"INSERT INTO {{}} {_SERIES}"),
    ("update", "UPDATE {} SET name = 'y'"),
    ("update of a logged column", "UPDATE {} SET team = team + 1"),
    ("delete", "DELETE FROM {} WHERE id > 0"),  # SQLite drops all rows at once if it is given no condition
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """How many times as long statements take with triggers, by what they do."""

    kind: str
    ratios: dict[str, Spread]


def measure(new_place: Callable[[str], contextlib.AbstractContextManager[Place]], kind: str, rounds: int) -> Cost:
    """Compare a table that is logged with one that is not; each commit is flushed to the disk, as it is by default."""
    with new_place(kind) as place:
        writer = place.connect()
        if place.is_postgres:
            assert place.server is not None
            with place.server.connect() as admin:
                admin.execute("ALTER SYSTEM SET fsync = on")
                admin.execute("SELECT pg_reload_conf()")
            postgres.uninstall(writer)
            postgres.install(writer, TABLES)
        else:
            writer.execute("PRAGMA synchronous = full")
            sqlite.install(writer, TABLES)
        writer.execute(_BARE)
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for what, statement, times in _statements("%s" if place.is_postgres else "?"):
                taken = _timed(writer, statement, times)
                found.setdefault(what, []).append(taken["users"] / taken["bare"])
            _tidy(place, writer)
        return Cost(kind, {what: spread(ratios) for what, ratios in found.items()})


def _statements(marker: str) -> list[tuple[str, str, int]]:
    """Return what is done, the statement, and how often: those of one row are commits of their own."""
    insert = f"INSERT INTO {{}} (id, name, team) VALUES ({marker}, 'x', 1)"
    singles = {
        "insert of one row": insert,
        "update of one row": f"UPDATE {{}} SET name = 'z' WHERE id = {marker}",
        "upsert of one row": f"{insert} ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        "update of no row": f"UPDATE {{}} SET name = 'z' WHERE id = -{marker}",
        "delete of one row": f"DELETE FROM {{}} WHERE id = {marker}",
    }
    bulks = [(f"{what}, {BULK:,} rows", statement, 1) for what, statement in _BULKS]
    return [(what, statement, _SINGLE) for what, statement in singles.items()] + bulks


def _timed(writer: Any, statement: str, times: int) -> dict[str, float]:
    """Return the seconds that a statement takes on either table, by turns: the median."""
    seconds: dict[str, list[float]] = {"users": [], "bare": []}
    for number in range(1, times + 1):
        for table in random.sample(list(seconds), 2):
            parameters = (number,) if times > 1 else ()
            began = perf_counter()
            writer.execute(statement.format(table), parameters)
            seconds[table].append(perf_counter() - began)
    return {table: statistics.median(taken) for table, taken in seconds.items()}


def _tidy(place: Place, writer: Any) -> None:
    if place.is_postgres:
        writer.execute("TRUNCATE credenza.changes")
        writer.execute("VACUUM users, bare")
    else:
        writer.execute("DELETE FROM credenza_changes")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def as_text(costs: list[Cost]) -> str:
    """Return a table of ratios."""
    whats = list(costs[0].ratios) if costs else []
    rows = [(what, *(_shown(cost.ratios[what]) for cost in costs)) for what in whats]
    return aligned([("with triggers / without", *(cost.kind for cost in costs)), *rows])


def _shown(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} - {ratio.high:.2f})"


def as_data(cost: Cost) -> dict[str, Any]:
    """Return what is written as JSON."""
    return {"kind": cost.kind, **{what: dataclasses.asdict(ratio) for what, ratio in cost.ratios.items()}}
