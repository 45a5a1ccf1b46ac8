"""The port to a shared tier: operations as data, and who performs them.

A tier keeps one record per name, in one of these states, each with an expiry of the tier's own:

    absent
    V  a value: the token and the deadline of a refresh under way (zeros for none), then the envelope
    L  a lease: the token of the one load that may fill the record, and the lease's deadline
    B  a fence: the writers that are about to change the record's source, each with a deadline
    T  a tag: its stamp, then the writers behind its fence

and, once per namespace, a head (epoch, sequence, floor) with a log of invalidations numbered by the sequence. What each
operation does to a record is written down as code in `records`; every tier does the same, atomically per operation.
All of them may be repeated: a reply that was lost is asked for again with the same token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from ..errors import TierError

__all__ = [
    "CLEARED",
    "LOST",
    "NO_TOKEN",
    "STORED",
    "TOKEN_BYTES",
    "VALUE_HEADER_BYTES",
    "Announce",
    "Clear",
    "Crowded",
    "Drop",
    "Fence",
    "Fill",
    "Get",
    "Head",
    "Lease",
    "Log",
    "MarkTag",
    "Near",
    "News",
    "OpenTag",
    "Operation",
    "Put",
    "ReadHead",
    "ReadLog",
    "Release",
    "Renew",
    "Reply",
    "Stamp",
    "Tier",
    "TierError",
]

TOKEN_BYTES: Final = 16
"""The length of a token: one of a lease or of a writer, drawn at random for each load and each write."""

NO_TOKEN: Final = bytes(TOKEN_BYTES)
VALUE_HEADER_BYTES: Final = 1 + TOKEN_BYTES + 8
"""Where the envelope of a `V` begins."""


class Crowded(TierError):
    """The caller's time was over while others were served; that says nothing about the tier."""


class Stamp(NamedTuple):
    """A place in the log: a sequence number, which counts within an epoch of the tier's memory."""

    epoch: bytes
    sequence: int


class Head(NamedTuple):
    """What a namespace knows of itself.

    Attributes:
        epoch: eight random bytes; another epoch means that the tier lost its memory.
        sequence: how many announcements there were in this epoch.
        floor: values whose load began before this sequence number were cleared.
        now_ms: the tier's clock, in milliseconds.
        widest_ms: the largest `max_staleness` of all processes, in milliseconds: how long their proofs may hold.
    """

    epoch: bytes
    sequence: int
    floor: int
    now_ms: int
    widest_ms: int


class News(NamedTuple):
    """One announcement: names and tags to forget; `clears` stands for all of them.

    Attributes:
        sequence: its number.
        sender: who announced it.
    """

    sequence: int
    sender: bytes
    names: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    clears: bool


class Log(NamedTuple):
    """The head, and the announcements after a sequence number, in order; read in one step.

    `news` may be incomplete: the log is trimmed, and one reading is bounded. Their numbers tell.
    """

    head: Head
    news: tuple[News, ...]


# Operations. A name is the full name of a record, namespace included; a `life_ms` is its expiry from now.


class Get(NamedTuple):
    """Look up a record. Reply: its bytes, cut off after the tier's limit; b"" if there is none or it is of a foreign type."""

    name: bytes


class Lease(NamedTuple):
    """Take the right to fill a record. Reply: b"L" and the token if granted, else the record that stands in the way.

    What none of ours has written (another state, a deadline out of reach) does not stand in the way.

    Attributes:
        seen: the beginning of the `V` that the caller saw and wants to replace; b"" if it saw none.
        keeps: a `V` that is replaced stays readable meanwhile, with the token in its header, and lives at least as long as
            the lease: readers look at its age themselves.
        forced: take it from whoever has it, over any `V`; not from behind a fence.
    """

    name: bytes
    token: bytes
    life_ms: int
    seen: bytes = b""
    keeps: bool = False
    forced: bool = False


class Renew(NamedTuple):
    """Let a lease live on. Reply: whether it was still held."""

    name: bytes
    token: bytes
    life_ms: int


class Fill(NamedTuple):
    """Store a value under a lease, and end it. Reply: whether the lease was still held, and so the value is stored."""

    name: bytes
    token: bytes
    envelope: bytes
    life_ms: int


class Release(NamedTuple):
    """End a lease without a value; with `drops` a `V` that was to be replaced goes too. Reply: whether it was held."""

    name: bytes
    token: bytes
    drops: bool


class Put(NamedTuple):
    """Store a value over whatever is there, but a fence. Reply: whether it is stored.

    Attributes:
        before_ms: from this time of the tier's clock on it is not stored: its caller has given up, and what arrives late
            could overwrite what is newer. No token guards it, as there is one in a lease.
    """

    name: bytes
    envelope: bytes
    life_ms: int
    before_ms: int


class Drop(NamedTuple):
    """Remove a value or a lease; a fence stays, and its writers learn of it. Reply: True."""

    name: bytes


class Fence(NamedTuple):
    """Add a writer to the fence over whatever is there, or let its share live on. Reply: whether it was in already.

    Attributes:
        renews: only let it live on; a writer that is not in stays out, so that asking twice gets the same reply.
    """

    name: bytes
    writer: bytes
    life_ms: int
    renews: bool = False


class Clear(NamedTuple):
    """Take a writer out of the fence; with none left the record goes, or becomes the value.

    Attributes:
        envelope: the value to store, if the writer was alone behind the fence all the time and nobody dropped the
            record meanwhile; b"" for none.

    Reply: `LOST` if the writer was not behind the fence any more, then nothing is stored and the record goes unless it
    is a fence of others; `STORED` if the value is in place; else `CLEARED`.
    """

    name: bytes
    writer: bytes
    envelope: bytes = b""
    life_ms: int = 0


LOST: Final = 0
CLEARED: Final = 1
STORED: Final = 2


class OpenTag(NamedTuple):
    """Make sure that a tag has a record. Reply: the record, new with `stamp` if there was none or one of another epoch.

    Writers behind the fence of a record of another epoch are kept.
    """

    name: bytes
    stamp: Stamp


class MarkTag(NamedTuple):
    """Raise the stamp of a tag, and let a writer in behind its fence or out again. Reply: the record.

    A writer whose share of the fence has expired stays in the record until it is named in `leaves`.

    Attributes:
        stamp: taken if it is later than the record's, or of another epoch; with a sequence of 0 only if there is no record.
        joins: the writer that enters, b"" for none; its share of the fence lasts for `life_ms`.
        leaves: the writer that leaves, b"" for none.
    """

    name: bytes
    stamp: Stamp
    joins: bytes = b""
    leaves: bytes = b""
    life_ms: int = 0


class ReadHead(NamedTuple):
    """Read the head. Reply: a `Head`.

    Attributes:
        epoch: eight random bytes, the epoch if there is no head.
    """

    epoch: bytes


class Announce(NamedTuple):
    """Append to the log and advance the sequence in one step. Reply: the `Head` after it.

    Tiers that spread over several nodes perform it after all other operations of its batch are acknowledged.

    Attributes:
        epoch: as in `ReadHead`.
        clears: raises the floor above all values there are.
    """

    epoch: bytes
    sender: bytes
    names: tuple[bytes, ...] = ()
    tags: tuple[bytes, ...] = ()
    clears: bool = False


class ReadLog(NamedTuple):
    """Read the head and the announcements after `after` in one step. Reply: a `Log`.

    Attributes:
        epoch: as in `ReadHead`.
        most: how many announcements at most.
        staleness_ms: how long the reader's proof will hold; raises the head's `widest_ms`.
    """

    epoch: bytes
    after: int
    most: int
    staleness_ms: int


Operation = (
    Get
    | Lease
    | Renew
    | Fill
    | Release
    | Put
    | Drop
    | Fence
    | Clear
    | OpenTag
    | MarkTag
    | ReadHead
    | Announce
    | ReadLog
)

Reply = Any  # what the operation says, or a TierError where this one failed alone


class Tier(Protocol):
    """A place that processes share. All methods are thread-safe.

    Attributes:
        namespace: the beginning of all its names, which keeps applications on one server apart.
        max_bytes: records that are longer are cut off when they are looked up.

    A tier knows neither keys nor values, takes no decision and never retries what may have been performed twice with
    another outcome; it may send a batch again when a connection that had been idle turns out to be closed.
    """

    namespace: str
    max_bytes: int

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """Perform the operations in order and return their replies; block for at most `timeout_ns`.

        Raises:
            TierError: none of them is known to be performed, any of them may be.
        """
        ...

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """Do as `perform` on the running event loop, without blocking it. May be cancelled at any time.

        The caller bounds the time precisely, and cancels; the tier itself is patient with a loop that is busy, whose timers
        come late while replies wait to be read.
        """
        ...

    def watch(self, after: int, timeout_ns: int) -> None:
        """Block until there may be news after `after`, for at most `timeout_ns`.

        Raises:
            TierError: the tier is away.
        """
        ...

    def forget_parent(self) -> None:
        """Begin anew in a forked child: connections and files of the parent are its own."""
        ...

    def close(self) -> None:
        """Close what blocking calls opened. May be called again, and from another thread than theirs."""
        ...

    async def close_async(self) -> None:
        """Close what the running event loop opened."""
        ...


class Near(ABC):
    """A tier on this machine that answers a look-up in microseconds, so that nobody waits for it or gathers with others.

    It is a base class, not a protocol: a tier around another one, which hands on what it does not know, is not near.
    """

    __slots__ = ()

    @abstractmethod
    def look(self, name: bytes) -> bytes | None:
        """Return what `Get` would, at once; None if that takes more than a look, or does not work. Thread-safe."""
