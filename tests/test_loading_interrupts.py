"""Callers that a signal interrupts: rules L2 and L5."""

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest
from tests.support.waiting import (
    Call,
    HeldLoader,
    callers_of,
    results,
    wait_for_callers,
)

from credenza import Cache
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
