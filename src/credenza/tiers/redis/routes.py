"""Which server performs an operation: the only one there is, or the master that a sentinel names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from ..base import Operation, Reply, TierError
from .conversation import Batch, converse
from .lines import Lines, Parcel
from .places import Access, Place
from .refusals import Garbled, Refusal, Unreached
from .wire import Raw, Wire, pack


class Route(Protocol):
    """A way to the servers of one set-up. Thread-safe: what it learns, all callers use."""

    async def perform(self, wire: Wire, lines: Lines, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        """Perform a batch.

        Raises:
            TierError: none of the operations has a reply.
        """
        ...

    async def place_of(self, lines: Lines, name: bytes, deadline_ns: int) -> Place:
        """Return the server that keeps the record of a name.

        Raises:
            TierError: nobody says so in time.
        """
        ...

    async def places(self, lines: Lines, deadline_ns: int) -> list[Place]:
        """Return all servers that keep records.

        Raises:
            TierError: nobody says so in time.
        """
        ...

    def forget(self, place: Place) -> None:
        """Do not rely on a server any more that did not answer."""
        ...


class Direct:
    """The way to the only server there is."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def perform(self, wire: Wire, lines: Lines, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        (replies,) = await converse(wire, lines, [Batch(self._place, operations)], deadline_ns)
        if isinstance(replies, TierError):
            raise replies
        return replies

    async def place_of(self, lines: Lines, name: bytes, deadline_ns: int) -> Place:
        return self._place

    async def places(self, lines: Lines, deadline_ns: int) -> list[Place]:
        return [self._place]

    def forget(self, place: Place) -> None:
        """There is no other server."""


class ViaSentinel:
    """The way to the master of a service, which may be another one after a fail-over.

    Args:
        sentinels: any of them will do.
        service: the name under which they watch the master.
        access: to the master; its `must_be_master` is set.
    """

    def __init__(self, sentinels: Sequence[Place], service: str, access: Access) -> None:
        self._sentinels = list(sentinels)
        self._service = service
        self._access = access
        self._master: Place | None = None

    async def perform(self, wire: Wire, lines: Lines, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        place = await self.place_of(lines, b"", deadline_ns)
        (replies,) = await converse(wire, lines, [Batch(place, operations)], deadline_ns)
        if isinstance(replies, Unreached):
            self.forget(place)
            found = await self.place_of(lines, b"", deadline_ns)
            if found != place:
                (replies,) = await converse(wire, lines, [Batch(found, operations)], deadline_ns)
        if isinstance(replies, TierError):
            self.forget(place)
            raise replies
        if any(isinstance(reply, Refusal) and reply.code == "READONLY" for reply in replies):
            self.forget(place)
            lines.drop(place)
        return replies

    async def place_of(self, lines: Lines, name: bytes, deadline_ns: int) -> Place:
        if self._master is None:
            self._master = await self._find(lines, deadline_ns)
        return self._master

    async def places(self, lines: Lines, deadline_ns: int) -> list[Place]:
        return [await self.place_of(lines, b"", deadline_ns)]

    def forget(self, place: Place) -> None:
        if self._master == place:
            self._master = None

    async def _find(self, lines: Lines, deadline_ns: int) -> Place:
        command = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service.encode())
        try:
            answer = await ask_one_of(lines, self._sentinels, command, deadline_ns)
        finally:
            for place in self._sentinels:  # they are asked too rarely for a connection to stay open
                lines.drop(place)
        if answer is None:
            raise Unreached(f"no sentinel watches a service named {self._service!r}")
        try:
            host, port = answer
            return Place(host.decode(), int(port), self._access)
        except (TypeError, ValueError, AttributeError):
            raise Garbled from None


async def ask_one_of(lines: Lines, places: Sequence[Place], command: bytes, deadline_ns: int) -> Raw:
    """Return the first answer of several servers that are asked one after the other.

    The time is shared among them, so that one that hangs leaves some for the next.

    Raises:
        TierError: none answers; the last one's reason.
    """
    failure: TierError = Unreached("there is no server to ask")
    for tried, place in enumerate(places):
        now_ns = time.monotonic_ns()
        share_ns = max(deadline_ns - now_ns, 0) // (len(places) - tried)
        try:
            (answer,) = await lines.ask(Parcel(place, command, 1), now_ns + share_ns)
        except TierError as error:
            failure = error
            continue
        if isinstance(answer, TierError):
            failure = answer
            continue
        return answer
    raise failure
