"""Callers that a signal interrupts: rules L2 and L5."""

import asyncio
import contextlib
import itertools
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.waiting import (
    Call,
    HeldLoader,
    callers_of,
    results,
    run,
    wait_for_callers,
)

from credenza import Cache, implementation, quick
from credenza.flight import Flight
from credenza.testing import FakeClock

Task = asyncio.Task[object]


def make_cache() -> Cache[object, object]:
    return Cache(clock=FakeClock(), jitter=0)


class Interrupted(BaseException):
    """Raised in the main thread by a signal."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGUSR1 raise `Interrupted` in the main thread, as SIGINT raises KeyboardInterrupt."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_interrupted_waiter_is_not_noticed(interruptible: None) -> None:
    """L5: Ctrl-C in a thread that waits ends its own wait only."""
    cache, loader = make_cache(), HeldLoader()
    others = [Call(lambda: cache.get_or_load("k", loader)) for _ in range(3)]
    wait_for_callers(cache, "k", 3)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_for_callers(cache, "k", 4)
        signal.pthread_kill(main, signal.SIGUSR1)

    helper = Call(interrupt)
    with pytest.raises(Interrupted):
        cache.get_or_load("k", loader)
    helper.result()
    assert callers_of(cache, "k") == 3
    loader.release()
    assert results(others) == ["value"] * 3
    assert loader.calls == 1


def test_interrupted_leader_hands_over(interruptible: None) -> None:
    """L2, L5: Ctrl-C in the leader's loader ends its own call; a waiter loads for the others."""
    cache, loader = make_cache(), HeldLoader(lambda number: number)
    main = threading.main_thread().ident
    assert main is not None
    others: list[Call[object]] = []

    def interrupt() -> None:
        loader.wait_until_called()
        others.extend(Call(lambda: cache.get_or_load("k", loader)) for _ in range(3))
        wait_for_callers(cache, "k", 4)
        signal.pthread_kill(main, signal.SIGUSR1)

    helper = Call(interrupt)
    with pytest.raises(Interrupted):
        cache.get_or_load("k", loader)
    helper.result()
    loader.wait_until_called(2)
    loader.release()
    assert results(others) == [2] * 3


@pytest.mark.skipif(implementation() == "pure", reason="Ctrl-C in the middle of a step can tear the pure table")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one may come in a finalizer
@pytest.mark.parametrize("options", [{}, {"key": "k:{number}"}, {"tags": ["t:{number}"]}, {"typed": True}], ids=str)
def test_miss_that_is_interrupted_anywhere_leaves_no_flight(interruptible: None, options: dict[str, Any]) -> None:
    """L3: whenever Ctrl-C comes, whoever asks for the key later does not wait for a load that nobody runs."""
    cache, moments = make_cache(), random.Random(1)
    function = cache.cached(**options)(lambda number: number)
    before = signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGUSR1))
    numbers, interrupts = itertools.count(), 0
    try:
        while interrupts < 300:
            with contextlib.suppress(Interrupted):
                try:
                    signal.setitimer(signal.ITIMER_REAL, moments.uniform(2e-6, 6e-5))
                    interrupts += 1  # nearly all of them come below
                    for _ in range(30):
                        function(next(numbers))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert cache.stats().flights == 0
    finally:
        signal.signal(signal.SIGALRM, before)


def test_interrupt_right_after_the_beginning_of_a_flight_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: the same for the steps in Python, at the moment that is the worst."""
    take_off = quick.Shortcut.take_off

    def interrupted(shortcut: quick.Shortcut, flight: Flight) -> bool:
        take_off(shortcut, flight)
        raise Interrupted

    cache = make_cache()
    monkeypatch.setattr(quick.Shortcut, "take_off", interrupted)
    for loader in (lambda number: number, async_identity):
        handle = cache.cached(key="k:{number}")(loader).refresh.__self__
        recipe = handle._recipe
        recipe.shortcut = quick.Shortcut(recipe.engine.state, recipe.policy, recipe.tally)
        with pytest.raises(Interrupted):
            run(handle.call(1)) if recipe.is_async else handle.call(1)
        assert cache.stats().flights == 0


async def async_identity(number: int) -> int:
    return number
