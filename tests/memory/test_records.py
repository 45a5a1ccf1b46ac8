"""Reading records of a shared tier: the pure functions and the compiled ones say the same of all bytes."""

from __future__ import annotations

import gc
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.test_names import KEYS, NAMES

from credenza.codec import Codec, Pickle, Plain, TypedCodec
from credenza.codec import fresh_values as pure_fresh_values
from credenza.codec import gets as pure_gets
from credenza.memory.implementation import fresh_values, gets, implementation
from credenza.sentinel import MISSING
from credenza.tiers.base import Get, Stamp
from credenza.tiers.records import value_record

NAME = b"n:a"
EPOCH = b"e" * 8
NOW_MS = 1_000_000
PLAIN_DATA = Codec().of()

compiled_only = pytest.mark.skipif(implementation() == "pure", reason="the pure functions serve here")


def record_of(typed: TypedCodec = PLAIN_DATA, value: Any = "loaded", name: bytes = NAME, **about: Any) -> bytes:
    """Return a record that is fresh and current, but for what is said about it."""
    facts: dict[str, Any] = {"stored_ms": NOW_MS - 1_000, "fresh_ms": 2_000, "stale_ms": 0, "load_ms": 0}
    return value_record(typed.pack(name, value, **{**facts, "stamp": Stamp(EPOCH, 5), **about}))


def outcome(
    read: Callable[..., Any], records: list[Any], plain: Plain = PLAIN_DATA.plain, now_ms: int = NOW_MS, floor: int = 5
) -> tuple[list[Any], list[int]]:
    """Return what one of the functions says of records that are all called the same."""
    values, others = read([Get(NAME)] * len(records), records, plain, now_ms, EPOCH, floor)
    return values, others


def both(*about: Any, **more: Any) -> tuple[list[Any], list[int]]:
    """Return what both say."""
    found = outcome(fresh_values, *about, **more)
    assert found == outcome(pure_fresh_values, *about, **more)
    return found


@pytest.mark.parametrize("value", ["", "loaded", [1, {"a": None}], "x" * 100_000], ids=["", "text", "data", "long"])
def test_plain_record_is_read(value: Any) -> None:
    assert both([record_of(value=value)] * 3) == ([value] * 3, [])


@pytest.mark.parametrize(
    "about",
    [
        {"tags": (b"t",)},
        {"stamp": Stamp(b"f" * 8, 5)},
        {"stamp": Stamp(EPOCH, 4)},
        {"fresh_ms": 1_000},
        {"fresh_ms": 0},
        {"name": b"n:b"},
        {"typed": Codec("json").of()},
        {"typed": Codec("json", compress_above=0).of(), "value": "x" * 1_000},
        {"typed": Codec(Pickle(secret=b"s" * 32)).of()},
    ],
    ids=str,
)
def test_record_that_takes_a_closer_look_is_left(about: dict[str, Any]) -> None:
    """Old ones, those from before the last `clear`, those with tags, of another format, or copied from another name."""
    assert both([record_of(**about), record_of()]) == ([MISSING, "loaded"], [0])


def test_tags_are_never_taken_for_a_payload() -> None:
    """Whether a value with tags is current is not told here, even if its decoder would take any bytes."""
    plain = PLAIN_DATA.plain._replace(decode=bytes)
    records = [record_of(tags=(b"t",)), record_of(tags=(b"t",) * 256), record_of()]
    values, others = both(records, plain)
    assert (values[:2], others) == ([MISSING, MISSING], [0, 1])


def test_values_that_a_cache_signs_are_never_plain() -> None:
    """What is signed is verified, which is not done here."""
    signed = Codec(Pickle(secret=b"s" * 32)).of()
    assert both([record_of(signed), record_of()], signed.plain) == ([MISSING, MISSING], [0, 1])


@pytest.mark.parametrize("record", [None, 5, b"", b"V", [record_of()], b"L" + record_of()[1:]])
def test_reply_that_is_no_record_is_left(record: Any) -> None:
    assert both([record]) == ([MISSING], [0])


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    """The checksum covers all that follows it, and the name."""
    record = record_of()
    damaged = []
    for place in range(8 * 25, 8 * len(record)):  # the first bytes are the tier's own
        data = bytearray(record)
        data[place // 8] ^= 1 << place % 8
        damaged.append(bytes(data))
    damaged += [record[:size] for size in range(len(record))]
    damaged += [record + b"\0"]
    assert both(damaged) == ([MISSING] * len(damaged), list(range(len(damaged))))


@given(st.lists(st.binary(max_size=200)), st.integers(-(2**60), 2**60))
def test_any_bytes_are_read_alike(records: list[bytes], now_ms: int) -> None:
    both(records, now_ms=now_ms)


@given(stored_ms=st.integers(0, 2**64 - 1), fresh_ms=st.integers(0, 2**64 - 1), now_ms=st.integers(-(2**62), 2**62))
@example(stored_ms=10, fresh_ms=5, now_ms=15)
@example(stored_ms=10, fresh_ms=5, now_ms=14)
@example(stored_ms=2**64 - 1, fresh_ms=0, now_ms=2**62)
def test_age_is_told_alike(stored_ms: int, fresh_ms: int, now_ms: int) -> None:
    """Whatever the clocks say, up to the largest numbers that a record can hold."""
    both([record_of(stored_ms=stored_ms, fresh_ms=fresh_ms)], now_ms=now_ms)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=100)), min_size=1))
def test_checksum_is_that_of_zlib(pairs: list[tuple[bytes, bytes]]) -> None:
    """Names and payloads of every length, so that each remainder comes up."""
    for name, payload in pairs:
        record = record_of(value=payload, name=name)
        values, others = fresh_values([Get(name)], [record], PLAIN_DATA.plain, NOW_MS, EPOCH, 5)
        assert (values, others) == ([payload], [])
        assert zlib.crc32(record[33:], zlib.crc32(name, record[28])) == int.from_bytes(record[29:33])


def test_decoder_that_raises_leaves_the_record() -> None:
    """E1: an error of a decoder is no error of the caller."""

    def decode(payload: bytes) -> Any:
        raise ValueError(payload)

    assert both([record_of()], PLAIN_DATA.plain._replace(decode=decode)) == ([MISSING], [0])


def test_decoder_that_is_interrupted_interrupts() -> None:
    """Ctrl+C is for the whole program."""

    def decode(payload: bytes) -> Any:
        raise KeyboardInterrupt

    for read in (pure_fresh_values, fresh_values):
        with pytest.raises(KeyboardInterrupt):
            outcome(read, [record_of()], PLAIN_DATA.plain._replace(decode=decode))


@compiled_only
def test_decoder_that_empties_the_lists_does_no_harm() -> None:
    """A decoder is the user's code, and nothing that it gets hold of may be read after it is gone."""
    records = [record_of() for _ in range(3)]
    asked = [Get(NAME)] * 3

    def decode(payload: bytes) -> Any:
        records.clear()
        asked.clear()
        return "read"

    plain = PLAIN_DATA.plain._replace(decode=decode)
    assert fresh_values(asked, records, plain, NOW_MS, EPOCH, 5) == (["read"], [])


@compiled_only
@pytest.mark.parametrize(
    ("most_bytes", "now_ms", "epoch", "floor"),
    [(1 << 70, NOW_MS, EPOCH, 5), (1_000, 1 << 70, EPOCH, 5), (1_000, NOW_MS, b"short", 5), (1_000, NOW_MS, EPOCH, -1)],
)
def test_numbers_that_no_record_can_hold_take_a_closer_look(
    most_bytes: int, now_ms: int, epoch: bytes, floor: int
) -> None:
    """E1: whatever a tier says of itself, a reader gets no error for it."""
    plain = PLAIN_DATA.plain._replace(most_bytes=most_bytes)
    assert fresh_values([Get(NAME)], [record_of()], plain, now_ms, epoch, floor) == ([MISSING], [0])


def test_there_are_as_many_records_as_were_asked_for() -> None:
    for read in (pure_fresh_values, fresh_values):
        with pytest.raises(ValueError, match=r"zip|as many"):
            read([Get(NAME)], [], PLAIN_DATA.plain, NOW_MS, EPOCH, 5)


def test_large_records_are_left() -> None:
    """`max_bytes` holds for what is found, too."""
    small = Codec(max_bytes=1_000).of()
    assert both([record_of(value="x" * 2_000), record_of()], small.plain) == ([MISSING, "loaded"], [0])


# Names ----------------------------------------------------------------------------------------------------------------


@given(keys=st.lists(KEYS, max_size=5))
@example(keys=["a", "~b", "", "é", "~"])
@example(keys=["a", "\ud800"])
def test_many_keys_have_the_names_that_each_has(keys: list[Any]) -> None:
    """Naming many keys at once is a shorter way to the same names."""
    expected = [Get(NAMES.record(key)) for key in keys]
    for make in (gets, pure_gets):
        made = make("shop:", keys, NAMES.record)
        assert made == expected
        assert {type(each) for each in made} <= {Get}


def test_key_that_has_no_name_raises_as_for_one() -> None:
    for make in (gets, pure_gets):
        with pytest.raises(ZeroDivisionError):
            make("shop:", ["a", 1], lambda key: 1 // 0)


def test_text_of_a_subclass_is_named_by_the_function() -> None:
    """It may have an encoding of its own."""

    class Text(str):
        __slots__ = ()

    for make in (gets, pure_gets):
        assert make("shop:", [Text("a")], lambda key: b"own") == [Get(b"own")]


@compiled_only
def test_no_reference_is_lost() -> None:
    """Nothing that goes through the compiled functions stays."""
    records = [record_of(), record_of(tags=(b"t",)), None]
    asked = [Get(NAME)] * 3
    keys: list[Any] = [f"key-{random.random()}", ("a", 1)]
    held = [EPOCH, PLAIN_DATA.plain, *records[:2], asked[0], *keys, MISSING]
    gc.collect()
    before = [sys.getrefcount(each) for each in held[:-1]]
    for _ in range(1_000):
        fresh_values(asked, records, PLAIN_DATA.plain, NOW_MS, EPOCH, 5)
        gets("shop:", keys, NAMES.record)
    assert [sys.getrefcount(each) for each in held[:-1]] == before
