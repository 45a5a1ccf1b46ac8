"""The envelope: what is kept beside a value, and the bytes of version 1.

    offset  size
         0     2  magic "cz"
         2     1  version, 1
         3     1  flags: 1 the value is absent, 2 the payload is compressed (zstd), 12 the format of the payload
         4     4  CRC-32 of the name and of all that follows, begun with the flags
         8     8  random: the first 16 bytes tell this very value from all others
        16     8  when it was stored, in milliseconds of the tier's clock
        24     8  how long it is fresh, in milliseconds; all ones: for ever
        32     8  how long it may be served after that
        40     8  how long its load took
        48    16  the stamp: epoch, sequence
        64     4  fingerprint of the type it was annotated with, 0 for none
        68     2  number of tags, then two bytes each with their lengths, then the tags, then the payload
       -32    32  HMAC-SHA256 of the name and of all but the checksum, if the cache signs

Numbers are unsigned and big-endian. The name is in the checksum so that a record copied under another name is unreadable.
"""

from __future__ import annotations

import hmac
import os
import random
import struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from ..errors import CacheError
from ..tiers.base import Stamp

VERSION: Final = 1
SEEN_BYTES: Final = 16
"""How much of an envelope tells its value from every other."""

FOREVER: Final = (1 << 64) - 1
"""The `fresh_ms` of a value that does not expire."""

ABSENT: Final = 1
COMPRESSED: Final = 2
SIGNATURE_BYTES: Final = 32
MAGIC: Final = b"cz\x01"
_START = struct.Struct(">3sBI")
HEADER: Final = struct.Struct(">3sBI8sQQQQ8sQIH")
_EPOCH_BYTES = 8
_SIGNED = struct.Struct(">BBI")
CHECKED_AT: Final = _START.size
_TAGS_AT = HEADER.size - CHECKED_AT  # counted from what the checksum covers

_noise = random.Random()  # begun with the system's randomness, which is a system call for each value else
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.seed)  # a child must not go on as its parent does


class Unencodable(CacheError):
    """The value cannot go to a shared tier: it is too large, or would not come back as it is. The message has no values."""


class Unreadable(CacheError):
    """The bytes are not those of a value of this type, or not ours. The message has no values."""


class Envelope(NamedTuple):
    """A value out of a shared tier, and what was stored beside it.

    Attributes:
        value: the value; the `NotFound` error if it is absent.
        is_absent: the source has no such record.
        stored_ms: when it was stored, by the tier's clock.
        fresh_ms: how long it is fresh from then on; `FOREVER` if it does not expire.
        stale_ms: how long it may be served after that.
        load_ms: how long its load took.
        stamp: where the log was when its load began.
        tags: the names that it carries.
        is_same_type: it was stored under the annotation that it was read with.
    """

    value: Any  # Any: a value of any type
    is_absent: bool
    stored_ms: int
    fresh_ms: int
    stale_ms: int
    load_ms: int
    stamp: Stamp
    tags: tuple[bytes, ...]
    is_same_type: bool


Buffer = bytes | memoryview
Facts = tuple[int, int, int, int]
"""stored_ms, fresh_ms, stale_ms, load_ms."""


class Signature:
    """Signs envelopes with a secret, and tells whether one is signed with it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, name: bytes, flags: int, body: Buffer) -> bytes:
        """Return the signature of all that a reader will believe: nothing can be moved to another name or length."""
        signature = hmac.new(self._secret, _SIGNED.pack(VERSION, flags, len(name)), "sha256")
        signature.update(name)
        signature.update(body)
        return signature.digest()


def seal(
    name: bytes,
    payload: bytes,
    *,
    flags: int,
    facts: Facts,
    stamp: Stamp,
    fingerprint: int,
    tags: tuple[bytes, ...] = (),
    signature: Signature | None = None,
) -> bytes:
    """Return the bytes of an envelope.

    Raises:
        Unencodable: a number is negative or too large, the epoch has not eight bytes, a tag is too long, or there are too many.
    """
    try:
        if len(stamp.epoch) != _EPOCH_BYTES:
            raise struct.error
        header = HEADER.pack(
            MAGIC,
            flags,
            0,
            _noise.getrandbits(64).to_bytes(8, "big"),
            *facts,
            stamp.epoch,
            stamp.sequence,
            fingerprint,
            len(tags),
        )
        lengths = struct.pack(f">{len(tags)}H", *map(len, tags)) if tags else b""
    except struct.error:
        raise Unencodable(
            "a duration, the sequence number, or the number or length of its tags is out of range"
        ) from None
    body = b"".join((header[CHECKED_AT:], lengths, *tags, payload))
    if signature is not None:
        body += signature.of(name, flags, body)
    return _START.pack(MAGIC, flags, crc32(body, crc32(name, flags))) + body


def refusal(magic: bytes) -> Unreadable:
    """Return the error for bytes that begin like this, and whose magic or checksum is wrong."""
    if magic == MAGIC:
        return Unreadable("damaged, or copied from another name")
    if magic[:2] == MAGIC[:2]:
        return Unreadable(f"a value of version {magic[2]}, not {VERSION}")
    return Unreadable("no value of ours")


def contents(
    name: bytes, flags: int, data: Buffer, count: int, signature: Signature | None
) -> tuple[tuple[bytes, ...], Buffer]:
    """Return the tags and the payload of an envelope, without its first bytes, whose checksum is right.

    Raises:
        Unreadable: not signed as it has to be, or the lengths of the tags contradict that of the whole.
    """
    if signature is not None:
        body, signed = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature.of(name, flags, body), signed):
            raise Unreadable("not signed with the secret of this cache")
        data = body
    at = _TAGS_AT + 2 * count
    if len(data) < at:
        raise Unreadable("tags that are longer than the record")
    tags: list[bytes] = []
    for length in struct.unpack_from(f">{count}H", data, _TAGS_AT):
        tags.append(bytes(data[at : at + length]))
        at += length
    if len(data) < at:
        raise Unreadable("tags that are longer than the record")
    return tuple(tags), data[at:]
