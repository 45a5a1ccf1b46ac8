"""Which node of a cluster performs an operation."""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..base import Announce, Operation, Reply, TierError
from .conversation import Batch, converse
from .lines import Lines
from .places import Place
from .refusals import Garbled, Refusal, Unreached
from .routes import ask_one_of
from .wire import Wire, pack

_SLOTS: Final = 16384
_ROUNDS: Final = 6
"""How often an operation is sent to the next node that is said to have its slot."""

Remap = Callable[[tuple[str, int]], tuple[str, int]]


class _Turn(NamedTuple):
    """An operation that is to be sent: its place in the batch, and where to."""

    number: int
    place: Place
    is_asking: bool


class ViaCluster:
    """The way to the nodes of a cluster.

    Args:
        known: some of its nodes.
        remap: turns the address that a node gives into the one that it has from here.
    """

    def __init__(self, known: Sequence[Place], *, remap: Remap | None = None) -> None:
        self._known = list(known)
        self._access = known[0].access
        self._remap = remap
        self._nodes: list[Place | None] | None = None  # by slot; None until it is asked for

    async def perform(self, wire: Wire, lines: Lines, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        """See `Route.perform`; what is announced must have been done, so announcements come last."""
        replies: list[Reply] = [None] * len(operations)
        last = [index for index, operation in enumerate(operations) if isinstance(operation, Announce)]
        first = [index for index, operation in enumerate(operations) if not isinstance(operation, Announce)]
        await self._settle(wire, lines, operations, first, replies, deadline_ns)
        if any(isinstance(replies[index], TierError) for index in first):
            for index in last:
                replies[index] = TierError("not announced, since another operation of the batch failed")
        elif last:
            await self._settle(wire, lines, operations, last, replies, deadline_ns)
        if all(isinstance(reply, TierError) and not isinstance(reply, Refusal) for reply in replies):
            raise replies[0]
        return replies

    async def place_of(self, lines: Lines, name: bytes, deadline_ns: int) -> Place:
        nodes = self._nodes or await self._ask(lines, deadline_ns)
        place = nodes[slot_of(name)]
        if place is None:
            self._nodes = None
            raise Unreached("the cluster has no node for some of its slots")
        return place

    async def places(self, lines: Lines, deadline_ns: int) -> list[Place]:
        nodes = await self._ask(lines, deadline_ns)
        return list(dict.fromkeys(place for place in nodes if place is not None))

    def forget(self, place: Place) -> None:
        self._nodes = None

    async def _settle(
        self,
        wire: Wire,
        lines: Lines,
        operations: list[Operation],
        indexes: list[int],
        replies: list[Reply],
        deadline_ns: int,
    ) -> None:
        """Perform some of the operations of a batch, following their slots where they moved to."""
        turns = [
            _Turn(index, await self.place_of(lines, wire.place_name(operations[index]), deadline_ns), is_asking=False)
            for index in indexes
        ]
        for _ in range(_ROUNDS):
            groups: defaultdict[tuple[Place, bool], list[int]] = defaultdict(list)
            for turn in turns:
                groups[turn.place, turn.is_asking].append(turn.number)
            if not groups:
                return
            batches = [
                Batch(place, [operations[index] for index in group], is_asking)
                for (place, is_asking), group in groups.items()
            ]
            results = await converse(wire, lines, batches, deadline_ns)
            turns = []
            for (batch, result), group in zip(zip(batches, results, strict=True), groups.values(), strict=True):
                if isinstance(result, TierError):
                    turns += await self._after_failure(wire, lines, batch, result, group, replies, deadline_ns)
                else:
                    turns += self._after_replies(wire, batch, result, group, replies)

    async def _after_failure(
        self,
        wire: Wire,
        lines: Lines,
        batch: Batch,
        failure: TierError,
        group: list[int],
        replies: list[Reply],
        deadline_ns: int,
    ) -> list[_Turn]:
        """A node is away: what another one has now goes there if nothing was sent, the rest has failed."""
        self._nodes = None
        for index in group:
            replies[index] = failure
        if not isinstance(failure, Unreached):
            return []
        try:
            nodes = await self._ask(lines, deadline_ns)
        except TierError:
            return []
        places = [nodes[slot_of(wire.place_name(operation))] for operation in batch.operations]
        return [
            _Turn(index, place, is_asking=False)
            for index, place in zip(group, places, strict=True)
            if place is not None and place != batch.place
        ]

    def _after_replies(
        self, wire: Wire, batch: Batch, result: list[Reply], group: list[int], replies: list[Reply]
    ) -> list[_Turn]:
        """Keep the replies, and return what has to be sent elsewhere."""
        turns: list[_Turn] = []
        for index, operation, reply in zip(group, batch.operations, result, strict=True):
            replies[index] = reply
            if not isinstance(reply, Refusal):
                continue
            if reply.where:
                place = self._place_at(reply.where.partition(" ")[2], batch.place)
                if reply.code == "MOVED" and self._nodes is not None:
                    self._nodes[slot_of(wire.place_name(operation))] = place
                turns.append(_Turn(index, place, is_asking=reply.code == "ASK"))
        return turns

    async def _ask(self, lines: Lines, deadline_ns: int) -> list[Place | None]:
        """Ask any node who has which slots."""
        answer = await ask_one_of(lines, self._known, pack(b"CLUSTER", b"SLOTS"), deadline_ns)
        nodes: list[Place | None] = [None] * _SLOTS
        try:
            for first, last, master, *_ in answer:
                place = self._place_from(master[0], int(master[1]))
                nodes[first : last + 1] = [place] * (last + 1 - first)
        except (TypeError, ValueError, IndexError, AttributeError):
            raise Garbled from None
        found = dict.fromkeys(place for place in nodes if place is not None)
        self._known = list(found | dict.fromkeys(self._known))[:_SLOTS]
        self._nodes = nodes
        return nodes

    def _place_from(self, host: bytes | None, port: int) -> Place:
        # An empty host stands for that of the node which was asked.
        name = host.decode() if host else self._known[0].host
        if self._remap is not None:
            name, port = self._remap((name, port))
        return Place(name, port, self._access)

    def _place_at(self, address: str, here: Place) -> Place:
        host, _, port = address.rpartition(":")
        try:
            return self._place_from((host or here.host).encode(), int(port))
        except ValueError:
            raise Garbled from None


def slot_of(name: bytes) -> int:
    """Return the slot of a name, which is that of the part in braces if there is one (Redis cluster specification)."""
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % _SLOTS
