"""What one transaction does to the file, and what the memory is to know of it once it is committed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from ..base import Entry, Pending
from . import letters, schema

_STORE: Final = """
INSERT OR REPLACE INTO pending (place, version, failures, since_ms, due_ms, delay_ms, key, value)
VALUES """
_ROW: Final = "(?, ?, 0, ?, 0, 0, ?, ?)"
_COLUMNS: Final = 5
_ROWS: Final = 64
_REMOVE: Final = "DELETE FROM pending WHERE place = ?"
_TAKE: Final = """
SELECT key, value, version, place, failures, since_ms FROM pending WHERE due_ms = 0 ORDER BY place LIMIT ?
"""
_RENEW: Final = "UPDATE pending SET since_ms = ? WHERE place = ?"
_MOVE: Final = "UPDATE pending SET place = ?, due_ms = 0, delay_ms = 0 WHERE place = ?"
_POSTPONE: Final = """
UPDATE pending SET place = ?, failures = ?, due_ms = ?, delay_ms = ?, error = ? WHERE place = ?
"""
_BURY: Final = """
INSERT INTO dead (failures, died_ms, is_superseded, is_asked_for, key, error, value)
SELECT failures + 1, ?, 0, 0, key, ?, value FROM pending WHERE place = ?
"""
_SLOTS: Final = "SELECT key, place, version, since_ms, due_ms, delay_ms FROM pending ORDER BY place"


class Slot(NamedTuple):
    """Where the pending write of a key is.

    Attributes:
        first: the version of the oldest write that it has replaced and that was not delivered, or less.
        due: by the journal's clock, in seconds; None if it was not postponed.
    """

    place: int
    version: int
    since_ms: int
    first: int
    due: float | None = None


class Numbers:
    """Hands out versions and places, which never come twice.

    A number that a source has seen must not come again, even if the machine is lost with the last commits. So numbers are used
    only up to a bound that was on the disk before, and a journal that is opened goes on from there.

    Args:
        reserved: up to where numbers may have been used.
    """

    BLOCK: Final = 1 << 24

    def __init__(self, reserved: int) -> None:
        self.last = reserved
        self.reserved = reserved

    def next(self) -> int:
        """Return a number greater than all before."""
        self.last += 1
        return self.last


class Plan:
    """What it takes to make entries pending.

    Attributes:
        values: of the rows to store, one row after the other.
        moved: the places of rows to remove, since their keys get new places.
        superseded: the keys whose dead letters are out of date now.
    """

    __slots__ = ("moved", "superseded", "values")

    def __init__(self) -> None:
        self.values: list[bytes | int | None] = []
        self.moved: list[tuple[int]] = []
        self.superseded: list[bytes] = []

    def is_one_statement(self) -> bool:
        """Tell whether it needs no transaction around it."""
        return not self.moved and not self.superseded and len(self.values) <= _COLUMNS * _ROWS


class Draft:
    """One transaction under way. Nothing of it is known outside until it is committed.

    Args:
        connection: in a transaction.
        slots: what is pending before it.
        numbers: for versions and places.
        watermark: writes with a place up to this were taken, or may have been.
        dead_keys: of all dead letters; may be too many.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        slots: Mapping[bytes, Slot],
        numbers: Numbers,
        *,
        watermark: int,
        dead_keys: set[bytes],
    ) -> None:
        self._connection = connection
        self._slots = slots
        self._numbers = numbers
        self.watermark = watermark
        self.dead_keys = dead_keys
        self.changed: dict[bytes, Slot | None] = {}
        self.last_place = 0
        self.seen = 0
        self.written_bytes = 0
        self.has_removed = False

    def slot(self, key: bytes) -> Slot | None:
        """Return where the pending write of a key is."""
        return self.changed[key] if key in self.changed else self._slots.get(key)

    def plan(self, entries: Iterable[Entry]) -> Plan:
        """Decide what it takes to make entries pending, of each key the last. Nothing else may follow but that."""
        now_ms = wall_ms()
        watermark, dead_keys, changed = self.watermark, self.dead_keys, self.changed
        plan, version = Plan(), self._numbers.last
        values, moved = plan.values, plan.moved
        for key, value in dict(entries).items():
            before = changed[key] if key in changed else self._slots.get(key)
            version += 1
            if before is None:
                slot = Slot(version, version, now_ms, version)
            elif before.place > watermark:
                slot = Slot(before.place, version, before.since_ms, before.first)
            else:
                moved.append((before.place,))
                slot = Slot(version, version, before.since_ms, before.first)
            changed[key] = slot
            values += (slot.place, version, slot.since_ms, key, value)
            self.written_bytes += len(key) + len(value or b"")
            if key in dead_keys:
                plan.superseded.append(key)
        self.last_place = self._numbers.last = version
        return plan

    def keep(self, plan: Plan) -> None:
        """Make entries pending."""
        if plan.moved:
            self._connection.executemany(_REMOVE, plan.moved)
        if plan.superseded:
            letters.supersede(self._connection, plan.superseded)
        for start in range(0, len(plan.values), _COLUMNS * _ROWS):
            self._store(plan.values[start : start + _COLUMNS * _ROWS])

    def _store(self, values: Sequence[bytes | int | None]) -> None:
        """Store rows with one statement: between two of them, other threads would take their turn of the interpreter."""
        self._connection.execute(_store_rows(len(values) // _COLUMNS), values)

    def take(self, limit: int, due: Iterable[bytes]) -> list[Pending]:
        """Return the first pending writes, having given those that were postponed and are due their turn."""
        for key in due:
            if (slot := self.slot(key)) is not None:
                place = self._numbers.next()
                self._connection.execute(_MOVE, (place, slot.place))
                self.changed[key] = slot._replace(place=place, due=None)
                self.last_place = place
        taken = [Pending(*row) for row in self._connection.execute(_TAKE, (limit,))]
        if taken:
            self.watermark = max(self.watermark, taken[-1].place)
        self.seen = taken[-1].place if taken and len(taken) == limit else self._numbers.last
        return taken

    def settle(self, taken: Sequence[Pending]) -> None:
        """Strike off what is still the same. What was replaced meanwhile is pending since the delivery, and not before."""
        removed, renewed, now_ms = [], [], wall_ms()
        for one in taken:
            slot = self.slot(one.key)
            if slot is None:
                continue
            if slot.version == one.version:
                removed.append((slot.place,))
                self.changed[one.key] = None
            elif slot.first <= one.version:
                renewed.append((now_ms, slot.place))
                self.changed[one.key] = slot._replace(since_ms=now_ms, first=one.version + 1)
        self._connection.executemany(_REMOVE, removed)
        self._connection.executemany(_RENEW, renewed)
        self.has_removed = self.has_removed or bool(removed)

    def postpone(self, taken: Pending, *, due: float, delay_ms: int, failures: int, error: str) -> None:
        """Put one behind all others."""
        if (slot := self._same(taken)) is None:
            return
        place = self._numbers.next()
        self._connection.execute(_POSTPONE, (place, failures, wall_ms() + delay_ms, delay_ms, error, slot.place))
        self.changed[taken.key] = slot._replace(place=place, due=due)

    def bury(self, taken: Pending, *, error: str) -> bool:
        """Make one a dead letter, if it is still the same."""
        if (slot := self._same(taken)) is None:
            return False
        self._connection.execute(_BURY, (wall_ms(), error, slot.place))
        self._connection.execute(_REMOVE, (slot.place,))
        self.changed[taken.key] = None
        self.dead_keys.add(taken.key)
        self.has_removed = True
        return True

    def retry(self, numbers: Sequence[int] | None) -> int:
        """Make dead letters pending; return how many."""
        letters.ask_for(self._connection, numbers)
        return self.adopt()

    def discard(self, numbers: Sequence[int] | None) -> int:
        """Forget dead letters; return how many."""
        return letters.discard(self._connection, numbers)

    def adopt(self) -> int:
        """Make the dead letters pending that somebody has asked for; return how many."""
        adopted = 0
        for number, key, value in letters.asked_for(self._connection):
            if self.slot(key) is not None:
                letters.supersede(self._connection, [key])
                continue
            self._connection.execute("DELETE FROM dead WHERE number = ?", (number,))
            place, now_ms = self._numbers.next(), wall_ms()
            self._store((place, place, now_ms, key, value))
            self.changed[key] = Slot(place, place, now_ms, place)
            self.last_place = place
            adopted += 1
        return adopted

    def reload(self, now: float) -> None:
        """Take over what another process changed."""
        found = slots_in(self._connection, now)
        for key in self._slots.keys() - found.keys():
            self.changed[key] = None
            self.has_removed = True
        for key, slot in found.items():
            before = self._slots.get(key)
            if before is None or before[:2] != slot[:2]:
                self.changed[key] = slot
        self.dead_keys = letters.keys_in(self._connection)
        self.adopt()

    def _same(self, taken: Pending) -> Slot | None:
        """Return where a write is, unless a later one has replaced it or it is gone."""
        slot = self.slot(taken.key)
        return slot if slot is not None and slot.version == taken.version else None


def begin(connection: sqlite3.Connection, now: float) -> tuple[Numbers, dict[bytes, Slot], set[bytes]]:
    """Read what an opened journal holds, having reserved new numbers, and made pending what was asked for."""
    connection.execute("BEGIN IMMEDIATE")
    used = int(schema.about(connection, "reserved"))
    numbers = Numbers(used)
    numbers.reserved = used + Numbers.BLOCK
    connection.execute("UPDATE about SET value = ? WHERE name = 'reserved'", (numbers.reserved,))
    slots = slots_in(connection, now)
    draft = Draft(connection, slots, numbers, watermark=used, dead_keys=set())
    draft.adopt()
    dead_keys = letters.keys_in(connection)
    connection.execute("COMMIT")
    slots.update((key, slot) for key, slot in draft.changed.items() if slot is not None)
    return numbers, slots, dead_keys


@cache
def _store_rows(count: int) -> str:
    """Return the statement that stores so many rows."""
    return _STORE + ", ".join([_ROW] * count)


def wall_ms() -> int:
    """Return the wall clock's milliseconds."""
    return time.time_ns() // 1_000_000


def slots_in(connection: sqlite3.Connection, now: float) -> dict[bytes, Slot]:
    """Read where the pending writes are. The wall clock may have been set meanwhile: no delay begins anew, or grows."""
    wall, found = wall_ms(), {}
    for key, place, version, since_ms, due_ms, delay_ms in connection.execute(_SLOTS):
        due = now + min(max(0, due_ms - wall), delay_ms) / 1000 if due_ms else None
        found[key] = Slot(place, version, since_ms, version, due)
    return found
