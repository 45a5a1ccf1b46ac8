"""What a writer tells of itself: records of one size, each written before the next step is done."""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_SHAPE: Final = struct.Struct("<BIQ")


class Kind(enum.IntEnum):
    """What happened."""

    OPENED = 1
    """The journal is open."""
    SENT = 2
    """A put is going to be called."""
    DELETED = 3
    """A delete is going to be called; its number is not in the source."""
    KEPT = 4
    """The call returned: acknowledged."""
    FAILED = 5
    """It raised, so that nobody knows whether it was kept."""
    FULL = 6
    """It raised `JournalFull`, so it was not kept."""
    READ = 7
    """A key that the reader alone writes was read; 0 if nothing was there."""
    CLOSING = 8
    CLOSED = 9
    """The journal is closed; the number says how many writes are left in it."""
    DEAD = 10
    """So many dead letters are in it."""
    RESCUED = 11
    """So many pending writes were in it when it was opened."""


class Record(NamedTuple):
    """One record; `key` and `number` mean what the kind says."""

    kind: Kind
    key: int
    number: int


class Reporter:
    """Writes records to a pipe, unbuffered. Thread-safe, as records are shorter than what a pipe takes at once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def tell(self, kind: Kind, key: int = 0, number: int = 0) -> None:
        """Return when the record outlasts this process."""
        os.write(self._descriptor, _SHAPE.pack(kind, key, number))


class Listener:
    """Reads records from the other end; bytes of an incomplete one wait for the rest."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[Record]:
        """Return the records that are complete."""
        data = self._rest + data
        whole = len(data) - len(data) % _SHAPE.size
        self._rest = data[whole:]
        for kind, key, number in _SHAPE.iter_unpack(data[:whole]):
            yield Record(Kind(kind), key, number)
