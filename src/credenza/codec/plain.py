"""The shortest way from many keys to their values in the shared tier, for what nearly all keys and records are.

Both functions are compiled, too: `memory.implementation` has those that serve.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple
from zlib import crc32

from ..sentinel import MISSING
from ..tiers.base import VALUE_HEADER_BYTES, Get
from .envelope import CHECKED_AT, HEADER

_GLIMPSE_OF: Final = struct.Struct(f">c{VALUE_HEADER_BYTES - 1}x4sI8xQQ16x8sQ4xH").unpack_from
_CHECKED_AT: Final = VALUE_HEADER_BYTES + CHECKED_AT
_PAYLOAD_AT: Final = HEADER.size - CHECKED_AT  # counted from what the checksum covers
_make: Final[Callable[[type[Get], tuple[bytes]], Get]] = tuple.__new__  # a named tuple's own constructor takes longer


class Plain(NamedTuple):
    """What the records of one type have in common that need no closer look: they carry no tags and no signature.

    Attributes:
        magic: how their envelopes begin, flags included; empty if none of them is plain.
        most_bytes: how long a record may be.
        decode: makes a value of a payload.
    """

    magic: bytes
    most_bytes: int
    decode: Callable[[bytes], Any]  # Any: a value of any type


def gets(prefix: str, keys: Sequence[Hashable], name_of: Callable[[Hashable], bytes]) -> list[Get]:
    """Return what looks the records of keys up.

    Args:
        prefix: what the names begin with.
        keys: a text that does not begin with "~" is its own name.
        name_of: names other keys, and text that is not to be had in UTF-8, with the prefix.
    """
    try:
        names = [(prefix + key).encode() if type(key) is str and key[:1] != "~" else name_of(key) for key in keys]
    except UnicodeEncodeError:
        names = [name_of(key) for key in keys]
    return list(map(_make, repeat(Get), zip(names)))


def fresh_values(
    looked_up: Sequence[Get], records: Sequence[Any], plain: Plain, now_ms: int, epoch: bytes, floor: int
) -> tuple[list[Any], list[int]]:
    """Return the value of each plain `V` that is fresh and current, and the places where `unpack` has to say more.

    It is `TypedCodec.unpack` for what nearly all records are, in one loop and without an `Envelope` for each. In the other
    places is `MISSING`.

    Args:
        looked_up: what was asked.
        records: the tier's replies, of any type.
        plain: what is plain.
        now_ms: the tier's time, at most.
        epoch: the epoch of the head.
        floor: the sequence number from which on nothing was cleared.
    """
    magic, most_bytes, decode = plain
    flags = magic[-1] if magic else 0
    glimpse_of, checksum_of = _GLIMPSE_OF, crc32
    values: list[Any] = []
    others: list[int] = []
    for (name,), record in zip(looked_up, records, strict=True):
        try:
            sign, its_magic, checksum, stored_ms, fresh_ms, stamp_epoch, sequence, count = glimpse_of(record)
            if (
                its_magic == magic
                and not count
                and now_ms - stored_ms < fresh_ms
                and stamp_epoch == epoch
                and sequence >= floor
                and sign == b"V"
                and len(record) <= most_bytes
            ):
                data = record[_CHECKED_AT:]
                if checksum_of(data, checksum_of(name, flags)) == checksum:
                    values.append(decode(data[_PAYLOAD_AT:]))
                    continue
        except Exception:  # noqa: S110  # as in `unpack`, which will say why
            pass
        others.append(len(values))
        values.append(MISSING)
    return values, others
