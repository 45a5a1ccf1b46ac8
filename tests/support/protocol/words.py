"""Operations and replies in a few words, for people."""

from __future__ import annotations

import struct

from credenza.codec import Codec, Unreadable
from credenza.sentinel import MISSING
from credenza.tiers import records
from credenza.tiers.base import (
    VALUE_HEADER_BYTES,
    Announce,
    Clear,
    Fence,
    Fill,
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

_NUMBER = struct.Struct(">Q")
_TYPED = Codec().of(MISSING)
_OUTCOMES = {0: "lost", 1: "cleared", 2: "stored"}


def token_text(token: bytes) -> str:
    """Return who is behind a token: the process, and a number."""
    return f"P{token[7:8].decode()}.{_NUMBER.unpack(token[8:16])[0]}" if any(token) else "-"


def name_text(name: bytes) -> str:
    """Return a record's key or tag."""
    return name[1:].decode().removeprefix(":")


def operation_text(operation: Operation) -> str:
    """Return what is asked of the tier."""
    kind = type(operation).__name__
    match operation:
        case Lease(name, token, _, seen, keeps, forced):
            how = [word for word, is_so in (("replacing", seen), ("keeping", keeps), ("forced", forced)) if is_so]
            return " ".join([kind, name_text(name), token_text(token), *how])
        case Renew(name, token, _) | Release(name, token, _) | Fence(name, token, _):
            return f"{kind} {name_text(name)} {token_text(token)}"
        case Fill(name, token, envelope, _):
            return f"{kind} {name_text(name)} {token_text(token)} {_envelope_text(name, envelope)}"
        case Clear(name, token, envelope, _):
            with_ = f" {_envelope_text(name, envelope)}" if envelope else ""
            return f"{kind} {name_text(name)} {token_text(token)}{with_}"
        case Put(name, envelope, _):
            return f"{kind} {name_text(name)} {_envelope_text(name, envelope)}"
        case OpenTag(name, stamp):
            return f"{kind} {name_text(name)} at {stamp.sequence}"
        case MarkTag(name, stamp, joins, leaves, _):
            joining = f" joins {token_text(joins)}" if joins else ""
            leaving = f" leaves {token_text(leaves)}" if leaves else ""
            return f"{kind} {name_text(name)} at {stamp.sequence}{joining}{leaving}"
        case Announce(_, sender, names, tags, clears):
            what = ["everything"] if clears else [*map(name_text, names), *map(name_text, tags)]
            return f"{kind} {' '.join(what)} by P{sender[7:8].decode()}"
        case ReadLog(_, after, _, _):
            return f"{kind} after {after}"
        case ReadHead():
            return kind
        case _:
            return f"{kind} {name_text(operation.name)}"


def reply_text(operation: Operation, reply: Reply) -> str:
    """Return what the tier says to it."""
    match reply:
        case Head(_, sequence, floor, _, _):
            return f"sequence {sequence}" + (f" floor {floor}" if floor else "")
        case Log(head, news):
            return f"sequence {head.sequence} news [{'; '.join(map(_news_text, news))}]"
        case bytes():
            return record_text(getattr(operation, "name", b""), reply)
        case int() if isinstance(operation, Clear):
            return _OUTCOMES[int(reply)]
        case _:
            return str(reply)


def record_text(name: bytes, record: bytes) -> str:
    """Return what a record says."""
    state = record[:1]
    if state == b"V":
        token, _ = records.refresh_of(record)
        refresh = f" refreshed by {token_text(token)}" if any(token) else ""
        return f"V {_envelope_text(name, record[VALUE_HEADER_BYTES:])}{refresh}"
    if state == b"L":
        return f"L {token_text(record[1:])}"
    if state == b"B":
        return f"B{record[1:2].decode()} {_writers_text(record[2:])}"
    if state == b"T":
        stamp = records.stamp_of(record)
        assert stamp is not None
        return f"T {stamp.sequence} {_writers_text(record[17:])}"
    return "nothing"


def _writers_text(packed: bytes) -> str:
    return "{" + " ".join(token_text(token) for token, _ in records._writers(packed, 0)) + "}"


def _news_text(news: News) -> str:
    what = ["everything"] if news.clears else [*map(name_text, news.names), *map(name_text, news.tags)]
    return f"{news.sequence}: {' '.join(what)} by P{news.sender[7:8].decode()}"


def _envelope_text(name: bytes, envelope: bytes) -> str:
    try:
        found = _TYPED.unpack(name, envelope, 0)
    except Unreadable as error:
        return f"(unreadable: {error})"
    return f"{found.value} (from {found.stamp.sequence})"
