"""What the keys in a journal stand for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ..sentinel import MissingType
from ..shared.names import Names

_NAMES: Final = Names("k")


def record_key(key: bytes) -> Hashable | MissingType:
    """Return the record's key that `DeadLetter.key` stands for, `MISSING` for bytes that no repository writes.

    Examples:
        >>> record_key(b"k:ann"), record_key(b"k:~i42")
        ('ann', 42)
    """
    return _NAMES.key(key)
