"""Fences that every process respects, around a write to the source."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Hashable, Iterable, Sequence

from ..codec import TypedCodec
from ..errors import FenceLost, TierError
from ..events import EventKind
from ..memory.implementation import Entry
from ..runtime.base import Waiter
from ..shared.owed import Debt
from ..shared.shared import FENCE_MS, MILLISECOND, Barrier
from ..state import State
from ..tiers.base import LOST, STORED, Announce, Clear, Fence, Head, MarkTag, OpenTag, Operation, Reply, Stamp
from ..tiers.records import stamp_of
from .board import pack
from .drivers import is_about_connection
from .exchange import announced, check, exchange, perform_all, read_head, tier_of
from .invalidate import deliver, names_of, owe, wait_for_proofs
from .look import tag_names

_log = logging.getLogger("credenza")

Written = tuple[TypedCodec | None, Entry, tuple[object, ...]]
"""The entry of a written value, what encodes it, and its tags."""


async def raise_fence(state: State, run: Waiter, keys: Iterable[Hashable], tags: Iterable[object]) -> Barrier:
    """Fence the keys and tags of a write in all processes, before it commits.

    Raises:
        TierError: the fence is not up, and the policy lets no write go on without it.
    """
    shared = tier_of(state)
    barrier = Barrier(shared.new_token(), names_of(state, keys), tag_names(shared, tags))
    if not shared.has_fences or not (barrier.names or barrier.tags):
        return barrier
    try:
        barrier.head = await _fence(state, run, barrier)
    except TierError as error:
        if shared.may_fail_writes:
            await _retract(state, run, barrier)
            raise TierError(f"the write cannot be fenced: {error}; it was not begun") from error
        barrier.is_owed = True
        return barrier
    except BaseException:
        await _retract(state, run, barrier)
        raise
    with state.lock:
        shared.barriers[barrier.writer] = barrier
    if shared.waits_for_proofs:
        try:
            await wait_for_proofs(state, run)
            await _renew(state, run, barrier)
        except FenceLost:
            await _retract(state, run, barrier)
            if shared.may_fail_writes:
                raise
            barrier.is_owed = True
        except BaseException:
            await _retract(state, run, barrier)
            raise
    return barrier


async def _retract(state: State, run: Waiter, barrier: Barrier) -> None:
    """Take a fence down whose write does not begin. Where that fails it expires; there is nothing to invalidate."""
    with state.lock:
        tier_of(state).barriers.pop(barrier.writer, None)
    with contextlib.suppress(TierError):
        await _clear(state, run, barrier, ())


async def _fence(state: State, run: Waiter, barrier: Barrier) -> Head:
    """Put the writer behind the fence of each record, and then tell the other processes."""
    shared = tier_of(state)
    held_ns = state.clock_ns()
    operations: list[Operation] = [Fence(name, barrier.writer, FENCE_MS) for name in barrier.names]
    if barrier.tags:
        head = await read_head(state, run)
        stamp = Stamp(head.epoch, head.sequence + 1)
        operations += [MarkTag(tag, stamp, joins=barrier.writer, life_ms=FENCE_MS) for tag in barrier.tags]
    operations.append(Announce(shared.epoch, shared.sender, barrier.names, barrier.tags))
    head = await announced(state, run, operations)
    barrier.held_ns = held_ns
    with state.lock:
        shared.forget_tags(barrier.tags)
    return head


async def confirm(state: State, run: Waiter, barrier: Barrier) -> None:
    """Make sure that the fence outlives a commit that comes now.

    Raises:
        FenceLost: it was gone, so a reader may have stored the old value, and would keep it.
    """
    if not tier_of(state).has_fences or barrier.is_owed or not barrier.held_ns:
        return
    if barrier.is_lost or state.clock_ns() - barrier.held_ns >= FENCE_MS * MILLISECOND // 2:
        await _renew(state, run, barrier)


async def _renew(state: State, run: Waiter, barrier: Barrier) -> None:
    """Let the fence live on; raises `FenceLost` if it was gone."""
    shared = tier_of(state)
    held_ns = state.clock_ns()
    try:
        replies = await exchange(state, run, renewal_of(barrier), shared.timeout_ns)
        check(state, replies)
        note_renewal(state, barrier, replies, held_ns)
    except TierError as error:
        raise FenceLost("the shared tier is away, and half of the fence's life is gone; roll back") from error
    if barrier.is_lost:
        raise FenceLost("the fence around the write is gone from the shared tier; roll back, and try again")


def renewal_of(barrier: Barrier) -> list[Operation]:
    """Return what lets the fence live on. Tags keep their stamp: it was raised when the fence was."""
    stamp = Stamp(barrier.head.epoch, 0) if barrier.head is not None else Stamp(bytes(8), 0)
    return [
        *(Fence(name, barrier.writer, FENCE_MS, renews=True) for name in barrier.names),
        *(MarkTag(tag, stamp, joins=barrier.writer, life_ms=FENCE_MS) for tag in barrier.tags),
    ]


def note_renewal(state: State, barrier: Barrier, replies: Sequence[Reply], held_ns: int) -> None:
    """Take note of whether the fence was still up when it was renewed."""
    if any(isinstance(reply, TierError) for reply in replies):
        return
    count, epoch = len(barrier.names), barrier.head.epoch if barrier.head is not None else b""
    stamps = [stamp_of(reply) for reply in replies[count:]]
    was_in_time = held_ns - barrier.held_ns < FENCE_MS * MILLISECOND
    if was_in_time and all(replies[:count]) and all(_is_held(stamp, epoch) for stamp in stamps):
        barrier.held_ns = held_ns
        return
    if not barrier.is_lost:
        barrier.is_lost = True
        tell_lost(state, barrier)


def _is_held(stamp: Stamp | None, epoch: bytes) -> bool:
    """Tell whether a tag's record is the one that the fence was put into: one that the renewal made anew has no number."""
    return stamp is not None and stamp.epoch == epoch and stamp.sequence > 0


def tell_lost(state: State, barrier: Barrier) -> None:
    """Say that a fence was gone while its write was under way."""
    _log.warning("cache %r: a fence was gone from the shared tier before its write had ended", state.name)
    for key in barrier.keys:
        state.events.emit(EventKind.FENCE_LOST, key)


def abandon_fence(state: State, barrier: Barrier) -> None:
    """Leave the fence to expire, since the write may or may not have been committed."""
    with state.lock:
        tier_of(state).barriers.pop(barrier.writer, None)
    if barrier.is_owed or not tier_of(state).has_fences:
        owe(state, barrier.keys, barrier.tags)


async def lower_fence(
    state: State, run: Waiter, barrier: Barrier, written: Sequence[Written] = ()
) -> Collection[Hashable]:
    """End a write: what it wrote is invalid everywhere, or replaced by the values that were written. Never raises `TierError`.

    Args:
        state: the cache.
        run: the caller's colour.
        barrier: what `raise_fence` returned.
        written: what write-through stores, where nobody else wrote meanwhile (I5).

    Returns the keys of the values that memory may keep.
    """
    shared = tier_of(state)
    keys = [entry.key for _, entry, _ in written]
    with state.lock:
        shared.barriers.pop(barrier.writer, None)
    if not (barrier.names or barrier.tags):
        return keys
    if barrier.is_owed or not shared.needs_proof:
        owe(state, barrier.keys, barrier.tags)
        return () if shared.needs_proof else keys
    try:
        if not shared.has_fences:
            await deliver(state, run, Debt(barrier.names, barrier.tags, clears=False))
            return keys
        replies = await _clear(state, run, barrier, written)
        if LOST in replies:
            await _make_up(state, run, barrier)
    except TierError:
        owe(state, barrier.keys, barrier.tags)
        return ()
    except BaseException:
        owe(state, barrier.keys, barrier.tags)
        raise
    finally:
        if shared.is_closed:  # while the write was under way
            shared.tier.close()
    return [key for key, reply in zip(barrier.keys, replies, strict=True) if reply == STORED]


async def _make_up(state: State, run: Waiter, barrier: Barrier) -> None:
    """Invalidate anew what a fence that was gone did not keep from being stored: others may have put it into their memory."""
    if barrier.held_ns and not barrier.is_lost:
        tell_lost(state, barrier)
    await deliver(state, run, Debt(barrier.names, barrier.tags, clears=False))
    if tier_of(state).waits_for_proofs:
        await wait_for_proofs(state, run)


async def _clear(state: State, run: Waiter, barrier: Barrier, written: Sequence[Written]) -> list[Reply]:
    """Take the writer out from behind the fences; return the replies to that.

    The tags are marked anew, since the write is committed now, and announced, so that what is loaded from here on is later
    than that.
    """
    shared = tier_of(state)
    operations, envelopes = _envelopes(state, barrier, written)
    first = len(operations)
    for name in barrier.names:
        envelope, life_ms = envelopes.get(name, (b"", 0))
        operations.append(Clear(name, barrier.writer, envelope, life_ms))
    last = len(operations)
    if barrier.tags:
        head = await read_head(state, run)
        stamp = Stamp(head.epoch, head.sequence + 1)
        operations += [MarkTag(tag, stamp, leaves=barrier.writer) for tag in barrier.tags]
        operations.append(Announce(shared.epoch, shared.sender, (), barrier.tags))
        replies = await perform_all(state, run, operations)
        with state.lock:
            shared.forget_tags(barrier.tags)
    else:
        replies = await exchange(state, run, operations, shared.timeout_ns)
        check(state, replies)
    return replies[first:last]


def _envelopes(
    state: State, barrier: Barrier, written: Sequence[Written]
) -> tuple[list[Operation], dict[bytes, tuple[bytes, int]]]:
    """Return what opens the tags of the written values, and their envelopes by name."""
    shared = tier_of(state)
    opening: list[Operation] = []
    envelopes: dict[bytes, tuple[bytes, int]] = {}
    if barrier.head is None or shared.offset_ms is None:
        return opening, envelopes
    stamp = Stamp(barrier.head.epoch, barrier.head.sequence)
    for typed, entry, tags in written:
        name = barrier.keys[entry.key]
        packed = pack(state, typed, name, entry, tags, stamp)
        if packed is not None:
            envelopes[name] = packed
            opening += [OpenTag(tag, stamp) for tag in tag_names(shared, tags, entry.key)]
    return opening, envelopes


def may_have_committed(error: BaseException) -> bool:
    """Tell whether a write that ended with `error` may have been committed, or still be: then its fence must not fall."""
    if type(error).__module__ == "sqlite3":
        return False  # no server goes on behind our back
    return not isinstance(error, Exception) or is_about_connection(error)
