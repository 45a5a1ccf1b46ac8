"""Tags and `clear` over processes: rules I2 and I4."""

from __future__ import annotations

import pytest
from tests.support.processes import FENCE_SECONDS, TTL, Process, World, elsewhere

from credenza import Loaded
from credenza.testing import CountingLoader
from credenza.tiers.base import Announce, Fill, Get, Lease, MarkTag, OpenTag, ReadHead, Stamp


def tag_name(world: World, tag: str) -> bytes:
    """Return the name of a tag's record."""
    return f"{world.tier.namespace}#{tag}".encode()


# Invalidating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [["t"], ["a", "t", "b"], ["ä: #\n"], ["t" * 300]], ids=str)
def test_invalidated_tag_reaches_every_process(one: Process, two: Process, world: World, tags: list[str]) -> None:
    """Values that carry an invalidated tag are dead for processes that hold them and for those that never saw them."""
    one.read("k", "old", tags=tags)
    one.read("other", "other", tags=["u"])
    two.do("invalidate_tags", tags[-1] if len(tags) == 1 else "t")
    three = world.process()
    assert three.fetch("k", "new", tags=tags) == ("new", "miss")
    assert three.fetch("other", "new", tags=["u"]) == ("other", "shared")
    one.keep_up()
    assert one.fetch("k", "newer", tags=tags) == ("new", "shared")


def test_reader_that_names_no_tags_is_held_to_those_of_the_value(one: Process, two: Process, world: World) -> None:
    """Tags travel with the value: a reader that does not know them does not get what they have invalidated."""
    one.read("k", "old", tags=["t"])
    assert two.fetch("k", "new") == ("old", "shared")
    one.do("invalidate_tags", "t")
    two.keep_up()
    assert not two.has_in_memory("k")
    three = world.process()
    assert three.do("get", "k") is None
    assert three.fetch("k", "new") == ("new", "miss")


def test_tags_that_the_loader_decided_on_travel_with_the_value(one: Process, two: Process) -> None:
    """`Loaded(tags=...)` counts like `tags=`, in other processes too."""
    one.read("k", lambda: Loaded("old", tags=["t"]))
    assert two.fetch("k", "new") == ("old", "shared")
    one.do("invalidate_tags", "t")
    two.keep_up()
    assert two.fetch("k", "new") == ("new", "miss")


@pytest.mark.parametrize("write", ["invalidate_tags", "writing"])
def test_tag_that_is_invalidated_while_its_value_loads_refuses_it(one: Process, two: Process, write: str) -> None:
    """A load that turns out to carry a tag is not stored if the tag was invalidated since it began."""

    def load() -> Loaded[str]:
        if write == "writing":
            with two.cache.writing(tags=["t"]):
                pass
        else:
            two.cache.invalidate_tags("t")
        return Loaded("old", tags=["t"])

    assert one.read("k", lambda: elsewhere(load)) == "old"
    assert not one.has_in_memory("k")
    assert two.fetch("k", "new") == ("new", "miss")


def test_tag_that_was_invalidated_before_the_load_refuses_nothing(one: Process, two: Process) -> None:
    """A tag's own past does not matter to what was loaded after it."""
    two.do("invalidate_tags", "t")
    one.read("k", lambda: Loaded("value", tags=["t"]))
    assert two.fetch("k", "other") == ("value", "shared")
    assert two.fetch("k", "other") == ("value", "hit")


def test_value_that_was_set_carries_its_tags(one: Process, two: Process) -> None:
    """`set(..., tags=)` binds the value to its tags in every process."""
    one.do("set", "k", "old", tags=["t"])
    assert two.fetch("k", "new") == ("old", "shared")
    two.do("invalidate_tags", "t")
    assert two.do("get", "k") is None
    one.keep_up()
    assert one.do("get", "k") is None


def test_invalidating_a_tag_costs_the_same_however_many_carry_it(one: Process, two: Process) -> None:
    """I4: a look at the head, then one mark and one announcement."""
    one.do("set_many", {f"k{i}": i for i in range(50)}, tags=["t"])
    one.tier.batches.clear()
    one.do("invalidate_tags", "t")
    assert [[type(operation) for operation in batch] for batch in one.tier.batches] == [[ReadHead], [MarkTag, Announce]]
    two.keep_up()
    assert two.do("get_many", [f"k{i}" for i in range(50)]) == {}


# What is remembered of tags -------------------------------------------------------------------------------------------


def test_tags_are_asked_for_once(one: Process, two: Process) -> None:
    """The first value with an unknown tag costs one more round trip; after that its stamp is remembered."""
    for key in "abc":
        one.read(key, key, tags=["t"])
    two.tier.batches.clear()
    assert [two.fetch(key, "other") for key in "abc"] == [("a", "shared"), ("b", "shared"), ("c", "shared")]
    assert [len(batch) for batch in two.tier.batches] == [1, 1, 1, 1]
    assert two.tier.asked(OpenTag) == 1


def test_stamp_that_news_overtake_is_not_remembered(one: Process, two: Process) -> None:
    """1. B asks for a tag's stamp. 2. A invalidates the tag, and B reads the news. 3. The stamp arrives: it is old."""
    one.read("a", "old", tags=["t"])
    one.read("b", "old", tags=["t"])

    def invalidate() -> None:
        one.cache.invalidate_tags("t")
        two.keep_up()

    two.tier.after(OpenTag, lambda: elsewhere(invalidate))
    assert two.read("a", "new") in ("old", "new")
    assert two.fetch("b", "new") == ("new", "miss")
    assert two.fetch("a", "new")[0] == "new"


def test_tag_is_marked_before_others_are_told(one: Process, two: Process) -> None:
    """1. A invalidates a tag. 2. B reads the news, then a value that carries it. 3. A's call returns: B has nothing old."""
    one.read("k", "old", tags=["t"])

    def look() -> None:
        two.keep_up()
        two.read("k", "new")

    one.tier.after(Announce, lambda: elsewhere(look))
    one.do("invalidate_tags", "t")
    assert two.fetch("k", "new") == ("new", "hit")


def test_remembered_stamps_go_with_the_proof(one: Process, two: Process, world: World) -> None:
    """A process that was paused knows nothing of tags any more, and asks again."""
    one.read("a", "old", tags=["t"])
    one.read("b", "old", tags=["t"])
    assert two.read("a", "new") == "old"
    one.do("invalidate_tags", "t")
    world.clock.advance(1.0)
    assert two.fetch("b", "new") == ("new", "miss")
    assert two.fetch("a", "new") == ("new", "miss")


def test_values_whose_tag_record_was_evicted_are_dead(one: Process, world: World) -> None:
    """A tag without a record may have been invalidated: nothing that carries it is current, and new values are."""
    one.read("k", "old", tags=["t"])
    one.do("invalidate", "something else")
    world.tier.shelf.forget(tag_name(world, "t"))
    two = world.process()
    assert two.fetch("k", "new", tags=["t"]) == ("new", "miss")
    three = world.process()
    assert three.fetch("k", "newer", tags=["t"]) == ("new", "shared")


def test_invalidated_tag_whose_record_was_evicted_stays_invalid(one: Process, world: World) -> None:
    """An eviction between an invalidation and a look does not bring old values back."""
    one.read("k", "old", tags=["t"])
    one.do("invalidate_tags", "t")
    world.tier.shelf.forget(tag_name(world, "t"))
    two = world.process()
    assert two.fetch("k", "new") == ("new", "miss")


# Fences around tags ---------------------------------------------------------------------------------------------------


def test_nothing_is_shared_while_its_tag_is_written(one: Process, two: Process) -> None:
    """Inside `writing(tags=...)` values with the tag are neither served from the tier nor stored, in any process."""
    two.read("k", "old", tags=["t"])
    loader = CountingLoader("uncommitted")
    with one.writing(tags=["t"]):
        two.keep_up()
        for process in (one, two, one, two):
            assert process.read("k", loader, tags=["t"]) == "uncommitted"
            assert not process.has_in_memory("k")
    assert loader.calls == 4
    assert two.fetch("k", "new", tags=["t"])[0] == "new"


def test_value_that_turns_out_to_carry_a_tag_that_is_written_is_not_shared(one: Process, two: Process) -> None:
    """The same for tags from `Loaded`: the load is not stored, since the write has not ended."""
    with one.writing(tags=["t"]):
        two.keep_up()
        assert two.read("k", lambda: Loaded("uncommitted", tags=["t"])) == "uncommitted"
        assert not two.has_in_memory("k")
        assert two.read("k", lambda: Loaded("uncommitted", tags=["t"])) == "uncommitted"
    assert two.fetch("k", lambda: Loaded("new", tags=["t"]))[0] == "new"


def test_other_values_are_shared_while_a_tag_is_written(one: Process, two: Process) -> None:
    """A fence around a tag concerns nothing that does not carry it."""
    with one.writing(tags=["t"]):
        two.keep_up()
        two.read("other", "value", tags=["u"])
        assert one.fetch("other", "other", tags=["u"]) == ("value", "shared")


def test_overlapping_writes_of_a_tag_fence_it_until_the_last_has_ended(
    one: Process, two: Process, world: World
) -> None:
    """Writers of several processes share a tag's fence; it falls with the last one."""
    three = world.process()
    with one.writing(tags=["t"]):
        with two.writing(tags=["t"]):
            pass
        three.keep_up()
        assert three.fetch("k", "uncommitted", tags=["t"])[0] == "uncommitted"
        assert not three.has_in_memory("k")
    assert three.fetch("k", "new", tags=["t"])[0] == "new"


def test_values_can_be_shared_again_after_a_tag_was_written(one: Process, two: Process, world: World) -> None:
    """When the write of a tag has ended, what is loaded after it is shared and kept as before."""
    with one.writing(tags=["t"]):
        pass
    world.keep_up()
    assert one.fetch("k", "value", tags=["t"]) == ("value", "miss")
    assert one.fetch("k", "other", tags=["t"]) == ("value", "hit")
    assert two.fetch("k", "other", tags=["t"]) == ("value", "shared")


def test_load_that_ends_after_the_write_of_its_tag_is_not_stored(one: Process, two: Process) -> None:
    """1. B loads. 2. A writes the tag, from the fence to its fall. 3. B's fill comes, with the old value."""

    def write() -> None:
        with one.cache.writing(tags=["t"]):
            pass

    two.tier.before(Fill, lambda: elsewhere(write))
    assert two.read("k", "old", tags=["t"]) == "old"
    assert not two.has_in_memory("k")
    assert one.fetch("k", "new", tags=["t"]) == ("new", "miss")


def kill_writer_of(world: World, tag: str) -> None:
    """Leave the fence of a writer behind that was killed."""
    name = tag_name(world, tag)
    head = world.tier.perform([ReadHead(b"another.")], 1)[0]
    killed = MarkTag(
        name, Stamp(head.epoch, head.sequence + 1), joins=b"somebody else's.", life_ms=int(FENCE_SECONDS * 1_000)
    )
    world.tier.perform([killed, Announce(b"another.", b"somebody", (), (name,))], 1)


def test_fence_of_a_killed_writer_of_a_tag_expires(one: Process, world: World) -> None:
    """A writer that is killed leaves its fence, which expires; values that carry the tag are shared again after that."""
    kill_writer_of(world, "t")
    one.keep_up()
    assert one.read("k", "uncommitted", tags=["t"]) == "uncommitted"
    assert not one.has_in_memory("k")
    world.advance(FENCE_SECONDS)
    assert one.read("k", "value", tags=["t"]) == "value"
    assert one.fetch("k", "other", tags=["t"]) == ("value", "hit")


def test_value_that_was_loaded_behind_the_fence_of_a_killed_writer_stays_dead(
    one: Process, two: Process, world: World
) -> None:
    """1. W fences the tag. 2. A loads the old value, whose tag it learns from the value, and fills. 3. W commits and is killed.

    4. The fence expires: the stamp that it left is no later than that of the old value, which must not become current.
    """
    kill_writer_of(world, "t")
    world.keep_up()
    assert one.read("k", Loaded("old", tags=["t"])) == "old"
    assert world.record("k")[:1] == b"V"
    world.advance(FENCE_SECONDS)
    assert two.read("k", "new") == "new"
    assert one.read("k", "new") == "new"


@pytest.mark.parametrize("maxsize", [0, 100])
def test_values_are_shared_again_though_only_they_bring_the_tag_of_a_killed_writer(world: World, maxsize: int) -> None:
    """Who meets such a tag in a value, or when it fills one, marks it anew: it does not stay unusable."""
    one, two = world.pair(maxsize=maxsize)
    assert one.read("k", Loaded("old", tags=["t"])) == "old"
    kill_writer_of(world, "t")
    world.advance(FENCE_SECONDS)
    loads = [two.fetch("k", Loaded("value", tags=["t"])) for _ in range(4)]
    assert loads[-1][1] == ("hit" if maxsize else "shared")


def test_tag_of_a_killed_writer_is_marked_anew_by_who_fills(one: Process, two: Process, world: World) -> None:
    """A load that brings the tag is not kept, and the next one is."""
    kill_writer_of(world, "t")
    world.advance(FENCE_SECONDS)
    assert one.read("k", Loaded("first", tags=["t"])) == "first"
    assert two.read("k", Loaded("second", tags=["t"])) == "second"
    assert one.read("k", "third") == "second"


def test_tag_of_a_killed_writer_is_marked_anew_by_who_only_reads(world: World) -> None:
    """Where nobody loads, a value that was set after the fence expired is shared again, too."""
    one, two = world.pair(maxsize=0)
    one.do("set", "k", "old", tags=["t"])
    kill_writer_of(world, "t")
    world.advance(FENCE_SECONDS)
    assert two.do("get", "k") is None
    world.keep_up()
    one.do("set", "k", "value", tags=["t"])
    assert two.do("get", "k") == "value"


# Clear ----------------------------------------------------------------------------------------------------------------


def test_clear_reaches_every_process(one: Process, two: Process, world: World) -> None:
    """What was stored before `clear` is dead for processes that hold it and for those that never saw it."""
    for key in "ab":
        one.read(key, "old", tags=["t"])
        two.read(key, "other")
    two.do("clear")
    three = world.process()
    assert three.do("get_many", ["a", "b"]) == {}
    assert three.fetch("a", "new") == ("new", "miss")
    one.keep_up()
    assert len(one.cache) == 0
    assert one.fetch("a", "newer") == ("new", "shared")
    assert one.fetch("b", "new") == ("new", "miss")


def test_clear_costs_one_round_trip(one: Process) -> None:
    """However much there is, `clear` is one announcement."""
    one.do("set_many", dict.fromkeys("abcdef", 1))
    one.tier.batches.clear()
    one.do("clear")
    assert [[type(operation) for operation in batch] for batch in one.tier.batches] == [[Announce]]


def test_record_that_was_cleared_gives_way_to_a_new_load(one: Process, two: Process, world: World) -> None:
    """A dead value in the tier does not stand in the way of the lease of whoever finds it dead."""
    one.do("set", "k", "old")
    two.keep_up()
    two.do("clear")
    loader = CountingLoader("new")
    assert two.fetch("k", loader) == ("new", "miss")
    assert loader.calls == 1
    assert two.pauses == []
    world.advance(TTL / 2)
    assert two.fetch("k", loader) == ("new", "hit")
    assert one.fetch("k", loader) == ("new", "shared")


def test_value_that_came_before_the_clear_is_not_met_by_a_lease(one: Process, two: Process) -> None:
    """1. B looks: nothing. 2. A stores a value, and clears. 3. B asks for the lease, and loads."""

    def store_and_clear() -> None:
        one.cache.set("k", "old")
        one.cache.clear()

    two.tier.before(Lease, lambda: elsewhere(store_and_clear))
    assert two.fetch("k", "new") == ("new", "miss")
    assert two.tier.asked(Get) == 1
