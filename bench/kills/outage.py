"""The source is away for a while under load: what is taken meanwhile, what is refused, and what is there in the end."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.kills.database import open_database
from bench.kills.ledger import Ledger, Verdict
from bench.kills.nursery import Child, Nursery
from bench.kills.plan import THREADS, Orders
from bench.kills.records import Kind
from bench.kills.rows import look
from bench.kills.run import Places, durable_redis, new_journal, new_source

_BEFORE: Final = 0.5
_AFTER: Final = 0.5
_LONGEST_FILL: Final = 60.0
_LONGEST_DRAIN: Final = 120.0
_SILENCE: Final = 0.5
"""So long nothing was acknowledged, and all threads are taken to be blocked."""

MOST_GROWTH_BYTES: Final = 8_000_000


@dataclass(slots=True)
class Outcome:
    """What became of an outage.

    Attributes:
        pending: keys with an acknowledged write that the source had not, when the outage ended.
        filled: seconds until the journal was full.
        growth_bytes: by how much the process grew from then on; None where the system does not tell.
        late: writes that were acknowledged while a blocking journal was full.
        drained: seconds from the end of the outage until the source had everything.
    """

    when_full: str
    seconds: float
    bound: int
    verdict: Verdict
    pending: int = 0
    filled: float = 0.0
    growth_bytes: int | None = None
    late: int = 0
    drained: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def is_as_promised(self) -> bool:
        """Whether the bound held, memory stayed flat, and the source has everything in order."""
        held = self.bound - THREADS <= self.pending <= self.bound and (self.growth_bytes or 0) <= MOST_GROWTH_BYTES
        refused = bool(self.verdict.refused) == (self.when_full == "raise")
        return held and refused and not self.failures and not self.verdict.wrong(exactly_once=False)


def run(when_full: str, seconds: float, seed: int, places: Places, nursery: Nursery, *, bound: int) -> Outcome:
    """Have a writer work, take its source away, let it fill the journal, and give the source back."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="credenza-kills-")))
        source = new_source(folder, places, seed)
        server = stack.enter_context(durable_redis()) if places.on_redis else None
        orders = Orders(
            new_journal(folder, server),
            source,
            1,
            seed,
            keys=4 * bound // THREADS,
            deletes=0.0,  # of rows that are not there nothing shows
            durability="os",
            batch_size=500,
            max_pending=bound,
            when_full=when_full,
        )
        return _Outage(orders, seconds, nursery.start(orders)).run()


class _Outage:
    def __init__(self, orders: Orders, seconds: float, child: Child) -> None:
        self._orders = orders
        self._seconds = seconds
        self._child = child
        self._ledger = Ledger()
        self._database = open_database(orders.source)
        self._outcome = Outcome(orders.when_full, seconds, orders.max_pending, self._ledger.verdict)

    def run(self) -> Outcome:
        try:
            self._listen(_BEFORE)
            with self._database.outage():
                self._fill()
            began = time.monotonic()
            self._listen(_AFTER)
            self._child.stop()
            self._listen(_LONGEST_DRAIN, until=lambda: self._child.has_ended)
            self._outcome.drained = time.monotonic() - began
        finally:
            for record in self._child.kill():
                self._ledger.note(record)
        self._ledger.end_process()
        if self._child.status:
            self._outcome.failures.append(f"the writer ended with status {self._child.status}")
        self._compare()
        return self._outcome

    def _fill(self) -> None:
        """Wait until the journal is full, then as long as the outage lasts."""
        outcome, verdict = self._outcome, self._ledger.verdict
        began = time.monotonic()
        self._listen(_LONGEST_FILL, until=self._is_full)
        outcome.filled = time.monotonic() - began
        full_bytes, kept = _resident_bytes(self._child.pid), verdict.acknowledged
        self._listen(max(0.0, self._seconds - outcome.filled))
        outcome.late = verdict.acknowledged - kept if self._orders.when_full == "block" else 0
        if full_bytes is not None:
            outcome.growth_bytes = (_resident_bytes(self._child.pid) or full_bytes) - full_bytes
        outcome.pending = self._ledger.owed(look(self._database, all_keys=self._orders.all_keys).numbers)

    def _is_full(self) -> bool:
        if self._orders.when_full == "raise":
            return self._ledger.verdict.refused > 0
        return self._quiet_since + _SILENCE < time.monotonic()

    def _listen(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        ends = time.monotonic() + seconds
        self._quiet_since = time.monotonic()
        while time.monotonic() < ends and not until() and not self._child.has_ended:
            for record in self._child.records(min(0.05, max(0.0, ends - time.monotonic()))):
                self._ledger.note(record)
                if record.kind is Kind.KEPT:
                    self._quiet_since = time.monotonic()

    def _compare(self) -> None:
        found = look(self._database, all_keys=self._orders.all_keys)
        self._database.close()
        verdict = self._ledger.verdict
        self._ledger.check(found.numbers)
        verdict.rows, verdict.backwards, verdict.twice = found.written, found.backwards, found.twice
        verdict.invented += found.strays


def _resident_bytes(pid: int) -> int | None:
    """Return how much memory a process has, None where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


_COLUMNS: Final = (
    "when full",
    "away s",
    "full after s",
    "acknowledged",
    "bound",
    "pending",
    "refused",
    "while full",
    "memory since full",
    "delivered after s",
    "rows written",
    "lost",
    "wrong order",
    "never sent",
    "",
)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Return a table of outages."""
    rows = [_COLUMNS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.append(
        "pending: keys of which the source lacked an acknowledged write at the end of the outage; while full: writes that a "
        "blocking journal acknowledged after all threads stood still"
    )
    for outcome in outcomes:
        lines += [f"{outcome.when_full}: {said}" for said in (*outcome.verdict.examples, *outcome.failures)]
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    verdict = outcome.verdict
    growth = "?" if outcome.growth_bytes is None else f"{outcome.growth_bytes / 1e6:+.1f} MB"
    return (
        outcome.when_full,
        f"{outcome.seconds:g}",
        f"{outcome.filled:.1f}",
        f"{verdict.acknowledged:,}",
        f"{outcome.bound:,}",
        f"{outcome.pending:,}",
        f"{verdict.refused:,}",
        f"{outcome.late:,}",
        growth,
        f"{outcome.drained:.1f}",
        f"{verdict.rows:,}",
        f"{verdict.lost + verdict.stale:,}",
        f"{verdict.backwards:,}",
        f"{verdict.invented:,}",
        "kept" if outcome.is_as_promised else "BROKEN",
    )
