"""Bytes from a shared tier are untrusted: exactly right, or `Unreadable`; no other error, no flood, nothing is run."""

from __future__ import annotations

import hmac
import json
import os
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.cases import CASES, FOLDER, NAME, Order, User

from credenza import NotFound
from credenza.codec import Codec, Envelope, Pickle, TypedCodec, Unreadable
from credenza.sentinel import MISSING
from credenza.tiers.base import Stamp

SECRET = b"sixteen bytes at least"
MSGPACK, JSON, PICKLE = 0, 4, 8
ABSENT, COMPRESSED = 1, 2
RAN: list[str] = []


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("boom",)


def codecs() -> Iterator[TypedCodec]:
    """Yield one of each kind that a cache may have."""
    for form in ("msgpack", "json"):
        for annotation in (MISSING, User, Order, list[User | None], dict[int, str], set[int], bytes, str, None):
            yield Codec(form, compress_above=100).of(annotation)  # type: ignore[arg-type]  # one of the words
    yield Codec(Pickle(SECRET)).of()


ALL = tuple(codecs())


def read(record: bytes, *, start: int = 0, name: bytes = NAME) -> list[Envelope]:
    """Let every codec read the bytes; return what they took for values."""
    found = []
    for codec in ALL:
        try:
            found.append(codec.unpack(name, record, start))
        except Unreadable:
            pass
    return found


def forged(
    payload: bytes, flags: int = MSGPACK, *, count: int = 0, secret: bytes | None = None, name: bytes = NAME
) -> bytes:
    """Return an envelope as somebody makes it who knows the format, written down here a second time."""
    facts = struct.pack(">QQQQ8sQIH", 1, 2, 3, 4, b"12345678", 5, 0, count)
    body = os.urandom(8) + facts + payload
    if secret is not None:
        body += hmac.digest(secret, struct.pack(">BBI", 1, flags, len(name)) + name + body, "sha256")
    return b"cz\x01" + bytes([flags]) + struct.pack(">I", crc32(name + body, flags)) + body


def golden() -> Any:
    """Return the decorator that runs a test on every golden file."""
    return pytest.mark.parametrize("title", list(CASES))


def test_envelope_that_follows_the_description_is_readable() -> None:
    """The format is what the documentation says, not whatever the code does."""
    codec = Codec()
    assert codec.of().unpack(NAME, forged(b"\x93\x01\x02\x03"), 0) == (
        [1, 2, 3], False, 1, 2, 3, 4, Stamp(b"12345678", 5), (), True,
    )  # fmt: skip
    assert codec.of().unpack(NAME, forged(b"\x00\x01\x00\x02abb\xc0", count=2), 0).tags == (b"a", b"bb")
    assert codec.of().unpack(NAME, forged(zstandard.compress(b"\xc0"), COMPRESSED), 0).value is None
    assert Codec("json").of().unpack(NAME, forged(b'{"a":1}', JSON), 0).value == {"a": 1}
    assert codec.of().unpack(NAME, forged(b'["no user"]', ABSENT), 0).value.args == ("no user",)
    signed = forged(pickle.dumps((1,)), PICKLE, secret=SECRET)
    assert Codec(Pickle(SECRET)).of().unpack(NAME, signed, 0).value == (1,)


@golden()
def test_truncated_value_is_unreadable(title: str) -> None:
    """A record cut off anywhere is no value, and neither is one with a byte more."""
    record = (FOLDER / f"{title}.bin").read_bytes()
    case = CASES[title].codec()
    for length in range(len(record)):
        with pytest.raises(Unreadable):
            case.unpack(NAME, record[:length], 0)
    with pytest.raises(Unreadable):
        case.unpack(NAME, record + b"\x00", 0)


@golden()
def test_value_with_one_flipped_bit_is_unreadable(title: str) -> None:
    """Each single bit of a record is covered: magic, flags, facts, tags, payload and signature."""
    record = (FOLDER / f"{title}.bin").read_bytes()
    case = CASES[title].codec()
    assert case.unpack(NAME, record, 0)
    for bit in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unreadable):
            case.unpack(NAME, bytes(damaged), 0)


@golden()
def test_value_copied_to_another_name_is_unreadable(title: str) -> None:
    """A record belongs to its name, so that nobody can pass one user's page off as another's by a copy."""
    record = (FOLDER / f"{title}.bin").read_bytes()
    for name in (NAME + b"0", NAME[:-1], b"", b"shop:user:43"):
        with pytest.raises(Unreadable, match="copied from another name"):
            CASES[title].codec().unpack(name, record, 0)


@golden()
def test_value_is_not_found_at_another_place(title: str) -> None:
    """An envelope begins where it is said to."""
    record = (FOLDER / f"{title}.bin").read_bytes()
    for start in (1, 2, 8, len(record), len(record) + 5):
        with pytest.raises(Unreadable):
            CASES[title].codec().unpack(NAME, record, start)


@given(record=st.binary(max_size=200), start=st.integers(0, 220))
def test_random_bytes_are_unreadable(record: bytes, start: int) -> None:
    """Rubbish is never a value."""
    assert read(record, start=start) == []


@settings(max_examples=500)
@given(
    payload=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.one_of(
                st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(), st.text(), st.binary()
            ),
            lambda inner: st.one_of(
                st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers(0, 9), st.binary()), inner)
            ),
            max_leaves=8,
        ).map(msgspec.msgpack.encode),
        st.text(alphabet='[]{}",:0123456789.eE-+aNI\\u nultrefs', max_size=30).map(str.encode),
        st.binary(max_size=30).map(lambda data: b"\x28\xb5\x2f\xfd" + data),
    ),
    flags=st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7])),
    count=st.one_of(st.just(0), st.integers(0, 65_535)),
)
def test_forged_envelope_is_a_value_or_unreadable(payload: bytes, flags: int, count: int) -> None:
    """Whoever knows the checksum can store values, as any client can, but cannot make a reader fail otherwise."""
    for found in read(forged(payload, flags, count=count)):
        assert isinstance(found.value, NotFound) == found.is_absent == bool(flags & ABSENT)


@settings(max_examples=500)
@given(data=st.data(), title=st.sampled_from([title for title in CASES if not title.startswith("pickle")]))
def test_mutated_payload_is_a_value_or_unreadable(data: st.DataObject, title: str) -> None:
    """Payloads that are nearly right, under a right checksum, never raise anything but Unreadable."""
    record = bytearray((FOLDER / f"{title}.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(8, len(record) - 1))] = data.draw(st.integers(0, 255))
    flags = data.draw(st.sampled_from([record[3], record[3] ^ COMPRESSED, record[3] ^ ABSENT]))
    read(b"cz\x01" + bytes([flags]) + struct.pack(">I", crc32(NAME + record[8:], flags)) + record[8:])


@pytest.mark.parametrize("flags", sorted(set(range(256)) - {MSGPACK, ABSENT, COMPRESSED, ABSENT | COMPRESSED}))
def test_unknown_flags_are_unreadable(flags: int) -> None:
    """A flag that this version does not know may change what the rest means."""
    for payload in (b"\xc0", b"[]", zstandard.compress(b"\xc0")):
        with pytest.raises(Unreadable, match="another format than msgpack"):
            Codec().of().unpack(NAME, forged(payload, flags), 0)


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"\x91" * 500_000 + b"\xc0", MSGPACK),
        (b"\x81\x01" * 250_000 + b"\xc0", MSGPACK),
        (b"[" * 500_000 + b"]" * 400_000, JSON),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON),
        (b"[" * 500_000, ABSENT),
        (b"1" * 500_000, JSON),
        (b"[" + b"1" * 500_000 + b"]", ABSENT),
        (b'["\\ud800", 1.5]', ABSENT),
        (b'{"a": 1}', ABSENT),
        (b'[["a"]]', ABSENT),
        (b"", ABSENT),
        (b"\xff\xfe[", ABSENT),
    ],
    ids=str,
)
def test_payload_that_is_a_trap_is_unreadable(payload: bytes, flags: int) -> None:
    """Endless nesting and endless numbers are a miss, with and without libraries."""
    record = forged(payload, flags)
    assert [found for found in read(record) if not isinstance(found.value, int)] == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "msgspec", None)
        bare = Codec("json").of()
    with pytest.raises(Unreadable):
        bare.unpack(NAME, record, 0)


@pytest.mark.parametrize("sign", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])
def test_claimed_length_takes_no_memory(sign: bytes) -> None:
    """Four thousand million items that are not there are found out before room is made for them."""
    record = forged(sign + b"\xff\xff\xff\xff\x01")
    tracemalloc.start()
    try:
        assert read(record) == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def frame_of(size: int, claimed: int) -> bytes:
    """Return zeros, compressed, under another size than they have."""
    frame = bytearray(zstandard.compress(bytes(size)))
    assert frame[4] & 0xE0 == 0xA0, "one segment, with a size of four bytes"
    frame[5:9] = struct.pack("<I", claimed)
    return bytes(frame)


@pytest.mark.parametrize(
    "frame",
    [
        zstandard.compress(bytes(50_000_000)),
        frame_of(1_000_000, (1 << 32) - 1),
        frame_of(1_000_000, 5),
        frame_of(1_000_000, 0),
        frame_of(1_000_000, 999_999),
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50_000_000)),
        zstandard.compress(b"\xc0") + b"\x00",
        zstandard.compress(b"\xc0") + zstandard.compress(bytes(50_000_000)),
        zstandard.compress(b"\xc0")[:-1],
        b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(20),
        b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
        b"",
        b"\xc0",
    ],
    ids=range(13),
)  # fmt: skip
def test_compressed_trap_takes_no_memory(frame: bytes) -> None:
    """What claims to be large, or is larger than it claims, is refused before it is decompressed."""
    record = forged(frame, COMPRESSED)
    typed = Codec(max_bytes=200_000).of()
    with pytest.raises(Unreadable):
        typed.unpack(NAME, record, 0)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            typed.unpack(NAME, record, 0)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_tags_that_are_longer_than_the_record_are_unreadable() -> None:
    """Lengths that point behind the end are not cut off silently."""
    for payload, count in [(b"", 1), (b"\x00", 1), (b"\x00\x01", 1), (b"\x00\x01\xff\xffa", 2), (b"\xc0", 65_535)]:
        with pytest.raises(Unreadable, match="tags that are longer"):
            Codec().of().unpack(NAME, forged(payload, count=count), 0)


# Pickles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        forged(pickle.dumps(Bomb()), PICKLE),
        forged(pickle.dumps(Bomb()) + bytes(32), PICKLE),
        forged(pickle.dumps(Bomb()), PICKLE, secret=b"another secret of size"),
        forged(pickle.dumps(Bomb()), PICKLE, secret=b""),
        forged(pickle.dumps(Bomb()), PICKLE, secret=SECRET, name=b"shop:user:43"),
        forged(pickle.dumps(Bomb()), MSGPACK),
        forged(pickle.dumps(Bomb()), MSGPACK, secret=b"another secret of size"),
        forged(zstandard.compress(pickle.dumps(Bomb())), PICKLE | COMPRESSED),
        forged(pickle.dumps(Bomb()), PICKLE | ABSENT, secret=SECRET),
        forged(pickle.dumps(Bomb()), PICKLE | 16, secret=SECRET),
        forged(pickle.dumps(Bomb()), MSGPACK, secret=SECRET),
        forged(b"", PICKLE, secret=SECRET),
        forged(b"\x00\x05", PICKLE, count=1, secret=SECRET),
        pickle.dumps(Bomb()),
        b"",
    ],
    ids=range(15),
)  # fmt: skip
def test_pickle_is_not_touched_unless_its_signature_is_right(record: bytes) -> None:
    """Unsigned, signed by others, for another name, or with flags that say otherwise: nothing is unpickled."""
    RAN.clear()
    assert read(record) == []
    assert RAN == []


def test_signed_pickle_moved_to_another_name_is_unreadable_whatever_its_checksum() -> None:
    """The signature covers name and header: who can compute checksums still cannot change a time, or rename."""
    codec = Codec(Pickle(SECRET)).of()
    record = forged(pickle.dumps((1,)), PICKLE, secret=SECRET)

    def again(body: bytes, name: bytes = NAME, flags: int = PICKLE) -> bytes:
        return b"cz\x01" + bytes([flags]) + struct.pack(">I", crc32(name + body, flags)) + body

    assert codec.unpack(NAME, again(record[8:]), 0).value == (1,)
    with pytest.raises(Unreadable, match="not signed"):
        codec.unpack(b"shop:user:43", again(record[8:], b"shop:user:43"), 0)
    with pytest.raises(Unreadable, match="not signed"):
        codec.unpack(NAME[:-1], again(NAME[-1:] + record[8:], NAME[:-1]), 0)
    with pytest.raises(Unreadable, match="not signed"):
        codec.unpack(NAME, again(record[8:], flags=PICKLE | ABSENT), 0)
    for at in range(8, len(record)):
        body = bytearray(record[8:])
        body[at - 8] ^= 1
        with pytest.raises(Unreadable, match="not signed"):
            codec.unpack(NAME, again(bytes(body)), 0)


def test_pickle_that_is_signed_and_broken_is_unreadable() -> None:
    """A class that is gone, or that raises, is a miss for those who trust pickles too."""
    codec = Codec(Pickle(SECRET)).of()
    for payload in (
        b"cno.such.module\nClass\n.",
        b"\x80\x05",
        pickle.dumps(json.dumps)[:-1],
        b"cbuiltins\nint\n(S'x'\ntR.",
    ):
        with pytest.raises(Unreadable, match="does not decode"):
            codec.unpack(NAME, forged(payload, PICKLE, secret=SECRET), 0)
