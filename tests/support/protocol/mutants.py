"""Wrong versions of the protocol, each of which breaks a promise: the simulation has to notice.

The first part are the rules of DESIGN section 5 taken away one by one, as in the executable model that the design was
checked with; the second part are mistakes that are easily made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tests.support.simulation.mutants import Patch, patched

from credenza.durations import FOREVER_NS
from credenza.flow import board, exchange, fence, invalidate, keep, lease
from credenza.shared.owed import Owed
from credenza.shared.proof import Proof
from credenza.shared.shared import Knowledge, Shared
from credenza.state import State
from credenza.steps import leaving
from credenza.tiers import records
from credenza.tiers.base import Clear, Fence, MarkTag
from credenza.tiers.shelf import Shelf

MUTANTS: dict[str, list[Patch]] = {}
"""By name; what each does is its docstring."""

NEEDS: dict[str, str] = {}
"""By name: the situation that has to be explored where seeds as they are hardly ever show the mutant."""


def mutated(name: str) -> AbstractContextManager[None]:
    """Return a context with the mutant `name` in the place of the core."""
    return patched(MUTANTS[name])


def _mutant(
    where: Any, name: str, *, under: str | None = None
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def add(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        MUTANTS.setdefault(make.__name__, []).append((where, name, make))
        if under is not None:
            NEEDS[make.__name__] = under
        return make

    return add


async def _perform(state: State, run: Any, operations: Any) -> None:
    replies = await exchange.exchange(state, run, operations, exchange.tier_of(state).timeout_ns)
    exchange.check(state, replies)


# The model's cases ----------------------------------------------------------------------------------------------------


@_mutant(records, "fill")
def naive_cache_aside(right: Any) -> Any:
    """1: what was loaded is stored, whatever happened since."""
    return lambda record, operation: records.Change(True, records.value_record(operation.envelope), operation.life_ms)


@_mutant(board, "_lease")
def a_token_per_process(right: Any) -> Any:
    """2: all leases of a process have the same token, so that a load fills under the lease of a later one."""

    def wrong(shared: Shared, boarding: Any) -> Any:
        boarding.token = shared.sender + b"\0" * 8
        return right(shared, boarding)

    return wrong


@_mutant(Shared, "__init__")
def no_fence(right: Any) -> Any:
    """3: a write invalidates when it is over, and does nothing before."""

    def wrong(self: Shared, *about: Any, **more: Any) -> None:
        right(self, *about, **more)
        self.has_fences = False

    return wrong


@_mutant(records, "fence")
def a_fence_with_one_owner(right: Any) -> Any:
    """5: a second writer's fence takes the place of the first one's."""
    return lambda record, operation, now_ms: right(b"", operation, now_ms)


@_mutant(fence, "confirm")
def fences_that_expired_are_not_missed(right: Any) -> Any:
    """6: who confirms its fence is told that it is up."""

    async def wrong(*about: Any) -> None:
        return

    return wrong


@_mutant(keep, "_due")
def fences_are_not_renewed(right: Any) -> Any:
    """6: a fence lives for ten seconds, however long its write takes."""
    return lambda state, now_ns: (right(state, now_ns)[0], [])


@_mutant(leaving, "may_share")
def waiters_take_any_value(right: Any) -> Any:
    """7a: who joined a load shares what it brings, accepted or not."""
    return lambda state, flight, request: True


@_mutant(keep, "_follow")
def memory_without_proof(right: Any) -> Any:
    """8: once it was proved, memory is used for ever."""

    def wrong(state: State, *about: Any) -> None:
        right(state, *about)
        state.table.fresh_until_ns = FOREVER_NS

    return wrong


@_mutant(State, "end_look")
def no_generation_check(right: Any) -> Any:
    """8c: what was found in the tier goes into memory, though it was invalidated on the way."""

    def wrong(self: State, *about: Any) -> bool:
        right(self, *about)
        return True

    return wrong


@_mutant(exchange, "announced")
def published_before_the_fence(right: Any) -> Any:
    """8d: the other processes are told before the fence is up."""

    async def wrong(state: State, run: Any, operations: Any) -> Any:
        if not any(isinstance(each, Fence) or (isinstance(each, MarkTag) and each.joins) for each in operations):
            return await right(state, run, operations)
        head = await right(state, run, operations[-1:])
        await _perform(state, run, operations[:-1])
        return head

    return wrong


@_mutant(invalidate, "wait_for_proofs")
def nobody_waits_for_proofs(right: Any) -> Any:
    """9: a strict write commits while other processes may use their memory."""

    async def wrong(*about: Any) -> None:
        return

    return wrong


@_mutant(fence, "may_have_committed")
def fences_fall_while_the_outcome_is_unknown(right: Any) -> Any:
    """A write whose connection was lost takes its fence down, and is committed after that."""
    return lambda error: False


# Leases and fills -----------------------------------------------------------------------------------------------------


@_mutant(records, "_is_leased")
def fills_ignore_the_token(right: Any) -> Any:
    """Whoever has a lease may fill, under anybody's."""
    return lambda record, token: record[:1] == b"L" or right(record, token)


@_mutant(records, "_is_leased")
def refreshes_ignore_the_token(right: Any) -> Any:
    """A value that is being refreshed takes what any load brings."""
    return lambda record, token: record[:1] == b"V" or right(record, token)


@_mutant(keep, "_due")
def leases_are_not_renewed(right: Any) -> Any:
    """A load that takes longer than a lease is no longer the only one (L1)."""
    return lambda state, now_ns: ([], right(state, now_ns)[1])


@_mutant(lease.SharedLoad, "_give_back")
def failed_loads_keep_their_lease(right: Any) -> Any:
    """Who fails leaves others waiting for its lease to expire."""

    async def wrong(*about: Any) -> None:
        return

    return wrong


@_mutant(records, "drop")
def invalidations_leave_leases(right: Any) -> Any:
    """A load from before an invalidation is stored after it."""
    return lambda record, operation: records.Change(True) if record[:1] == b"L" else right(record, operation)


@_mutant(board, "store")
def refused_values_go_into_memory(right: Any) -> Any:
    """A process keeps for itself what the tier did not take."""

    async def wrong(state: State, run: Any, cargo: Any) -> None:
        await right(state, run, cargo)
        for item in cargo:
            item.boarding.request.flight.is_refused = False

    return wrong


@_mutant(board, "_fill")
def stamps_are_taken_after_the_load(right: Any) -> Any:
    """A value counts as loaded when it is stored, so that tags invalidated in between are missed."""

    def wrong(state: State, item: Any) -> Any:
        head = exchange.tier_of(state).proof.head
        if head is not None:
            item.boarding.stamp = item.boarding.stamp._replace(sequence=head.sequence + 1)
        return right(state, item)

    return wrong


@_mutant(records, "put", under="unknown outcomes")
def puts_are_stored_over_fences(right: Any) -> Any:
    """A value that was `set` takes the place of the fence of a write that is under way."""
    return lambda record, operation, now_ms: right(b"" if record[:1] == b"B" else record, operation, now_ms)


# Fences and writes ----------------------------------------------------------------------------------------------------


@_mutant(records, "clear")
def clearing_removes_other_writers(right: Any) -> Any:
    """The first writer to end takes down the fence of all."""
    return lambda record, operation, now_ms: records.Change(right(record, operation, now_ms).reply, b"")


@_mutant(records, "clear")
def write_through_looks_at_nobody_else(right: Any) -> Any:
    """Write-through stores its value though others wrote meanwhile (I5)."""

    def wrong(record: bytes, operation: Clear, now_ms: int) -> Any:
        return right(record[:1] + b"0" + record[2:] if record[:1] == b"B" else record, operation, now_ms)

    return wrong


@_mutant(Shared, "may_ask")
def owed_keys_are_read_from_the_tier(right: Any) -> Any:
    """A process reads what it has invalidated, as the tier does not know of that yet."""
    return lambda self, key: not self.breaker.is_away


@_mutant(keep, "_deliver_owed")
def owed_invalidations_are_forgotten(right: Any) -> Any:
    """What is owed is struck off the list and not delivered."""

    async def wrong(state: State, run: Any) -> None:
        shared = exchange.tier_of(state)
        shared.owed.settle(*shared.owed.debt())

    return wrong


@_mutant(Owed, "settle", under="refused fences")
def debts_that_are_owed_anew_are_settled(right: Any) -> Any:
    """What comes to be owed again while it is delivered counts as delivered."""
    return lambda self, number, debt: right(self, self._number, debt)


# The log and the proof ------------------------------------------------------------------------------------------------


@_mutant(Proof, "follow", under="short log")
def gaps_are_ignored(right: Any) -> Any:
    """Announcements that were trimmed away are taken for none."""

    def wrong(self: Proof, log: Any) -> Any:
        known, applied = self.head, self.applied
        news = right(self, log)
        if news is None and known is not None and known.epoch == log.head.epoch:
            return [each for each in log.news if each.sequence > applied and each.sender != self._sender]
        return news

    return wrong


@_mutant(keep, "_follow", under="pauses")
def proofs_begin_after_the_reading(right: Any) -> Any:
    """A proof counts from when the log was read and applied, not from before."""
    return lambda state, log, noted_ns: right(state, log, state.clock_ns())


@_mutant(keep, "_obey")
def announcements_are_not_obeyed(right: Any) -> Any:
    """Memory keeps what others have announced."""
    return lambda state, news: None


@_mutant(Shelf, "_announce")
def clearing_raises_no_floor(right: Any) -> Any:
    """What was loaded before a `clear` is still current in the tier."""
    return lambda self, operation, now_ms: right(self, operation._replace(clears=False), now_ms)


# Tags -----------------------------------------------------------------------------------------------------------------


@_mutant(Knowledge, "is_current")
def stamps_are_compared_with_less(right: Any) -> Any:
    """A value that was loaded right before its tag was invalidated is current."""

    def wrong(self: Knowledge, stamp: Any, tags: Any) -> bool:
        lower = {tag: known and known._replace(sequence=known.sequence - 1) for tag, known in self.stamps.items()}
        return right(self._replace(stamps=lower), stamp, tags)

    return wrong


@_mutant(exchange, "announced", under="slow tags")
def tags_are_marked_after_the_announcement(right: Any) -> Any:
    """Other processes are told to look at the tags anew before the tags have changed."""

    async def wrong(state: State, run: Any, operations: Any) -> Any:
        marks = [each for each in operations if isinstance(each, MarkTag) and not each.joins]
        head = await right(state, run, [each for each in operations if each not in marks])
        if marks:
            await _perform(state, run, marks)
        return head

    return wrong


@_mutant(Shared, "remember_tags", under="slow tags")
def stamps_are_remembered_across_invalidations(right: Any) -> Any:
    """A stamp that was read while its tag was invalidated is remembered."""
    return lambda self, stamps, reads: right(self, stamps, self.tag_reads)


@_mutant(Shared, "forget_tags")
def stamps_are_remembered_for_ever(right: Any) -> Any:
    """What is known of tags is not forgotten when they are announced."""
    return lambda self, tags: None


@_mutant(records, "mark_tag")
def tags_have_no_fences(right: Any) -> Any:
    """Writers of a tag are not noted in it."""
    return lambda record, operation, now_ms: right(record, operation._replace(joins=b""), now_ms)
