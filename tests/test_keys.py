"""Keys: arguments are bound first, templates are injective, types are told apart where that is promised."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credenza import Cache, ConfigurationError, UsageError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    ANN = "ann"
    BOB = "bob"


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


def keys_of(function: Callable[..., Any], template: str | None = None, **options: Any) -> Callable[..., Any]:
    """Return what makes the key of a call of `function`."""
    make: Callable[..., Any] = Cache().cached(key=template, **options)(function).key_for
    return make


def exact(value: object) -> object:
    """Return something that is equal for two values if and only if a template has to show them alike."""
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, tuple(exact(part) for part in value))
    if isinstance(value, float):
        return ("float", repr(value))
    if isinstance(value, (decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)):
        return (type(value).__name__, str(value))
    return (type(value), value)


TRICKY_TEXT = st.one_of(
    st.text(max_size=8),
    st.text(alphabet="ab1:.,'\\\"(){}[]-@+_ \n\0é", max_size=6),
    st.sampled_from(
        [
            "",
            "1",
            "-1",
            "01",
            "True",
            "False",
            "None",
            "a:b",
            "'a'",
            "b'a'",
            "(a)",
            "[]",
            "()",
            "float(1.0)",
            "ann",
            "a.b",
        ]
    ),
)
SCALARS = st.one_of(
    st.integers(),
    st.booleans(),
    st.none(),
    TRICKY_TEXT,
    st.binary(max_size=4),
    st.floats(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.sampled_from([*Colour, *Level, *Word, Bits.ONE, Bits.TWO, Bits.ONE | Bits.TWO]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple), max_leaves=5
)

TEMPLATES = [
    "{a}:{b}",
    "x:{a}.{b}",
    "{a}-{b}",
    "{a},{b}",
    "({a})({b})",
    "u:{a}/p:{b}s",
    "a{a}+{b}1",
    "{{{a}}}{{{b}}}",
    "{a}@{b}",
    "{b} {a}",
]


# Templates ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(first=st.tuples(VALUES, VALUES), second=st.tuples(VALUES, VALUES))
def test_different_arguments_never_make_one_key(first: tuple[Any, Any], second: tuple[Any, Any]) -> None:
    """Keys: a template is injective, whatever the arguments hold, and the same arguments make the same key."""
    for key_of in _KEYS.values():
        if exact(first) == exact(second):
            assert key_of(*first) == key_of(*second)
        else:
            assert key_of(*first) != key_of(*second)


_KEYS = {template: keys_of(lambda a, b: None, template) for template in TEMPLATES}


@settings(deadline=None)
@given(text=TRICKY_TEXT, other=TRICKY_TEXT, cut=st.integers(0, 12))
def test_text_moved_across_a_separator_makes_another_key(text: str, other: str, cut: int) -> None:
    """Keys: the adversary who moves a part of one argument into the other gets another key."""
    whole = text + ":" + other
    first, second = (text, other), (whole[:cut], whole[cut:])
    for key_of in _KEYS.values():
        assert (key_of(*first) == key_of(*second)) == (first == second)


@settings(deadline=None)
@given(value=VALUES, other=VALUES)
def test_forged_rendering_makes_another_key(value: Any, other: Any) -> None:
    """Keys: passing as text what a template made of another value does not give that value's key."""
    key_of = keys_of(lambda a: None, "{a}")
    rendered = key_of(value)
    forged = key_of(rendered)
    assert (forged == rendered) == (isinstance(value, str) and not isinstance(value, enum.Enum) and value == rendered)
    if exact(value) != exact(other):
        assert key_of((value, other)) != key_of((other, value))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (42, "user:42"),
        (-7, "user:-7"),
        ("ann", "user:ann"),
        ("ann.lee@example.com", "user:ann.lee@example.com"),
        ("42", "user:'42'"),
        ("a:b", "user:'a:b'"),
        ("", "user:''"),
        ("None", "user:'None'"),
        ("True", "user:'True'"),
        (None, "user:None"),
        (True, "user:True"),
    ],
)
def test_template_shows_plain_arguments_as_they_are(value: object, key: str) -> None:
    """DESIGN 2: integers and plain text are shown as they are, and what could be taken for something else is quoted."""
    assert keys_of(lambda user_id: None, "user:{user_id}")(value) == key


def test_key_written_by_hand_invalidates_the_function() -> None:
    """DESIGN 2: `cache.invalidate("user:42")` works by hand, and the cache shows the function's entry under that key."""
    cache: Cache[Any, Any] = Cache()
    calls: list[int] = []

    @cache.cached(key="user:{user_id}")
    def get_user(user_id: int) -> str:
        calls.append(user_id)
        return "Ann"

    get_user(42)
    assert cache.get("user:42") == "Ann"
    cache.invalidate("user:42")
    get_user(42)
    assert calls == [42, 42]


@pytest.mark.parametrize(
    "pair", [(1, "1"), (1, True), (0, False), (None, "None"), (b"a", "a"), (1, 1.0), ("a", Word.ANN), (1, Level.LOW)]
)
def test_values_of_different_types_make_different_keys(pair: tuple[Any, Any]) -> None:
    """DESIGN 2: 1, "1", True and None never collide in a template, typed or not."""
    first, second = map(keys_of(lambda a: None, "{a}"), pair)
    assert first != second


def test_tuples_cut_elsewhere_make_different_keys() -> None:
    """DESIGN 2: neither do ("a:b", "c") and ("a", "b:c")."""
    key_of = keys_of(lambda a, b: None, "{a}:{b}")
    assert key_of("a:b", "c") != key_of("a", "b:c")
    key_of = keys_of(lambda a: None, "{a}")
    assert key_of(("a:b", "c")) != key_of(("a", "b:c"))
    assert len({key_of(value) for value in [("a",), "a", ["a"], (("a",),), ("a", ()), ((), "a"), "(a)", "[a]"]}) == 8


def test_backslashes_are_escaped_as_quotes_are() -> None:
    """Keys: a text that ends in a backslash does not swallow the quote that ends it."""
    key_of = keys_of(lambda a, b: None, "{a}\\{b}")
    assert key_of("p \\", "q ''r ") != key_of("p ''q \\", "r ")


def test_text_of_a_subclass_cannot_forge_a_key() -> None:
    """Keys: what a str subclass says in `__str__` or does in `replace` does not matter; its text does."""

    class Forged(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "eve"

        def replace(self, *args: Any) -> str:
            return "eve"

    key_of = keys_of(lambda a: None, "user:{a}")
    assert key_of(Forged("ann")) == "user:ann"
    assert key_of(Forged("a:b")) == "user:'a:b'"


def test_flags_without_a_name_make_different_keys() -> None:
    """Keys: members of a flag that combine unknown bits have no name, and are different all the same."""
    key_of = keys_of(lambda a: None, "{a}")
    flags = [Bits(8), Bits(16), Bits(24), Bits.ONE, Bits(9), Bits(0)]
    assert len(set(map(key_of, flags))) == len(flags)


def test_template_may_name_attributes() -> None:
    """DESIGN 2: a field is a name, or a name and attributes."""

    @dataclasses.dataclass
    class User:
        id: int

    key_of = keys_of(lambda user, lang="en": None, "user:{user.id}:{lang}")
    assert key_of(User(7)) == "user:7:en"
    assert key_of(User(7), "de") == key_of(lang="de", user=User(7)) == "user:7:de"


def test_doubled_braces_stand_for_themselves() -> None:
    """Keys: a template can contain braces."""
    assert keys_of(lambda a: None, "{{{a}}}")(1) == "{1}"


@pytest.mark.parametrize(
    ("template", "advice"),
    [
        ("user:{nobody}", "its arguments are: user_id, other"),
        ("user:{nobody.id}", "its arguments are: user_id, other"),
        ("user:{}", "argument"),
        ("user:{0}", "argument"),
        ("user:{user_id", "malformed"),
        ("user:}", "malformed"),
        ("user:{user_id!r}", "callable"),
        ("user:{user_id:>10}", "callable"),
        ("user:{user_id[0]}", "callable"),
        ("{user_id}{other}", "separator"),
        ("{user_id}x{other}", "separator"),
        ("{user_id}'{other}", "separator"),
    ],
)
@pytest.mark.parametrize("what", ["key", "tags"])
def test_wrong_template_raises_when_the_function_is_decorated(what: str, template: str, advice: str) -> None:
    """Bad input: a template that cannot work raises at once, as a key and as a tag, and says what to do."""
    options: dict[str, Any] = {"key": template} if what == "key" else {"tags": [template]}
    with pytest.raises(ConfigurationError, match=advice) as caught:
        Cache().cached(**options)(lambda user_id, other: None)
    assert isinstance(caught.value, ValueError)
    assert template in str(caught.value)


def test_argument_that_a_template_cannot_show_raises_and_says_what_to_do() -> None:
    """Keys: an object without an injective text is refused, rather than shown by its repr."""

    @Cache().cached(key="user:{user}")
    def load(user: object) -> int:
        return 1

    with pytest.raises(UsageError, match=r"name an attribute of it.*callable"):
        load(object())
    with pytest.raises(UsageError, match=r"name an attribute of it.*callable"):
        load({"a": 1})


def test_function_and_constant_template_share_one_entry() -> None:
    """Keys: a template without a field is one key for all arguments."""
    key_of = keys_of(lambda a: None, "all")
    assert key_of(1) == key_of(2) == "all"


# Callables ------------------------------------------------------------------------------------------------------------


def test_callable_key_gets_the_arguments_as_the_function_does() -> None:
    """Keys: a callable as `key=` takes what the function takes."""
    key_of = keys_of(lambda a, *, b=2: None, lambda a, *, b=2: ("k", a, b))  # type: ignore[arg-type]  # a callable
    assert key_of(1) == key_of(1, b=2) == key_of(a=1) == ("k", 1, 2)


def test_callable_key_that_returns_what_cannot_be_hashed_raises() -> None:
    """Bad input: the message names what was got, and what to do."""
    with pytest.raises(UsageError, match=r"hashable, got \[1\]"):
        keys_of(lambda a: None, lambda a: [a])(1)  # type: ignore[arg-type]  # a callable


@pytest.mark.parametrize("key", [42, ["a"], b"user:{a}"])
def test_key_that_is_neither_text_nor_callable_raises(key: Any) -> None:
    """Bad input: `key=` is a template or a callable."""
    with pytest.raises(ConfigurationError, match="template or a callable"):
        Cache().cached(key=key)(lambda a: None)


# Without a template ---------------------------------------------------------------------------------------------------


def _plain(a: Any, b: Any = 2, /, c: Any = 3, *, d: Any = 4) -> None: ...
def _many(a: Any, *args: Any, b: Any = 0, **kwargs: Any) -> None: ...


def test_arguments_are_bound_before_they_become_a_key() -> None:
    """DESIGN 2: positional, by keyword or by default, the same arguments are one entry."""
    key_of = keys_of(_plain)
    assert (
        len({key_of(1), key_of(1, 2), key_of(1, 2, 3), key_of(1, c=3), key_of(1, d=4, c=3), key_of(1, 2, 3, d=4)}) == 1
    )
    assert len({key_of(1), key_of(2), key_of(1, 1), key_of(1, c=1), key_of(1, d=1)}) == 5


def test_keyword_arguments_in_any_order_make_one_key() -> None:
    """DESIGN 2: the order of keywords does not matter, their names and values do."""
    key_of = keys_of(_many)
    assert key_of(1, x=1, y=2) == key_of(1, y=2, x=1) == key_of(x=1, y=2, a=1)
    different = [((1, 2), {}), ((1,), {"x": 2}), ((1,), {"y": 2}), ((1,), {"b": 2}), ((1, 2, 3), {}), ((1, (2, 3)), {})]
    different += [((1, ("x", 2)), {}), ((1, (("x", 2),)), {}), ((1, 3, 2), {})]
    assert len({key_of(*args, **kwargs) for args, kwargs in different}) == len(different)


CALLS = st.tuples(st.lists(st.integers(0, 2), max_size=3), st.dictionaries(st.sampled_from("xyb"), st.integers(0, 2)))


@settings(deadline=None)
@given(first=CALLS, second=CALLS)
def test_any_two_calls_share_a_key_exactly_if_they_are_the_same_call(first: Any, second: Any) -> None:
    """DESIGN 2: keys of `*args` and `**kwargs` are injective up to defaults."""
    key_of = _KEY_OF_MANY
    (args, kwargs), (other_args, other_kwargs) = first, second
    same = args == other_args and {"b": 0} | kwargs == {"b": 0} | other_kwargs
    assert (key_of("a", *args, **kwargs) == key_of("a", *other_args, **other_kwargs)) == same


_KEY_OF_MANY = keys_of(_many)


def test_functions_of_one_cache_do_not_share_entries() -> None:
    """Keys: the arguments alone are not the key."""
    cache: Cache[Any, Any] = Cache()
    one, two = cache.cached(lambda a: ("one", a)), cache.cached(lambda a: ("two", a))
    assert (one(1), two(1), one(1)) == (("one", 1), ("two", 1), ("one", 1))


def test_untyped_keys_take_equal_arguments_for_the_same() -> None:
    """Typed: without it 1, 1.0 and True are one entry, as with `functools.lru_cache`."""
    key_of = keys_of(lambda a: None)
    assert key_of(1) == key_of(1.0) == key_of(True)


@pytest.mark.parametrize(
    "call",
    [
        lambda key_of, value: key_of(value),
        lambda key_of, value: key_of(a=value),
        lambda key_of, value: key_of(0, value),
        lambda key_of, value: key_of(0, 0, value),
        lambda key_of, value: key_of(0, b=value),
        lambda key_of, value: key_of(0, x=value),
    ],
    ids=["positional", "named", "*args", "*args later", "keyword-only", "**kwargs"],
)
def test_typed_keys_tell_the_types_of_all_arguments_apart(call: Callable[..., Any]) -> None:
    """Typed: 1, 1.0 and True are three entries, wherever they were passed, as with `functools.lru_cache(typed=True)`."""
    key_of = keys_of(_many, typed=True)
    assert len({call(key_of, value) for value in (1, 1.0, True)}) == 3


def test_typed_keys_of_bound_defaults_are_one() -> None:
    """Typed: a default passed by hand is the same call."""
    key_of = keys_of(_plain, typed=True)
    assert key_of(1) == key_of(1, 2) == key_of(1, c=3)


def test_unhashable_argument_raises_and_says_what_to_do() -> None:
    """Bad input: an argument that cannot be hashed raises at once, with the advice to pass `key=`."""
    loads: list[Any] = []

    @Cache().cached
    def plain(items: list[int]) -> None:
        loads.append(items)

    @Cache().cached
    def many(*items: Any, **more: Any) -> None:
        loads.append(items)

    for call in (
        lambda: plain([1]),
        lambda: plain(items=[1]),
        lambda: many([1]),
        lambda: many(x={}),
        lambda: plain.invalidate([1]),
    ):
        with pytest.raises(UsageError, match=r"hashable.*key=") as caught:
            call()
        assert isinstance(caught.value, TypeError)
    assert loads == []


def test_hash_that_raises_is_the_users_own_error() -> None:
    """Errors: what a user's `__hash__` raises passes untouched."""

    class Broken:
        def __hash__(self) -> int:
            raise RuntimeError("no hash today")

    cache: Cache[Any, Any] = Cache()
    with pytest.raises(RuntimeError, match="no hash today"):
        cache.get(Broken())
    with pytest.raises(RuntimeError, match="no hash today"):
        cache.cached(lambda a: a)(Broken())
    assert len(cache) == 0


@pytest.mark.parametrize(
    "key", [1, "1", None, True, (1, "a"), frozenset({1}), b"x", 1.5, int, Colour.RED, namedtuple("P", "x")(1)]
)
def test_any_hashable_is_a_local_key(key: Any) -> None:
    """DESIGN 2: local keys are any hashables, None included."""
    cache: Cache[Any, Any] = Cache()
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.get_or_load(key, lambda: "other") == "value"
    assert key in cache
    cache.invalidate(key)
    assert key not in cache


def test_keys_of_one_hash_are_told_apart() -> None:
    """Keys: equality decides, not the hash."""

    @dataclasses.dataclass(frozen=True)
    class Same:
        number: int

        def __hash__(self) -> int:
            return 7

    cache: Cache[Any, int] = Cache(maxsize=50)
    for number in range(200):
        cache.set(Same(number), number)
    assert len(cache) == 50
    for number in range(200):
        assert cache.get(Same(number), number) == number
