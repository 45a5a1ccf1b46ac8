"""Values over processes: their types, what cannot travel, what cannot be read; and a cache without a memory tier."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.processes import Process, Records, Source, World, elsewhere

from credenza import Cache, Codec, ConfigurationError, Loaded, WriteThrough
from credenza.events import EventKind
from credenza.testing import CountingLoader, DictTier
from credenza.tiers.base import Announce, Get, Put


@dataclass(frozen=True)
class User:
    """A value with a type."""

    name: str
    age: int


@dataclass(frozen=True)
class Person:
    """Another one with the same fields."""

    name: str
    age: int


class Unknown:
    """A class that no codec knows."""


ANN = User("Ann", 42)


def load_user() -> User:
    """Return a user, as the annotation says."""
    return ANN


def load_wrapped() -> Loaded[User]:
    """Return a user with its ttl."""
    return Loaded(ANN, ttl=50)


def load_untyped():  # type: ignore[no-untyped-def]  # the test is about that
    """Return plain data."""
    return {"name": "Ann", "age": 42}


def load_users(keys: list[str]) -> dict[str, User]:
    """Return users by key."""
    return dict.fromkeys(keys, ANN)


# Types ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loader", [load_user, load_wrapped])
def test_value_has_the_annotated_type_in_every_process(one: Process, two: Process, loader: Any) -> None:
    """What the loader's annotation says is what other processes decode."""
    assert one.read("k", loader) == ANN
    assert two.fetch("k", loader) == (ANN, "shared")
    assert type(two.read("k", loader)) is User


def test_type_may_be_named(one: Process, two: Process) -> None:
    """`type=` says what a value is where no loader does, in every call that reads."""
    one.read("k", lambda: ANN, type=User)
    assert two.do("get", "k", type=User) == ANN
    two.do("invalidate", "k")
    two.do("get_or_load_many", ["k", "j"], load_users)
    one.keep_up()
    assert one.do("get_many", ["k", "j"], type=User) == {"k": ANN, "j": ANN}
    one.clock_stops_proving()
    assert one.do("get_or_load_many", ["k", "j"], load_users) == {"k": ANN, "j": ANN}


def test_record_of_a_repository_has_its_type(one: Process, two: Process) -> None:
    """`repository(type=)` and the annotation of the source's `load` do the same."""
    source = Source()
    source.records["k"] = ANN
    here, there = (Records(process, source, WriteThrough(), type=User) for process in (one, two))
    assert (here.get("k"), there.fetch("k")) == (ANN, (ANN, "shared"))
    here.put("k", User("Anne", 43))
    two.keep_up()
    assert there.fetch("k") == (User("Anne", 43), "shared")


def test_value_of_another_type_is_handed_out_and_not_kept(one: Process, two: Process) -> None:
    """Who asks for another type than a value was stored with gets that type; memory keeps it for nobody."""
    one.read("k", load_user)
    assert two.do("get", "k") == {"name": "Ann", "age": 42}
    assert not two.has_in_memory("k")
    assert two.do("get", "k", type=Person) == Person("Ann", 42)
    assert not two.has_in_memory("k")
    assert two.fetch("k", load_user) == (ANN, "shared")
    assert two.fetch("k", load_user) == (ANN, "hit")


def test_value_that_does_not_fit_the_type_is_a_miss(one: Process, two: Process) -> None:
    """A class that changed its fields is a miss and an event, not an error; the new value replaces the old one."""
    one.do("set", "k", {"name": "Ann"})
    assert two.fetch("k", load_user) == (ANN, "miss")
    assert two.told(EventKind.UNREADABLE)[0].key == "k"
    assert one.fetch("other", "value") == ("value", "miss")
    one.keep_up()
    one.clock_stops_proving()
    assert one.fetch("k", load_user) == (ANN, "shared")


RUBBISH = {
    "a foreign record": b"whatever",
    "an empty value": b"V" + bytes(24),
    "a pickle": b"V" + bytes(24) + b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
}


@pytest.mark.parametrize("what", [*RUBBISH, "a flipped bit", "cut off", "another key's"])
def test_record_that_is_not_readable_is_a_miss(one: Process, two: Process, world: World, what: str) -> None:
    """E3: what is none of ours, or broken, is loaded anew, told, and replaced."""
    one.do("set", "k", "old")
    one.do("set", "j", "other's")
    record, expires_ms = world.tier.shelf.held[world.name("k")]
    changed = {
        "a flipped bit": record[:-1] + bytes([record[-1] ^ 1]),
        "cut off": record[:-3],
        "another key's": world.tier.shelf.held[world.name("j")][0],
    } | RUBBISH
    world.tier.shelf.held[world.name("k")] = (changed[what], expires_ms)
    two.events.clear()
    loader = CountingLoader("new")
    assert two.fetch("k", loader) == ("new", "miss")
    assert two.pauses == []
    assert {event.key for event in two.told(EventKind.UNREADABLE)} == {"k"}
    assert world.process().fetch("k", loader) == ("new", "shared")
    assert loader.calls == 1


# What cannot travel ---------------------------------------------------------------------------------------------------


UNSHARED = {"no codec": Unknown(), "too large": "x" * 20_000, "another type": 42}


@pytest.mark.parametrize("what", UNSHARED)
def test_value_that_cannot_travel_is_used_and_not_kept(world: World, what: str) -> None:
    """E1: what the codec cannot encode is handed out, told about, and leaves no lease behind; each process loads it."""
    one, two = world.pair(codec=Codec(max_bytes=10_000))
    value = UNSHARED[what]
    options = {"type": User} if what == "another type" else {}
    for process in (one, two):
        assert process.fetch("k", lambda: value, **options) == (value, "miss")
        assert [event.key for event in process.told(EventKind.UNSHARED)] == ["k"]
    assert world.record("k") == b""
    assert two.pauses == []


@pytest.mark.parametrize("write", ["set", "set_many", "put"])
def test_written_value_that_cannot_travel_takes_the_old_one_away(
    one: Process, two: Process, world: World, write: str
) -> None:
    """A value that cannot be shared is written all the same: the older one in the tier is not served any more."""
    two.read("k", "old")
    match write:
        case "set":
            one.do("set", "k", Unknown())
        case "set_many":
            one.do("set_many", {"k": Unknown(), "beside": 1})
        case _:
            Records(one, Source(), WriteThrough()).put("k", Unknown())
    assert one.told(EventKind.UNSHARED)
    two.keep_up()
    assert two.fetch("k", "new") == ("new", "miss")


def test_value_that_cannot_travel_is_never_in_a_message(one: Process) -> None:
    """Events name the key and say why; the value stays out of them."""
    one.read("k", lambda: {"password": Unknown()})
    assert all("password" not in event.detail for event in one.events)


def test_codec_that_cannot_decode_a_type_is_told_at_once(sync_world: World) -> None:
    """A type that the format cannot carry is an error of configuration, raised before anything is loaded."""
    loader = CountingLoader("value")
    with pytest.raises(ConfigurationError):
        sync_world.process().cache.get_or_load("k", loader, type=Unknown)
    assert loader.calls == 0


def test_json_is_understood_by_all_that_use_it(world: World) -> None:
    """The format is one for all processes of a namespace."""
    one, two = world.pair(codec="json")
    one.read("k", load_user)
    assert two.fetch("k", load_user) == (ANN, "shared")
    assert b'"Ann"' in world.record("k")


def test_codec_without_a_tier_is_refused() -> None:
    """`codec` and `namespace` are about a shared tier."""
    for options in ({"codec": "json"}, {"namespace": "shop"}):
        with pytest.raises(ConfigurationError, match="pass remote="):
            Cache(**options)
    with pytest.raises(ConfigurationError, match="codec must be"):
        Cache(remote=DictTier(), codec="yaml")
    with pytest.raises(ConfigurationError, match="remote is a URL"):
        Cache(remote=object())


# Weights --------------------------------------------------------------------------------------------------------------


def test_shared_value_that_is_too_heavy_here_is_served_and_not_kept(world: World) -> None:
    """Each process has bounds of its own; a value from the tier that does not fit is used all the same."""
    one = world.process()
    two = world.process(max_weight=10, weigher=len)
    one.read("k", "a long value indeed")
    assert two.fetch("k", "other") == ("a long value indeed", "shared")
    assert two.fetch("k", "other") == ("a long value indeed", "shared")
    assert len(two.cache) == 0


def test_evicted_value_is_still_in_the_tier(world: World) -> None:
    """What does not fit into memory is one round trip away."""
    one = world.process(maxsize=2)
    loader = CountingLoader("value")
    for number in range(10):
        one.read(f"k{number}", loader)
    for number in range(10):
        assert one.read(f"k{number}", loader) == "value"
    assert loader.calls == 10
    assert len(one.cache) == 2


def test_copies_are_handed_out_of_shared_values(world: World) -> None:
    """`copy=` holds for what comes from the tier, too."""
    one, two = world.pair(copy=deepcopy)
    one.read("k", lambda: [1])
    for _ in range(2):
        two.read("k", list).append(2)
        assert two.read("k", list) == [1]
        two.do("get", "k").append(3)
        two.do("get_many", ["k"])["k"].append(4)


# Memory off -----------------------------------------------------------------------------------------------------------


def test_without_memory_every_read_asks_the_tier(world: World) -> None:
    """`maxsize=0`: nothing is kept here, and what is in the tier is not loaded."""
    one, two = world.pair(maxsize=0)
    loader = CountingLoader("value")
    assert one.fetch("k", loader) == ("value", "miss")
    for process in (one, two, one):
        assert process.fetch("k", loader) == ("value", "shared")
        assert process.do("get", "k") == "value"
        assert process.do("get_many", ["k", "j"]) == {"k": "value"}
        assert "k" not in process.cache
        assert len(process.cache) == 0
    assert loader.calls == 1
    assert one.cache.stats().stores in (0, 1)


WRITES: dict[str, Any] = {
    "invalidate": lambda process: process.do("invalidate", "k"),
    "set": lambda process: process.do("set", "k", "new", tags=["t"]),
    "tags": lambda process: process.do("invalidate_tags", "t"),
    "clear": lambda process: process.do("clear"),
    "put": lambda process: Records(process, Source(), WriteThrough()).put("k", "new"),
}


@pytest.mark.parametrize("write", WRITES)
def test_without_memory_a_write_is_seen_by_the_next_read_anywhere(world: World, write: str) -> None:
    """Without a memory tier reads are linearizable; only `clear` waits for the keeper, within `max_staleness`."""
    one, two = world.pair(maxsize=0)
    one.read("k", "old", tags=["t"])
    assert two.fetch("k", "other", tags=["t"]) == ("old", "shared")
    WRITES[write](one)
    if write == "clear":
        two.keep_up()
    assert two.fetch("k", "new", tags=["t"])[0] == "new"
    assert two.do("get", "k") == "new"


def test_without_memory_a_fenced_tag_is_seen_by_the_next_read_anywhere(world: World) -> None:
    """The same for a tag that is written: inside the block readers of every process go to the source."""
    one, two = world.pair(maxsize=0)
    one.read("k", "old", tags=["t"])
    assert two.read("k", "other", tags=["t"]) == "old"
    with one.writing(tags=["t"]):
        assert two.read("k", "uncommitted", tags=["t"]) == "uncommitted"
    assert two.read("k", "new", tags=["t"]) == "new"


def test_without_a_tier_memory_cannot_be_switched_off() -> None:
    """`maxsize=0` needs a shared tier."""
    with pytest.raises(ConfigurationError, match="maxsize must be at least 1"):
        Cache(maxsize=0)


# Set ------------------------------------------------------------------------------------------------------------------


def test_set_is_in_memory_and_in_the_tier(one: Process, two: Process) -> None:
    """`set` stores in all tiers; its own announcement does not throw the value out."""
    one.do("set", "k", "value")
    one.keep_up()
    assert one.fetch("k", "other") == ("value", "hit")
    assert two.fetch("k", "other") == ("value", "shared")


def test_set_that_another_process_overtakes_is_not_kept_in_memory(one: Process, two: Process) -> None:
    """1. A's value is in the tier. 2. B sets another one, and A reads the news. 3. A's reply arrives: B's value stands."""

    def overtake() -> None:
        two.cache.set("k", "newer")
        one.keep_up()

    one.tier.after(Put, lambda: elsewhere(overtake))
    one.do("set", "k", "new")
    assert not one.has_in_memory("k")
    assert one.fetch("k", "other") == ("newer", "shared")


def test_set_that_arrives_too_late_is_not_stored(one: Process, two: Process, world: World) -> None:
    """1. A's value is on its way for longer than A waits. 2. B has set another one. 3. A's arrives: B's stands or nothing."""

    def be_late() -> None:
        two.cache.set("k", "newer")
        world.clock.advance(61)

    one.tier.before(Put, lambda: elsewhere(be_late))
    one.do("set", "k", "new")
    world.keep_up()
    assert not one.has_in_memory("k")
    assert two.fetch("k", "newest")[0] in ("newer", "newest")
    assert one.fetch("k", "newest")[0] in ("newer", "newest")


def test_set_whose_ttl_is_nothing_takes_the_value_away_everywhere(world: World) -> None:
    """A ttl callable that says "do not keep" makes `set` an invalidation."""
    one, two = world.pair(ttl=lambda value: 0 if value == "nothing" else 100)
    one.do("set", "k", "old")
    assert two.read("k", "other") == "old"
    one.do("set_many", {"k": "nothing", "j": "value"})
    two.keep_up()
    assert two.do("get_many", ["k", "j"]) == {"j": "value"}


def test_many_values_are_set_in_one_exchange(one: Process, two: Process) -> None:
    """`set_many` puts all values and announces them together; others find them with one look-up."""
    one.tier.batches.clear()
    values = {f"k{number}": number for number in range(50)}
    one.do("set_many", values)
    assert [len(batch) for batch in one.tier.batches] == [51]
    assert one.tier.asked(Announce) == 1
    two.tier.batches.clear()
    assert two.do("get_many", list(values)) == values
    assert [len(batch) for batch in two.tier.batches] == [50]
    assert two.tier.asked(Get) == 50
