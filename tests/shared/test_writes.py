"""Writes over processes: rules I3 and I5, `confirm`, unknown outcomes, and what "strict" adds."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.processes import FENCE_SECONDS, Hold, Process, Records, Source, World, elsewhere
from tests.support.waiting import wait_for_callers, wait_until

from credenza import Cache, CacheAside, FenceLost, NoCache, TierError, WriteThrough
from credenza.events import EventKind
from credenza.strategies import Strategy
from credenza.testing import CountingLoader
from credenza.tiers.base import Announce, Clear, Drop, Fence, Get, Put


@pytest.fixture
def source() -> Source:
    """The source of truth."""
    return Source()


def records(source: Source, *processes: Process, strategy: Strategy | None = None, **options: Any) -> list[Records]:
    """Return access to the records in each of the processes."""
    return [Records(process, source, strategy or WriteThrough(), **options) for process in processes]


# Write-through --------------------------------------------------------------------------------------------------------


def test_written_value_is_stored_everywhere(one: Process, two: Process, source: Source) -> None:
    """Write-through by a writer that was alone: its value is in the tier, and in the writer's memory for good."""
    here, there = records(source, one, two)
    there.get("k")
    here.put("k", "new")
    one.keep_up()
    assert here.fetch("k") == ("new", "hit")
    two.keep_up()
    assert there.fetch("k") == ("new", "shared")
    assert source.loads == 1


def test_written_value_keeps_its_tags(one: Process, two: Process, source: Source) -> None:
    """What write-through stores carries the tags of the record."""
    here, there = records(source, one, two, tags=["records", "record:{}"])
    here.put("k", "new")
    assert there.fetch("k") == ("new", "shared")
    two.do("invalidate_tags", "record:k")
    one.keep_up()
    source.records["k"] = "newer"
    assert (here.get("k"), there.get("k")) == ("newer", "newer")


WRITES: dict[str, Callable[[Process, Records], object]] = {
    "put": lambda process, records: records.put("k", "newer"),
    "invalidate": lambda process, records: process.do("invalidate", "k"),
    "set": lambda process, records: process.do("set", "k", "newer"),
}


@pytest.mark.parametrize("write", ["put", "invalidate", "set"])
@pytest.mark.parametrize("is_own", [False, True], ids=["another process", "the same process"])
def test_value_is_not_stored_where_another_write_came_in_between(
    world: World, source: Source, write: str, is_own: bool
) -> None:
    """I5: 1. A commits. 2. B commits, or says that it did. 3. A ends: its value may be the older one, and goes."""
    one, two = world.pair()
    here, there = records(source, one, two)

    def come_in_between(key: str) -> None:
        source.at_store = None
        other = one if is_own else two
        if is_own:
            with one.in_the_other_face():
                mine = Records(one, source, WriteThrough())
                elsewhere(lambda: WRITES[write](one, mine))
        else:
            elsewhere(lambda: WRITES[write](other, there))
        source.records["k"] = "newer"

    source.at_store = come_in_between
    here.put("k", "new")
    assert not one.has_in_memory("k")
    world.keep_up()
    assert (there.get("k"), here.get("k")) == ("newer", "newer")


def test_overlapping_writers_store_nothing_whoever_ends_last(world: World, source: Source) -> None:
    """I5: A begins, B begins and ends, C begins, A ends, C ends: the record is that of the source."""
    one, two = world.pair()
    here, there = records(source, one, two)
    three = Records(world.process(), source, WriteThrough())

    def write(key: str) -> None:
        source.at_store = None
        elsewhere(lambda: there.put("k", "b"))
        elsewhere(lambda: three.put("k", "c"))

    source.at_store = write
    here.put("k", "a")
    world.keep_up()
    assert [each.get("k") for each in (here, there, three)] == ["c"] * 3


def test_tag_that_is_invalidated_during_a_write_takes_the_value_along(
    one: Process, two: Process, source: Source
) -> None:
    """1. A fences. 2. B invalidates a tag of the record. 3. A stores the value: it is too old."""
    here, there = records(source, one, two, tags=["t"])
    source.at_store = lambda key: elsewhere(lambda: two.cache.invalidate_tags("t"))
    here.put("k", "new")
    source.at_store = None
    one.keep_up()
    source.records["k"] = "newer"
    assert (there.get("k"), here.get("k")) == ("newer", "newer")


@pytest.mark.parametrize("strategy", [CacheAside(), WriteThrough()], ids=["aside", "through"])
def test_write_that_fails_leaves_the_old_value_to_the_source(
    one: Process, two: Process, source: Source, strategy: Strategy
) -> None:
    """I3: a write that raises invalidates the record, and stores nothing; the error is the source's own."""
    here, there = records(source, one, two, strategy=strategy)
    there.get("k")

    def fail(key: str) -> None:
        source.records["k"] = "old"
        raise ValueError("not like this")

    source.at_store = fail
    with pytest.raises(ValueError, match="not like this"):
        here.put("k", "new")
    two.keep_up()
    assert (there.fetch("k"), here.fetch("k")) == (("old", "miss"), ("old", "shared"))


@pytest.mark.parametrize("strategy", [CacheAside(), WriteThrough()], ids=["aside", "through"])
def test_deleted_record_is_gone_everywhere(one: Process, two: Process, source: Source, strategy: Strategy) -> None:
    """`delete` invalidates in all processes."""
    here, there = records(source, one, two, strategy=strategy)
    assert (here.get("k"), there.get("k")) == ("old", "old")
    here.delete("k")
    two.keep_up()
    for each in (there, here):
        with pytest.raises(LookupError):
            each.get("k")


def test_repository_without_cache_asks_no_tier(one: Process, source: Source) -> None:
    """`NoCache` goes to the source, past memory and tier."""
    (here,) = records(source, one, strategy=NoCache())
    one.tier.batches.clear()
    assert here.fetch("k") == ("old", "bypass")
    here.put("k", "new")
    assert here.get("k") == "new"
    assert one.tier.batches == []


def test_many_records_are_loaded_at_once_and_shared(one: Process, two: Process, source: Source) -> None:
    """`get_many` takes what the tier has, and loads the rest with one call."""
    source.records.update(a="1", b="2")
    here, there = records(source, one, two)
    here.get("k")
    source.loads = 0
    assert there.get_many(["k", "a", "b", "none"]) == {"k": "old", "a": "1", "b": "2"}
    assert source.loads == 1
    assert here.get_many(["a", "b"]) == {"a": "1", "b": "2"}
    assert source.loads == 1


# Fences ---------------------------------------------------------------------------------------------------------------


def test_readers_of_other_processes_go_to_the_source_while_a_key_is_written(one: Process, two: Process) -> None:
    """I3: inside the block nothing is stored for the key in any process; after it the next value is."""
    two.read("k", "old")
    loader = CountingLoader("uncommitted")
    with one.writing("k"):
        two.keep_up()
        assert two.fetch("k", loader) == ("uncommitted", "bypass")
        assert two.fetch("k", loader) == ("uncommitted", "bypass")
        assert one.fetch("k", loader) == ("uncommitted", "bypass")
        assert two.do("get", "k") is None
        assert not two.has_in_memory("k")
    assert loader.calls == 3
    assert two.fetch("k", "new") == ("new", "miss")
    assert one.fetch("k", "newer") == ("new", "shared")


def test_callers_behind_a_fence_do_not_share_a_load_that_began_before_they_came(world: World) -> None:
    """While another process writes, a load that is under way is not for newcomers: what it read may be too old."""
    one, two = world.pair(maxsize=0)
    with one.writing("k"):
        held = two.held(lambda number: number)
        first = two.begin_read("k", held)
        held.wait_until_called()
        later = two.begin_read("k", held)
        wait_for_callers(two.cache, "k", 2)
        held.release()
        assert (first.result(), later.result()) == (1, 2)


def test_caller_that_came_before_a_load_began_shares_it(world: World) -> None:
    """1. A caller comes, and looks. 2. Another one begins a load. 3. The first joins it, and shares it: rounds, not queues."""
    one, two = world.pair(maxsize=0)
    with one.writing("k"):
        hold, held, loader = two.tier.hold(Get, after=True), two.held("value"), CountingLoader("other")
        with two.in_the_other_face():
            early = two.begin_read("k", loader)
        hold.wait_until_reached()
        leading = two.begin_read("k", held)
        held.wait_until_called()
        hold.release()
        wait_for_callers(two.cache, "k", 2)
        held.release()
        assert (leading.result(), early.result()) == ("value", "value")
        assert loader.calls == 0


def test_nested_and_overlapping_writes_compose(world: World) -> None:
    """A key is fenced until the last of its writers has ended, in whatever process and however nested."""
    one, two = world.pair()
    three = world.process()
    with one.writing("k"):
        with one.writing("k", "other"), two.writing("k"):
            pass
        three.keep_up()
        assert three.fetch("k", "uncommitted") == ("uncommitted", "bypass")
        assert three.fetch("other", "value") == ("value", "miss")
    assert three.fetch("k", "new") == ("new", "miss")


@pytest.mark.parametrize("write", ["set", "set_many"])
def test_value_that_is_set_behind_the_fence_of_another_process_is_not_stored(
    one: Process, two: Process, write: str
) -> None:
    """Inside a `writing` block of any process `set` stores nothing, and contradicts what its writer stores."""
    with one.writing("k"):
        two.do("set", "k", "set") if write == "set" else two.do("set_many", {"k": "set", "beside": 1})
        assert not two.has_in_memory("k")
        assert two.do("get", "k") is None
    assert two.fetch("k", "new") == ("new", "miss")


def test_fence_is_up_before_it_is_announced(one: Process, two: Process) -> None:
    """The fence and its announcement go in this order; lowering it costs one more round trip, two for tags."""
    one.tier.batches.clear()
    with one.writing("k", "other"):
        assert [[type(operation) for operation in batch] for batch in one.tier.batches] == [[Fence, Fence, Announce]]
    assert [type(operation) for operation in one.tier.batches[1]] == [Clear, Clear]
    assert len(one.tier.batches) == 2


ROUND_TRIPS = {"ttl": 0, "invalidate": 1, "bounded": 2, "strict": 3}


@pytest.mark.parametrize("coherence", ROUND_TRIPS)
def test_write_costs_what_the_level_promises(world: World, coherence: str) -> None:
    """What a write adds in round trips; under "strict" the fence is looked at once more after the wait."""
    one = world.process(coherence=coherence)
    one.tier.batches.clear()
    with one.writing("k"):
        pass
    assert len(one.tier.batches) == ROUND_TRIPS[coherence]
    one.keep_up()


def test_fence_is_renewed_while_its_block_runs(one: Process, two: Process, world: World) -> None:
    """A block that takes longer than a fence lives keeps it, and `confirm` finds it up."""
    with one.writing("k", tags=["t"]) as confirm:
        world.advance(3.5 * FENCE_SECONDS)
        confirm()
        assert two.fetch("k", "uncommitted") == ("uncommitted", "bypass")
        assert two.read("tagged", "uncommitted", tags=["t"]) == "uncommitted"
        assert not two.has_in_memory("tagged")
    assert two.fetch("k", "new") == ("new", "miss")


def test_fence_of_a_killed_writer_expires(one: Process, world: World) -> None:
    """A writer that is killed leaves its fence; readers bypass it until it has expired, and share again after that."""
    world.tier.perform([Fence(world.name("k"), b"somebody else's.", int(FENCE_SECONDS * 1_000))], 1)
    assert one.fetch("k", "uncommitted") == ("uncommitted", "bypass")
    world.advance(FENCE_SECONDS)
    assert one.fetch("k", "value") == ("value", "miss")
    assert one.fetch("k", "other") == ("value", "hit")


# Confirm --------------------------------------------------------------------------------------------------------------


def test_confirm_costs_nothing_while_the_fence_is_young(one: Process, world: World) -> None:
    """In the first half of the fence's life `confirm` asks nobody; in the second half it renews the fence."""
    with one.writing("k") as confirm:
        one.tier.batches.clear()
        world.clock.advance(FENCE_SECONDS / 2 - 0.001)
        confirm()
        assert one.tier.batches == []
        world.clock.advance(0.001)
        confirm()
        assert one.tier.asked(Fence) == 1
        world.clock.advance(FENCE_SECONDS - 1)
        assert world.record("k")[:1] == b"B"


def lose_fence(world: World) -> None:
    """Let the tier lose the record of the key."""
    world.tier.shelf.forget(world.name("k"))


def test_confirm_raises_where_the_fence_is_gone(one: Process, world: World) -> None:
    """A fence that was evicted is found out before the commit: the write is to be rolled back."""
    with pytest.raises(FenceLost, match="roll back"), one.writing("k") as confirm:
        world.clock.advance(FENCE_SECONDS / 2)
        lose_fence(world)
        confirm()
    assert [event.key for event in one.told(EventKind.FENCE_LOST)] == ["k"]


@pytest.mark.parametrize("loses_all", [False, True], ids=["evicted", "all lost"])
def test_confirm_raises_where_the_fence_of_a_tag_is_gone(one: Process, world: World, loses_all: bool) -> None:
    """The same for a tag whose record was evicted, or went with all of the tier's memory."""
    with pytest.raises(FenceLost), one.writing(tags=["t"]) as confirm:
        world.clock.advance(FENCE_SECONDS / 2)
        world.tier.forget_all() if loses_all else world.tier.shelf.forget(b"credenza#t")
        confirm()


def test_confirm_raises_where_the_keeper_has_found_the_fence_gone(
    one: Process, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What the keeper finds out while it renews the fence holds for `confirm`, and is told once."""
    caplog.set_level(logging.WARNING, "credenza")
    with pytest.raises(FenceLost), one.writing("k") as confirm:
        lose_fence(world)
        world.clock.advance(2.5)
        one.keep_up()
        assert len(one.told(EventKind.FENCE_LOST)) == 1
        lose_fence(world)
        confirm()
    assert len(one.told(EventKind.FENCE_LOST)) == 1
    assert sum("a fence was gone" in message for message in caplog.messages) == 1


def test_confirm_raises_where_the_tier_cannot_tell(one: Process, world: World) -> None:
    """With half of the fence's life gone and no tier to renew it, nobody knows: the write is to be rolled back."""
    with pytest.raises(FenceLost, match="away"), one.writing("k") as confirm:
        world.clock.advance(FENCE_SECONDS / 2)
        one.tier.is_away = True
        confirm()
    one.tier.is_away = False
    world.may_leave_records = True
    world.clock.advance(1)
    one.keep_up()
    assert one.cache.health().owed == 0


def test_confirm_outside_of_a_shared_tier_is_nothing() -> None:
    """Without a shared tier a fence is never lost."""
    with Cache[str, str]() as cache, cache.writing("k") as fence:
        fence.confirm()


def test_old_value_that_a_lost_fence_let_in_goes_with_the_end_of_the_write(
    one: Process, two: Process, world: World
) -> None:
    """1. A fences. 2. The fence is evicted. 3. B loads the old value and keeps it. 4. A commits, ends, and says so again."""
    with one.writing("k"):
        lose_fence(world)
        two.keep_up()
        assert two.read("k", "old") == "old"
        assert two.has_in_memory("k")
    assert len(one.told(EventKind.FENCE_LOST)) == 1
    two.keep_up()
    assert two.fetch("k", "new") == ("new", "miss")


# Unknown outcomes -----------------------------------------------------------------------------------------------------


class OperationalError(Exception):
    """What a driver raises, by the name of PEP 249."""


class LostConnection(OperationalError):
    """A subclass of it."""


UNKNOWN = [OSError, TimeoutError, ConnectionResetError, OperationalError, LostConnection, KeyboardInterrupt]
KNOWN = [ValueError, LookupError, sqlite3.OperationalError, FenceLost]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_fence_stays_where_the_outcome_is_unknown(sync_world: World, kind: type[BaseException]) -> None:
    """A commit that may still come must not find readers that store what they read: the fence is left to expire."""
    one, two = sync_world.pair()
    with pytest.raises(kind), one.writing("k"):
        raise kind("connection lost")
    two.keep_up()
    sync_world.advance(FENCE_SECONDS - 0.01)
    assert two.fetch("k", "perhaps old") == ("perhaps old", "bypass")
    assert one.fetch("k", "perhaps old") == ("perhaps old", "bypass")
    assert not two.has_in_memory("k")
    sync_world.advance(0.01)
    assert two.fetch("k", "new") == ("new", "miss")
    assert one.fetch("k", "other") == ("new", "shared")


def test_fence_stays_where_a_task_was_cancelled(async_world: World) -> None:
    """A write whose task was cancelled may have been committed all the same."""
    one, two = async_world.pair()

    async def write() -> None:
        async with one.cache.aio.writing("k"):
            await asyncio.Event().wait()

    writing = one.start(write)
    wait_until(lambda: async_world.record("k")[:1] == b"B", "the fence is up")
    writing.cancel()
    wait_until(lambda: not one.shared.barriers, "the write has ended")
    assert two.fetch("k", "perhaps old") == ("perhaps old", "bypass")
    async_world.advance(FENCE_SECONDS)
    assert two.fetch("k", "new") == ("new", "miss")


@pytest.mark.parametrize("kind", KNOWN)
def test_fence_falls_where_the_outcome_is_known(one: Process, two: Process, kind: type[Exception]) -> None:
    """An error after which nothing can be committed any more lets the fence fall at once."""
    with pytest.raises(kind), one.writing("k"):
        raise kind("rolled back")
    assert two.fetch("k", "value") == ("value", "miss")


def test_fence_of_a_repository_stays_where_the_outcome_is_unknown(one: Process, two: Process, source: Source) -> None:
    """The same for a `put` whose source lost its connection; write-through stores nothing."""
    here, there = records(source, one, two)

    def lose_connection(key: str) -> None:
        raise ConnectionResetError("in the middle of the commit")

    source.at_store = lose_connection
    with pytest.raises(ConnectionResetError):
        here.put("k", "new")
    one.world.may_leave_records = True
    two.keep_up()
    assert there.fetch("k") == ("new", "bypass")


# Strict ---------------------------------------------------------------------------------------------------------------

STRICT_WRITES: dict[str, Callable[[Process], object]] = {
    "invalidate": lambda process: process.do("invalidate", "k"),
    "tags": lambda process: process.do("invalidate_tags", "t"),
    "clear": lambda process: process.do("clear"),
    "set": lambda process: process.do("set", "k", "new", tags=["t"]),
    "set_many": lambda process: process.do("set_many", {"k": "new", "beside": 1}, tags=["t"]),
}


@pytest.mark.parametrize("write", STRICT_WRITES)
def test_strict_write_returns_when_no_memory_can_serve_the_old_value(world: World, write: str) -> None:
    """Under "strict" no process serves the old value after the write has returned, one whose keeper is stuck included."""
    one, two = world.process(coherence="strict"), world.process(coherence="strict", max_staleness=3)
    two.read("k", "old", tags=["t"])
    one.keep_up()  # hears of the longest proof
    assert two.fetch("k", "new") == ("old", "hit")
    STRICT_WRITES[write](one)
    assert sum(one.pauses) >= 1.02 * 3e9
    assert two.fetch("k", "new", tags=["t"])[0] == "new"


def test_strict_write_commits_when_no_memory_can_serve_the_old_value(world: World) -> None:
    """Inside the block, when the commit comes, nobody serves the old value from memory any more."""
    one, two = world.pair(coherence="strict")
    two.read("k", "old")
    with one.writing("k"):
        assert 1.02e9 <= sum(one.pauses) < 1.1e9
        assert not two.cache.health().is_proved
        assert two.fetch("k", "uncommitted") == ("uncommitted", "bypass")
    assert two.fetch("k", "new") == ("new", "miss")


def test_strict_write_finds_its_fence_gone_after_the_wait(world: World) -> None:
    """A fence that is lost while the writer waits refuses the write before it begins."""
    one = world.process(coherence="strict")
    one.at_pause = lambda number: lose_fence(world)
    with pytest.raises(FenceLost), one.writing("k"):
        pytest.fail("the block was entered")
    assert not one.shared.barriers


def test_strict_write_waits_for_proofs_that_the_tier_has_forgotten(world: World) -> None:
    """When the tier has lost its memory, the longest proof that was ever heard of still counts."""
    one, two = world.process(coherence="strict"), world.process(coherence="strict", max_staleness=3)
    two.read("k", "old")
    one.keep_up()
    world.tier.forget_all()
    with one.writing("k"):
        assert two.fetch("k", "uncommitted")[0] == "uncommitted"
    assert sum(one.pauses) >= 1.02 * 3e9


@pytest.mark.parametrize("coherence", ["ttl", "invalidate", "bounded"])
def test_other_levels_wait_for_nobody(world: World, coherence: str) -> None:
    """Only "strict" waits out the proofs of others."""
    one = world.process(coherence=coherence)
    for write in STRICT_WRITES.values():
        write(one)
    with one.writing("k"):
        pass
    assert one.pauses == []
    one.keep_up()


def test_cancelled_writer_that_waits_for_proofs_lowers_its_fence(async_world: World) -> None:
    """A task that is cancelled before its block was entered has committed nothing: its fence falls."""
    one, two = async_world.pair(coherence="strict")
    hold = Hold()
    one.at_pause = lambda number: hold
    entering = one.start(one.cache.aio.writing("k").__aenter__)
    hold.wait_until_reached()
    entering.cancel()
    wait_until(lambda: not async_world.record("k"), "the fence falls")
    assert two.fetch("k", "value") == ("value", "miss")
    hold.release()


def test_operations_of_a_write_name_what_they_are(one: Process) -> None:
    """`invalidate` drops and announces, `set` puts and announces: one exchange each, however many keys."""
    one.tier.batches.clear()
    one.do("invalidate", "a", "b")
    one.do("set_many", {"a": 1, "b": 2})
    assert [[type(operation) for operation in batch] for batch in one.tier.batches] == [
        [Drop, Drop, Announce],
        [Put, Put, Announce],
    ]


def test_write_is_refused_before_it_begins_where_it_cannot_be_fenced(world: World, source: Source) -> None:
    """Under "strict" a write that cannot be fenced raises before the source is touched, and leaves no fence."""
    one = world.process(coherence="strict")
    (here,) = records(source, one)
    one.tier.lose_reply(Fence)
    with pytest.raises(TierError, match="was not begun"):
        here.put("k", "new")
    assert source.writes == 0
    world.may_leave_records = True  # nobody knows whether the fence is up; it expires


def test_fence_that_is_gone_is_not_raised_by_a_renewal_whose_reply_is_lost(
    one: Process, two: Process, world: World
) -> None:
    """1. A fences. 2. The fence is lost. 3. B loads and fills the old value. 4. A's keeper renews, and the reply is lost.

    5. The next renewal must not take what the last one did for a fence that was up all the time.
    """
    with pytest.raises(FenceLost), one.writing("k") as confirm:
        lose_fence(world)
        assert two.fetch("k", "old") == ("old", "miss")
        world.clock.advance(FENCE_SECONDS / 2)
        one.tier.lose_reply(Fence)
        one.keep_up()
        confirm()
