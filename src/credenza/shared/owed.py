"""Invalidations that the shared tier has not taken yet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final, NamedTuple

MOST_OWED: Final = 10_000
"""So many are kept one by one; of more, everything is owed to be forgotten."""


class Debt(NamedTuple):
    """What is owed at one moment."""

    names: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    clears: bool


class Owed:
    """Invalidations to be delivered when the tier is back. Not thread-safe: the state's lock guards it.

    While an invalidation of a key is owed, this process does not read the key from the tier. They live in memory: what a
    process owes when it is killed, nobody delivers.

    Attributes:
        keys: those whose invalidation is owed one by one, with the names of their records.
        settlements: how often something was delivered.
    """

    __slots__ = ("_clears", "_names", "_number", "_tags", "keys", "settlements")

    def __init__(self) -> None:
        self._names: dict[bytes, int] = {}
        self._tags: dict[bytes, int] = {}
        self._clears = 0
        self._number = 0
        self.settlements = 0
        self.keys: dict[Hashable, bytes] = {}

    def __len__(self) -> int:
        return len(self._names) + len(self._tags) + bool(self._clears)

    def add(self, names: Mapping[Hashable, bytes], tags: Iterable[bytes], *, clears: bool = False) -> None:
        """Owe the invalidation of these, or of everything."""
        self._number += 1
        for key, name in names.items():
            self._names[name] = self._number
            self.keys[key] = name
        for tag in tags:
            self._tags[tag] = self._number
        if clears or len(self._names) + len(self._tags) > MOST_OWED:
            self._clears = self._number
            self._names.clear()
            self._tags.clear()
            self.keys.clear()

    def is_owed(self, key: Hashable) -> bool:
        """Tell whether the tier may still have what was invalidated."""
        return bool(self._clears) or key in self.keys

    def owes_tag(self, tag: bytes) -> bool:
        """Tell the same of a tag."""
        return bool(self._clears) or tag in self._tags

    def debt(self) -> tuple[int, Debt]:
        """Return what is owed now, and the number to settle it by."""
        return self._number, Debt(tuple(self._names), tuple(self._tags), bool(self._clears))

    def settle(self, number: int, debt: Debt) -> None:
        """Forget what was delivered, unless it came to be owed again meanwhile."""
        self.settlements += 1
        for owed, delivered in ((self._names, debt.names), (self._tags, debt.tags)):
            for name in delivered:
                if owed.get(name, number + 1) <= number:
                    del owed[name]
        if debt.clears and self._clears <= number:
            self._clears = 0
        if debt.names:
            self.keys = {key: name for key, name in self.keys.items() if name in self._names}
