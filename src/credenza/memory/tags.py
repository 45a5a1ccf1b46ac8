"""Tags, and the entries that carry them."""

from __future__ import annotations

from collections.abc import Iterable


class Tag:
    """One generation of a tag. Invalidating the tag ends the generation, whatever the number of its entries."""

    __slots__ = ("count", "is_dead", "name")

    def __init__(self, name: object) -> None:
        self.name = name
        self.count = 0
        self.is_dead = False


class Tags:
    """The living generation of every tag that some entry carries. Not thread-safe: the table's lock guards it."""

    __slots__ = ("_living",)

    def __init__(self) -> None:
        self._living: dict[object, Tag] = {}

    def __len__(self) -> int:
        return len(self._living)

    def attach(self, names: Iterable[object]) -> tuple[Tag, ...]:
        """Count one more entry for each of `names` and return their generations."""
        attached: list[Tag] = []
        try:
            for name in names:
                tag = self._living.get(name)
                if tag is None:
                    tag = self._living[name] = Tag(name)
                tag.count += 1
                attached.append(tag)
        except BaseException:  # the user's `__hash__`: nothing carries the others, either
            self.detach(attached)
            raise
        return tuple(attached)

    def detach(self, tags: Iterable[Tag]) -> None:
        """Count one entry less for each of `tags`; a tag that nothing carries is forgotten."""
        for tag in tags:
            tag.count -= 1
            if not tag.count and not tag.is_dead:
                del self._living[tag.name]

    def invalidate(self, name: object) -> None:
        """End the generation of `name`."""
        tag = self._living.pop(name, None)
        if tag is not None:
            tag.is_dead = True

    def count_of(self, name: object) -> int:
        """Return how many entries carry `name`."""
        tag = self._living.get(name)
        return tag.count if tag is not None else 0
