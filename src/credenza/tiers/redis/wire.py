"""Operations as commands of the server, and its answers as replies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, NamedTuple

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
from .servers import redis_module

_LEAST_LIMIT: Final = 1_000_000
_SEQUENCE: Final = struct.Struct(">Q")
_LENGTH: Final = struct.Struct(">I")

Raw = Any  # a reply as the parser made it: bytes, int, list, None, or the Refusal
Words = tuple[bytes, ...]


class Request(NamedTuple):
    """Commands as they go over the line.

    Attributes:
        packed: their bytes.
        answers: how many there will be.
    """

    packed: bytes
    answers: int


def request_of(*commands: Words) -> Request:
    """Return the request that consists of some commands."""
    return Request(b"".join(map(redis_module("hiredis").pack_command, commands)), len(commands))


class _Script:
    """A script that the server knows by its digest once it has seen it."""

    def __init__(self, name: str) -> None:
        self._text = files(__package__ or "").joinpath("scripts", name).read_bytes()
        self._digest = sha1(self._text, usedforsecurity=False).hexdigest().encode()

    def call(self, words: Words, *, is_brought: bool) -> Words:
        return (b"EVAL", self._text, *words) if is_brought else (b"EVALSHA", self._digest, *words)


_SCRIPT: Final = _Script("operations.lua")


class Wire:
    """How the operations of one namespace are spelt: each is one command with one answer.

    Args:
        namespace: the prefix of its head and its log.
        max_bytes: how long an envelope may be before `Get` cuts its record off.
    """

    def __init__(self, namespace: str, max_bytes: int) -> None:
        # Literal braces put the head and the log into one slot of a cluster, so that one script may touch both.
        self.head = b"{%b}~head" % namespace.encode()
        self.log = b"{%b}~log" % namespace.encode()
        self._limit = b"%d" % (max(max_bytes, _LEAST_LIMIT) + VALUE_HEADER_BYTES)
        # A record as long as the server allows, 512 MB, must not come over the line: MGET would bring it. A script that
        # looks many up takes the server twice as long as many commands do.
        last = b"%d" % (max_bytes + VALUE_HEADER_BYTES - 1)
        self._look_up = b"*4\r\n$8\r\nGETRANGE\r\n$%%d\r\n%%b\r\n$1\r\n0\r\n$%d\r\n%b\r\n" % (len(last), last)

    def place_name(self, operation: Operation) -> bytes:
        """Return the name whose slot decides which node of a cluster performs the operation."""
        return self.head if isinstance(operation, ReadHead | Announce | ReadLog) else operation.name

    def request(self, operations: Sequence[Operation], *, brings: bool = False, asks: bool = False) -> Request:
        """Return the request for a batch.

        Args:
            operations: the batch.
            brings: bring the script along once, for a server that does not know it (any more).
            asks: they are for a node of a cluster that is about to take over their slots; as each may be refused, and the
                node may not know the script, each brings it along.
        """
        look_up = self._look_up
        if not asks and set(map(type, operations)) == {Get}:
            names = [operation[0] for operation in operations]
            return Request(b"".join([look_up % (len(name), name) for name in names]), len(names))
        pack = redis_module("hiredis").pack_command
        parts: list[bytes] = []
        for operation in operations:
            if asks:
                parts.append(pack((b"ASKING",)))
            if isinstance(operation, Get):
                parts.append(look_up % (len(operation.name), operation.name))
            else:
                parts.append(pack(_SCRIPT.call(self._arguments(operation), is_brought=brings or asks)))
                brings = False
        return Request(b"".join(parts), len(operations) * (2 if asks else 1))

    def replies(self, operations: Sequence[Operation], answers: Sequence[Raw], *, asks: bool = False) -> list[Reply]:
        """Return what the answers to a batch say.

        Raises:
            Garbled: one of them cannot be an answer to its operation.
        """
        answers = answers[1::2] if asks else answers
        if set(map(type, answers)) == {bytes} and set(map(type, operations)) == {Get}:
            return list(answers)
        return list(map(_understand, operations, answers))

    def _arguments(self, operation: Operation) -> Words:
        name, *arguments = _ARGUMENTS[type(operation)](operation)
        if isinstance(operation, ReadHead | Announce | ReadLog):
            return (b"2", self.head, self.log, name, self._limit, *arguments)
        return (b"1", operation.name, name, self._limit, *arguments)


def watch_command(log: bytes, after: int, block_ms: int) -> Words:
    """Return the command that waits for an entry of the log after a sequence number."""
    return (b"XREAD", b"COUNT", b"1", b"BLOCK", b"%d" % block_ms, b"STREAMS", log, b"%d-0" % after)


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
    Fence: lambda op: (b"fence", op.writer, b"%d" % op.life_ms, _flag(op.renews)),
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


def _looked_up(answer: Raw) -> Reply:
    """Return a record; a foreign type under our name is as absent."""
    if type(answer) is bytes:
        return answer
    if isinstance(answer, Refusal) and answer.code == "WRONGTYPE":
        return b""
    if isinstance(answer, TierError):
        return answer
    raise Garbled


def _understand(operation: Operation, answer: Raw) -> Reply:
    if type(operation) is Get:
        return _looked_up(answer)
    if isinstance(answer, TierError):
        return answer
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
