"""The messages of `pgoutput`, version 1 (PostgreSQL documentation, "Logical Replication Message Formats")."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ...sentinel import MISSING, MissingType

Fields = Sequence[bytes | None | MissingType]
"""The columns of a row as text; None for null, MISSING for a long value that was not changed."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction that has committed follows.

    Attributes:
        xid: the lower 32 bits of its number.
    """

    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """It is complete.

    Attributes:
        end: the place in the log behind it.
    """

    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it is in what follows.

    Attributes:
        columns: name and type of each.
    """

    oid: int
    columns: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A row was changed.

    Attributes:
        old: what is known of it before; None if nothing that identifies it was changed.
        new: as it is now; None if it was deleted.
    """

    oid: int
    old: Fields | None
    new: Fields | None


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied."""

    oids: tuple[int, ...]


Message = Begin | Commit | Relation | Change | Truncate


def parse(data: bytes) -> Message | None:
    """Return the message; None for one that is of no interest here. Raises `ValueError` for what it does not understand."""
    try:
        return _parse(_Bytes(data))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"a message of pgoutput of the kind {data[:1]!r} cannot be understood") from error


def _parse(data: _Bytes) -> Message | None:
    kind = data.take(1)
    if kind == b"B":
        _, _, xid = data.unpack("!qqI")
        return Begin(xid)
    if kind == b"C":
        _, _, end, _ = data.unpack("!bqqq")
        return Commit(end)
    if kind == b"R":
        return _relation(data)
    if kind in (b"I", b"U", b"D"):
        return _change(data)
    if kind == b"T":
        count, _ = data.unpack("!Ib")
        return Truncate(data.unpack(f"!{count}I"))
    if kind in (b"O", b"Y", b"M"):  # an origin, a type, a message of somebody's
        return None
    raise ValueError(f"pgoutput has no message of the kind {kind!r}")


def _relation(data: _Bytes) -> Relation:
    (oid,) = data.unpack("!I")
    data.text()  # its schema
    data.text()  # its name
    _, count = data.unpack("!bH")
    columns: list[tuple[str, int]] = []
    for _ in range(count):
        data.take(1)
        name = data.text()
        kind, _ = data.unpack("!Ii")
        columns.append((name, kind))
    return Relation(oid, tuple(columns))


def _change(data: _Bytes) -> Change:
    (oid,) = data.unpack("!I")
    old: Fields | None = None
    new: Fields | None = None
    while part := data.take(1):
        if part in (b"K", b"O"):
            old = _fields(data)
        elif part == b"N":
            new = _fields(data)
        else:
            raise ValueError(f"a row of pgoutput has no part {part!r}")
    return Change(oid, old, new)


def _fields(data: _Bytes) -> Fields:
    fields: list[bytes | None | MissingType] = []
    (count,) = data.unpack("!H")
    for _ in range(count):
        kind = data.take(1)
        if kind == b"n":
            fields.append(None)
        elif kind == b"u":
            fields.append(MISSING)
        elif kind == b"t":
            (size,) = data.unpack("!I")
            fields.append(data.take(size))
        else:
            raise ValueError(f"a column of pgoutput has no form {kind!r}")
    return fields


class _Bytes:
    """Bytes that are read from the beginning to the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise IndexError("a text has no end")
        text = self._data[self._at : end].decode()
        self._at = end + 1
        return text
