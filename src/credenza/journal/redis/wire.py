"""What goes to the server and what comes back: names of keys, records, and how a partition is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

from ..base import DeadLetter, Pending

_KINDS: Final = ("head", "pending", "turns", "late", "older", "dead", "buried", "early")
_RECORD: Final = struct.Struct(">QQQIQB")
_LETTER: Final = struct.Struct(">QQIII")
_DELETED: Final = b"D"
_VALUE: Final = b"V"
NOTHING_PENDING: Final = 1 << 62
"""The floor of a partition without pending writes: it is past every mark."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of a journal's keys. Those of a partition are in one slot of a cluster, as they share what is in braces."""

    namespace: str
    partitions: int

    @property
    def about(self) -> str:
        """What is fixed for the whole journal."""
        return f"{{{self.namespace}}}:about"

    @property
    def consumers(self) -> str:
        """The processes that deliver."""
        return f"{{{self.namespace}}}:consumers"

    def keys(self, part: int) -> list[str]:
        """Return the keys of one partition, in the order in which the scripts have them."""
        return [f"{{{self.namespace}:p{part}}}:{kind}" for kind in _KINDS]

    def pending(self, part: int) -> str:
        """Return the key of the pending records of one partition."""
        return f"{{{self.namespace}:p{part}}}:pending"

    def part_of(self, key: bytes) -> int:
        """Return the partition of a key, the same in all processes."""
        return crc32(key) % self.partitions


class State(NamedTuple):
    """How a partition was when it was asked or changed.

    Attributes:
        identity: names what its numbers count.
        base: the last number before the present run of the server.
        changes: grows with every change of it.
        number: the last one that was used.
        pending: how many keys have a pending write.
        floor: the oldest version that something pending stands for, None if nobody looked.
    """

    identity: str
    base: int
    changes: int
    number: int
    pending: int
    floor: int | None


class Look(NamedTuple):
    """What one may know of a partition besides.

    Attributes:
        due_ms: when the next postponed write is due, by the server's clock; 0 if there is none.
        owner: who delivers its writes, empty if nobody does.
        until_ms: until when, by the server's clock.
        dead: how many dead letters it has.
        is_new_run: the server was started anew since the partition was changed last.
    """

    state: State
    due_ms: int
    owner: str
    until_ms: int
    dead: int
    is_new_run: bool


def state_from(reply: Sequence[Any]) -> State:  # Any: as the server sends it
    """Return the state that is in a reply."""
    identity, base, changes, number, pending, floor = reply
    known = None if floor < 0 else floor or NOTHING_PENDING
    return State(identity.decode(), base, changes, number, pending, known)


def look_from(reply: Sequence[Any]) -> Look:  # Any: as above
    """Return what a look at a partition has shown."""
    state, due_ms, owner, until_ms, dead, is_new_run = reply
    return Look(state_from(state), due_ms, owner.decode(), until_ms, dead, bool(is_new_run))


def packed_value(value: bytes | None) -> bytes:
    """Return a value as the journal keeps it."""
    return _DELETED if value is None else _VALUE + value


def value_of(record: bytes) -> bytes | None:
    """Return the value of a pending record."""
    return _value(record[_RECORD.size :])


def since_ms_of(record: bytes) -> int:
    """Return since when a record is pending."""
    since_ms: int = _RECORD.unpack_from(record)[4]
    return since_ms


def pending_from(key: bytes, record: bytes) -> Pending:
    """Return a record as the port has it."""
    version, place, _, failures, since_ms, _ = _RECORD.unpack_from(record)
    return Pending(key, value_of(record), version, place, failures, since_ms)


def letter_from(number: int, packed: bytes, *, is_superseded: bool) -> DeadLetter:
    """Return a dead letter as the port has it."""
    died_ms, _, failures, said_bytes, key_bytes = _LETTER.unpack_from(packed)
    said_end = _LETTER.size + said_bytes
    said, key = packed[_LETTER.size : said_end], packed[said_end : said_end + key_bytes]
    value = _value(packed[said_end + key_bytes :])
    return DeadLetter(number, key, value, failures, said.decode(errors="replace"), died_ms, is_superseded)


def _value(packed: bytes) -> bytes | None:
    return None if packed[:1] == _DELETED else packed[1:]
