"""Operations as commands of the server, and its answers as replies."""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from ..base import (
    VALUE_HEADER_BYTES,
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
    TierError,
)
from .refusals import Garbled, Refusal

SCRIPT: Final = files(__package__ or "").joinpath("scripts", "operations.lua").read_bytes()
_SHA: Final = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
_LEAST_LIMIT: Final = 1_000_000
_SEQUENCE: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct(">I")

Raw = Any  # a reply as the parser made it: bytes, int, list, None, or the Refusal


def pack(*words: bytes) -> bytes:
    """Return a command on the wire."""
    return b"".join([b"*%d\r\n" % len(words), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in words]])


class _Beginnings(dict[int, bytes]):
    """How a look-up begins, by the length of its name: looking it up is faster than formatting it."""

    def __missing__(self, length: int) -> bytes:
        begin = b"*4\r\n$8\r\nGETRANGE\r\n$%d\r\n" % length
        if length < 1000:
            self[length] = begin
        return begin


class Wire:
    """How the operations of one namespace are spelt.

    Args:
        namespace: the prefix of its head and its log.
        max_bytes: how long an envelope may be before `Get` cuts its record off.
    """

    def __init__(self, namespace: str, max_bytes: int) -> None:
        # Literal braces put the head and the log into one slot of a cluster, so that one script may touch both.
        self.head = b"{%b}~head" % namespace.encode()
        self.log = b"{%b}~log" % namespace.encode()
        self._limit = b"%d" % (max(max_bytes, _LEAST_LIMIT) + VALUE_HEADER_BYTES)
        # A record as long as the server allows, 512 MB, must not come over the line.
        last = b"%d" % (max_bytes + VALUE_HEADER_BYTES - 1)
        self._get_begin = _Beginnings()
        self._get_end = b"\r\n$1\r\n0\r\n$%d\r\n%b\r\n" % (len(last), last)

    def place_name(self, operation: Operation) -> bytes:
        """Return the name whose slot decides which node of a cluster performs the operation."""
        return self.head if isinstance(operation, ReadHead | Announce | ReadLog) else operation.name

    def request(self, operations: list[Operation]) -> bytes:
        """Return the commands for a batch, one each."""
        pieces: list[bytes] = []
        for operation in operations:
            if type(operation) is Get:
                name = operation[0]
                pieces += (self._get_begin[len(name)], name, self._get_end)
            else:
                pieces.append(self._call(operation, b"EVALSHA", _SHA))
        return b"".join(pieces)

    def request_with_script(self, operations: list[Operation]) -> bytes:
        """Do as `request`, bringing the script along for a server that does not know it (any more)."""
        for place, operation in enumerate(operations):
            if type(operation) is not Get:
                before, after = operations[:place], operations[place + 1 :]
                return self.request(before) + self._call(operation, b"EVAL", SCRIPT) + self.request(after)
        return self.request(operations)

    def replies(self, operations: list[Operation], answers: list[Raw]) -> list[Reply]:
        """Return what the answers to a batch say.

        Raises:
            Garbled: one of them cannot be an answer to its operation.
        """
        return [
            answer
            if type(answer) is bytes and type(operation) is Get
            else (_understand(operation, answer) if not isinstance(answer, TierError) else _refusal(operation, answer))
            for operation, answer in zip(operations, answers, strict=True)
        ]

    def _call(self, operation: Operation, command: bytes, script: bytes) -> bytes:
        name, *arguments = _ARGUMENTS[type(operation)](operation)
        if isinstance(operation, ReadHead | Announce | ReadLog):
            return pack(command, script, b"2", self.head, self.log, name, self._limit, *arguments)
        return pack(command, script, b"1", operation.name, name, self._limit, *arguments)


def watch_command(log: bytes, after: int, block_ms: int) -> bytes:
    """Return the command that waits for an entry of the log after a sequence number."""
    return pack(b"XREAD", b"COUNT", b"1", b"BLOCK", b"%d" % block_ms, b"STREAMS", log, b"%d-0" % after)


# To the server --------------------------------------------------------------------------------------------------------


def _flag(is_set: bool) -> bytes:  # noqa: FBT001  # the flag is the subject
    return b"1" if is_set else b"0"


_ARGUMENTS: Final[dict[type, Callable[[Any], tuple[bytes, ...]]]] = {  # Any: each takes the operation it is listed for
    Lease: lambda op: (b"lease", op.token, b"%d" % op.life_ms, op.seen, _flag(op.keeps), _flag(op.forced)),
    Renew: lambda op: (b"renew", op.token, b"%d" % op.life_ms),
    Fill: lambda op: (b"fill", op.token, b"%d" % op.life_ms, op.envelope),
    Release: lambda op: (b"release", op.token, _flag(op.drops)),
    Put: lambda op: (b"put", b"%d" % op.life_ms, b"%d" % op.before_ms, op.envelope),
    Drop: lambda op: (b"drop",),
    Fence: lambda op: (b"fence", op.writer, b"%d" % op.life_ms),
    Clear: lambda op: (b"clear", op.writer, b"%d" % op.life_ms, op.envelope),
    OpenTag: lambda op: (b"opentag", op.stamp.epoch, _SEQUENCE.pack(op.stamp.sequence)),
    MarkTag: lambda op: (
        b"marktag",
        op.stamp.epoch,
        _SEQUENCE.pack(op.stamp.sequence),
        op.joins,
        op.leaves,
        b"%d" % op.life_ms,
    ),
    ReadHead: lambda op: (b"readhead", op.epoch),
    Announce: lambda op: (b"announce", op.epoch, _pack_news(op), _flag(op.clears)),
    ReadLog: lambda op: (b"readlog", op.epoch, b"%d" % op.after, b"%d" % op.most, b"%d" % op.staleness_ms),
}


def _pack_news(announced: Announce) -> bytes:
    """Return an entry of the log: sender, names and tags, each with its length before it."""
    parts = (announced.sender, *announced.names, *announced.tags)
    counts = _flag(announced.clears) + _LENGTH.pack(len(announced.names)) + _LENGTH.pack(len(announced.tags))
    return counts + b"".join([_LENGTH.pack(len(part)) + part for part in parts])


# From the server ------------------------------------------------------------------------------------------------------


def _refusal(operation: Operation, refused: TierError) -> Reply:
    is_foreign = isinstance(operation, Get) and isinstance(refused, Refusal) and refused.code == "WRONGTYPE"
    return b"" if is_foreign else refused


def _understand(operation: Operation, answer: Raw) -> Reply:
    try:
        return _READERS[type(operation)](answer)
    except (TypeError, ValueError, IndexError, struct.error):
        raise Garbled from None


def _text(answer: Raw) -> bytes:
    if not isinstance(answer, bytes):
        raise TypeError
    return answer


def _number(answer: Raw) -> int:
    if not isinstance(answer, int):
        raise TypeError
    return answer


def _truth(answer: Raw) -> bool:
    return _number(answer) == 1


def _head(answer: Raw) -> Head:
    epoch, sequence, floor, now_ms, widest_ms = answer[:5]
    return Head(_text(epoch), _number(sequence), _number(floor), _number(now_ms), _number(widest_ms))


def _log(answer: Raw) -> Log:
    return Log(_head(answer), tuple(news for entry in answer[5] if (news := _news(entry)) is not None))


def _news(entry: Raw) -> News | None:
    """Return an entry of the log; None if it is not one of ours, which leaves a gap that its reader sees."""
    try:
        number, fields = entry
        packed: bytes = fields[1]
        (names,), (tags,) = _LENGTH.unpack_from(packed, 1), _LENGTH.unpack_from(packed, 5)
        parts: list[bytes] = []
        start = 9
        for _ in range(1 + names + tags):
            (length,) = _LENGTH.unpack_from(packed, start)
            parts.append(packed[start + 4 : start + 4 + length])
            start += 4 + length
        if start != len(packed):
            return None
        return News(
            int(number.partition(b"-")[0]),
            parts[0],
            tuple(parts[1 : 1 + names]),
            tuple(parts[1 + names :]),
            packed[0] == 49,
        )
    except (TypeError, ValueError, IndexError, struct.error):
        return None


_READERS: Final[dict[type, Callable[[Raw], Reply]]] = {
    Get: _text,
    Lease: _text,
    Renew: _truth,
    Fill: _truth,
    Release: _truth,
    Put: _truth,
    Drop: _truth,
    Fence: _truth,
    Clear: _number,
    OpenTag: _text,
    MarkTag: _text,
    ReadHead: _head,
    Announce: _head,
    ReadLog: _log,
}
