"""Two caches, each over one implementation of the table, to which the same is done: what users see is the same."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.memory.implementations import WHY_SKIPPED, Implementation, both, chosen
from tests.memory.test_same_behaviour import outcome
from tests.support.invariants import check_cache

from credenza import MISSING, Cache, Event, Loaded, NotFound
from credenza.testing import FakeClock

KEYS = st.one_of(st.integers(0, 8), st.sampled_from([1.0, True, "a", ("a", 1), None, ""]))
TAGS = st.lists(st.sampled_from(["all", "x", "y", "number:1"]), max_size=2)
NUMBERS = st.one_of(st.integers(0, 5), st.sampled_from([1.0, True, "2"]))
RESULTS = st.sampled_from(["value", "loaded", "loaded with tags", "kept not", "none", "not found", "error"])

FUNCTIONS = (
    "none",
    "one",
    "default",
    "many",
    "positional",
    "typed",
    "template",
    "tagged",
    "keywords",
    "stale",
    "async",
)

CALLS = st.tuples(
    st.sampled_from(FUNCTIONS),
    st.lists(NUMBERS, max_size=3),
    st.dictionaries(st.sampled_from(["number", "other", "third", "wrong"]), NUMBERS, max_size=2),
)


class Caller:
    """A cache of one implementation, its cached functions, and what they are to answer."""

    def __init__(self, implementation: Implementation, seed: int, with_listener: bool, **options: Any) -> None:
        self.implementation = implementation
        self.clock = FakeClock(100.0)
        self.events: list[tuple[str, Any, Any]] = []
        self.answer: tuple[str, int] = ("value", 0)
        self.calls: list[Any] = []
        with chosen(implementation):
            if options.get("max_weight") is not None:
                options["weigher"] = lambda value: value[1] % 5 if isinstance(value, tuple) else 1
            self.cache: Cache[Any, Any] = Cache(clock=self.clock, ttl=10, error_backoff=0.5, **options)
            self.cache._engine.state.random = random.Random(seed).random
            self.functions = self._functions()
        if with_listener:
            self.cache.subscribe(self._note)

    def _note(self, event: Event) -> None:
        key = event.key
        place = repr(key[0]) if isinstance(key, tuple) and len(key) == 2 and not isinstance(key[0], str) else None
        self.events.append((str(event.kind), place or repr(key), event.detail))

    def load(self, *arguments: Any) -> Any:
        """Do what the step says: return a value, or raise."""
        self.calls.append(arguments)
        what, number = self.answer
        value = (what, number, arguments)
        match what:
            case "loaded":
                return Loaded(value, ttl=3)
            case "loaded with tags":
                return Loaded(value, ttl=None, tags=["x", "all"])
            case "kept not":
                return Loaded(value, ttl=0)
            case "none":
                return None
            case "not found":
                raise NotFound(f"nothing is number {number}")
            case "error":
                raise ConnectionError(f"no connection, number {number}")
        return value

    def _functions(self) -> dict[str, Callable[..., Any]]:
        cached, load = self.cache.cached, self.load

        def none() -> Any:
            return load("none")

        def one(number: Any) -> Any:
            return load("one", number)

        def default(number: Any, other: Any = 1, third: Any = 2) -> Any:
            return load("default", number, other, third)

        def many(number: Any, other: Any, third: Any) -> Any:
            return load("many", number, other, third)

        def positional(number: Any, /, other: Any = 3) -> Any:
            return load("positional", number, other)

        def keywords(number: Any = 1, *rest: Any, other: Any = 2, **named: Any) -> Any:
            return load("keywords", number, rest, other, sorted(named.items()))

        async def later(number: Any, other: Any = 1) -> Any:
            return load("async", number, other)

        return {
            "none": cached(none),
            "one": cached(one),
            "default": cached(default),
            "many": cached(ttl="4s")(many),
            "positional": cached(positional),
            "typed": cached(typed=True)(one),
            "template": cached(key="one:{number}", tags=["number:{number}"])(one),
            "tagged": cached(tags=["all", "number:{number}"])(one),
            "keywords": cached(keywords),
            "stale": cached(stale_if_error=5, ttl=2)(one),
            "async": cached(later),
        }


def _same(value: Any) -> Any:
    """Return something that equals its like only if the types are alike, too."""
    if isinstance(value, (tuple, list)):
        return type(value).__name__, [_same(part) for part in value]
    if isinstance(value, dict):
        return "dict", [(_same(key), _same(part)) for key, part in value.items()]
    return type(value).__name__, value if not dataclasses.is_dataclass(value) else repr(value)


class Machine(RuleBasedStateMachine):
    """Two caches, to which the same is done."""

    eviction = "s3fifo"

    @initialize(
        maxsize=st.one_of(st.none(), st.integers(1, 12)),
        max_weight=st.one_of(st.none(), st.integers(3, 20)),
        idle=st.sampled_from([None, None, 3]),
        negative=st.sampled_from([0, 0, 2]),
        jitter=st.sampled_from([0, 0.1, 1.0]),
        windows=st.sampled_from([{}, {}, {"stale_if_error": 4}]),
        with_listener=st.booleans(),
        seed=st.integers(0, 9),
    )
    def begin(
        self,
        maxsize: int | None,
        max_weight: int | None,
        idle: int | None,
        negative: int,
        jitter: float,
        windows: dict[str, Any],
        with_listener: bool,
        seed: int,
    ) -> None:
        implementations = both()
        assert implementations is not None
        options = {"maxsize": maxsize, "max_weight": max_weight, "eviction": self.eviction, "idle_ttl": idle}
        options |= {"negative_ttl": negative, "jitter": jitter, **windows}
        self.callers = [Caller(choice, seed, with_listener, **options) for choice in implementations]
        self.loop = asyncio.new_event_loop()
        self.numbers = 0

    def both(self, step: Callable[[Caller], Any]) -> None:
        """Take a step with both caches and compare what comes of it."""
        results = []
        for caller in self.callers:
            with chosen(caller.implementation):
                results.append(outcome(lambda caller=caller: _same(step(caller))))
        assert results[1] == results[0]

    def answer(self, what: str) -> None:
        self.numbers += 1
        for caller in self.callers:
            caller.answer = (what, self.numbers)

    # By hand ----------------------------------------------------------------------------------------------------------

    @rule(key=KEYS, tags=TAGS, ttl=st.sampled_from([1, 5, None]))
    def set(self, key: Any, tags: list[str], ttl: float | None) -> None:
        self.numbers += 1
        value = ("set", self.numbers)
        self.both(lambda caller: caller.cache.set(key, value, ttl=ttl, tags=tags))

    @rule(keys=st.lists(KEYS, max_size=4))
    def set_many(self, keys: list[Any]) -> None:
        self.numbers += 1
        values = {key: ("set", self.numbers + number) for number, key in enumerate(keys)}
        self.both(lambda caller: caller.cache.set_many(values))

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        self.both(
            lambda caller: (caller.cache.get(key, MISSING) is MISSING, caller.cache.get(key), key in caller.cache)
        )

    @rule(key=KEYS, what=RESULTS, tags=TAGS)
    def get_or_load(self, key: Any, what: str, tags: list[str]) -> None:
        self.answer(what)
        self.both(lambda caller: caller.cache.get_or_load(key, lambda: caller.load(key), tags=tags))

    @rule(key=KEYS, what=RESULTS)
    def fetch(self, key: Any, what: str) -> None:
        self.answer(what)
        self.both(lambda caller: caller.cache.fetch(key, lambda: caller.load(key)))

    @rule(keys=st.lists(KEYS, max_size=3))
    def invalidate(self, keys: list[Any]) -> None:
        self.both(lambda caller: caller.cache.invalidate(*keys))

    @rule(tags=TAGS)
    def invalidate_tags(self, tags: list[str]) -> None:
        self.both(lambda caller: caller.cache.invalidate_tags(*tags))

    @rule(key=KEYS, tags=TAGS)
    def write(self, key: Any, tags: list[str]) -> None:
        self.answer("value")

        def step(caller: Caller) -> Any:
            with caller.cache.writing(key, tags=tags):
                during = caller.cache.get_or_load(key, lambda: caller.load("during"))
                caller.cache.set(key, "while it is written")
            return during, caller.cache.get(key)

        self.both(step)

    @rule(chance=st.integers(0, 4))
    def clear(self, chance: int) -> None:
        if not chance:
            self.both(lambda caller: caller.cache.clear())

    @rule(seconds=st.sampled_from([0.1, 1, 2, 3, 11]))
    def let_time_pass(self, seconds: float) -> None:
        for caller in self.callers:
            caller.clock.advance(seconds)

    @rule(kind=st.sampled_from(["list", "tuple of a list"]))
    def use_what_has_no_hash(self, kind: str) -> None:
        key: Any = [] if kind == "list" else (1, [])
        self.both(lambda caller: caller.cache.get(key))
        self.both(lambda caller: caller.cache.set(key, 1))
        self.both(lambda caller: caller.cache.invalidate(key))
        self.both(lambda caller: caller.cache.get_or_load(key, lambda: 1))
        for name in FUNCTIONS:
            if name not in {"none", "async"}:
                self.both(lambda caller: caller.functions[name](key))

    # Cached functions -------------------------------------------------------------------------------------------------

    def call(self, name: str, what: str, *args: Any, **kwargs: Any) -> None:
        self.answer(what)

        def step(caller: Caller) -> Any:
            result = caller.functions[name](*args, **kwargs)
            return self.loop.run_until_complete(result) if name == "async" else result

        self.both(step)

    @rule(call=CALLS, what=RESULTS)
    def call_with_whatever(self, call: tuple[str, list[Any], dict[str, Any]], what: str) -> None:
        name, args, kwargs = call
        self.call(name, what, *args, **kwargs)

    @rule(name=st.sampled_from(FUNCTIONS), number=NUMBERS, what=st.sampled_from(["value", "value", "loaded", "error"]))
    def call_with_one(self, name: str, number: Any, what: str) -> None:
        self.call(name, what, *(() if name == "none" else (number,)))

    @rule(number=NUMBERS, what=RESULTS, form=st.integers(0, 4))
    def call_in_every_form(self, number: Any, what: str, form: int) -> None:
        forms: list[tuple[list[Any], dict[str, Any]]] = [
            ([number], {}),
            ([], {"number": number}),
            ([number, 1], {}),
            ([number], {"third": 2}),
            ([], {"other": 1, "number": number}),
        ]
        args, kwargs = forms[form]
        self.call("default", what, *args, **kwargs)

    @rule(call=CALLS, helper=st.sampled_from(["invalidate", "peek", "key_for", "refresh"]), what=RESULTS)
    def ask_a_helper(self, call: tuple[str, list[Any], dict[str, Any]], helper: str, what: str) -> None:
        name, args, kwargs = call
        if name == "async" and helper == "refresh":
            return
        self.answer(what)

        def step(caller: Caller) -> Any:
            result = getattr(caller.functions[name], helper)(*args, **kwargs)
            return repr(result) if helper == "key_for" else result

        self.both(step)

    @rule(name=st.sampled_from(FUNCTIONS), chance=st.integers(0, 2))
    def clear_a_function(self, name: str, chance: int) -> None:
        if not chance:
            self.both(lambda caller: caller.functions[name].cache_clear())  # type: ignore[attr-defined]  # a helper

    # What always holds ------------------------------------------------------------------------------------------------

    @invariant()
    def both_look_the_same(self) -> None:
        if not hasattr(self, "callers"):
            return
        first, second = [
            (
                dataclasses.astuple(caller.cache.stats()),
                caller.events,
                caller.calls,
                [caller.functions[name].cache_info() for name in FUNCTIONS],  # type: ignore[attr-defined]  # a helper
            )
            for caller in self.callers
        ]
        assert second == first
        for caller in self.callers:
            assert type(caller.cache._engine.state.table) is caller.implementation.Table
            check_cache(caller.cache)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()


class LruMachine(Machine):
    eviction = "lru"


@pytest.mark.skipif(both() is None, reason=WHY_SKIPPED)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("machine", [Machine, LruMachine], ids=["s3fifo", "lru"])
def test_caches_to_which_the_same_is_done_are_the_same(machine: type[Machine]) -> None:
    """Issue 5: values, errors, events, counters and calls of the source do not tell which table is below."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # of Hypothesis
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
