"""The decorator: functions, coroutine functions and methods, and what a cached function can do."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import pydoc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.waiting import Call, HeldAsyncLoader, HeldLoader, run, until_callers

import credenza
from credenza import Cache, CacheInfo, ConfigurationError, Loaded, NotFound, UsageError, cached
from credenza.testing import FakeClock

_module_cache: Cache[Any, Any] = Cache()


@_module_cache.cached(key="square:{number}")
def square(number: int, *, power: int = 2) -> int:
    """Return a power of the number."""
    return number**power


@_module_cache.cached
async def cube(number: int) -> int:
    """Return the cube of the number."""
    return number**3


class Shop:
    """A class whose methods are cached, at the top of a module so that it can be pickled by name."""

    def __init__(self, city: str) -> None:
        self.city = city
        self.calls: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shop)

    __hash__ = None  # type: ignore[assignment]  # an instance need not be hashable

    @_module_cache.cached
    def price(self, article: str, amount: int = 1) -> str:
        """Return the price of an article."""
        self.calls.append(article)
        return f"{article} x {amount} in {self.city}"

    @_module_cache.cached
    async def stock(self, article: str) -> str:
        """Return the stock of an article."""
        self.calls.append(article)
        return f"{article} in {self.city}"


@pytest.fixture(autouse=True)
def _empty_module_cache() -> Iterator[None]:
    yield
    _module_cache.clear()
    gc.collect()  # functions of the test forget their entries now, and not in the middle of a check


# Functions ------------------------------------------------------------------------------------------------------------


def _counted(cache: Cache[Any, Any], *, is_async: bool, **options: Any) -> tuple[Any, list[Any], Callable[[Any], Any]]:
    """Return a cached function of one argument, the list of its calls, and what runs one of its calls."""
    calls: list[Any] = []

    async def coloured(key: Any) -> Any:
        calls.append(key)
        return ("value", key)

    def plain(key: Any) -> Any:
        calls.append(key)
        return ("value", key)

    function = cache.cached(**options)(coloured if is_async else plain)
    return function, calls, run if is_async else lambda result: result


both_colours = pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])


@both_colours
@pytest.mark.parametrize("options", [{}, {"key": "k:{key}"}, {"typed": True}, {"tags": ["t:{key}"]}, {"ttl": "1h"}])
def test_call_with_the_same_arguments_loads_once(is_async: bool, options: dict[str, Any]) -> None:
    """DESIGN 2: the decorator answers later calls from memory, with every option."""
    function, calls, result = _counted(Cache(), is_async=is_async, **options)
    for _ in range(3):
        assert result(function(1)) == ("value", 1)
        assert result(function(key=1)) == ("value", 1)
        assert result(function(2)) == ("value", 2)
    assert calls == [1, 2]


@pytest.mark.parametrize("decorate", [cached, Cache().cached], ids=["credenza.cached", "cache.cached"])
def test_decorator_works_with_and_without_parentheses(decorate: Any) -> None:
    """DESIGN 2: `@cached`, `@cached()` and `@cached(ttl=...)` are all right."""
    for function in (decorate(lambda a: [a]), decorate()(lambda a: [a]), decorate(ttl=60)(lambda a: [a])):
        assert function(1) is function(1)


@both_colours
def test_invalidate_forgets_one_result(is_async: bool) -> None:
    """DESIGN 2: `f.invalidate(...)` takes the arguments of the call."""
    function, calls, result = _counted(Cache(), is_async=is_async)
    result(function(1)), result(function(2))
    assert function.invalidate(1) is None
    function.invalidate(key=3)
    result(function(1)), result(function(2))
    assert calls == [1, 2, 1]


@both_colours
def test_refresh_loads_although_the_value_is_fresh(is_async: bool) -> None:
    """DESIGN 2: `f.refresh(...)` loads now and stores."""
    function, calls, result = _counted(Cache(), is_async=is_async)
    result(function(1))
    assert result(function.refresh(1)) == ("value", 1)
    result(function(1))
    result(function.refresh(key=2))
    result(function(2))
    assert calls == [1, 1, 2]


@both_colours
def test_peek_loads_nothing_and_counts_nothing(is_async: bool) -> None:
    """DESIGN 2: `f.peek(...)` is a plain call in both colours."""
    function, calls, result = _counted(Cache(), is_async=is_async)
    assert function.peek(1) is None
    result(function(1))
    info = function.cache_info()
    assert function.peek(1) == ("value", 1)
    assert function.peek(key=1) == ("value", 1)
    assert function.cache_info() == info
    assert calls == [1]


@both_colours
def test_many_returns_a_mapping_and_loads_what_is_missing(is_async: bool) -> None:
    """DESIGN 2: `f.many([...])` takes values of the only argument, in their order, and leaves out what is not found."""
    cache: Cache[Any, Any] = Cache()
    calls: list[Any] = []

    def plain(key: int) -> int:
        calls.append(key)
        if key < 0:
            raise NotFound(key)
        return key * 10

    async def coloured(key: int) -> int:
        return plain(key)

    function: Any = cache.cached(coloured) if is_async else cache.cached(plain)
    result = run if is_async else lambda value: value
    result(function(2))
    found = result(function.many([3, 1, -1, 2, 3]))
    assert found == {3: 30, 1: 10, 2: 20}
    assert list(found) == [3, 1, 2]
    assert sorted(calls) == [-1, 1, 2, 3]
    assert result(function.many([])) == {}
    assert result(function.many(iter([1]))) == {1: 10}


@both_colours
def test_many_raises_the_first_error_and_keeps_what_was_loaded(is_async: bool) -> None:
    """L3: one failed load fails the call, leaves no task behind, and the others' values stay."""

    def plain(key: int) -> int:
        if key == 0:
            raise ConnectionError("down")
        return key

    async def coloured(key: int) -> int:
        return plain(key)

    cache: Cache[Any, Any] = Cache()
    function: Any = cache.cached(coloured) if is_async else cache.cached(plain)
    with pytest.raises(ConnectionError):
        run(function.many([1, 0])) if is_async else function.many([1, 0])
    assert function.peek(1) == 1


def test_async_many_loads_concurrently() -> None:
    """DESIGN 2: the loads of an async `many` wait together."""
    load = HeldAsyncLoader()

    @Cache().cached
    async def function(key: int) -> Any:
        return await load()

    async def main() -> None:
        task = asyncio.create_task(function.many(range(5)))
        while load.calls < 5:
            await asyncio.sleep(0)
        load.release()
        assert len(await task) == 5

    run(main())


@both_colours
def test_key_for_is_the_key_in_the_cache(is_async: bool) -> None:
    """DESIGN 2: what `key_for` returns can be given to the cache."""
    cache: Cache[Any, Any] = Cache()
    function, calls, result = _counted(cache, is_async=is_async)
    result(function(1))
    assert cache.get(function.key_for(1)) == ("value", 1)
    cache.invalidate(function.key_for(key=1))
    result(function(1))
    assert calls == [1, 1]


@both_colours
def test_cache_info_is_that_of_functools(is_async: bool) -> None:
    """DESIGN 2: `cache_info` has functools' names and order, and counts this function only."""
    cache: Cache[Any, Any] = Cache(maxsize=500)
    function, _, result = _counted(cache, is_async=is_async)
    other, _, _ = _counted(cache, is_async=False)
    other(1), other(1)
    for key in (1, 1, 1, 2):
        result(function(key))
    info = function.cache_info()
    assert info == CacheInfo(hits=2, misses=2, maxsize=500, currsize=2)
    assert info._fields == functools.lru_cache(lambda: None).cache_info()._fields
    assert cache.cache_info() == CacheInfo(hits=3, misses=3, maxsize=500, currsize=3)


@both_colours
def test_cache_clear_forgets_all_results_of_this_function_only(is_async: bool) -> None:
    """DESIGN 2: `cache_clear` is this function's, although it shares a cache."""
    cache: Cache[Any, Any] = Cache()
    function, calls, result = _counted(cache, is_async=is_async)
    other, other_calls, _ = _counted(cache, is_async=False)
    for key in range(3):
        result(function(key)), other(key)
    function.cache_clear()
    assert function.cache_info().currsize == 0
    for key in range(3):
        result(function(key)), other(key)
    assert calls == [0, 1, 2, 0, 1, 2]
    assert other_calls == [0, 1, 2]


def test_cached_function_tells_its_cache() -> None:
    """Contract: `f.cache` is the cache, so that a private one can be closed or watched."""
    cache: Cache[Any, Any] = Cache()
    assert cache.cached(lambda: 1).cache is cache
    assert isinstance(cached(lambda: 1).cache, Cache)


@both_colours
def test_wrapped_is_the_function_itself(is_async: bool) -> None:
    """DESIGN 2: `__wrapped__` passes the cache by."""
    function, calls, result = _counted(Cache(), is_async=is_async)
    result(function.__wrapped__(1)), result(function.__wrapped__(1))
    assert calls == [1, 1]
    assert function.peek(1) is None


def test_tags_name_entries_by_their_arguments() -> None:
    """DESIGN 2: plain tags and templates of the arguments, as `invalidate_tags` finds them."""
    cache: Cache[Any, Any] = Cache()
    calls: list[Any] = []

    @cache.cached(tags=["users", "user:{user_id}"])
    def load(user_id: int, part: str = "name") -> str:
        calls.append((user_id, part))
        return part

    for _ in range(2):
        load(1), load(1, "mail"), load(2)
    assert len(calls) == 3
    cache.invalidate_tags("user:1")
    load(1), load(1, "mail"), load(2)
    assert len(calls) == 5
    cache.invalidate_tags("users")
    load(1), load(1, "mail"), load(2)
    assert len(calls) == 8


@both_colours
def test_loaded_is_unwrapped(is_async: bool) -> None:
    """DESIGN 2: a function that returns `Loaded` gives its callers the value, with its ttl and tags."""
    clock = FakeClock()
    cache: Cache[Any, Any] = Cache(clock=clock, jitter=0)

    def plain(key: int) -> Loaded[int]:
        return Loaded(key, ttl=5, tags=[f"n:{key}"])

    async def coloured(key: int) -> Loaded[int]:
        return plain(key)

    function: Any = cache.cached(coloured) if is_async else cache.cached(plain)
    result = run if is_async else lambda value: value
    assert result(function(1)) == 1
    assert result(function(1)) == 1
    assert function.peek(1) == 1
    cache.invalidate_tags("n:1")
    assert function.peek(1) is None
    result(function(1))
    clock.advance(5)
    assert function.peek(1) is None


def test_private_cache_is_bounded_and_takes_all_options() -> None:
    """DESIGN 2: `credenza.cached(maxsize=..., ttl=...)` is the drop-in for `functools.lru_cache`."""
    clock = FakeClock()

    @cached(maxsize=2, ttl=10, jitter=0, eviction="lru", clock=clock, typed=True, tags=["t"])
    def load(key: Any) -> list[Any]:
        return [key]

    first = load(1)
    assert load(1) is first
    assert load(1.0) is not first
    load(3)
    assert load.cache_info() == CacheInfo(hits=1, misses=3, maxsize=2, currsize=2)
    clock.advance(10)
    assert load.peek(3) is None


def test_lru_cache_can_be_replaced_as_it_stands() -> None:
    """DESIGN 2: code written for `functools.lru_cache` runs: calls, `cache_info()`, `cache_clear()`, `__wrapped__`."""

    def fibonacci(number: int) -> int:
        return number if number < 2 else self(number - 1) + self(number - 2)

    theirs = self = functools.lru_cache(maxsize=100)(fibonacci)
    assert self(50) == 12586269025
    ours = self = cached(maxsize=100)(fibonacci)  # type: ignore[assignment]  # the other decorator's type
    assert self(50) == 12586269025
    assert tuple(ours.cache_info())[1:] == tuple(theirs.cache_info())[1:]
    assert ours.cache_info().hits == theirs.cache_info().hits
    ours.cache_clear()
    assert ours.cache_info().currsize == 0
    assert ours.__wrapped__ is theirs.__wrapped__


@both_colours
def test_wrong_arguments_raise_what_the_function_would(is_async: bool) -> None:
    """Decorator: a call that cannot be made raises `TypeError`, stores nothing and opens no flight."""
    function, calls, result = _counted(Cache(), is_async=is_async)
    for call in (lambda: function(), lambda: function(1, 2), lambda: function(other=1)):
        with pytest.raises(TypeError):
            result(call())
    assert calls == []


def test_error_of_the_function_passes_untouched() -> None:
    """Errors: what the function raises is what the caller gets, and it is not cached."""
    error = KeyError("a key of the user's")

    @Cache().cached
    def load(key: int) -> int:
        raise error

    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            load(1)
        assert caught.value is error


# Looks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [square, cube])
def test_cached_function_looks_like_the_function(function: Any) -> None:
    """Decorator: name, module, docstring, annotations and signature are those of the function."""
    original = function.__wrapped__
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(function, name) == getattr(original, name)
    assert inspect.signature(function) == inspect.signature(original)
    assert inspect.unwrap(function) is original
    assert inspect.iscoroutinefunction(function) == inspect.iscoroutinefunction(original)
    assert inspect.isroutine(function)
    assert original.__doc__ in pydoc.render_doc(function)
    assert f"{original.__name__}(number:" in pydoc.plain(pydoc.render_doc(function))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [square, cube])
def test_cached_function_pickles_by_its_name(function: Any, protocol: int) -> None:
    """Decorator: a cached function can be sent to a process pool, as its name."""
    assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function


def test_coroutine_of_a_cached_function_is_a_coroutine() -> None:
    """Decorator: what an async cached function returns works with tasks, groups and `wait_for`, on a miss and on a hit."""

    async def main() -> None:
        for _ in range(2):
            assert asyncio.iscoroutine(coroutine := cube(2))
            assert await coroutine == 8
            assert await asyncio.create_task(cube(2)) == 8
            assert await asyncio.wait_for(cube(2), 5) == 8
            assert await asyncio.gather(cube(2), cube(3)) == [8, 27]
            async with asyncio.TaskGroup() as group:
                task = group.create_task(cube(2))
            assert task.result() == 8

    run(main())


def test_attributes_of_the_function_are_kept() -> None:
    """Decorator: what other decorators left on the function is still there."""

    def load() -> int:
        return 1

    load.route = "/load"  # type: ignore[attr-defined]  # as web frameworks do
    assert Cache().cached(load).route == "/load"  # type: ignore[attr-defined]  # as above


def test_functools_partial_can_be_cached() -> None:
    """Decorator: any callable with a signature will do."""
    function = Cache().cached(functools.partial(pow, 2))
    assert [function(3), function(3)] == [8, 8]
    assert function.cache_info().hits == 1


def test_callable_object_can_be_cached() -> None:
    """Decorator: an object with `__call__` is called, a coroutine function as `__call__` is awaited."""

    class Load:
        calls = 0

        def __call__(self, key: int) -> int:
            self.calls += 1
            return key

    class LoadLater(Load):
        async def __call__(self, key: int) -> int:  # type: ignore[override]  # the other colour
            return super().__call__(key)

    load, later = Load(), LoadLater()
    function, coloured = Cache().cached(load), Cache().cached(later)
    assert [function(1), function(1), load.calls] == [1, 1, 1]
    assert [run(coloured(1)), run(coloured(1)), later.calls] == [1, 1, 1]


# Methods --------------------------------------------------------------------------------------------------------------


def test_every_instance_has_entries_of_its_own() -> None:
    """DESIGN 2: a method is keyed by its instance, by identity, although the instances are equal and unhashable."""
    first, second = Shop("Rome"), Shop("Oslo")
    for _ in range(2):
        assert first.price("pen") == "pen x 1 in Rome"
        assert second.price("pen") == "pen x 1 in Oslo"
        assert first.price(article="pen", amount=1) == "pen x 1 in Rome"
    assert first.calls == second.calls == ["pen"]


def test_async_method_is_cached_per_instance() -> None:
    """DESIGN 2: the same for `async def`."""
    first, second = Shop("Rome"), Shop("Oslo")

    async def main() -> None:
        for _ in range(2):
            assert await first.stock("pen") == "pen in Rome"
            assert await second.stock("pen") == "pen in Oslo"
            assert await first.stock.refresh("ink") == "ink in Rome"
            assert await first.stock.many(["pen", "ink"]) == {"pen": "pen in Rome", "ink": "ink in Rome"}

    run(main())
    assert first.calls == ["pen", "ink", "ink"]
    assert second.calls == ["pen"]
    assert inspect.iscoroutinefunction(Shop.stock.__wrapped__)


@pytest.mark.parametrize("member", ["price", "stock"])
def test_instance_is_held_weakly(member: str) -> None:
    """DESIGN 2: neither an entry, nor a helper, nor a failed load keeps an instance alive."""
    shop = Shop("Rome")
    if member == "price":
        shop.price("pen"), shop.price.refresh("pen"), shop.price.peek("pen"), shop.price.many(["pen", "ink"])
        with pytest.raises(TypeError):
            shop.price()  # type: ignore[call-arg]  # on purpose
    else:
        run(shop.stock("pen"))
        run(shop.stock.many(["pen"]))
    dead = weakref.ref(shop)
    del shop
    gc.collect()
    assert dead() is None


@pytest.mark.frees_caches
def test_new_instance_at_the_address_of_a_dead_one_gets_its_own_values() -> None:
    """DESIGN 2: identity is not the address; a dead instance's entries are never another's."""
    cities = [f"city {number}" for number in range(200)]
    for city in cities:
        shop = Shop(city)
        assert shop.price("pen") == f"pen x 1 in {city}"
        assert shop.price.peek("ink") is None
        del shop


def test_helpers_of_a_bound_method_speak_of_its_instance() -> None:
    """DESIGN 2: `obj.method.invalidate(...)` and the others take the arguments without self."""
    first, second = Shop("Rome"), Shop("Oslo")
    first.price("pen"), second.price("pen")
    first.price.invalidate("pen")
    assert first.price.peek("pen") is None
    assert second.price.peek("pen") == "pen x 1 in Oslo"
    assert first.price.refresh("pen") == "pen x 1 in Rome"
    assert first.price.key_for("pen") == first.price.key_for(article="pen") != second.price.key_for("pen")
    assert first.price.many(["pen", "ink"]) == {"pen": "pen x 1 in Rome", "ink": "ink x 1 in Rome"}
    assert first.price.__wrapped__("ink", 3) == "ink x 3 in Rome"
    assert Shop.price.peek(second, "pen") == "pen x 1 in Oslo"
    assert Shop.price(second, "pen") == "pen x 1 in Oslo"
    first.price.cache_clear()
    assert first.price.peek("pen") is None
    assert first.price.cache is _module_cache


def test_method_looks_like_the_method() -> None:
    """Decorator: name, docstring and signature are those of the method, bound and unbound."""
    shop = Shop("Rome")
    assert shop.price.__name__ == Shop.price.__name__ == "price"
    assert shop.price.__qualname__ == "Shop.price"
    assert shop.price.__doc__ == Shop.price.__doc__ == "Return the price of an article."
    assert list(inspect.signature(shop.price).parameters) == ["article", "amount"]
    assert list(inspect.signature(Shop.price).parameters) == ["self", "article", "amount"]
    assert shop.price.__self__ is shop
    assert "Return the price of an article." in pydoc.render_doc(Shop)
    assert "Return the price of an article." in pydoc.render_doc(Shop.price)
    assert "Return the price of an article." in pydoc.render_doc(shop.price)
    if hasattr(inspect, "markcoroutinefunction"):
        assert inspect.iscoroutinefunction(shop.stock)
        assert inspect.iscoroutinefunction(Shop.stock)


def test_method_pickles_by_its_name() -> None:
    """Decorator: a cached method can be sent to a process pool as a plain method can."""
    assert pickle.loads(pickle.dumps(Shop.price)) is Shop.price
    assert pickle.loads(pickle.dumps(Shop("Rome").price))("pen") == "pen x 1 in Rome"


def test_bound_method_can_be_kept_and_compared() -> None:
    """Decorator: a bound method works apart from its instance, and is equal to itself as plain bound methods are."""
    shop = Shop("Rome")
    price = shop.price
    assert price("pen") == shop.price("pen")
    assert price == shop.price
    assert hash(price) == hash(shop.price)
    assert price != Shop("Rome").price
    assert shop.calls == ["pen"]


def _helpers_work(function: Any, calls: list[Any]) -> None:
    function("pen"), function("pen")
    assert calls == ["pen"]
    assert function.peek("pen") is not None
    function.invalidate("pen")
    assert function.peek("pen") is None
    function.refresh("pen")
    assert calls == ["pen", "pen"]
    assert set(function.many(["pen", "ink"])) == {"pen", "ink"}
    assert function.cache_info().currsize == 2


def test_classmethod_and_staticmethod_can_be_cached() -> None:
    """Decorator: above a classmethod and below a staticmethod it works with its helpers, by class and by instance."""
    cache: Cache[Any, Any] = Cache()
    calls: list[Any] = []

    class Catalogue:
        @staticmethod
        @cache.cached
        def static(article: str) -> str:
            calls.append(article)
            return article

        @cache.cached
        @classmethod
        def of_class(cls, article: str) -> str:
            calls.append(article)
            return f"{cls.__name__} {article}"

    class Sub(Catalogue):
        pass

    for holder in (Catalogue, Catalogue()):
        for name in ("static", "of_class"):
            _helpers_work(getattr(holder, name), calls)
            calls.clear()
            cache.clear()
    assert (Catalogue.of_class("pen"), Sub.of_class("pen"), Sub().of_class("pen")) == (
        "Catalogue pen",
        "Sub pen",
        "Sub pen",
    )


def test_cached_below_classmethod_answers_calls() -> None:
    """Decorator: the other order answers calls, too, or says at once that the helpers would not work."""
    cache: Cache[Any, Any] = Cache()
    calls: list[Any] = []

    class Catalogue:
        @classmethod
        @cache.cached
        def of_class(cls, article: str) -> str:
            calls.append(article)
            return f"{cls.__name__} {article}"

    for holder in (Catalogue, Catalogue()):
        assert holder.of_class("pen") == "Catalogue pen"
    assert calls == ["pen"]
    if sys.version_info < (3, 13):  # later a classmethod binds nothing but the call
        calls.clear()
        cache.clear()
        _helpers_work(Catalogue.of_class, calls)


def test_decorating_a_staticmethod_from_above_raises_and_says_what_to_do() -> None:
    """Bad input: the order matters, and the message says which."""
    with pytest.raises(UsageError, match="below staticmethod"):
        Cache().cached(staticmethod(lambda: 1))


def test_subclass_calls_the_cached_method_of_its_parent() -> None:
    """Decorator: `super()` and overriding work, each with its own entries."""
    cache: Cache[Any, Any] = Cache()

    class Parent:
        @cache.cached
        def name(self) -> str:
            return "parent"

    class Child(Parent):
        @cache.cached
        def name(self) -> str:
            return "child of " + super().name()

    child = Child()
    assert [child.name(), child.name()] == ["child of parent"] * 2
    assert Parent.name(child) == "parent"


def test_instance_that_cannot_be_referenced_weakly_raises_and_says_what_to_do() -> None:
    """Bad input: `__slots__` without `__weakref__` is named, with both ways out."""

    class Slotted:
        __slots__ = ("city",)

        @_module_cache.cached
        def load(self) -> int:
            return 1

    with pytest.raises(UsageError, match=r'"__weakref__".*key='):
        Slotted().load()


def test_method_with_a_template_is_keyed_by_it() -> None:
    """DESIGN 2: with a template that names what tells instances apart, equal instances share entries."""
    cache: Cache[Any, Any] = Cache()

    class User:
        __slots__ = ("id",)

        def __init__(self, number: int) -> None:
            self.id = number

        @cache.cached(key="user:{self.id}:posts")
        def posts(self) -> list[int]:
            return [self.id]

    assert User(1).posts() is User(1).posts()
    assert User(2).posts() == [2]
    assert cache.get("user:1:posts") == [1]


def test_function_defined_in_a_method_is_a_function() -> None:
    """Decorator: a function in the body of a function is no method, wherever that is."""

    class Outer:
        def make(self) -> Any:
            @_module_cache.cached
            def inner(key: int) -> list[int]:
                return [key]

            return inner

    function = Outer().make()
    assert function(1) is function(1)
    assert not inspect.ismethod(function)


def test_cached_function_put_into_a_class_later_binds_as_functions_do() -> None:
    """Decorator: assigned to a class attribute, a cached function gets the instance as its first argument."""

    class Thing:
        pass

    Thing.load = Cache().cached(lambda self, key: (self, key))  # type: ignore[attr-defined]  # on purpose
    thing = Thing()
    assert thing.load(1) == (thing, 1)  # type: ignore[attr-defined]  # as above


# Bad input ------------------------------------------------------------------------------------------------------------


def test_decorating_a_class_raises_and_says_what_to_do() -> None:
    """Bad input: a class is no function."""
    with pytest.raises(UsageError, match=r"got the class .*Thing; decorate a function"):

        @Cache().cached
        class Thing:
            pass


def test_decorating_a_generator_raises_and_says_what_to_do() -> None:
    """Bad input: a generator can be read once, so its second caller would get nothing."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> Any:
        yield 1

    for function in (numbers, later):
        with pytest.raises(UsageError, match="return a list"):
            Cache().cached(function)


@pytest.mark.parametrize("thing", [60, "5m", {"ttl": 60}])
def test_option_passed_as_the_function_raises_and_says_what_to_do(thing: Any) -> None:
    """Bad input: `@cached(60)` is a common slip."""
    for decorate in (cached, Cache().cached):
        with pytest.raises(UsageError, match=r"keyword.*cached\(ttl=60\)"):
            decorate(thing)


def test_unknown_option_raises_and_lists_the_options() -> None:
    """Bad input: a misspelt option is named."""
    for decorate in (cached, Cache().cached):
        with pytest.raises((ConfigurationError, TypeError), match="tll"):
            decorate(tll=60)(lambda: 1)  # type: ignore[call-overload]  # on purpose


def test_bare_text_as_tags_raises_and_says_what_to_do() -> None:
    """Bad input: a lone str would be taken for its letters."""
    with pytest.raises(UsageError, match=r"tags=\['users'\]"):
        Cache().cached(tags="users")(lambda: 1)


# Functions that come and go -------------------------------------------------------------------------------------------


@pytest.mark.frees_caches
def test_private_cache_dies_with_its_function() -> None:
    """Bounds: a cached function that nobody holds is freed with its cache and its values."""

    class Value:
        pass

    def make() -> tuple[Any, Any]:
        function = cached(lambda: Value())
        return weakref.ref(function), weakref.ref(function())

    dead = make()
    gc.collect()
    assert [reference() for reference in dead] == [None, None]


def test_counts_of_a_function_that_is_gone_stay_in_the_stats() -> None:
    """Stats: the cache's counters do not shrink when a function dies, nor do they grow a record for each."""
    cache: Cache[Any, Any] = Cache()
    for _ in range(50):
        function = cache.cached(lambda: 1)
        function(), function()
        del function
        gc.collect(0)
    gc.collect()
    assert (cache.stats().hits, cache.stats().misses) == (50, 50)
    assert len(cache._engine.state.tallies) == 1


def test_concurrent_calls_of_a_method_share_one_load() -> None:
    """L1: callers of one method of one instance join; other instances load on their own."""
    load = HeldAsyncLoader()
    cache: Cache[Any, Any] = Cache()

    class Shop:
        @cache.cached
        async def price(self, article: str) -> Any:
            return await load()

    first, second = Shop(), Shop()

    async def main() -> None:
        tasks = [asyncio.create_task(first.price("pen")) for _ in range(10)] + [
            asyncio.create_task(second.price("pen"))
        ]
        await until_callers(cache, first.price.key_for("pen"), 10)
        await until_callers(cache, second.price.key_for("pen"), 1)
        load.release()
        await asyncio.gather(*tasks)

    run(main())
    assert load.calls == 2


def test_first_calls_of_a_new_instance_from_many_threads_share_one_load() -> None:
    """L1: threads that use a new instance at the same moment agree on its stand-in."""
    load = HeldLoader()
    cache: Cache[Any, Any] = Cache()

    class Shop:
        @cache.cached
        def price(self) -> Any:
            return load()

    shop = Shop()
    calls = [Call(shop.price) for _ in range(16)]
    load.wait_until_called()
    load.release()
    assert [call.result() for call in calls] == ["value"] * 16
    assert load.calls == 1


def test_names_of_the_package_are_what_the_decorator_is_made_of() -> None:
    """DESIGN 2: `credenza.cached` is the function of this module's tests."""
    assert credenza.cached is cached
