"""A cache whose Redis is frozen, gone, slow, full, read-only, locked or answers garbage: reads go on, and it says so."""

import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.forking import in_child
from tests.support.servers import find_server
from tests.support.troubles import (
    STALENESS,
    TIER_TIMEOUT,
    TROUBLES,
    Face,
    Trouble,
    keepers,
    said,
    trouble,
    until_proved,
    until_tier,
)
from tests.support.waiting import wait_until

from credenza import Cache, TierError

CALLERS = 10


@pytest.fixture(scope="module", autouse=True)
def server_binary() -> None:
    """Skip where there is no server."""
    find_server("redis")


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Both faces of a cache."""
    made = Face(request.param)
    yield made
    made.end()


@pytest.fixture(params=[kind for kind in TROUBLES if kind != "full"])
def unfenced(request: pytest.FixtureRequest) -> Iterator[Trouble]:
    """The same for what keeps fences from coming up; a full server still takes them."""
    with trouble(request.param) as made:
        yield made


@pytest.fixture(params=TROUBLES)
def bad(request: pytest.FixtureRequest) -> Iterator[Trouble]:
    """A server for each thing that can go wrong; it is well at first."""
    with trouble(request.param) as made:
        yield made


def open_cache(url: str, **options: Any) -> Cache[Any, Any]:
    return Cache.from_url(url, **{"tier_timeout": TIER_TIMEOUT, "max_staleness": STALENESS, **options})


def until_away(cache: Cache[Any, Any], face: Face, bad: Trouble) -> None:
    """Return once the cache has noticed; some troubles are noticed only by whoever wants to store something."""
    bad.begin()
    asked = iter(range(1_000_000))

    def has_noticed() -> bool:
        assert face.read(cache, f"asked:{next(asked)}", lambda: "source") == "source"
        return cache.health().tier == bad.state

    wait_until(has_noticed, f"the tier is {bad.state}")


def until_back(cache: Cache[Any, Any], face: Face) -> None:
    """Return once the cache uses its tier again; whether it is taken from is found out by storing."""
    asked = iter(range(1_000_000))

    def is_back() -> bool:
        assert face.read(cache, f"back:{next(asked)}", lambda: "source") == "source"
        return cache.health().tier == "up"

    wait_until(is_back, "the tier is back")


def test_trouble_leaves_reads_to_the_source_once_per_process_and_is_told_once(
    face: Face, bad: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads go on with one load for all callers of a key, `health` says why, and each change of state is one log line."""
    with open_cache(bad.url) as cache:
        assert face.read(cache, "warm", lambda: "warm") == "warm"
        until_proved(cache)
        until_away(cache, face, bad)
        for number in range(3):
            assert face.held_crowd(cache, f"cold:{number}", CALLERS) == 1
        health = cache.health()
        assert health.tier == bad.state
        assert (health.error is None) == (bad.state == "refusing")
        worse = said(caplog)
        assert len(set(worse)) == len(worse)
        assert 1 <= len(worse) <= 2  # it may be told to refuse before it is left alone
        bad.end()
        until_back(cache, face)
        assert cache.health().error is None
        until_proved(cache)
        loads: list[int] = []
        for _ in range(2):
            face.read(cache, "again", lambda: loads.append(1))
        assert len(loads) == 1
        better = said(caplog)[len(worse) :]
        assert len(better) == len(worse)
        assert len(set(better)) == len(better)
        face.close(cache)


def test_value_is_not_kept_while_nobody_proves_it(face: Face, bad: Trouble) -> None:
    """Without a tier that takes it nothing loaded is kept: another process may write, and nobody would tell."""
    with open_cache(bad.url) as cache:
        until_proved_after_read(cache, face)
        until_away(cache, face, bad)
        values = iter(range(10))
        assert [face.read(cache, "cold", lambda: next(values)) for _ in range(3)] == [0, 1, 2]
        bad.end()
        face.close(cache)


def test_write_that_must_be_fenced_is_refused_before_it_begins(face: Face, unfenced: Trouble) -> None:
    """With on_fence_failure="raise" the block of a write is not entered while the tier cannot be fenced."""
    with open_cache(unfenced.url, on_fence_failure="raise") as cache:
        until_proved_after_read(cache, face)
        unfenced.begin()
        done: list[str] = []
        for _ in range(2):
            with pytest.raises(TierError):
                face.write(cache, "key", lambda: done.append("committed"))
        assert done == []
        with pytest.raises(TierError):
            face.invalidate(cache, "key")
        unfenced.end()

        def write() -> bool:
            try:
                face.write(cache, "key", lambda: done.append("committed"))
            except TierError:
                return False
            return True

        wait_until(write, "a write after the trouble")
        assert done == ["committed"]
        face.close(cache)


def test_owed_invalidation_is_delivered_by_itself(face: Face, unfenced: Trouble) -> None:
    """A write that went on without a fence is made known to other processes once the tier is back."""
    database = {"key": "old"}
    events: list[str] = []
    with open_cache(unfenced.url) as cache, open_cache(unfenced.url) as other:
        cache.subscribe(lambda event: events.append(event.kind))
        for each in (cache, other):
            assert face.read(each, "key", lambda: database["key"]) == "old"
            until_proved(each)
        until_away(cache, face, unfenced)
        face.write(cache, "key", lambda: database.update(key="new"))
        assert face.read(cache, "key", lambda: database["key"]) == "new"
        assert cache.health().owed == 1
        assert "owed" in events
        unfenced.end()
        wait_until(lambda: cache.health().owed == 0, "what is owed is delivered")
        assert "delivered" in events
        until_tier(other, "up")
        wait_until(
            lambda: face.read(other, "key", lambda: database["key"]) == "new", "the other process sees the new value"
        )
        for each in (cache, other):
            face.close(each)


def test_full_server_still_fences_and_invalidates(face: Face) -> None:
    """A server without memory stores no values, but other processes learn of a write all the same."""
    database = {"key": "old"}
    with trouble("full") as bad, open_cache(bad.url, on_fence_failure="raise") as cache, open_cache(bad.url) as other:
        for each in (cache, other):
            assert face.read(each, "key", lambda: database["key"]) == "old"
            until_proved(each)
        bad.begin()
        face.write(cache, "key", lambda: database.update(key="new"))
        wait_until(
            lambda: face.read(other, "key", lambda: database["key"]) == "new", "the other process sees the new value"
        )
        database["key"] = "newest"
        face.invalidate(cache, "key")
        wait_until(
            lambda: face.read(other, "key", lambda: database["key"]) == "newest", "the other process sees it again"
        )
        assert cache.health().owed == 0
        bad.end()
        for each in (cache, other):
            face.close(each)


def test_nothing_is_left_after_a_close_in_the_middle_of_trouble(face: Face, bad: Trouble) -> None:
    """No thread, task or connection outlives a cache that is closed while its tier is in trouble."""
    before = threading.enumerate()
    with open_cache(bad.url) as cache:
        until_proved_after_read(cache, face)
        until_away(cache, face, bad)
        face.write(cache, "key", lambda: None)
        face.close(cache)
    del cache
    wait_until(lambda: not keepers(before), "the keeper ends")
    bad.end()
    with bad.server.client() as client:
        wait_until(lambda: len(client.client_list(_type="normal")) == 1, "its connections are closed")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("kind", ["frozen", "refused"])
def test_child_forked_in_the_middle_of_trouble_reads_and_recovers_by_itself(face: Face, kind: str) -> None:
    """A child begins with nothing of its parent's connections, and finds the tier back like anybody else."""
    with trouble(kind) as bad, open_cache(bad.url) as cache:
        until_proved_after_read(cache, face)
        until_away(cache, face, bad)

        def child() -> list[object]:
            own = Face(face.colour)
            seen: list[object] = [own.read(cache, "warm", lambda: "from the source")]
            bad.end()
            wait_until(lambda: own.read(cache, "probe", lambda: 1) == 1 and cache.health().is_proved, "it is back")
            own.close(cache)
            return seen

        if kind == "refused":
            # The server is to be this process's child.
            bad.end = lambda: None  # type: ignore[method-assign]
        answer = in_child(child) if kind == "frozen" else _in_child_with_server(child, bad)
        assert answer == "['from the source']"
        wait_until(lambda: face.read(cache, "probe", lambda: 1) == 1 and cache.health().tier == "up", "it is back")
        face.close(cache)
        gc.collect()


def _in_child_with_server(child: Any, bad: Trouble) -> str:
    starting = threading.Timer(0.5, type(bad).end, (bad,))
    starting.start()
    try:
        return in_child(child)
    finally:
        starting.join()


def test_slow_tier_within_the_timeout_is_used(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    """A tier whose answers take half of `tier_timeout` is no reason to load again."""
    with trouble("slow") as bad:
        bad.proxy.delay = 0.1  # type: ignore[attr-defined]
        with open_cache(bad.url, tier_timeout=2.0) as cache, open_cache(bad.url, tier_timeout=2.0) as other:
            assert face.read(cache, "key", lambda: "loaded") == "loaded"
            assert face.read(other, "key", lambda: "loaded again") == "loaded"
            face.write(cache, "key", lambda: None)
            assert face.read(other, "key", lambda: "after the write") == "after the write"
            assert said(caplog) == []
            bad.end()
            for each in (cache, other):
                face.close(each)


def until_proved_after_read(cache: Cache[Any, Any], face: Face) -> None:
    assert face.read(cache, "warm", lambda: "warm") == "warm"
    until_proved(cache)
