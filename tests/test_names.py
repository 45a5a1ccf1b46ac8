"""Names of records: injective, readable, and read back exactly; nothing else is taken for a name."""

from __future__ import annotations

import enum
from collections import namedtuple
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credenza.errors import ConfigurationError, UsageError
from credenza.memory.table import Scope
from credenza.sentinel import MISSING
from credenza.shared.names import Names

NAMES = Names("shop")
SCOPE = Scope("app.users")
TRICKY_SCOPE = Scope("app.f:(s1")
NAMES.scopes.update({scope.name: scope for scope in (SCOPE, TRICKY_SCOPE)})


class Colour(enum.StrEnum):
    RED = "red"
    WAVE = "~i1"


class Word(str, enum.Enum):  # noqa: UP042  # the older way to write one is what is tested
    ANN = "ann"


class Level(enum.IntEnum):
    LOW = 1


class Loud(str):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.upper() == other.upper()

    def __hash__(self) -> int:
        return hash(self.upper())


class Pretender:
    """Says that it is a str, as proxies do."""

    __class__: Any = str


Point = namedtuple("Point", "x y")

TEXT = st.one_of(
    st.text(max_size=8),
    st.text(alphabet="~sifbtNTF()0123456789:,-#\ud800\udfff", max_size=8),  # the signs of the encoding itself
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), TEXT, st.binary(max_size=6))
PARTS = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)
TYPES = st.lists(st.sampled_from([int, str, type(None), Colour, Level]), max_size=3).map(tuple)
KEYS = st.one_of(
    PARTS,
    st.tuples(st.sampled_from([SCOPE, TRICKY_SCOPE]), st.one_of(PARTS, st.tuples(PARTS, TYPES))),
)


def exact(key: Any) -> object:
    """Return something that is equal for two keys if and only if they are to be one: True and 1 are not."""
    return (tuple, tuple(exact(part) for part in key)) if isinstance(key, tuple) else (type(key), key)


@given(key=KEYS)
@example(key="~")
@example(key="~s")
@example(key="\ud800")
@example(key=("\ud800",))
@example(key=("~i1",))
@example(key=(SCOPE.name, 1))
def test_key_that_was_named_is_read_back(key: Any) -> None:
    """A name gives the key again, with the same types."""
    assert exact(NAMES.key(NAMES.record(key))) == exact(key)


@given(one=KEYS, other=KEYS)
def test_two_keys_have_two_names(one: Any, other: Any) -> None:
    """Names are equal only for equal keys of equal types."""
    assert (NAMES.record(one) == NAMES.record(other)) == (exact(one) == exact(other))


@given(text=st.one_of(st.binary(max_size=20), st.text(alphabet="~sifbtNTF()0123:,-a", max_size=14).map(str.encode)))
@example(text=b"~i01")
@example(text=b"~i-0")
@example(text=b"~stext")
@example(text=b"~s1:a")
@example(text=b"~(s01:a)")
@example(text=b"~(N,)")
@example(text=b"~(N")
@example(text=b"~(NN)")
@example(text=b"~b5:abc")
@example(text=b"~T,")
@example(text=b"~")
@example(text=b"~i")
@example(text=b"~f9:app.users")
@example(text=b"~f9:app.otherN")
@example(text=b"~f9:app.userst7:no.Type")
@example(text=b"~t12:builtins.int")
@example(text=b"\xff")
@example(text=b"~i" + b"9" * 10_000)
@example(text=b"~s999999999:")
@example(text=b"~b99999999999999999999:")
@example(text=b"~" + b"(" * 100_000)
def test_bytes_that_are_no_name_are_read_as_nothing(text: bytes) -> None:
    """Whatever is read as a key has that very name, so that no two names mean one key."""
    key = NAMES.key(b"shop:" + text)
    assert key is MISSING or NAMES.record(key) == b"shop:" + text


@pytest.mark.parametrize(
    "text",
    [
        b"~i01", b"~i-0", b"~i", b"~s1:a\xff", b"~(s01:a)", b"~(N,)", b"~(N", b"~(NN)", b"~b5:abc", b"~T,", b"~", b"~b", b"\xff",
        b"~splain", b"~t12:builtins.int", b"~f9:app.users", b"~f9:app.otherN", b"~f9:app.userst7:no.Type", b"~f9:app.usersN,",
        b"~i" + b"9" * 10_000, b"~" + b"(" * 100_000, b"~b99999999999999999999:",
    ],
)  # fmt: skip
def test_malformed_name_means_no_key(text: bytes) -> None:
    """A name that no key has is not taken for the nearest one."""
    assert NAMES.key(b"shop:" + text) is MISSING


def test_keys_that_look_alike_have_names_of_their_own() -> None:
    """Numbers, text, bytes, words and tuples of the same looks never collide."""
    keys: list[Any] = [
        1, "1", True, "True", None, "None", b"1", "~i1", "", (), ((),), ("",), "()", ("a:b", "c"), ("a", "b:c"),
        ("a", "b", "c"), (1,), ("1",), (True,), ((1,),), -1, "-1", 0, False, b"", SCOPE.name, "~", "~s",
        (SCOPE, 1), (SCOPE.name, 1), (SCOPE, (1,)),
    ]  # fmt: skip
    assert len({NAMES.record(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("user:42", b"shop:user:42"),
        ("é", "shop:é".encode()),
        ("", b"shop:"),
        ("~x", b"shop:~s~x"),
        (42, b"shop:~i42"),
        (("user", 42, None), b"shop:~(s4:user,i42,N)"),
        ((b"\x00", True, ()), b"shop:~(b1:\x00,T,())"),
        ((SCOPE, 42), b"shop:~f9:app.usersi42"),
        ((SCOPE, ((1,), (int,))), b"shop:~f9:app.users((i1),(t12:builtins.int))"),
    ],
)
def test_names_are_what_they_were(key: Any, name: bytes) -> None:
    """The names of this version are fixed: processes of other versions share the tier."""
    assert NAMES.record(key) == name


@pytest.mark.parametrize(
    ("key", "plain"),
    [
        (Colour.RED, "red"),
        (Colour.WAVE, "~i1"),
        (Word.ANN, "ann"),
        (Level.LOW, 1),
        (Point(1, "a"), (1, "a")),
        ((Colour.RED, Level.LOW), ("red", 1)),
    ],
)
def test_subclass_has_the_name_of_its_plain_value(key: Any, plain: Any) -> None:
    """StrEnum, IntEnum and named tuples stand for the value that they are."""
    assert NAMES.record(key) == NAMES.record(plain)
    assert exact(NAMES.key(NAMES.record(key))) == exact(plain)


@pytest.mark.parametrize(
    "key", [1.5, object(), ["a"], {"a": 1}, frozenset(), (1, 2.0), int, (int,), bytearray(b"a"), Ellipsis]
)
def test_key_of_another_type_is_refused(key: Any) -> None:
    """What processes cannot agree upon is an error that says what to do."""
    with pytest.raises(UsageError, match="pass key= with a template"):
        NAMES.record(key)


def test_object_that_only_says_that_it_is_text_is_refused() -> None:
    """A proxy is no key: what it stands for may change."""
    with pytest.raises(UsageError, match="got a Pretender"):
        NAMES.record(Pretender())


@pytest.mark.parametrize("key", [Loud("a"), (Loud("a"),)])
def test_key_with_a_comparison_of_its_own_is_refused(key: Any) -> None:
    """A key that the plain value is not equal to could not be found again, so it is refused."""
    with pytest.raises(UsageError, match="pass the plain str"):
        NAMES.record(key)


def test_key_of_an_unknown_function_is_refused() -> None:
    """Only functions that the cache knows have names, so that every name that is made can be read back."""
    with pytest.raises(UsageError, match="got a Scope"):
        Names("shop").record((SCOPE, 1))
    with pytest.raises(UsageError, match="got a Scope"):
        NAMES.record((Scope(SCOPE.name), 1))


def test_name_of_a_forgotten_function_means_no_key() -> None:
    """A function that is gone has no entries that could be meant."""
    names = Names("shop")
    names.scopes[SCOPE.name] = SCOPE
    name = names.record((SCOPE, 1))
    del names.scopes[SCOPE.name]
    assert names.key(name) is MISSING


def test_types_within_a_slot_are_found_only_where_they_were_named() -> None:
    """A type is read back by a process that has named it; another process holds no key with it."""
    names, others = Names("shop"), Names("shop")
    names.scopes[SCOPE.name] = others.scopes[SCOPE.name] = SCOPE
    key = (SCOPE, (("red",), (Colour,)))
    name = names.record(key)
    assert names.key(name) == key
    assert others.key(name) is MISSING


def test_two_types_of_one_name_are_refused() -> None:
    """Two classes that nobody can tell apart by name are an error, not one key."""
    names = Names("shop")
    names.scopes[SCOPE.name] = SCOPE
    one, other = (type("Twin", (), {}) for _ in range(2))
    names.record((SCOPE, (one,)))
    with pytest.raises(UsageError, match=r"two types of arguments are called .*Twin"):
        names.record((SCOPE, (other,)))


def test_deeply_nested_key_is_refused() -> None:
    """Nesting has a limit that says so, and the deepest key within it can be read back."""
    key: Any = ()
    for _ in range(32):
        key = (key,)
    assert NAMES.key(NAMES.record(key)) == key
    with pytest.raises(UsageError, match="32 levels"):
        NAMES.record((key,))
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(UsageError, match="32 levels"):
        NAMES.record(key)


def test_int_of_too_many_digits_is_refused() -> None:
    """An int that Python does not write is an error about the key."""
    with pytest.raises(UsageError, match="more digits"):
        NAMES.record(10**5000)


@pytest.mark.parametrize("tag", ["users", "", "user:é", "a#b", "\ud800"])
def test_tag_that_was_named_is_read_back(tag: str) -> None:
    """The name of a tag gives the tag again, and is no record's name."""
    name = NAMES.tag(tag)
    assert name.startswith(b"shop#")
    assert NAMES.tag_of(name) == tag
    assert NAMES.key(name) is MISSING
    assert NAMES.tag_of(NAMES.record("users")) is MISSING


def test_names_of_another_namespace_mean_nothing() -> None:
    """Two caches within one tier do not take each other's names for their own."""
    others = Names("shop2")
    assert NAMES.key(others.record("a")) is MISSING
    assert NAMES.tag_of(others.tag("a")) is MISSING
    assert NAMES.key(b"") is MISSING
    assert NAMES.tag_of(b"shop#\xff") is MISSING


@pytest.mark.parametrize("namespace", ["", "a:b", "a#b", "a b", "é", "a\n", None, 5, b"a"])
def test_namespace_with_other_signs_is_refused(namespace: Any) -> None:
    """A namespace cannot contain what separates it from the rest."""
    with pytest.raises(ConfigurationError, match="namespace must be"):
        Names(namespace)


def test_namespace_of_plain_signs_is_kept() -> None:
    """Letters, digits and three signs make a namespace."""
    assert Names("Shop_1.a-b").record("x") == b"Shop_1.a-b:x"
