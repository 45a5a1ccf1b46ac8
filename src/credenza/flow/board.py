"""What a load asks of the shared tier: a lease before it, the fill after it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final

from ..codec import SEEN_BYTES, TypedCodec, Unencodable
from ..errors import TierError
from ..events import EventKind
from ..memory.implementation import Entry
from ..runtime.base import Waiter
from ..sentinel import MISSING
from ..shared.shared import LEASE_MS, MILLISECOND, Knowledge, Shared
from ..state import State
from ..steps.landing import settle
from ..steps.request import Request
from ..tiers.base import Fill, Get, Head, Lease, Operation, ReadHead, Release, Reply, Stamp
from .exchange import exchange, note_refusal, tier_of
from .look import mend_tags, read_tags, read_value, stamps_of, tag_names, torn_tags

_MOST_ATTEMPTS: Final = 4
"""How often a lease is asked for anew because the record has become another value meanwhile."""

_REFUSAL_NS: Final = 1_000_000_000
"""So long no lease is asked for after a tier has refused to store: one that is full or locked would keep everybody waiting."""

_LONGEST_MS: Final = 366 * 24 * 3600 * 1000
"""Every record has an expiry; this is that of a value that never expires."""


class Berth(enum.Enum):
    """How a load stands with the shared tier."""

    LEASED = enum.auto()
    """It is to load, and may store."""
    BYPASS = enum.auto()
    """It is to load, and may not store."""
    WAITS = enum.auto()
    """Another process loads."""
    AGAIN = enum.auto()
    """The record has become another value; ask for the lease anew."""
    DONE = enum.auto()
    """It has ended: the tier had the value."""


class Boarding:
    """One request of a load, and its lease.

    Attributes:
        token: that of its lease, b"" if it holds none.
        stamp: the place in the log when the lease was taken, before the load began.
    """

    __slots__ = ("berth", "name", "request", "stamp", "token")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.name = b""
        self.berth = Berth.WAITS
        self.token = b""
        self.stamp = Stamp(b"", 0)


class Cargo:
    """A value on its way into the tiers."""

    __slots__ = ("boarding", "entry", "tags", "value")

    def __init__(self, boarding: Boarding, value: Any, entry: Entry | None, tags: tuple[object, ...]) -> None:
        self.boarding = boarding  # Any: a value of any type, or the NotFound that is remembered
        self.value = value
        self.entry = entry
        self.tags = tags


def seal(state: State, boardings: Sequence[Boarding]) -> None:
    """Note who has joined until now: they came before what shows that the value is current, and may share it."""
    now_ns = state.clock_ns()
    with state.lock:
        for boarding in boardings:
            flight = boarding.request.flight
            flight.seal, flight.sealed_ns = flight.joined, now_ns


# Before the load ------------------------------------------------------------------------------------------------------


async def ask(state: State, run: Waiter, boardings: Sequence[Boarding]) -> None:
    """Ask for leases, and set every berth; end the flights of those whose value the tier has."""
    shared = tier_of(state)
    is_refusing = shared.is_refusing and state.clock_ns() - shared.refused_ns < _REFUSAL_NS
    asking = []
    for boarding in boardings:
        request = boarding.request
        boarding.name = boarding.name or shared.names.record(request.key)
        request.settlements = shared.owed.settlements
        if request.flight.is_fenced or is_refusing or not shared.may_ask(request.key):
            boarding.berth = Berth.BYPASS
        else:
            asking.append(boarding)
    for _ in range(_MOST_ATTEMPTS):
        if not asking:
            return
        seal(state, asking)
        try:
            await _ask_once(state, run, asking)
        except TierError:
            for boarding in asking:
                boarding.berth, boarding.token = Berth.BYPASS, b""
            return
        asking = [boarding for boarding in asking if boarding.berth is Berth.AGAIN]
    for boarding in asking:
        boarding.berth = Berth.BYPASS


async def _ask_once(state: State, run: Waiter, boardings: Sequence[Boarding]) -> None:
    """Ask for leases in one round trip, with the head and the tags as they are before the loads begin."""
    shared = tier_of(state)
    tags = tuple(
        dict.fromkeys(tag for each in boardings for tag in tag_names(shared, each.request.tags, each.request.key))
    )
    operations: list[Operation] = [_lease(shared, boarding) for boarding in boardings]
    operations += [ReadHead(shared.epoch), *map(Get, tags)]
    sent_ns = state.clock_ns()
    replies = await exchange(state, run, operations, shared.timeout_ns)
    head: Head | TierError = replies[len(boardings)]
    if isinstance(head, TierError):
        note_refusal(state, head)
        raise head
    if shared.offset_ms is None:
        shared.compare_clocks(head.now_ms, sent_ns, state.clock_ns())
    told = replies[len(boardings) + 1 :]
    stamps = stamps_of(tags, told, head, head.now_ms)
    torn = torn_tags(tags, told, head.now_ms)
    if torn:
        head = await mend_tags(state, run, torn)
        for tag, _ in torn:
            stamps.pop(tag, None)  # to be read again below
    missing = [tag for tag in tags if tag not in stamps]
    if missing:
        stamps |= await read_tags(state, run, missing, head)
    knowledge = Knowledge(head, stamps)
    for boarding, reply in zip(boardings, replies, strict=False):
        await _take_berth(state, run, boarding, reply, knowledge)
    fenced = [each for each in boardings if each.berth is Berth.LEASED and not _is_open(shared, each, stamps)]
    await release(state, run, fenced, drops=True)
    for boarding in fenced:
        boarding.berth = Berth.BYPASS


def _lease(shared: Shared, boarding: Boarding) -> Lease:
    request = boarding.request
    boarding.token = boarding.token or shared.new_token()
    keeps = request.replaces_readable or request.is_forced
    return Lease(boarding.name, boarding.token, LEASE_MS, request.seen, keeps, request.is_forced)


def _is_open(shared: Shared, boarding: Boarding, stamps: dict[bytes, Stamp | None]) -> bool:
    """Tell whether no tag of the request is behind a fence."""
    return all(stamps[tag] is not None for tag in tag_names(shared, boarding.request.tags, boarding.request.key))


async def _take_berth(state: State, run: Waiter, boarding: Boarding, reply: Reply, knowledge: Knowledge) -> None:
    """Set the berth by what the tier replied to the lease."""
    token, boarding.token = boarding.token, b""
    if isinstance(reply, TierError):
        note_refusal(state, reply)
        boarding.berth = Berth.BYPASS
    elif reply == b"L" + token:
        note_refusal(state, None)
        boarding.berth, boarding.token = Berth.LEASED, token
        boarding.stamp = Stamp(knowledge.head.epoch, knowledge.head.sequence)
        with state.lock:
            tier_of(state).leases[token] = boarding.name
    elif reply[:1] == b"V":
        boarding.berth = await _meet(state, run, boarding, reply, knowledge)
    elif reply[:1] == b"B":
        boarding.berth, boarding.request.flight.is_fenced = Berth.BYPASS, True
    else:
        boarding.berth = Berth.WAITS


async def _meet(state: State, run: Waiter, boarding: Boarding, record: bytes, knowledge: Knowledge) -> Berth:
    """Use a value that stands where a lease was asked for, or find out what would replace it."""
    request, seen = boarding.request, boarding.request.seen
    found = await read_value(state, run, request, record, knowledge)
    if found is None or state.clock_ns() >= found[0].fresh_ns:
        return Berth.WAITS if request.seen == seen else Berth.AGAIN
    entry, tags = found
    request.flight.is_found, request.flight.is_refused = True, not request.found_is_kept
    settle(state, request.flight, entry.value, entry, tags)
    return Berth.DONE


# After the load -------------------------------------------------------------------------------------------------------


async def store(state: State, run: Waiter, cargo: Sequence[Cargo]) -> None:
    """Fill the records under their leases, and mark the flights of those that memory must not keep either."""
    shared = tier_of(state)
    leased = [item for item in cargo if item.boarding.token and not shared.is_closed]
    for item in cargo:
        item.boarding.request.flight.is_refused = shared.needs_proof
    if not leased:
        return
    tags = tuple(
        dict.fromkeys(tag for item in leased for tag in tag_names(shared, item.tags, item.boarding.request.key))
    )
    operations = [_fill(state, item) for item in leased]
    if any(item.entry is not None for item in leased):
        operations += [ReadHead(shared.epoch), *map(Get, tags)]
    fallback = [(item.boarding.request.flight.seal, item.boarding.request.flight.sealed_ns) for item in leased]
    seal(state, [item.boarding for item in leased])
    try:
        replies = await exchange(state, run, operations, shared.timeout_ns)
        accepted = await _accepted(state, run, leased, replies, tags)
    except TierError:
        accepted = [False] * len(leased)
    finally:
        with state.lock:
            for item in leased:
                shared.leases.pop(item.boarding.token, None)
                item.boarding.token = b""
    for item, is_accepted, before in zip(leased, accepted, fallback, strict=True):
        flight = item.boarding.request.flight
        if is_accepted:
            flight.is_refused = False
        else:
            flight.seal, flight.sealed_ns = before


def _fill(state: State, item: Cargo) -> Operation:
    """Return what stores the value, or what ends its lease if it cannot or is not to be stored."""
    boarding, entry = item.boarding, item.entry
    if entry is None:
        return Release(boarding.name, boarding.token, drops=True)
    packed = pack(state, boarding.request.typed, boarding.name, entry, item.tags, boarding.stamp)
    if packed is None:
        return Release(boarding.name, boarding.token, drops=True)
    return Fill(boarding.name, boarding.token, *packed)


def pack(
    state: State, typed: TypedCodec | None, name: bytes, entry: Entry, tags: Sequence[object], stamp: Stamp
) -> tuple[bytes, int] | None:
    """Return the envelope of a value and the life of its record; None, and an event, if it cannot go to other processes."""
    shared = tier_of(state)
    typed = typed or shared.codec.of(MISSING)
    fresh_ms = (entry.fresh_ns - entry.stored_ns) // MILLISECOND
    stale_ms = (entry.expire_ns - entry.fresh_ns) // MILLISECOND
    try:
        envelope = typed.pack(
            name,
            entry.value,
            stamp=stamp,
            stored_ms=shared.earliest_ms(entry.stored_ns),
            fresh_ms=fresh_ms,
            stale_ms=stale_ms,
            load_ms=entry.load_ns // MILLISECOND,
            tags=tag_names(shared, tags, entry.key),
            is_absent=entry.is_absent,
        )
    except Unencodable as error:
        state.events.emit(EventKind.UNSHARED, entry.key, str(error))
        return None
    entry.seen = envelope[:SEEN_BYTES]
    return envelope, max(1, min(fresh_ms + stale_ms, _LONGEST_MS))


async def _accepted(
    state: State, run: Waiter, cargo: Sequence[Cargo], replies: Sequence[Reply], tags: Sequence[bytes]
) -> list[bool]:
    """Tell for each whether its lease was held to the end, and none of its tags was invalidated meanwhile."""
    count = len(cargo)
    refusals = [reply for reply in replies[:count] if isinstance(reply, TierError)]
    note_refusal(state, refusals[0] if refusals else None)
    if len(replies) == count:
        return [reply is True for reply in replies]
    head = replies[count]
    if isinstance(head, TierError):
        return [False] * count
    stamps = stamps_of(tags, replies[count + 1 :], head, head.now_ms)
    torn = torn_tags(tags, replies[count + 1 :], head.now_ms)
    if torn:
        await mend_tags(state, run, torn)  # too late for what was filled now, in time for the next
    missing = [tag for tag in tags if tag not in stamps]
    if missing:
        stamps |= await read_tags(state, run, missing, head)
    knowledge, shared = Knowledge(head, stamps), tier_of(state)
    return [
        reply is True
        and knowledge.is_current(item.boarding.stamp, tag_names(shared, item.tags, item.boarding.request.key))
        for item, reply in zip(cargo, replies, strict=False)
    ]


async def release(state: State, run: Waiter, boardings: Sequence[Boarding], *, drops: bool) -> None:
    """End leases without a value; where that fails they expire."""
    shared = tier_of(state)
    if not boardings or shared.is_closed:
        return
    operations = [Release(each.name, each.token, drops) for each in boardings]
    with state.lock:
        for boarding in boardings:
            shared.leases.pop(boarding.token, None)
            boarding.token = b""
    try:
        await exchange(state, run, operations, shared.timeout_ns)
    except TierError:
        return
