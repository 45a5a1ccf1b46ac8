"""What is kept in a shared tier: a record as a service keeps it, and how everybody encodes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.streams import HOT_KEYS

TTL = 3600
"""Longer than a comparison takes, so that no hit turns into a miss."""

PLAIN = "plain:"
"""Before the names of the records that redis-py reads without a cache."""


@dataclass(frozen=True, slots=True)
class User:
    """A record of about 150 bytes."""

    id: int
    name: str
    email: str
    age: int
    is_active: bool
    roles: list[str]
    bio: str


def user_of(key: str) -> User:
    """Return the record of a key, which ends with its number."""
    number = int(key.rpartition(":")[2])
    bio = "Reads more than she writes, and writes it down."
    return User(number, f"User {number}", f"user{number}@example.org", number % 90, True, ["reader", "editor"], bio)


STRANGER = user_of("user:0")
"""The record of all keys that are asked for once."""

USERS = {key: user_of(key) for key in HOT_KEYS}


@functools.cache
def _msgpack() -> Any:  # Any: msgspec need not be installed
    import msgspec

    return msgspec.msgpack


def encoder() -> Callable[[User], bytes]:
    """Return what encodes a record: the encoder of our codec."""
    encode: Callable[[User], bytes] = _msgpack().Encoder().encode
    return encode


def decoder() -> Callable[[bytes], User]:
    """Return what decodes a record, checking the type of each field: the decoder of our codec."""
    decode: Callable[[bytes], User] = _msgpack().Decoder(User).decode
    return decode


def load_user(key: str) -> User:
    """Load a record at no cost."""
    return USERS.get(key, STRANGER)


async def load_user_async(key: str) -> User:
    """Load a record at no cost, as a coroutine."""
    return USERS.get(key, STRANGER)
