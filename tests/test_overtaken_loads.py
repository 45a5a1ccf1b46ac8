"""Rules I1 to I3: a load that began before a write and ends after it is not stored, and nobody who comes later gets it.

Every test has the same story. The source says "old". A load reads that, and is held. The source changes to "new", and
the cache is told, in one of several ways. Whoever asks from now on gets "new", whether the held load has ended or not.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from tests.support.invariants import check_threads
from tests.support.waiting import DEADLINE, Call, callers_of, run, until, until_callers, wait_for_callers, wait_until

from credenza import Cache, Loaded, NotFound
from credenza.testing import FakeClock

TTL = 100.0
OVERTAKERS = ["invalidate", "invalidate_tags", "clear", "set", "set_many", "writing", "writing tags"]
GROUNDS = [
    "foreground",
    "joined",
    "with a timeout",
    "background",
    "early",
    "bulk",
    "bulk background",
    "function",
    "refresh",
    "tags from Loaded",
]


class Source:
    """A source whose first reader is held after it has read; later ones pass. Plain and async loaders read from it."""

    def __init__(self) -> None:
        self.value = "old"
        self.reads = 0
        self._may_end = threading.Event()
        self._lock = threading.Lock()

    def _read(self) -> tuple[str, bool]:
        with self._lock:
            self.reads += 1
            return self.value, self.reads == 1

    def load(self) -> str:
        value, is_held = self._read()
        assert not is_held or self._may_end.wait(DEADLINE)
        return value

    async def load_async(self) -> str:
        value, is_held = self._read()
        if is_held:
            await until(self._may_end.is_set, "the held load is let go")
        return value

    def release(self) -> None:
        self._may_end.set()


def _prime(cache: Cache[Any, Any], clock: FakeClock, ground: str) -> None:
    """Put an older value in, where the ground needs one that is to be refreshed."""
    if ground in ("background", "bulk background"):
        cache.set("k", "older", tags=["t"])
        clock.advance(TTL)
    elif ground == "early":
        cache.get_or_load("k", lambda: clock.advance(10) or "older", tags=["t"])
    elif ground == "refresh":
        cache.set("k", "older", tags=["t"])


def _make(ground: str) -> tuple[Cache[Any, Any], FakeClock]:
    clock = FakeClock(1_000)
    cache: Cache[Any, Any] = Cache(
        clock=clock, ttl=TTL, jitter=0, stale_while_revalidate=50, early_refresh=1e9 if ground == "early" else 0
    )
    _prime(cache, clock, ground)
    return cache, clock


def _overtake(cache: Cache[Any, Any], source: Source, overtaker: str) -> None:
    source.value = "new"
    match overtaker:
        case "invalidate":
            cache.invalidate("k")
        case "invalidate_tags":
            cache.invalidate_tags("other", "t")
        case "clear":
            cache.clear()
        case "set":
            cache.set("k", "new", tags=["t"])
        case "set_many":
            cache.set_many({"k": "new"}, tags=["t"])
        case "writing":
            with cache.writing("k"):
                source.value = "new"
        case _:
            with cache.writing(tags=["t"]):
                source.value = "new"


async def _overtake_async(cache: Cache[Any, Any], source: Source, overtaker: str) -> None:
    source.value = "new"
    match overtaker:
        case "invalidate":
            await cache.aio.invalidate("k")
        case "invalidate_tags":
            await cache.aio.invalidate_tags("t")
        case "clear":
            await cache.aio.clear()
        case "set":
            await cache.aio.set("k", "new", tags=["t"])
        case "set_many":
            await cache.aio.set_many({"k": "new"}, tags=["t"])
        case "writing":
            async with cache.aio.writing("k"):
                source.value = "new"
        case _:
            async with cache.aio.writing(tags=["t"]):
                source.value = "new"


# The load that is held ------------------------------------------------------------------------------------------------


def _begin(cache: Cache[Any, Any], source: Source, ground: str) -> list[Call[Any]]:
    """Begin the load in the sync face and return the calls that wait for it, which came before the write."""

    def batch(keys: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(keys, source.load())

    match ground:
        case "background" | "early":
            assert cache.get_or_load("k", source.load, tags=["t"]) == "older"
            calls = []
        case "bulk background":
            assert cache.get_or_load_many(["k"], batch, tags=["t"]) == {"k": "older"}
            calls = []
        case "bulk":
            calls = [Call(lambda: cache.get_or_load_many(["k", "beside"], batch, tags=["t"])["k"])]
        case "function" | "refresh":
            function = cache.cached(key="k", tags=["t"])(source.load)
            calls = [Call(function.refresh if ground == "refresh" else function)]
        case "with a timeout":
            calls = [Call(lambda: cache.get_or_load("k", source.load, tags=["t"], timeout=DEADLINE))]
        case "tags from Loaded":
            calls = [Call(lambda: cache.get_or_load("k", lambda: Loaded(source.load(), tags=["t"])))]
        case _:
            calls = [Call(lambda: cache.get_or_load("k", source.load, tags=["t"]))]
    wait_until(lambda: source.reads == 1, "the load has read the source")
    if ground == "joined":
        calls.append(Call(lambda: cache.get_or_load("k", source.load, tags=["t"])))
        wait_for_callers(cache, "k", 2)
    return calls


def _begin_async(cache: Cache[Any, Any], source: Source, ground: str, is_plain: bool) -> list[asyncio.Task[Any]]:
    """The same in the async face, with a coroutine function or a plain one that runs in a worker thread."""
    aio, load = cache.aio, source.load if is_plain else source.load_async

    async def batch(keys: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(keys, await source.load_async())

    async def loaded() -> Loaded[str]:
        return Loaded(await source.load_async(), tags=["t"])

    if ground in ("bulk", "bulk background"):
        keys = ["k", "beside"] if ground == "bulk" else ["k"]
        coroutines = [aio.get_or_load_many(keys, batch, tags=["t"])]
    elif ground in ("function", "refresh"):
        function = cache.cached(key="k", tags=["t"])(source.load_async)
        coroutines = [function.refresh() if ground == "refresh" else function()]
    elif ground == "with a timeout":
        coroutines = [aio.get_or_load("k", load, tags=["t"], timeout=DEADLINE)]
    elif ground == "tags from Loaded":
        coroutines = [aio.get_or_load("k", loaded)]
    else:
        coroutines = [aio.get_or_load("k", load, tags=["t"]) for _ in range(1 + (ground == "joined"))]
    return [asyncio.ensure_future(coroutine) for coroutine in coroutines]


# The story ------------------------------------------------------------------------------------------------------------

orders = pytest.mark.parametrize("comes_first", ["the newcomer", "the end of the load"])


@orders
@pytest.mark.parametrize("overtaker", OVERTAKERS)
@pytest.mark.parametrize("ground", GROUNDS)
def test_load_that_a_write_overtook_is_not_stored(ground: str, overtaker: str, comes_first: str) -> None:
    """I1, I2, I3: in the sync face, for every way to load and every way to write."""
    cache, _ = _make(ground)
    source = Source()
    calls = _begin(cache, source, ground)
    _overtake(cache, source, overtaker)
    if comes_first == "the newcomer":
        newcomer = cache.get_or_load("k", source.load, tags=["t"])
        assert newcomer == "new"
    source.release()
    assert {call.result() for call in calls} <= {"old"}
    _wait_for_rest(cache)
    assert cache.get("k") in ("new", None)
    assert cache.get_or_load("k", source.load, tags=["t"]) == "new"
    _wait_for_rest(cache)
    assert cache.get("k") == "new"
    if ground == "bulk" and overtaker in ("invalidate", "set", "set_many", "writing"):
        assert cache.get("beside") == "old"


def _wait_for_rest(cache: Cache[Any, Any]) -> None:
    """Wait for all loads, those too that were detached and are on no register any more."""
    wait_until(lambda: cache.stats().flights == 0, "no load is under way")
    gc.disable()  # a collection while the frames of all threads are listed can deadlock in CPython
    try:
        check_threads({thread for thread in threading.enumerate() if thread.name != "credenza-worker"})
    finally:
        gc.enable()


PLAIN_GROUNDS = ["foreground", "joined", "with a timeout", "background", "early"]


@orders
@pytest.mark.parametrize("overtaker", OVERTAKERS)
@pytest.mark.parametrize(
    ("ground", "is_plain"),
    [(ground, False) for ground in GROUNDS] + [(ground, True) for ground in PLAIN_GROUNDS],
    ids=lambda value: value if isinstance(value, str) else "plain loader" if value else "async loader",
)
def test_async_load_that_a_write_overtook_is_not_stored(
    ground: str, overtaker: str, comes_first: str, is_plain: bool
) -> None:
    """I1, I2, I3: in the async face, with coroutine functions and with plain loaders in worker threads."""
    cache, _ = _make(ground)
    source = Source()

    async def main() -> None:
        tasks = _begin_async(cache, source, ground, is_plain)
        await until(lambda: source.reads == 1, "the load has read the source")
        if ground == "joined":
            await until_callers(cache, "k", 2)
        if ground in ("background", "early", "bulk background"):
            found = await tasks[0]
            assert found in ("older", {"k": "older"})
        await _overtake_async(cache, source, overtaker)
        if comes_first == "the newcomer":
            assert await cache.aio.get_or_load("k", source.load_async, tags=["t"]) == "new"
        source.release()
        found = {value if isinstance(value, str) else value["k"] for value in await asyncio.gather(*tasks)}
        assert found <= {"old", "older"}
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "the held load has ended")
        assert cache.get("k") in ("new", None)
        assert await cache.aio.get_or_load("k", source.load_async, tags=["t"]) == "new"
        assert await cache.aio.get("k") == "new"

    run(main())
    _wait_for_rest(cache)
    assert cache.get("k") == "new"


# The same across faces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_async_load_that_a_write_of_a_thread_overtook_is_not_stored(overtaker: str) -> None:
    """I1, I2: a write through the sync face, in another thread, overtakes a load of a task."""
    cache, _ = _make("foreground")
    source = Source()

    async def main() -> None:
        task = asyncio.create_task(cache.aio.get_or_load("k", source.load_async, tags=["t"]))
        await until(lambda: source.reads == 1, "the load has read the source")
        await asyncio.to_thread(_overtake, cache, source, overtaker)
        source.release()
        assert await task == "old"
        assert await cache.aio.get_or_load("k", source.load_async, tags=["t"]) == "new"

    run(main())
    assert cache.get("k") == "new"


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_load_of_a_thread_that_a_write_of_a_task_overtook_is_not_stored(overtaker: str) -> None:
    """I1, I2: and the other way round."""
    cache, _ = _make("foreground")
    source = Source()
    call = _begin(cache, source, "foreground")[0]
    run(_overtake_async(cache, source, overtaker))
    source.release()
    assert call.result() == "old"
    assert cache.get_or_load("k", source.load, tags=["t"]) == "new"


# Fences ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", [{"keys": ("k",)}, {"tags": ("t",)}, {"keys": ("k",), "tags": ("t",)}], ids=str)
@pytest.mark.parametrize("ending", ["inside", "outside"])
@pytest.mark.parametrize("beginning", ["before", "inside"])
@pytest.mark.parametrize("ground", ["foreground", "function", "with a timeout", "bulk", "joined"])
def test_load_that_overlaps_a_fence_is_not_stored(
    ground: str, beginning: str, ending: str, fence: dict[str, Any]
) -> None:
    """I3: whether it begins before or inside the fence, and ends inside or after it."""
    cache, _ = _make(ground)
    source = Source()
    calls: list[Call[Any]] = []
    if beginning == "before":
        calls = _begin(cache, source, ground)
    with cache.writing(*fence.get("keys", ()), tags=fence.get("tags", ())):
        if beginning == "inside":
            if ground == "joined":
                ground = "foreground"  # inside a fence nobody joins a load that is under way
            calls = _begin(cache, source, ground)
        if ending == "inside":
            source.release()
            assert [call.result() for call in calls] == ["old"] * len(calls)
            assert cache.get("k") is None
        source.value = "new"
        assert cache.get("k") is None
    source.release()
    assert [call.result() for call in calls] == ["old"] * len(calls)
    assert cache.get("k") is None
    assert cache.get_or_load("k", source.load, tags=["t"]) == "new"


@pytest.mark.parametrize("ground", ["background", "early", "bulk background"])
def test_refresh_that_a_fence_overtook_is_not_stored(ground: str) -> None:
    """I3: a refresh behind the readers that ends inside a fence is not stored, and the stale value is gone as well."""
    cache, _ = _make(ground)
    source = Source()
    _begin(cache, source, ground)
    with cache.writing("k"):
        source.release()
        _wait_for_rest(cache)
        assert cache.get("k") is None
        source.value = "new"
        assert cache.fetch("k", source.load, tags=["t"]).value == "new"
    assert cache.get("k") is None


@pytest.mark.parametrize("overtaker", ["invalidate", "invalidate_tags", "clear", "set"])
def test_negative_result_that_a_write_overtook_is_not_remembered(overtaker: str) -> None:
    """I1, I2: "not found" is a result like any other; a record written meanwhile is found."""
    cache: Cache[Any, Any] = Cache(negative_ttl=1_000)
    source = Source()

    def load() -> str:
        value = source.load()
        if value == "old":
            raise NotFound("k")
        return value

    call = Call(lambda: cache.get_or_load("k", load, tags=["t"]))
    wait_until(lambda: source.reads == 1, "the load has read the source")
    _overtake(cache, source, overtaker)
    source.release()
    assert isinstance(call.error(), NotFound)
    assert cache.get_or_load("k", load, tags=["t"]) == "new"


def test_failed_load_that_a_write_overtook_does_not_harm_the_new_value() -> None:
    """I1, L3: an overtaken load that fails neither removes nor delays what came after it."""
    cache, clock = _make("foreground")
    source = Source()

    def load() -> str:
        source.load()
        raise ConnectionError("down")

    call = Call(lambda: cache.get_or_load("k", load))
    wait_until(lambda: source.reads == 1, "the load has read the source")
    cache.set("k", "new")
    source.release()
    wait_until(lambda: call.is_done, "the call has ended, by its error or with the value at hand")
    assert cache.get("k") == "new"
    clock.advance(TTL)
    assert cache.get_or_load("k", lambda: "newer") == "new"
    _wait_for_rest(cache)
    assert cache.get("k") == "newer"


def test_many_invalidations_while_one_load_runs_each_get_a_newer_value() -> None:
    """I1: every newcomer gets a value whose load began after the last invalidation before it came."""
    cache: Cache[Any, Any] = Cache()
    loads = [Source() for _ in range(6)]
    calls = []
    for version, source in enumerate(loads):
        source.value = f"version {version}"
        calls.append(Call(lambda source=source: cache.get_or_load("k", source.load)))
        wait_until(lambda source=source: source.reads == 1, "the load has read the source")
        if version < 5:
            cache.invalidate("k")
    for source in reversed(loads):
        source.release()
    assert [call.result() for call in calls] == [f"version {version}" for version in range(6)]
    assert cache.get("k") == "version 5"


def test_tag_invalidation_before_a_caller_comes_is_no_reason_to_load_twice() -> None:
    """I2, L1: a load that began after an invalidation is joined, and its value stays."""
    cache: Cache[Any, Any] = Cache()
    cache.set("k", "older", tags=["t"])
    cache.invalidate_tags("t")
    source = Source()
    calls = _begin(cache, source, "joined")
    source.release()
    assert [call.result() for call in calls] == ["old", "old"]
    assert cache.get("k") == "old"
    assert source.reads == 1


def test_joiner_that_came_after_the_invalidation_of_a_tag_that_it_did_not_know_loads_anew() -> None:
    """I2, L2: a tag that only `Loaded` names is held against callers that came after its invalidation, not before."""
    cache: Cache[Any, Any] = Cache()
    source = Source()

    def load() -> Loaded[str]:
        return Loaded(source.load(), tags=["t"])

    before = Call(lambda: cache.get_or_load("k", load))
    wait_until(lambda: source.reads == 1, "the load has read the source")
    source.value = "new"
    cache.invalidate_tags("t")
    after = Call(lambda: cache.get_or_load("k", load))
    wait_until(lambda: after.is_done or callers_of(cache, "k") == 2, "the second caller has come")
    source.release()
    assert (before.result(), after.result()) == ("old", "new")
    assert cache.get_or_load("k", load) == "new"
