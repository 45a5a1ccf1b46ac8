"""Rules E1 and E2: the tier is away, or refuses. Reads go on; an invalidation is owed, or the write is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.processes import FENCE_SECONDS, STALENESS, TTL, Process, Records, Source, World
from tests.support.waiting import wait_for_callers, wait_until

from credenza import Cache, TierError, WriteThrough
from credenza.events import EventKind
from credenza.flow.invalidate import owe
from credenza.shared.breaker import Breaker
from credenza.shared.owed import MOST_OWED
from credenza.testing import CountingLoader
from credenza.tiers.base import Announce, Clear, Drop, Fence, Fill, Get, Lease, MarkTag, Put, ReadHead, ReadLog


def lose(*processes: Process) -> None:
    """Let the tier be away for these processes."""
    for process in processes:
        process.tier.is_away = True


def fail() -> None:
    """Fail an exchange."""
    raise TierError("the tier does not answer")


def find(*processes: Process) -> None:
    """Let it be back, and the keepers see that after their pause."""
    for process in processes:
        process.tier.is_away = False
    processes[0].world.clock.advance(6)
    for process in processes:
        process.keep_up()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Returns what was logged since the last time."""
    caplog.set_level(logging.INFO, "credenza")

    def take() -> list[str]:
        messages = list(caplog.messages)
        caplog.clear()
        return messages

    return take


# Reading --------------------------------------------------------------------------------------------------------------


def test_keeper_that_fails_once_tries_once_more(one: Process) -> None:
    """In a process that is short of time the keeper is, too; one lost reply does not mean that the tier is away."""
    one.tier.lose_reply(ReadLog)
    one.keep_up()
    assert one.told(EventKind.TIER_LOST) == []
    assert one.cache.health().is_proved
    one.tier.before(ReadLog, fail, times=2)
    one.keep_up()
    assert len(one.told(EventKind.TIER_LOST)) == 1


def test_memory_serves_until_its_proof_is_over(one: Process, world: World) -> None:
    """While the tier is away memory is used as long as the proof holds, then reads go to the source."""
    one.read("k", "old")
    lose(one)
    world.clock.advance(STALENESS - 0.001)
    one.keep_up()
    assert one.fetch("k", "new") == ("old", "hit")
    world.clock.advance(0.001)
    one.keep_up()
    assert one.fetch("k", "new") == ("new", "miss")
    assert one.fetch("k", "newer") == ("newer", "miss")


@pytest.mark.parametrize("kind", [Get, Lease, Fill])
def test_read_succeeds_wherever_the_tier_fails(one: Process, world: World, kind: type[Any]) -> None:
    """E1: a tier that fails at any point of a read fails no read; nothing unconfirmed gets into memory."""
    one.tier.lose_request(kind)
    assert one.fetch("k", "value") == ("value", "miss")
    assert not one.has_in_memory("k")
    assert one.cache.health().tier == "away"
    find(one)
    world.may_leave_records = True
    assert one.read("k", "other") in ("value", "other")


@pytest.mark.parametrize("kind", [Get, Lease, Fill])
def test_read_succeeds_wherever_the_tier_has_a_fault(
    one: Process, world: World, kind: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """E1 holds for errors that no tier should raise: they are logged with their traceback, and fail no read."""

    def fail() -> None:
        raise ZeroDivisionError("nobody thought of this")

    world.may_leave_records = True
    one.tier.before(kind, fail)
    assert one.fetch("k", "value") == ("value", "miss")
    assert any(record.exc_info for record in caplog.records if record.name == "credenza")
    assert kind is Get or not one.has_in_memory("k")


def test_tier_that_is_away_is_asked_by_nobody_but_the_keeper(one: Process, world: World) -> None:
    """One failure is enough: callers leave the tier alone until the keeper has found it back."""
    lose(one)
    one.read("k", "value")
    one.tier.batches.clear()
    for _ in range(3):
        one.read("k", "value")
        one.do("get", "k")
        one.do("get_many", ["k"])
        one.do("invalidate", "k")
        one.do("set", "k", "value", tags=["t"])
        one.do("invalidate_tags", "t")
        with one.writing("k"):
            pass
        one.keep_up()
    assert one.tier.batches == []
    world.clock.advance(0.1)
    one.keep_up()
    assert [type(operation) for operation in one.tier.batches[0]] == [ReadLog]


def test_one_load_at_a_time_while_the_tier_is_away(one: Process) -> None:
    """Within a process callers still share a load."""
    lose(one)
    held = one.held("value")
    calls = [one.begin_read("k", held) for _ in range(5)]
    wait_for_callers(one.cache, "k", 5)
    held.release()
    assert [call.result() for call in calls] == ["value"] * 5
    assert held.calls == 1


def test_loads_are_kept_in_memory_under_ttl(world: World) -> None:
    """With `coherence="ttl"` memory does not depend on the tier."""
    one = world.process(coherence="ttl")
    lose(one)
    assert one.fetch("k", "value") == ("value", "miss")
    assert one.fetch("k", "other") == ("value", "hit")


def test_tier_that_is_back_is_used_again(one: Process, two: Process) -> None:
    """After the keeper has found the tier back, values are shared again."""
    lose(one)
    one.read("k", "lost")
    find(one, two)
    assert one.fetch("k", "value") == ("value", "miss")
    assert two.fetch("k", "other") == ("value", "shared")


def test_stale_value_in_memory_stands_in_while_tier_and_source_are_away(world: World) -> None:
    """`stale_if_error` serves from memory as long as the proof holds, whatever is away."""
    one = world.process(stale_if_error=50)
    one.read("k", "old")
    world.advance(TTL + 1)
    lose(one)
    assert one.fetch("k", CountingLoader("new", error=OSError("no database"))) == ("old", "stale")


# Saying so ------------------------------------------------------------------------------------------------------------


def test_changes_are_told_once(one: Process, world: World, log: Callable[[], list[str]]) -> None:
    """One event and one log line when the tier goes, and one when it is back; `health` says it all the time."""
    health = one.cache.health()
    assert (health.tier, health.coherence, health.is_proved, health.owed, health.error) == (
        "up",
        "bounded",
        True,
        0,
        None,
    )
    lose(one)
    for number in range(5):
        one.read(f"k{number}", "value")
        world.clock.advance(2)
        one.keep_up()
    health = one.cache.health()
    assert (health.tier, health.is_proved, health.since, health.error) == ("away", False, 10.0, "staged")
    assert health.promise.startswith("reads go to the source")
    assert len(log()) == 1
    assert len(one.told(EventKind.TIER_LOST)) == 1
    find(one)
    one.keep_up()
    assert len(log()) == 1
    assert len(one.told(EventKind.TIER_BACK)) == 1
    assert (one.cache.health().tier, one.cache.health().since, one.cache.health().is_proved) == ("up", 0.0, True)


@pytest.mark.parametrize("coherence", ["ttl", "invalidate", "bounded", "strict"])
def test_health_names_the_promise(sync_world: World, coherence: str) -> None:
    """Each level has a promise of its own."""
    promises = {sync_world.process(coherence=each).cache.health().promise for each in (coherence, "bounded")}
    assert len(promises) == (1 if coherence == "bounded" else 2)


def test_health_without_a_tier_is_that_of_one_process() -> None:
    """A cache without a shared tier has nothing to be away."""
    with Cache[str, str]() as cache:
        health = cache.health()
        assert (health.tier, health.is_proved, health.owed) == ("none", True, 0)


def test_tier_that_refuses_is_asked_for_no_lease_for_a_second(one: Process, world: World) -> None:
    """Each load would pay for a round trip that brings nothing; after a second one of them tries again."""
    one.tier.refused = (Lease,)
    one.read("a", "value")
    one.tier.batches.clear()
    one.read("b", "value")
    assert not any(isinstance(operation, Lease) for batch in one.tier.batches for operation in batch)
    one.tier.refused = ()
    world.advance(1)
    one.read("c", "value")
    assert world.record("c")[:1] == b"V"


def test_tier_that_refuses_to_store_says_so(one: Process, world: World, log: Callable[[], list[str]]) -> None:
    """A full tier is not away: what it has is served, what it refuses is loaded, and the change is told once."""
    one.do("set", "there", "value")
    one.tier.refused = (Lease, Put, Fill)
    for number in range(5):
        assert one.fetch("k", number) == (number, "miss")
        world.clock.advance(1)
        world.keep_up()
    assert one.tier.asked(Lease) >= 2
    assert one.fetch("there", "other") == ("value", "hit")
    assert one.cache.health().tier == "refusing"
    assert len(one.told(EventKind.TIER_LOST)) == 1
    assert len(log()) == 1
    one.tier.refused = ()
    world.clock.advance(60)
    world.keep_up()
    assert one.fetch("k", "value") == ("value", "miss")
    assert one.fetch("k", "other") == ("value", "hit")
    assert one.cache.health().tier == "up"
    assert len(one.told(EventKind.TIER_BACK)) == 1


def test_failure_of_a_caller_without_time_says_nothing_about_the_tier(sync_world: World) -> None:
    """A look-up with less time than `tier_timeout` may fail for want of it; the tier is not given up for that."""
    one = sync_world.process()
    one.tier.lose_request(Get)
    assert one.cache.get_or_load("k", lambda: "value", timeout=5) == "value"
    assert one.cache.health().tier == "up"


# Owed -----------------------------------------------------------------------------------------------------------------


def _write(process: Process, *keys: str, tags: tuple[str, ...] = ()) -> None:
    with process.writing(*keys, tags=tags):
        pass


def _put(process: Process) -> None:
    Records(process, Source(), WriteThrough()).put("k", "new")


WRITES: dict[str, Callable[[Process], object]] = {
    "invalidate": lambda process: process.do("invalidate", "k"),
    "tags": lambda process: process.do("invalidate_tags", "t"),
    "clear": lambda process: process.do("clear"),
    "set": lambda process: process.do("set", "k", "new", tags=["t"]),
    "set_many": lambda process: process.do("set_many", {"k": "new", "beside": 1}, tags=["t"]),
    "writing": lambda process: _write(process, "k"),
    "writing tags": lambda process: _write(process, tags=("t",)),
    "put": _put,
}


@pytest.mark.parametrize("coherence", ["invalidate", "bounded"])
@pytest.mark.parametrize("write", WRITES)
def test_write_without_the_tier_is_owed_and_delivered(world: World, write: str, coherence: str) -> None:
    """E2: the write goes on, its process bypasses the tier for what it owes, and tells the others when it can."""
    one, two = world.pair(coherence=coherence)
    two.read("k", "old", tags=["t"])
    lose(one)
    WRITES[write](one)
    health = one.cache.health()
    assert health.owed >= 1
    assert "until what is owed is delivered" in health.promise
    assert one.told(EventKind.OWED)
    assert one.fetch("k", "new", tags=["t"]) == ("new", "miss")
    assert two.fetch("k", "new", tags=["t"]) == ("old", "hit")
    find(one, two)
    assert one.cache.health().owed == 0
    assert one.told(EventKind.DELIVERED)
    two.keep_up()
    assert not two.has_in_memory("k")
    assert two.fetch("k", "new", tags=["t"]) == ("new", "miss")
    assert one.fetch("k", "newer", tags=["t"])[0] == "new"


@pytest.mark.parametrize("write", ["invalidate", "tags", "clear", "set", "writing", "writing tags", "put"])
def test_what_is_owed_is_not_read_from_the_tier(world: World, write: str) -> None:
    """The tier is back, and what is owed is not delivered yet: its process does not read the old value there."""
    one, two = world.pair()
    two.read("k", "old", tags=["t"])
    lose(one)
    WRITES[write](one)
    one.tier.is_away = False
    one.tier.refused = (Announce, Drop, MarkTag)
    world.clock.advance(1)
    one.keep_up()
    assert one.cache.health().owed >= 1
    assert one.fetch("k", "new", tags=["t"])[0] == "new"
    assert one.do("get", "k") in (None, "new")
    assert one.fetch("k", "new", tags=["t"])[0] == "new"
    one.tier.refused = ()
    world.clock.advance(60)
    world.keep_up()
    assert one.cache.health().owed == 0
    assert two.fetch("k", "newer", tags=["t"])[0] in ("new", "newer")


@pytest.mark.parametrize("is_bulk", [False, True], ids=["single", "bulk"])
def test_look_up_that_began_while_a_tag_was_owed_is_not_kept(world: World, is_bulk: bool) -> None:
    """1. A owes a tag. 2. A looks a value up that carries it. 3. The keeper delivers. 4. The reply arrives, with the old value.

    Nothing is owed any more then, and the announcement in the log is A's own, which it does not obey.
    """
    one, two = world.pair(coherence="ttl")
    two.do("set", "k", "old", tags=["t"])
    with one.writing(tags=["t"]):
        pass
    assert one.cache.health().owed == 1
    hold = one.tier.hold(Get, after=True)
    if is_bulk:
        reading = one.begin("get_or_load_many", ["k"], lambda keys: dict.fromkeys(keys, "new"), tags=["t"])
    else:
        reading = one.begin_read("k", CountingLoader("new"), tags=["t"])
    hold.wait_until_reached()
    one.keep_up()
    assert one.cache.health().owed == 0
    hold.release()
    assert reading.result() in ("new", {"k": "new"})
    assert one.read("k", "newer", tags=["t"]) == "new"


def test_what_comes_to_be_owed_again_is_delivered_again(sync_world: World) -> None:
    """1. The keeper delivers an invalidation. 2. It comes to be owed anew meanwhile. 3. It is still owed."""
    one = sync_world.process()
    lose(one)
    one.cache.invalidate("k")
    one.tier.is_away = False
    one.tier.after(Drop, lambda: owe_anew(one))
    sync_world.clock.advance(1)
    one.keep_up()
    assert one.cache.health().owed == 1
    find(one)
    assert one.cache.health().owed == 0


def owe_anew(process: Process) -> None:
    """Owe the invalidation of the key anew, in the middle of its delivery."""
    owe(process.state, {"k": process.shared.names.record("k")}, ())


def test_too_many_debts_become_one(sync_world: World) -> None:
    """Of more invalidations than are kept one by one, everything is owed to be forgotten."""
    one, two = sync_world.pair()
    two.read("other", "old")
    lose(one)
    one.cache.invalidate(*(f"k{number}" for number in range(MOST_OWED + 1)))
    assert one.cache.health().owed == 1
    assert one.fetch("other", "new") == ("new", "miss")
    find(one, two)
    two.keep_up()
    assert two.fetch("other", "new") == ("new", "miss")


def test_write_under_ttl_is_announced_by_the_keeper(world: World, log: Callable[[], list[str]]) -> None:
    """With `coherence="ttl"` a write adds no round trip; the keeper tells the others, and nobody is warned."""
    one, two = world.pair(coherence="ttl")
    here = Records(one, Source(), WriteThrough())
    two.read("k", "old")
    one.tier.batches.clear()
    here.put("k", "new")
    assert one.tier.batches == []
    assert here.fetch("k") == ("new", "hit")
    world.keep_up()
    two.keep_up()
    assert two.fetch("k", "newer") == ("newer", "miss")
    assert log() == []


@pytest.mark.parametrize("kind", [Fence, Clear])
@pytest.mark.parametrize("is_performed", [False, True], ids=["request lost", "reply lost"])
def test_write_whose_exchange_is_lost_is_owed(
    world: World, kind: type[Any], is_performed: bool, log: Callable[[], list[str]]
) -> None:
    """Whether the fence, or its fall, was performed or not, the invalidation is delivered, and the old value served nowhere."""
    one, two = world.pair()
    two.read("k", "old")
    (one.tier.lose_reply if is_performed else one.tier.lose_request)(kind)
    with one.writing("k"):
        pass
    assert one.cache.health().owed == 1
    assert len(log()) == 2  # the tier is away, an invalidation is owed
    find(one, two)
    two.keep_up()
    world.advance(FENCE_SECONDS)
    assert two.fetch("k", "new") == ("new", "miss")
    assert one.fetch("k", "newer") == ("new", "shared")


@pytest.mark.parametrize("kind", [Drop, MarkTag, ReadHead, Announce])
def test_invalidation_of_which_a_part_is_refused_is_owed(one: Process, world: World, kind: type[Any]) -> None:
    """An invalidation is delivered only if all its parts were; else the whole is owed, and delivered again."""
    one.tier.refused = (kind,)
    one.do("invalidate", "k")
    one.do("invalidate_tags", "t")
    assert one.cache.health().owed >= 1
    one.tier.refused = ()
    world.clock.advance(60)
    one.keep_up()
    assert one.cache.health().owed == 0


def test_what_is_owed_for_a_cancelled_set_is_delivered_when_that_cannot_arrive_any_more(async_world: World) -> None:
    """1. A value is on its way, and its task is cancelled. 2. It may arrive as long as it was waited for. 3. It goes."""
    one, two = async_world.pair()
    hold = one.tier.hold(Put)
    setting = one.begin("set", "k", "new")
    hold.wait_until_reached()
    setting.cancel()
    wait_until(lambda: one.cache.health().owed == 1, "the invalidation is owed")
    async_world.advance(59)
    assert one.cache.health().owed == 1
    hold.release()
    async_world.advance(2)
    assert one.cache.health().owed == 0
    two.keep_up()
    assert two.fetch("k", "value") == ("value", "miss")


# Raised ---------------------------------------------------------------------------------------------------------------

LEVELS = {"strict": {"coherence": "strict"}, "bounded": {"on_fence_failure": "raise"}}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("write", ["invalidate", "tags", "clear", "set", "set_many"])
def test_invalidation_without_the_tier_raises(world: World, write: str, level: str) -> None:
    """Where a write must not be owed the call raises; this process has forgotten the value all the same."""
    one = world.process(**LEVELS[level])
    one.do("set", "k", "old", tags=["t"])
    lose(one)
    with pytest.raises(TierError):
        WRITES[write](one)
    assert not one.has_in_memory("k")
    assert one.fetch("k", "new", tags=["t"]) == ("new", "miss")


@pytest.mark.parametrize("level", LEVELS)
def test_write_without_the_tier_is_refused_before_it_begins(world: World, level: str) -> None:
    """The block is not entered, the source is not touched, and the key is free."""
    one, source = world.process(**LEVELS[level]), Source()
    lose(one)
    with pytest.raises(TierError, match="was not begun"), one.writing("k"):
        pytest.fail("the block was entered")
    with pytest.raises(TierError, match="was not begun"):
        Records(one, source, WriteThrough()).put("k", "new")
    assert source.writes == 0
    assert one.told(EventKind.OWED) == []


def test_strict_may_owe_where_it_is_told_to(world: World) -> None:
    """`on_fence_failure="owe"` lets writes go on under "strict", too."""
    one = world.process(coherence="strict", on_fence_failure="owe")
    lose(one)
    with one.writing("k"):
        pass
    assert one.cache.health().owed == 1
    find(one)
    assert one.cache.health().owed == 0


# The breaker ----------------------------------------------------------------------------------------------------------


def test_breaker_tries_more_and_more_seldom() -> None:
    """The pause between two probes doubles from 100 ms to 5 s, with a random half of it; success begins anew."""
    breaker, now, pauses = Breaker(lambda: 1.0, 0), 0, []
    assert breaker.note_failure("away", now)
    for _ in range(8):
        pauses.append((breaker.probe_ns - now) / 1e6)
        now = breaker.probe_ns
        assert not breaker.note_failure("away", now)
    assert pauses == [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]
    assert breaker.since_ns == 0
    assert breaker.note_success(now)
    assert not breaker.note_success(now)
    assert breaker.note_failure("away", now)
    assert breaker.probe_ns - now == 100e6
    half = Breaker(lambda: 0.0, 0)
    half.note_failure("away", 0)
    assert half.probe_ns == 50e6


def test_breaker_does_not_slow_down_for_many_failures_at_once() -> None:
    """Callers that fail together are one failure."""
    breaker = Breaker(lambda: 1.0, 0)
    for now in range(100):
        breaker.note_failure("away", now)
    assert breaker.probe_ns == 99 + 100e6


# Closing --------------------------------------------------------------------------------------------------------------


def test_close_delivers_what_is_owed(one: Process, two: Process, world: World) -> None:
    """A cache that is closed delivers what it owes if the tier is back."""
    two.read("k", "old")
    lose(one)
    one.do("invalidate", "k")
    one.tier.is_away = False
    world.clock.advance(1)
    one.do("close")
    assert one.cache.health().owed == 0
    two.keep_up()
    assert two.fetch("k", "new") == ("new", "miss")


def test_close_says_what_nobody_will_deliver(one: Process, log: Callable[[], list[str]]) -> None:
    """What a cache still owes when it is closed, nobody delivers: that is logged."""
    lose(one)
    one.do("invalidate", "k")
    log()
    one.do("close")
    one.do("close")
    assert len(log()) == 1
