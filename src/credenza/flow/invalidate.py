"""Invalidation and fences that reach every process."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

from ..errors import TierError
from ..events import EventKind
from ..flight import Signal
from ..runtime.base import Waiter
from ..shared.owed import Debt
from ..shared.shared import MILLISECOND
from ..state import State
from ..tiers.base import (
    Announce,
    Drop,
    Head,
    MarkTag,
    Operation,
    Stamp,
)
from .exchange import announced, read_head, tier_of
from .look import tag_names

_log = logging.getLogger("credenza")

_PROOF_MARGIN: Final = 1.02
"""Clocks of different machines may run at rates that differ by two in a hundred."""


async def invalidate(state: State, run: Waiter, keys: Iterable[Hashable]) -> None:
    """Forget `keys` in all processes; see `Cache.invalidate`."""
    keys = tuple(keys)
    names = names_of(state, keys)
    check_open(state)
    try:
        await _deliver_or_owe(state, run, names, ())
    finally:
        state.invalidate(keys)


async def invalidate_tags(state: State, run: Waiter, tags: Iterable[object]) -> None:
    """Forget what carries one of `tags` in all processes; see `Cache.invalidate_tags`."""
    tags = tuple(tags)
    names = tag_names(tier_of(state), tags)
    check_open(state)
    try:
        await _deliver_or_owe(state, run, {}, names)
    finally:
        with state.lock:
            tier_of(state).forget_tags(names)
        state.invalidate_tags(tags)


async def clear(state: State, run: Waiter) -> None:
    """Forget everything in all processes; see `Cache.clear`."""
    check_open(state)
    try:
        await _deliver_or_owe(state, run, {}, (), clears=True)
    finally:
        with state.lock:
            tier_of(state).stamps.clear()
        state.clear()


async def _deliver_or_owe(
    state: State, run: Waiter, names: Mapping[Hashable, bytes], tags: Sequence[bytes], *, clears: bool = False
) -> None:
    """Announce an invalidation; where that fails it is owed, or the call raises, as the policy says (E2)."""
    shared = tier_of(state)
    try:
        await deliver(state, run, Debt(tuple(names.values()), tuple(tags), clears))
    except TierError:
        if shared.may_fail_writes:
            raise
        owe(state, names, tags, clears=clears)
    except BaseException:  # cancelled in the middle: it may or may not have been delivered
        owe(state, names, tags, clears=clears)
        raise
    else:
        if shared.waits_for_proofs:
            await wait_for_proofs(state, run)


async def deliver(state: State, run: Waiter, debt: Debt) -> Head:
    """Drop the records, mark the tags, and then tell the other processes.

    Tags are marked with the place in the log after the last announcement: whatever was loaded before this call began is
    older than that.

    Raises:
        TierError: something was not done.
    """
    shared = tier_of(state)
    operations: list[Operation] = [Drop(name) for name in debt.names]
    if debt.tags:
        head = await read_head(state, run)
        stamp = Stamp(head.epoch, head.sequence + 1)
        operations += [MarkTag(tag, stamp) for tag in debt.tags]
    operations.append(Announce(shared.epoch, shared.sender, debt.names, debt.tags, debt.clears))
    head = await announced(state, run, operations)
    with state.lock:  # our own announcement tells us nothing
        shared.forget_tags(tuple(shared.stamps) if debt.clears else debt.tags)
    return head


def check_open(state: State) -> None:
    """Raise `CacheClosed` after `close`: nobody would deliver what is owed."""
    with state.lock:
        state.check_open()


def owe(state: State, names: Mapping[Hashable, bytes], tags: Sequence[bytes], *, clears: bool = False) -> None:
    """Keep an invalidation until it can be delivered, and say so."""
    shared = tier_of(state)
    with state.lock:
        was_empty = not shared.owed
        shared.owed.add(names, tags, clears=clears)
    if was_empty and shared.needs_proof:
        _log.warning("cache %r: an invalidation is owed until the shared tier takes it", state.name)
    for key in names:
        state.events.emit(EventKind.OWED, key)
    if tags or clears:
        state.events.emit(EventKind.OWED)
    shared.keep()
    shared.wake()


async def wait_for_proofs(state: State, run: Waiter) -> None:
    """Wait until no process can have a proof from before the announcement.

    The longest proof ever heard of counts: a tier that has lost its memory knows none, and the proofs still hold.
    """
    widest_ms = tier_of(state).widest_ms
    await run.join(Signal(), None, int(_PROOF_MARGIN * widest_ms * MILLISECOND) + MILLISECOND)


def names_of(state: State, keys: Iterable[Hashable]) -> dict[Hashable, bytes]:
    """Return the names of the keys' records; raises `UsageError` for a key that cannot go to a shared tier."""
    record = tier_of(state).names.record
    return {key: record(key) for key in keys}
