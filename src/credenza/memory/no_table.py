"""No memory at all."""

from __future__ import annotations

from collections.abc import Iterable

from .implementation import Entry, Table


class NoTable(Table):
    """A table that keeps nothing: a cache without a memory tier."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(maxsize=1, max_weight=None, eviction="s3fifo")
        self.maxsize = 0

    def put(self, entry: Entry, tags: Iterable[object], now_ns: int) -> None:
        """Keep nothing."""
