"""What `@cached` returns is a function to whoever looks, and a hit's awaitable is a coroutine."""

from __future__ import annotations

import asyncio
import collections.abc
import copy
import functools
import gc
import inspect
import os
import pickle
import pydoc
import subprocess
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.memory.implementations import Implementation
from tests.support.waiting import run, start_together

from credenza import Cache, NotFound

pytestmark = pytest.mark.usefixtures("implementation")


def decorated(function: Callable[..., Any], **options: Any) -> Any:
    """Return `function` as a cached one of a cache of its own."""
    cache: Cache[Any, Any] = Cache()
    return cache.cached(**options)(function)


def no_parameters() -> Any:
    """Take nothing."""
    return []


def one(number: Any) -> Any:
    """Take one."""
    return [number]


def several(number: Any, other: Any = 2, third: Any = 3) -> Any:
    """Take several, some with a default."""
    return [number, other, third]


def positional(number: Any, /, other: Any = 2) -> Any:
    """Take one by position only."""
    return [number, other]


def eight(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any = 6, g: Any = 7, h: Any = 8) -> Any:
    """Take eight."""
    return [a, b, c, d, e, f, g, h]


def nine(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any = 9) -> Any:
    """Take nine."""
    return [a, b, c, d, e, f, g, h, i]


async def coloured(number: Any, other: Any = 2) -> Any:
    """Take two, and be awaited."""
    return [number, other]


FUNCTIONS = [no_parameters, one, several, positional, eight, nine, coloured]

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


# Looks ----------------------------------------------------------------------------------------------------------------


@every_function
def test_cached_function_looks_like_the_function_to_inspect(function: Any) -> None:
    """Issue 5: `inspect`, `asyncio`, `pydoc` and the attributes of `functools.wraps` tell what they told of the function."""
    made = decorated(function)
    for name in (*functools.WRAPPER_ASSIGNMENTS, "__doc__"):
        assert getattr(made, name) == getattr(function, name)
    assert made.__wrapped__ is function
    assert inspect.unwrap(made) is function
    assert inspect.signature(made) == inspect.signature(function)
    assert inspect.iscoroutinefunction(made) == inspect.iscoroutinefunction(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it goes away in Python 3.16
        assert asyncio.iscoroutinefunction(made) == asyncio.iscoroutinefunction(function)
    assert inspect.isroutine(made)
    assert callable(made)
    assert inspect.getdoc(made) == function.__doc__
    assert inspect.getmodule(made) is inspect.getmodule(function)
    assert inspect.getsource(made) == inspect.getsource(function)
    text = pydoc.plain(pydoc.render_doc(made))
    assert function.__doc__ in text
    told = f"{function.__name__}{inspect.signature(function)}"
    assert "".join(told.split()) in "".join(text.split())  # long ones are wrapped since Python 3.13


@every_function
def test_cached_function_can_be_copied_hashed_and_held_weakly(function: Any) -> None:
    """A function is one thing: its copies are itself, it is equal to itself only, and it goes when nobody holds it."""
    made = decorated(function)
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made
    assert copy.deepcopy([made])[0] is made
    assert made == made
    assert made != decorated(function)
    assert {made: 1}[made] == 1
    dead = weakref.ref(made)
    assert dead() is made
    del made
    gc.collect()
    assert dead() is None


@every_function
def test_cached_function_takes_attributes(function: Any) -> None:
    """Other decorators hang their marks on a function, read them and take them off."""
    made = decorated(function)
    made.route = "/here"
    assert made.route == vars(made)["route"] == "/here"
    assert getattr(made, "nothing", None) is None
    made.__name__ = "renamed"
    assert made.__name__ == "renamed"
    del made.route
    assert not hasattr(made, "route")
    with pytest.raises(AttributeError):
        del made.route
    assert "cache_info" in dir(made)


@every_function
def test_cached_function_says_its_name(function: Any) -> None:
    """Its repr has the function's name, and no argument or value."""
    assert function.__qualname__ in repr(decorated(function))


cache_of_the_module: Cache[Any, Any] = Cache()


@cache_of_the_module.cached
def at_the_top(number: int) -> int:
    """Be found by name."""
    return number


@cache_of_the_module.cached
async def coloured_at_the_top(number: int) -> int:
    """Be found by name, too."""
    return number


class Namespace:
    """Where a cached function is found below a class."""

    def __init__(self) -> None:
        self.number = 1

    @staticmethod
    @cache_of_the_module.cached
    def below(number: int) -> int:
        return number


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_cached_function_is_pickled_by_name(protocol: int) -> None:
    """Issue 5: as a function is, for process pools; with the implementation that the process runs with."""
    for function in (at_the_top, coloured_at_the_top):
        data = pickle.dumps(function, protocol)
        assert pickle.loads(data) is function
        assert function.__name__.encode() in data
        assert len(data) < 200


@every_function
def test_function_that_is_put_into_a_class_later_binds_as_a_method(function: Any) -> None:
    """As plain functions do, whoever puts them there."""
    if function is no_parameters:
        return

    class Plain:
        method = function

    class Cached:
        method = decorated(function)

    instance = Cached()
    bound = instance.method
    assert isinstance(bound, types.MethodType)
    assert bound.__self__ is instance
    assert bound.__func__ is Cached.method is Cached.__dict__["method"]
    assert inspect.signature(bound) == inspect.signature(Plain().method)
    arguments = [number for number, _ in enumerate(inspect.signature(bound).parameters)]
    result = run(bound(*arguments)) if function is coloured else bound(*arguments)
    again = run(instance.method(*arguments)) if function is coloured else instance.method(*arguments)
    assert result is again
    assert result[0] is instance
    assert Cached.method.__get__(None, Cached) is Cached.method


def test_partial_and_other_wrappers_take_a_cached_function() -> None:
    """`functools.partial`, `partialmethod`, `wraps`, `map` and `staticmethod` are content with what they get."""
    made = decorated(several)
    assert functools.partial(made, 1, third=4)() is made(1, 2, 4)
    assert inspect.signature(functools.partial(made, 1)) == inspect.signature(functools.partial(several, 1))

    @functools.wraps(made)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return made(*args, **kwargs)

    assert wrapped.__name__ == "several"
    assert list(map(made, [1])) == [made(1)]

    class Held:
        first = functools.partialmethod(made, third="x")
        second = staticmethod(made)

    held = Held()
    assert held.first(1) == [held, 1, "x"]
    assert held.second(5) is made(5)


# Binding --------------------------------------------------------------------------------------------------------------

CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (no_parameters, (1,), {}),
    (no_parameters, (), {"a": 1}),
    (one, (), {}),
    (one, (1, 2), {}),
    (one, (1,), {"number": 2}),
    (one, (), {"other": 1}),
    (one, (1,), {"other": 1}),
    (one, (1, 2), {"number": 1}),
    (several, (), {}),
    (several, (), {"other": 1}),
    (several, (1, 2, 3, 4), {}),
    (several, (1, 2), {"other": 2}),
    (several, (1,), {"fourth": 2}),
    (several, (1, 2, 3), {"third": 3, "fourth": 4}),
    (positional, (), {}),
    (positional, (), {"number": 1}),
    (positional, (1,), {"number": 1}),
    (positional, (1, 2, 3), {}),
    (eight, (1, 2, 3), {}),
    (eight, (), {"h": 1}),
    (eight, tuple(range(9)), {}),
    (nine, (1,), {}),
    (nine, tuple(range(10)), {}),
    (nine, tuple(range(9)), {"i": 1}),
    (coloured, (), {}),
    (coloured, (1, 2, 3), {}),
    (coloured, (1,), {"number": 1}),
    (coloured, (1,), {"third": 1}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS, ids=lambda part: getattr(part, "__name__", repr(part)))
@pytest.mark.parametrize("is_warm", [False, True], ids=["first call", "after hits"])
def test_wrong_arguments_raise_in_the_words_of_the_function(
    function: Any, args: Any, kwargs: Any, is_warm: bool
) -> None:
    """Issue 5: the `TypeError` is that of the plain function, letter for letter, and comes at the call."""
    made = decorated(function)
    if is_warm:
        right = tuple(range(sum(p.default is p.empty for p in inspect.signature(function).parameters.values())))
        for _ in range(2):
            result = made(*right)
            if inspect.isawaitable(result):
                run(_await(result))
    with pytest.raises(TypeError) as expected:
        function(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        made(*args, **kwargs)
    assert str(raised.value) == str(expected.value)


async def _await(awaitable: Any) -> Any:
    return await awaitable


FORMS: list[tuple[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]]] = [
    (no_parameters, [((), {}), ((), {})]),
    (one, [((1,), {}), ((), {"number": 1})]),
    (
        several,
        [
            ((1,), {}),
            ((1, 2), {}),
            ((1, 2, 3), {}),
            ((), {"number": 1}),
            ((), {"third": 3, "number": 1}),
            ((1,), {"third": 3}),
            ((1,), {"other": 2}),
            ((1,), {"third": 3, "other": 2}),
            ((), {"other": 2, "third": 3, "number": 1}),
            ((1, 2), {"third": 3}),
        ],
    ),
    (positional, [((1,), {}), ((1, 2), {}), ((1,), {"other": 2})]),
    (eight, [((1, 2, 3, 4, 5), {}), ((1, 2, 3), {"e": 5, "d": 4}), ((1, 2, 3, 4, 5, 6, 7, 8), {})]),
    (eight, [((), dict(zip("abcde", (1, 2, 3, 4, 5), strict=True))), ((1,), {"h": 8, "b": 2, "c": 3, "d": 4, "e": 5})]),
    (nine, [((1, 2, 3, 4, 5, 6, 7, 8), {}), ((1, 2, 3, 4, 5, 6, 7), {"i": 9, "h": 8})]),
    (coloured, [((1,), {}), ((1, 2), {}), ((), {"number": 1}), ((), {"other": 2, "number": 1}), ((1,), {"other": 2})]),
]


@pytest.mark.parametrize(("function", "forms"), FORMS, ids=lambda part: getattr(part, "__name__", ""))
def test_all_forms_of_a_call_make_one_entry(function: Any, forms: Any) -> None:
    """Issue 5: by position, by name or left to the default, it is the same call."""
    made = decorated(function)
    results = [made(*args, **kwargs) for args, kwargs in forms for _ in range(2)]
    if function is coloured:
        results = [run(_await(result)) for result in results]
    assert all(result is results[0] for result in results) or function is coloured
    assert made.cache_info().currsize == 1
    assert made.cache_info()[:2] == (2 * len(forms) - 1, 1) or function is coloured
    args, kwargs = forms[-1]
    assert made.peek(*args, **kwargs) == results[0]
    assert made.key_for(*args, **kwargs) == made.key_for(*forms[0][0], **forms[0][1])
    made.invalidate(*args, **kwargs)
    assert made.cache_info().currsize == 0


def test_names_that_were_made_at_run_time_are_found() -> None:
    """A keyword need not be the very object that the signature holds."""
    made = decorated(several)
    names = {f"{part}er": number for number, part in enumerate(("numb", "oth"), 1)}
    assert made(**names) is made(1)
    assert made(**{type("Name", (str,), {})("number"): 1}) is made(1)


def test_default_that_is_mutable_or_odd_is_handed_on_itself() -> None:
    """The default is the object of the signature, whatever it is equal to."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    default = Odd()
    made = decorated(lambda number=default: (number,))
    assert made()[0] is default
    assert made() is made(Odd())


def test_argument_that_dies_during_the_call_breaks_nothing() -> None:
    """The only reference to an argument is that of the call."""

    class Fleeting:
        def __hash__(self) -> int:
            gc.collect(0)
            return 3

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Fleeting)

    for function in (lambda a: 1, lambda a, b=2: 1):
        made = decorated(function)
        for _ in range(100):
            assert made(Fleeting()) == made(a=Fleeting()) == 1


def test_function_that_is_dropped_during_its_own_call_breaks_nothing() -> None:
    """A key may drop the only reference to the function that looks it up."""
    held: list[Any] = []

    class Dropping:
        def __hash__(self) -> int:
            if held:
                held.clear()
                gc.collect()
            return 1

    for _ in range(20):
        held.append(decorated(lambda key: "value"))
        assert held[0](Dropping()) == "value"


# A hit's awaitable ----------------------------------------------------------------------------------------------------


def warm(value: Any = "value") -> Any:
    """Return a cached coroutine function of no argument that has its value at hand."""

    async def answer() -> Any:
        return value

    made = decorated(answer)
    run(_await(made()))
    return made


def test_hit_is_a_coroutine_to_whoever_asks() -> None:
    """Issue 5: the abstract classes, `inspect` and `asyncio` take it for one."""
    hit = warm()()
    assert isinstance(hit, collections.abc.Coroutine)
    assert isinstance(hit, collections.abc.Awaitable)
    assert inspect.isawaitable(hit)
    assert asyncio.iscoroutine(hit)
    assert hit.__name__ == "answer"
    assert "answer" in hit.__qualname__
    assert "answer" in repr(hit)
    hit.close()


async def _in_a_group(made: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made())
    return task.result()


async def _in_a_task(made: Any) -> Any:
    hit = made()
    task = asyncio.create_task(hit, name="a task")
    assert task.get_coro() is hit
    assert "a task" in repr(task)
    return await task


async def _first_of(made: Any) -> Any:
    done, _ = await asyncio.wait([asyncio.ensure_future(made())])
    return done.pop().result()


async def _as_completed(made: Any) -> Any:
    (future,) = asyncio.as_completed([made()])
    return await future


async def _in_a_gather(made: Any) -> Any:
    first, second = await asyncio.gather(made(), made())
    assert first is second
    return first


async def _shielded(made: Any) -> Any:
    return await asyncio.shield(made())


async def _as_a_future(made: Any) -> Any:
    return await asyncio.ensure_future(made())


async def _within_a_timeout(made: Any) -> Any:
    async with asyncio.timeout(5):
        return await made()


WAITS: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "await": lambda made: _await(made()),
    "task": _in_a_task,
    "group": _in_a_group,
    "wait": _first_of,
    "as_completed": _as_completed,
    "gather": _in_a_gather,
    "wait_for": lambda made: asyncio.wait_for(made(), 5),
    "wait_for without a limit": lambda made: asyncio.wait_for(made(), None),
    "shield": _shielded,
    "ensure_future": _as_a_future,
    "timeout": _within_a_timeout,
}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("wait", WAITS)
def test_hit_can_be_waited_for_in_every_way(wait: str, debug: bool) -> None:
    """Issue 5: whatever asyncio does with a coroutine, it does with a hit, in its debug mode too."""
    made = warm()

    async def main() -> list[Any]:
        return [await WAITS[wait](made) for _ in range(3)]

    assert run(main(), debug=debug) == ["value"] * 3


def test_hit_can_be_the_main_coroutine_of_a_loop() -> None:
    """`run_until_complete`, `asyncio.run` and `Runner.run` take it."""
    made = warm()
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(made()) == "value"
    finally:
        loop.close()
    assert asyncio.run(made()) == "value"
    assert asyncio.run(made(), debug=True) == "value"
    with asyncio.Runner() as runner:
        assert runner.run(made()) == "value"


def test_hit_can_be_run_from_another_thread() -> None:
    """`asyncio.run_coroutine_threadsafe` takes it."""
    made = warm()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(made(), loop).result(5))

    assert run(main()) == "value"


def test_hit_that_is_awaited_twice_raises_as_a_coroutine_does() -> None:
    """Issue 5: the same class and the same words."""

    async def plain() -> str:
        return "value"

    async def main(make: Callable[[], Any]) -> str:
        awaitable = make()
        assert await awaitable == "value"
        with pytest.raises(RuntimeError) as raised:
            await awaitable
        with pytest.raises(RuntimeError) as sent:
            awaitable.send(None)
        assert str(sent.value) == str(raised.value)
        return str(raised.value)

    assert run(main(warm())) == run(main(plain)) == "cannot reuse already awaited coroutine"


def test_hit_that_is_never_awaited_is_silent(implementation: Implementation) -> None:
    """Issue 5: nothing was begun, so nothing is lost; the pure one is a real coroutine, and Python warns of those."""
    if implementation.name == "pure":
        pytest.skip("a hit of the pure table is a coroutine")
    made = warm()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            made()
        gc.collect()


class Value:
    """Something that can be held weakly."""


def steps(awaitable: Any, *moves: Callable[[Any], Any]) -> list[tuple[str, Any]]:
    """Return what each move returned or raised."""
    seen: list[tuple[str, Any]] = []
    for move in moves:
        try:
            seen.append(("returned", move(awaitable)))
        except BaseException as error:
            value = error.value if isinstance(error, StopIteration) else None
            seen.append((type(error).__name__, value if value is not None else str(error)))
    return seen


MOVES: dict[str, Callable[[Any], Any]] = {
    "send": lambda it: it.send(None),
    "send something": lambda it: it.send(1),
    "close": lambda it: it.close(),
    "throw": lambda it: it.throw(KeyError("thrown")),
    "throw a class": lambda it: it.throw(KeyError),
    "throw an exit": lambda it: it.throw(GeneratorExit()),
    "throw a stop": lambda it: it.throw(ValueError()),
    "throw nothing": lambda it: it.throw(),
    "throw a number": lambda it: it.throw(1),
    "next": lambda it: next(it.__await__()),
    "send to the iterator": lambda it: it.__await__().send(None),
}

SEQUENCES = [
    (first, second, third)
    for first in MOVES
    for second in ("send", "close", "throw", "next")
    for third in ("send", "close")
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("sequence", SEQUENCES, ids=" ".join)
def test_hit_takes_every_move_as_a_coroutine_does(sequence: tuple[str, ...]) -> None:
    """Issue 5: `send`, `throw` and `close` in any order; a driver by hand cannot tell the two apart."""

    async def plain() -> str:
        return "value"

    moves = [MOVES[name] for name in sequence]
    hit, coroutine = warm()(), plain()
    seen, expected = steps(hit, *moves), steps(coroutine, *moves)
    for name, (kind, text), (expected_kind, expected_text) in zip(sequence, seen, expected, strict=True):
        assert kind == expected_kind, (name, text, expected_text)
        if name not in {"throw nothing", "throw a number"} and "plain" not in str(expected_text):
            assert text == expected_text
    coroutine.close()


ODD_VALUES: dict[str, Any] = {
    "none": None,
    "tuple": (1, 2),
    "empty tuple": (),
    "exception": KeyError("a value"),
    "exception class": KeyError,
    "stop": StopIteration("inside"),
    "stop class": StopIteration,
    "async stop": StopAsyncIteration(),
    "not found": NotFound("a value"),
    "exit": GeneratorExit(),
    "cancelled": asyncio.CancelledError(),
    "missing": ...,
    "NaN": float("nan"),
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_value_of_every_kind_comes_back_intact(value: Any) -> None:
    """A hit's value may be an exception, a tuple or a StopIteration: it is returned, not raised or unpacked."""
    made = warm(value)
    plain = decorated(lambda: value)

    async def main() -> None:
        assert await made() is value
        assert await asyncio.create_task(made()) is value
        (gathered,) = await asyncio.gather(made(), return_exceptions=True)
        assert gathered is value
        async with asyncio.TaskGroup() as group:
            task = group.create_task(made())
        assert task.result() is value

    run(main())
    assert plain() is value
    assert plain() is value
    hit = made()
    with pytest.raises(StopIteration) as stopped:
        hit.send(None)
    assert stopped.value.value is value


def test_cancelled_task_of_a_hit_is_cancelled() -> None:
    """A task that is cancelled before it ran ends so, and the next call is a hit."""
    made = warm()

    async def main() -> None:
        task = asyncio.create_task(made())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await made() == "value"

    run(main())
    assert made.cache_info().misses == 1


def test_hits_and_misses_in_one_gather() -> None:
    """Coroutines and hits may be mixed as one likes."""

    async def load(number: int) -> list[int]:
        await asyncio.sleep(0)
        return [number]

    made = decorated(load)

    async def main() -> None:
        assert await made(1) == [1]
        assert await asyncio.gather(made(1), made(2), made(1), made(number=2)) == [[1], [2], [1], [2]]

    run(main())
    assert made.cache_info()[:2] == (2, 3)  # one of the two callers of number 2 joined, which counts as a miss


@pytest.mark.parametrize("what", ["hash", "comparison", "clock"])
def test_error_of_a_look_up_comes_out_of_the_await(what: str) -> None:
    """What goes wrong in an `async def` comes when it is awaited, not when it is called: a `gather` loses no coroutine."""
    trouble: list[str] = []

    class Key:
        def __init__(self, name: str) -> None:
            self.name = name

        def __hash__(self) -> int:
            if "hash" in trouble:
                raise LookupError("the hash")
            return 1

        def __eq__(self, other: object) -> bool:
            if "comparison" in trouble:
                raise LookupError("the comparison")
            return False

    def clock() -> float:
        if "clock" in trouble:
            raise LookupError("the clock")
        return 1.0

    cache: Cache[Any, Any] = Cache(clock=clock)

    async def load(key: Any) -> str:
        return "value"

    made = cache.cached(load)
    key = Key("a")

    async def main() -> None:
        await made(key)
        trouble.append(what)
        try:
            awaitable = made(key if what != "comparison" else Key("b"))
        except LookupError:
            trouble.clear()
            pytest.fail("it came out of the call")
        with pytest.raises(LookupError, match=f"the {what}"):
            await awaitable
        trouble.clear()
        assert await made(key) == "value"

    run(main())


def test_hit_drops_its_value_once_it_is_awaited() -> None:
    """An awaitable that is kept holds nothing any more."""
    cache: Cache[Any, Any] = Cache()

    @cache.cached
    async def load(key: int) -> Any:
        return Value()

    async def main() -> None:
        dead = weakref.ref(await load(1))
        hits = [load(1), load(1)]
        assert await hits[0] is dead()
        hits[1].close()
        load.invalidate(1)
        gc.collect()
        assert dead() is None

    run(main())


@pytest.mark.parametrize("options", [{}, {"key": "k:{key}"}, {"tags": ["t"]}, {"typed": True}])
def test_hit_that_is_invalidated_before_it_is_awaited_loads_under_the_same_key(options: dict[str, Any]) -> None:
    """I1: what the awaitable found is not served, and what it loads instead is the entry of the function."""
    cache: Cache[Any, Any] = Cache()
    loads: list[Any] = []

    @cache.cached(**options)
    async def load(key: int) -> int:
        loads.append(key)
        return len(loads)

    async def main() -> None:
        assert await load(1) == 1
        hit = load(1)
        load.invalidate(1)
        assert await hit == 2
        assert (await load(1), load.peek(1), cache.stats().size) == (2, 2, 1)

    run(main())


def test_many_threads_call_one_function() -> None:
    """Every form of a call from many threads at once: one load, and nothing lost."""
    calls: list[int] = []

    def load(number: int, other: int = 2) -> list[int]:
        calls.append(number)
        return [number, other]

    made = decorated(load)

    def use() -> None:
        for _ in range(500):
            assert made(1) is made(number=1) is made(1, 2) is made(other=2, number=1)

    for call in start_together(8, use):
        call.result()
    assert calls == [1]
    assert sum(made.cache_info()[:2]) == 8 * 500 * 4


# Another process ------------------------------------------------------------------------------------------------------

LOOKS = """
import asyncio, concurrent.futures, inspect, pickle, sys
from tests.memory.test_callables import Namespace, at_the_top, coloured_at_the_top
assert at_the_top(3) == at_the_top(number=3) == 3
assert asyncio.run(coloured_at_the_top(4)) == asyncio.run(coloured_at_the_top(4)) == 4
for function in (at_the_top, coloured_at_the_top):
    assert pickle.loads(pickle.dumps(function)) is function
assert pickle.loads(pickle.dumps(Namespace.below)) is Namespace.below
assert inspect.iscoroutinefunction(coloured_at_the_top) and not inspect.iscoroutinefunction(at_the_top)
print(type(at_the_top).__module__)
"""


def test_functions_at_the_top_of_a_module_work_in_a_process_of_either_kind(implementation: Implementation) -> None:
    """Issue 5: the implementation is chosen when the process starts; what it decorates looks and pickles alike."""
    done = subprocess.run(
        [sys.executable, "-c", LOOKS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=implementation.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3_000:]
