"""The table against a dictionary with a clock: whatever is done, in whatever order, both say the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.support.invariants import check_cache

from credenza import MISSING, Cache, Event, Loaded, NotFound
from credenza.testing import FakeClock

KEYS = st.integers(0, 11)
TAGS = st.lists(st.sampled_from("abcd"), max_size=3, unique=True)
TTLS = st.sampled_from([1, 3, 7, 50, None])
WEIGHTS = st.integers(0, 6)


@dataclasses.dataclass
class Record:
    """What the dictionary knows about a value."""

    value: tuple[int, int]  # a number of its own, and its weight
    tags: frozenset[str]
    fresh_until: float
    serve_until: float
    read_at: float
    is_absent: bool = False


class Machine(RuleBasedStateMachine):
    """A cache and a dictionary. The dictionary decides everything but who is evicted, which the cache's events tell."""

    eviction = "s3fifo"

    @initialize(
        maxsize=st.one_of(st.none(), st.integers(1, 6)),
        max_weight=st.one_of(st.none(), st.integers(3, 15)),
        idle=st.one_of(st.none(), st.integers(2, 9)),
        stale=st.sampled_from([0, 4]),
        negative=st.sampled_from([0, 5]),
    )
    def begin(self, maxsize: int | None, max_weight: int | None, idle: int | None, stale: int, negative: int) -> None:
        self.clock = FakeClock()
        self.maxsize, self.max_weight = maxsize, max_weight
        self.idle, self.stale, self.negative = idle, stale, negative
        weigher = None if max_weight is None else lambda value: 1 if value is None else value[1]
        self.cache: Cache[Any, Any] = Cache(
            maxsize=maxsize,
            max_weight=max_weight,
            weigher=weigher,
            eviction=self.eviction,
            clock=self.clock,
            ttl=10,
            jitter=0,
            idle_ttl=idle,
            stale_if_error=stale,
            negative_ttl=negative,
        )
        self.model: dict[int, Record] = {}
        self.uses: list[int] = []  # for LRU: keys in the order of their last use
        self.evicted: list[int] = []
        self.numbers = iter(range(1_000_000))
        self.cache.subscribe(self.note)

    def note(self, event: Event) -> None:
        if event.kind == "evicted":
            assert isinstance(event.key, int)
            self.evicted.append(event.key)
        elif event.kind == "expired":
            record = self.model.get(event.key)  # type: ignore[call-overload]  # an int
            assert record is None or not self.is_alive(record), "it was told expired, and is alive"

    # The dictionary ---------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.clock()

    def is_alive(self, record: Record) -> bool:
        idle_until = record.read_at + self.idle if self.idle else float("inf")
        return self.now < min(record.serve_until, idle_until)

    def is_fresh(self, key: int) -> bool:
        record = self.model.get(key)
        return record is not None and self.is_alive(record) and self.now < record.fresh_until

    def use(self, key: int) -> None:
        self.model[key].read_at = self.now
        self.touch(key)

    def touch(self, key: int) -> None:
        if key in self.uses:
            self.uses.remove(key)
        self.uses.append(key)

    def forget(self, key: int) -> None:
        self.model.pop(key, None)
        if key in self.uses:
            self.uses.remove(key)

    def stored(self, key: int, value: tuple[int, int], tags: list[str], ttl: float | None) -> None:
        """Note a store, and whoever had to go for it."""
        evicted, self.evicted = self.evicted, []
        if self.max_weight is not None and value[1] > self.max_weight:
            assert evicted == []
            self.forget(key)
            return
        fresh_until = float("inf") if ttl is None else self.now + ttl
        self.model[key] = Record(value, frozenset(tags), fresh_until, fresh_until + self.stale, self.now)
        self.touch(key)
        self.depart(evicted)

    def depart(self, evicted: list[int]) -> None:
        for key in evicted:
            assert key in self.uses, f"{key!r} was evicted, and was not there"
            if self.eviction == "lru":
                earlier = self.uses[: self.uses.index(key)]
                alive = [other for other in earlier if other in self.model and self.is_alive(self.model[other])]
                assert alive == [], f"{key!r} was evicted, and {alive} had been used before it"
            self.forget(key)

    def new(self, weight: int) -> tuple[int, int]:
        return next(self.numbers), weight

    # What is done -----------------------------------------------------------------------------------------------------

    @rule(key=KEYS, weight=WEIGHTS, tags=TAGS, ttl=TTLS)
    def set(self, key: int, weight: int, tags: list[str], ttl: float | None) -> None:
        value = self.new(weight)
        self.cache.set(key, value, ttl=ttl, tags=tags)
        self.stored(key, value, tags, ttl)

    @rule(keys=st.lists(KEYS, max_size=4, unique=True), weight=WEIGHTS, tags=TAGS)
    def set_many(self, keys: list[int], weight: int, tags: list[str]) -> None:
        for key in keys:  # one by one, as the events of one call cannot be told apart
            value = self.new(weight)
            self.cache.set_many({key: value}, tags=tags)
            self.stored(key, value, tags, 10)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        found = self.cache.get(key, MISSING)
        if self.is_fresh(key) and not self.model[key].is_absent:
            assert found == self.model[key].value
            self.use(key)
        else:
            assert found is MISSING

    @rule(key=KEYS)
    def look(self, key: int) -> None:
        assert (key in self.cache) == (self.is_fresh(key) and not self.model[key].is_absent)

    @rule(key=KEYS, weight=WEIGHTS, tags=TAGS, ttl=TTLS, with_loaded=st.booleans())
    def load(self, key: int, weight: int, tags: list[str], ttl: float | None, with_loaded: bool) -> None:
        value = self.new(weight)
        if with_loaded:
            call = lambda: self.cache.get_or_load(key, lambda: Loaded(value, ttl=ttl, tags=tags))  # noqa: E731
        else:
            tags = []
            ttl = 10
            call = lambda: self.cache.get_or_load(key, lambda: value)  # noqa: E731
        if self.is_fresh(key):
            if self.model[key].is_absent:
                with pytest.raises(NotFound):
                    call()
            else:
                assert call() == self.model[key].value
            self.use(key)
        else:
            assert call() == value
            self.stored(key, value, tags, ttl)

    @rule(key=KEYS)
    def fail(self, key: int) -> None:
        def loader() -> Any:
            raise ConnectionError

        record = self.model.get(key)
        if record is not None and self.is_alive(record) and not (record.is_absent and not self.is_fresh(key)):
            if record.is_absent:
                with pytest.raises(NotFound):
                    self.cache.get_or_load(key, loader)
            else:
                assert self.cache.get_or_load(key, loader) == record.value
            self.use(key)
            self.clock.advance(1)  # else the next load would wait for the end of `error_backoff`
        else:
            with pytest.raises(ConnectionError):
                self.cache.get_or_load(key, loader)

    @rule(key=KEYS)
    def find_nothing(self, key: int) -> None:
        def loader() -> Any:
            raise NotFound

        if self.is_fresh(key) and not self.model[key].is_absent:
            assert self.cache.get_or_load(key, loader) == self.model[key].value
            self.use(key)
            return
        was_fresh = self.is_fresh(key)
        with pytest.raises(NotFound):
            self.cache.get_or_load(key, loader)
        if was_fresh:
            self.use(key)
        elif self.negative:
            self.stored(key, (next(self.numbers), 1), [], self.negative)
            if key in self.model:
                self.model[key].is_absent = True
                self.model[key].serve_until = self.model[key].fresh_until
        else:
            self.forget(key)

    @rule(keys=st.lists(KEYS, max_size=3))
    def invalidate(self, keys: list[int]) -> None:
        self.cache.invalidate(*keys)
        for key in keys:
            self.forget(key)

    @rule(tags=st.lists(st.sampled_from("abcde"), max_size=2))
    def invalidate_tags(self, tags: list[str]) -> None:
        self.cache.invalidate_tags(*tags)
        for key in [key for key, record in self.model.items() if record.tags & set(tags)]:
            del self.model[key]  # it may still hold its place in the order of uses

    @rule(key=KEYS, tag=st.sampled_from("abcd"))
    def write(self, key: int, tag: str) -> None:
        with self.cache.writing(key, tags=[tag]):
            past_it = self.new(1)
            assert self.cache.get_or_load(key, lambda: past_it) == past_it
            self.cache.set(key, self.new(1))
            assert self.cache.get(key) is None
        self.forget(key)
        for other in [other for other, record in self.model.items() if tag in record.tags]:
            del self.model[other]

    @rule(chance=st.integers(0, 4))
    def clear(self, chance: int) -> None:
        if chance:
            return  # too often, and little would ever come together
        self.cache.clear()
        self.model.clear()
        self.uses.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 2, 3, 5, 11, 1_000]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What always holds ------------------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        if not hasattr(self, "cache"):
            return
        stats = self.cache.stats()
        assert self.maxsize is None or stats.size <= self.maxsize
        assert self.max_weight is None or stats.weight <= self.max_weight
        living = {key for key, record in self.model.items() if self.is_alive(record)}
        assert len(living) <= stats.size <= len(self.uses)
        assert self.evicted == [], "something was evicted, and nothing was stored"
        check_cache(self.cache)

    @invariant()
    def fresh_values_are_there(self) -> None:
        if hasattr(self, "cache"):
            fresh = {key for key in self.model if self.is_fresh(key) and not self.model[key].is_absent}
            assert {key for key in range(12) if key in self.cache} == fresh


class LruMachine(Machine):
    eviction = "lru"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("machine", [Machine, LruMachine], ids=["s3fifo", "lru"])
def test_table_is_a_dictionary_with_a_clock(machine: type[Machine]) -> None:
    """Issue 2: both evictions, weights, tags, ttl, idle ttl, stale windows and absences, in any order."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # of Hypothesis
        machine,
        settings=settings(
            max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
