"""Whose context variables a loader sees: rule L10."""

import asyncio
import contextvars
import decimal
from collections.abc import Callable, Iterator

import pytest
from tests.support.waiting import (
    Call,
    HeldAsyncLoader,
    HeldLoader,
    gather_errors,
    run,
    until,
    until_callers,
    wait_for_callers,
    wait_until,
)

from credenza import Cache, Flights, LoadTimeout
from credenza.testing import FakeClock

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache with the defaults."""
    return Cache()


@pytest.fixture(autouse=True)
def caller() -> Iterator[None]:
    """Call as Ann."""
    token = user.set("ann")
    yield
    user.reset(token)


def seen() -> str:
    """Return whose context this is, and change it."""
    was = user.get()
    user.set("the loader")
    return was


async def seen_async() -> str:
    """Return whose context this is after a few turns, and change it."""
    was = user.get()
    await asyncio.sleep(0)
    assert user.get() == was
    return seen()


SYNC_CALLS: dict[str, Callable[[Cache[object, object]], object]] = {
    "single": lambda cache: cache.get_or_load("k", seen),
    "with a deadline": lambda cache: cache.get_or_load("k", seen, timeout=5),
    "with a limit": lambda cache: cache.get_or_load("k", seen, max_concurrent_loads=1),
    "with a load timeout": lambda cache: cache.get_or_load("k", seen, load_timeout=5),
    "fetch": lambda cache: cache.fetch("k", seen).value,
    "bulk": lambda cache: cache.get_or_load_many(["k"], lambda keys: {"k": seen()})["k"],
    "bulk with a deadline": lambda cache: cache.get_or_load_many(["k"], lambda keys: {"k": seen()}, timeout=5)["k"],
    "decorated": lambda cache: cache.cached(lambda: seen())(),
    "flights": lambda cache: Flights().do("k", seen),
}


@pytest.mark.parametrize("how", SYNC_CALLS)
def test_loader_sees_the_callers_variables_and_leaves_them(cache: Cache[object, object], how: str) -> None:
    """L10: a plain loader runs in a copy of the leader's context: it sees the values, and cannot change them."""
    assert SYNC_CALLS[how](cache) == "ann"
    assert user.get() == "ann"


@pytest.mark.parametrize("loader", [seen, seen_async, lambda: seen_async()], ids=["plain", "coroutine", "lambda"])
@pytest.mark.parametrize("timeout", [None, 5])
def test_async_loader_sees_the_callers_variables_and_leaves_them(
    cache: Cache[object, object], loader: Callable[[], object], timeout: float | None
) -> None:
    """L10: the same for tasks, whatever kind of loader they bring, in its first step and after it."""

    async def main() -> None:
        token = user.set("a task")
        assert await cache.aio.get_or_load("k", loader, timeout=timeout) == "a task"
        assert await cache.aio.get_or_load_many(["l"], lambda keys: {"l": user.get()}) == {"l": "a task"}
        assert await Flights().aio.do("m", loader) == "a task"
        assert user.get() == "a task"
        user.reset(token)

    run(main())


def test_variable_set_in_a_loader_can_be_reset_after_a_wait(cache: Cache[object, object]) -> None:
    """L10: all steps of a coroutine run in one context, so that a token from the first is good in the last."""

    async def loader() -> str:
        token = user.set("inside")
        await asyncio.sleep(0)
        was = user.get()
        user.reset(token)
        return f"{was}, {user.get()}"

    assert run(cache.aio.get_or_load("k", loader)) == "inside, ann"


def test_tasks_and_callbacks_that_a_loader_starts_have_its_context(cache: Cache[object, object]) -> None:
    """L10: what a loader starts, before and after its first wait, sees the leader's values."""

    async def loader() -> list[str]:
        got: list[str] = []
        for _ in range(2):
            done = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda done=done: done.set_result(user.get()))
            got += [await asyncio.create_task(seen_async()), await asyncio.to_thread(user.get), await done]
        return got

    assert run(cache.aio.get_or_load("k", loader)) == ["ann"] * 6


def test_decimal_context_of_the_caller_holds_in_the_loader(cache: Cache[object, object]) -> None:
    """L10: other libraries' context variables are carried too."""
    with decimal.localcontext(prec=3):
        assert cache.get_or_load("k", lambda: decimal.Decimal(1) / 3, timeout=5) == decimal.Decimal("0.333")


def test_waiters_get_the_leaders_view(cache: Cache[object, object]) -> None:
    """L10: the loader sees the leader's variables, whoever waits for it."""
    held = HeldLoader(lambda _number: user.get())

    def call(name: str) -> object:
        user.set(name)
        return cache.get_or_load("k", held)

    leader = Call(lambda: call("leader"))
    wait_for_callers(cache, "k", 1)
    waiter = Call(lambda: call("waiter"))
    wait_for_callers(cache, "k", 2)
    held.release()
    assert leader.result() == waiter.result() == "leader"


def test_waiter_that_becomes_the_leader_brings_its_own_variables(cache: Cache[object, object]) -> None:
    """L10, L2: after an interrupted leader the loader runs in the context of the waiter that leads."""

    def outcome(number: int) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return user.get()

    held = HeldLoader(outcome)

    def call(name: str) -> object:
        user.set(name)
        return cache.get_or_load("k", held)

    leader = Call(lambda: call("leader"))
    wait_for_callers(cache, "k", 1)
    waiter = Call(lambda: call("waiter"))
    wait_for_callers(cache, "k", 2)
    held.release()
    leader.error()
    assert waiter.result() == "waiter"


def test_load_that_goes_on_without_its_leader_keeps_its_variables(cache: Cache[object, object]) -> None:
    """L10, L5: the leader has left, changed its variables and ended; the load still sees what it began with."""

    async def main() -> None:
        held = HeldAsyncLoader(lambda _number: user.get())

        async def lead() -> object:
            user.set("leader")
            try:
                return await cache.aio.get_or_load("k", held)
            finally:
                user.set("gone")

        leader = asyncio.create_task(lead())
        await until_callers(cache, "k", 1)
        waiter = asyncio.create_task(cache.aio.get_or_load("k", held))
        await until_callers(cache, "k", 2)
        leader.cancel()
        await gather_errors(leader)
        held.release()
        assert await waiter == "leader"

    run(main())


def test_load_that_a_thread_left_keeps_its_variables(cache: Cache[object, object]) -> None:
    """L10, L6: the same for a sync leader that left at its deadline."""
    held = HeldLoader(lambda _number: user.get())
    with pytest.raises(LoadTimeout):
        cache.get_or_load("k", held, timeout=0.02)
    user.set("somebody else")
    held.release()
    wait_until(lambda: "k" in cache, "the value is stored")
    assert cache.get("k") == "ann"


@pytest.mark.parametrize("face", ["sync", "async"])
def test_background_refresh_sees_the_variables_of_the_reader_that_began_it(face: str) -> None:
    """L10, F3: a refresh holds a copy of its reader's context, whatever the reader does next."""
    clock = FakeClock()
    cache: Cache[str, object] = Cache(clock=clock, ttl=10, jitter=0, stale_while_revalidate=60)
    cache.set("k", "old")
    clock.advance(11)
    held = HeldLoader(lambda _number: user.get())

    async def main() -> None:
        user.set("reader")
        assert await cache.aio.get_or_load("k", held) == "old"
        user.set("somebody else")
        held.release()
        await until(lambda: cache.get("k") == "reader", "the refresh is stored")

    if face == "async":
        run(main())
        return
    assert cache.get_or_load("k", held) == "old"
    user.set("somebody else")
    held.release()
    wait_until(lambda: cache.get("k") == "ann", "the refresh is stored")
