"""What tests of code that caches need: a clock to turn, loaders and sources that count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

from .errors import NotFound
from .journal.memory import DictJournal
from .tiers.memory import DictTier

__all__ = ["AsyncDictSource", "CountingLoader", "DictJournal", "DictSource", "DictTier", "FakeClock"]

K = TypeVar("K")
V = TypeVar("V")


class FakeClock:
    """A clock that stands still until it is told to go on; pass it as `Cache(clock=...)`.

    Args:
        start: the time to begin with, in seconds.

    Examples:
        >>> from credenza import Cache
        >>> clock = FakeClock()
        >>> cache = Cache(ttl=60, clock=clock)
        >>> cache.set("a", 1)
        >>> clock.advance(61)
        >>> cache.get("a") is None
        True
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = float(start)

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; a clock does not go back."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back, got {seconds!r}")
        self._now += seconds


class CountingLoader(Generic[V]):
    """A loader that counts its calls.

    Args:
        value: what it returns, or a callable that makes it.
        error: what it raises instead, while it is set.
    """

    def __init__(self, value: V | Callable[[], V], *, error: BaseException | None = None) -> None:
        self._value = value
        self.error = error
        self.calls = 0

    def __call__(self) -> V:
        self.calls += 1
        if self.error is not None:
            raise self.error
        value: Any = self._value() if callable(self._value) else self._value  # Any: V, unless V is callable
        return cast("V", value)


class DictSource(Generic[K, V]):
    """A source of truth in a dictionary, that counts what reaches it.

    Args:
        records: what it holds at first.
    """

    def __init__(self, records: Mapping[K, V] | None = None) -> None:
        self.records: dict[K, V] = dict(records or {})
        self.loads = 0
        self.writes = 0

    def load(self, key: K, /) -> V:
        """Return a record; raises `NotFound` if there is none."""
        self.loads += 1
        try:
            return self.records[key]
        except KeyError:
            raise NotFound(f"there is no record {key!r}") from None

    def load_many(self, keys: Iterable[K], /) -> dict[K, V]:
        """Return the records that there are."""
        self.loads += 1
        return {key: self.records[key] for key in keys if key in self.records}

    def store(self, key: K, value: V, /) -> None:
        """Write a record."""
        self.writes += 1
        self.records[key] = value

    def store_many(self, records: Mapping[K, V], /) -> None:
        """Write records."""
        self.writes += 1
        self.records.update(records)

    def delete(self, key: K, /) -> None:
        """Delete a record, if it is there."""
        self.writes += 1
        self.records.pop(key, None)

    def delete_many(self, keys: Iterable[K], /) -> None:
        """Delete records, those that are there."""
        self.writes += 1
        for key in keys:
            self.records.pop(key, None)


class AsyncDictSource(Generic[K, V]):
    """The same as coroutines.

    Args:
        records: what it holds at first.
    """

    def __init__(self, records: Mapping[K, V] | None = None) -> None:
        self.inner = DictSource(records)

    async def load(self, key: K, /) -> V:
        """See `DictSource.load`."""
        return self.inner.load(key)

    async def load_many(self, keys: Iterable[K], /) -> dict[K, V]:
        """See `DictSource.load_many`."""
        return self.inner.load_many(keys)

    async def store(self, key: K, value: V, /) -> None:
        """See `DictSource.store`."""
        self.inner.store(key, value)

    async def store_many(self, records: Mapping[K, V], /) -> None:
        """See `DictSource.store_many`."""
        self.inner.store_many(records)

    async def delete(self, key: K, /) -> None:
        """See `DictSource.delete`."""
        self.inner.delete(key)

    async def delete_many(self, keys: Iterable[K], /) -> None:
        """See `DictSource.delete_many`."""
        self.inner.delete_many(keys)
