"""Rule L1 over processes: one load, whoever asks; the others take its value from the shared tier."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.processes import LEASE_SECONDS, Hold, Process, World
from tests.support.waiting import wait_for_callers, wait_until

from credenza import CacheClosed, LoadTimeout
from credenza.testing import CountingLoader
from credenza.tiers.base import Get, Lease, Renew


def test_value_of_another_process_is_shared(one: Process, two: Process) -> None:
    """What one process has loaded the other gets from the tier, and after that from its own memory."""
    loader = CountingLoader("value")
    assert one.fetch("k", loader) == ("value", "miss")
    assert one.fetch("k", loader) == ("value", "hit")
    assert two.fetch("k", loader) == ("value", "shared")
    assert two.fetch("k", loader) == ("value", "hit")
    assert loader.calls == 1
    stats = two.cache.stats()
    assert (stats.shared_hits, stats.hits, stats.misses, stats.loads) == (1, 1, 0, 0)


def test_shared_hit_costs_one_round_trip(one: Process, two: Process) -> None:
    """A miss takes a look, a lease and a fill; a shared hit one exchange; a hit in memory none."""
    one.tier.batches.clear()
    two.tier.batches.clear()
    one.read("k", "value")
    assert len(one.tier.batches) == 3
    two.read("k", "value")
    assert len(two.tier.batches) == 1
    two.read("k", "value")
    assert len(two.tier.batches) == 1


def test_crowd_in_two_processes_loads_once(one: Process, two: Process) -> None:
    """Callers of a cold key in two processes at once cost the source one load."""
    first, second = one.held("value"), two.held("other")
    calls = [one.begin_read("k", first) for _ in range(5)]
    wait_for_callers(one.cache, "k", 5)
    first.wait_until_called()
    two.at_pause = lambda number: number == 3 and (first.release(), calls[0].result())
    calls += [two.begin_read("k", second) for _ in range(5)]
    second.release()
    assert [call.result() for call in calls] == ["value"] * 10
    assert (first.calls, second.calls) == (1, 0)


def test_waiting_process_gets_what_the_other_has_loaded(one: Process, two: Process) -> None:
    """A process that finds somebody else's lease waits, asks again, and is served from the tier."""
    held = one.held("value")
    leading = one.begin_read("k", held)
    held.wait_until_called()
    two.at_pause = lambda number: number == 2 and (held.release(), leading.result())
    loader = CountingLoader("other")
    assert two.fetch("k", loader) == ("value", "shared")
    assert loader.calls == 0
    assert len(two.pauses) == 2


def test_pauses_of_a_waiting_process_grow(one: Process, world: World) -> None:
    """Who waits for another process's load asks soon at first, and more seldom later, for 25 ms at most."""
    world.lease_elsewhere("k")
    one.read("k", "value")
    assert one.pauses[:3] == [1_000_000, 2_000_000, 4_000_000]
    assert max(one.pauses) == 25_000_000


def test_killed_holder_costs_one_further_load(one: Process, two: Process, world: World) -> None:
    """When the process that loads is killed, its lease expires, and one of those that wait loads."""
    world.lease_elsewhere("k")
    loader = CountingLoader("value")
    began = world.clock()
    assert one.fetch("k", loader) == ("value", "miss")
    assert LEASE_SECONDS <= world.clock() - began < LEASE_SECONDS + 0.1
    assert two.fetch("k", loader) == ("value", "shared")
    assert loader.calls == 1


def test_lease_is_renewed_while_its_load_runs(one: Process, two: Process, world: World) -> None:
    """A load that takes longer than a lease lives keeps it, since the keeper renews it; the fill is taken."""
    held = one.held("value")
    leading = one.begin_read("k", held)
    held.wait_until_called()
    world.advance(3 * LEASE_SECONDS)
    assert one.tier.asked(Renew) >= 3
    held.release()
    assert leading.result() == "value"
    assert two.fetch("k", "other") == ("value", "shared")


def test_lease_that_expired_stores_nothing(one: Process, two: Process, world: World) -> None:
    """A load whose process was paused beyond its lease is not stored, and its leader still gets the value."""
    held = one.held("old")
    leading = one.begin_read("k", held)
    held.wait_until_called()
    world.clock.advance(LEASE_SECONDS + 0.001)
    assert two.read("k", "new") == "new"
    held.release()
    assert leading.result() == "old"
    assert not one.has_in_memory("k")
    assert one.read("k", "newer") == "new"


def test_lease_that_expired_unnoticed_stores_nothing(one: Process, world: World) -> None:
    """The same when nobody took the lease meanwhile: the tier has forgotten it, and refuses the fill."""

    def load() -> str:
        world.clock.advance(LEASE_SECONDS + 0.001)
        return "old"

    assert one.read("k", load) == "old"
    assert world.record("k") == b""
    assert not one.has_in_memory("k")


def test_value_that_came_meanwhile_is_found_by_the_lease(one: Process, two: Process) -> None:
    """A value that another process stores between the look-up and the lease is served, and nothing is loaded."""
    loader = CountingLoader("other")
    two.tier.after(Get, lambda: one.read("k", "value") if one.is_async else one.cache.get_or_load("k", lambda: "value"))
    assert two.fetch("k", loader) == ("value", "shared")
    assert loader.calls == 0
    assert two.tier.asked(Lease) == 1
    assert two.fetch("k", loader) == ("value", "hit")


# Leaving --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(world: World) -> Iterator[tuple[Process, Hold]]:
    """A process that waits for another one's load; the hold lets it go on. Nobody is to wait for it in the end."""
    process, hold = world.process(), Hold()
    world.lease_elsewhere("k")
    world.may_leave_records = True
    process.at_pause = lambda number: hold if number > 2 else None
    yield process, hold
    hold.release()
    wait_until(lambda: not process.state.flights, "the wait ends")


def test_caller_with_a_deadline_leaves_while_another_process_loads(waiting: tuple[Process, Hold]) -> None:
    """`timeout=` covers the wait for another process's load, which ends when its last caller has left."""
    process, hold = waiting
    loader = CountingLoader("value")
    with pytest.raises(LoadTimeout):
        process.do("get_or_load", "k", loader, timeout=0.02)
    hold.release()
    wait_until(lambda: not process.state.flights, "the wait ends")
    assert loader.calls == 0
    assert len(process.pauses) == 3


def test_callers_that_stay_do_not_notice_who_leaves(waiting: tuple[Process, Hold], world: World) -> None:
    """Of those who wait for another process's load one leaves at its deadline; the others get the value."""
    process, hold = waiting
    loader = CountingLoader("value")
    staying = process.begin_read("k", loader)
    hold.wait_until_reached()
    with pytest.raises(LoadTimeout):
        process.do("get_or_load", "k", loader, timeout=0.02)
    hold.release()
    assert staying.result() == "value"
    assert loader.calls == 1


def test_load_timeout_ends_the_wait_for_another_process(waiting: tuple[Process, Hold]) -> None:
    """`load_timeout` counts the wait for another process's load, and ends it for everybody."""
    process, hold = waiting
    loader = CountingLoader("value")
    calls = [process.begin("get_or_load", "k", loader, load_timeout=0.05) for _ in range(2)]
    assert [type(call.error()) for call in calls] == [LoadTimeout] * 2
    hold.release()
    wait_until(lambda: not process.state.flights, "the wait ends")
    assert loader.calls == 0


def test_cancelled_caller_leaves_the_wait_for_another_process(async_world: World) -> None:
    """A task that is cancelled while it waits for another process's load ends at once, and its load soon after."""
    process, hold = async_world.process(), Hold()
    async_world.lease_elsewhere("k")
    async_world.may_leave_records = True
    process.at_pause = lambda number: hold
    loader = CountingLoader("value")
    call = process.begin_read("k", loader)
    hold.wait_until_reached()
    call.cancel()
    wait_until(lambda: call.is_done, "the task ends")
    hold.release()
    wait_until(lambda: not process.state.flights, "the wait ends")
    assert loader.calls == 0


def test_cancelled_load_gives_its_lease_back(async_world: World) -> None:
    """When the last caller of an async load leaves, the load is cancelled, and another process loads at once."""
    one, two = async_world.pair()
    held = one.held()
    call = one.begin_read("k", held)
    held.wait_until_called()
    call.cancel()
    wait_until(lambda: not async_world.record("k"), "the lease is given back")
    assert two.fetch("k", "value") == ("value", "miss")
    assert two.pauses == []
    assert held.cancelled == 1


def test_closing_a_cache_ends_its_wait_for_another_process(world: World) -> None:
    """A cache that is closed while it waits for another process's load tells its callers so."""
    process, hold = world.process(), Hold()
    world.lease_elsewhere("k")
    world.may_leave_records = True
    process.at_pause = lambda number: hold
    loader = CountingLoader("value")
    call = process.begin_read("k", loader)
    hold.wait_until_reached()
    process.cache.close()
    hold.release()
    assert type(call.error()) is CacheClosed
    assert loader.calls == 0


# Errors ---------------------------------------------------------------------------------------------------------------


def test_failed_load_gives_its_lease_back(one: Process, two: Process) -> None:
    """A load that fails stores nothing, and the next process need not wait: it loads at once."""
    with pytest.raises(OSError, match="no database"):
        one.read("k", CountingLoader("value", error=OSError("no database")))
    assert two.fetch("k", "value") == ("value", "miss")
    assert two.pauses == []
    assert one.fetch("k", "other") == ("value", "shared")


def test_error_reaches_all_waiters_of_its_process_and_nobody_else(one: Process, two: Process) -> None:
    """Waiters share the leader's error (L2); another process that waits loads for itself."""
    held = one.held(OSError("no database"))
    calls = [one.begin_read("k", held) for _ in range(3)]
    wait_for_callers(one.cache, "k", 3)
    held.wait_until_called()
    two.at_pause = lambda number: number == 2 and (held.release(), [call.error() for call in calls])
    assert two.fetch("k", "value") == ("value", "miss")
    assert [str(call.error()) for call in calls] == ["no database"] * 3
    assert len(two.pauses) == 2


def test_error_that_concerns_its_leader_alone_gives_the_lease_back(sync_world: World) -> None:
    """A load that is interrupted leaves no lease behind."""
    one, two = sync_world.pair()
    with pytest.raises(KeyboardInterrupt):
        one.cache.get_or_load("k", CountingLoader("value", error=KeyboardInterrupt()))
    assert two.fetch("k", "value") == ("value", "miss")
    assert two.pauses == []


# Limits ---------------------------------------------------------------------------------------------------------------


def test_limit_of_loads_holds_over_leases(one: Process) -> None:
    """With `max_concurrent_loads` a load queues for its turn with its lease in hand, and gives the place back."""
    held = one.held(lambda number: number)
    calls = [one.begin("get_or_load", f"k{i}", held, max_concurrent_loads=1) for i in range(3)]
    held.wait_until_called()
    wait_until(lambda: len(one.shared.leases) == 3, "all have their leases")
    assert held.calls == 1
    held.release()
    assert sorted(call.result() for call in calls) == [1, 2, 3]


def test_load_that_gave_up_queueing_gives_its_lease_back(one: Process, two: Process, world: World) -> None:
    """A load whose last caller left while it queued for its turn gives the lease back."""
    held = one.held()
    first = one.begin("get_or_load", "a", held, max_concurrent_loads=1)
    held.wait_until_called()
    with pytest.raises(LoadTimeout):
        one.do("get_or_load", "b", held, max_concurrent_loads=1, timeout=0.02)
    held.release()
    assert first.result() == "value"
    wait_until(lambda: not world.record("b"), "the lease is given back")
    assert two.fetch("b", "value") == ("value", "miss")
    assert two.pauses == []
    assert held.calls == 1
