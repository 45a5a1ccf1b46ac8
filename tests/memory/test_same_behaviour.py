"""Both implementations of the table do the same, step by step: what they find, whom they evict, what they raise."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.memory.implementations import WHY_SKIPPED, Implementation, both
from tests.support.invariants import check_table

from credenza import EventKind, Policy
from credenza.durations import FOREVER_NS
from credenza.memory.entry import DEAD

SECOND = 1_000_000_000

POLICIES = [Policy(), Policy(idle_ttl=3), Policy(stale_if_error=2), Policy(idle_ttl=2, stale_while_revalidate=5)]

PLACES = st.one_of(
    st.tuples(st.just("bare"), st.integers(0, 6)),
    st.tuples(st.sampled_from(["first", "second", "untagged"]), st.integers(0, 4)),
    st.sampled_from([("odd", 1.0), ("odd", True), ("odd", (1, 2)), ("odd", ("first", 1)), ("odd", None), ("odd", "")]),
)
TAGS = st.lists(st.sampled_from(["a", "b", "c", ("d", 1), 1, 1.0]), max_size=3)
LIVES = st.sampled_from([None, 0, 1, 2, 5, 40])
WHYS = st.sampled_from([None, EventKind.EXPIRED, EventKind.EVICTED])


class Unhashable:
    """A key or tag that cannot be one."""

    __hash__ = None  # type: ignore[assignment]  # on purpose


class Sour:
    """A key whose hash is the user's own, and raises."""

    def __hash__(self) -> int:
        raise LookupError("this key has no hash today")


WITHOUT_HASH: dict[str, Callable[[], Any]] = {
    "list": list,
    "dict": dict,
    "own": Unhashable,
    "raising": Sour,
    "tuple of a list": lambda: (1, []),
}
"""Keys that cannot be; made when they are needed, since Hypothesis would hash them."""


def outcome(step: Callable[[], Any]) -> tuple[str, Any]:
    """Return what a step returned, or what it raised, without addresses."""
    try:
        return "returned", step()
    except Exception as error:
        return type(error).__qualname__, re.sub(r"0x[0-9a-f]+", "0x", str(error))


class Side:
    """A table of one implementation, with what is in it by number."""

    def __init__(self, implementation: Implementation, **bounds: Any) -> None:
        self.make_entry = implementation.Entry
        self.table: Any = implementation.Table(**bounds)
        self.scopes = {name: implementation.Scope(name) for name in ("first", "second", "untagged")}
        self.scopes["untagged"].ignores_tags = True
        self.entries: dict[int, Any] = {}
        self.gone: list[Any] = []

    def key(self, place: tuple[str, Any]) -> Any:
        kind, slot = place
        return (self.scopes[kind], slot) if kind in self.scopes else slot

    def number(self, entry: Any) -> int | None:
        return None if entry is None else entry.value

    def shot(self) -> dict[str, Any]:
        """Return what can be told of the table."""
        table = self.table
        return {
            "size": table.size,
            "weight": table.weight,
            "epoch": table.epoch,
            "fresh": table.fresh_until_ns,
            "maxsize": table.maxsize,
            "touch": table.needs_touch,
            "gone": [(entry.value, entry.why, entry.fast_ns) for entry in table.gone],
            "living": sorted(entry.value for entry in table.living()),
            "bare": sorted(entry.value for entry in table.entries.values()),
            "scoped": [sorted(entry.value for entry in scope.entries.values()) for scope in self.scopes.values()],
            "lengths": [len(table.entries), *(len(scope.entries) for scope in self.scopes.values())],
            "entries": [self.looks_of(number) for number in sorted(self.entries)],
        }

    def looks_of(self, number: int) -> tuple[Any, ...]:
        """Return what can be told of an entry, whether or not it is still in the table."""
        entry = self.entries[number]
        queue = entry.queue if entry.fast_ns != DEAD else 0
        tags = tuple(tag.name for tag in entry.tags)
        read_ns = entry.read_ns if entry.policy.idle_ttl_ns else None  # as little of that
        times = entry.stored_ns, read_ns, entry.fresh_ns, entry.expire_ns, entry.fast_ns, entry.retry_ns, entry.load_ns
        epoch = entry.epoch if tags and queue else None  # nobody asks for that of others
        return number, queue, entry.freq, entry.weight, epoch, entry.deadline_ns(), times, tags, entry.failures


class Machine(RuleBasedStateMachine):
    """Two tables, to which the same is done."""

    eviction = "s3fifo"

    @initialize(
        maxsize=st.one_of(st.none(), st.integers(1, 12), st.just(25)),
        max_weight=st.one_of(st.none(), st.integers(1, 30)),
    )
    def begin(self, maxsize: int | None, max_weight: int | None) -> None:
        implementations = both()
        assert implementations is not None
        self.sides = [
            Side(implementation, maxsize=maxsize, max_weight=max_weight, eviction=self.eviction)
            for implementation in implementations
        ]
        self.now_ns = 50 * SECOND
        self.numbers = 0
        self.is_bounded = maxsize is not None or max_weight is not None

    def both(self, step: Callable[[Side], Any]) -> Any:
        """Take a step on both sides and compare what comes of it."""
        pure, compiled = [outcome(lambda side=side: step(side)) for side in self.sides]
        assert compiled == pure
        return pure

    def put(self, place: tuple[str, Any], weight: int, life: int | None, policy: Policy, tags: Iterable[Any]) -> None:
        self.numbers += 1
        number, now_ns = self.numbers, self.now_ns
        fresh_ns = FOREVER_NS if life is None else now_ns + life * SECOND

        def step(side: Side) -> None:
            entry = side.make_entry(side.key(place), number, policy, now_ns, fresh_ns, 7, weight)
            if policy.stale_window_ns:
                entry.expire_ns += policy.stale_window_ns
            if not policy.is_plain or side.table.needs_touch:
                entry.fast_ns = 0
            side.table.put(entry, tags, now_ns)
            side.entries[number] = entry

        self.both(step)

    @rule(place=PLACES, weight=st.integers(0, 7), life=LIVES, policy=st.sampled_from(POLICIES), tags=TAGS)
    def store(self, place: tuple[str, Any], weight: int, life: int | None, policy: Policy, tags: list[Any]) -> None:
        _, fits = self.both(lambda side: side.table.fits(weight))
        if fits:
            self.put(place, weight, life, policy, tuple(tags))

    @rule(places=st.lists(PLACES, min_size=2, max_size=12), life=LIVES)
    def store_many(self, places: list[tuple[str, Any]], life: int | None) -> None:
        for place in places:
            if self.sides[0].table.fits(1):
                self.put(place, 1, life, POLICIES[0], ())

    @rule(kind=st.sampled_from(sorted(WITHOUT_HASH)), is_scoped=st.booleans())
    def store_what_has_no_hash(self, kind: str, is_scoped: bool) -> None:
        self.put(("first" if is_scoped else "odd", WITHOUT_HASH[kind]()), 1, None, POLICIES[0], ())

    @rule(place=PLACES, kind=st.sampled_from(sorted(WITHOUT_HASH)), life=LIVES)
    def store_with_a_tag_that_has_no_hash(self, place: tuple[str, Any], kind: str, life: int | None) -> None:
        self.put(place, 1, life, POLICIES[0], (WITHOUT_HASH[kind](),))

    @rule(place=PLACES, bumps=st.integers(1, 4))
    def hit(self, place: tuple[str, Any], bumps: int) -> None:
        now_ns = self.now_ns

        def step(side: Side) -> Any:
            entry = side.table.find(side.key(place))
            if entry is None:
                return None
            is_alive = side.table.is_alive(entry, now_ns)
            is_quick = now_ns < entry.fast_ns and (not entry.tags or entry.epoch == side.table.epoch)
            if is_alive:
                for _ in range(bumps):
                    if entry.freq < 3:
                        entry.freq += 1
                entry.read_ns = now_ns
                if side.table.needs_touch:
                    side.table.touch(entry)
            return entry.value, is_alive, is_quick, entry.freq

        self.both(step)

    @rule(place=PLACES)
    def remove(self, place: tuple[str, Any]) -> None:
        self.both(lambda side: side.table.remove(side.key(place)))

    @rule(kind=st.sampled_from(sorted(WITHOUT_HASH)), is_scoped=st.booleans())
    def ask_for_what_has_no_hash(self, kind: str, is_scoped: bool) -> None:
        key = WITHOUT_HASH[kind]()
        place = ("first" if is_scoped else "odd", key)
        self.both(lambda side: side.table.find(side.key(place)))
        self.both(lambda side: side.table.remove(side.key(place)))
        self.both(lambda side: side.table.entries.get(key))
        self.both(lambda side: key in side.scopes["first"].entries)
        self.both(lambda side: side.table.count_of(key))
        if any(
            self.sides[0].table.count_of(tag) for tag in "abc"
        ):  # `dict.pop` of an empty one does not look at the key
            self.both(lambda side: side.table.invalidate_tag(key))

    @rule(data=st.data(), why=WHYS, is_new=st.booleans())
    def take_out(self, data: st.DataObject, why: Any, is_new: bool) -> None:
        """Whether or not it has left already."""
        if not self.numbers or not self.sides[0].entries:
            return
        numbers = sorted(self.sides[0].entries)
        number = data.draw(st.sampled_from(numbers[-5:] if is_new else numbers))
        self.both(lambda side: side.table.take_out(side.entries[number], why))

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        """Whether or not it has left already."""
        if self.sides[0].entries:
            number = data.draw(st.sampled_from(sorted(self.sides[0].entries)))
            self.both(lambda side: side.table.touch(side.entries[number]))

    @rule(tag=st.sampled_from(["a", "b", "c", ("d", 1), 1, True, "nobody's"]))
    def invalidate_tag(self, tag: Any) -> None:
        self.both(lambda side: side.table.invalidate_tag(tag))

    @rule(seconds=st.sampled_from([0.001, 0.5, 1, 2, 3, 7, 60]))
    def let_time_pass(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)

    @rule(seconds=st.sampled_from([None, -1, 0, 5]))
    def prove(self, seconds: int | None) -> None:
        until_ns = FOREVER_NS if seconds is None else self.now_ns + seconds * SECOND

        def step(side: Side) -> None:
            side.table.fresh_until_ns = until_ns

        self.both(step)

    @rule()
    def begin_an_epoch(self) -> None:
        def step(side: Side) -> None:
            side.table.epoch += 1

        self.both(step)

    @rule(data=st.data(), failures=st.integers(0, 5))
    def note_a_failure(self, data: st.DataObject, failures: int) -> None:
        """What a failed refresh leaves on an entry."""
        if not self.sides[0].entries:
            return
        number, now_ns = data.draw(st.sampled_from(sorted(self.sides[0].entries))), self.now_ns

        def step(side: Side) -> tuple[Any, ...]:
            entry = side.entries[number]
            entry.failures, entry.retry_ns, entry.seen = failures, now_ns + failures, bytes([failures])
            return entry.failures, entry.retry_ns, entry.seen, entry.is_absent

        self.both(step)

    @rule()
    def bury(self) -> None:
        def step(side: Side) -> None:
            gone, side.table.gone = side.table.gone, []
            side.gone.extend(gone)

        self.both(step)

    @rule(chance=st.integers(0, 3))
    def clear(self, chance: int) -> None:
        if chance:
            return
        numbers = sorted(entry.value for entry in self.sides[0].table.living())
        for number in numbers:
            self.both(lambda side: side.table.take_out(side.entries[number], None))

    @invariant()
    def both_look_the_same(self) -> None:
        if not hasattr(self, "sides"):
            return
        self.both(lambda side: side.shot())
        now_ns = self.now_ns
        for place in [("bare", slot) for slot in range(7)] + [("first", slot) for slot in range(5)]:
            self.both(lambda side: side.number(side.table.find(side.key(place))))
        for tag in ["a", "b", "c", ("d", 1), 1, "nobody's"]:
            self.both(lambda side: side.table.count_of(tag))
        self.both(lambda side: [side.table.is_alive(entry, now_ns) for entry in side.entries.values()])
        for side in self.sides:
            check_table(side.table)

    def teardown(self) -> None:
        """Evict all that is left, so that the order shows in which it would have gone."""
        if not hasattr(self, "sides") or not self.is_bounded:
            return
        for number in range(40):
            if self.sides[0].table.fits(2):
                self.put(("bare", 1_000 + number), 2, None, POLICIES[0], ())
        self.both_look_the_same()


class LruMachine(Machine):
    eviction = "lru"


@pytest.mark.skipif(both() is None, reason=WHY_SKIPPED)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("machine", [Machine, LruMachine], ids=["s3fifo", "lru"])
def test_tables_to_which_the_same_is_done_are_the_same(machine: type[Machine]) -> None:
    """Issue 5: results, order of eviction, sizes, times and errors are the same to the letter."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # of Hypothesis
        machine,
        settings=settings(
            max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.skipif(both() is None, reason=WHY_SKIPPED)
@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
@pytest.mark.parametrize("maxsize", [1, 2, 10, 64, 500])
@pytest.mark.parametrize("seed", range(3))
def test_long_traces_evict_in_the_same_order(eviction: str, maxsize: int, seed: int) -> None:
    """Issue 5: thousands of requests, scans among them, with weights: both let the same go at the same time."""
    implementations = both()
    assert implementations is not None
    orders = []
    for implementation in implementations:
        rng = random.Random(seed)
        side = Side(implementation, maxsize=maxsize, max_weight=None if seed else maxsize * 3, eviction=eviction)
        order: list[Any] = []
        for number in range(6_000):
            key: Any = min(int(rng.paretovariate(0.6)), 4_000) if number % 900 > 100 else number
            found = side.table.find(key)
            weight = rng.randrange(1, 4) if not seed else 1
            if found is not None:
                found.freq = min(found.freq + 1, 3)
                side.table.touch(found)
                continue
            entry = side.make_entry(key, number, POLICIES[0], 0, FOREVER_NS, 0, weight)
            side.table.put(entry, (), 0)
            order.extend(entry.key for entry in side.table.gone)
            side.table.gone = []
        check_table(side.table)
        orders.append((order, sorted(entry.key for entry in side.table.living()), side.table.weight))
    assert orders[0] == orders[1]


BOUNDS: list[dict[str, Any]] = [
    {"maxsize": bound, "max_weight": None, "eviction": "s3fifo"} for bound in (0, -1, True, 1.5, "x", None, 1, 1 << 40)
]
BOUNDS += [{"maxsize": None, "max_weight": bound, "eviction": "lru"} for bound in (0, -7, False, 2.0, b"x", 1)]
BOUNDS += [{"maxsize": 1, "max_weight": None, "eviction": name} for name in ("fifo", None, 1, "S3FIFO", "")]
BOUNDS += [{"maxsize": 1, "eviction": "lru"}, {"maxsize": 1, "max_weight": 1}, {}]


@pytest.mark.skipif(both() is None, reason=WHY_SKIPPED)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_table_checks_its_options_in_the_same_words(bounds: dict[str, Any]) -> None:
    """Errors: an option that cannot be right is refused with the same class and the same words."""

    def made(implementation: Implementation) -> tuple[str, Any]:
        kind, result = outcome(lambda: implementation.Table(**bounds))
        return kind, (result.maxsize, result.needs_touch) if kind == "returned" else result

    implementations = both()
    assert implementations is not None
    pure, compiled = map(made, implementations)
    assert compiled[0] == pure[0]
    if pure[0] != "TypeError":  # an argument that is not there, which the two languages word differently
        assert compiled == pure
