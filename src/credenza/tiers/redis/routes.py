"""Which server performs an operation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..base import Announce, Get, Operation, Reply, TierError
from .discovery import find_slots
from .links import Links, Parcel
from .refusals import Garbled, Refusal, Unreached
from .servers import Address, Servers, redis_module
from .wire import Wire

_ROUNDS: Final = 6
"""How often an operation is sent to the next node that is said to have its slot."""


class _Turn(NamedTuple):
    """An operation that is to be sent: its place in the batch, and where to."""

    number: int
    address: Address
    is_asking: bool = False


class Batch(NamedTuple):
    """Operations for one server.

    Attributes:
        is_asking: each is to be performed by a node that is about to take its slot over.
    """

    address: Address
    operations: Sequence[Operation]
    is_asking: bool = False


class Direct:
    """The way to the only server there is, or to the master that sentinels name. Thread-safe."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def perform(self, links: Links, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        """Perform a batch.

        Raises:
            TierError: none of the operations has a reply.
        """
        (replies,) = await converse(self._wire, links, [Batch(None, operations)], deadline_ns)
        if isinstance(replies, TierError):
            raise replies
        return replies

    async def address_of(self, links: Links, name: bytes, deadline_ns: int) -> Address:
        """Return the server that keeps the record of a name."""
        return None

    async def addresses(self, links: Links, deadline_ns: int) -> list[Address]:
        """Return all servers that keep records."""
        return [None]

    def forget(self) -> None:
        """Do not rely on what was learnt any more: a server did not answer."""


class ViaCluster(Direct):
    """The way to the nodes of a cluster. Thread-safe: what it learns, all callers use."""

    def __init__(self, wire: Wire, known: Servers) -> None:
        super().__init__(wire)
        self._known = known
        self._nodes: dict[int, Address] | None = None  # by slot; None until it is asked for

    async def perform(self, links: Links, operations: list[Operation], deadline_ns: int) -> list[Reply]:
        """See `Direct.perform`; what is announced must have been done, so announcements come last."""
        replies: list[Reply] = [None] * len(operations)
        last = [index for index, operation in enumerate(operations) if isinstance(operation, Announce)]
        first = [index for index, operation in enumerate(operations) if not isinstance(operation, Announce)]
        await self._settle(links, operations, first, replies, deadline_ns)
        if any(isinstance(replies[index], TierError) for index in first):
            for index in last:
                replies[index] = TierError("not announced, since another operation of the batch failed")
        elif last:
            await self._settle(links, operations, last, replies, deadline_ns)
        if all(isinstance(reply, TierError) and not isinstance(reply, Refusal) for reply in replies):
            raise replies[0]
        return replies

    async def address_of(self, links: Links, name: bytes, deadline_ns: int) -> Address:
        address = (self._nodes or await self._ask(links, deadline_ns)).get(slot_of(name))
        if address is None:
            self._nodes = None
            raise Unreached("the cluster has no node for some of its slots")
        return address

    async def addresses(self, links: Links, deadline_ns: int) -> list[Address]:
        return list(dict.fromkeys((await self._ask(links, deadline_ns)).values()))

    def forget(self) -> None:
        self._nodes = None

    async def _ask(self, links: Links, deadline_ns: int) -> dict[int, Address]:
        self._nodes = nodes = await find_slots(self._known, deadline_ns, is_async=links.is_async)
        return nodes

    async def _settle(
        self, links: Links, operations: list[Operation], indexes: list[int], replies: list[Reply], deadline_ns: int
    ) -> None:
        """Perform some of the operations of a batch, following their slots where they moved to."""
        names = {index: self._wire.place_name(operations[index]) for index in indexes}
        turns = [_Turn(index, await self.address_of(links, name, deadline_ns)) for index, name in names.items()]
        for _ in range(_ROUNDS):
            groups: defaultdict[tuple[Address, bool], list[int]] = defaultdict(list)
            for turn in turns:
                groups[turn.address, turn.is_asking].append(turn.number)
            if not groups:
                return
            batches = [Batch(to, [operations[index] for index in group], asks) for (to, asks), group in groups.items()]
            results = await converse(self._wire, links, batches, deadline_ns)
            turns = []
            for batch, result, group in zip(batches, results, groups.values(), strict=True):
                is_failure = isinstance(result, TierError)
                for place, index in enumerate(group):
                    replies[index] = result if isinstance(result, TierError) else result[place]
                    turns += self._moved(replies[index], index, names[index], batch.address)
                if is_failure:
                    turns += await self._after_failure(links, batch, result, group, deadline_ns)

    def _moved(self, reply: Reply, index: int, name: bytes, here: Address) -> list[_Turn]:
        """Return where an operation is to be sent that its node refers to another one."""
        if not isinstance(reply, Refusal) or not reply.where:
            return []
        host, _, port = reply.where.partition(" ")[2].rpartition(":")
        assert here is not None
        try:
            address = (host or here[0], int(port))
        except ValueError:
            raise Garbled from None
        address = self._known.remap(address) if self._known.remap is not None else address
        if reply.code == "MOVED" and self._nodes is not None:
            self._nodes[slot_of(name)] = address
        return [_Turn(index, address, is_asking=reply.code == "ASK")]

    async def _after_failure(
        self, links: Links, batch: Batch, failure: Reply, group: list[int], deadline_ns: int
    ) -> list[_Turn]:
        """A node is away: what another one has now goes there if nothing was sent, the rest has failed."""
        self._nodes = None
        if not isinstance(failure, Unreached):
            return []
        try:
            nodes = await self._ask(links, deadline_ns)
        except TierError:
            return []
        found = [nodes.get(slot_of(self._wire.place_name(operation))) for operation in batch.operations]
        return [
            _Turn(index, address)
            for index, address in zip(group, found, strict=True)
            if address not in (None, batch.address)
        ]


def slot_of(name: bytes) -> int:
    """Return the slot of a name."""
    slot: int = redis_module("redis.crc").key_slot(name)
    return slot


async def converse(wire: Wire, links: Links, batches: list[Batch], deadline_ns: int) -> list[list[Reply] | TierError]:
    """Perform batches on their servers side by side; return the replies of each, or why there are none."""
    parcels = [_parcel(wire, batch) for batch in batches]
    results: list[list[Reply] | TierError] = []
    for batch, answers in zip(batches, await links.exchange(parcels, deadline_ns), strict=True):
        replies = await _understood(wire, links, batch, answers)
        if isinstance(replies, list) and Refusal in map(type, replies):  # nearly never
            replies = await _after_refusals(wire, links, batch, replies, deadline_ns)
        results.append(replies)
    return results


def _parcel(wire: Wire, batch: Batch, *, brings: bool = False) -> Parcel:
    return Parcel(batch.address, wire.request(batch.operations, brings=brings, asks=batch.is_asking))


async def _understood(
    wire: Wire, links: Links, batch: Batch, answers: list[object] | TierError
) -> list[Reply] | TierError:
    if isinstance(answers, TierError):
        return answers
    try:
        return wire.replies(batch.operations, answers, asks=batch.is_asking)
    except Garbled as error:
        await links.drop(batch.address)
        return error


async def _after_refusals(
    wire: Wire, links: Links, batch: Batch, replies: list[Reply], deadline_ns: int
) -> list[Reply] | TierError:
    """Leave a server that has become a replica; perform again, with the scripts, what it did not know them for.

    Look-ups behind the first failure are repeated too, so that they see what the operations before them did.
    """
    codes = [reply.code if isinstance(reply, Refusal) else "" for reply in replies]
    if "READONLY" in codes:
        await links.drop(batch.address)
    if "NOSCRIPT" not in codes:
        return replies
    first = codes.index("NOSCRIPT")
    again = [
        place
        for place in range(first, len(replies))
        if codes[place] == "NOSCRIPT" or isinstance(batch.operations[place], Get)
    ]
    rest = Batch(batch.address, [batch.operations[place] for place in again])
    (answers,) = await links.exchange([_parcel(wire, rest, brings=True)], deadline_ns)
    repeated = await _understood(wire, links, rest, answers)
    if isinstance(repeated, TierError):
        return repeated
    for place, reply in zip(again, repeated, strict=True):
        replies[place] = reply
    return replies
