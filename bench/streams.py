"""The keys that the contenders are asked for."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

HOT_KEYS = tuple(f"user:{number}" for number in range(1_000))


def hot_stream(length: int, *, seed: int = 5) -> Sequence[str]:
    """Return hot keys in random order, equal to those of `HOT_KEYS` and not the same objects.

    A service makes its keys anew for each request, so a look-up has to compare them.
    """
    copies = ["".join(list(key)) for key in HOT_KEYS]
    return random.Random(seed).choices(copies, k=length)


def fresh_keys(length: int) -> Callable[[int], Sequence[str]]:
    """Return a source of keys that nobody has been asked for before, `length` for each round.

    Their hashes, which a str keeps, are computed here: else whoever comes first in a round would pay for all.
    """
    numbers = itertools.count()

    def keys_of_round(_: int) -> Sequence[str]:
        keys = [f"fresh:{number}" for number in itertools.islice(numbers, length)]
        for key in keys:
            hash(key)
        return keys

    return keys_of_round


def filling(count: int) -> Sequence[str]:
    """Return keys to fill a cache with before it is timed."""
    return [f"old:{number}" for number in range(count)]
