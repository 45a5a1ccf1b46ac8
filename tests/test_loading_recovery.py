"""Whatever goes wrong in a load, the key is free afterwards: rule L3."""

from collections.abc import Callable

import pytest
from tests.support.waiting import (
    Call,
    HeldLoader,
    start_together,
    wait_for_callers,
)

from credenza import Cache, ConfigurationError, Loaded, UsageError
from credenza.testing import FakeClock


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache whose clock stands still."""
    return Cache(clock=FakeClock(), jitter=0)


def broken_ttl(_value: object) -> float:
    raise ZeroDivisionError


def negative_ttl(_value: object) -> float:
    return -1


WRONG_RESULTS: list[tuple[object, type[Exception]]] = [
    (Loaded(1, tags=5), TypeError),  # type: ignore[arg-type]
    (Loaded(1, tags=[["unhashable"]]), TypeError),  # type: ignore[list-item]
    (Loaded(1, tags="users"), UsageError),
    (Loaded(1, tags=[3]), UsageError),  # type: ignore[list-item]
    (Loaded(1, ttl=-1), ConfigurationError),
    (Loaded(1, ttl="soon"), ConfigurationError),
]


@pytest.mark.parametrize(
    ("result", "kind"), WRONG_RESULTS, ids=lambda part: repr(part) if isinstance(part, Loaded) else ""
)
def test_wrong_loaded_is_an_error_for_all_and_blocks_nobody(
    cache: Cache[object, object], result: object, kind: type[Exception]
) -> None:
    """L3: a `Loaded` that cannot be understood fails the load, and the next call loads anew."""
    loader = HeldLoader(lambda _number: result)
    calls = start_together(3, lambda: cache.get_or_load("k", loader, timeout=5))
    wait_for_callers(cache, "k", 3)
    loader.release()
    assert all(isinstance(call.error(), kind) for call in calls)
    assert cache.get_or_load("k", lambda: "fine", timeout=5) == "fine"


@pytest.mark.parametrize(("ttl", "kind"), [(broken_ttl, ZeroDivisionError), (negative_ttl, ConfigurationError)])
def test_ttl_callable_that_fails_blocks_nobody(
    cache: Cache[object, object], ttl: Callable[[object], float], kind: type[Exception]
) -> None:
    """L3: an error out of a `ttl` callable is one of the load."""
    loader = HeldLoader()
    calls = start_together(3, lambda: cache.get_or_load("k", loader, ttl=ttl))
    wait_for_callers(cache, "k", 3)
    loader.release()
    assert all(isinstance(call.error(), kind) for call in calls)
    assert cache.get_or_load("k", lambda: "fine", timeout=5) == "fine"


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_weigher_that_fails_blocks_nobody(error: BaseException) -> None:
    """L3: an error out of a weigher, an interruption included, is one of the load."""

    def weigh(value: object) -> int:
        if value == "bad":
            raise error
        return 1

    cache: Cache[str, object] = Cache(max_weight=10, weigher=weigh)
    with pytest.raises(type(error)):
        cache.get_or_load("k", lambda: "bad")
    assert cache.get_or_load("k", lambda: "fine", timeout=5) == "fine"


def test_copy_that_fails_is_the_callers_error_alone() -> None:
    """L2: an error out of `copy=` reaches its caller; the value stays."""
    cache: Cache[str, object] = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("k", lambda: 1, copy=lambda value: 1 / 0)
    assert cache.get_or_load("k", lambda: 2) == 1


def test_listener_that_fails_blocks_nobody(cache: Cache[object, object], caplog: pytest.LogCaptureFixture) -> None:
    """L3: an event listener that raises is logged, and all callers get their value."""
    cache.subscribe(lambda event: 1 / 0)  # type: ignore[arg-type,return-value]
    loader = HeldLoader()
    calls = start_together(3, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 3)
    loader.release()
    assert [call.result() for call in calls] == ["value"] * 3
    assert "listener" in caplog.text


def test_worker_thread_that_cannot_be_started_blocks_nobody(
    cache: Cache[object, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: if the system has no thread for a load, its caller is told and the next one can load."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("credenza.runtime.workers.threading.Thread.start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            cache.get_or_load("k", lambda: 1, timeout=5)
        with pytest.raises(RuntimeError, match="new thread"):
            cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 1), timeout=5)
    assert Call(lambda: cache.get_or_load("k", lambda: 2)).result() == 2
    assert Call(lambda: cache.get_or_load_many(["l"], lambda keys: dict.fromkeys(keys, 2))).result() == {"l": 2}


def test_worker_thread_that_cannot_be_started_fails_no_stale_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3, F3: a background refresh that cannot be started costs the reader nothing, and a later one can."""
    clock = FakeClock()
    cache: Cache[str, int] = Cache(ttl=10, jitter=0, stale_while_revalidate=1_000, clock=clock)
    cache.set("k", 1)
    clock.advance(11)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("credenza.runtime.workers.threading.Thread.start", refuse)
        assert cache.get_or_load("k", lambda: 2) == 1
    assert cache.stats().flights == 0
