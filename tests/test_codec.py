"""Values on the wire: they come back as they were, or stay at home; what was stored long ago stays readable."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import math
import sys
import threading
import traceback
import types
import uuid
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Never, Protocol, TypeVar, Union
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.cases import CASES, FOLDER, NAME, STAMP, Case

from credenza import Cache, ConfigurationError, Loaded, NotFound
from credenza.codec import FOREVER, SEEN_BYTES, Codec, Envelope, Pickle, Unencodable, Unreadable
from credenza.codec.sameness import difference
from credenza.sentinel import MISSING
from credenza.tiers.base import Stamp

SECRET = b"sixteen bytes at least"
FORMATS: list[Any] = ["msgpack", "json", Pickle(SECRET)]
T = TypeVar("T")


def pack(
    value: object, annotation: Any = MISSING, form: Any = "msgpack", codec: Codec | None = None, **more: Any
) -> bytes:
    """Return the envelope of a value, with facts that do not matter."""
    facts: dict[str, Any] = {"stamp": STAMP, "stored_ms": 1, "fresh_ms": 2, "stale_ms": 3, "load_ms": 4}
    return (codec or Codec(form)).of(annotation).pack(NAME, value, **(facts | more))


def unpack(record: bytes, annotation: Any = MISSING, form: Any = "msgpack", codec: Codec | None = None) -> Envelope:
    """Return what an envelope holds."""
    return (codec or Codec(form)).of(annotation).unpack(NAME, record, 0)


def there_and_back(value: object, annotation: Any = MISSING, form: Any = "msgpack") -> Any:
    """Return the value as another process gets it."""
    return unpack(pack(value, annotation, form), annotation, form).value


def exact(value: Any) -> Any:
    """Return something that is equal for two values if and only if they are of equal content and equal types."""
    if isinstance(value, dict):
        return (type(value), [(exact(key), exact(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), [exact(item) for item in value])
    if isinstance(value, (set, frozenset)):
        return (type(value), sorted(map(repr, map(exact, value))))
    if dataclasses.is_dataclass(value):
        return (type(value), [exact(getattr(value, field.name)) for field in dataclasses.fields(value)])
    return (type(value), repr(value))


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class User:
    id: int
    name: str
    extra: Any = None


@dataclasses.dataclass
class Admin(User):
    rights: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Untold:
    """Compares by identity, as ORM models do."""

    id: int


class Order(msgspec.Struct):
    number: int


class Model:
    """A class of somebody's own, which no format knows."""

    def __init__(self, secret: str = "s3cret") -> None:
        self.secret = secret


class Refusing:
    def __reduce__(self) -> Any:
        message = "s3" + "cret"  # tracebacks show lines of code
        raise ValueError(message)


class Tree(msgspec.Struct):
    model: Model
    above: Tree | None = None


class Node(msgspec.Struct):
    inner: list[tuple[Tree, ...]]
    others: list[Node]


class Shape(Protocol):
    side: int


# Golden files ---------------------------------------------------------------------------------------------------------


def test_every_golden_file_has_a_case() -> None:
    """No file is left out, and none is missing."""
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)


@pytest.mark.parametrize(("title", "case"), CASES.items(), ids=list(CASES))
def test_value_that_an_earlier_version_stored_is_readable(title: str, case: Case) -> None:
    """Bytes of version 1 decode to what they were made from, with all that was kept beside it."""
    found = case.codec().unpack(NAME, (FOLDER / f"{title}.bin").read_bytes(), 0)
    if case.is_absent:
        assert (type(found.value), found.value.args) == (NotFound, case.value.args)
    else:
        assert exact(found.value) == exact(case.value)
    assert found[1:] == (case.is_absent, 1_700_000_000_000, case.fresh_ms, 60_000, 12, STAMP, case.tags, True)


def test_value_of_a_later_version_is_unreadable() -> None:
    """What a later version stored is a miss today, and the reason says so."""
    record = bytearray((FOLDER / "msgpack-plain.bin").read_bytes())
    record[2] = 2
    with pytest.raises(Unreadable, match="version 2, not 1"):
        unpack(bytes(record))


# What comes back ------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=6),
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)
ODD = st.one_of(
    SCALARS, st.integers(), st.text(alphabet="a\ud800"), st.decimals(allow_nan=None), st.dates(), st.datetimes(), st.uuids(),
    st.timedeltas(), st.sampled_from([Colour.RED, Level.LOW, 1j, object(), Model(), range(3), bytearray(b"a"), memoryview(b"b")]),
)  # fmt: skip
ANYTHING = st.recursive(
    ODD,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(SCALARS, max_size=3),
        st.dictionaries(SCALARS, inner, max_size=3),
        st.builds(User, SCALARS, SCALARS, inner),
        st.lists(st.tuples(SCALARS, inner), max_size=2).map(collections.OrderedDict),
    ),
    max_leaves=8,
)


@given(value=PLAIN)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    """None, bools, ints of 64 bits, floats, text, bytes, lists and dicts need no type."""
    assert exact(there_and_back(value)) == exact(value)


@pytest.mark.parametrize("form", ["msgpack", "json"])
@given(value=ANYTHING)
def test_value_without_a_type_comes_back_as_it_was_or_is_refused(form: Any, value: object) -> None:
    """Nothing is ever shared that would come back with other types than it had."""
    try:
        record = pack(value, form=form)
    except Unencodable:
        return
    assert exact(unpack(record, form=form).value) == exact(value)


@given(value=ANYTHING)
def test_value_of_a_type_comes_back_as_it_was_or_is_refused(value: object) -> None:
    """An annotation that lies, or that says less than the value is, keeps the value at home."""
    for annotation in (User, list[User], dict[str, Any], tuple[Any, ...], set[int] | None, Sequence[object]):
        try:
            record = pack(value, annotation)
        except Unencodable:
            continue
        assert exact(unpack(record, annotation).value) == exact(value)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        ({"a": (1,)}, dict[str, tuple[int, ...]]),
        ({(1, 2): 3}, dict[tuple[int, int], int]),
        (Point(1, 2.5), Point),
        (User(1, "Ann"), User),
        (User(1, "Ann", extra={"deep": [1, None]}), User | None),
        (None, User | None),
        (None, None),
        ([Order(1)], list[Order]),
        (Untold(1), Untold),
        (Colour.RED, Colour),
        (Level.LOW, Level),
        (decimal.Decimal("1.50"), decimal.Decimal),
        (datetime.datetime(2024, 1, 1, 12, 0, 0, 5), datetime.datetime),  # noqa: DTZ001  # has no zone on purpose
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), datetime.datetime),
        (datetime.date(2024, 1, 1), datetime.date),
        (datetime.timedelta(1, 2, 3), datetime.timedelta),
        (uuid.UUID(int=5), uuid.UUID),
        (bytearray(b"a"), bytearray),
        (1, Literal[1, "a"]),
        ([1, "a", None], list[object]),
        ([1], Iterable[int]),
    ],
)
@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_value_of_an_annotated_type_comes_back_as_it_was(value: object, annotation: Any, form: Any) -> None:
    """The annotation says what plain data cannot, in each format."""
    if form == "json" and isinstance(value, dict) and (1, 2) in value:
        pytest.skip("objects in JSON have text for keys")
    found = there_and_back(value, annotation, form)
    assert type(found) is type(value)
    assert found == value or found.id == value.id  # type: ignore[attr-defined]  # the one that compares by identity


@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_large_value_comes_back_as_it_was(form: Any) -> None:
    """Records that are read in place, not copied, are checked as well."""
    value = [{"id": number, "name": "Ann"} for number in range(5_000)]
    record = pack(value, form=form, tags=(b"shop#users",))
    assert unpack(record, form=form)[:1] + unpack(record, form=form)[7:8] == (value, (b"shop#users",))
    assert there_and_back(value, form=form) == value
    with pytest.raises(Unreadable, match="damaged"):
        unpack(record[:-1] + bytes([record[-1] ^ 1]), form=form)


def test_int_where_a_float_is_annotated_comes_back_as_an_equal_float() -> None:
    """A function that returns a float may return 0, as type checkers say."""
    assert there_and_back(0, float) == 0.0
    assert there_and_back([1, 2.5], list[float]) == [1.0, 2.5]
    with pytest.raises(Unencodable):
        pack((1 << 53) + 1, float)


def test_bytes_travel_in_json_where_they_are_annotated() -> None:
    """JSON has no bytes; with a type they come back, without one they are refused."""
    assert there_and_back(b"\x00\xff", bytes, "json") == b"\x00\xff"
    with pytest.raises(Unencodable, match="bytes would come back as str"):
        pack(b"\x00", form="json")


def test_pickle_keeps_every_type() -> None:
    """With a secret any class travels, whatever is annotated."""
    value = collections.OrderedDict(a=User(1, "Ann", extra=({1.5}, 1j)))
    for annotation in (MISSING, Model, dict[str, User]):
        record = pack(value, annotation, Pickle(SECRET))
        found = unpack(record, form=Pickle(SECRET))
        assert (exact(found.value), found.is_same_type) == (exact(value), True)


def test_what_is_not_a_number_comes_back() -> None:
    """NaN differs from itself and is the same all the same."""
    assert math.isnan(there_and_back([math.nan, 1.0])[0])
    assert math.isnan(there_and_back(math.nan, float))
    assert there_and_back(decimal.Decimal("NaN"), decimal.Decimal).is_nan()
    with pytest.raises(Unencodable):
        pack(math.nan, form="json")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "annotation", "reason"),
    [
        ((1, 2), MISSING, "tuple would come back as list; annotate"),
        ([1, [(2,)]], MISSING, "tuple would come back as list"),
        ({1}, MISSING, "set would come back as list"),
        (User(1, "s3cret"), MISSING, "User would come back as dict; annotate the loader's return type or pass type="),
        (collections.defaultdict(list, a=[1]), MISSING, "defaultdict would come back as dict"),
        (Colour.RED, MISSING, "Colour would come back as str"),
        (Level.LOW, MISSING, "Level would come back as int"),
        (decimal.Decimal(1), MISSING, "Decimal would come back as str"),
        (datetime.date(2024, 1, 1), MISSING, "date would come back as str"),
        (bytearray(b"s3cret"), MISSING, "bytearray would come back as bytes"),
        (1 << 64, MISSING, r"int cannot be encoded \(OverflowError\)"),
        ("s3cret\ud800", MISSING, r"str cannot be encoded \(UnicodeEncodeError\)"),
        (Model(), MISSING, "Encoding objects of type Model is unsupported"),
        ({"id": 1, "name": "s3cret"}, User, "dict would come back as User; it is not what is annotated"),
        (Admin(1, "s3cret", rights=["all"]), User, "Admin would come back as User"),
        (User(1, ["s3cret"]), User, r"User would not come back \(Expected `str`, got `array` - at `\$.name`\)"),
        (User(1, "a", extra=("s3cret",)), User, "tuple would come back as list"),
        ([1, True], list[int], r"list would not come back \(Expected `int`, got `bool` - at `\$\[1\]`\)"),
        ((1, 2), Sequence[int], "tuple would come back as list"),
        ({"s3cret": 1}, dict[Literal["a"], int], r"dict would not come back \(ValidationError\)"),
        ({1: "a"}, dict[str, str], "dict would not come back"),
        (frozenset({frozenset()}), frozenset[Any], "frozenset would come back with another value"),
    ],
)  # fmt: skip
def test_value_that_would_come_back_otherwise_is_refused(value: object, annotation: Any, reason: str) -> None:
    """The reason names types and what to do, and never shows a value."""
    with pytest.raises(Unencodable, match=reason) as caught:
        pack(value, annotation)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_datetime_that_would_come_back_in_utc_is_refused() -> None:
    """MessagePack keeps the instant only, and a page that shows the hour would change; JSON keeps the offset."""
    seen = datetime.datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    with pytest.raises(Unencodable, match=r"convert it with astimezone\(UTC\)"):
        pack(seen, datetime.datetime)
    assert there_and_back(seen, datetime.datetime, "json").isoformat() == seen.isoformat()


def test_loader_that_is_annotated_to_return_none_returns_nothing_else() -> None:
    """`-> None` is an annotation like any other."""
    assert unpack(pack(None, None), None).is_same_type
    with pytest.raises(Unencodable, match="int would not come back"):
        pack(5, None)


def test_set_whose_members_would_change_is_refused() -> None:
    """Equal sets may have members of other types."""
    with pytest.raises(Unencodable, match="Level would come back as int"):
        pack({Level.LOW}, set[Any])


def test_fields_of_an_attrs_class_are_compared_one_by_one() -> None:
    """Equal objects may have fields of other types."""

    class Parcel:
        __attrs_attrs__ = (types.SimpleNamespace(name="weight"),)

        def __init__(self, weight: object) -> None:
            self.weight = weight

    assert difference(Parcel(1.5), Parcel(1.5)) is None
    assert difference(Parcel(True), Parcel(1)) == "bool would come back as int"


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ([True], [1]),
        ([1, 2], [1]),
        ([User(1, "a")], [User(1, "a"), User(2, "b")]),
        ({1: "a"}, {"1": "a"}),
        ({Level.LOW: "a"}, {1: "a"}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": (1,)}, {"a": [1]}),
        ([1, "a", b""], [1, "a", bytearray()]),
        (frozenset({(True,)}), frozenset({(1,)})),
        (0.0, False),
    ],
)
def test_difference_that_equality_does_not_see_is_found(value: object, decoded: object) -> None:
    """Types, lengths, keys and their order count, at any depth."""
    assert difference(value, decoded) is not None
    assert difference(value, value) is None


def test_key_that_becomes_text_is_refused() -> None:
    """Objects in JSON have text for keys, so a dict by numbers needs a type there."""
    with pytest.raises(Unencodable, match="int would come back as str"):
        pack({1: "a"}, form="json")
    assert there_and_back({1: "a"}, dict[int, str], "json") == {1: "a"}


def test_value_that_contains_itself_is_refused() -> None:
    """Endless nesting is an error of ours, not a crash."""
    endless: list[Any] = []
    endless.append(endless)
    for form in FORMATS[:2]:
        with pytest.raises(Unencodable, match="RecursionError"):
            pack(endless, form=form)


def test_value_whose_class_raises_is_refused() -> None:
    """Comparing and encoding run the user's code, whose errors may show values."""

    @dataclasses.dataclass
    class Bad:
        id: int

        def __post_init__(self) -> None:
            if self.id == 5:
                raise ZeroDivisionError("s3cret")

    bad = Bad(4)
    bad.id = 5
    with pytest.raises(Unencodable, match=r".*Bad would not come back \(ZeroDivisionError\)"):
        pack(bad, Bad)
    with pytest.raises(Unencodable, match=r"Refusing cannot be encoded \(ValueError\)") as caught:
        pack(Refusing(), form=Pickle(SECRET))
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(
        Unencodable, match=r"function cannot be encoded \((AttributeError|PicklingError)\); return plain data"
    ):
        pack(lambda: "s3cret", form=Pickle(SECRET))


@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_value_that_is_too_large_is_refused_on_both_sides(form: Any) -> None:
    """The limit is on the whole envelope, to the byte, and says both sizes."""
    record = pack("x" * 2_000, form=form)
    size = len(record)
    assert unpack(record, codec=Codec(form, max_bytes=size)).value == "x" * 2_000
    assert len(pack("x" * 2_000, codec=Codec(form, max_bytes=size))) == size
    with pytest.raises(Unencodable, match=f"{size} bytes, more than max_bytes={size - 1}"):
        pack("x" * 2_000, codec=Codec(form, max_bytes=size - 1))
    with pytest.raises(Unreadable, match=f"{size} bytes, more than max_bytes={size - 1}"):
        unpack(record, codec=Codec(form, max_bytes=size - 1))


def test_value_that_is_far_too_large_is_not_decoded_first() -> None:
    """A payload above the limit is refused before it is compared."""
    with pytest.raises(Unencodable, match=r"\d+ bytes, more than max_bytes=1000"):
        pack([(1,)] * 10_000, codec=Codec(max_bytes=1_000))


# What is kept beside a value ------------------------------------------------------------------------------------------

NUMBERS = st.integers(0, FOREVER)


@given(
    facts=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    stamp=st.builds(Stamp, st.binary(min_size=8, max_size=8), NUMBERS),
    tags=st.lists(st.binary(max_size=5), max_size=5).map(tuple),
    start=st.integers(0, 40),
    is_absent=st.booleans(),
)
def test_facts_come_back_as_they_were(facts: Any, stamp: Stamp, tags: Any, start: int, is_absent: bool) -> None:
    """Times, stamp and tags are kept exactly, wherever in a record the envelope begins."""
    names = ("stored_ms", "fresh_ms", "stale_ms", "load_ms")
    for form in FORMATS:
        value = NotFound("a") if is_absent else [1]
        record = pack(
            value, form=form, stamp=stamp, tags=tags, is_absent=is_absent, **dict(zip(names, facts, strict=True))
        )
        found = Codec(form).of().unpack(NAME, b"x" * start + record, start)
        assert found[1:] == (is_absent, *facts, stamp, tags, True)


@pytest.mark.parametrize(
    "more",
    [
        {"fresh_ms": -1},
        {"stored_ms": FOREVER + 1},
        {"stamp": Stamp(b"short", 1)},
        {"stamp": Stamp(b"12345678", -1)},
        {"tags": (b"x" * 65_536,)},
        {"tags": (b"",) * 65_536},
    ],
    ids=lambda more: next(iter(more)),
)
def test_fact_that_does_not_fit_in_is_refused(more: dict[str, Any]) -> None:
    """A number or a tag out of range is never cut off."""
    with pytest.raises(Unencodable, match="out of range"):
        pack(1, **more)


def test_first_bytes_tell_equal_values_apart() -> None:
    """A writer that replaces what it saw means that very value, not an equal one."""
    assert len({pack([1])[:SEEN_BYTES] for _ in range(100)}) == 100


def test_absent_value_comes_back_as_its_error() -> None:
    """`NotFound` keeps its plain arguments; nothing else of it travels."""
    found = unpack(pack(NotFound("no user", 42, None, True, Model(), 1.5), is_absent=True))
    assert (type(found.value), found.value.args, found.is_absent) == (NotFound, ("no user", 42, None, True), True)
    found = unpack(pack(NotFound("\ud800"), is_absent=True, annotation=User), User)
    assert (found.value.args, found.is_same_type) == (("\ud800",), True)


def test_value_under_another_annotation_says_so() -> None:
    """Whoever reads with another type is told, and gets the value as that type where it fits."""

    @dataclasses.dataclass
    class Person:
        name: str

    record = pack(User(1, "Ann"), User)
    assert unpack(record, User).is_same_type
    found = unpack(record, Person)
    assert (found.value, found.is_same_type) == (Person("Ann"), False)
    plain = unpack(record)
    assert (plain.value, plain.is_same_type) == ({"id": 1, "name": "Ann", "extra": None}, False)
    assert not unpack(pack({"id": 1, "name": "Ann"}), User).is_same_type


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (User | None, Union[None, User]),  # noqa: UP007  # the older way to write it
        (list[User], Loaded[list[User]]),
        (User, Awaitable[Loaded[User]]),
        (User, Coroutine[Any, Any, User]),
        (User, User | Loaded[User]),
    ],
)
def test_annotations_that_mean_the_same_type_are_one(one: Any, other: Any) -> None:
    """How an annotation is written does not matter, nor whether the loader wraps its result."""
    found = unpack(pack([User(1, "a")] if one == list[User] else User(1, "a"), one), other)
    assert found.is_same_type
    assert not unpack(pack({}), other if one is None else dict[str, int]).is_same_type


@pytest.mark.parametrize("annotation", [Any, object, "User", list["User"], T, Loaded, Never, Loaded[Any], Any | None])
def test_annotation_that_says_nothing_means_plain_data(annotation: Any) -> None:
    """What was not resolved, or allows everything, is as good as no annotation."""
    assert unpack(pack({"a": 1}, annotation)).is_same_type
    with pytest.raises(Unencodable, match="annotate the loader's return type"):
        pack(User(1, "Ann"), annotation)


def test_codec_of_a_type_is_made_once() -> None:
    """Making a decoder is dear; an annotation that is not hashable costs it each time, and works."""
    codec = Codec()
    assert codec.of(User) is codec.of(User)
    unhashable = Literal[[]]  # type: ignore[valid-type]
    with pytest.raises(ConfigurationError):
        codec.of(unhashable)
    kinds = [msgspec.defstruct(f"Made{number}", [("id", int)]) for number in range(1_100)]
    assert all(codec.of(kind) is codec.of(kind) for kind in kinds)
    assert len(codec._typed) <= 1_000


# A class that changed -------------------------------------------------------------------------------------------------


def changed(*fields: Any) -> Any:
    """Return the class as a later version of the program has it."""
    return dataclasses.make_dataclass("User", fields)


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (changed(("id", int), ("name", str), ("mail", str)), "Object missing required field `mail`"),
        (changed(("id", str), ("name", str)), r"Expected `str`, got `int` - at `\$.id`"),
        (changed(("id", int), ("name", Colour)), "ValidationError"),
        (list[int], "Expected `array`, got `object`"),
    ],
)
@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_value_that_does_not_fit_its_class_any_more_is_unreadable(later: Any, reason: str, form: Any) -> None:
    """A new version of the program takes what the old one stored for a miss, and the reason shows no value."""
    record = pack(User(1, "s3cret"), User, form)
    with pytest.raises(Unreadable, match=f"does not decode to .*{reason}") as caught:
        unpack(record, later, form)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_value_that_fits_its_changed_class_is_readable() -> None:
    """A field less, or one more that may be left out, changes nothing for what is stored."""
    record = pack(User(1, "Ann"), User)
    fewer, more = changed(("id", int)), changed(("id", int), ("mail", str, dataclasses.field(default="-")))
    assert unpack(record, fewer).value == fewer(1)
    assert unpack(record, more).value == more(1, "-")


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation", [Model, list[Model], dict[str, Model | None], complex, type, Shape, User | Order | Admin]
)
@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_type_that_cannot_be_decoded_is_a_configuration_error(annotation: Any, form: Any) -> None:
    """It is found out when the function is decorated, and the message says what to do."""
    with pytest.raises(
        ConfigurationError, match=r"can be decoded.*pass such a type=, or Codec\(Pickle\(secret=\.\.\.\)\)"
    ):
        Codec(form).of(annotation)


def test_type_with_an_undecodable_field_is_a_configuration_error() -> None:
    """The field may be deep inside, and classes may contain themselves."""

    with pytest.raises(ConfigurationError, match=r"no value of type .*Model in .*Node can be decoded"):
        Codec().of(Node)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "yaml"}, "format must be"),
        ({"format": None}, "format must be"),
        ({"max_bytes": 0}, "max_bytes must be an int of at least 1000"),
        ({"max_bytes": True}, "max_bytes must be"),
        ({"max_bytes": sys.maxsize}, "max_bytes must be at most"),
        ({"max_bytes": 1e6}, "max_bytes must be"),
        ({"compress_above": -1}, "compress_above must be an int of at least 0"),
        ({"compress_above": "10k"}, "compress_above must be"),
    ],
)
def test_option_that_cannot_work_is_a_configuration_error(options: Any, message: str) -> None:
    """Options are checked when the codec is made."""
    with pytest.raises(ConfigurationError, match=message):
        Codec(**options)


@pytest.mark.parametrize("secret", [b"", b"fifteen bytes..", "sixteen bytes at least", None])
def test_secret_that_is_too_short_is_a_configuration_error(secret: Any) -> None:
    """A secret that can be guessed would let anybody run code, and no secret is ever shown."""
    with pytest.raises(ConfigurationError, match="at least 16 bytes") as caught:
        Pickle(secret)
    assert "fifteen" not in str(caught.value)
    assert "sixteen" not in repr(Pickle(SECRET)) + repr(Codec(Pickle(SECRET)))


def test_library_that_is_missing_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigurationError, match=r"credenza\[redis\]"):
        Codec("msgpack")
    with pytest.raises(ConfigurationError, match=r"credenza\[zstd\]"):
        Codec("json", compress_above=100)
    with pytest.raises(ConfigurationError, match=r"credenza\[redis\]"):
        Codec("json").of(User)
    assert there_and_back(User(1, "a"), User, Pickle(SECRET)) == User(1, "a")


@given(value=ANYTHING)
def test_json_without_libraries_reads_and_writes_the_same(value: object) -> None:
    """Processes with and without msgspec share plain data as JSON, and refuse the same kinds of values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "msgspec", None)
        bare = Codec("json")
    full = Codec("json")
    for one, other in ((bare, full), (full, bare)):
        try:
            record = pack(value, codec=one)
        except Unencodable:
            continue
        assert exact(unpack(record, codec=other).value) == exact(value)


# Compression ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS, ids=repr)
def test_large_value_is_compressed_and_comes_back(form: Any) -> None:
    """Payloads above the size are compressed where that helps; every codec of the format reads them."""
    codec = Codec(form, compress_above=1_000, max_bytes=2_000)
    text = "again and " * 700
    record = pack(text, codec=codec)
    assert len(record) < 300
    assert unpack(record, codec=codec).value == text
    assert unpack(record, form=form).value == text
    assert pack("x" * 500, codec=codec)[3] & 2 == 0


def test_value_that_does_not_compress_is_stored_as_it_is() -> None:
    """Compression that makes a payload larger is not used."""
    noise = bytes(range(256)) * 2
    assert pack(noise, codec=Codec(compress_above=0))[3] & 2 == 2
    assert pack(b"\x05\x99", codec=Codec(compress_above=0))[3] & 2 == 0


def test_value_that_compresses_too_well_is_refused() -> None:
    """What would decompress to more than four times the limit could not be read again, so it is not stored."""
    codec = Codec(compress_above=100, max_bytes=1_000)
    assert unpack(pack("x" * 3_900, codec=codec), codec=codec).value == "x" * 3_900
    with pytest.raises(Unencodable, match="more than max_bytes=1000"):
        pack("x" * 4_100, codec=codec)


def test_compressed_value_without_the_library_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot decompress has a miss, and the reason names the extra."""
    record = pack("x" * 1_000, codec=Codec(compress_above=100))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(Unreadable, match=r"credenza\[zstd\]"):
        unpack(record)


def test_threads_share_a_codec() -> None:
    """A codec may be used by several threads at once, compression included."""
    codec = Codec(compress_above=100)
    typed = codec.of()
    start, wrong, tools = threading.Barrier(4), [], set()

    def work(number: int) -> None:
        value = {"text": f"{number} and again " * 200}
        start.wait()
        for _ in range(100):
            record = typed.pack(NAME, value, stamp=STAMP, stored_ms=1, fresh_ms=2, stale_ms=3, load_ms=4)
            if typed.unpack(NAME, record, 0).value != value:
                wrong.append(number)
        tools.add(codec.compression._compressor)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(tools) == 4, "a compressor is not to be shared by threads"


def test_wrong_codec_in_a_url_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """No file is made, and no connection is left open."""
    with pytest.raises(ConfigurationError, match="codec must be"):
        Cache.from_url(f"sqlite://{tmp_path}/cache.db?codec=xml")
    assert not list(tmp_path.iterdir())


def test_golden_files_are_small() -> None:
    """They stay in the repository for ever."""
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) < 50_000
