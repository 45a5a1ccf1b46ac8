"""What the collector frees, and that an interpreter may import the package more than once."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import sys
import textwrap
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.memory.implementations import Implementation

from credenza import Cache, Policy, cached
from credenza.durations import FOREVER_NS

pytestmark = [pytest.mark.usefixtures("implementation"), pytest.mark.frees_caches]

evictions = pytest.mark.parametrize("eviction", ["s3fifo", "lru"])


class Thing:
    """A value that other things may be hung on."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def _cache_and_value(eviction: str) -> list[Any]:
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    value = Thing(cache=cache)
    cache.set("a", value, tags=["t"])
    return [cache, value]


def _key_that_holds_the_cache(eviction: str) -> list[Any]:
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    key = Thing(cache=cache)
    cache.set(key, 1)
    return [cache, key]


def _function_and_value(eviction: str) -> list[Any]:
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    value = Thing()
    function = cache.cached(lambda key: value)
    value.function = function
    function(1)
    function(1)
    return [cache, value, function]


def _private_cache(eviction: str) -> list[Any]:
    value = Thing()
    function = cached(eviction=eviction)(lambda: value)
    value.function = function
    function()
    return [value, function, function.cache]


def _default_argument(eviction: str) -> list[Any]:
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    default = Thing()

    def load(key: int, other: Any = default) -> int:
        return key

    default.function = function = cache.cached(load)
    function(1)
    function(key=2)
    return [cache, default, function]


def _clock(eviction: str) -> list[Any]:
    holder = Thing()

    def clock() -> float:
        return 1.0 if holder else 0.0

    holder.cache = cache = Cache(eviction=eviction, clock=clock)
    function = cache.cached(lambda key: holder)
    function(1)
    return [holder, cache, function]


def _entry_by_hand(eviction: str) -> list[Any]:
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    cache.set("a", 1)
    value = Thing(entry=cache._engine.state.table.find("a"))
    cache.set("b", value)
    return [cache, value]


def _pending_hit(eviction: str) -> list[Any]:
    """A hit's awaitable, kept in the very value that it is to bring."""
    cache: Cache[Any, Any] = Cache(eviction=eviction)
    value = Thing()

    @cache.cached
    async def load(key: int) -> Any:
        return value

    with asyncio.Runner() as runner:
        runner.run(load(1))
        awaitable = load(1)
        runner.run(awaitable)  # so that the pure one, a coroutine, warns of nothing
    value.awaitable = awaitable
    return [cache, value, load]


CYCLES: dict[str, Callable[[str], list[Any]]] = {
    "cache and value": _cache_and_value,
    "cache and key": _key_that_holds_the_cache,
    "function and value": _function_and_value,
    "private cache": _private_cache,
    "default argument": _default_argument,
    "clock": _clock,
    "entry": _entry_by_hand,
    "awaitable": _pending_hit,
}


@pytest.mark.parametrize("cycle", CYCLES)
@evictions
def test_cycle_through_a_cache_is_collected(cycle: str, eviction: str) -> None:
    """Issue 5: whatever a cache holds may hold the cache; nobody else's reference left, all of it goes."""

    def make() -> list[weakref.ref[Any]]:
        return [weakref.ref(part) for part in CYCLES[cycle](eviction)]

    dead = make()
    gc.collect()
    assert [reference() for reference in dead] == [None] * len(dead)


@pytest.mark.parametrize("way", ["invalidate", "replace", "evict", "clear"])
@evictions
def test_value_dies_at_once_with_its_entry(way: str, eviction: str) -> None:
    """What has left drops its value by reference counting alone: no collector is needed."""
    cache: Cache[Any, Any] = Cache(maxsize=1, eviction=eviction)
    gc.disable()
    try:
        for _ in range(5):
            value = Thing()
            dead = weakref.ref(value)
            cache.set("a", value)
            del value
            assert dead() is not None
            {
                "invalidate": lambda: cache.invalidate("a"),
                "replace": lambda: cache.set("a", 1),
                "evict": lambda: cache.set("b", 1),
                "clear": cache.clear,
            }[way]()
            assert dead() is None
    finally:
        gc.enable()


@evictions
def test_entries_of_a_dead_function_leave_the_cache(eviction: str) -> None:
    """A function that nobody holds takes its entries along, though its cache lives on."""
    cache: Cache[Any, Any] = Cache(eviction=eviction)

    def make() -> weakref.ref[Any]:
        function = cache.cached(lambda key: Thing())
        return weakref.ref(function(1))

    dead = make()
    gc.collect()
    assert dead() is None
    assert len(cache) == 0


def test_collector_sees_all_that_a_table_holds(implementation: Implementation) -> None:
    """`gc.get_referents` finds keys, values, policies and tags, so that a cycle through any of them is seen."""
    table = implementation.Table(maxsize=10, max_weight=None, eviction="s3fifo")
    scope = implementation.Scope("a scope")
    policy, key, scoped, value, tag = Policy(), Thing(), Thing(), Thing(), Thing()
    for place in (key, (scope, scoped)):
        table.put(implementation.Entry(place, value, policy, 0, FOREVER_NS, 0, 1), (tag,), 0)
    assert gc.is_tracked(table)
    reached = reachable(table)
    for thing in (key, scoped, value, policy, tag):
        assert id(thing) in reached


def reachable(root: Any) -> set[int]:
    """Return the identities of what the collector can reach from `root`, types left out."""
    seen: set[int] = set()
    ahead = [root]
    while ahead:
        thing = ahead.pop()
        if id(thing) not in seen and not isinstance(thing, type):
            seen.add(id(thing))
            ahead.extend(gc.get_referents(thing))
    return seen


def test_table_that_is_collected_in_the_middle_of_use_frees_what_it_held(implementation: Implementation) -> None:
    """A thousand tables with cycles, made and dropped: as many objects afterwards as before."""

    def make() -> None:
        table = implementation.Table(maxsize=5, max_weight=None, eviction="s3fifo")
        scope = implementation.Scope("a scope")
        for number in range(12):
            key: Any = (scope, number) if number % 2 else number
            table.put(
                implementation.Entry(key, Thing(table=table, scope=scope), Policy(), 0, number + 1, 0, 1), ("t",), 0
            )
        table.gone = []  # what has left is the owner's to let go of

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    for _ in range(10):
        make()
    before = objects()
    for _ in range(1_000):
        make()
    assert objects() - before < 100


# The module -----------------------------------------------------------------------------------------------------------


def in_a_process(implementation: Implementation, program: str) -> str:
    """Return what a program says that runs with this implementation in a process of its own."""
    done = implementation.run(textwrap.dedent(program), "-X", "faulthandler", "-W", "error")
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout.strip()


WORK = """
from credenza import Cache
import credenza

cache = Cache(maxsize=4)

@cache.cached
def double(number):
    return 2 * number

assert [double(number) for number in (1, 2, 1, 3, 4, 5, 6)] == [2, 4, 2, 6, 8, 10, 12]
cache.set("a", 1, tags=["t"])
cache.invalidate_tags("t")
assert cache.get("a") is None
"""


def test_process_runs_with_the_implementation_that_it_asked_for(implementation: Implementation) -> None:
    """Issue 5: `credenza.implementation()` says which one runs; `CREDENZA_PURE=1` forces the pure one."""
    import credenza

    if not hasattr(credenza, "implementation"):
        pytest.skip("there is only one implementation yet")
    assert in_a_process(implementation, "import credenza; print(credenza.implementation())") == implementation.name


def test_package_that_is_imported_anew_works(implementation: Implementation) -> None:
    """Forgetting all modules and importing them again gives types of their own, and the first ones go on."""
    program = f"""
import sys
work = {WORK!r}
first = {{}}
exec(work, first)
for name in [name for name in sys.modules if name.partition(".")[0] == "credenza"]:
    del sys.modules[name]
second = {{}}
exec(work, second)
assert type(first["cache"]) is not type(second["cache"])
first["cache"].set("b", 1), second["cache"].set("b", 2)
assert (first["cache"].get("b"), second["cache"].get("b")) == (1, 2)
assert first["double"](9) == second["double"](9) == 18
del first, second
import gc
gc.collect()
print("done")
"""
    assert in_a_process(implementation, program) == "done"


def test_extension_can_be_imported_twice_and_reloaded(implementation: Implementation) -> None:
    """PEP 489: each import has a module and types of its own; a reload is harmless."""
    if implementation.name == "pure":
        pytest.skip("the pure table is no extension")
    program = """
import importlib, importlib.util, gc
from credenza.memory import _table
kinds = vars(_table).copy()
assert importlib.reload(_table) is _table
for name in ("Table", "Entry", "Scope"):
    assert getattr(_table, name) is kinds[name]
spec = importlib.util.find_spec("credenza.memory._table")
others = []
for _ in range(20):
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    table = other.Table(maxsize=3, max_weight=None, eviction="s3fifo")
    from credenza import Policy
    for number in range(9):
        table.put(other.Entry(number, object(), Policy(), 0, 1, 0, 1), ("t",), 0)
    assert table.size == 3
    others.append(other)
assert others[0].Table is not others[1].Table
del others, other, table
gc.collect()
print("done")
"""
    assert in_a_process(implementation, program) == "done"


SUBINTERPRETERS = next(
    (name for name in ("_interpreters", "_xxsubinterpreters") if importlib.util.find_spec(name) is not None), None
)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sub-interpreters share one lock before Python 3.12")
@pytest.mark.skipif(SUBINTERPRETERS is None, reason="this Python cannot make sub-interpreters from Python")
@pytest.mark.timeout(60)
def test_sub_interpreters_have_types_of_their_own(implementation: Implementation) -> None:
    """Issue 5: module state is per interpreter; several work, one after another and at once, and end cleanly."""
    program = f"""
import sys, threading
import {SUBINTERPRETERS} as interpreters
work = {WORK!r}
exec(work, {{}})
paths = f"import sys; sys.path[:] = {{sys.path!r}}"
failed = []

def live():
    number = interpreters.create()
    try:
        for source in (paths, work, work):
            error = interpreters.run_string(number, source)
            if error is not None:
                failed.append(error)
    except BaseException as error:
        failed.append(error)
    finally:
        interpreters.destroy(number)

for _ in range(3):
    live()
threads = [threading.Thread(target=live) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
exec(work, {{}})
print("failed", failed) if failed else print("done")
"""
    assert in_a_process(implementation, program) == "done"


def test_interpreter_ends_cleanly_with_a_full_cache(implementation: Implementation) -> None:
    """Values whose finalizers use the cache while everything is torn down."""
    program = (
        WORK
        + """
class Grudge:
    def __del__(self):
        try:
            cache.set(object(), 1)
            double(77)
            cache.clear()
        except Exception:
            pass

class Cycle(Grudge):
    def __init__(self):
        self.self = self

for number in range(20):
    cache.set(number, Grudge() if number % 2 else Cycle())
kept = cache._engine.state.table.find(19)
print("done")
"""
    )
    assert in_a_process(implementation, program) == "done"
