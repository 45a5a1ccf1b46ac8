"""Repositories: `CacheAside`, `WriteThrough` and `NoCache`, sync and async, over sync and async sources."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from tests.support.waiting import DEADLINE, Call, HeldLoader, run, until, wait_for_callers, wait_until

from credenza import (
    Cache,
    CacheAside,
    ConfigurationError,
    Loaded,
    LoadTimeout,
    NoCache,
    NotFound,
    UsageError,
    WriteThrough,
)
from credenza.testing import AsyncDictSource, DictSource, FakeClock

STRATEGIES = [CacheAside(), WriteThrough(), NoCache()]
CACHING = [CacheAside(), WriteThrough()]


class Face:
    """A repository and its source, in one of three colours, called the same way."""

    def __init__(self, colour: str, records: dict[Any, Any], strategy: Any, **options: Any) -> None:
        self.clock = FakeClock()
        cache_options = {name: options.pop(name) for name in ("max_weight", "weigher", "maxsize") if name in options}
        self.cache: Cache[Any, Any] = Cache(clock=self.clock, jitter=0, **cache_options)
        self.inner: DictSource[Any, Any] = DictSource(records)
        source: Any = self.inner
        if colour == "async":
            source = AsyncDictSource()
            source.inner = self.inner
        options.setdefault("key", "user:{}")
        self.users = self.cache.repository(source, strategy=strategy, **options)
        self._is_sync = colour == "sync"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._is_sync:
            method: Callable[..., Any] = getattr(self.users, name)
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await getattr(self.users.aio, name)(*args, **kwargs)

        return lambda *args, **kwargs: run(call(*args, **kwargs))


colours = pytest.mark.parametrize("colour", ["sync", "async", "plain source"])
strategies = pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
caching = pytest.mark.parametrize("strategy", CACHING, ids=repr)


# Reading --------------------------------------------------------------------------------------------------------------


@colours
@caching
def test_record_is_loaded_once(colour: str, strategy: Any) -> None:
    """DESIGN 6: `CacheAside` and `WriteThrough` load on a miss."""
    face = Face(colour, {42: "Ann"}, strategy)
    assert [face.get(42), face.get(42), face.get(42, timeout=5)] == ["Ann"] * 3
    assert face.fetch(42).status == "hit"
    assert face.inner.loads == 1
    assert face.cache.get("user:42") == "Ann"


@colours
def test_no_cache_reads_the_source_each_time(colour: str) -> None:
    """DESIGN 6: `NoCache` asks the source, stores nothing and says "bypass"."""
    face = Face(colour, {42: "Ann"}, NoCache())
    assert [face.get(42), face.get(42)] == ["Ann"] * 2
    found = face.fetch(42)
    assert (found.value, found.status) == ("Ann", "bypass")
    assert face.get_many([42, 43]) == {42: "Ann"}
    assert len(face.cache) == 0
    face.cache.set("user:42", "from elsewhere")
    assert face.get(42) == "Ann"


@colours
@strategies
def test_absent_record_raises_what_the_source_raises(colour: str, strategy: Any) -> None:
    """DESIGN 6: nothing there is `NotFound`, or None if the source says None."""
    face = Face(colour, {1: None}, strategy)
    for _ in range(2):
        with pytest.raises(NotFound, match="no record 42"):
            face.get(42)
        assert face.get(1) is None
    assert face.get_many([1, 42]) == {}


@colours
@caching
def test_absent_record_is_remembered_for_negative_ttl(colour: str, strategy: Any) -> None:
    """Policy: `negative_ttl` holds for repositories, for single and bulk reads, and a write ends it."""
    face = Face(colour, {}, strategy, negative_ttl=10)
    for _ in range(3):
        with pytest.raises(NotFound):
            face.get(42)
        assert face.get_many([42]) == {}
    assert face.inner.loads == 1
    face.put(42, "Ann")
    assert face.get(42) == "Ann"
    face.delete(42)
    with pytest.raises(NotFound):
        face.get(42)


@colours
@caching
def test_many_records_are_loaded_with_one_call(colour: str, strategy: Any) -> None:
    """L9: `load_many` is asked once, for what is missing; the result has the order that was asked for."""
    face = Face(colour, {number: f"user {number}" for number in range(10)}, strategy)
    face.get(3)
    found = face.get_many([5, 3, 99, 1, 5])
    assert found == {5: "user 5", 3: "user 3", 1: "user 1"}
    assert list(found) == [5, 3, 1]
    assert face.inner.loads == 2
    assert face.get_many([5, 3, 1]) == found
    assert face.inner.loads == 2
    assert face.get_many([]) == {}


class Single:
    """A source without bulk methods."""

    def __init__(self) -> None:
        self.loads: list[Any] = []

    def load(self, key: int) -> str | None:
        self.loads.append(key)
        if key < 0:
            raise NotFound(key)
        return None if key == 0 else f"user {key}"

    def store(self, key: int, value: Any) -> None: ...

    def delete(self, key: int) -> None: ...


class AsyncSingle(Single):
    async def load(self, key: int) -> str | None:  # type: ignore[override]  # the other colour
        await asyncio.sleep(0)
        return super().load(key)

    async def store(self, key: int, value: Any) -> None: ...  # type: ignore[override]  # as above

    async def delete(self, key: int) -> None: ...  # type: ignore[override]  # as above


@pytest.mark.parametrize("colour", ["sync", "async", "plain source"])
@strategies
def test_many_records_without_bulk_methods_are_loaded_one_by_one(colour: str, strategy: Any) -> None:
    """DESIGN 6: what a source lacks is derived from its single methods, with the same result."""
    source: Any = AsyncSingle() if colour == "async" else Single()
    users = Cache[Any, Any]().repository(source, strategy=strategy, key="user:{}")
    keys = [3, -1, 0, 1, 3]
    found = users.get_many(keys) if colour == "sync" else run(users.aio.get_many(keys))
    assert found == {3: "user 3", 1: "user 1"}
    assert list(found) == [3, 1]
    assert sorted(source.loads) == [-1, 0, 1, 3]


# Writing --------------------------------------------------------------------------------------------------------------


@colours
@strategies
def test_put_is_seen_by_every_later_get(colour: str, strategy: Any) -> None:
    """DESIGN 6: source first; afterwards everybody gets the new value, whatever was cached."""
    face = Face(colour, {42: "Ann"}, strategy)
    face.get(42)
    assert face.put(42, "Anne") is None
    assert face.inner.records == {42: "Anne"}
    assert face.get(42) == "Anne"
    assert face.get_many([42]) == {42: "Anne"}
    face.put(43, "Bob")
    assert face.get(43) == "Bob"


@colours
def test_write_through_stores_and_cache_aside_does_not(colour: str) -> None:
    """DESIGN 6: after a write, `WriteThrough` has the value at hand, `CacheAside` loads it."""
    through = Face(colour, {}, WriteThrough())
    through.put(42, "Ann")
    assert through.get(42) == "Ann"
    assert through.fetch(42).status == "hit"
    assert through.inner.loads == 0
    aside = Face(colour, {}, CacheAside())
    aside.put(42, "Ann")
    assert len(aside.cache) == 0
    assert aside.get(42) == "Ann"
    assert aside.inner.loads == 1


@colours
@strategies
def test_deleted_record_is_gone(colour: str, strategy: Any) -> None:
    """DESIGN 6: `delete` reaches the source and the cache."""
    face = Face(colour, {42: "Ann"}, strategy)
    face.get(42)
    face.delete(42)
    assert face.inner.records == {}
    with pytest.raises(NotFound):
        face.get(42)


@colours
@strategies
@pytest.mark.parametrize("write", ["put", "delete"])
def test_write_that_fails_raises_and_invalidates(colour: str, strategy: Any, write: str) -> None:
    """I3, I5: whether a failed write reached the source nobody knows, so the record is read again."""
    face = Face(colour, {42: "Ann"}, strategy)
    face.get(42)
    error = ConnectionError("lost after the commit")

    def store(key: Any, value: Any = None) -> None:
        face.inner.records[key] = "Anne"
        raise error

    face.inner.store = store  # type: ignore[method-assign]  # on purpose
    face.inner.delete = store  # type: ignore[method-assign]  # on purpose
    with pytest.raises(ConnectionError) as caught:
        face.put(42, "Anne") if write == "put" else face.delete(42)
    assert caught.value is error
    assert face.get(42) == "Anne"
    assert not face.cache._engine.state.fences


@colours
@caching
def test_readers_during_a_write_go_to_the_source(colour: str, strategy: Any) -> None:
    """I3: a put and a delete are fenced; what is read meanwhile is not stored."""
    face = Face(colour, {42: "old"}, strategy)
    face.get(42)
    statuses: list[str] = []
    plain_store = face.inner.store

    def store(key: Any, value: Any) -> None:
        statuses.append(face.cache.fetch("user:42", lambda: "old").status)
        plain_store(key, value)

    face.inner.store = store  # type: ignore[method-assign]  # on purpose
    face.put(42, "new")
    assert statuses == ["bypass"]
    assert face.get(42) == "new"


@colours
@caching
def test_invalidate_forgets_records(colour: str, strategy: Any) -> None:
    """DESIGN 2: by the record's key, not the cache's."""
    face = Face(colour, {1: "a", 2: "b"}, strategy)
    face.get_many([1, 2])
    face.inner.records.update({1: "A", 2: "B"})
    face.invalidate(1)
    assert face.get_many([1, 2]) == {1: "A", 2: "b"}


@colours
def test_tags_of_records_are_invalidated(colour: str) -> None:
    """DESIGN 2: plain tags and templates, for loaded, bulk-loaded and written records."""
    face = Face(colour, {1: "a", 2: "b", 3: "c"}, WriteThrough(), tags=["users", "user-tag:{}"])
    face.get(1), face.get_many([2]), face.put(3, "c")
    face.cache.invalidate_tags("user-tag:1", "user-tag:3")
    assert face.cache.get_many(["user:1", "user:2", "user:3"]) == {"user:2": "b"}
    face.get(1), face.put(3, "c")
    face.cache.invalidate_tags("users")
    assert face.cache.get_many(["user:1", "user:2", "user:3"]) == {}


@colours
def test_written_value_obeys_ttl_and_bounds(colour: str) -> None:
    """F1, B1: what write-through stores is an entry like any other."""
    face = Face(colour, {}, WriteThrough(), ttl=10, max_weight=5, weigher=len)
    face.put(1, "Ann")
    face.clock.advance(9.9)
    assert face.fetch(1).status == "hit"
    face.clock.advance(0.1)
    assert face.fetch(1).status == "miss"
    face.put(1, "too long a name")
    assert face.cache.get("user:1") is None
    assert face.get(1) == "too long a name"


@colours
def test_ttl_that_depends_on_the_record_holds_for_written_ones(colour: str) -> None:
    """F1: a callable ttl decides for a written record as for a loaded one, and 0 means "do not keep"."""
    face = Face(colour, {}, WriteThrough(), ttl=lambda record: record)
    face.put(1, 10)
    face.put(2, 20)
    face.put(3, 0)
    assert face.inner.records == {1: 10, 2: 20, 3: 0}
    face.clock.advance(10)
    assert [face.fetch(key).status for key in (1, 2, 3)] == ["miss", "hit", "miss"]


@colours
def test_cache_that_cannot_store_does_not_fail_a_write_that_the_source_took(colour: str) -> None:
    """E1: a weigher or a ttl callable that raises is the cache's trouble; the source has the record, the key is free."""

    def fail(value: Any) -> Any:
        raise RuntimeError("no weight")

    face = Face(colour, {1: "old"}, WriteThrough(), max_weight=5, weigher=fail)
    try:
        face.put(1, "new")
    except RuntimeError:
        pass  # telling is allowed, keeping the old value is not
    assert face.inner.records == {1: "new"}
    assert face.cache.get("user:1") is None
    assert not face.cache._engine.state.fences


# I5 -------------------------------------------------------------------------------------------------------------------


class SlowSource:
    """A source whose writes wait, so that two of them can overlap. `commits` says in which order they came."""

    def __init__(self) -> None:
        self.records: dict[Any, Any] = {}
        self.commits: list[Any] = []
        self._may_end: dict[Any, threading.Event] = {}

    def load(self, key: Any) -> Any:
        return self.records[key]

    def store(self, key: Any, value: Any) -> None:
        self.records[key] = value
        event = self._may_end[value] = threading.Event()
        self.commits.append(value)
        assert event.wait(DEADLINE)

    def delete(self, key: Any) -> None:
        self.records.pop(key)

    def wait_for_commit(self, count: int) -> None:
        wait_until(lambda: len(self.commits) == count, f"{count} writes have committed")

    def release(self, value: Any) -> None:
        self._may_end[value].set()


@pytest.mark.parametrize("first_to_return", ["A", "B"])
def test_of_two_overlapping_writes_neither_stores(first_to_return: str) -> None:
    """I5: A commits, B commits, and whoever returns last would leave its value; so the key is invalidated."""
    source = SlowSource()
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(source, strategy=WriteThrough(), key="user:{}")
    first = Call(lambda: users.put(1, "A"))
    source.wait_for_commit(1)
    second = Call(lambda: users.put(1, "B"))
    source.wait_for_commit(2)
    for value in ("A", "B") if first_to_return == "A" else ("B", "A"):
        source.release(value)
        (first if value == "A" else second).result()
    assert cache.get("user:1") in (None, "B")
    assert users.get(1) == "B"
    with pytest.raises(KeyError):
        users.get(2)


@pytest.mark.parametrize("change", ["invalidate", "tag", "clear", "set", "fence", "tag fence", "fence that was left"])
def test_write_that_another_change_overtook_does_not_store(change: str) -> None:
    """I5: whatever says that the record changed while a write was under way keeps its value out."""
    source = SlowSource()
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(source, strategy=WriteThrough(), key="user:{}", tags=["users"])
    writing = Call(lambda: users.put(1, "A"))
    source.wait_for_commit(1)
    source.records[1] = "changed beside the cache"
    with ExitStack() as fences:
        match change:
            case "invalidate":
                cache.invalidate("user:1")
            case "tag":
                cache.invalidate_tags("users")
            case "clear":
                cache.clear()
            case "set":
                cache.set("user:1", "set by hand")
            case "fence":
                fences.enter_context(cache.writing("user:1"))
            case "tag fence":
                fences.enter_context(cache.writing(tags=["users"]))
            case _:
                with cache.writing("user:1"):
                    pass
        source.release("A")
        writing.result()
        assert cache.get("user:1") is None
    assert users.get(1) == "changed beside the cache"


def test_writes_to_different_records_do_not_disturb_each_other() -> None:
    """I5: only writes to the same key count."""
    source = SlowSource()
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(source, strategy=WriteThrough(), key="user:{}", tags=["users"])
    calls = [Call(lambda: users.put(1, "A")), Call(lambda: users.put(2, "B"))]
    source.wait_for_commit(2)
    source.release("A"), source.release("B")
    [call.result() for call in calls]
    assert cache.get_many(["user:1", "user:2"]) == {"user:1": "A", "user:2": "B"}


def test_overlapping_async_writes_do_not_store() -> None:
    """I5: the same in the async face, and a later write alone stores again."""
    cache: Cache[Any, Any] = Cache()
    inside = [0]
    gate = asyncio.Event()

    class Slow(AsyncDictSource[Any, Any]):
        async def store(self, key: Any, value: Any) -> None:
            await super().store(key, value)
            inside[0] += 1
            await gate.wait()

    source = Slow()
    users = cache.repository(source, strategy=WriteThrough(), key="user:{}")

    async def main() -> None:
        tasks = [asyncio.create_task(users.aio.put(1, value)) for value in ("A", "B")]
        await until(lambda: inside[0] == 2, "both have committed")
        gate.set()
        await asyncio.gather(*tasks)
        assert await cache.aio.get("user:1") is None
        assert await users.aio.get(1) == "B"
        await users.aio.put(1, "C")
        assert await cache.aio.get("user:1") == "C"

    run(main())


@pytest.mark.parametrize("strategy", CACHING, ids=repr)
def test_load_that_a_put_overtook_is_not_stored(strategy: Any) -> None:
    """I2, I5: a read that began before the write does not bring back the old record."""
    cache: Cache[Any, Any] = Cache()
    source = DictSource[Any, Any]({1: "old"})
    load = HeldLoader(lambda number: "old")
    users = cache.repository(source, strategy=strategy, key="user:{}")
    reading = Call(lambda: cache.get_or_load("user:1", load))
    load.wait_until_called()
    users.put(1, "new")
    load.release()
    assert reading.result() == "old"
    assert users.get(1) == "new"


@pytest.mark.parametrize("kind", ["async source", "plain source"])
def test_cancelled_write_leaves_no_old_value(kind: str) -> None:
    """I3: a caller who is cancelled leaves; whether the write came through or not, nobody gets the old record after it."""
    cache: Cache[Any, Any] = Cache()
    started, may_end = threading.Event(), threading.Event()

    class Plain(DictSource[Any, Any]):
        def store(self, key: Any, value: Any) -> None:
            started.set()
            assert may_end.wait(DEADLINE)
            super().store(key, value)

    class Coloured(AsyncDictSource[Any, Any]):
        async def store(self, key: Any, value: Any) -> None:
            await super().store(key, value)
            started.set()
            await asyncio.sleep(DEADLINE)

    source: Any = Coloured({1: "old"}) if kind == "async source" else Plain({1: "old"})
    users = cache.repository(source, strategy=WriteThrough(), key="user:{}")

    async def main() -> None:
        assert await users.aio.get(1) == "old"
        task = asyncio.create_task(users.aio.put(1, "new"))
        await until(started.is_set, "the write is under way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if kind == "plain source":
            assert (await users.aio.fetch(1)).status == "bypass"
        may_end.set()
        await until(lambda: not cache._engine.state.fences, "the fence is left")
        assert await users.aio.get(1) == "new"

    run(main())


# Joining --------------------------------------------------------------------------------------------------------------


def test_repository_and_cache_share_flights() -> None:
    """L1: a record that is being loaded by hand under its key is not loaded by the repository as well."""
    cache: Cache[Any, Any] = Cache()
    source = DictSource[Any, Any]({1: "Ann"})
    users = cache.repository(source, key="user:{}")
    load = HeldLoader("by hand")
    calls = [Call(lambda: cache.get_or_load("user:1", load)), Call(lambda: users.get(1))]
    wait_for_callers(cache, "user:1", 2)
    load.release()
    assert {call.result() for call in calls} <= {"by hand", "Ann"}
    assert source.loads + load.calls == 1


def test_no_cache_callers_do_not_share_loads() -> None:
    """DESIGN 6: with `NoCache` each read is the latest, so nobody joins a load that began before."""
    barrier = threading.Barrier(4)

    class Together(DictSource[Any, Any]):
        def load(self, key: Any, /) -> Any:
            barrier.wait(DEADLINE)
            return super().load(key)

    users = Cache[Any, Any]().repository(Together({1: "Ann"}), strategy=NoCache())
    calls = [Call(lambda: users.get(1)) for _ in range(4)]
    assert [call.result() for call in calls] == ["Ann"] * 4


def test_two_repositories_with_different_templates_do_not_share_entries() -> None:
    """Keys: the template sets kinds of records apart."""
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(DictSource[Any, Any]({1: "Ann"}), key="user:{}")
    posts = cache.repository(DictSource[Any, Any]({1: "Hello"}), key="post:{}")
    assert [users.get(1), posts.get(1), users.get(1), posts.get(1)] == ["Ann", "Hello", "Ann", "Hello"]
    users.invalidate(1)
    assert cache.get("post:1") == "Hello"


def test_key_named_in_the_template_works() -> None:
    """Keys: the field may have a name."""
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(DictSource[Any, Any]({1: "Ann"}), key="user:{id}", tags=["u:{id}"])
    users.get(1)
    assert cache.get("user:1") == "Ann"
    cache.invalidate_tags("u:1")
    assert cache.get("user:1") is None


@caching
def test_source_may_return_loaded(strategy: Any) -> None:
    """DESIGN 2: a source's `load` and `load_many` may decide on ttl and tags as loaders do."""

    class Deciding(Single):
        def load(self, key: int) -> Any:
            return Loaded(f"user {key}", ttl=5, tags=[f"n:{key}"])

        def load_many(self, keys: Iterable[int]) -> dict[int, Any]:
            return {key: self.load(key) for key in keys}

    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(clock=clock, jitter=0)
    users = cache.repository(Deciding(), strategy=strategy, key="user:{}")
    assert users.get(1) == "user 1"
    assert users.get_many([1, 2]) == {1: "user 1", 2: "user 2"}
    cache.invalidate_tags("n:1")
    assert cache.get_many(["user:1", "user:2"]) == {"user:2": "user 2"}
    clock.advance(5)
    assert cache.get("user:2") is None


# Bad input ------------------------------------------------------------------------------------------------------------


def test_async_source_in_the_sync_face_raises_and_says_what_to_do() -> None:
    """DESIGN 2: an async source serves `repository.aio` only; nothing reaches it otherwise."""
    source = AsyncDictSource[Any, Any]({1: "Ann"})
    users: Any = Cache[Any, Any]().repository(source, key="user:{}")
    calls = [lambda: users.get(1), lambda: users.get_many([1]), lambda: users.put(1, "x"), lambda: users.delete(1)]
    for call in [*calls, lambda: users.fetch(1)]:
        with pytest.raises(UsageError, match=r"repository\.aio"):
            call()
    assert (source.inner.loads, source.inner.writes) == (0, 0)


@pytest.mark.parametrize("strategy", ["cache-aside", CacheAside, 1, object()])
def test_wrong_strategy_raises_and_lists_the_known(strategy: Any) -> None:
    """Bad input: at once, and the class itself is not the strategy."""
    with pytest.raises(ConfigurationError, match=r"CacheAside\(\), WriteThrough\(\), WriteBehind\(...\) or NoCache"):
        Cache[Any, Any]().repository(DictSource[Any, Any](), strategy=strategy)


@pytest.mark.parametrize("source", [object(), {}, None, print])
def test_wrong_source_raises_and_says_what_is_missing(source: Any) -> None:
    """Bad input: at once, with the name of the method."""
    with pytest.raises(ConfigurationError, match="has no (load|store|delete)"):
        Cache[Any, Any]().repository(source, key="user:{}")


@pytest.mark.parametrize("template", ["user", "{}:{}", "user:{", "{a}{b}", "user:{a.b}", "user:{!r}"])
def test_wrong_template_of_a_repository_raises(template: str) -> None:
    """Bad input: a record's key has one field."""
    with pytest.raises(ConfigurationError):
        Cache[Any, Any]().repository(DictSource[Any, Any](), key=template)


def test_lone_tag_of_a_repository_raises() -> None:
    """Bad input: a lone str would be taken for its letters."""
    with pytest.raises(UsageError, match="tags"):
        Cache[Any, Any]().repository(DictSource[Any, Any](), tags="users")


@colours
@strategies
def test_key_that_a_template_cannot_show_raises(colour: str, strategy: Any) -> None:
    """Bad input: a record's key is something that has an injective text."""
    face = Face(colour, {}, strategy)
    if isinstance(strategy, NoCache):
        return
    with pytest.raises(UsageError):
        face.get(object())
    with pytest.raises(UsageError):
        face.put(object(), 1)
    assert face.inner.records == {}


@colours
@strategies
def test_wrong_timeout_of_a_repository_raises(colour: str, strategy: Any) -> None:
    """Bad input: checked before the source is asked."""
    face = Face(colour, {1: "Ann"}, strategy)
    for call in (lambda: face.get(1, timeout=-1), lambda: face.get_many([1], timeout=0)):
        with pytest.raises(ConfigurationError, match="timeout must be"):
            call()
    assert face.inner.loads == 0


def test_reading_many_one_by_one_keeps_to_the_timeout_of_the_call() -> None:
    """L6: without `load_many` the timeout covers all loads together, not each of them."""
    clock = FakeClock()

    class Slow:
        loads = 0

        def load(self, key: int) -> str:
            self.loads += 1
            clock.advance(0.3)
            return f"record {key}"

        def store(self, key: int, value: str) -> None: ...
        def delete(self, key: int) -> None: ...

    source = Slow()
    cache: Cache[Any, Any] = Cache(clock=clock)
    records = cache.repository(source, key="r:{}")
    with pytest.raises(LoadTimeout):
        records.get_many([1, 2, 3, 4], timeout=0.5)
    assert source.loads == 2
    assert cache.get("r:1") == "record 1"


def test_clear_during_a_write_through_keeps_the_written_value_out() -> None:
    """I2, I5: what is cleared while a write is under way is not stored by it afterwards, also if nobody is loading."""
    cache: Cache[Any, Any] = Cache()
    source: DictSource[int, str] = DictSource({1: "old"})
    store = source.store

    def store_and_clear(key: int, value: str) -> None:
        store(key, value)
        cache.clear()

    source.store = store_and_clear  # type: ignore[method-assign]
    records = cache.repository(source, strategy=WriteThrough(), key="r:{}")
    records.put(1, "new")
    assert "r:1" not in cache
    assert records.get(1) == "new"
