"""What the callers of a failing load get: rules L2 and L3."""

import asyncio
import json
import subprocess
import traceback
from collections.abc import Callable

import pytest
from tests.support.waiting import (
    HeldAsyncLoader,
    HeldLoader,
    gather_errors,
    run,
    start_together,
    until_callers,
    wait_for_callers,
)

from credenza import Cache, NotFound
from credenza.testing import CountingLoader, FakeClock


@pytest.fixture
def cache() -> Cache[object, object]:
    """A cache whose clock stands still."""
    return Cache(clock=FakeClock(), jitter=0)


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class FewerArguments(Exception):
    def __init__(self, table: str, row: int) -> None:
        super().__init__(f"{table}/{row}")
        self.table, self.row = table, row


class Slotted(ValueError):
    __slots__ = ("hint",)

    def __init__(self, hint: str) -> None:
        super().__init__("slotted")
        self.hint = hint


class Uncopyable(Exception):
    made = 0

    def __new__(cls, *args: object) -> "Uncopyable":
        if cls.made:
            raise RuntimeError("there can be only one")
        cls.made += 1
        return super().__new__(cls, *args)


def _undecodable() -> Exception:
    try:
        b"\xff".decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


def _no_json() -> Exception:
    try:
        json.loads("{")
    except json.JSONDecodeError as error:
        return error
    raise AssertionError


ERRORS: list[Callable[[], Exception]] = [
    lambda: ValueError("odd", 3),
    lambda: KeyError("name"),
    lambda: FileNotFoundError(2, "No such file", "people.db"),
    _undecodable,
    _no_json,
    lambda: subprocess.CalledProcessError(3, ["psql"], output=b"", stderr=b"fatal"),
    lambda: ExceptionGroup("both", [OSError("a"), ValueError("b")]),
    lambda: KeywordOnly(code=7),
    lambda: FewerArguments("users", 42),
    lambda: NotFound("no such user"),
    lambda: ImportError("no module", name="psycopg", path="here"),
    lambda: SystemError(),
]


def raising(error: Exception) -> Callable[[object], object]:
    def fail(_number: object) -> object:
        raise error from RuntimeError("the cause")

    return fail


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
def test_error_reaches_every_waiter_as_a_copy(cache: Cache[object, object], make: Callable[[], Exception]) -> None:
    """L2: each waiter gets an error of its own with the type, arguments, attributes, text and cause of the leader's."""
    error = make()
    error.add_note("while reading users")
    loader = HeldLoader(raising(error))
    calls = start_together(5, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 5)
    loader.release()
    got = [call.error() for call in calls]
    assert len({id(one) for one in got}) == 5, "an error is shared"
    for one in got:
        assert type(one) is type(error)
        assert one.args == error.args
        assert str(one) == str(error)
        assert vars(one) == vars(error)
        assert isinstance(one.__cause__, RuntimeError)
        assert one.__suppress_context__
    if isinstance(error, OSError):
        assert {(one.errno, one.filename) for one in got if isinstance(one, OSError)} == {(error.errno, error.filename)}
    if isinstance(error, ExceptionGroup):
        assert all(isinstance(one, ExceptionGroup) and one.exceptions == error.exceptions for one in got)


def test_error_that_refuses_to_be_copied_still_reaches_everybody(cache: Cache[object, object]) -> None:
    """L3: whatever an exception class does in its constructor, no waiter hangs."""
    Uncopyable.made = 0
    loader = HeldLoader(raising(Uncopyable("one")))
    calls = start_together(5, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 5)
    loader.release()
    assert {type(call.error()) for call in calls} == {Uncopyable}


def test_slots_of_an_error_reach_every_waiter(cache: Cache[object, object]) -> None:
    """L2: an attribute that lives in a slot is not lost."""
    loader = HeldLoader(raising(Slotted("look here")))
    calls = start_together(3, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 3)
    loader.release()
    hints = [getattr(call.error(), "hint", "lost") for call in calls]
    assert hints == ["look here"] * 3


def test_note_added_by_one_caller_is_not_seen_by_another(cache: Cache[object, object]) -> None:
    """L2: the copies do not share their notes."""
    error = ValueError("odd")
    error.add_note("from the loader")
    loader = HeldLoader(raising(error))

    def call() -> list[str]:
        try:
            cache.get_or_load("k", loader)
        except ValueError as got:
            got.add_note("from a caller")
            return got.__notes__
        raise AssertionError

    calls = start_together(4, call)
    wait_for_callers(cache, "k", 4)
    loader.release()
    assert [call.result() for call in calls] == [["from the loader", "from a caller"]] * 4


def test_tracebacks_of_waiters_show_the_loader_and_do_not_grow(cache: Cache[object, object]) -> None:
    """L2: each copy shows where the loader failed, and no caller's frames are in another's traceback."""
    loader = HeldLoader(raising(ValueError("odd")))
    calls = start_together(20, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 20)
    loader.release()
    names = [[frame.name for frame in traceback.extract_tb(call.error().__traceback__)] for call in calls]
    assert all(one.count("fail") == 1 and one.count("get_or_load") <= 2 for one in names), names
    assert max(map(len, names)) < 25


def test_remembered_not_found_does_not_grow() -> None:
    """L2: a `NotFound` that is remembered is raised as a copy each time, with no more frames than the first time."""
    cache: Cache[str, object] = Cache(negative_ttl=60)
    loader = CountingLoader(None, error=NotFound("no such user"))
    lengths = []
    for _ in range(50):
        with pytest.raises(NotFound, match="no such user") as caught:
            cache.get_or_load("k", loader)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert loader.calls == 1
    assert len(set(lengths[1:])) == 1


def test_error_with_64_threads_waiting_reaches_all_at_once(cache: Cache[object, object]) -> None:
    """L2, L3: one failing load for 64 threads, not one after another; nothing is kept, the next call works."""
    loader = HeldLoader(lambda number: raising(OSError("down"))(number) if number == 1 else "fine")
    calls = start_together(64, lambda: cache.get_or_load("k", loader))
    wait_for_callers(cache, "k", 64)
    loader.release()
    assert {str(call.error()) for call in calls} == {"down"}
    assert loader.calls == 1
    assert "k" not in cache
    assert cache.get_or_load("k", loader) == "fine"
    stats = cache.stats()
    assert (stats.loads, stats.load_failures) == (2, 1)


@pytest.mark.parametrize("kind", [HeldLoader, HeldAsyncLoader])
def test_error_with_50_tasks_waiting_reaches_all_at_once(kind: type[HeldLoader]) -> None:
    """L2, L3: one failing load for 50 tasks, with a coroutine function or a plain loader; the next call works."""

    async def main() -> None:
        cache: Cache[str, object] = Cache()
        loader = kind(lambda number: raising(OSError("down"))(number) if number == 1 else "fine")
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", loader)) for _ in range(50)]
        await until_callers(cache, "k", 50)
        loader.release()
        errors = await gather_errors(*tasks)
        assert {(type(error), str(error)) for error in errors} == {(OSError, "down")}
        assert len({id(error) for error in errors}) == 50
        assert loader.calls == 1
        assert "k" not in cache
        assert await cache.aio.get_or_load("k", loader) == "fine"

    run(main())
