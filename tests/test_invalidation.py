"""Rules I1 to I4: what was invalidated is gone, in whatever way, and fences hold while a write is under way.

Loads that a write overtakes are in test_overtaken_loads.py, write-through (I5) is in test_repository.py.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from tests.support.waiting import DEADLINE, Call, HeldLoader, run, until, wait_for_callers, wait_until

from credenza import Cache, CacheClosed, Loaded, UsageError
from credenza.testing import CountingLoader, FakeClock


@pytest.fixture
def cache() -> Cache[Any, Any]:
    return Cache(jitter=0, clock=FakeClock())


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_invalidated_keys_are_gone_and_others_stay(cache: Cache[Any, Any], is_async: bool) -> None:
    """I1: `invalidate(*keys)` forgets those keys, at once and for every way to read."""
    cache.set_many({"a": 1, "b": 2, "c": 3, None: 4})
    if is_async:
        run(cache.aio.invalidate("a", "b", "never there", None))
    else:
        cache.invalidate("a", "b", "never there", None)
    assert cache.get_many(["a", "b", "c", None]) == {"c": 3}
    assert "a" not in cache
    assert cache.get_or_load("a", lambda: "new") == "new"
    assert cache.stats().invalidations == 4


def test_invalidating_nothing_does_nothing(cache: Cache[Any, Any]) -> None:
    """I1: no keys, no effect."""
    cache.set("a", 1)
    cache.invalidate()
    cache.invalidate_tags()
    assert cache.get("a") == 1
    assert cache.stats().invalidations == 0


def test_stale_value_is_not_served_after_its_key_was_invalidated() -> None:
    """I1: the stale windows keep what has expired, never what was invalidated."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(ttl=10, jitter=0, stale_while_revalidate=100, stale_if_error=100, clock=clock)
    for forget in (lambda: cache.invalidate("k"), lambda: cache.invalidate_tags("t"), cache.clear):
        cache.set("k", "old", tags=["t"])
        clock.advance(20)
        forget()
        with pytest.raises(ConnectionError):
            cache.get_or_load("k", CountingLoader("", error=ConnectionError("down")))
        assert cache.get_or_load("k", lambda: "new") == "new"


def test_clear_forgets_everything(cache: Cache[Any, Any]) -> None:
    """I2: entries of functions and of templates too."""
    function = cache.cached(lambda key: [key])
    template = cache.cached(key="t:{key}")(lambda key: [key])
    first = function(1), template(1)
    cache.set("k", 1)
    cache.clear()
    assert len(cache) == 0
    assert (function.peek(1), template.peek(1), cache.get("k")) == (None, None, None)
    assert function(1) is not first[0]
    assert template(1) is not first[1]


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
def test_cache_works_on_after_clear(eviction: str) -> None:
    """I2: bounds, tags and expiry are those of a new cache."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(maxsize=10, ttl=10, jitter=0, clock=clock, eviction=eviction)
    for _ in range(3):
        for key in range(30):
            cache.set(key, key, tags=["t", f"t{key}"])
        assert len(cache) == 10
        cache.clear()
        cache.set("k", 1, tags=["t"])
        assert cache.get("k") == 1
        cache.invalidate_tags("t")
        assert cache.get("k") is None
        cache.set("k", 2)
        clock.advance(10)
        assert cache.get("k") is None
        cache.clear()


# Tags -----------------------------------------------------------------------------------------------------------------


def test_tag_forgets_what_carries_it_and_nothing_else(cache: Cache[Any, Any]) -> None:
    """I2: whatever way the entry got its tag: `set`, `set_many`, a load, `Loaded`, a bulk load, a function."""
    cache.set("set", 1, tags=["t"])
    cache.set_many({"set_many": 1}, tags=["t", "u"])
    cache.get_or_load("load", lambda: 1, tags=["t"])
    cache.fetch("fetch", lambda: 1, tags=("t",))
    cache.get_or_load("loaded", lambda: Loaded(1, tags=["t"]))
    cache.get_or_load("both", lambda: Loaded(1, tags=["v"]), tags=["t"])
    cache.get_or_load("both 2", lambda: Loaded(1, tags=["t"]), tags=["v"])
    cache.get_or_load_many(["bulk"], lambda keys: dict.fromkeys(keys, 1), tags=["t"])
    cache.get_or_load_many(["bulk loaded"], lambda keys: dict.fromkeys(keys, Loaded(1, tags=["t"])))
    cache.set("other", 1, tags=["u"])
    cache.set("bare", 1)
    cached = cache.cached(tags=["t"])(lambda: [1])
    value = cached()
    cache.invalidate_tags("t")
    names = ["set", "set_many", "load", "fetch", "loaded", "both", "both 2", "bulk", "bulk loaded", "other", "bare"]
    assert set(cache.get_many(names)) == {"other", "bare"}
    assert cached.peek() is None
    assert cached() is not value


def test_value_stored_after_its_tag_was_invalidated_stays(cache: Cache[Any, Any]) -> None:
    """I2: a tag can be used again and again; only what was there before is gone."""
    for version in range(3):
        cache.set("k", version, tags=["t"])
        assert cache.get("k") == version
        cache.invalidate_tags("t")
        assert cache.get("k") is None
    cache.invalidate_tags("t", "t", "never there")
    cache.set("k", 1, tags=["t"])
    cache.invalidate_tags("another")
    assert cache.get("k") == 1


def test_value_that_replaced_another_has_its_own_tags(cache: Cache[Any, Any]) -> None:
    """I2: tags belong to a value, not to its key."""
    cache.set("k", 1, tags=["old"])
    cache.set("k", 2, tags=["new"])
    cache.invalidate_tags("old")
    assert cache.get("k") == 2
    cache.invalidate_tags("new")
    assert cache.get("k") is None


def test_invalidation_of_one_of_many_tags_is_enough(cache: Cache[Any, Any]) -> None:
    """I2: an entry is gone with the first of its tags."""
    for number in range(20):
        cache.set("k", number, tags=[f"t{other}" for other in range(20)])
        cache.invalidate_tags(f"t{number}")
        assert cache.get("k") is None


@pytest.mark.parametrize("ways", ["get", "load", "in", "peek", "bulk", "aio"])
def test_entry_with_a_dead_tag_is_not_found_by_any_way(cache: Cache[Any, Any], ways: str) -> None:
    """I2, I4: entries are not looked for when their tag is invalidated, and no reader gets one all the same."""
    function = cache.cached(tags=["t"])(lambda: [1])
    function()
    for key in ("a", "b"):
        cache.set(key, "old", tags=["t"])
    cache.invalidate_tags("t")
    cache.invalidate_tags("other")
    found = {
        "get": lambda: cache.get("a"),
        "load": lambda: cache.get_or_load("a", lambda: None),
        "in": lambda: None if "a" not in cache else "old",
        "peek": function.peek,
        "bulk": lambda: cache.get_or_load_many(["a", "b"], lambda keys: {}).get("a"),
        "aio": lambda: run(cache.aio.get("a")),
    }[ways]()
    assert found is None


def test_invalidating_a_tag_costs_the_same_however_many_carry_it() -> None:
    """I4: as many lines of Python run for twenty thousand entries as for twenty, and nothing in C walks over them."""

    def lines(entries: int) -> int:
        cache: Cache[Any, Any] = Cache(maxsize=None)
        for key in range(entries):
            cache.set(key, key, tags=["t", f"own {key}"])
        return _events_of(lambda: cache.invalidate_tags("t"))

    lines(1)  # instructions that the interpreter adapts on their first runs
    assert lines(20_000) == lines(20)


def _events_of(action: Callable[[], object]) -> int:
    """Return how many lines and instructions `action` runs, the collector apart."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += 1
        return trace

    before = sys.gettrace()
    gc.collect()
    gc.disable()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_entries_of_a_dead_tag_are_neither_evictions_nor_expirations() -> None:
    """Glossary: expire is done by time, evict by size, invalidate by a caller; the words are never mixed."""
    cache: Cache[Any, Any] = Cache(maxsize=100)
    events: list[str] = []
    cache.subscribe(lambda event: events.append(str(event.kind)))
    for key in range(50):
        cache.set(key, key, tags=["t"])
    cache.invalidate_tags("t")
    for key in range(50):
        assert cache.get(key) is None
        assert cache.get_or_load(key, lambda: 1) == 1
    assert "expired" not in events
    assert "evicted" not in events
    assert (cache.stats().expirations, cache.stats().evictions) == (0, 0)


@pytest.mark.parametrize("tags", ["users", b"users", [1], [None], [("a",)], [["a"]]])
@pytest.mark.parametrize("call", ["set", "load", "bulk", "writing", "function"])
def test_wrong_tags_raise_and_say_what_to_do(cache: Cache[Any, Any], call: str, tags: Any) -> None:
    """Bad input: tags are a collection of str; a lone str would be taken for its letters."""
    loader = CountingLoader(1)

    def write() -> None:
        with cache.writing("k", tags=tags):
            pytest.fail("the block must not run")

    calls: dict[str, Callable[[], Any]] = {
        "set": lambda: cache.set("k", 1, tags=tags),
        "load": lambda: cache.get_or_load("k", loader, tags=tags),
        "bulk": lambda: cache.get_or_load_many(["k"], lambda keys: {}, tags=tags),
        "writing": write,
        "function": lambda: cache.cached(tags=tags)(lambda: 1),
    }
    with pytest.raises(UsageError, match="tag") as caught:
        calls[call]()
    assert isinstance(caught.value, TypeError)
    assert loader.calls == 0
    assert len(cache) == 0


@pytest.mark.parametrize("tag", [1, None, ["t"], ("t",), b"t"])
def test_invalidating_what_is_no_tag_raises(cache: Cache[Any, Any], tag: Any) -> None:
    """Bad input: `invalidate_tags(["a", "b"])` is a common slip, and must not pass silently."""
    with pytest.raises(UsageError, match="a tag is a str"):
        cache.invalidate_tags(tag)


def test_unhashable_key_raises_and_says_what_to_do(cache: Cache[Any, Any]) -> None:
    """Bad input: in every call, at once, without running a loader."""
    loader = CountingLoader(1)
    calls: list[Callable[[], Any]] = [
        lambda: cache.get([1]),
        lambda: cache.set([1], 1),
        lambda: cache.get_or_load([1], loader),
        lambda: cache.fetch([1], loader),
        lambda: cache.invalidate([1]),
        lambda: cache.invalidate("fine", [1]),
        lambda: cache.get_many([[1]]),
        lambda: cache.set_many({}.fromkeys(["k"], 1)) or cache.get([1]),
        lambda: cache.get_or_load_many([[1]], lambda keys: {}),
        lambda: [1] in cache,
        lambda: cache.writing([1]).__enter__(),
        lambda: run(cache.aio.get([1])),
        lambda: run(cache.aio.get_or_load([1], loader)),
        lambda: run(cache.aio.invalidate([1])),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"hashable, got \[1\].*str.*tuple"):
            call()
    assert loader.calls == 0


# Fences ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ending", ["normally", "by an exception", "by a cancellation"])
def test_keys_and_tags_are_invalidated_on_leaving(cache: Cache[Any, Any], is_async: bool, ending: str) -> None:
    """I3: on leaving, normally or not, keys and tags are invalidated; the error passes."""
    cache.set_many({"k": "old", "other": "old"})
    cache.set("tagged", "old", tags=["t"])
    error: BaseException | None = None
    if ending != "normally":
        error = ConnectionError("down") if ending == "by an exception" else asyncio.CancelledError()

    def body() -> None:
        assert cache.get_many(["k", "tagged"]) == {}
        if error is not None:
            raise error

    def write() -> None:
        with cache.writing("k", tags=["t"]) as fence:
            fence.confirm()
            body()

    async def write_async() -> None:
        async with cache.aio.writing("k", tags=["t"]) as fence:
            await fence.confirm()
            body()

    def start() -> None:
        if is_async:
            run(write_async())
        else:
            write()

    if error is None:
        start()
    else:
        with pytest.raises(type(error)):
            start()
    assert cache.get_many(["k", "tagged", "other"]) == {"other": "old"}
    assert cache.get_or_load("k", lambda: "new") == "new"
    assert cache.get("k") == "new"


def test_readers_inside_a_fence_go_to_the_source_each_time(cache: Cache[Any, Any]) -> None:
    """I3: every call reads the source, says "bypass", and nothing is stored, for the key and for tags."""
    loader = CountingLoader("value")
    with cache.writing("k", tags=["t"]):
        for key, tags in (("k", []), ("k", []), ("tagged", ["t"]), ("tagged", ["t"])):
            found = cache.fetch(key, loader, tags=tags)
            assert (found.value, found.status, found.age) == ("value", "bypass", 0.0)
            assert run(cache.aio.fetch(key, loader, tags=tags)).status == "bypass"
        assert cache.get_or_load_many(["k"], lambda keys: dict.fromkeys(keys, "bulk")) == {"k": "bulk"}
        assert loader.calls == 8
        assert cache.get_many(["k", "tagged"]) == {}
        assert cache.get_or_load("free", loader) == "value"
        assert cache.get("free") == "value"


def test_loaded_tags_are_fenced_too(cache: Cache[Any, Any]) -> None:
    """I3: tags that only the loader knows count as well."""
    with cache.writing(tags=["t"]):
        cache.get_or_load("k", lambda: Loaded("value", tags=["t"]))
        assert "k" not in cache


def test_fence_holds_for_cached_functions(cache: Cache[Any, Any]) -> None:
    """I3: by key, by tag and by template."""
    versions = iter(range(100))
    by_key = cache.cached(key="user:{user_id}")(lambda user_id: next(versions))
    by_tag = cache.cached(tags=["user:{user_id}"])(lambda user_id: next(versions))
    by_key(1), by_tag(1)
    with cache.writing("user:1", tags=["user:1"]):
        assert len({by_key(1), by_key(1), by_tag(1), by_tag(1)}) == 4
        assert by_key(2) == by_key(2)
        assert by_tag(2) == by_tag(2)
    assert (by_key.peek(1), by_tag.peek(1)) == (None, None)
    assert by_key(1) == by_key(1) != by_tag(1) == by_tag(1)


def test_value_set_inside_a_fence_is_not_kept(cache: Cache[Any, Any]) -> None:
    """I3: the block invalidates on leaving, so what is set inside is not handed out, not even inside."""
    with cache.writing("k", tags=["t"]):
        cache.set("k", "inside")
        cache.set_many({"tagged": "inside"}, tags=["t"])
        assert cache.get_many(["k", "tagged"]) == {}
    assert cache.get_many(["k", "tagged"]) == {}
    cache.set("k", "after")
    assert cache.get("k") == "after"


def test_nested_fences_compose(cache: Cache[Any, Any]) -> None:
    """I3: the key is free when the last fence around it has been left, in whatever order."""

    def is_fenced() -> bool:
        return cache.fetch("k", lambda: "value").status == "bypass"

    with cache.writing("k"):
        with cache.writing("k", "k", tags=["t"]):
            with cache.writing("k"):
                assert is_fenced()
            assert is_fenced()
        assert is_fenced()
    assert not is_fenced()

    first, second = ExitStack(), ExitStack()
    first.enter_context(cache.writing("k"))
    second.enter_context(cache.writing("k"))
    first.close()
    assert is_fenced()
    second.close()
    assert not is_fenced()


def test_fences_on_one_tag_compose(cache: Cache[Any, Any]) -> None:
    """I3: the same for tags."""

    def is_fenced() -> bool:
        return cache.fetch("k", lambda: "value", tags=["t"]).status == "bypass"

    with cache.writing(tags=["t"]):
        with cache.writing(tags=["t", "u"]):
            assert is_fenced()
        assert is_fenced()
    assert not is_fenced()


def test_concurrent_fences_compose(cache: Cache[Any, Any]) -> None:
    """I3: fences of threads and tasks on one key, entered and left in all orders."""

    async def write(turns: int) -> None:
        async with cache.aio.writing("k"):
            for _ in range(turns):
                assert (await cache.aio.fetch("k", lambda: "value")).status in ("bypass", "joined")

    async def main() -> None:
        await asyncio.gather(*(write(turns) for turns in (1, 5, 2, 4, 3)))

    def write_in_thread() -> None:
        for _ in range(20):
            with cache.writing("k", tags=["t"]):
                assert cache.fetch("k", lambda: "value").status in ("bypass", "joined")

    calls = [Call(write_in_thread) for _ in range(3)] + [Call(lambda: run(main()))]
    for call in calls:
        call.result()
    assert cache.fetch("k", lambda: "value").status == "miss"
    assert cache.get("k") == "value"


def test_reader_inside_a_fence_does_not_join_a_load_that_began_before_it_came(cache: Cache[Any, Any]) -> None:
    """I3: that load may have read before the write committed."""
    truth = ["old"]
    load = HeldLoader(lambda number: None)
    held = []

    def read() -> str:
        value = truth[0]
        held.append(value)
        if len(held) == 1:
            load()
        return value

    with cache.writing("k"):
        first = Call(lambda: cache.get_or_load("k", read))
        load.wait_until_called()
        truth[0] = "new"
        second = Call(lambda: cache.fetch("k", read))
        wait_until(lambda: second.is_done or len(held) == 1, "the second reader has come")
        load.release()
        assert first.result() == "old"
        found = second.result()
        assert found.value == "new"
    assert cache.get("k") is None


def test_readers_inside_a_fence_share_rounds(cache: Cache[Any, Any]) -> None:
    """I3: many readers of a fenced key do not all press the source; they share loads that began after they came."""
    load = HeldLoader()
    with cache.writing("k"):
        first = Call(lambda: cache.get_or_load("k", load))
        load.wait_until_called()
        others = [Call(lambda: cache.get_or_load("k", load)) for _ in range(20)]
        wait_until(lambda: sum(call.is_done for call in others) == 0, "the others wait")
        load.release()
        assert {call.result() for call in [first, *others]} == {"value"}
    assert load.calls <= 21


def test_load_that_waits_outside_a_fence_is_not_disturbed(cache: Cache[Any, Any]) -> None:
    """I1, I3: callers that came before the fence get the value of the load that they joined."""
    load = HeldLoader("old")
    calls = [Call(lambda: cache.get_or_load("k", load)) for _ in range(4)]
    wait_for_callers(cache, "k", 4)
    with cache.writing("k"):
        load.release()
        assert [call.result() for call in calls] == ["old"] * 4
    assert load.calls == 1
    assert cache.get("k") is None


def test_empty_fence_does_nothing(cache: Cache[Any, Any]) -> None:
    """I3: no keys and no tags fence nothing."""
    cache.set("k", 1)
    with cache.writing():
        assert cache.get("k") == 1


def test_fence_around_a_cancelled_task_is_left(cache: Cache[Any, Any]) -> None:
    """I3: a task that is cancelled inside its block leaves no fence behind."""

    async def main() -> None:
        inside = asyncio.Event()

        async def write() -> None:
            async with cache.aio.writing("k", tags=["t"]):
                inside.set()
                await asyncio.sleep(DEADLINE)

        task = asyncio.create_task(write())
        await inside.wait()
        task.cancel()
        await until(task.done, "the task has ended")

    run(main())
    assert cache.fetch("k", lambda: 1, tags=["t"]).status == "miss"
    assert cache.fetch("k", lambda: 1, tags=["t"]).status == "hit"


def test_fence_that_outlives_the_cache_is_left_quietly() -> None:
    """I3: a cache closed inside a fence does not turn a write that succeeded into an error."""
    cache: Cache[Any, Any] = Cache()
    with cache.writing("k"):
        cache.close()
    with pytest.raises(CacheClosed), cache.writing("k"):
        pytest.fail("the block must not run")


# Functions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"key": "k:{key}"}, {"tags": ["t"]}, {"typed": True}])
def test_load_that_cache_clear_overtook_is_not_stored(cache: Cache[Any, Any], options: dict[str, Any]) -> None:
    """I2: `cache_clear` and `invalidate` of a function hold for its loads under way, with every kind of key."""
    for forget in (lambda: function.cache_clear(), lambda: function.invalidate(1)):
        load = HeldLoader(lambda number: "old" if number == 1 else "new")

        def loader(key: int, load: HeldLoader = load) -> Any:
            return load()

        function: Any = cache.cached(**options)(lambda key: loader(key))
        call = Call(lambda: function(1))
        load.wait_until_called()
        forget()
        load.release()
        assert call.result() == "old"
        assert function.peek(1) is None
        assert function(1) == "new"
        assert function(1) == "new"
        assert load.calls == 2
        function.cache_clear()


def test_refresh_that_began_before_an_invalidation_is_not_stored(cache: Cache[Any, Any]) -> None:
    """I1: `refresh` is a load like any other."""
    load = HeldLoader("old")
    function = cache.cached(lambda key: load())
    call = Call(lambda: function.refresh(1))
    load.wait_until_called()
    function.invalidate(1)
    load.release()
    assert call.result() == "old"
    assert function.peek(1) is None
