"""Troubles that were found by reading: keys, tags and clocks of the user's that do something else meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.memory.implementations import Implementation
from tests.support.waiting import run

from credenza import Cache
from credenza.testing import FakeClock

pytestmark = pytest.mark.usefixtures("implementation")


class Key:
    """Equal to others of its number; `meanwhile` is called by each comparison."""

    def __init__(self, number: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.number = number
        self.meanwhile = meanwhile

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.meanwhile()
        return isinstance(other, Key) and self.number == other.number


def test_comparison_that_counts_in_the_same_cache_ends() -> None:
    """Bounds: a key's `__eq__` may change the cache each time without the look-up going on for ever."""
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=None)
    comparisons: list[None] = []

    def count() -> None:
        comparisons.append(None)
        cache.set(f"comparison {len(comparisons)}", "counted")  # a new key: the table grows

    cache.set(Key(1, count), "value")
    for _ in range(30):
        assert cache.get(Key(1)) in {"value", None}
    assert len(comparisons) <= 100


def test_tag_invalidated_while_its_entry_is_stored_takes_it_out() -> None:
    """I2: an invalidation out of the `__hash__` of one tag reaches the entry that got another one already."""
    found = []
    for moment in range(1, 8):
        cache: Cache[Any, Any] = Cache(ttl=None)
        cache.set("holds the tag", 0, tags=["a"])
        hashed, moments = [0], []

        class Tag(str):
            __slots__ = ()

            def __eq__(self, other: object) -> bool:
                return str.__eq__(self, other)

            def __hash__(self) -> int:
                hashed[0] += 1  # used within the round
                if hashed[0] == moment:
                    cache.invalidate_tags("a")
                    moments.append(cache._engine.state.table.count_of("a"))
                return str.__hash__(self)

        cache.set("key", 1, tags=["a", Tag("b")])
        entry = cache._engine.state.table.find("key")
        assert entry is None or not entry.tags[0].is_dead
        found.append((bool(moments), cache.get("key")))
    assert set(found) >= {(True, None), (False, 1)}


def test_list_of_entries_is_whole_whatever_finalizers_store() -> None:
    """Issue 5: the collector may run a finalizer that stores something while the list is made."""
    cache: Cache[Any, Any] = Cache(maxsize=None, ttl=None)

    @cache.cached
    def load(number: int) -> int:
        return number

    class Cycle:
        left = 2_000

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            Cycle.left -= 1
            load(Cycle.left)
            if Cycle.left > 0:
                Cycle()

    scope = load.key_for(1)[0]  # type: ignore[index]  # a key of a scope is a pair
    lists = [[] for _ in range(200)]  # the interpreter keeps lists to use again; now it has none
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        Cycle()
        while Cycle.left > 0:
            listed = scope.entries.values()
            lists.append(listed if isinstance(listed, list) else [])
            if Cycle.left % 50 == 0:
                assert all(entry is not None for entry in list(listed))
            lists.append([])
    finally:
        gc.set_threshold(*threshold)
        Cycle.left = 0
    assert len(scope.entries) <= 2_001


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["plain", "tagged", "awaited"])
def test_interrupt_in_a_comparison_is_not_lost(kind: str, error: type[BaseException]) -> None:
    """L2, issue 5: what a look-up raises reaches the caller, even if the next one would not raise it."""
    cache: Cache[Any, Any] = Cache(ttl=None)
    raising: list[BaseException] = []

    def raise_once() -> None:
        if raising:
            raise raising.pop()

    def load(key: Key) -> int:
        return key.number

    async def load_async(key: Key) -> int:
        return key.number

    function: Any = cache.cached(load_async if kind == "awaited" else load)
    if kind == "tagged":
        function = cache.cached(tags=["tag"])(load)

    async def call() -> Any:
        return await function(Key(1, raise_once))

    def once() -> Any:
        if kind != "awaited":
            return function(Key(1, raise_once))
        try:
            call_once = call()
            call_once.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits")

    if kind == "awaited":
        run(call())
    else:
        once()
    raising.append(error())
    with pytest.raises(error):
        once()
    assert once() == 1


def test_hit_that_goes_on_loads_with_what_it_was_called_with() -> None:
    """Issue 5: arguments that are equal are not the same; a loader sees those of its own call."""
    cache: Cache[Any, Any] = Cache(ttl=None)
    seen: list[Any] = []

    @cache.cached
    async def one(value: Any) -> None:
        seen.append(value)

    @cache.cached
    async def two(value: Any, other: Any) -> None:
        seen.append((value, other))

    async def main() -> None:
        await one(1)
        late = one(True)
        one.invalidate(1)
        await late
        old, new = Key(5), Key(5)
        await one(old)
        late = one(new)
        one.invalidate(old)
        await late
        assert seen[2] is old
        assert seen[3] is new
        await two(1, 2)
        late = two(1.0, True + 1)
        two.cache_clear()
        await late

    run(main())
    assert seen[1] is True
    assert type(seen[5][0]) is float


def test_hit_awaited_after_its_ttl_loads_anew() -> None:
    """F1: a hit that is awaited late is looked at when it is awaited, as a coroutine would."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(ttl=10, jitter=0, clock=clock)
    loads: list[int] = []

    @cache.cached
    async def load(number: int) -> int:
        loads.append(number)
        return len(loads)

    async def main() -> None:
        assert await load(1) == 1
        late = load(1)
        clock.advance(10)
        assert await late == 2
        assert await load(1) == 2

    run(main())
    info = load.cache_info()
    assert (info.hits, info.misses) == (1, 2)


def test_hit_that_is_never_awaited_counts_as_nothing() -> None:
    """Issue 5: the counters are those of a coroutine, which has not begun."""
    cache: Cache[Any, Any] = Cache()

    @cache.cached
    async def load(number: int) -> int:
        return number

    async def main() -> None:
        await load(1)
        load(1).close()

    run(main())
    assert load.cache_info().hits == 0


def test_cache_made_anew_in_the_middle_of_a_look_up_does_no_harm() -> None:
    """Issue 5: a look-up under way goes on with the table that it began with."""
    cache: Cache[Any, Any] = Cache(ttl=None)

    def anew() -> None:
        cache.__init__(ttl=None)  # type: ignore[misc]
        gc.collect()

    cache.set(Key(1, anew), "old")
    assert cache.get(Key(1)) in {"old", None}
    cache.set(Key(1, anew), "old")
    cache.set(Key(1, anew), "new")
    assert cache.get_or_load(Key(2), lambda: "loaded") == "loaded"


def test_clock_with_a_lock_of_its_own_does_not_deadlock_with_set() -> None:
    """Section 4: the lock of a cache is held around memory operations only; a clock is the user's code."""
    lock, is_in_clock, is_held = threading.Lock(), threading.Event(), threading.Event()
    slow: list[threading.Thread] = []

    def clock() -> float:
        if threading.current_thread() in slow:
            is_in_clock.set()
            is_held.wait(10)
            with lock:
                return 1.0
        return 1.0

    cache: Cache[int, int] = Cache(clock=clock)
    first = threading.Thread(target=cache.set, args=(1, 1), daemon=True)
    slow.append(first)
    first.start()
    assert is_in_clock.wait(10)

    def second() -> None:
        with lock:
            is_held.set()
            cache.set(2, 2)

    other = threading.Thread(target=second, daemon=True)
    other.start()
    other.join(10)
    first.join(10)
    assert not other.is_alive()
    assert not first.is_alive()
    assert (cache.get(1), cache.get(2)) == (1, 2)


@pytest.mark.parametrize("start", [-5e9, -1.0, -0.5, 0.0])
def test_clock_may_begin_below_zero(start: float) -> None:
    """F2: the clock is monotonic; where it begins says nothing."""
    now = [start]
    cache: Cache[int, int] = Cache(clock=lambda: now[0], ttl="30s", jitter=0)
    for number in range(100):
        cache.set(number, number)
        now[0] += 1
    assert cache.get(99) == 99
    assert cache.get(60) is None
    assert len(cache) <= 40


@pytest.mark.parametrize("more", range(12))
def test_load_that_ran_out_of_stack_leaves_nobody_waiting(more: int) -> None:
    """L3: after a RecursionError no flight is left that a later caller would wait for."""
    cache: Cache[int, int] = Cache(maxsize=None, ttl=None)

    @cache.cached
    def never(number: int) -> int:
        raise RecursionError

    def fill(depth: int) -> None:
        """Call the function at every depth, down to the last frame there is."""
        with contextlib.suppress(RecursionError):
            fill(depth + 1)
        with contextlib.suppress(RecursionError):
            never(depth)

    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        else:
            fill(0)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        deeper(more)
    finally:
        sys.setrecursionlimit(limit)
    assert cache.stats().flights == 0


DEEP_TASKS = """
import asyncio, contextlib, gc, sys, warnings
from credenza import Cache

warnings.simplefilter("ignore")  # coroutines that could not be run
sys.unraisablehook = lambda *_: None

cache = Cache(maxsize=None, ttl=None)

@cache.cached
async def never(number):
    raise RecursionError

def fill(depth):
    with contextlib.suppress(RecursionError):
        fill(depth + 1)
    with contextlib.suppress(RecursionError):
        awaited = never(depth)
        with contextlib.closing(awaited):
            awaited.send(None)

def deeper(left):
    deeper(left - 1) if left else fill(0)

async def main(more):
    sys.setrecursionlimit(400)
    deeper(more)
    sys.setrecursionlimit(1000)

for more in range(8):
    asyncio.run(main(more))
gc.collect()
print(cache.stats().misses > 1000, cache.stats().flights)
"""


def test_task_that_ran_out_of_stack_leaves_nobody_waiting(implementation: Implementation) -> None:
    """L3: the same for coroutine functions, in a process of its own, as those that did not even begin complain aloud."""
    done = implementation.run(DEEP_TASKS)
    assert done.stdout.split() == ["True", "0"], done.stderr[-3_000:]


DEEP_LEADERS = """
import _thread, os, sys, threading, time
from credenza import Cache

cache = Cache(maxsize=None, ttl=None)
leader = 0

@cache.cached
def load(key):
    if _thread.get_ident() != leader:
        return "loaded by who waited"
    begun.release()
    may_end.acquire()  # nothing that needs a frame of its own
    return "value"

def deeper(left, key):
    return deeper(left - 1, key) if left else load(key)

def lead(depth):
    global leader
    leader = _thread.get_ident()
    try:
        deeper(depth, depth)
    except RecursionError:
        pass

def waits():
    flights = list(cache._engine.state.flights.values())
    return not flights or flights[0].signal is not None and flights[0].signal._wakers

led = 0
for depth in range(sys.getrecursionlimit() - 20, sys.getrecursionlimit() + 1):
    begun, may_end = _thread.allocate_lock(), _thread.allocate_lock()
    begun.acquire(), may_end.acquire()
    first = threading.Thread(target=lead, args=(depth,), daemon=True)
    first.start()
    while first.is_alive() and not begun.acquire(timeout=0.05):
        pass
    if not first.is_alive():
        continue  # there was no room for the load
    led += 1
    second = threading.Thread(target=load, args=(depth,), daemon=True)
    second.start()
    ends = time.monotonic() + 10
    while not waits() and time.monotonic() < ends:
        time.sleep(0.01)
    may_end.release()
    first.join(10), second.join(10)
    if second.is_alive():
        print("waits for ever at depth", depth, flush=True)
print(led > 3, cache.stats().flights, flush=True)
os._exit(0)
"""


def test_load_that_ends_on_the_last_frames_is_told_to_who_waits(implementation: Implementation) -> None:
    """L3: telling takes more stack than loading does, and there is enough for it where a load could run."""
    done = implementation.run(DEEP_LEADERS)
    assert done.stdout.split() == ["True", "0"], done.stdout + done.stderr[-3_000:]


def test_recursion_without_end_leaves_no_load_under_way() -> None:
    """L3: a cached function that calls itself until there is no stack left can be asked again, at every depth."""
    cache: Cache[int, int] = Cache(maxsize=None, ttl=None)

    @cache.cached(key="sum:{number}")
    def sum_to(number: int) -> int:
        return number + sum_to(number - 1) if number else 0

    for depth in range(300, 340):
        with contextlib.suppress(RecursionError):
            sum_to(depth * 3)
    assert cache.stats().flights == 0
    assert sum_to(5) == 15


def test_subclass_may_have_methods_of_any_name() -> None:
    """What the compiled base asks for has names that a subclass does not hit by chance."""

    class Named(Cache[str, int]):
        def _get(self, key: str) -> int | None:
            return self.get(key)

        def _set(self, key: str) -> None:
            self.set(key, 1)

        def _get_or_load(self, key: str) -> int:
            return self.get_or_load(key, lambda: 2)

    with Named() as cache:
        assert cache._get("a") is None
        cache._set("a")
        assert (cache._get("a"), cache._get_or_load("a"), cache._get_or_load("b")) == (1, 1, 2)
