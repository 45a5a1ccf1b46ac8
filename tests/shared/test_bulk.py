"""Rule L9 over processes: a bulk load asks for what nobody loads, and takes the rest from the tier or from others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.processes import Hold, Process, Records, Source, World, elsewhere
from tests.support.waiting import wait_until

from credenza import LoadTimeout, NotFound
from credenza.tiers.base import Fill, Get, Lease


class Batches:
    """A batch loader that keeps what it was asked for."""

    def __init__(self, *missing: str) -> None:
        self.asked: list[list[str]] = []
        self.missing = missing

    def __call__(self, keys: list[str]) -> dict[str, str]:
        self.asked.append(list(keys))
        return {key: f"value of {key}" for key in keys if key not in self.missing}


def values(*keys: str) -> dict[str, str]:
    """Return what the batch loader brings."""
    return {key: f"value of {key}" for key in keys}


def read(process: Process, keys: list[str], loader: Any, **options: Any) -> Any:
    """Return the values of the keys."""
    return process.do("get_or_load_many", keys, loader, **options)


# Round trips ----------------------------------------------------------------------------------------------------------


def test_many_keys_cost_as_many_round_trips_as_one(one: Process, two: Process) -> None:
    """A bulk miss is a look, one exchange for the leases and one for the fills; a bulk hit is one exchange."""
    keys = [f"k{number}" for number in range(20)]
    loader = Batches()
    one.tier.batches.clear()
    assert read(one, keys, loader) == values(*keys)
    assert [sum(isinstance(each, (Get, Lease, Fill)) for each in batch) for batch in one.tier.batches] == [20, 20, 20]
    two.tier.batches.clear()
    assert read(two, keys, loader) == values(*keys)
    assert len(two.tier.batches) == 1
    assert read(two, keys, loader) == values(*keys)
    assert len(two.tier.batches) == 1
    assert loader.asked == [keys]
    assert two.cache.stats().shared_hits == 20


def test_more_keys_than_one_round_trip_takes_are_read_all_the_same(one: Process, two: Process) -> None:
    """A thousand keys go in several exchanges; nothing is lost or mixed up."""
    keys = [f"k{number}" for number in range(1_000)]
    read(one, keys, Batches())
    assert read(two, keys, Batches(*keys)) == values(*keys)
    assert two.do("get_many", keys) == values(*keys)
    assert all(len(batch) <= 256 for batch in [*one.tier.batches, *two.tier.batches])


def test_loader_is_asked_only_for_what_no_tier_has(one: Process, two: Process) -> None:
    """What is in memory, and what is in the shared tier, is not loaded; the order is that of the call."""
    two.read("b", "value of b")
    one.read("c", "value of c")
    loader = Batches()
    assert list(read(one, ["a", "b", "c", "d", "a"], loader).items()) == list(values("a", "b", "c", "d").items())
    assert loader.asked == [["a", "d"]]


# Others that load -----------------------------------------------------------------------------------------------------


def test_keys_that_another_process_loads_are_waited_for(one: Process, two: Process) -> None:
    """1. B loads "b". 2. A asks for "a", "b", "c": it loads two of them, and waits for the third."""
    held = two.held("value of b")
    leading = two.begin_read("b", held)
    held.wait_until_called()
    one.at_pause = lambda number: number == 2 and (held.release(), leading.result())
    loader = Batches()
    assert read(one, ["a", "b", "c"], loader) == values("a", "b", "c")
    assert loader.asked == [["a", "c"]]
    assert one.has_in_memory("b")


def test_keys_whose_holder_was_killed_are_loaded_in_a_second_call(one: Process, world: World) -> None:
    """When the lease of another process expires, what it had leased is loaded, and nothing else again."""
    world.lease_elsewhere("b")
    loader = Batches()
    assert read(one, ["a", "b", "c"], loader) == values("a", "b", "c")
    assert loader.asked == [["a", "c"], ["b"]]


def test_two_bulk_loads_that_overlap_load_each_key_once(one: Process, two: Process) -> None:
    """Bulk loads of two processes share what both ask for, and neither waits for what it can load itself."""
    held = one.held(lambda number: values("a", "b"))
    first = one.begin("get_or_load_many", ["a", "b"], held)
    held.wait_until_called()
    two.at_pause = lambda number: number == 2 and (held.release(), first.result())
    loader = Batches()
    assert read(two, ["b", "c"], loader) == values("b", "c")
    assert first.result() == values("a", "b")
    assert loader.asked == [["c"]]


def test_single_and_bulk_callers_of_one_process_share_loads(one: Process, two: Process) -> None:
    """A single call joins the bulk load that waits for another process's load of its key."""
    hold = Hold()
    one.world.lease_elsewhere("b")
    one.at_pause = lambda number: hold
    loader = Batches()
    bulk = one.begin("get_or_load_many", ["b"], loader)
    hold.wait_until_reached()
    single = one.begin_read("b", lambda: "other")
    wait_until(lambda: one.state.flights["b"].waiters == 2, "the single call has joined")
    hold.release()
    assert (single.result(), bulk.result()) == ("value of b", values("b"))
    assert loader.asked == [["b"]]


def test_deadline_of_a_bulk_call_covers_the_wait_for_another_process(one: Process, world: World) -> None:
    """`timeout=` ends a bulk call that waits for somebody else's load; what it has loaded is kept."""
    hold = Hold()
    world.lease_elsewhere("b")
    world.may_leave_records = True
    one.at_pause = lambda number: hold
    loader = Batches()
    with pytest.raises(LoadTimeout):
        read(one, ["a", "b"], loader, timeout=0.03)
    hold.release()
    wait_until(lambda: not one.state.flights, "the load ends")
    assert one.fetch("a", "other") == ("value of a", "hit")


# What does not come ---------------------------------------------------------------------------------------------------


def test_keys_that_the_loader_leaves_out_are_not_found_and_not_leased(one: Process, two: Process) -> None:
    """Keys that are not in the mapping are left out of the result; nobody has to wait for their leases."""
    assert read(one, ["a", "b"], Batches("b")) == values("a")
    assert read(two, ["a", "b"], Batches()) == values("a", "b")
    assert two.pauses == []


def test_keys_that_are_not_found_are_remembered_by_every_process(world: World) -> None:
    """With `negative_ttl` the other process does not ask for them again."""
    one, two = world.pair(negative_ttl=10)
    read(one, ["a", "b"], Batches("b"))
    loader = Batches()
    assert read(two, ["a", "b"], loader) == values("a")
    with pytest.raises(NotFound):
        two.read("b", "other")
    assert loader.asked == []


@pytest.mark.parametrize("result", [OSError("no database"), None, "abc"], ids=repr)
def test_bulk_load_that_fails_gives_all_its_leases_back(one: Process, two: Process, result: Any) -> None:
    """An error, or a result that is no mapping, ends the load for all keys; another process loads at once."""

    def load(keys: list[str]) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises((OSError, TypeError)):
        read(one, ["a", "b"], load)
    loader = Batches()
    assert read(two, ["a", "b"], loader) == values("a", "b")
    assert two.pauses == []
    assert loader.asked == [["a", "b"]]


def test_bulk_load_of_which_a_part_is_overtaken_stores_the_rest(one: Process, two: Process) -> None:
    """Of a bulk load only the keys that were written meanwhile are refused."""
    one.tier.before(Fill, lambda: elsewhere(lambda: two.cache.invalidate("a")))
    assert read(one, ["a", "b"], Batches()) == values("a", "b")
    assert (one.has_in_memory("a"), one.has_in_memory("b")) == (False, True)
    assert two.do("get_many", ["a", "b"]) == values("b")


def test_bulk_load_of_which_a_part_is_fenced_stores_the_rest(one: Process, two: Process) -> None:
    """Keys that another process writes are loaded along, and not stored."""
    loader = Batches()
    with two.writing("a"):
        assert read(one, ["a", "b"], loader) == values("a", "b")
        assert (one.has_in_memory("a"), one.has_in_memory("b")) == (False, True)
    assert loader.asked == [["a", "b"]]
    assert two.fetch("a", "new") == ("new", "miss")


def test_bulk_load_without_the_tier_loads_everything_once(one: Process) -> None:
    """While the tier is away a bulk call is one call of the loader."""
    one.tier.is_away = True
    loader = Batches()
    assert read(one, ["a", "b"], loader) == values("a", "b")
    assert loader.asked == [["a", "b"]]


def test_bulk_load_takes_one_turn(one: Process) -> None:
    """A bulk load with leases of others before it takes one place among `max_concurrent_loads`, and gives it back."""
    one.world.lease_elsewhere("b")
    loader = Batches()
    assert read(one, ["a", "b"], loader, max_concurrent_loads=1) == values("a", "b")
    assert loader.asked == [["a"], ["b"]]
    assert one.read("c", "value", max_concurrent_loads=1) == "value"


def test_stale_values_of_many_keys_are_refreshed_behind_their_readers(world: World) -> None:
    """A bulk call gets the stale values at once; one load brings the new ones, for all processes."""
    one, two = world.pair(stale_while_revalidate=50)
    read(one, ["a", "b"], lambda keys: dict.fromkeys(keys, "old"))
    world.advance(101)
    loader = Batches()
    assert read(two, ["a", "b"], loader) == {"a": "old", "b": "old"}
    wait_until(lambda: not two.state.flights, "the refresh ends")
    assert loader.asked == [["a", "b"]]
    assert read(two, ["a", "b"], loader) == values("a", "b")
    assert read(one, ["a", "b"], loader) == values("a", "b")
    assert loader.asked == [["a", "b"]]


def test_source_that_loads_many_is_asked_for_what_is_missing(one: Process, two: Process) -> None:
    """The bulk reads of repositories follow the same rules."""
    source = Source()
    source.records.update(values("a", "b", "c"))
    here, there = Records(one, source), Records(two, source)
    assert here.get_many(["a", "b"]) == values("a", "b")
    assert there.get_many(["a", "b", "c"]) == values("a", "b", "c")
    assert source.loads == 2
