"""Keeping up with the shared tier: the proof, the leases and fences that are held, and what is owed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from ..durations import FOREVER_NS
from ..errors import TierError
from ..events import EventKind
from ..memory.implementation import Scope
from ..runtime.base import Waiter
from ..sentinel import MISSING
from ..shared.proof import MOST_NEWS
from ..shared.shared import LEASE_MS, MILLISECOND, RENEW_NS, Barrier
from ..state import State
from ..tiers.base import Log, News, ReadLog, Release, Renew
from .exchange import exchange, note_failure, note_success, tier_of
from .fence import note_renewal, renewal_of
from .invalidate import deliver

_SHORTEST_NS: Final = 1_000_000
_MOST_RENEWALS: Final = 128


def pause_ns(state: State) -> int:
    """Return how long the keeper may rest: a quarter of what a proof lasts, or until a tier that is away is tried again."""
    shared = tier_of(state)
    longest_ns = min(shared.staleness_ns // 4, RENEW_NS)
    if not shared.breaker.is_away:
        return max(_SHORTEST_NS, longest_ns)
    return max(_SHORTEST_NS, shared.breaker.probe_ns - state.clock_ns())


async def keep_up(state: State, run: Waiter) -> None:
    """Do one round: read the log and prove memory fresh, renew what is held, deliver what is owed. Never raises `TierError`."""
    shared = tier_of(state)
    now_ns = state.clock_ns()
    if shared.breaker.is_away and now_ns < shared.breaker.probe_ns:
        return
    noted_ns, log = await _read_log(state, run)
    if isinstance(log, TierError):
        note_failure(state, log)
        return
    note_success(state)
    _follow(state, log, noted_ns)
    await _renew(state, run, now_ns)
    if shared.owed and now_ns >= shared.ripe_ns:
        await _deliver_owed(state, run)


async def _read_log(state: State, run: Waiter) -> tuple[int, Log | TierError]:
    """Read the log; return when that began, and the log or why there is none.

    What fails at a tier that was there is tried once more: in a process that is short of time the keeper is, too.
    """
    shared = tier_of(state)
    staleness_ms = -(-shared.staleness_ns // MILLISECOND)
    log: Log | TierError = TierError("the log was not read")
    noted_ns = state.clock_ns()
    for _ in range(1 if shared.breaker.is_away else 2):
        noted_ns = state.clock_ns()
        operation = ReadLog(shared.epoch, shared.proof.applied, MOST_NEWS, staleness_ms)
        try:
            log = (await run.exchange(shared.tier, [operation], shared.timeout_ns))[0]
        except TierError as error:
            log = error
        if not isinstance(log, TierError):
            break
    return noted_ns, log


async def _renew(state: State, run: Waiter, now_ns: int) -> None:
    """Renew the leases and fences that are due, fences first, a part at a time. What fails is tried in the next round."""
    shared = tier_of(state)
    leases, barriers = _due(state, now_ns)
    with contextlib.suppress(TierError):
        for barrier in barriers:
            held_ns = state.clock_ns()
            replies = await run.exchange(shared.tier, renewal_of(barrier), shared.timeout_ns)
            note_renewal(state, barrier, replies, held_ns)
        for start in range(0, len(leases), _MOST_RENEWALS):
            part_of = leases[start : start + _MOST_RENEWALS]
            replies = await run.exchange(
                shared.tier, [Renew(name, token, LEASE_MS) for token, name in part_of], shared.timeout_ns
            )
            with state.lock:
                for (token, _), reply in zip(part_of, replies, strict=True):
                    if reply is False:
                        shared.leases.pop(token, None)


def _due(state: State, now_ns: int) -> tuple[list[tuple[bytes, bytes]], list[Barrier]]:
    """Return the leases and the fences that are to be renewed now."""
    shared = tier_of(state)
    with state.lock:
        leases: list[tuple[bytes, bytes]] = []
        if now_ns - shared.renewed_ns >= RENEW_NS:
            shared.renewed_ns = now_ns
            leases = list(shared.leases.items())
        barriers = [each for each in shared.barriers.values() if now_ns - each.held_ns >= 3 * RENEW_NS]
    return leases, barriers


def _follow(state: State, log: Log, noted_ns: int) -> None:
    """Apply what others announced; from `noted_ns` on the proof holds."""
    shared = tier_of(state)
    shared.compare_clocks(log.head.now_ms, noted_ns, state.clock_ns())
    with state.lock:
        was_known = shared.proof.has_read
        news = shared.proof.follow(log)
        shared.note_head(log.head)
        for each in news or ():
            shared.forget_tags(each.tags)
        if news is None or any(each.clears for each in news):
            shared.forget_tags(tuple(shared.stamps))
    if news is None:
        state.clear(EventKind.RESYNCED if was_known else EventKind.CLEARED)
    else:
        _obey(state, news)
    with state.lock:
        shared.known_until_ns = noted_ns + shared.staleness_ns
        state.table.fresh_until_ns = shared.known_until_ns if shared.needs_proof else FOREVER_NS


def _obey(state: State, news: Sequence[News]) -> None:
    """Forget here what others have announced. The proof that memory is fresh is renewed after that."""
    shared = tier_of(state)
    if any(each.clears for each in news):
        state.clear()
        return
    keys = [shared.names.key(name) for each in news for name in each.names]
    if keys:
        state.invalidate(key for key in keys if key is not MISSING)
    tags = [shared.names.tag_of(tag) for each in news for tag in each.tags]
    if tags:
        state.invalidate_tags(tags)
    for tag in tags:
        scope = shared.names.scopes.get(tag[1:]) if isinstance(tag, str) and tag.startswith("\0") else None
        if isinstance(scope, Scope):
            state.clear_scope(scope)


async def _deliver_owed(state: State, run: Waiter) -> None:
    shared = tier_of(state)
    with state.lock:
        number, debt = shared.owed.debt()
    try:
        await deliver(state, run, debt)
    except TierError:
        return
    with state.lock:
        shared.owed.settle(number, debt)
    if state.events.listeners:
        for name in debt.names:
            state.events.emit(EventKind.DELIVERED, shared.names.key(name))
        if debt.tags or debt.clears:
            state.events.emit(EventKind.DELIVERED)


async def part(state: State, run: Waiter) -> None:
    """Deliver what is owed and give the leases back, if that takes no waiting: the process leaves. Never raises `TierError`."""
    shared = tier_of(state)
    if shared.owed:
        await keep_up(state, run)
    with state.lock:
        leases = list(shared.leases.items())
        shared.leases.clear()
    if leases:
        with contextlib.suppress(TierError):
            await exchange(state, run, [Release(name, token, drops=False) for token, name in leases], shared.timeout_ns)
