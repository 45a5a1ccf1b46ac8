"""Keys, values, weighers and clocks with code of the user's own, which raises or turns on the cache: nothing breaks."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.memory.implementations import Implementation
from tests.support.invariants import check_cache
from tests.support.waiting import run

from credenza import MISSING, Cache, UsageError
from credenza.testing import FakeClock

pytestmark = pytest.mark.usefixtures("implementation")

evictions = pytest.mark.parametrize("eviction", ["s3fifo", "lru"])


class Key:
    """A key of a chosen hash, equal to those of its name, that does something when it is hashed or compared."""

    def __init__(self, name: str, number: int = 7) -> None:
        self.name = name
        self.number = number
        self.when_hashed: Callable[[], object] | None = None
        self.when_compared: Callable[[], object] | None = None

    def __hash__(self) -> int:
        if self.when_hashed is not None:
            self.when_hashed()
        return self.number

    def __eq__(self, other: object) -> bool:
        for key in (self, other):  # a dictionary asks the stored one
            if isinstance(key, Key) and key.when_compared is not None:
                key.when_compared()
        return isinstance(other, Key) and self.name == other.name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


class Refusal(Exception):
    """What code of the user's raises here."""


def refuse() -> None:
    raise Refusal("not today")


def counting(cache: Cache[Any, Any], is_async: bool = False, **options: Any) -> tuple[Any, list[Any]]:
    """Return a cached function of one argument as one that is called, and the list of its loads."""
    calls: list[Any] = []

    def plain(key: Any) -> Any:
        calls.append(key)
        return ("value", len(calls))

    async def coloured(key: Any) -> Any:
        return plain(key)

    function = cache.cached(**options)(coloured if is_async else plain)
    return (lambda key: run(function(key))) if is_async else function, calls


both_colours = pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])


# What is equal is one key ---------------------------------------------------------------------------------------------


@both_colours
@pytest.mark.parametrize("typed", [False, True])
def test_equal_arguments_of_different_types_are_kept_apart_as_asked(is_async: bool, typed: bool) -> None:
    """Issue 5: 1, 1.0 and True are one key as in `functools.lru_cache`, and three with `typed=True`."""
    function, calls = counting(Cache(), is_async, typed=typed)
    values = [function(number) for number in (1, 1.0, True, 1)]
    assert len(calls) == (3 if typed else 1)
    assert values[3] == values[0]


def test_equal_keys_by_hand_are_one_key() -> None:
    """Keys are those of a dictionary: equal is the same, and the first one of them stays or goes with its entry."""
    cache: Cache[Any, Any] = Cache()
    for key in (1, 1.0, True, complex(1)):
        cache.set(key, repr(key))
    assert len(cache) == 1
    assert {cache.get(key) for key in (1, 1.0, True)} == {"(1+0j)"}
    cache.invalidate(1.0)
    assert cache.get(True) is None


def test_key_that_is_unequal_to_itself_is_found_by_identity() -> None:
    """A NaN is found by the object that it is, as in a dictionary, and another NaN is another key."""
    cache: Cache[Any, Any] = Cache()
    nan = float("nan")
    cache.set(nan, "this one")
    assert cache.get(nan) == "this one"
    assert cache.get(float("nan")) is None
    cache.invalidate(nan)
    assert len(cache) == 0


@pytest.mark.parametrize("is_bare", [True, False], ids=["by hand", "decorated"])
def test_text_of_a_subclass_keeps_its_own_equality(is_bare: bool) -> None:
    """A subclass of str with its own `__eq__` and `__hash__` is asked, whether it was stored or is looked up."""

    class Folded(str):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and self.casefold() == other.casefold()

        def __hash__(self) -> int:
            return hash(self.casefold())

    cache: Cache[Any, Any] = Cache()
    if is_bare:
        cache.set(Folded("Ann"), 1)
        assert cache.get(Folded("aNN")) == 1
        assert cache.get("ann") == 1
        assert cache.get(Folded("bob")) is None
    else:
        function, calls = counting(cache)
        for name in (Folded("Ann"), Folded("aNN"), "ann"):
            function(name)
        assert len(calls) == 1


@evictions
def test_keys_of_one_hash_are_told_apart(eviction: str) -> None:
    """Five hundred keys that collide: each has its value, and leaves alone."""
    cache: Cache[Any, Any] = Cache(maxsize=600, eviction=eviction)
    function, calls = counting(cache)
    for number in range(250):
        cache.set(Key(f"bare {number}"), number)
        function(Key(f"own {number}"))
    assert len(cache) == 500
    for number in range(0, 250, 2):
        cache.invalidate(Key(f"bare {number}"))
        assert function(Key(f"own {number}")) == ("value", number + 1)
    assert [cache.get(Key(f"bare {number}")) for number in range(250)] == [
        number if number % 2 else None for number in range(250)
    ]
    assert len(calls) == 250
    check_cache(cache)


@evictions
def test_keys_of_one_hash_are_evicted_within_the_bounds(eviction: str) -> None:
    """The ghosts tell keys by their hashes; those that collide share their luck, and the bounds hold."""
    cache: Cache[Any, Any] = Cache(maxsize=20, eviction=eviction)
    for number in range(500):
        cache.set(Key(str(number), number=number % 3), number)
        cache.get(Key(str(number // 2), number=(number // 2) % 3))
    assert len(cache) == 20
    check_cache(cache)


# What raises ----------------------------------------------------------------------------------------------------------


def using(cache: Cache[Any, Any], function: Any) -> dict[str, Callable[[Any], Any]]:
    """Return every way to use a key."""
    return {
        "get": cache.get,
        "set": lambda key: cache.set(key, 1),
        "load": lambda key: cache.get_or_load(key, lambda: 1),
        "fetch": lambda key: cache.fetch(key, lambda: 1),
        "contains": lambda key: key in cache,
        "peek": function.peek,
        "call": function,
        "keyword": lambda key: function(key=key),
        "invalidate": cache.invalidate,
        "invalidate call": function.invalidate,
        "write": lambda key: cache.writing(key).__enter__(),
    }


WAYS = [
    "get", "set", "load", "fetch", "contains", "peek", "call", "keyword", "invalidate", "invalidate call", "write",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@evictions
def test_hash_that_raises_reaches_the_caller(way: str, eviction: str) -> None:
    """Issue 5: the user's own error passes untouched, and the cache is as if it had not been asked."""
    cache: Cache[Any, Any] = Cache(maxsize=3, eviction=eviction)
    function = cache.cached(lambda key: ("value", key))
    cache.set("other", 1)
    key = Key("sour")
    key.when_hashed = refuse
    for _ in range(3):
        with pytest.raises(Refusal, match="not today"):
            using(cache, function)[way](key)
    assert cache.get("other") == 1
    assert len(cache) == 1
    check_cache(cache)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "write"])
@evictions
@pytest.mark.parametrize("is_stored_one", [True, False], ids=["the stored key", "the asked key"])
def test_comparison_that_raises_reaches_the_caller(way: str, eviction: str, is_stored_one: bool) -> None:
    """Issue 5: whichever of the two keys is asked, its error reaches the caller and nothing is lost."""
    cache: Cache[Any, Any] = Cache(maxsize=8, eviction=eviction)
    function = cache.cached(lambda key: ("value", key))
    stored = Key("one")
    cache.set(stored, "bare")
    function(stored)
    asked = Key("another")
    (stored if is_stored_one else asked).when_compared = refuse
    with pytest.raises(Refusal, match="not today"):
        using(cache, function)[way](asked)
    stored.when_compared = None
    assert cache.get(Key("one")) == "bare"
    assert function.peek(Key("one")) == ("value", stored)
    assert len(cache) == 2
    check_cache(cache)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "write"])
@pytest.mark.parametrize("key", [[], {}, (1, [2])], ids=repr)
def test_key_without_a_hash_is_refused_in_words(way: str, key: Any) -> None:
    """Errors: what cannot be hashed is a `UsageError` that says what to do, in every way in."""
    cache: Cache[Any, Any] = Cache()
    function = cache.cached(lambda key: 1)
    with pytest.raises(UsageError, match="hashable"):
        using(cache, function)[way](key)
    assert len(cache) == 0
    check_cache(cache)


@pytest.mark.parametrize("answer", ["text", "", None, 0, 1, [], NotImplemented, 2.5], ids=repr)
def test_comparison_may_return_whatever_has_a_truth(answer: Any) -> None:
    """`__eq__` may return any object, or `NotImplemented`; its truth is what counts, as in a dictionary."""

    class Vague:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> Any:
            return answer

    first, second = Vague(), Vague()
    cache: Cache[Any, Any] = Cache()
    function, calls = counting(cache)
    known = {first: 1}
    cache.set(first, 1)
    function(first)
    assert cache.get(second) == known.get(second)
    function(second)
    assert len(calls) == len({first, second})
    check_cache(cache)


def test_comparison_whose_answer_has_no_truth_reaches_the_caller() -> None:
    """As with arrays: the error of `__bool__` passes."""

    class Array:
        def __bool__(self) -> bool:
            raise Refusal("the truth of an array is ambiguous")

    class Odd:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> Any:
            return Array()

    cache: Cache[Any, Any] = Cache()
    function, _ = counting(cache)
    cache.set(Odd(), 1)
    function(Odd())
    for look in (cache.get, function, lambda key: cache.set(key, 2)):
        with pytest.raises(Refusal, match="ambiguous"):
            look(Odd())
    assert len(cache) == 2
    check_cache(cache)


# What turns on the cache ----------------------------------------------------------------------------------------------


def grow(cache: Cache[Any, Any], stored: Key) -> None:
    """Store so many others that every table of hashes grows."""
    for number in range(300):
        cache.set(("other", number), number)


MISCHIEF: dict[str, Callable[[Cache[Any, Any], Key], object]] = {
    "reads": lambda cache, stored: cache.get("bystander"),
    "reads another of its hash": lambda cache, stored: cache.get(Key("third")),
    "removes it": lambda cache, stored: cache.invalidate("bystander"),
    "clears": lambda cache, stored: cache.clear(),
    "grows": grow,
    "clears and grows": lambda cache, stored: (cache.clear(), grow(cache, stored)),
    "tags": lambda cache, stored: cache.invalidate_tags("a"),
    "collects": lambda cache, stored: gc.collect(),
    "loads": lambda cache, stored: cache.get_or_load("new", lambda: 1),
    "counts": lambda cache, stored: cache.stats(),
}


def once(act: Callable[[], object]) -> Callable[[], object]:
    """Return what acts at the first call, and never within itself or again."""
    acted: list[int] = []

    def first() -> None:
        if not acted:
            acted.append(1)
            act()

    return first


@pytest.mark.parametrize("moment", ["when_hashed", "when_compared"])
@pytest.mark.parametrize("mischief", MISCHIEF)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "write"])
def test_key_that_uses_the_cache_meanwhile_breaks_nothing(moment: str, mischief: str, way: str) -> None:
    """Issue 5: `__hash__` and `__eq__` may read, fill, clear and grow the very cache that asks them."""
    cache: Cache[Any, Any] = Cache(maxsize=1_500)
    function = cache.cached(lambda key: ("value", str(key)))
    stored = Key("one")
    cache.set("bystander", 1, tags=["a"])
    cache.set(stored, 1, tags=["a"])
    function(stored)
    asked = Key("two")
    setattr(asked, moment, once(lambda: MISCHIEF[mischief](cache, stored)))
    using(cache, function)[way](asked)
    asked.when_hashed = asked.when_compared = None
    check_cache(cache)
    cache.set(asked, "kept")
    assert cache.get(Key("two")) == "kept"
    assert function(Key("two")) == ("value", "Key('two')")
    check_cache(cache)


@pytest.mark.parametrize("way", ["get", "set", "load", "call", "invalidate", "invalidate call"])
@evictions
def test_comparison_that_removes_the_very_entry_breaks_nothing(way: str, eviction: str) -> None:
    """The entry that is being compared goes in the middle of the comparison, and its key and value die."""
    cache: Cache[Any, Any] = Cache(maxsize=50, eviction=eviction)
    function = cache.cached(lambda key: ("value", str(key)))
    for _ in range(3):
        cache.set(Key("one"), object())
        function(Key("one"))
        asked = Key("one")

        def drop() -> None:
            cache.clear()
            gc.collect()

        asked.when_compared = once(drop)
        using(cache, function)[way](asked)
        check_cache(cache)
    cache.clear()
    assert len(cache) == 0


def at_the(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Return what acts at that call of it, and only then."""
    calls: list[None] = []

    def count() -> None:
        calls.append(None)
        if len(calls) == number:
            act()

    return count


@pytest.mark.parametrize("change", ["invalidate", "invalidate_tags", "clear", "cache_clear"])
@pytest.mark.parametrize("moment", ["when_hashed", "when_compared"])
@pytest.mark.parametrize("way", ["load", "call"])
@evictions
def test_change_within_a_key_overtakes_the_load(way: str, moment: str, change: str, eviction: str) -> None:
    """Rule I1: also where `__hash__` or `__eq__` makes it in the very step that stores what was loaded."""
    for number in range(1, 13):
        check_change_within_a_key(way, moment, number, change, Cache(maxsize=50, eviction=eviction))


def check_change_within_a_key(way: str, moment: str, number: int, change: str, cache: Cache[Any, Any]) -> None:
    """Change what is loaded when the key is hashed or compared for that time."""
    truth = ["old"]
    function = cache.cached(lambda key: truth[0], tags=["a"])
    load = {"load": lambda key: cache.get_or_load(key, lambda: truth[0], tags=["a"]), "call": function}[way]
    look = {"load": cache.get, "call": function.peek}[way]
    load(Key("one"))  # something to be compared with
    asked = Key("two")

    def make_the_change() -> None:
        truth[0] = "new"
        if change == "invalidate":
            cache.invalidate(Key("two"))
            function.invalidate(Key("two"))
        elif change == "invalidate_tags":
            cache.invalidate_tags("a")
        elif change == "clear" or way == "load":
            cache.clear()
        else:
            function.cache_clear()

    setattr(asked, moment, at_the(number, make_the_change))
    load(asked)
    asked.when_hashed = asked.when_compared = None
    assert look(Key("two")) in {None, truth[0]}
    check_cache(cache)


@evictions
def test_failure_within_a_step_leaves_nothing_to_be_stored_later(eviction: str) -> None:
    """Rule I1: what was to be stored is stored or not before the step is over, whatever failed beside it."""
    cache: Cache[Any, Any] = Cache(maxsize=50, eviction=eviction)
    cache.set(Key("one"), 1)
    asked, refused = Key("two"), Key("three")
    for number in range(1, 13):
        refused.when_compared = refuse

        def store_more() -> None:
            for key in (refused, "later"):
                try:
                    cache.set(key, 1)
                except Refusal:
                    pass

        asked.when_compared = at_the(number, store_more)
        try:
            cache.set(asked, 1)
        except Refusal:
            pass
        asked.when_compared = refused.when_compared = None
        cache.invalidate("later")
        cache.set("another", 1)
        assert cache.get("later") is None
        cache.clear()
        assert len(cache) == 0
        cache.set(Key("one"), 1)
        check_cache(cache)


@pytest.mark.parametrize("way", ["invalidate", "set"])
@evictions
def test_invalidation_within_a_step_overtakes_what_waits_to_be_stored(way: str, eviction: str) -> None:
    """Rule I1: a load within a step is stored after it; what is invalidated until then overtakes it."""
    for moment, number in itertools.product(range(1, 8), range(1, 8)):
        cache: Cache[Any, Any] = Cache(maxsize=50, eviction=eviction)
        truth = ["old"]
        cache.set(Key("one"), 1)
        outer, hostile = Key("two"), Key("three")

        def change() -> None:
            truth[0] = "new"
            cache.invalidate("k")

        def load() -> None:
            hostile.when_hashed = at_the(moment, change)
            {"invalidate": cache.invalidate, "set": lambda key: cache.set(key, 1)}[way](hostile)
            cache.get_or_load("k", lambda: truth[0])

        outer.when_compared = at_the(number, load)
        cache.set(outer, 1)
        outer.when_compared = hostile.when_hashed = None
        assert cache.get("k") in {None, truth[0]}
        check_cache(cache)


@evictions
def test_invalidation_that_has_returned_is_not_undone_by_a_failure(eviction: str) -> None:
    """Rule I1: a key that is invalidated within a step is gone after it, whatever its code raises then."""
    for moment, number in itertools.product(range(1, 8), range(1, 8)):
        cache: Cache[Any, Any] = Cache(maxsize=50, eviction=eviction)
        cache.set(Key("one"), 1)
        cache.set(Key("victim"), "old")
        outer, victim, returned = Key("two"), Key("victim"), []

        def invalidate() -> None:
            victim.when_compared = at_the(moment, refuse)
            cache.invalidate(victim)
            returned.append(True)

        outer.when_compared = at_the(number, invalidate)
        try:
            cache.set(outer, 1)
        except Refusal:
            pass
        outer.when_compared = victim.when_compared = None
        assert not returned or cache.get(Key("victim")) is None
        check_cache(cache)


@pytest.mark.parametrize("moment", ["when_hashed", "when_compared"])
@pytest.mark.parametrize("change", ["invalidate_tags", "clear"])
@evictions
def test_failure_to_take_out_what_was_overtaken_does_not_serve_it(change: str, moment: str, eviction: str) -> None:
    """Rule I1: what was cleared while it was stored is dead, even if its key's code raises when it is to leave."""
    for number, later in itertools.product(range(1, 10), range(1, 5)):
        cache: Cache[Any, Any] = Cache(maxsize=50, eviction=eviction)
        truth = ["old"]
        cache.set(Key("one"), 1)
        asked, calls = Key("two"), [0]

        def act() -> None:
            calls[0] += 1
            if calls[0] == number:
                truth[0] = "new"
                cache.clear() if change == "clear" else cache.invalidate_tags("a")
            elif calls[0] == number + later:
                refuse()

        setattr(asked, moment, act)
        try:
            cache.get_or_load(asked, lambda: truth[0], tags=["a"])
        except Refusal:
            pass
        asked.when_hashed = asked.when_compared = None
        assert cache.get(Key("two")) in {None, truth[0]}
        check_cache(cache)


def test_interrupt_within_a_step_is_told_before_other_failures() -> None:
    """Ctrl+C in a key's code reaches the caller, whatever fails besides."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    told: set[type[BaseException]] = set()
    for number, (first, then) in itertools.product(range(1, 8), [(interrupt, refuse), (refuse, interrupt)]):
        cache: Cache[Any, Any] = Cache(maxsize=50)
        cache.set(Key("one"), 1)
        outer, one, other = Key("two"), Key("three"), Key("four")

        def store_both() -> None:
            cache.set(one, 1)
            cache.set(other, 1)
            one.when_compared, other.when_compared = first, then

        outer.when_compared = at_the(number, store_both)
        try:
            cache.set(outer, 1)
        except BaseException as error:
            told.add(type(error))
        outer.when_compared = one.when_compared = other.when_compared = None
        check_cache(cache)
    assert told == {KeyboardInterrupt}


class OneWay:
    """A key that invalidates itself whenever it is hashed."""

    is_at_it = False

    def __init__(self, cache: Cache[Any, Any]) -> None:
        self.cache = cache

    def __hash__(self) -> int:
        if not self.is_at_it:
            self.is_at_it = True
            self.cache.invalidate(self)
            self.is_at_it = False
        return 7


@evictions
def test_key_that_invalidates_itself_is_stored_or_not_and_the_step_ends(eviction: str) -> None:
    """Bounds: what such a key asks for in the middle of a step does not go on for ever."""
    cache: Cache[Any, Any] = Cache(maxsize=10, eviction=eviction)
    for _ in range(3):
        cache.set(OneWay(cache), 1)
        check_cache(cache)
    assert len(cache) == 0


def test_comparison_that_goes_on_for_ever_ends_with_a_recursion_error() -> None:
    """A key that looks itself up while it is compared runs out of stack, not out of the process."""
    cache: Cache[Any, Any] = Cache()
    function, _ = counting(cache)
    cache.set(Key("one"), 1)
    function(Key("one"))
    asked = Key("two")
    for look in (cache.get, function):
        asked.when_compared = lambda look=look: look(asked)
        with pytest.raises(RecursionError):
            look(asked)
    asked.when_compared = None
    assert cache.get(asked) is None
    check_cache(cache)


class Grudge:
    """A value that uses the cache when it dies."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


@pytest.mark.parametrize("mischief", ["get", "set", "invalidate", "clear", "tags", "load", "replace"])
@evictions
def test_value_that_uses_the_cache_when_it_dies_breaks_nothing(mischief: str, eviction: str) -> None:
    """Issue 5: a finalizer runs when its entry is evicted, replaced, invalidated, expired, cleared or collected."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=4, eviction=eviction, clock=clock, ttl=5, jitter=0)
    died: list[str] = []
    function, _ = counting(cache)

    def act() -> None:
        died.append(mischief)
        match mischief:
            case "get":
                cache.get("a")
            case "set":
                cache.set(("dead", len(died)), 1)
            case "invalidate":
                cache.invalidate("a", "b")
            case "clear":
                if len(died) < 50:
                    cache.clear()
            case "tags":
                cache.invalidate_tags("t")
            case "load":
                function(len(died))
            case "replace":
                cache.set("a", "the dead one's")

    for number in range(30):
        cache.set("a", Grudge(act), tags=["t"])
        cache.set("a", 1)
        cache.set("b", Grudge(act), tags=["t"])
        cache.invalidate("b")
        cache.get_or_load(("c", number), lambda: Grudge(act))
        for other in range(6):
            cache.set((number, other), other)
        cache.set("d", Grudge(act))
        clock.advance(6)
        cache.set("e", 1)
        cycle: Any = Grudge(act)
        cycle.self = cycle
        cache.set("f", cycle)
        cache.clear()
        del cycle
    gc.collect()
    assert len(died) == 30 * 5
    check_cache(cache)


@pytest.mark.parametrize("is_hit", [True, False], ids=["hit", "miss"])
@both_colours
def test_clock_that_raises_reaches_the_caller(is_hit: bool, is_async: bool) -> None:
    """Issue 5: an error out of the clock is the caller's, and nothing is broken when the clock goes again."""
    now = [0.0]

    def clock() -> float:
        if now[0] < 0:
            raise Refusal("the clock has stopped")
        return now[0]

    cache: Cache[Any, Any] = Cache(clock=clock)
    function, calls = counting(cache, is_async)
    cache.set("a", 1)
    if is_hit:
        function("a")
    now[0] = -1
    looks: list[Callable[[Any], Any]] = [function, lambda key: cache.get_or_load(key, lambda: 2)]
    if is_hit:
        looks.append(cache.get)
    for look in looks:
        with pytest.raises(Refusal, match="stopped"):
            look("a" if is_hit else "new")
    now[0] = 1
    assert function("a") == ("value", 1)
    assert cache.get("a") == 1
    assert len(calls) == 1
    check_cache(cache)


def test_clock_that_uses_the_cache_breaks_nothing() -> None:
    """A clock is the user's code too: it may clear the cache between the look-up and the look at the time."""
    acts: list[Callable[[], object]] = []

    def clock() -> float:
        if acts:
            acts.pop()()
        return 1.0

    cache: Cache[Any, Any] = Cache(clock=clock)
    function, _ = counting(cache)
    for _ in range(20):
        cache.set("a", object())
        function("a")
        for look in (function, cache.get):
            acts.append(cache.clear)
            look("a")
            acts.clear()
            check_cache(cache)


@pytest.mark.parametrize("answer", [-1, 1.5, "heavy", None, True], ids=repr)
def test_weigher_that_is_wrong_or_raises_reaches_the_caller(answer: Any) -> None:
    """Issue 5: what a weigher raises, or its wrong answer, is an error of the store, and nothing is stored."""

    def weigh(value: Any) -> Any:
        if value == "refused":
            raise Refusal("this cannot be weighed")
        return answer if value == "wrong" else 2

    cache: Cache[Any, Any] = Cache(max_weight=10, weigher=weigh)
    function = cache.cached(lambda value: value)
    for store in (lambda value: cache.set(1, value), lambda value: cache.get_or_load(1, lambda: value), function):
        with pytest.raises(Refusal):
            store("refused")
        if answer is not True:
            with pytest.raises((TypeError, ValueError)):
                store("wrong")
    assert (len(cache), cache.stats().weight) == (0, 0)
    function("right")
    assert cache.stats().weight == 2
    check_cache(cache)


def test_weight_beyond_what_an_integer_of_c_holds_is_too_heavy() -> None:
    """A weight is a Python int of any size."""
    cache: Cache[Any, Any] = Cache(max_weight=10, weigher=lambda value: value)
    for weight in (1 << 40, 1 << 63, 1 << 64, 1 << 200):
        cache.set(1, weight)
        assert cache.get(1) is None
    cache.set(1, 3)
    assert cache.stats().weight == 3
    check_cache(cache)


# What is left behind --------------------------------------------------------------------------------------------------


def test_references_are_flat_whatever_keys_do(implementation: Implementation) -> None:
    """Issue 5: errors and mischief in the middle of a look-up lose no reference and keep none."""
    cache: Cache[Any, Any] = Cache(maxsize=16)
    function = cache.cached(lambda key: "value")
    stored, asked = Key("one"), Key("two")

    def round_of_all() -> None:
        for way, use in using(cache, function).items():
            if way == "write":
                continue
            for act in (refuse, cache.clear, lambda: cache.invalidate(stored), None):
                for moment in ("when_hashed", "when_compared"):
                    cache.set(stored, "one", tags=["a"])
                    function(stored)
                    setattr(asked, moment, None if act is None else once(act))
                    try:
                        use(asked)
                    except Refusal:
                        pass
                    asked.when_hashed = asked.when_compared = None
        cache.clear()
        function.cache_clear()

    round_of_all()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (stored, asked, cache.policy)]
    for _ in range(20):
        round_of_all()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in (stored, asked, cache.policy)]
    if implementation.name == "compiled":
        assert after == before
    else:  # whose queues skip what has left, and drop it by and by
        assert all(count < earlier + 200 for count, earlier in zip(after, before, strict=True))


def test_key_and_value_die_with_their_entry(implementation: Implementation) -> None:
    """What has left the table keeps no value alive; the pure queues may hold a few entries' keys a little longer."""

    class Thing:
        pass

    cache: Cache[Any, Any] = Cache(maxsize=2)
    function = cache.cached(lambda key: Thing())
    keys = [Thing() for _ in range(5)]
    dead = [weakref.ref(key) for key in keys if implementation.name == "compiled"]
    for key in keys:
        cache.set(key, Thing())
        function(key)
        dead.append(weakref.ref(function(key)))
    cache.clear()
    del key
    keys.clear()
    gc.collect()
    assert [reference() for reference in dead] == [None] * len(dead)


SMOKE = """
import faulthandler, gc, itertools, random
faulthandler.enable()
from credenza import Cache

rng = random.Random(5)
cache = Cache(maxsize=40, eviction={eviction!r})

class Hostile:
    def __init__(self, number):
        self.number = number
    def __hash__(self):
        trouble()
        return self.number % 7
    def __eq__(self, other):
        trouble()
        return self.number == getattr(other, "number", None)
    def __del__(self):
        trouble()

depth = [0]

def trouble():
    if depth[0] > 3 or rng.random() > 0.05:
        return
    depth[0] += 1
    try:
        step()
    finally:
        depth[0] -= 1
    if depth[0] and rng.random() < 0.2:
        raise KeyError("hostile")

@cache.cached
def one(key):
    return Hostile(rng.randrange(90))

@cache.cached(tags=["t"])
def tagged(key, other=1):
    return Hostile(rng.randrange(90))

numbers = itertools.count(1000)

def step():
    key = Hostile(rng.randrange(90) if not depth[0] else next(numbers))  # what waits for itself would wait for ever
    match rng.randrange(10):
        case 0: cache.set(key, Hostile(rng.randrange(90)), tags=["t"])
        case 1: cache.get(key)
        case 2: one(key)
        case 3: one(key=key)
        case 4: tagged(key)
        case 5: cache.invalidate(key)
        case 6: cache.invalidate_tags("t")
        case 7: cache.get_or_load(key, lambda: Hostile(1))
        case 8: one.invalidate(key)
        case 9: cache.clear() if rng.random() < 0.1 else gc.collect(0)

import sys
sys.unraisablehook = lambda unraisable: None
for _ in range(6000):
    try:
        step()
    except KeyError:
        pass
depth[0] = 100
cache.clear()
print("survived", len(cache))
"""


@evictions
def test_process_survives_thousands_of_hostile_steps(eviction: str, implementation: Implementation) -> None:
    """Issue 5: nothing crashes, in a process of its own that would tell where."""
    done = implementation.run(SMOKE.format(eviction=eviction), "-X", "faulthandler")
    assert (done.returncode, done.stdout.strip()) == (0, "survived 0"), done.stderr[-3_000:]


def test_missing_may_be_a_key_and_an_argument() -> None:
    """The sentinel of the package is an object like any other where the user puts it."""
    cache: Cache[Any, Any] = Cache()
    function, calls = counting(cache)
    cache.set(MISSING, 1)
    assert cache.get(MISSING) == 1
    assert function(MISSING) == function(MISSING)
    assert len(calls) == 1
