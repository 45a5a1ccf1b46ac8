"""The keeper: a thread that keeps up with the tier from its first use to the end of the cache. Forks, and closing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import in_child
from tests.support.processes import Process, StagedTier, World
from tests.support.waiting import Call, HeldLoader, wait_until

from credenza import Cache, CacheClosed
from credenza.events import EventKind
from credenza.testing import CountingLoader, DictTier, FakeClock
from credenza.tiers.base import Announce, Fence, Get, Lease, ReadLog, Renew
from credenza.tiers.sqlite import SqliteTier


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that forks."""
    # From Python 3.12 on the interpreter warns of what these tests are about.
    marked = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")(marked)


def keepers() -> list[threading.Thread]:
    """Return the threads of keepers that live."""
    return [thread for thread in threading.enumerate() if thread.name == "credenza-keeper"]


@pytest.fixture
def tier() -> StagedTier:
    """A tier in real time."""
    return StagedTier(DictTier())


@pytest.fixture
def cache(tier: StagedTier) -> Iterator[Cache[Any, Any]]:
    """A cache with a keeper of its own."""
    with Cache[Any, Any](remote=tier) as made:
        yield made
    wait_until(lambda: not keepers(), "the keeper ends with its cache")


# Its life -------------------------------------------------------------------------------------------------------------


def test_keeper_begins_with_the_first_use_of_the_tier(cache: Cache[Any, Any]) -> None:
    """A cache that is made, and imported, and never used has no thread."""
    assert keepers() == []
    cache.cached(len)
    assert cache.stats().hits == 0
    assert not cache.health().is_proved
    assert keepers() == []
    cache.get("k")
    assert len(keepers()) == 1
    assert keepers()[0].daemon
    wait_until(lambda: cache.health().is_proved, "the keeper proves memory fresh")
    for thread in [Call(lambda: cache.get("k")) for _ in range(5)]:
        thread.result()
    assert len(keepers()) == 1


def test_news_arrive_without_waiting_for_the_next_round(cache: Cache[Any, Any], tier: StagedTier) -> None:
    """The keeper watches the log: what another process writes leaves memory though no round is due."""
    beside = StagedTier(tier.inner)
    with Cache[Any, Any](remote=beside, clock=FakeClock(), max_staleness=600) as here:
        here.get_or_load("k", lambda: "old")
        wait_until(lambda: here.health().is_proved, "the keeper has begun")
        cache.invalidate("k")
        wait_until(lambda: here.get_or_load("k", lambda: "new") == "new", "the news arrive")
        assert beside.watches


def test_keeper_renews_what_is_held(tier: StagedTier) -> None:
    """Leases and fences are renewed by the keeper while their load and their block run."""
    clock = FakeClock()
    with Cache[Any, Any](remote=tier, clock=clock, max_staleness=0.004) as cache:
        held = HeldLoader()
        call = Call(lambda: cache.get_or_load("k", held))
        held.wait_until_called()
        with cache.writing("w"):
            clock.advance(3)
            wait_until(lambda: tier.asked(Renew) and tier.asked(Fence) >= 2, "both are renewed")
        held.release()
        assert call.result() == "value"


def test_keeper_that_fails_goes_on(
    cache: Cache[Any, Any], tier: StagedTier, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody has thought of is logged, and the keeper does its next round."""

    def fail() -> None:
        raise ZeroDivisionError("nobody thought of this")

    caplog.set_level(logging.ERROR, "credenza")
    tier.before(ReadLog, fail)
    cache.get("k")
    wait_until(lambda: cache.health().is_proved, "a later round succeeds")
    assert any("failed, and goes on" in message for message in caplog.messages)


def test_keeper_finds_a_tier_that_is_back(cache: Cache[Any, Any], tier: StagedTier) -> None:
    """A tier that fails while it is watched or read is tried again until it is back, and what is owed is delivered."""
    cache.get("k")
    wait_until(lambda: cache.health().is_proved, "the keeper has begun")
    tier.is_away = True
    cache.invalidate("k")
    assert cache.health().owed == 1
    wait_until(lambda: cache.health().tier == "away", "the tier is found away")
    tier.is_away = False
    wait_until(lambda: cache.health().tier == "up" and not cache.health().owed, "the tier is found back")
    assert tier.asked(Announce) == 2  # that which failed, and that which did not


def test_keeper_ends_when_its_cache_is_closed(tier: StagedTier) -> None:
    """After `close`, called once or twice, there is no thread."""
    cache = Cache[Any, Any](remote=tier)
    cache.get("k")
    assert len(keepers()) == 1
    cache.close()
    assert keepers() == []
    cache.close()
    assert tier.closings >= 1


def test_keeper_ends_when_an_async_cache_is_closed(tier: StagedTier) -> None:
    """The same for `async with`."""

    async def main() -> None:
        async with Cache[Any, Any](remote=tier).aio as cache:
            await cache.get("k")
            assert len(keepers()) == 1

    asyncio.run(main())
    assert keepers() == []


@pytest.mark.frees_caches
def test_keeper_ends_with_its_cache(tier: StagedTier) -> None:
    """A cache that nobody refers to any more is freed; its keeper notices within a pause, and ends."""
    cache = Cache[Any, Any](remote=tier, max_staleness=0.01)
    cache.get_or_load("k", lambda: "value")
    assert len(keepers()) == 1
    del cache
    gc.collect()
    wait_until(lambda: not keepers(), "the keeper ends")


# Closing --------------------------------------------------------------------------------------------------------------


def test_closed_cache_refuses_every_call(one: Process, two: Process) -> None:
    """After `close` calls raise; other processes go on."""
    one.read("k", "value")
    one.do("close")
    for name, arguments in {
        "get": ["k"],
        "get_or_load": ["k", lambda: "value"],
        "set": ["k", 1],
        "get_many": [["k"]],
    }.items():
        with pytest.raises(CacheClosed):
            one.do(name, *arguments)
    assert two.fetch("k", "other") == ("value", "shared")


def test_bulk_call_of_a_closed_cache_leaves_nothing(one: Process) -> None:
    """A bulk call after `close` raises, and leaves no look-up behind."""
    one.do("close")
    with pytest.raises(CacheClosed):
        one.do("get_or_load_many", ["k"], lambda keys: {})
    assert not one.state.looks


def test_load_under_way_when_its_cache_is_closed_is_not_stored(sync_world: World) -> None:
    """A plain load cannot be stopped: its leader gets the value, and neither tier keeps it."""
    one, two = sync_world.pair()
    held = one.held("old")
    leading = one.begin_read("k", held)
    held.wait_until_called()
    one.cache.close()
    held.release()
    assert leading.result() == "old"
    assert two.fetch("k", "new") == ("new", "miss")
    assert two.pauses == []


def test_async_load_under_way_when_its_cache_is_closed_is_stopped(async_world: World) -> None:
    """A coroutine is cancelled, and its caller is told why."""
    one, two = async_world.pair()
    held = one.held("old")
    leading = one.begin_read("k", held)
    held.wait_until_called()
    one.cache.close()
    assert type(leading.error()) is CacheClosed
    assert held.cancelled == 1
    assert two.fetch("k", "new") == ("new", "miss")
    assert two.pauses == []


def test_write_under_way_when_its_cache_is_closed_ends_like_any_other(one: Process, two: Process) -> None:
    """A block that ends after `close` lowers its fence all the same: others need not wait for that to expire."""
    two.read("k", "old")
    with one.writing("k", tags=["t"]):
        one.cache.close()
    two.keep_up()
    assert two.fetch("k", "new", tags=["t"]) == ("new", "miss")
    assert two.fetch("k", "newer", tags=["t"]) == ("new", "hit")


def test_closed_cache_refuses_every_write(one: Process) -> None:
    """After `close` nobody would deliver what is owed: every way of writing raises."""
    one.do("close")
    for name, arguments in {
        "set": ["k", 1],
        "set_many": [{"k": 1}],
        "invalidate": ["k"],
        "invalidate_tags": ["t"],
        "clear": [],
    }.items():
        with pytest.raises(CacheClosed):
            one.do(name, *arguments)
    with pytest.raises(CacheClosed), one.writing("k"):
        pytest.fail("the block was entered")


# Forking --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file_tier(tmp_path: Path) -> Iterator[SqliteTier]:
    """A tier that parent and child share."""
    tier = SqliteTier(str(tmp_path / "tier.db"))
    yield tier
    tier.close()


@forks
def test_child_is_a_process_of_its_own(file_tier: SqliteTier) -> None:
    """A forked child has its own sender, keeper and proof, holds nothing of the parent's, and shares its values."""
    with Cache[Any, Any](remote=file_tier) as cache:
        shared = cache._engine.state.shared
        assert shared is not None
        held, loader = HeldLoader("loaded"), CountingLoader("other")
        assert cache.get_or_load("k", lambda: "value") == "value"
        call = Call(lambda: cache.get_or_load("slow", held))
        held.wait_until_called()
        sender = shared.sender

        def child() -> list[object]:
            told: list[object] = [shared.sender == sender, cache.health().is_proved, list(shared.leases), keepers()]
            told += [str(cache.fetch("k", loader).status), cache.get_or_load("mine", lambda: "child's")]
            wait_until(lambda: cache.health().is_proved, "the child's keeper proves its memory")
            told += [cache.get("k"), len(keepers())]
            cache.invalidate("k")
            cache.close()
            return told

        with cache.writing("fenced"):
            answer = in_child(child)
        assert answer == repr([False, False, [], [], "shared", "child's", "value", 1])
        wait_until(lambda: cache.get("k") is None, "the child's news reach the parent")
        assert cache.get("mine") == "child's"
        held.release()
        assert call.result() == "loaded"
        wait_until(lambda: cache.fetch("slow", loader).status == "hit", "memory is proved, and has the value")
        assert loader.calls == 0


@forks
def test_fork_in_the_middle_of_an_exchange_leaves_the_child_free(tier: StagedTier) -> None:
    """A thread of the parent asks the tier, and others queue behind it: the child waits for none of them."""
    with Cache[Any, Any](remote=tier) as cache:
        hold = tier.hold(Get)
        first = Call(lambda: cache.get_or_load("k", lambda: "parent's"))
        hold.wait_until_reached()
        queued = [Call(lambda: cache.get("other")) for _ in range(3)]

        def child() -> list[object]:
            told = [cache.get_or_load("k", lambda: "child's"), cache.get("k"), asyncio.run(cache.aio.get("k"))]
            cache.close()
            return told

        assert in_child(child) == repr(["child's"] * 3)
        hold.release()
        assert first.result() == "parent's"
        assert [call.result() for call in queued] == [None] * 3


@forks
def test_child_owes_nothing_of_its_parent(tier: StagedTier) -> None:
    """What the parent owes, the parent delivers; the child begins with a tier that is there."""
    with Cache[Any, Any](remote=tier) as cache:
        cache.get("k")
        tier.is_away = True
        cache.invalidate("k")
        assert cache.health().owed == 1

        def child() -> tuple[object, ...]:
            tier.is_away = False
            health = cache.health()
            told = (health.owed, health.tier, cache.get_or_load("k", lambda: "child's"), tier.asked(Lease))
            cache.close()
            return told

        assert in_child(child) == repr((0, "up", "child's", 1))
        assert cache.health().owed == 1
        tier.is_away = False
        wait_until(lambda: not cache.health().owed, "the parent delivers")
        assert cache.health().tier == "up"


def test_events_of_the_keeper_are_told_where_they_happen(cache: Cache[Any, Any], tier: StagedTier) -> None:
    """Listeners hear of what the keeper finds out, in its thread."""
    told: list[tuple[EventKind, str]] = []
    cache.subscribe(lambda event: told.append((event.kind, threading.current_thread().name)))
    cache.get("k")
    wait_until(lambda: cache.health().is_proved, "the keeper has begun")
    tier.inner.forget_all()
    wait_until(lambda: (EventKind.RESYNCED, "credenza-keeper") in told, "the memory is emptied")
