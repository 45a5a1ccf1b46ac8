"""Asking the shared tier, and noting whether it answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from ..errors import TierError
from ..events import EventKind
from ..runtime.base import Waiter
from ..shared.shared import Shared
from ..state import State
from ..tiers.base import Crowded, Head, Operation, ReadHead, Reply

_log = logging.getLogger("credenza")

_WELL_AGAIN_NS: Final = 2_000_000_000


async def exchange(state: State, run: Waiter, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
    """Have the tier perform `operations` and return its replies.

    Raises:
        TierError: the tier is away; it is left alone from then on, until the keeper finds it back.
    """
    shared = tier_of(state)
    breaker = shared.breaker
    if breaker.is_away or timeout_ns <= 0:
        raise TierError(
            f"the shared tier is away: {breaker.error}" if breaker.is_away else "no time is left for the tier"
        )
    shared.keep()
    try:
        return await run.exchange(shared.tier, operations, timeout_ns)
    except Crowded:
        raise
    except TierError as error:
        if timeout_ns >= shared.timeout_ns:  # a caller with less time than that tells nothing about the tier
            note_failure(state, error)
        raise


def tier_of(state: State) -> Shared:
    """Return the shared tier of a cache that has one."""
    assert state.shared is not None
    return state.shared


def note_failure(state: State, error: TierError) -> None:
    """Leave the tier alone, and say so if it was there until now (E1)."""
    breaker = tier_of(state).breaker
    if tier_of(state).is_closed:
        return
    with state.lock:
        has_changed = breaker.note_failure(str(error), state.clock_ns())
    if has_changed:
        _log.warning("cache %r: the shared tier is away, reads go to the source: %s", state.name, error)
        state.events.emit(EventKind.TIER_LOST, detail=type(error).__name__)
        tier_of(state).wake()


def note_success(state: State) -> None:
    """Ask the tier again from now on, and say so if it was away until now."""
    breaker = tier_of(state).breaker
    with state.lock:
        has_changed = breaker.note_success(state.clock_ns())
    if has_changed:
        _log.warning("cache %r: the shared tier is back", state.name)
        state.events.emit(EventKind.TIER_BACK)


def note_refusal(state: State, error: TierError | None) -> None:
    """Take note of whether the tier takes writes: None for one that it took.

    A full tier refuses large writes and takes small ones; so it is well again when it has refused nothing for a while.
    """
    shared = tier_of(state)
    if error is None and not shared.is_refusing:
        return
    now_ns = state.clock_ns()
    if error is not None:
        shared.refused_ns = now_ns
        if not shared.is_refusing:
            shared.is_refusing = True
            _log.warning("cache %r: the shared tier refuses to store: %s", state.name, error)
            state.events.emit(EventKind.TIER_LOST, detail="refuses")
    elif now_ns - shared.refused_ns >= _WELL_AGAIN_NS:
        shared.is_refusing = False
        _log.warning("cache %r: the shared tier stores again", state.name)
        state.events.emit(EventKind.TIER_BACK, detail="stores")


async def announced(state: State, run: Waiter, operations: Sequence[Operation]) -> Head:
    """Perform operations that end with an announcement, all or none of them, and return the head after it."""
    head: Head = (await perform_all(state, run, operations))[-1]
    return head


async def perform_all(state: State, run: Waiter, operations: Sequence[Operation]) -> list[Reply]:
    """Do the same, and return all replies."""
    shared = tier_of(state)
    sent_ns = state.clock_ns()
    replies = await exchange(state, run, operations, shared.timeout_ns)
    check(state, replies)
    if shared.offset_ms is None:
        shared.compare_clocks(replies[-1].now_ms, sent_ns, state.clock_ns())
    with state.lock:
        shared.note_head(replies[-1])
    return replies


def check(state: State, replies: Sequence[Reply]) -> None:
    """Raise the first refusal among the replies."""
    for reply in replies:
        if isinstance(reply, TierError):
            note_refusal(state, reply)
            raise TierError(str(reply))
    note_refusal(state, None)


async def read_head(state: State, run: Waiter) -> Head:
    """Ask for the head; raises `TierError` if it cannot be had."""
    shared = tier_of(state)
    sent_ns = state.clock_ns()
    replies = await exchange(state, run, [ReadHead(shared.epoch)], shared.timeout_ns)
    check(state, replies)
    head: Head = replies[0]
    if shared.offset_ms is None:
        shared.compare_clocks(head.now_ms, sent_ns, state.clock_ns())
    return head
