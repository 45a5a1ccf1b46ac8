"""Values of any type round-trip: what a cache stores it does not look into."""

from __future__ import annotations

import decimal
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.waiting import run

from credenza import Cache, Loaded, NotFound, WriteThrough
from credenza.testing import AsyncDictSource, DictSource


class Awkward:
    """Raises on whatever a cache has no business to do with a value."""

    __hash__ = None  # type: ignore[assignment]  # unhashable on purpose

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("a cache must not look into a value")

    __eq__ = __ne__ = __lt__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = __contains__ = _refuse  # type: ignore[assignment]
    __getattr__ = __index__ = __call__ = __enter__ = __reduce__ = __copy__ = __deepcopy__ = _refuse


class Meta(type):
    def __bool__(cls) -> bool:
        raise AssertionError("a cache must not ask a class for its truth")


class AwkwardClass(metaclass=Meta):
    pass


def _raise_and_catch() -> BaseException:
    try:
        raise ValueError("raised once") from KeyError("cause")
    except ValueError as error:
        return error


VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "False": lambda: False,
    "zero": lambda: 0,
    "empty text": lambda: "",
    "empty tuple": lambda: (),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "nan": lambda: float("nan"),
    "decimal nan": lambda: decimal.Decimal("sNaN"),
    "exception": lambda: ValueError("a value"),
    "raised exception": _raise_and_catch,
    "NotFound": lambda: NotFound("a value"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(),
    "StopIteration": lambda: StopIteration(1),
    "StopAsyncIteration": lambda: StopAsyncIteration(),
    "exception class": lambda: NotFound,
    "exception group": lambda: ExceptionGroup("group", [ValueError()]),
    "class": lambda: int,
    "class with a metaclass": lambda: AwkwardClass,
    "function": lambda: lambda: 1,
    "module": lambda: types,
    "lock": threading.Lock,
    "list": lambda: [1],
    "dict": lambda: {"ttl": 0},
    "set": lambda: {1},
    "generator": lambda: (number for number in ()),
    "weak object": Awkward,
    "cache": lambda: Cache(),
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "Loaded class": lambda: Loaded,
}

ways = pytest.mark.parametrize("make", list(VALUES.values()), ids=list(VALUES))


def _loaded(cache: Cache[Any, Any], value: Any) -> list[Any]:
    return [cache.get_or_load("k", lambda: value), cache.get_or_load("k", lambda: "other")]


def _wrapped(cache: Cache[Any, Any], value: Any) -> list[Any]:
    return [cache.get_or_load("k", lambda: Loaded(value, ttl=60, tags=["t"])), cache.fetch("k", lambda: "other").value]


def _set(cache: Cache[Any, Any], value: Any) -> list[Any]:
    cache.set("k", value)
    return [cache.get("k", "default"), cache.get_many(["k"])["k"]]


def _set_many(cache: Cache[Any, Any], value: Any) -> list[Any]:
    cache.set_many({"k": value}, tags=["t"])
    return [cache.get("k", "default"), cache.get_or_load("k", lambda: "other")]


def _bulk(cache: Cache[Any, Any], value: Any) -> list[Any]:
    return [cache.get_or_load_many(["k"], lambda keys: {"k": value})["k"] for _ in range(2)]


def _decorated(cache: Cache[Any, Any], value: Any) -> list[Any]:
    function = cache.cached(lambda key: value)
    return [function(1), function(1), function.refresh(1), function.many([1])[1]]


def _decorated_template(cache: Cache[Any, Any], value: Any) -> list[Any]:
    function = cache.cached(key="k:{key}")(lambda key: value)
    return [function(1), function(1), cache.get("k:1")]


def _aio(cache: Cache[Any, Any], value: Any) -> list[Any]:
    async def load() -> Any:
        return value

    async def main() -> list[Any]:
        return [
            await cache.aio.get_or_load("k", load),
            await cache.aio.get("k", "default"),
            (await cache.aio.fetch("k", load)).value,
        ]

    return run(main())


def _aio_plain(cache: Cache[Any, Any], value: Any) -> list[Any]:
    async def main() -> list[Any]:
        return [await cache.aio.get_or_load("k", lambda: value), await cache.aio.get_or_load("k", lambda: "other")]

    return run(main())


def _aio_decorated(cache: Cache[Any, Any], value: Any) -> list[Any]:
    @cache.cached
    async def function(key: int) -> Any:
        return value

    async def main() -> list[Any]:
        return [await function(1), await function(1), await function.refresh(1)]

    return run(main())


def _timeout(cache: Cache[Any, Any], value: Any) -> list[Any]:
    return [cache.get_or_load("k", lambda: value, timeout=10), cache.get_or_load("k", lambda: "other", timeout=10)]


@pytest.mark.parametrize(
    "way",
    [
        _loaded,
        _wrapped,
        _set,
        _set_many,
        _bulk,
        _decorated,
        _decorated_template,
        _aio,
        _aio_plain,
        _aio_decorated,
        _timeout,
    ],
)
@ways
def test_value_of_any_type_comes_back_as_the_same_object(
    way: Callable[..., list[Any]], make: Callable[[], Any]
) -> None:
    """Issue 2, F4: a value of any type round-trips, None and exceptions included, and exceptions are not raised."""
    value = make()
    found = way(Cache(), value)
    assert [item is value for item in found] == [True] * len(found)


@ways
def test_repository_gives_back_any_record(make: Callable[[], Any]) -> None:
    """Issue 2: the same through a repository with write-through, whatever the record is."""
    record = make()
    users = Cache().repository(DictSource[Any, Any]({1: record}), key="user:{}", strategy=WriteThrough())
    users.put(2, record)
    later = Cache().repository(AsyncDictSource[Any, Any]({1: record}), key="user:{}", strategy=WriteThrough())
    found = [users.get(1), users.get(1), users.get(2), run(later.aio.get(1)), run(later.aio.get(1))]
    assert [item is record for item in found] == [True] * 5


def test_loaded_that_was_set_by_hand_is_a_value() -> None:
    """DESIGN 2: `Loaded` speaks to the cache when a loader returns it; `set` has arguments for that."""
    cache: Cache[Any, Any] = Cache()
    cache.set("k", Loaded(1, ttl=0))
    assert cache.get("k") == Loaded(1, ttl=0)


@settings(deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_data_comes_back(value: Any) -> None:
    """Issue 2: whatever data looks like, the cache gives it back."""
    cache: Cache[Any, Any] = Cache()
    assert all(found is value for found in _loaded(cache, value))


def test_arguments_that_only_look_at_identity_are_good_keys() -> None:
    """Keys: an object that defines no equality is its own key."""
    cache: Cache[Any, Any] = Cache()
    one, two = object(), object()
    cache.set(one, 1)
    assert (cache.get(one), cache.get(two)) == (1, None)
