"""The codec of a cache: which format, how large, and what for each type of value."""

from __future__ import annotations

import re
import struct
from typing import Any, Literal  # Any: values and annotations of any type
from zlib import crc32

from ..errors import ConfigurationError, NotFound
from ..sentinel import MISSING
from ..tiers.base import VALUE_HEADER_BYTES, Stamp
from .annotations import name_of, value_type
from .compression import Compression
from .envelope import (
    ABSENT,
    CHECKED_AT,
    COMPRESSED,
    HEADER,
    MAGIC,
    Buffer,
    Envelope,
    Unencodable,
    Unreadable,
    contents,
    refusal,
    seal,
)
from .formats import Pickle, open_format, pack_arguments, unpack_arguments
from .plain import Plain
from .sameness import difference

_LEAST_MAX_BYTES = 1_000
_MOST_MAX_BYTES = 1 << 40
_MOST_EXPANSION = 4
_MOST_TYPES = 1_000
_COPIED_BELOW = 16_000  # a view costs more than a copy of few bytes

_HEADER_OF = HEADER.unpack_from
_PAYLOAD_AT = HEADER.size - CHECKED_AT
_make = tuple.__new__  # a named tuple's own constructor takes three times as long

# What msgspec says of types and of fields, and never of values.
_SAFE_TO_ENCODE = re.compile(r"Encoding objects of type \S+ is unsupported").fullmatch
_SAFE_TO_DECODE = re.compile(
    r"(Expected `[\w |]+`, got `\w+`|Object missing required field `\w+`)( - at `[\w.$\[\]]+`)?"
).fullmatch


class Codec:
    """How values travel to a shared tier and back. Thread-safe; all processes need the same.

    Args:
        format: "msgpack", "json" (which people and other languages can read), or `Pickle(secret=...)` for values of any
            class.
        compress_above: payloads of more bytes are compressed (zstd) where that makes them smaller; None for never.
        max_bytes: values whose envelope is larger stay out of the shared tier, and those found there are unreadable.
            Compressed ones may be four times as large before.

    Raises:
        ConfigurationError: an option is wrong, or needs a library that is not installed.

    Example:
        >>> codec = Codec("msgpack", compress_above=10_000)
    """

    def __init__(
        self,
        format: Literal["msgpack", "json"] | Pickle = "msgpack",  # noqa: A002  # the name that users write
        *,
        compress_above: int | None = None,
        max_bytes: int = 1_000_000,
    ) -> None:
        self.max_bytes = _size("max_bytes", max_bytes, _LEAST_MAX_BYTES)
        if max_bytes > _MOST_MAX_BYTES:
            raise ConfigurationError(f"max_bytes must be at most {_MOST_MAX_BYTES}, got {max_bytes!r}")
        self.compress_above = None if compress_above is None else _size("compress_above", compress_above, 0)
        self.format = open_format(format)
        self.compression = Compression(_MOST_EXPANSION * max_bytes)
        if compress_above is not None:
            self.compression.require()
        self._typed: dict[Any, TypedCodec] = {}

    def __repr__(self) -> str:
        return f"<Codec {self.format.name}>"

    def of(self, annotation: Any = MISSING) -> TypedCodec:
        """Return the codec of values that are annotated like this; `MISSING` and object stand for plain data.

        Raises:
            ConfigurationError: the format cannot decode to that type.
        """
        try:
            known = self._typed.get(annotation)
        except TypeError:  # an annotation that is not hashable
            return TypedCodec(self, value_type(annotation))
        if known is None:
            known = TypedCodec(self, value_type(annotation))
            if len(self._typed) >= _MOST_TYPES:
                self._typed.clear()  # somebody makes classes on the fly
            self._typed[annotation] = known
        return known


class TypedCodec:
    """Packs and unpacks values of one type; made by `Codec.of`. Thread-safe.

    Attributes:
        plain: what tells the records that `fresh_values` can read.
    """

    __slots__ = (
        "_codec",
        "_decode",
        "_encode",
        "_fingerprint",
        "_most_bytes",
        "_plain_flags",
        "_signature",
        "_type_name",
        "plain",
    )

    def __init__(self, codec: Codec, annotation: Any) -> None:
        if codec.format.keeps_types:
            annotation = MISSING
        self._codec = codec
        self._encode = codec.format.encode
        self._decode = codec.format.decoder_of(annotation)
        self._signature = codec.format.signature
        self._plain_flags = codec.format.flag if self._signature is None else -1  # what is signed is never plain
        magic = MAGIC + bytes([self._plain_flags]) if self._signature is None else b""
        self.plain = Plain(magic, codec.max_bytes + VALUE_HEADER_BYTES, self._decode)
        self._most_bytes = codec.max_bytes
        self._type_name = name_of(annotation)
        self._fingerprint = 0 if annotation is MISSING else crc32(self._type_name.encode("utf-8", "surrogatepass")) or 1

    def __repr__(self) -> str:
        return f"<TypedCodec {self._codec.format.name} {self._type_name or 'plain data'}>"

    def pack(
        self,
        name: bytes,
        value: Any,
        *,
        stamp: Stamp,
        stored_ms: int,
        fresh_ms: int,
        stale_ms: int,
        load_ms: int,
        tags: tuple[bytes, ...] = (),
        is_absent: bool = False,
    ) -> bytes:
        """Return the envelope of a value that will be stored under `name`.

        The value is decoded again and compared: what would come back as something else (a tuple as a list, a subclass as
        its base, a dict as the annotated dataclass) is not shared at all. Of an absent value, which is a `NotFound`, those
        arguments are kept that are text, ints, bools or None; a subclass comes back as `NotFound`.

        Raises:
            Unencodable: it would not come back as it is, is too large, or a number or a tag does not fit in.
        """
        codec = self._codec
        payload = pack_arguments(value.args) if is_absent else self._pack_value(value)
        flags = codec.format.flag | (ABSENT if is_absent else 0)
        if codec.compress_above is not None and len(payload) > codec.compress_above:
            compressed = codec.compression.compress(payload)
            if len(compressed) < len(payload):
                payload, flags = compressed, flags | COMPRESSED
        record = seal(
            name,
            payload,
            flags=flags,
            facts=(stored_ms, fresh_ms, stale_ms, load_ms),
            stamp=stamp,
            fingerprint=self._fingerprint,
            tags=tags,
            signature=self._signature,
        )
        if len(record) > self._most_bytes:
            raise Unencodable(f"{len(record)} bytes, more than max_bytes={self._most_bytes}")
        return record

    def _pack_value(self, value: Any) -> bytes:
        try:
            payload = self._encode(value)
        except Exception as error:  # encoders run code of the value's class; the cause may show the value
            text = str(error) if isinstance(error, TypeError) else ""
            reason = (
                text
                if _SAFE_TO_ENCODE(text)
                else f"{type(value).__qualname__} cannot be encoded ({type(error).__name__})"
            )
            raise Unencodable(f"{reason}; {self._advice()}") from None
        most = self._most_bytes * (1 if self._codec.compress_above is None else _MOST_EXPANSION)
        if len(payload) > most:
            raise Unencodable(f"{len(payload)} bytes, more than max_bytes={self._most_bytes}")
        if not self._codec.format.keeps_types:
            self._verify(value, payload)
        return payload

    def _verify(self, value: Any, payload: bytes) -> None:
        try:
            wrong = difference(value, self._decode(memoryview(payload)))
        except Exception as error:  # decoders and comparisons run code of the value's class
            wrong = f"{type(value).__qualname__} would not come back ({_reason(error)})"
        if wrong is not None:
            raise Unencodable(f"{wrong}; {self._advice()}")

    def _advice(self) -> str:
        if self._codec.format.keeps_types:
            return "return plain data"
        if not self._fingerprint:
            return "annotate the loader's return type or pass type="
        return f"it is not what is annotated, {self._type_name}, to the letter; annotate what the loader returns"

    def unpack(self, name: bytes, record: bytes, start: int) -> Envelope:
        """Return the value, and what is kept beside it, out of an envelope that begins at `start` of a record.

        Raises:
            Unreadable: not exactly what this codec packs; no other error, whatever the bytes.
        """
        try:
            magic, flags, checksum, _, stored_ms, fresh_ms, stale_ms, load_ms, epoch, sequence, fingerprint, count = (
                _HEADER_OF(record, start)
            )
            size = len(record)
            if size - start > self._most_bytes:
                raise Unreadable(f"{size - start} bytes, more than max_bytes={self._most_bytes}")
            data = record[start + CHECKED_AT :] if size < _COPIED_BELOW else memoryview(record)[start + CHECKED_AT :]
            if magic != MAGIC or crc32(data, crc32(name, flags)) != checksum:
                raise refusal(magic)
            tags: tuple[bytes, ...] = ()
            if flags == self._plain_flags and not count:
                value = self._decode(data[_PAYLOAD_AT:])
            else:
                tags, payload = contents(name, flags, data, count, self._signature)
                value = self._unpack_flagged(flags, payload)
        except Unreadable:
            raise
        except Exception as error:  # decoders run code of the user's classes; the cause may show the value
            raise self._not_decoded(error) from None
        stamp = _make(Stamp, (epoch, sequence))
        is_same_type = fingerprint == self._fingerprint
        is_absent = flags & ABSENT != 0
        return _make(Envelope, (value, is_absent, stored_ms, fresh_ms, stale_ms, load_ms, stamp, tags, is_same_type))

    def _unpack_flagged(self, flags: int, payload: Buffer) -> Any:
        """Return the value out of a payload whose flags may say more than its format."""
        codec = self._codec
        if flags & ~(ABSENT | COMPRESSED) != codec.format.flag:
            raise Unreadable(f"of another format than {codec.format.name}")
        if flags & COMPRESSED:
            payload = codec.compression.decompress(payload)
        return NotFound(*unpack_arguments(payload)) if flags & ABSENT else self._decode(payload)

    def _not_decoded(self, error: Exception) -> Unreadable:
        if isinstance(error, struct.error):
            return Unreadable("too short for a value")
        wanted = f" to {self._type_name}" if self._fingerprint else ""
        return Unreadable(f"does not decode{wanted}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return what may be told of an error: msgspec's word on types and fields, else its class."""
    text = str(error)
    return text if _SAFE_TO_DECODE(text) else type(error).__name__


def _size(name: str, size: int, least: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < least:
        raise ConfigurationError(f"{name} must be an int of at least {least}, got {size!r}")
    return size
