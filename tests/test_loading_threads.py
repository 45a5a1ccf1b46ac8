"""One load per key for the sync face: rules L1-L4 and L8 with threads."""

import sys
import threading
from collections.abc import Iterator

import pytest
from tests.support.waiting import Call, HeldLoader, results, start_together, wait_for_callers

from credenza import Cache, Loaded
from credenza.testing import CountingLoader, FakeClock


@pytest.fixture
def cache() -> Cache[str, object]:
    """A cache whose clock stands still."""
    return Cache(clock=FakeClock(), jitter=0)


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_64_threads_on_a_cold_key_load_once(cache: Cache[str, object]) -> None:
    """L1: 64 threads that ask for one cold key make one load, and all get its value."""
    value = object()
    loader = HeldLoader(value)
    calls = start_together(64, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 64)
    loader.release()
    assert results(calls) == [value] * 64
    assert loader.calls == 1
    stats = cache.stats()
    assert (stats.misses, stats.joins, stats.loads, stats.stores) == (1, 63, 1, 1)


def test_fetch_by_two_threads_says_who_loaded(cache: Cache[str, object]) -> None:
    """L1: of two callers one missed and one joined; the next one hits."""
    loader = HeldLoader()
    calls = [Call(lambda: cache.fetch("k", loader)) for _ in range(2)]
    wait_for_callers(cache, "k", 2)
    loader.release()
    assert sorted(fetched.status for fetched in results(calls)) == ["joined", "miss"]
    assert cache.fetch("k", loader).status == "hit"


def test_decorated_function_in_64_threads_runs_once(cache: Cache[str, object]) -> None:
    """L1: calls of a decorated function share one run per arguments, however they are written."""
    loader = HeldLoader()

    @cache.cached
    def read(number: int) -> object:
        return loader(number)

    barrier = threading.Barrier(64)

    def by_position() -> object:
        barrier.wait(10)
        return read(1)

    def by_name() -> object:
        barrier.wait(10)
        return read(number=1)

    calls = [Call(by_position if number % 2 else by_name) for number in range(64)]
    wait_for_callers(cache, read.key_for(1), 64)
    loader.release()
    assert results(calls) == ["value"] * 64
    assert loader.calls == 1


def test_different_keys_load_at_the_same_time(cache: Cache[str, object]) -> None:
    """L1: the loads of different keys do not wait for each other."""
    barrier = threading.Barrier(8)
    calls = [Call(lambda key=key: cache.get_or_load(key, lambda: barrier.wait(10))) for key in "abcdefgh"]  # type: ignore[misc]
    assert sorted(results(calls)) == list(range(8))


def test_unlucky_switches_never_load_twice(eager_switching: None) -> None:
    """L8: with a switch after nearly every instruction, no gap between flight and entry lets a second load start."""
    for _ in range(60):
        cache: Cache[str, int] = Cache()
        loader = CountingLoader(7)
        calls = start_together(6, lambda cache=cache, loader=loader: cache.get_or_load("k", loader))  # type: ignore[misc]
        assert results(calls) == [7] * 6
        assert loader.calls == 1


def test_value_is_at_hand_when_the_first_waiter_wakes(cache: Cache[str, object]) -> None:
    """L8: whoever gets the value of a flight finds it in the cache too."""
    loader = HeldLoader()
    calls = start_together(16, lambda: (cache.get_or_load("k", loader), cache.get("k")))
    wait_for_callers(cache, "k", 16)
    loader.release()
    assert results(calls) == [("value", "value")] * 16


@pytest.mark.parametrize("value", [None, False, 0, "", (), ValueError("a value, not an error"), ValueError], ids=repr)
def test_any_value_reaches_every_waiter_and_is_kept(cache: Cache[str, object], value: object) -> None:
    """L2, F4: None, falsy values and exceptions are values like any other."""
    loader = HeldLoader(lambda _number: value)
    calls = start_together(4, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 4)
    loader.release()
    assert all(got is value for got in results(calls))
    assert cache.get("k", "default") is value
    assert loader.calls == 1


def test_value_that_is_not_to_be_kept_reaches_every_waiter(cache: Cache[str, object]) -> None:
    """L2: `Loaded(ttl=0)` is shared with those who wait, and loaded again by whoever comes later."""
    loader = HeldLoader(lambda number: Loaded(number, ttl=0))
    calls = start_together(8, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 8)
    loader.release()
    assert results(calls) == [1] * 8
    assert cache.get_or_load("k", loader) == 2
    assert "k" not in cache


def test_failed_load_stores_nothing_and_the_next_call_loads(cache: Cache[str, object]) -> None:
    """L3: after an error the next call loads again."""
    loader = CountingLoader("fine", error=OSError("down"))
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            cache.get_or_load("k", loader)
    assert "k" not in cache
    loader.error = None
    assert cache.get_or_load("k", loader) == "fine"
    assert loader.calls == 3
    assert cache.stats().load_failures == 2


def test_keyboard_interrupt_in_the_leader_makes_a_waiter_lead(cache: Cache[str, object]) -> None:
    """L2: KeyboardInterrupt is the leader's alone; one of its waiters loads for the others."""

    def outcome(number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return number

    loader = HeldLoader(outcome)
    leader = Call(lambda: cache.get_or_load("k", loader))
    loader.wait_until_called()
    waiters = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(8)]
    wait_for_callers(cache, "k", 9)
    loader.release()
    assert isinstance(leader.error(), KeyboardInterrupt)
    assert results(waiters) == [2] * 8
    assert loader.calls == 2


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interrupted_load_leaves_the_key_free(cache: Cache[str, object], kind: type[BaseException]) -> None:
    """L3: what interrupts a lone leader passes, and the next call loads."""
    with pytest.raises(kind):
        cache.get_or_load("k", CountingLoader(None, error=kind()))
    assert cache.get_or_load("k", lambda: 1) == 1


# L4 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
def test_cache_of_one_entry_loses_no_waiter(eviction: str) -> None:
    """L4: with maxsize=1 and many keys at once there is no KeyError and no lost waiter, and the bound holds."""
    cache: Cache[int, int] = Cache(maxsize=1, eviction=eviction)
    keys = range(8)
    barrier = threading.Barrier(16)

    def work() -> list[int]:
        barrier.wait(10)
        return [cache.get_or_load(key, lambda key=key: key * 10) for _ in range(30) for key in keys]  # type: ignore[misc]

    for got in results([Call(work) for _ in range(16)]):
        assert got == [key * 10 for _ in range(30) for key in keys]
    assert len(cache) <= 1


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
def test_eviction_during_a_load_loses_no_waiter(eviction: str) -> None:
    """L4: while a key is being loaded, other keys may fill the cache many times over."""
    cache: Cache[object, object] = Cache(maxsize=2, eviction=eviction)
    loader = HeldLoader()
    calls = start_together(8, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 8)
    for number in range(50):
        cache.set(number, number)
    loader.release()
    assert results(calls) == ["value"] * 8
    assert loader.calls == 1


def test_expiry_during_a_load_loses_no_waiter() -> None:
    """L4: a value that expires while it is loaded anew keeps its waiters."""
    clock = FakeClock()
    cache: Cache[str, object] = Cache(ttl=10, jitter=0, clock=clock)
    cache.set("k", "old")
    clock.advance(11)
    loader = HeldLoader()
    calls = start_together(8, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 8)
    clock.advance(1_000)
    for number in range(20):
        cache.set(str(number), number)
    loader.release()
    assert results(calls) == ["value"] * 8
    assert cache.get("k") == "value"


def test_clear_during_a_load_loses_no_waiter(cache: Cache[str, object]) -> None:
    """L4, I2: `clear` gives the waiters their value, keeps it out of the cache, and lets newcomers load anew."""
    loader = HeldLoader(lambda number: number)
    calls = start_together(8, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 8)
    cache.clear()
    newcomer = Call(lambda: cache.get_or_load("k", loader))
    loader.wait_until_called(2)
    loader.release()
    assert set(results(calls)) <= {1, 2}
    assert len(set(results(calls))) == 1
    assert newcomer.result() != results(calls)[0]
    assert cache.get("k") == newcomer.result()


def test_weight_too_heavy_for_the_cache_reaches_every_waiter() -> None:
    """L2, B1: a value that is too heavy to be stored is still everybody's value."""
    cache: Cache[str, str] = Cache(max_weight=3, weigher=len)
    loader = HeldLoader("too long")
    calls = start_together(8, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 8)
    loader.release()
    assert results(calls) == ["too long"] * 8
    assert loader.calls == 1
    assert "k" not in cache
