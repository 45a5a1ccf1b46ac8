"""The whole of a tier's memory as a plain object: the reference that every tier is compared with.

It has no lock, no clock and no thread: the caller brings the time along, and sees to it that one operation is applied
after the other.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from . import records
from .base import VALUE_HEADER_BYTES as _HEADER_BYTES
from .base import (
    Announce,
    Clear,
    Drop,
    Fence,
    Fill,
    Get,
    Head,
    Lease,
    Log,
    MarkTag,
    News,
    OpenTag,
    Operation,
    Put,
    ReadHead,
    ReadLog,
    Release,
    Renew,
    Reply,
)

LOG_ENTRIES: Final = 10_000
"""How many announcements a tier keeps, more or less; who lags behind further has a gap."""

_SMALL: Final = 1024


def change_of(record: bytes, operation: Operation, now_ms: int) -> records.Change:
    """Return what `operation` makes of a record; one of those that concern a record by its name.

    Raises:
        TypeError: it is none of these.
    """
    match operation:
        case Get():
            return records.Change(record)
        case Lease():
            return records.lease(record, operation, now_ms)
        case Renew():
            return records.renew(record, operation, now_ms)
        case Fill():
            return records.fill(record, operation)
        case Release():
            return records.release(record, operation)
        case Put():
            return records.put(record, operation, now_ms)
        case Drop():
            return records.drop(record, operation)
        case Fence():
            return records.fence(record, operation, now_ms)
        case Clear():
            return records.clear(record, operation, now_ms)
        case OpenTag():
            return records.open_tag(record, operation, now_ms)
        case MarkTag():
            return records.mark_tag(record, operation, now_ms)
        case _:
            raise TypeError(f"{type(operation).__name__} is no operation on a record")


class Shelf:
    """Records with their expiries, a head and a log.

    Args:
        max_bytes: how long an envelope may be before `Get` cuts it off.
        log_entries: how many announcements are kept.

    Attributes:
        held: record and expiry in milliseconds by name; expired ones may be among them.
    """

    def __init__(self, *, max_bytes: int = 1_000_000, log_entries: int = LOG_ENTRIES) -> None:
        self.held: dict[bytes, tuple[bytes, int]] = {}
        self._most_bytes = max_bytes + _HEADER_BYTES
        self._head: Head | None = None
        self._log: deque[News] = deque(maxlen=log_entries)
        self._sweep_at = _SMALL

    @property
    def sequence(self) -> int:
        """The number of the last announcement, 0 if there was none."""
        return self._head.sequence if self._head else 0

    def apply(self, operation: Operation, now_ms: int) -> Reply:
        """Perform one operation at a time of the tier's clock and return its reply."""
        match operation:
            case Get(name):
                return self.record(name, now_ms)[: self._most_bytes]
            case ReadHead(epoch):
                return self._current(epoch, now_ms)
            case Announce():
                return self._announce(operation, now_ms)
            case ReadLog():
                return self._read(operation, now_ms)
            case _:
                return self._change(operation, now_ms)

    def record(self, name: bytes, now_ms: int) -> bytes:
        """Return the whole record of a name, b"" if there is none any more."""
        record, expires_ms = self.held.get(name, (b"", 0))
        return record if expires_ms > now_ms else b""

    def forget(self, name: bytes) -> None:
        """Lose one record, as a tier does that evicts."""
        self.held.pop(name, None)

    def forget_all(self) -> None:
        """Lose everything, the head and the log too, as a server does that restarts."""
        self.held.clear()
        self._head = None  # and with it the log, see `_current`

    def _change(self, operation: Operation, now_ms: int) -> Reply:
        assert not isinstance(operation, ReadHead | Announce | ReadLog)
        name = operation.name
        change = change_of(self.record(name, now_ms), operation, now_ms)
        reply, record = change.reply, change.record
        if record is None:
            return reply
        expires_ms = change.expires_ms(now_ms, self.held[name][1] if name in self.held else now_ms)
        if record and expires_ms > now_ms:
            self.held[name] = (record, expires_ms)
            self._sweep(now_ms)
        else:
            self.held.pop(name, None)
        return reply

    def _sweep(self, now_ms: int) -> None:
        """Remove what expired whenever the number of records doubled, so that each one pays its share only."""
        if len(self.held) >= self._sweep_at:
            self.held = {name: held for name, held in self.held.items() if held[1] > now_ms}
            self._sweep_at = max(_SMALL, 2 * len(self.held))

    def _current(self, epoch: bytes, now_ms: int) -> Head:
        if self._head is None:
            self._log.clear()
            self._head = Head(epoch, 0, 0, now_ms, 0)
        self._head = self._head._replace(now_ms=now_ms)
        return self._head

    def _announce(self, operation: Announce, now_ms: int) -> Head:
        head = self._current(operation.epoch, now_ms)
        sequence = head.sequence + 1
        self._log.append(News(sequence, operation.sender, operation.names, operation.tags, operation.clears))
        self._head = head._replace(sequence=sequence, floor=sequence if operation.clears else head.floor)
        return self._head

    def _read(self, operation: ReadLog, now_ms: int) -> Log:
        head = self._current(operation.epoch, now_ms)
        self._head = head = head._replace(widest_ms=max(head.widest_ms, operation.staleness_ms))
        later = (news for news in self._log if news.sequence > operation.after)
        return Log(head, tuple(islice(later, operation.most)))
