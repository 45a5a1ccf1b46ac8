"""What the shortcuts must not do: a miss that meets somebody, and `set` where more than memory is concerned."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.waiting import Call, wait_until

from credenza import Cache, CacheClosed, Event, Loaded, functions
from credenza.flight import Signal

pytestmark = pytest.mark.usefixtures("implementation")


class Loader:
    """Loads 1, 2, 3, ..., each load as soon as its gate is opened."""

    def __init__(self) -> None:
        self.gates: list[threading.Event] = []

    def __call__(self, key: str) -> int:
        gate = threading.Event()
        self.gates.append(gate)
        number = len(self.gates)
        assert gate.wait(10)
        return number


def test_what_is_loaded_inside_a_fence_is_not_kept() -> None:
    """I3: a function whose key is being written loads each time, and keeps nothing."""
    cache: Cache[Any, Any] = Cache()
    calls: list[int] = []

    @cache.cached
    def load(number: int) -> int:
        calls.append(number)
        return len(calls)

    with cache.writing(load.key_for(1)):
        assert [load(1), load(1)] == [1, 2]
        assert load.peek(1) is None
    assert [load(1), load(1)] == [3, 3]


def test_load_that_a_fence_overtakes_is_not_kept() -> None:
    """I3: so is one that had begun before the write."""
    cache: Cache[Any, Any] = Cache()
    loader = Loader()
    function = cache.cached(loader.__call__)
    first = Call(lambda: function("a"))
    wait_until(lambda: len(loader.gates) == 1, "the load has begun")
    with cache.writing(function.key_for("a")):
        loader.gates[0].set()
        assert first.result() == 1
        assert function.peek("a") is None
    assert function.peek("a") is None


def test_what_is_set_inside_a_fence_is_not_kept() -> None:
    """I3: by hand neither, whether a key or a tag is being written."""
    cache: Cache[Any, Any] = Cache()
    with cache.writing("a"):
        cache.set("a", 1)
        assert cache.get("a") is None
    with cache.writing(tags=["t"]):
        cache.set("a", 1, tags=["t"])
        assert cache.get("a") is None


@pytest.mark.parametrize(
    ("options", "overtake"),
    [
        ({"tags": ["t"]}, lambda cache: cache.invalidate_tags("t")),
        ({"key": "k:{key}", "tags": ["t:{key}"]}, lambda cache: cache.invalidate_tags("t:a")),
        ({"key": "k:{key}"}, lambda cache: cache.clear()),
        ({"key": "k:{key}"}, lambda cache: cache.invalidate("k:a")),
        ({"key": lambda key: key}, lambda cache: cache.set("a", 1)),
    ],
)
def test_load_of_a_function_with_keys_or_tags_of_its_own_may_be_overtaken(
    options: dict[str, Any], overtake: Callable[[Cache[Any, Any]], None]
) -> None:
    """I1, I2: what is invalidated while such a function loads is returned and not kept."""
    cache: Cache[Any, Any] = Cache()
    loader = Loader()
    function = cache.cached(**options)(loader.__call__)
    first = Call(lambda: function("a"))
    wait_until(lambda: len(loader.gates) == 1, "the load has begun")
    overtake(cache)
    kept = function.peek("a")
    loader.gates[0].set()
    assert first.result() == 1
    assert function.peek("a") == kept
    assert cache.stats().stores == (kept is not None)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"key": "k:{key}"}, {"key": lambda key: ("k", key)}, {"tags": ["t:{key}"]}, {"typed": True}, {"key": "k"}],
)
def test_miss_of_a_function_with_keys_or_tags_of_its_own_counts_and_keeps_as_any_other(
    options: dict[str, Any], is_async: bool
) -> None:
    """Whatever makes the key: one load, one store, under the key that `key_for` tells; cache_clear finds it."""
    cache: Cache[Any, Any] = Cache()

    def load(key: str) -> str:
        return key.upper()

    async def load_async(key: str) -> str:
        return key.upper()

    async def main(function: Any) -> list[str]:
        return [await function("a"), await function(key="a"), await function("a")]

    function: Any = cache.cached(**options)(load_async if is_async else load)
    values = asyncio.run(main(function)) if is_async else [function("a"), function(key="a"), function("a")]
    assert values == ["A", "A", "A"]
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.loads, stats.stores, stats.size) == (1, 2, 1, 1, 1)
    assert cache.get(function.key_for("a")) == "A"
    assert function.cache_info()[:2] == (2, 1)
    if "tags" in options:
        cache.invalidate_tags("t:a")
        assert function.peek("a") is None
    function.cache_clear()
    assert function.peek("a") is None


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_loaded_with_a_ttl_of_its_own_carries_the_tags_of_the_function(is_async: bool) -> None:
    """I2: what the shortest way leaves to the longer one is the same entry, and has the tags that the call has."""
    cache: Cache[Any, Any] = Cache()

    def load(key: str) -> Any:
        return Loaded(key.upper(), ttl=50, tags=["dynamic"])

    async def load_async(key: str) -> Any:
        return load(key)

    function: Any = cache.cached(key="k:{key}", tags=["t:{key}"])(load_async if is_async else load)
    for tag in ("t:a", "dynamic"):
        assert (asyncio.run(function("a")) if is_async else function("a")) == "A"
        assert function.peek("a") == "A"
        cache.invalidate_tags(tag)
        assert function.peek("a") is None


def test_load_that_another_one_has_followed_is_not_kept() -> None:
    """I1: an invalidation detaches a load; when it ends, the one that was begun since then goes on, and is kept."""
    cache: Cache[Any, Any] = Cache()
    loader = Loader()
    function = cache.cached(loader.__call__)
    first = Call(lambda: function("a"))
    wait_until(lambda: len(loader.gates) == 1, "the first load has begun")
    function.invalidate("a")
    second = Call(lambda: function("a"))
    wait_until(lambda: len(loader.gates) == 2, "the second load has begun")
    loader.gates[0].set()
    assert first.result() == 1
    assert function.peek("a") is None
    assert cache.stats().flights == 1
    loader.gates[1].set()
    assert second.result() == 2
    assert function.peek("a") == 2


def test_set_takes_a_load_under_way_off_the_register() -> None:
    """I2: a newer write beats an older load, and newcomers do not wait for it."""
    cache: Cache[str, int] = Cache()
    loader = Loader()
    first = Call(lambda: cache.get_or_load("a", lambda: loader("a")))
    wait_until(lambda: len(loader.gates) == 1, "the load has begun")
    cache.set("a", 10)
    assert cache.stats().flights == 0
    loader.gates[0].set()
    assert first.result() == 1
    assert cache.get("a") == 10


def test_two_threads_share_a_load_of_a_function() -> None:
    """L1: who comes while the function loads waits for it."""
    cache: Cache[Any, Any] = Cache()
    loader = Loader()
    function = cache.cached(loader.__call__)
    calls = [Call(lambda: function("a")) for _ in range(3)]
    wait_until(lambda: [flight.waiters for flight in _flights(cache)] == [3], "all three wait")
    loader.gates[0].set()
    assert [call.result() for call in calls] == [1, 1, 1]
    assert len(loader.gates) == 1


@pytest.mark.parametrize("fails", [True, False])
def test_load_that_cannot_be_ended_is_abandoned(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: where ending a load fails for want of memory, those who wait for it load by themselves."""
    cache: Cache[Any, Any] = Cache()
    gate = threading.Event()
    loads: list[str] = []

    @cache.cached
    def load(key: str) -> Any:
        loads.append(key)
        if len(loads) > 1:
            return "loaded"
        assert gate.wait(10)
        if fails:
            raise ValueError("no")
        return Loaded("first", ttl=5)  # what the shortest way does not store

    def refuse(*args: object) -> None:
        raise MemoryError

    leader = Call(lambda: load("a"))
    wait_until(lambda: loads == ["a"], "the load is under way")
    waiter = Call(lambda: load("a"))
    wait_until(lambda: _flights(cache)[0].waiters == 2, "another one waits for it")
    for name in ("land", "fail"):
        monkeypatch.setattr(functions, name, refuse)
    gate.set()
    assert waiter.result() == "loaded"
    with pytest.raises((ValueError, MemoryError)):
        leader.result()
    assert _flights(cache) == []


@pytest.mark.parametrize("ends", ["value", "error", "loaded"])
def test_interrupt_while_the_waiters_are_told_reaches_the_caller_and_they_go_on(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: Ctrl+C in the moment in which a load lands is not lost, and nobody waits for ever."""
    cache: Cache[Any, Any] = Cache()
    waiters: list[Call[Any]] = []

    @cache.cached
    def load(key: str) -> Any:
        waiters.append(Call(lambda: load("a")))
        wait_until(lambda: _flights(cache)[0].waiters == 2, "another one waits for it")
        wait_until(lambda: _flights(cache)[0].signal is not None, "it has something to be told by")
        if ends == "error":
            raise ValueError("no")
        return Loaded("value", ttl=5) if ends == "loaded" else "value"

    tell = Signal.set

    def interrupt(signal: Signal) -> None:
        monkeypatch.setattr(Signal, "set", tell)
        raise KeyboardInterrupt

    monkeypatch.setattr(Signal, "set", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("a")
    if ends == "error":
        with pytest.raises(ValueError, match="no"):
            waiters[0].result()
    else:
        assert waiters[0].result() == "value"
    assert _flights(cache) == []


@pytest.mark.parametrize("act", ["hash", "eq"])
@pytest.mark.parametrize("turn", range(1, 7))
def test_register_that_a_fork_replaces_in_the_middle_of_a_step_does_no_harm(act: str, turn: int) -> None:
    """A key may fork when it is hashed or compared, and the child has another register of loads."""
    cache: Cache[Any, Any] = Cache()
    state = cache._engine.state
    turns = itertools.count(1)

    class Key:
        def fork(self, how: str) -> None:
            if how == act and next(turns) == turn:
                state.flights = {}  # as `State.forget_the_parent` does

        def __hash__(self) -> int:
            self.fork("hash")
            return 7

        def __eq__(self, other: object) -> bool:
            self.fork("eq")
            return True

    @cache.cached
    def load(key: Key) -> str:
        return "value"

    assert [load(Key()) for _ in range(3)] == ["value"] * 3
    assert _flights(cache) == []


def test_closed_cache_takes_no_value() -> None:
    """A cache that was closed says so."""
    cache: Cache[str, int] = Cache()
    cache.set("a", 1)
    cache.close()
    with pytest.raises(CacheClosed):
        cache.set("a", 2)
    with pytest.raises(CacheClosed):
        cache.set("a", 2, ttl=5)


def test_function_of_a_closed_cache_loads_nothing() -> None:
    """Neither what it has loaded before nor anything new."""
    cache: Cache[int, int] = Cache()
    loaded: list[int] = []

    @cache.cached
    def function(number: int) -> None:
        loaded.append(number)

    function(1)
    cache.close()
    for number in (1, 2):
        with pytest.raises(CacheClosed):
            function(number)
    assert loaded == [1]


def test_listener_is_told_of_all_that_a_function_does() -> None:
    """What comes while somebody listens takes the long way."""
    cache: Cache[Any, Any] = Cache(maxsize=1)
    function = cache.cached(lambda number: number)
    function(1)
    told: list[Event] = []
    unsubscribe = cache.subscribe(told.append)
    function(2)
    cache.set("a", 1)
    unsubscribe()
    function(3)
    assert [event.kind.value for event in told] == ["miss", "evicted", "load", "stored", "evicted", "stored"]


def test_keys_of_methods_end_with_their_instance() -> None:
    """An instance at the address of one that has died finds nothing of it."""
    cache: Cache[Any, Any] = Cache()

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @cache.cached
        def title(self, number: int) -> str:
            return f"{self.name} {number}"

    for number in range(200):  # each has, as a rule, the address of the one before
        assert Shop(str(number)).title(1) == f"{number} 1"


def test_remembered_keys_are_bounded() -> None:
    """A template's keys are remembered by the arguments, no more of them than there may be entries."""
    cache: Cache[Any, Any] = Cache(maxsize=10)

    @cache.cached(key="n:{number}")
    def load(number: int) -> bytearray:
        return bytearray(1)

    before = _referents(load)
    for number in range(2_000):
        load(number)
    assert _referents(load) - before <= 3 * 11


@pytest.mark.parametrize("order", list(itertools.permutations([1, True, 1.0])))
def test_remembered_keys_of_equal_arguments_are_those_of_the_template(order: tuple[Any, ...]) -> None:
    """1, True and 1.0 are equal, and a template makes a key of each: whoever comes first, the others get their own."""
    cache: Cache[Any, Any] = Cache()

    @cache.cached(key="n:{number}:{name}")
    def load(number: Any, name: str) -> str:
        return f"{number!r} {name}"

    for number in order * 2:
        assert load(number, "Ann") == f"{number!r} Ann"
    assert len({load.key_for(number, "Ann") for number in order}) == 3


def _flights(cache: Cache[Any, Any]) -> list[Any]:
    return list(cache._engine.state.flights.values())


def _referents(function: object) -> int:
    return sum(len(item) for item in gc.get_referents(function) if type(item) is dict)
