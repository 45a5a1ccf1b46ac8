"""`get` and `get_many` without a memory tier take a shorter way to the value: it leads where the long one does."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from tests.support.processes import TTL, Process, World

from credenza.errors import NotFound
from credenza.events import EventKind
from credenza.flow.glance import Glance
from credenza.tiers.base import VALUE_HEADER_BYTES, Announce, Drop, Get, OpenTag, ReadHead


@pytest.fixture
def one(world: World) -> Process:
    """A process without a memory tier, whose keeper has read the log."""
    return world.process(maxsize=0, stale_if_error=TTL)


@pytest.fixture
def two(world: World, one: Process) -> Process:
    """Another one beside it."""
    return world.process(maxsize=0, stale_if_error=TTL)


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the short way where it can be taken, or the long one always."""
    if request.param == "long":
        monkeypatch.setattr(Glance, "knowledge", lambda self: None)
    return str(request.param)


def seen(process: Process) -> tuple[Any, Any]:
    """Return what `get` and `get_many` find, which is the same."""
    found = process.do("get_many", ["k", "j"])
    assert process.do("get", "k") == found.get("k")
    return found.get("k"), found.get("j")


def test_hit_is_one_look_up_and_nothing_else(one: Process, two: Process) -> None:
    """One round trip with the record alone; many keys, one round trip."""
    two.do("set_many", {"k": {"name": "Ann"}, "j": None})
    one.tier.batches.clear()
    assert one.do("get", "k") == {"name": "Ann"}
    assert one.do("get_many", ["k", "j", "none"]) == {"k": {"name": "Ann"}, "j": None}
    assert [[type(operation) for operation in batch] for batch in one.tier.batches] == [[Get], [Get] * 3]
    stats = one.cache.stats()
    assert (stats.shared_hits, stats.misses, stats.loads) == (3, 1, 0)


def test_value_past_its_ttl_is_none(one: Process, two: Process, world: World, way: str) -> None:
    """What is kept for the stale windows only is no hit of `get`."""
    two.do("set", "k", "value")
    world.advance(TTL - 1)
    assert seen(one) == ("value", None)
    world.advance(2)
    assert world.record("k")[:1] == b"V"
    assert seen(one) == (None, None)


def test_remembered_absence_is_none(world: World, way: str) -> None:
    """With `negative_ttl` the tier remembers that there is no such record; that is no value."""
    one, two = world.pair(maxsize=0, negative_ttl=10)

    def none() -> str:
        raise NotFound("no such record")

    with pytest.raises(NotFound):
        two.read("k", none)
    assert world.record("k")[:1] == b"V"
    assert seen(one) == (None, None)
    assert one.do("get", "k", default="default") == "default"


def test_value_with_a_tag_is_judged_by_it(one: Process, two: Process, way: str) -> None:
    """It is a hit until the tag is invalidated, by whomever, and none after that."""
    two.do("set", "k", "value", tags=["t"])
    assert seen(one) == ("value", None)
    two.do("invalidate_tags", "t")
    assert seen(one) == (None, None)


def test_value_that_was_cleared_is_none(one: Process, two: Process, way: str) -> None:
    """For the process that cleared at once, for others when they have read the log."""
    two.do("set", "k", "value")
    assert seen(one) == ("value", None)
    two.do("clear")
    assert seen(two) == (None, None)
    one.keep_up()
    assert seen(one) == (None, None)


def test_value_of_a_head_that_was_lost_is_none(one: Process, two: Process, world: World, way: str) -> None:
    """Nobody knows what was cleared before the tier lost its memory."""
    two.do("set", "k", "value")
    kept = dict(world.tier.shelf.held)
    world.tier.forget_all()
    world.tier.shelf.held.update(kept)
    one.keep_up()
    assert seen(one) == (None, None)


def test_value_is_none_inside_a_fence_of_this_process(world: World, way: str) -> None:
    """At a level whose fences other processes do not see, too."""
    one = world.process(maxsize=0, coherence="invalidate")
    one.do("set_many", {"k": "old", "j": "other"})
    with one.writing("k"):
        assert world.record("k")[:1] == b"V"
        assert seen(one) == (None, "other")
    assert seen(one) == (None, "other")


def test_value_whose_invalidation_is_owed_is_none(one: Process, world: World, way: str) -> None:
    """The tier still has it, and this process knows better."""
    one.do("set_many", {"k": "old", "j": "other"})
    one.tier.refused = (Drop, Announce)
    one.do("invalidate", "k")
    assert world.record("k")[:1] == b"V"
    assert seen(one) == (None, "other")
    one.tier.refused = ()
    one.keep_up()
    assert one.cache.health().owed == 0


@pytest.mark.parametrize("damage", ["payload", "name", "version", "short", "foreign"])
def test_record_that_is_not_exactly_right_is_none(
    one: Process, two: Process, world: World, damage: str, way: str
) -> None:
    """A flipped bit, the record of another name, another version, half of it, rubbish: a miss and an event."""
    two.do("set_many", {"k": "value", "j": "other"})
    held = world.tier.shelf.held
    record, expires_ms = held[world.name("k")]
    damaged = {
        "payload": record[:-1] + bytes([record[-1] ^ 1]),
        "name": held[world.name("j")][0],
        "version": record[: VALUE_HEADER_BYTES + 2] + b"\2" + record[VALUE_HEADER_BYTES + 3 :],
        "short": record[:60],
        "foreign": b"rubbish",
    }[damage]
    held[world.name("k")] = (damaged, expires_ms)
    assert one.do("get", "k") is None
    assert one.do("get_many", ["k", "j"]) == {"j": "other"}
    assert [event.key for event in one.told(EventKind.UNREADABLE)] == ["k", "k"]


def test_what_is_being_loaded_or_written_elsewhere_is_none(one: Process, two: Process, world: World, way: str) -> None:
    """A lease and a fence are no values, and nothing to complain of."""
    world.lease_elsewhere("k")
    with two.writing("j"):
        assert seen(one) == (None, None)
    assert one.told(EventKind.UNREADABLE) == []
    world.tier.shelf.forget(world.name("k"))


def test_head_is_asked_for_where_it_is_not_known(one: Process, two: Process) -> None:
    """Without a proof what is known of the head is too old, and comes with the record."""
    two.do("set", "k", "value")
    one.clock_stops_proving()
    one.tier.batches.clear()
    assert one.do("get", "k") == "value"
    assert one.tier.asked(ReadHead) == 1


def test_copies_are_handed_out_where_they_are_asked_for(world: World, way: str) -> None:
    """`copy=` holds for what comes from the tier."""
    copies = []
    one = world.process(maxsize=0, copy=lambda value: copies.append(value) or deepcopy(value))
    one.do("set", "k", ["value"])
    assert seen(one) == (["value"], None)
    assert copies == [["value"]] * 2


@pytest.mark.parametrize("error", [None, ZeroDivisionError("nobody thought of this")], ids=["away", "fault"])
def test_tier_that_fails_is_a_miss(one: Process, two: Process, error: Exception | None, way: str) -> None:
    """No reader suffers for the tier, whatever it raises (E1)."""

    def fail() -> None:
        assert error is not None
        raise error

    two.do("set", "k", "value")
    if error is None:
        one.tier.lose_request(Get)
    else:
        one.tier.before(Get, fail)
    assert one.do("get", "k") is None
    assert one.cache.health().tier == "away"
    assert one.do("get_many", ["k"]) == {}


def test_tags_are_asked_for_once_for_many_values(one: Process, two: Process) -> None:
    """A hundred values that carry the same tags cost the records' round trip and one for the tags."""
    keys = [f"key {number}" for number in range(100)]
    two.do("set_many", dict.fromkeys(keys, "value"), tags=["t", "u"])
    one.tier.batches.clear()
    assert len(one.do("get_many", keys)) == 100
    assert one.tier.asked(OpenTag) == 2
    assert len(one.tier.batches) <= 3
