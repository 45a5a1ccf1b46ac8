"""Looking keys up in the shared tier."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from ..codec import SEEN_BYTES, Envelope, Unreadable
from ..errors import TierError
from ..events import EventKind
from ..memory.implementation import Entry, Scope
from ..runtime.base import Waiter
from ..sentinel import MISSING
from ..shared.shared import MILLISECOND, Knowledge, Shared, scope_tag
from ..state import State
from ..steps.appraisal import entry_until
from ..steps.looks import give_up_look
from ..steps.request import Request
from ..tiers.base import VALUE_HEADER_BYTES, Announce, Get, Head, MarkTag, OpenTag, Operation, ReadHead, Reply, Stamp
from ..tiers.records import stamp_of, tag_writers
from .exchange import announced, exchange, read_head, tier_of

_FOREVER_MS: Final = 1 << 52


async def look_up(state: State, run: Waiter, requests: Sequence[Request]) -> None:
    """Look the requests' keys up, in one round trip if all their tags are known; put what is there into `found`.

    The requests have begun their look (`Move.LOOK`); it is for `approach` to end it. What the tier does not answer is
    not there (E1).
    """
    for request in requests:
        request.settlements = tier_of(state).owed.settlements
    timeout_ns = min(requests[0].tier_ns or tier_of(state).timeout_ns, tier_of(state).timeout_ns)
    try:
        records, knowledge = await _fetch(state, run, requests, timeout_ns)
        read = []
        for request, record in zip(requests, records, strict=True):
            envelope = open_record(state, request, record) if record[:1] == b"V" else None
            if envelope is not None:
                read.append((request, envelope))
            elif record and record[:1] not in b"VLB":
                tell_unreadable(state, request.key, "it is no record of a cache")
        tags = dict.fromkeys(tag for _, envelope in read for tag in envelope.tags)
        if tags:
            knowledge = await learn_tags(state, run, tags, knowledge)
        for request, envelope in read:
            found = judge(state, request, envelope, knowledge)
            if found is not None:
                request.found, request.found_tags = found
    except TierError:
        return
    except BaseException:
        for request in requests:
            give_up_look(state, request)
        raise


async def _fetch(
    state: State, run: Waiter, requests: Sequence[Request], timeout_ns: int
) -> tuple[Sequence[bytes], Knowledge]:
    """Return the records, and what tells whether they are current: what is not known is asked for with them."""
    shared = tier_of(state)
    now_ns = state.clock_ns()
    known = shared.knowledge(now_ns)
    operations: list[Operation] = [Get(shared.names.record(request.key)) for request in requests]
    tags = _unknown_tags(shared, requests, known)
    operations += map(Get, tags)
    if known is None:
        operations.append(ReadHead(shared.epoch))
    reads = shared.tag_reads
    replies = await exchange(state, run, operations, timeout_ns)
    records = _bytes(replies[: len(requests)])
    if known is not None and not tags:
        return records, known
    head = replies[-1] if known is None else known.head
    if isinstance(head, TierError):
        raise head
    if shared.offset_ms is None:
        shared.compare_clocks(head.now_ms, now_ns, state.clock_ns())
    told = replies[len(requests) : len(requests) + len(tags)]
    stamps = stamps_of(tags, told, head, shared.latest_ms(state.clock_ns()))
    if known is not None:
        with state.lock:
            shared.remember_tags(stamps, reads)
        stamps = {**known.stamps, **stamps}
    return records, Knowledge(head, stamps)


def _unknown_tags(shared: Shared, requests: Sequence[Request], known: Knowledge | None) -> tuple[bytes, ...]:
    """Return the tags that the values are to carry at least, and whose stamps are not known."""
    if not any(request.tags or _has_scope(request.key) for request in requests):
        return ()
    tags = dict.fromkeys(tag for request in requests for tag in tag_names(shared, request.tags, request.key))
    return tuple(tag for tag in tags if known is None or tag not in known.stamps)


def _bytes(replies: Sequence[Reply]) -> Sequence[bytes]:
    """Return the records; one that could not be read is not there."""
    return [b"" if isinstance(reply, TierError) else reply for reply in replies]


async def read_value(
    state: State, run: Waiter, request: Request, record: bytes, knowledge: Knowledge
) -> tuple[Entry, tuple[object, ...]] | None:
    """Return the entry of a `V` and its tags, or None if it is unreadable or not current; note what would replace it."""
    envelope = open_record(state, request, record)
    if envelope is None:
        return None
    if envelope.tags:
        knowledge = await learn_tags(state, run, envelope.tags, knowledge)
    return judge(state, request, envelope, knowledge)


def open_record(state: State, request: Request, record: bytes) -> Envelope | None:
    """Return what is in a `V`, None if it cannot be read; note in the request what would replace it."""
    shared = tier_of(state)
    request.seen = record[VALUE_HEADER_BYTES : VALUE_HEADER_BYTES + SEEN_BYTES]
    request.replaces_readable = False
    typed = request.typed or shared.codec.of(MISSING)
    try:
        return typed.unpack(shared.names.record(request.key), record, VALUE_HEADER_BYTES)
    except Unreadable as error:
        tell_unreadable(state, request.key, str(error))
        return None


def judge(
    state: State, request: Request, envelope: Envelope, knowledge: Knowledge
) -> tuple[Entry, tuple[object, ...]] | None:
    """Return the entry of what was read and its tags, None if it is not current."""
    shared = tier_of(state)
    if _may_owe(shared, request, envelope) or not knowledge.is_current(envelope.stamp, envelope.tags):
        return None
    entry = _entry(state, request, envelope)
    if entry is None:
        return None
    entry.seen = request.seen
    request.replaces_readable = True
    request.found_is_kept = envelope.is_same_type  # else memory would hand out what was decoded for somebody else
    tags = tuple(shared.names.tag_of(tag) for tag in envelope.tags)
    if _has_scope(request.key):
        own = scope_tag(request.key[0])  # type: ignore[index]  # a key with a scope is a pair
        tags = tuple(tag for tag in tags if tag != own)
    return entry, tags


def _may_owe(shared: Shared, request: Request, envelope: Envelope) -> bool:
    """Tell whether this process owes the invalidation of a tag of the value, or did when the look-up began.

    One that was delivered meanwhile is in the log as our own, which nobody obeys: the value would stay in memory.
    """
    if not envelope.tags:
        return False
    return request.settlements != shared.owed.settlements or any(map(shared.owed.owes_tag, envelope.tags))


def _entry(state: State, request: Request, envelope: Envelope) -> Entry | None:
    """Return the entry of what was read, aged by the tier's clock; None if it is past its time."""
    shared = tier_of(state)
    now_ns = state.clock_ns()
    age_ms = max(0, shared.latest_ms(now_ns) - envelope.stored_ms)
    stored_ns = now_ns - age_ms * MILLISECOND
    fresh_ns = stored_ns + min(envelope.fresh_ms, _FOREVER_MS) * MILLISECOND
    policy, load_ns = request.policy, envelope.load_ms * MILLISECOND
    entry = entry_until(
        state, request.key, envelope.value, policy, stored_ns, fresh_ns, load_ns, is_absent=envelope.is_absent
    )
    if not envelope.stale_ms:
        entry.expire_ns = fresh_ns  # as the server's expiry would have it
    return entry if now_ns < entry.expire_ns else None


async def learn_tags(state: State, run: Waiter, tags: Iterable[bytes], knowledge: Knowledge) -> Knowledge:
    """Return `knowledge` with the stamps of all `tags`, asked for if need be, and remembered."""
    missing = [tag for tag in tags if tag not in knowledge.stamps]
    if not missing:
        return knowledge
    shared = tier_of(state)
    reads = shared.tag_reads
    stamps = await read_tags(state, run, missing, knowledge.head)
    with state.lock:
        shared.remember_tags(stamps, reads)
    return Knowledge(knowledge.head, {**{tag: knowledge.stamps.get(tag) for tag in tags}, **stamps})


async def read_tags(state: State, run: Waiter, tags: Sequence[bytes], head: Head) -> dict[bytes, Stamp | None]:
    """Return the stamps of `tags`; a tag without a record gets one, as old as `head`. None for one behind a fence."""
    stamp = Stamp(head.epoch, head.sequence)
    replies = await exchange(state, run, [OpenTag(tag, stamp) for tag in tags], tier_of(state).timeout_ns)
    torn = torn_tags(tags, replies, head.now_ms)
    if torn:
        await mend_tags(state, run, torn)  # values that carry them are dead now, so None is right for this once
    known = stamps_of(tags, replies, head, head.now_ms)
    return {tag: known.get(tag) for tag in tags}


async def mend_tags(state: State, run: Waiter, torn: Sequence[tuple[bytes, bytes]]) -> Head:
    """Mark tags anew whose writers were killed behind their fence: what was loaded before they committed is dead then."""
    shared = tier_of(state)
    tags = tuple(dict.fromkeys(tag for tag, _ in torn))
    head = await read_head(state, run)
    stamp = Stamp(head.epoch, head.sequence + 1)
    operations: list[Operation] = [MarkTag(tag, stamp, leaves=writer) for tag, writer in torn]
    head = await announced(state, run, [*operations, Announce(shared.epoch, shared.sender, (), tags)])
    with state.lock:
        shared.forget_tags(tags)
    return head


def stamps_of(tags: Iterable[bytes], replies: Iterable[Reply], head: Head, now_ms: int) -> dict[bytes, Stamp | None]:
    """Return the stamps of the tags that have a record of the head's epoch; None for one behind a fence, or unknown."""
    stamps: dict[bytes, Stamp | None] = {}
    for tag, reply in zip(tags, replies, strict=True):
        if isinstance(reply, TierError):
            stamps[tag] = None
            continue
        stamp = stamp_of(reply)
        if stamp is not None and stamp.epoch == head.epoch:
            stamps[tag] = None if tag_writers(reply, now_ms) else stamp
    return stamps


def torn_tags(tags: Iterable[bytes], replies: Iterable[Reply], now_ms: int) -> list[tuple[bytes, bytes]]:
    """Return the tags and writers whose share of the fence has expired: nobody will say that they have left."""
    return [
        (tag, writer)
        for tag, reply in zip(tags, replies, strict=True)
        if not isinstance(reply, TierError) and stamp_of(reply) is not None
        for writer, deadline_ms in tag_writers(reply, now_ms).items()
        if deadline_ms <= now_ms
    ]


def tag_names(shared: Shared, tags: Iterable[object], key: Hashable = None) -> tuple[bytes, ...]:
    """Return the names of the tags' records, with that of the function whose key it is."""
    named = [shared.names.tag(str(tag)) for tag in tags]
    if _has_scope(key):
        named.append(shared.names.tag(scope_tag(key[0])))  # type: ignore[index]  # a key with a scope is a pair
    return tuple(dict.fromkeys(named))


def _has_scope(key: Hashable) -> bool:
    """Tell whether the key is one of a function that keeps its entries on a shelf of their own."""
    return type(key) is tuple and len(key) == 2 and type(key[0]) is Scope


def tell_unreadable(state: State, key: Hashable, why: str) -> None:
    """Say that a record is not one that can be used (E3)."""
    if state.events.listeners:
        state.events.emit(EventKind.UNREADABLE, key, why)
