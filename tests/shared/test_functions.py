"""Cached functions over processes: their names, their entries, `cache_clear`, `refresh`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.processes import Process, World, elsewhere

from credenza import Cache, ConfigurationError, NotFound, UsageError
from credenza.testing import CountingLoader, DictTier
from credenza.tiers.base import Lease

source: dict[int, Any] = {}
calls: list[int] = []


def plain(number: int) -> Any:
    """Read one record."""
    calls.append(number)
    result = source[number]
    if isinstance(result, BaseException):
        raise result
    return result() if callable(result) else result


async def coroutine(number: int) -> Any:
    """Do the same as a coroutine."""
    return plain(number)


def other(number: int) -> str:
    """Be another function."""
    return f"other {number}"


async def other_coroutine(number: int) -> str:
    """Be another coroutine function."""
    return f"other {number}"


def mixed(first: Any, second: Any = None) -> str:
    """Take anything."""
    return f"{first!r} {second!r}"


WAYS: dict[str, dict[str, Any]] = {
    "arguments": {},
    "template": {"key": "number:{number}"},
    "tags": {"tags": ["numbers", "number:{number}"]},
    "template and tags": {"key": "number:{number}", "tags": ["numbers"]},
    "typed": {"typed": True},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the function is decorated."""
    return WAYS[request.param]


@pytest.fixture(autouse=True)
def full_source() -> None:
    """What the source holds at first."""
    source.clear()
    source.update({1: "one", 2: "two"})
    calls.clear()


class Function:
    """A function as one process has it decorated."""

    def __init__(self, process: Process, **options: Any) -> None:
        self.process = process
        self.function: Any = process.cache.cached(**options)(coroutine if process.is_async else plain)

    def __call__(self, number: int) -> Any:
        return self.process.run(lambda: self.function(number))

    def refresh(self, number: int) -> Any:
        """Load anew."""
        return self.process.run(lambda: self.function.refresh(number))

    def many(self, numbers: list[int]) -> Any:
        """Return many results."""
        return self.process.run(lambda: self.function.many(numbers))


@pytest.fixture
def pair(one: Process, two: Process, way: dict[str, Any]) -> tuple[Function, Function]:
    """The function in two processes."""
    return Function(one, **way), Function(two, **way)


# Entries --------------------------------------------------------------------------------------------------------------


def test_result_is_shared_by_processes(pair: tuple[Function, Function]) -> None:
    """What the function returned in one process is a hit in the other, and there in memory from then on."""
    one, two = pair
    assert (one(1), one(2)) == ("one", "two")
    assert (two(1), two(1), two.many([2, 1])) == ("one", "one", {2: "two", 1: "one"})
    assert calls == [1, 2]
    assert two.function.peek(1) == "one"
    assert two.function.cache_info().currsize == 2
    assert two.process.cache.stats().shared_hits == 2


def test_invalidated_result_is_loaded_anew_in_every_process(pair: tuple[Function, Function]) -> None:
    """`invalidate` with the arguments reaches the other process, and nothing but that result."""
    one, two = pair
    for function in (one, two, one, two):
        function(1), function(2)
    two.function.invalidate(1)
    one.process.keep_up()
    assert one.function.peek(1) is None
    assert one.function.peek(2) == "two"
    source[1] = "new"
    assert (one(1), two(1)) == ("new", "new")
    assert calls == [1, 2, 1]


def test_peek_looks_at_memory_only(pair: tuple[Function, Function]) -> None:
    """`peek` asks no tier."""
    one, two = pair
    one(1)
    before = len(two.process.tier.batches)
    assert two.function.peek(1) is None
    assert len(two.process.tier.batches) == before


def test_cache_clear_reaches_every_process(pair: tuple[Function, Function], world: World) -> None:
    """`cache_clear` in one process takes the function's results out everywhere, loaded or shared, and no others."""
    one, two = pair
    for function in (one, two):
        function(1), function(2)
    unconcerned = [process.cache.cached(other) for process in (one.process, two.process)]
    for function in unconcerned:
        function(1)
    one.process.read("by hand", "value")
    two.function.cache_clear()
    assert (two.function.peek(1), two.function.peek(2)) == (None, None)
    world.keep_up()
    assert (one.function.peek(1), one.function.peek(2)) == (None, None)
    assert one.function.cache_info().currsize == 0
    assert [function.peek(1) for function in unconcerned] == ["other 1", "other 1"]
    assert one.process.fetch("by hand", "other") == ("value", "hit")
    source.update({1: "new", 2: "new"})
    assert (one(1), two(1), two(2)) == ("new", "new", "new")


def test_load_that_cache_clear_overtakes_is_not_stored(pair: tuple[Function, Function]) -> None:
    """A result that another process's `cache_clear` overtook is kept nowhere."""
    one, two = pair

    def load() -> str:
        elsewhere(two.function.cache_clear)
        source[1] = "new"
        return "old"

    source[1] = load
    assert one(1) == "old"
    assert one.function.peek(1) is None
    assert (two(1), one(1)) == ("new", "new")


def test_function_that_another_process_does_not_have_is_passed_over(one: Process, two: Process) -> None:
    """News of a function that this process does not know do no harm."""
    mine = Function(one)
    mine(1)
    mine.function.invalidate(1)
    mine.function.cache_clear()
    two.read("k", "value")
    two.keep_up()
    assert two.fetch("k", "other") == ("value", "hit")


def test_arguments_keep_apart_as_they_do_in_memory(sync_world: World) -> None:
    """Arguments that are different for Python have different records."""
    one, two = sync_world.pair()
    here, there = one.cache.cached(mixed), two.cache.cached(mixed)
    arguments = [
        ("1",),
        (1,),
        (b"1",),
        (None,),
        ((1, 2),),
        (1, 2),
        ("a:b", "c"),
        ("a", "b:c"),
        (("a", "b"), "c"),
        ("~",),
    ]
    results = [here(*each) for each in arguments]
    assert len(set(results)) == len(arguments)
    assert [there(*each) for each in arguments] == results
    assert two.cache.stats().shared_hits == len(arguments)


def test_typed_function_tells_types_apart(sync_world: World) -> None:
    """With `typed=True` 1 and True are two entries in every process."""
    one, two = sync_world.pair()
    here, there = (process.cache.cached(typed=True)(mixed) for process in (one, two))
    assert (here(1), here(True)) == ("1 None", "True None")
    assert (there(True), there(1)) == ("True None", "1 None")
    assert two.cache.stats().shared_hits == 2


# Refresh --------------------------------------------------------------------------------------------------------------


def test_refresh_loads_although_a_fresh_value_is_there(pair: tuple[Function, Function]) -> None:
    """`refresh` loads and replaces the value in the tier; others find it there."""
    one, two = pair
    one(1)
    source[1] = "new"
    assert two.refresh(1) == "new"
    assert two.function.peek(1) == "new"
    one.process.clock_stops_proving()
    assert one(1) == "new"
    assert calls == [1, 1]


def test_old_value_is_readable_while_another_process_refreshes(pair: tuple[Function, Function]) -> None:
    """The value that is replaced by `refresh` is served to others meanwhile."""
    one, two = pair
    one(1)
    seen = []

    def load() -> str:
        source[1] = "newer"
        seen.append(elsewhere(lambda: one.process.cache.get(one.function.key_for(1))))
        one.process.clock_stops_proving()
        seen.append(elsewhere(lambda: one.process.cache.get(one.function.key_for(1))))
        return "new"

    source[1] = load
    assert two.refresh(1) == "new"
    assert seen == ["one", "one"]
    assert one(1) == "new"


def test_refresh_takes_the_lease_from_a_load_under_way(pair: tuple[Function, Function]) -> None:
    """A load that another process's `refresh` overtakes is used by its leader, and not stored."""
    one, two = pair

    def load() -> str:
        source[1] = "new"
        assert elsewhere(lambda: two.refresh(1)) == "new"
        return "old"

    source[1] = load
    assert one(1) == "old"
    assert one.function.peek(1) is None
    assert one(1) == "new"


def test_refresh_that_fails_leaves_the_old_value(pair: tuple[Function, Function]) -> None:
    """An error of a forced load reaches its caller; the value in the tier stays, and is not leased."""
    one, two = pair
    one(1)
    source[1] = OSError("no database")
    with pytest.raises(OSError, match="no database"):
        two.refresh(1)
    assert two(1) == "one"
    assert two.process.pauses == []


def test_refresh_does_not_store_behind_a_fence(pair: tuple[Function, Function]) -> None:
    """`refresh` while another process writes loads from the source, and stores nothing."""
    one, two = pair
    one(1)
    with one.process.writing(one.function.key_for(1)):
        source[1] = "uncommitted"
        two.process.keep_up()
        assert two.refresh(1) == "uncommitted"
        assert two.function.peek(1) is None
        source[1] = "new"
    assert two(1) == "new"


# Names ----------------------------------------------------------------------------------------------------------------


class Reader:
    """A class with methods."""

    def read(self, number: int) -> int:
        """Be a method."""
        return number


def test_function_without_a_name_of_its_own_needs_a_key(sync_world: World) -> None:
    """Other processes cannot tell what a function within a function, a lambda or a method is; with `key=` they need not."""
    one = sync_world.process()

    def local(number: int) -> int:
        return number

    for function in (local, lambda number: number):
        with pytest.raises(ConfigurationError, match=r"pass key= with a template"):
            one.cache.cached(function)
        assert one.cache.cached(key="n:{number}")(function)(3) == 3
    with pytest.raises(ConfigurationError, match=r"a method is keyed by its instance"):

        class Wrong:
            @one.cache.cached
            def read(self, number: int) -> int:
                return number


def test_method_with_a_key_is_shared(sync_world: World) -> None:
    """A method with `key=` shares its results with other instances and processes, as the key says."""
    one, two = sync_world.pair()

    def make(process: Process) -> Any:
        class Repository:
            @process.cache.cached(key="record:{number}")
            def read(self, number: int) -> int:
                calls.append(number)
                return number

        return Repository()

    assert [make(process).read(7) for process in (one, one, two)] == [7, 7, 7]
    assert calls == [7]


@pytest.mark.parametrize(
    "key", [1.5, frozenset(), object(), ("a", 1.5), (None, {1: 2}.keys())], ids=lambda key: type(key).__name__
)
def test_key_that_cannot_travel_is_refused(one: Process, key: Any) -> None:
    """A key that other processes could not agree upon is misuse, in every call that takes one."""
    loader = CountingLoader("value")
    attempts = [
        lambda: one.read(key, loader),
        lambda: one.do("get", key),
        lambda: one.do("set", key, 1),
        lambda: one.do("invalidate", key),
        lambda: one.do("get_or_load_many", [key, "k"], lambda keys: {}),
    ]
    for attempt in attempts:
        with pytest.raises(UsageError):
            attempt()
    with pytest.raises(UsageError), one.writing(key):
        pass
    assert loader.calls == 0
    assert not one.tier.asked(Lease)


def test_argument_that_cannot_travel_is_refused(sync_world: World) -> None:
    """The same for an argument of a function; the message says what to do."""
    function = sync_world.process().cache.cached(mixed)
    with pytest.raises(UsageError, match=r"pass key= with a template"):
        function(1.5)


@pytest.mark.parametrize(
    "key", ["k", "~k", "", "ä\udc80", 1, -1, 10**30, b"\xff", True, None, ("a", (1, None)), ()], ids=repr
)
def test_key_that_can_travel_means_the_same_everywhere(one: Process, two: Process, key: Any) -> None:
    """What one process stores under a key the other finds and invalidates under it."""
    one.do("set", key, "value")
    assert two.fetch(key, "other") == ("value", "shared")
    two.do("invalidate", key)
    one.keep_up()
    assert not one.has_in_memory(key)


def test_namespaces_keep_caches_apart() -> None:
    """Caches with different namespaces on one tier share nothing; a namespace is named in one place."""
    tier = DictTier(namespace="shop")
    with pytest.raises(ConfigurationError, match="name it in one place"):
        Cache(remote=tier, namespace="other")
    with Cache[str, str](remote=tier, namespace="shop") as cache:
        cache.set("k", "value")
        assert set(tier.shelf.held) == {b"shop:k"}


def test_not_found_is_left_out_of_many(one: Process) -> None:
    """`many` leaves out what the source does not have, in a cache with a shared tier too."""
    source[3] = NotFound("there is no 3")
    assert Function(one).many([1, 3]) == {1: "one"}


def test_options_of_the_cache_cannot_be_changed_for_a_function(sync_world: World) -> None:
    """How processes agree is one for the whole cache."""
    one = sync_world.process()
    for option in ({"coherence": "strict"}, {"max_staleness": 5}, {"tier_timeout": 1}, {"on_fence_failure": "raise"}):
        with pytest.raises(ConfigurationError, match="one for the whole cache"):
            one.cache.cached(**option)(plain)
        with pytest.raises(ConfigurationError, match="one for the whole cache"):
            one.cache.get_or_load("k", lambda: 1, **option)
