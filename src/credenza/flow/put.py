"""Storing values by hand, in all tiers."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

from ..errors import TierError
from ..runtime.base import Waiter
from ..shared.owed import Debt
from ..state import Look, State
from ..tiers.base import Announce, Drop, OpenTag, Operation, Put, Stamp
from .board import pack
from .exchange import perform_all, read_head, tier_of
from .fence import Written, lower_fence, raise_fence
from .invalidate import deliver, names_of, owe
from .look import tag_names


async def put_many(state: State, run: Waiter, written: Sequence[Written]) -> None:
    """Store values in all tiers, over whatever is there but a fence; see `Cache.set`."""
    shared = tier_of(state)
    names = names_of(state, (entry.key for _, entry, _ in written))
    if shared.waits_for_proofs:
        await _put_behind_fence(state, run, written)
        return
    with state.lock:
        state.check_open()
        looks: dict[Hashable, Look | None] = {key: state.begin_look(key) for key in names}
    gives_up_ns = state.clock_ns() + shared.timeout_ns
    try:
        refused = await _put(state, run, written, names, gives_up_ns)
    except TierError:
        _forget_looks(state, looks)
        if shared.may_fail_writes:
            raise
        owe(state, names, ())
        if shared.needs_proof:
            return
        refused, looks = (), dict.fromkeys(names)
    except BaseException:
        _forget_looks(state, looks)
        shared.ripe_ns = gives_up_ns  # what was sent may be performed until then
        owe(state, names, ())
        raise
    _forget_looks(state, {key: looks[key] for key in refused})
    now_ns = state.clock_ns()
    for _, entry, tags in written:
        if entry.key not in refused:
            state.store(entry, tags, now_ns, looks[entry.key])


async def _put(
    state: State, run: Waiter, written: Sequence[Written], names: Mapping[Hashable, bytes], gives_up_ns: int
) -> Collection[Hashable]:
    """Store the values in the tier and announce them; return the keys of those that it did not take.

    Behind a fence nothing is stored. What arrives too late is not stored either, as nobody would know of it: the caller has
    given up by then, and others may have written since.
    """
    shared = tier_of(state)
    head = shared.proof.head if state.clock_ns() < shared.known_until_ns else None
    if head is None or shared.offset_ms is None:
        head = await read_head(state, run)
    stamp = Stamp(head.epoch, head.sequence)
    tags = dict.fromkeys(name for _, entry, tags in written for name in tag_names(shared, tags, entry.key))
    operations: list[Operation] = [OpenTag(tag, stamp) for tag in tags]
    before_ms = shared.earliest_ms(gives_up_ns)
    for typed, entry, entry_tags in written:
        name = names[entry.key]
        packed = pack(state, typed, name, entry, entry_tags, stamp)
        operations.append(Put(name, *packed, before_ms) if packed is not None else Drop(name))
    operations.append(Announce(shared.epoch, shared.sender, tuple(names.values())))
    replies = await perform_all(state, run, operations)
    taken = zip(names, replies[len(tags) : -1], strict=True)
    refused = [key for key, is_stored in taken if not is_stored]
    if refused:
        await deliver(state, run, Debt(tuple(names[key] for key in refused), (), clears=False))
    return refused


async def _put_behind_fence(state: State, run: Waiter, written: Sequence[Written]) -> None:
    """Store values that no process's memory contradicts when they are seen: after all proofs from before are over."""
    permits = [state.enter_fence((entry.key,), ()) for _, entry, _ in written]
    kept: Collection[Hashable] = ()
    try:
        barrier = await raise_fence(state, run, [entry.key for _, entry, _ in written], ())
        kept = await lower_fence(state, run, barrier, written)
    finally:
        for permit, (_, entry, tags) in zip(permits, written, strict=True):
            state.leave_fence(permit, entry if entry.key in kept else None, tags)


def _forget_looks(state: State, looks: Mapping[Hashable, Look | None]) -> None:
    with state.lock:
        for key, look in looks.items():
            if look is not None:
                state.end_look(key, look)
    state.invalidate(looks)
