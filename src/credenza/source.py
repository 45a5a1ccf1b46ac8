"""What a source of truth looks like to the cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .durations import Duration
from .sentinel import MISSING, DeletedType, MissingType

K = TypeVar("K")
V = TypeVar("V")
K_contra = TypeVar("K_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V]):
    """A loaded value with a say in how it is kept; a loader returns it instead of the bare value.

    Args:
        value: what the callers get.
        ttl: how long it is fresh, instead of the policy's ttl; 0 means "do not keep", None "never expires".
        tags: further tags, beside those of the call.
    """

    value: V
    ttl: Duration | None | MissingType = MISSING
    tags: Iterable[str] = ()


Loader = Callable[[], V | Loaded[V]]
AsyncLoader = Callable[[], Awaitable[V | Loaded[V]]]
BatchLoader = Callable[[Sequence[K]], Mapping[K, V | Loaded[V]]]
AsyncBatchLoader = Callable[[Sequence[K]], Awaitable[Mapping[K, V | Loaded[V]]]]


@dataclass(frozen=True, slots=True)
class Change(Generic[K, V]):
    """The last write of one record, on its way to the source.

    Attributes:
        value: the new value, or `DELETED`.
        place: a number that grows within a journal. What has a place at or below one that was applied is applied.
    """

    key: K
    value: V | DeletedType
    place: int


@dataclass(frozen=True, slots=True)
class WriteBatch(Generic[K, V]):
    """Writes that go to the source together, one per key, by place.

    Attributes:
        journal: names the journal, always the same.
        changes: without any, the source is asked how far it is.
    """

    journal: str
    changes: Sequence[Change[K, V]]


class Source(Protocol[K_contra, V]):
    """Where the truth is. `load_many(keys)`, `store_many(mapping)` and `delete_many(keys)` are used where they exist.

    Nothing there: `load` returns None or raises `NotFound`, `load_many` leaves the key out. Write-behind needs
    `store_many`, which must be idempotent as it may come twice; or `apply(batch)` with a `WriteBatch`, which is to leave out
    the changes that it has applied, in one transaction with the place up to which it has, and to return that place. One that
    returns None is asked for the same write again and again after an error that looks like an outage.
    """

    def load(self, key: K_contra, /) -> V | None: ...
    def store(self, key: K_contra, value: V, /) -> Any: ...  # Any: what it returns is not looked at
    def delete(self, key: K_contra, /) -> Any: ...  # Any: as above


class AsyncSource(Protocol[K_contra, V]):
    """The same as `Source`, as coroutines."""

    async def load(self, key: K_contra, /) -> V | None: ...
    async def store(self, key: K_contra, value: V, /) -> Any: ...  # Any: what it returns is not looked at
    async def delete(self, key: K_contra, /) -> Any: ...  # Any: as above
