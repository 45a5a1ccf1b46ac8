"""What every operation does to a record: the reference that all tiers agree with.

Pure functions from a record to its successor. A record is bytes as in `base`, or b"" for an absent one; `Change.life_ms`
says how long it lives from now, with `KEEP` for "as long as it would have", and then for `least_ms` at least.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from .base import (
    CLEARED,
    LOST,
    NO_TOKEN,
    STORED,
    TOKEN_BYTES,
    VALUE_HEADER_BYTES,
    Clear,
    Drop,
    Fence,
    Fill,
    Lease,
    MarkTag,
    OpenTag,
    Put,
    Release,
    Renew,
    Reply,
    Stamp,
)

KEEP: Final = -1
TAG_LIFE_MS: Final = 7 * 24 * 3600 * 1000
"""How long a tag's record lives without being touched. Without a record, values that carry the tag are dead."""

MOST_LIFE_MS: Final = 24 * 3600 * 1000
"""No lease and no writer's share of a fence lives longer; a deadline beyond that was written by somebody else."""

_DEADLINE = struct.Struct(">Q")
_WRITER_BYTES = TOKEN_BYTES + _DEADLINE.size
_TAG = struct.Struct(">c8sQ")


class Change(NamedTuple):
    """What becomes of a record: its bytes and its life, or None to leave it alone; and the reply."""

    reply: Reply
    record: bytes | None = None
    life_ms: int = KEEP
    least_ms: int = 0

    def expires_ms(self, now_ms: int, expires_ms: int) -> int:
        """Return when the record expires, which would have at `expires_ms`."""
        return max(expires_ms, now_ms + self.least_ms) if self.life_ms == KEEP else now_ms + self.life_ms


def lease(record: bytes, operation: Lease, now_ms: int) -> Change:
    """See `Lease`. What no tier of ours has written is as absent."""
    state = record[:1]
    if state == b"B" and any(True for _ in _writers(record[2:], now_ms)):
        return Change(record)
    if state == b"L" and len(record) == VALUE_HEADER_BYTES:
        is_own = record[1 : 1 + TOKEN_BYTES] == operation.token
        if _is_near(refresh_of(record)[1], now_ms) and not (is_own or operation.forced):
            return Change(record)
    if state == b"V" and len(record) > VALUE_HEADER_BYTES:
        holder, deadline_ms = refresh_of(record)
        is_taken = holder not in (NO_TOKEN, operation.token) and _is_near(deadline_ms, now_ms)
        is_meant = operation.forced or (operation.seen and record[VALUE_HEADER_BYTES:].startswith(operation.seen))
        if not is_meant or (is_taken and not operation.forced):
            return Change(record)
        if operation.keeps:
            envelope = record[VALUE_HEADER_BYTES:]
            kept = value_record(envelope, operation.token, now_ms + operation.life_ms)
            return Change(b"L" + operation.token, kept, least_ms=operation.life_ms)
    return Change(b"L" + operation.token, lease_record(operation.token, now_ms + operation.life_ms), operation.life_ms)


def renew(record: bytes, operation: Renew, now_ms: int) -> Change:
    """See `Renew`."""
    if not _is_leased(record, operation.token):
        return Change(False)
    deadline_ms = now_ms + operation.life_ms
    if record[:1] == b"L":
        return Change(True, lease_record(operation.token, deadline_ms), operation.life_ms)
    kept = value_record(record[VALUE_HEADER_BYTES:], operation.token, deadline_ms)
    return Change(True, kept, least_ms=operation.life_ms)


def fill(record: bytes, operation: Fill) -> Change:
    """See `Fill`."""
    if not _is_leased(record, operation.token):
        return Change(False)
    return Change(True, value_record(operation.envelope), operation.life_ms)


def release(record: bytes, operation: Release) -> Change:
    """See `Release`."""
    if not _is_leased(record, operation.token):
        return Change(False)
    if record[:1] == b"L" or operation.drops:
        return Change(True, b"")
    return Change(True, value_record(record[VALUE_HEADER_BYTES:]))


def put(record: bytes, operation: Put, now_ms: int) -> Change:
    """See `Put`."""
    if now_ms >= operation.before_ms:
        return Change(False)
    if record[:1] == b"B":
        return Change(False, _contended(record))
    return Change(True, value_record(operation.envelope), operation.life_ms)


def drop(record: bytes, _operation: Drop) -> Change:
    """See `Drop`."""
    return Change(True, _contended(record) if record[:1] == b"B" else b"")


def fence(record: bytes, operation: Fence, now_ms: int) -> Change:
    """See `Fence`. The record lives as long as the last of its writers."""
    writers: dict[bytes, int] = {}
    is_contended = False
    if record[:1] == b"B":
        is_contended = record[1:2] != b"0"
        writers = dict(_writers(record[2:], now_ms))
    was_in = operation.writer in writers
    if operation.renews and not was_in:
        return Change(False)
    is_contended = is_contended or bool(writers.keys() - {operation.writer})
    writers[operation.writer] = now_ms + operation.life_ms
    return Change(was_in, _fence_record(writers, is_contended=is_contended), max(writers.values()) - now_ms)


def clear(record: bytes, operation: Clear, now_ms: int) -> Change:
    """See `Clear`."""
    if record[:1] != b"B":
        return Change(LOST, b"")
    writers = dict(_writers(record[2:], now_ms))
    was_in = writers.pop(operation.writer, None) is not None
    is_contended = record[1:2] != b"0"
    if writers:
        left = _fence_record(writers, is_contended=True)
        return Change(CLEARED if was_in else LOST, left, max(writers.values()) - now_ms)
    if was_in and operation.envelope and not is_contended:
        return Change(STORED, value_record(operation.envelope), operation.life_ms)
    return Change(CLEARED if was_in else LOST, b"")


def open_tag(record: bytes, operation: OpenTag, now_ms: int) -> Change:
    """See `OpenTag`."""
    stamp, writers = _tag(record, now_ms)
    if stamp is not None and stamp.epoch == operation.stamp.epoch:
        return Change(record)
    opened = tag_record(operation.stamp, writers)
    return Change(opened, opened, TAG_LIFE_MS)


def mark_tag(record: bytes, operation: MarkTag, now_ms: int) -> Change:
    """See `MarkTag`."""
    stamp, writers = _tag(record, now_ms)
    marked = operation.stamp
    if stamp is not None and (stamp.epoch == marked.epoch or not marked.sequence):
        marked = max(stamp, marked) if marked.sequence else stamp
    if operation.joins:
        writers[operation.joins] = now_ms + operation.life_ms
    writers.pop(operation.leaves, None)
    changed = tag_record(marked, writers)
    return Change(changed, changed, TAG_LIFE_MS)


# The bytes ------------------------------------------------------------------------------------------------------------


def value_record(envelope: bytes, token: bytes = NO_TOKEN, deadline_ms: int = 0) -> bytes:
    """Return the record of a value, with the token of a refresh under way."""
    return b"V" + token + _DEADLINE.pack(deadline_ms) + envelope


def lease_record(token: bytes, deadline_ms: int) -> bytes:
    """Return the record of a lease. Its expiry is the record's; the deadline tells it from what is none of ours."""
    return b"L" + token + _DEADLINE.pack(deadline_ms)


def refresh_of(record: bytes) -> tuple[bytes, int]:
    """Return the token and the deadline in the header of a `V` or an `L`."""
    return record[1 : 1 + TOKEN_BYTES], _DEADLINE.unpack_from(record, 1 + TOKEN_BYTES)[0]


def tag_record(stamp: Stamp, writers: dict[bytes, int] | None = None) -> bytes:
    """Return the record of a tag."""
    return _TAG.pack(b"T", stamp.epoch, stamp.sequence) + _packed(writers or {})


def stamp_of(record: bytes) -> Stamp | None:
    """Return the stamp of a tag's record; None if there is none, or the bytes are not those of one."""
    if record[:1] != b"T" or len(record) < _TAG.size:
        return None
    _, epoch, sequence = _TAG.unpack_from(record)
    return Stamp(epoch, sequence)


def tag_writers(record: bytes, now_ms: int) -> dict[bytes, int]:
    """Return the writers behind the fence of a tag's record, with their deadlines.

    One whose deadline has passed is still there: it was killed, perhaps after its commit, and what was loaded before that
    may carry a stamp as late as the one that it left. It goes when somebody who has seen it marks the tag anew.
    """
    return dict(_shares(record[_TAG.size :], now_ms))


def _tag(record: bytes, now_ms: int) -> tuple[Stamp | None, dict[bytes, int]]:
    stamp = stamp_of(record)
    return stamp, {} if stamp is None else tag_writers(record, now_ms)


def _is_leased(record: bytes, token: bytes) -> bool:
    return record[:1] in (b"L", b"V") and record[1 : 1 + TOKEN_BYTES] == token


def _is_near(deadline_ms: int, now_ms: int) -> bool:
    """Tell whether a deadline has not passed, and is one that a lease or a fence of ours can have."""
    return now_ms < deadline_ms <= now_ms + MOST_LIFE_MS


def _contended(record: bytes) -> bytes:
    return record[:1] + b"1" + record[2:]


def _fence_record(writers: dict[bytes, int], *, is_contended: bool) -> bytes:
    return b"B" + (b"1" if is_contended else b"0") + _packed(writers)


def _packed(writers: dict[bytes, int]) -> bytes:
    return b"".join(token + _DEADLINE.pack(deadline_ms) for token, deadline_ms in writers.items())


def _writers(packed: bytes, now_ms: int) -> Iterator[tuple[bytes, int]]:
    """Yield the writers whose share of the fence has not expired."""
    return ((token, deadline_ms) for token, deadline_ms in _shares(packed, now_ms) if deadline_ms > now_ms)


def _shares(packed: bytes, now_ms: int) -> Iterator[tuple[bytes, int]]:
    """Yield all writers, but for what none of ours has written."""
    for start in range(0, len(packed) - _WRITER_BYTES + 1, _WRITER_BYTES):
        token = packed[start : start + TOKEN_BYTES]
        deadline_ms: int = _DEADLINE.unpack_from(packed, start + TOKEN_BYTES)[0]
        if deadline_ms <= now_ms + MOST_LIFE_MS:
            yield token, deadline_ms
