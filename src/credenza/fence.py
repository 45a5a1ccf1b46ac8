"""Fences: writes under way, which nothing loaded may be stored across."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass


class _Fence:
    """The writes under way for one key.

    Attributes:
        writers: how many there are.
        disturbances: counts what could have changed the record beside any one of them: other writers, invalidations, sets.
    """

    __slots__ = ("disturbances", "writers")

    def __init__(self) -> None:
        self.writers = 0
        self.disturbances = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """What a writer gets on entering, and shows on leaving.

    Attributes:
        keys: what it writes.
        tags: what else it makes stale.
        epoch: the table's epoch when it entered.
        undisturbed: per key the fence's count of disturbances, as long as this writer is the only one; None if it
            was not alone from the start.
    """

    keys: tuple[Hashable, ...]
    tags: tuple[object, ...]
    epoch: int
    undisturbed: dict[Hashable, int | None]


class Fences:
    """The fences of one cache. Not thread-safe: the state's lock guards it."""

    __slots__ = ("_keys", "_tags")

    def __init__(self) -> None:
        self._keys: dict[Hashable, _Fence] = {}
        self._tags: dict[object, int] = {}

    def __bool__(self) -> bool:
        return bool(self._keys or self._tags)

    @property
    def registers(self) -> tuple[dict[Hashable, _Fence], dict[object, int]]:
        """The fences by key, and the writers by tag; the same two as long as this lives."""
        return self._keys, self._tags

    def enter(self, keys: tuple[Hashable, ...], tags: tuple[object, ...], epoch: int) -> Pass:
        """Begin a write; several may be under way for one key, and one may hold a key twice."""
        undisturbed: dict[Hashable, int | None] = {}
        for key in keys:
            fence = self._keys.setdefault(key, _Fence())
            fence.writers += 1
            fence.disturbances += 1
            undisturbed[key] = fence.disturbances if fence.writers == 1 else None
        for tag in tags:
            self._tags[tag] = self._tags.get(tag, 0) + 1
        return Pass(keys, tags, epoch, undisturbed)

    def leave(self, permit: Pass) -> None:
        """End a write; in a forked child it may be one that only the parent knows."""
        for key in permit.keys:
            fence = self._keys.get(key)
            if fence is not None:
                fence.writers -= 1
                if not fence.writers:
                    del self._keys[key]
        for tag in permit.tags:
            writers = self._tags.get(tag, 0)
            if writers > 1:
                self._tags[tag] = writers - 1
            else:
                self._tags.pop(tag, None)

    def forget(self) -> None:
        """Forget the writes of a parent process, which end there."""
        self._keys.clear()
        self._tags.clear()

    def disturb(self, key: Hashable) -> None:
        """Note that somebody else changed the record of `key`, or said so."""
        fence = self._keys.get(key)
        if fence is not None:
            fence.disturbances += 1

    def was_alone(self, permit: Pass, key: Hashable) -> bool:
        """Tell whether the writer that still holds `permit` is the only one that touched `key` meanwhile (I5)."""
        fence = self._keys.get(key)
        return fence is not None and fence.disturbances == permit.undisturbed[key]

    def covers(self, key: Hashable, tags: Iterable[object]) -> bool:
        """Tell whether a write to `key` or to one of `tags` is under way."""
        if key in self._keys:
            return True
        return bool(self._tags) and any(tag in self._tags for tag in tags)
