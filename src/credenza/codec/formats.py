"""Payloads: MessagePack and JSON by msgspec, JSON by the standard library, and pickles that are signed."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn  # Any: values of any type, and the module msgspec, which need not be installed

from ..errors import ConfigurationError
from ..sentinel import MISSING
from .annotations import check_decodable, name_of
from .envelope import Buffer, Signature

Decode = Callable[[Buffer], Any]

_LEAST_SECRET_BYTES = 16
_PICKLE_PROTOCOL = 5  # fixed, so that processes of several versions of Python read each other


@dataclass(frozen=True, slots=True)
class Pickle:
    """Let values be pickled, and signed with a secret that all processes have.

    Whoever knows the secret and may write to the shared tier can run code in every process; whoever does not cannot.
    A signature says who wrote a record, not when: one that was stored before may be put back.

    Args:
        secret: at least 16 bytes, such as `secrets.token_bytes(32)`; not shown.

    Raises:
        ConfigurationError: no bytes, or too few.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.secret, bytes) or len(self.secret) < _LEAST_SECRET_BYTES:
            raise ConfigurationError(
                f"Pickle(secret=...) takes at least {_LEAST_SECRET_BYTES} bytes that nobody else knows; "
                "make them once with secrets.token_bytes(32) and give them to all processes"
            )


@dataclass(frozen=True, slots=True)
class Format:
    """How values become payloads.

    Attributes:
        name: for messages.
        flag: its bits in the flags of an envelope.
        encode: from a value to bytes.
        decoder_of: from an annotation, `MISSING` for none, to what decodes.
        signature: None for a format that is safe to decode.
        keeps_types: a value comes back as it was, whatever its annotation says.
    """

    name: str
    flag: int
    encode: Callable[[Any], bytes]
    decoder_of: Callable[[Any], Decode]
    signature: Signature | None = None
    keeps_types: bool = False


def open_format(chosen: object) -> Format:
    """Return the format of this name, or of a `Pickle`.

    Raises:
        ConfigurationError: there is none, or what it needs is not installed.
    """
    if isinstance(chosen, Pickle):
        return Format("pickle", 8, _pickled, lambda _: pickle.loads, Signature(chosen.secret), keeps_types=True)
    if chosen == "msgpack":
        return _of_msgspec("msgpack", 0)
    if chosen == "json":
        try:
            return _of_msgspec("json", 4)
        except ConfigurationError:
            return Format("json", 4, _json_of, _plain_json_decoder)
    raise ConfigurationError(f'format must be "msgpack", "json" or Pickle(secret=...), got {chosen!r}')


def _of_msgspec(name: str, flag: int) -> Format:
    try:
        msgspec: Any = importlib.import_module("msgspec")
    except ImportError as error:
        raise ConfigurationError(
            f"the {name} codec needs msgspec, which is not installed; pip install 'credenza[redis]', "
            'or pass Codec("json") for plain data only'
        ) from error
    module: Any = getattr(msgspec, name)
    plain: Decode = module.Decoder().decode

    def decoder_of(annotation: Any) -> Decode:
        if annotation is MISSING:
            return plain
        check_decodable(annotation)
        decode: Decode = module.Decoder(annotation).decode
        return decode

    return Format(name, flag, module.Encoder().encode, decoder_of)


def _plain_json_decoder(annotation: Any) -> Decode:
    if annotation is not MISSING:
        raise ConfigurationError(
            f"decoding JSON to {name_of(annotation)} needs msgspec, which is not installed; pip install 'credenza[redis]', "
            "or pass type=object for plain data"
        )
    return _plain_json


def _json_of(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain_json(payload: Buffer) -> Any:
    return json.loads(bytes(payload).decode(), parse_constant=_refuse_constant)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(word)


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=_PICKLE_PROTOCOL)


_SCALARS = (str, int, bool, type(None))


def pack_arguments(arguments: tuple[object, ...]) -> bytes:
    """Return the payload of an error: those of its arguments that are text, ints, bools or None."""
    return json.dumps([each for each in arguments if type(each) in _SCALARS]).encode()


def unpack_arguments(payload: Buffer) -> tuple[str | int | bool | None, ...]:
    """Return the arguments of an error; raises `ValueError` for anything else."""
    arguments = json.loads(bytes(payload).decode())
    if type(arguments) is not list or any(type(each) not in _SCALARS for each in arguments):
        raise ValueError
    return tuple(arguments)
