"""Rule B2: both policies do exactly what independent implementations of them do."""

from __future__ import annotations

import bisect
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.invariants import check_cache

from credenza import Cache

# Reference implementations, written from the papers and for being read ------------------------------------------------


class ReferenceLru:
    """The least recently used key goes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: OrderedDict[Hashable, None] = OrderedDict()

    def asks_for(self, key: Hashable) -> bool:
        """Tell whether a request for `key` is a hit, and let it in if it is not."""
        is_hit = key in self._order
        self._order[key] = None
        self._order.move_to_end(key)
        if len(self._order) > self._size:
            self._order.popitem(last=False)
        return is_hit


class ReferenceS3Fifo:
    """S3-FIFO with a small queue that finds its own size, as docs/design/eviction.md says it, with lists.

    Times are counted in departures from the small queue, shares of the capacity in parts of 64.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._share = max(64, size * 64 // 10)
        self._window: list[Hashable] = []  # the newest of the small queue, whose hits do not count
        self._small: list[Hashable] = []  # the others of the small queue
        self._main: list[Hashable] = []
        self._looked: dict[
            Hashable, int
        ] = {}  # of the main queue: when they were let in, or last found to have been hit
        self._hits: dict[Hashable, int] = {}
        self._left_small: list[Hashable] = []  # all that ever left the small queue, in order
        self._left_main: list[Hashable] = []
        self._ghosts: dict[Hashable, tuple[str, int]] = {}  # from which queue a key left, as the how many-th
        self._has_evicted = False

    def asks_for(self, key: Hashable) -> bool:
        """Tell whether a request for `key` is a hit, and let it in if it is not."""
        if key in self._hits:
            self._hits[key] = min(self._hits[key] + 1, 3)
            return True
        if self._count() >= self._size:
            self._evict()
        self._let_in(key)
        self._hits[key] = 0
        return False

    def _count(self) -> int:
        return len(self._window) + len(self._small) + len(self._main)

    def _small_size(self) -> int:
        return len(self._window) + len(self._small)

    def _evict(self) -> None:
        self._has_evicted = True
        while True:
            if self._main and self._small_size() < self._share // 64:
                key = self._main[0]
                if not self._hits[key]:
                    break
                self._spare_oldest()
                continue
            self._fill_small()
            key = self._small[0]
            if not self._hits[key]:
                break
            self._hits[self._small.pop(0)] = 0
            self._append_to_main(key)
        del self._hits[key]
        if key in self._main:
            self._main.remove(key)
            self._left_main.append(key)
            self._ghosts[key] = ("main", len(self._left_main))
        else:
            self._small.remove(key)
            self._left_small.append(key)
            self._ghosts[key] = ("small", len(self._left_small))
            self._move_share(-2)

    def _let_in(self, key: Hashable) -> None:
        queue, when = self._ghosts.pop(key, ("", 0))
        is_welcome = False
        if queue == "small" and when > len(self._left_small) - self._size * (6 if is_sampled(key) else 2):
            self._move_share(+self._step(len(self._left_small) - when))
            if self._main and self._hits[self._main[0]]:
                self._spare_oldest()
            is_welcome = not self._main or when - self._small_size() >= self._looked[self._main[0]]
        elif queue == "main" and when > len(self._left_main) - self._size / 2:
            self._move_share(-self._step(len(self._left_main) - when))
        if is_welcome or (not self._has_evicted and self._small_size() >= self._share // 64):
            self._append_to_main(key)
            return
        self._window.append(key)
        self._hits[key] = 0
        if self._has_evicted and self._small_size() > self._share // 64:
            self._fill_small()
            oldest = self._small.pop(0)
            if self._hits[oldest] or not self._main:
                self._hits[oldest] = 0
                self._append_to_main(oldest)
            else:
                self._looked[oldest] = self._looked[self._main[0]]
                self._main.insert(0, oldest)
        while len(self._window) > max(1, min(self._small_size() // 2, self._count() // 16)):
            self._leave_window()

    def _fill_small(self) -> None:
        if not self._small:
            self._leave_window()

    def _leave_window(self) -> None:
        self._hits[self._window[0]] = 0
        self._small.append(self._window.pop(0))

    def _append_to_main(self, key: Hashable) -> None:
        self._looked[key] = len(self._left_small)
        self._main.append(key)

    def _spare_oldest(self) -> None:
        key = self._main.pop(0)
        self._hits[key] //= 2
        self._append_to_main(key)

    def _step(self, age: int) -> int:
        near = max(1, self._size // 16)
        if age < near:
            return 128
        return 64 * near // (age + 1) if age < self._size else 0

    def _move_share(self, by: int) -> None:
        least, most = max(64, self._size), max(64, self._size * 64 * 15 // 16)
        self._share = min(max(self._share + by, least), most)


def is_sampled(key: Hashable) -> bool:
    """Tell whether a key is among the one in eight that are remembered for longer."""
    return not hash(key) * 0x9E3779B97F4A7C15 >> 32 & 7


REFERENCES: dict[str, Callable[[int], Any]] = {"lru": ReferenceLru, "s3fifo": ReferenceS3Fifo}

# Traces ---------------------------------------------------------------------------------------------------------------


def zipf(keys: int, length: int, skew: float, seed: int) -> list[int]:
    """Popular keys are asked for often, as on the web."""
    bounds = list(accumulate((rank + 1) ** -skew for rank in range(keys)))
    rng = random.Random(seed)
    return [bisect.bisect(bounds, rng.random() * bounds[-1]) for _ in range(length)]


def scans(seed: int) -> list[int]:
    """A popular set, with long scans of keys that are asked for once in between."""
    rng, trace = random.Random(seed), []
    for number in range(20):
        trace += zipf(200, 300, 0.9, seed + number)
        trace += range(10_000 + number * 300, 10_000 + number * 300 + rng.randrange(300))
    return trace


def loop(keys: int, times: int) -> list[int]:
    """A loop that is longer than the cache."""
    return list(range(keys)) * times


def drift(seed: int) -> list[int]:
    """Popularity that moves on."""
    return [key + position // 20 for position, key in enumerate(zipf(150, 6_000, 1.1, seed))]


TRACES = {
    "zipf 0.8": zipf(1_000, 8_000, 0.8, 1),
    "zipf 1.2": zipf(1_000, 8_000, 1.2, 2),
    "scans": scans(3),
    "loop": loop(120, 40),
    "drift": drift(4),
    "uniform": [random.Random(5).randrange(300) for _ in range(1)]
    + [random.Random(n).randrange(300) for n in range(5_000)],
}


def by_get_and_set(cache: Cache[Any, Any]) -> Callable[[Any], bool]:
    """Read with `get`, store with `set`."""

    def asks_for(key: Any) -> bool:
        if cache.get(key) is not None:
            return True
        cache.set(key, "value")
        return False

    return asks_for


def by_load(cache: Cache[Any, Any]) -> Callable[[Any], bool]:
    """Read and store with `get_or_load`."""
    loads: list[Any] = []

    def asks_for(key: Any) -> bool:
        before = len(loads)
        cache.get_or_load(key, lambda: loads.append(key) or "value")
        return len(loads) == before

    return asks_for


def by_function(cache: Cache[Any, Any]) -> Callable[[Any], bool]:
    """Call a cached function."""
    loads: list[Any] = []
    function = cache.cached(lambda key: loads.append(key) or "value")

    def asks_for(key: Any) -> bool:
        before = len(loads)
        function(key)
        return len(loads) == before

    return asks_for


def by_template(cache: Cache[Any, Any]) -> Callable[[Any], bool]:
    """Call a cached function with a template."""
    loads: list[Any] = []
    function = cache.cached(key="k:{key}")(lambda key: loads.append(key) or "value")

    def asks_for(key: Any) -> bool:
        before = len(loads)
        function(key)
        return len(loads) == before

    return asks_for


def by_bulk(cache: Cache[Any, Any]) -> Callable[[Any], bool]:
    """Read and store with bulk calls of one key."""
    loads: list[Any] = []

    def load(keys: Iterable[Any]) -> dict[Any, str]:
        loads.extend(keys)
        return dict.fromkeys(keys, "value")

    def asks_for(key: Any) -> bool:
        before = len(loads)
        cache.get_or_load_many([key], load)
        return len(loads) == before

    return asks_for


WAYS = [by_get_and_set, by_load, by_function, by_template, by_bulk]


@pytest.mark.parametrize("size", [1, 2, 5, 10, 50, 100])
@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
@pytest.mark.parametrize("eviction", REFERENCES)
def test_hits_are_those_of_the_reference(eviction: str, trace: list[int], size: int) -> None:
    """B2: request by request, what is a hit for the reference is a hit, and what is a miss is a miss."""
    reference = REFERENCES[eviction](size)
    asks_for = by_get_and_set(Cache(maxsize=size, eviction=eviction))
    ours = [asks_for(key) for key in trace]
    assert ours == [reference.asks_for(key) for key in trace]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("eviction", REFERENCES)
def test_every_way_to_read_counts_for_eviction(eviction: str, way: Callable[[Any], Callable[[Any], bool]]) -> None:
    """B2: a hit is a hit, by whatever call; none of the hit paths hides it from eviction."""
    reference = REFERENCES[eviction](50)
    asks_for = way(Cache(maxsize=50, eviction=eviction))
    trace = TRACES["zipf 0.8"][:4_000] + TRACES["scans"][:2_000]
    names = [f"k:{key}" if way is by_template else key for key in trace]  # the hash decides which are sampled
    assert [asks_for(key) for key in trace] == [reference.asks_for(name) for name in names]


@pytest.mark.parametrize(
    "options", [{"idle_ttl": 1e6}, {"copy": str}, {"early_refresh": 1e-9}, {"ttl": None}, {"stale_if_error": 5}]
)
@pytest.mark.parametrize("eviction", REFERENCES)
def test_options_do_not_change_what_is_evicted(eviction: str, options: dict[str, Any]) -> None:
    """B2: policies that take the longer hit path evict the same."""
    reference = REFERENCES[eviction](20)
    asks_for = by_load(Cache(maxsize=20, eviction=eviction, **options))
    trace = TRACES["scans"][:3_000]
    assert [asks_for(key) for key in trace] == [reference.asks_for(key) for key in trace]


@settings(deadline=None)
@given(
    trace=st.lists(st.integers(0, 25), max_size=150),
    size=st.integers(1, 15),
    eviction=st.sampled_from(sorted(REFERENCES)),
)
def test_hits_are_those_of_the_reference_on_any_trace(trace: list[int], size: int, eviction: str) -> None:
    """B2: the same for whatever trace can be thought of."""
    reference = REFERENCES[eviction](size)
    asks_for = by_get_and_set(Cache(maxsize=size, eviction=eviction))
    assert [asks_for(key) for key in trace] == [reference.asks_for(key) for key in trace]


@pytest.mark.parametrize("eviction", REFERENCES)
def test_unit_weights_evict_as_numbers_do(eviction: str) -> None:
    """B1, B2: bounded by weight with weights of one, LRU is the same, and S3-FIFO differs only in what it remembers."""
    size = 40
    by_weight: Cache[Any, Any] = Cache(maxsize=None, max_weight=size, weigher=lambda value: 1, eviction=eviction)
    by_both: Cache[Any, Any] = Cache(maxsize=size, max_weight=size, weigher=lambda value: 1, eviction=eviction)
    reference = REFERENCES[eviction](size)
    trace = TRACES["zipf 1.2"][:3_000]
    expected = [reference.asks_for(key) for key in trace]
    assert list(map(by_get_and_set(by_both), trace)) == expected
    ours = list(map(by_get_and_set(by_weight), trace))
    if eviction == "lru":
        assert ours == expected
    assert abs(sum(ours) - sum(expected)) < len(trace) * 0.05


def test_loop_that_is_longer_than_the_cache_keeps_what_it_holds() -> None:
    """B2: of a loop the cache holds as many keys as it has room for, but for a few places; LRU would hit none of it."""
    asks_for = by_get_and_set(Cache(maxsize=100))
    hits = [asks_for(key) for key in loop(150, 60)]
    assert sum(hits[-150 * 5 :]) >= 5 * 90


def test_small_queue_grows_for_keys_that_come_back_soon() -> None:
    """B2: what is read twice, with more keys in between than the small queue first has room for, comes to be hit."""
    asks_for = by_get_and_set(Cache(maxsize=200))
    hits = [asks_for(key) for number in range(100, 6_000) for key in (number, number - 70)]
    assert not any(hits[:100])
    assert sum(hits[-2_000:]) > 900


def test_hits_right_after_the_miss_do_not_count() -> None:
    """B2: keys that are read three times in a row and never again do not drive out what is read now and then."""
    asks_for = by_get_and_set(Cache(maxsize=160))
    for key in range(1_000, 1_200):
        asks_for(key)
    for _ in range(4):
        for key in range(100):
            asks_for(key)
    for key in range(2_000, 6_000):
        assert [asks_for(key) for _ in range(3)] == [False, True, True]
    assert sum(asks_for(key) for key in range(100)) >= 90


def test_share_of_the_small_queue_stays_within_its_bounds() -> None:
    """B2: however the small queue's share moves, both queues keep room; weights that are large count as costs."""
    cache: Cache[Any, Any] = Cache(maxsize=None, max_weight=1_000, weigher=lambda value: value)
    rng = random.Random(11)
    for step in range(20_000):
        key = rng.randrange(400) if step % 4_000 < 2_000 else step // 2
        if cache.get(key) is None:
            cache.set(key, rng.choice((0, 1, 5, 60)))
        if step % 1_000 == 0:
            check_cache(cache)


def test_scan_does_not_flush_what_is_popular() -> None:
    """B2: why S3-FIFO is the default: a scan through the small queue leaves the popular entries where they are."""
    cache: Cache[Any, Any] = Cache(maxsize=100)
    asks_for = by_get_and_set(cache)
    for _ in range(4):
        for key in range(60):
            asks_for(key)
    for key in range(1_000, 3_000):
        asks_for(key)
    assert sum(key in cache for key in range(50)) >= 49


def test_lru_evicts_by_the_last_use() -> None:
    """B2: `eviction="lru"` on request; reading, writing and loading are uses, looking is not."""
    cache: Cache[Any, Any] = Cache(maxsize=3, eviction="lru")
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    assert "b" in cache
    cache.set("d", "d")
    assert cache.get_many("abcd") == {"a": "a", "c": "c", "d": "d"}
    cache.get_or_load("a", lambda: "other")
    cache.set("c", "C")
    cache.set("e", "e")
    assert set(cache.get_many("abcde")) == {"a", "c", "e"}


@pytest.mark.parametrize("eviction", REFERENCES)
def test_invalidated_entries_do_not_count_as_evicted(eviction: str) -> None:
    """B2: what was taken out makes room; after it nothing living is evicted before its time."""
    cache: Cache[Any, Any] = Cache(maxsize=10, eviction=eviction)
    for round_ in range(50):
        for key in range(10):
            cache.set((round_, key), key)
        assert len(cache.get_many((round_, key) for key in range(10))) == 10
        cache.invalidate(*((round_, key) for key in range(10)))
        assert len(cache) == 0
    assert cache.stats().evictions == 0


def test_key_that_left_is_remembered_once() -> None:
    """B2: a key that comes back while it is in the ghost queue goes to the main queue, where a scan does not reach it."""
    cache: Cache[Any, Any] = Cache(maxsize=10)
    cache.set("back", 1)
    for key in range(10):
        cache.set(key, key)
    assert "back" not in cache
    cache.set("back", 2)
    for key in range(100, 140):
        cache.set(key, key)
    assert cache.get("back") == 2


def test_popular_entry_keeps_its_merits_when_it_is_written_again() -> None:
    """B2: a value that is refreshed or set again is as popular as the one before it, so the one without hits goes."""
    cache: Cache[Any, Any] = Cache(maxsize=3)
    for key in ("a", "popular", "b"):
        cache.set(key, 1)
    assert [cache.get("popular") for _ in range(3)] == [1, 1, 1]
    cache.set("popular", 2)
    for key in "cadedf":  # "a" and "d" come back from the ghost queue, so that two have to leave the main queue
        cache.set(key, 1)
    assert cache.get("popular") == 2
    assert cache.get_many("ab") == {}
