"""The controls: writers that are broken on purpose, one rule each, which the ledger has to find."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bench.kills.database import Database
from bench.kills.plan import Orders
from bench.kills.rows import PlacedRows, Rows
from credenza.journal.base import Entry, Journal, Pending, Receipt


class _Wrapped:
    """A journal that does what another one does, but for what a control changes."""

    def __init__(self, inner: Journal) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class EarlyJournal(_Wrapped):
    """Acknowledges before its commit."""

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        return None if self._inner.append(entries) is None else _kept()


class DroppingJournal(_Wrapped):
    """Takes no write of a key that has a pending one: coalesces to the first instead of the last."""

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        return _kept() if any(self._inner.owes(entry.key) for entry in entries) else self._inner.append(entries)


class HastyJournal(_Wrapped):
    """Strikes off what is taken, before the source has committed it."""

    def take(self, limit: int) -> list[Pending]:
        taken = self._inner.take(limit)
        self._inner.settle(taken)
        return taken


class RepeatingRows(Rows):
    """Writes the old values of rows once more after the new ones, as a delivery that lost its turn would."""

    def __init__(self, database: Database, orders: Orders) -> None:
        super().__init__(database, orders)
        self._before: dict[int, str] = {}

    def store_many(self, records: Mapping[int, str]) -> None:
        super().store_many(records)
        old = {key: self._before[key] for key in records if key in self._before}
        if old:
            super().store_many(old)
        self._before.update(records)


class PlacelessRows(PlacedRows):
    """Applies whatever comes."""

    keeps_place = False


def _kept() -> Receipt:
    receipt = Receipt()
    receipt.signal.set()
    return receipt


_JOURNALS = {"early": EarlyJournal, "drops": DroppingJournal, "hasty": HastyJournal}


def broken_journal(journal: Journal, sabotage: str) -> Any:
    """Return the journal of a control, or the journal itself."""
    wrapper = _JOURNALS.get(sabotage)
    return journal if wrapper is None else wrapper(journal)


def broken_rows(database: Database, orders: Orders) -> Rows:
    """Return the source of a control, or of an arm that is whole."""
    if orders.sabotage == "repeats":
        return RepeatingRows(database, orders)
    if orders.exactly_once:
        return PlacelessRows(database, orders) if orders.sabotage == "placeless" else PlacedRows(database, orders)
    return Rows(database, orders)


def forget(journal: str) -> None:
    """Remove a journal's files before it is opened, as a start that does not look would."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(journal + ending)
