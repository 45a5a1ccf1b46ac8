"""What a batch of operations does to the tables, within one transaction."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..base import (
    VALUE_HEADER_BYTES,
    Announce,
    Get,
    Head,
    Log,
    News,
    Operation,
    ReadHead,
    ReadLog,
    Reply,
    TierError,
)
from ..shelf import LOG_ENTRIES, change_of
from .boot import now_ms

GET: Final = "SELECT record FROM records WHERE name = ? AND expires_ms > ?"
_FIND: Final = "SELECT record, expires_ms FROM records WHERE name = ? AND expires_ms > ?"
_STORE: Final = "INSERT OR REPLACE INTO records (name, is_value, expires_ms, record) VALUES (?, ?, ?, ?)"
_REMOVE: Final = "DELETE FROM records WHERE name = ?"
_HEAD: Final = "SELECT epoch, sequence, floor, widest_ms FROM heads WHERE namespace = ?"
_NEW_HEAD: Final = "INSERT OR REPLACE INTO heads (namespace, epoch, sequence, floor, widest_ms) VALUES (?, ?, 0, 0, 0)"
_APPEND: Final = "INSERT INTO log (namespace, sequence, sender, names, tags, clears) VALUES (?, ?, ?, ?, ?, ?)"
_LATER: Final = """
SELECT sequence, sender, names, tags, clears FROM log WHERE namespace = ? AND sequence > ? ORDER BY sequence LIMIT ?
"""
_TRIM: Final = "DELETE FROM log WHERE namespace = ? AND sequence <= ?"
_TRIM_EVERY: Final = 64
_LENGTH: Final = struct.Struct(">I")
_EPOCH_BYTES: Final = 8


class NeedsWriting(Exception):
    """A batch that seemed to read only has to write: there is no head yet, or it promises less than a reader needs."""


def may_only_read(operations: Iterable[Operation]) -> bool:
    """Tell whether a batch gets along without writing, most of the time."""
    return all(isinstance(operation, Get | ReadHead | ReadLog) for operation in operations)


class Batches:
    """Performs batches for one namespace on connections that are in a transaction.

    Args:
        namespace: whose head and log they concern.
        max_bytes: how long an envelope may be before `Get` cuts it off.
    """

    def __init__(self, namespace: str, max_bytes: int) -> None:
        self._namespace = namespace
        self.most_bytes = max_bytes + VALUE_HEADER_BYTES

    def read(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Reply]:
        """Perform a batch that only reads.

        Raises:
            NeedsWriting: it cannot be done by reading.
        """
        return [self._read_one(connection, operation) for operation in operations]

    def write(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Reply]:
        """Perform any batch."""
        return [self._write_one(connection, operation) for operation in operations]

    def sequence(self, connection: sqlite3.Connection) -> int:
        """Return the number of the last announcement, 0 if there was none."""
        row = connection.execute(_HEAD, (self._namespace,)).fetchone()
        return row[1] if row else 0

    def _read_one(self, connection: sqlite3.Connection, operation: Operation) -> Reply:
        if isinstance(operation, Get):
            return self._got(connection, operation.name)
        head = self._head(connection)
        if head is None:
            raise NeedsWriting
        if isinstance(operation, ReadHead):
            return head
        assert isinstance(operation, ReadLog)
        if operation.staleness_ms > head.widest_ms:
            raise NeedsWriting
        return Log(head, self._later(connection, operation))

    def _write_one(self, connection: sqlite3.Connection, operation: Operation) -> Reply:
        match operation:
            case Get(name):
                return self._got(connection, name)
            case ReadHead(epoch):
                return self._made_head(connection, epoch)
            case ReadLog(epoch=epoch, staleness_ms=staleness_ms):
                head = self._made_head(connection, epoch)
                if staleness_ms > head.widest_ms:
                    head = head._replace(widest_ms=staleness_ms)
                    self._store_head(connection, head)
                return Log(head, self._later(connection, operation))
            case Announce():
                return self._announce(connection, operation)
            case _:
                return _change(connection, operation)

    def _got(self, connection: sqlite3.Connection, name: bytes) -> bytes:
        row = connection.execute(GET, (name, now_ms())).fetchone()
        return row[0][: self.most_bytes] if row and type(row[0]) is bytes else b""

    def _head(self, connection: sqlite3.Connection) -> Head | None:
        row = connection.execute(_HEAD, (self._namespace,)).fetchone()
        if row is None:
            return None
        epoch, *counts = row
        if type(epoch) is not bytes or len(epoch) != _EPOCH_BYTES or not all(map(_is_count, counts)):
            return None  # somebody else wrote it
        sequence, floor, widest_ms = counts
        return Head(epoch, sequence, floor, now_ms(), widest_ms)

    def _made_head(self, connection: sqlite3.Connection, epoch: bytes) -> Head:
        head = self._head(connection)
        if head is None:
            connection.execute("DELETE FROM log WHERE namespace = ?", (self._namespace,))
            connection.execute(_NEW_HEAD, (self._namespace, epoch))
            head = Head(epoch, 0, 0, now_ms(), 0)
        return head

    def _store_head(self, connection: sqlite3.Connection, head: Head) -> None:
        connection.execute(
            "UPDATE heads SET sequence = ?, floor = ?, widest_ms = ? WHERE namespace = ?",
            (head.sequence, head.floor, head.widest_ms, self._namespace),
        )

    def _announce(self, connection: sqlite3.Connection, operation: Announce) -> Head:
        head = self._made_head(connection, operation.epoch)
        sequence = head.sequence + 1
        head = head._replace(sequence=sequence, floor=sequence if operation.clears else head.floor)
        names, tags = _packed(operation.names), _packed(operation.tags)
        connection.execute(_APPEND, (self._namespace, sequence, operation.sender, names, tags, int(operation.clears)))
        self._store_head(connection, head)
        if not sequence % _TRIM_EVERY:
            connection.execute(_TRIM, (self._namespace, sequence - LOG_ENTRIES))
        return head

    def _later(self, connection: sqlite3.Connection, operation: ReadLog) -> tuple[News, ...]:
        rows = connection.execute(_LATER, (self._namespace, operation.after, operation.most))
        return tuple(
            News(sequence, sender, tuple(_unpacked(names)), tuple(_unpacked(tags)), bool(clears))
            for sequence, sender, names, tags, clears in rows
        )


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 53


def _change(connection: sqlite3.Connection, operation: Operation) -> Reply:
    assert not isinstance(operation, ReadHead | Announce | ReadLog)
    name, time_ms = operation.name, now_ms()
    before, expires_ms = connection.execute(_FIND, (name, time_ms)).fetchone() or (b"", time_ms)
    change = change_of(before, operation, time_ms)
    reply, record = change.reply, change.record
    if record is None:
        return reply
    expires_ms = change.expires_ms(time_ms, expires_ms)
    if record and expires_ms > time_ms:
        connection.execute(_STORE, (name, record[:1] == b"V", expires_ms, record))
    elif before:
        connection.execute(_REMOVE, (name,))
    return reply


def _packed(parts: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _unpacked(packed: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(packed):
        if start + _LENGTH.size > len(packed):
            raise TierError("the log of the cache file cannot be read")
        (length,) = _LENGTH.unpack_from(packed, start)
        start += _LENGTH.size + length
        if start > len(packed):
            raise TierError("the log of the cache file cannot be read")
        yield packed[start - length : start]
