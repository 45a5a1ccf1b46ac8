"""The async face of a cache."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack, cast, overload

from ._typevars import K, V
from .arguments import check_callable
from .durations import Duration
from .engine import SHAPES_HITS, Engine
from .fetched import Fetched, fetched
from .flow.bulk import read_many
from .flow.read import read
from .keys import check_hashable, check_tags, unique_keys
from .policy import PolicyOptions
from .runtime.tasks import is_coroutine_function
from .sentinel import MISSING, MissingType
from .sharing import batch_result_type
from .source import AsyncBatchLoader, AsyncLoader, BatchLoader, Loader
from .writing import AsyncWriteFence, writing_async

D = TypeVar("D")


class AsyncCache(Generic[K, V]):
    """The async face of a `Cache`: same names, same arguments, same entries, same loads.

    What looks at the cache as a whole or makes something of it (`stats`, `cache_info`, `subscribe`, `cached`, `repository`,
    `follow`) is the same for both faces, and is on the `Cache` only.

    It works on any number of event loops at once. A plain loader runs in a worker thread, so that the loop goes on. A
    caller that is cancelled leaves its load to the others that wait for it; when the last one has left, an async load
    is cancelled.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @overload
    async def get(self, key: K, *, type: Any = MISSING) -> V | None: ...
    @overload
    async def get(self, key: K, default: D, *, type: Any = MISSING) -> V | D: ...
    async def get(self, key: K, default: Any = None, *, type: Any = MISSING) -> Any:
        """See `Cache.get`."""
        engine = self._engine
        value = engine.get(_hashable(key)) if engine.has_memory else MISSING
        if value is MISSING and engine.state.shared is not None:
            value = await engine.find_one_async(key, type)
        return default if value is MISSING else value

    async def get_or_load(
        self,
        key: K,
        loader: AsyncLoader[V] | Loader[V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> V:
        """See `Cache.get_or_load`. The loader may be a coroutine function or a plain one."""
        engine = self._engine
        if SHAPES_HITS.isdisjoint(options):
            value = engine.fast(engine.state.table.entries, _hashable(key), engine.state.tally)
            if value is not MISSING:
                return cast("V", value)
        check_callable(loader)
        is_async = is_coroutine_function(loader)
        request = engine.request(_hashable(key), loader, timeout, tags, options, is_async=is_async, annotation=type)
        return cast("V", await read(engine.state, engine.tasks, request))

    async def fetch(
        self,
        key: K,
        loader: AsyncLoader[V] | Loader[V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Fetched[V]:
        """See `Cache.fetch`."""
        check_callable(loader)
        is_async = is_coroutine_function(loader)
        engine = self._engine
        request = engine.request(_hashable(key), loader, timeout, tags, options, is_async=is_async, annotation=type)
        return fetched(request, cast("V", await read(engine.state, engine.tasks, request)))

    async def get_many(self, keys: Iterable[K], *, type: Any = MISSING) -> dict[K, V]:
        """See `Cache.get_many`."""
        return cast("dict[K, V]", await self._engine.find(self._engine.tasks, unique_keys(keys), type))

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: AsyncBatchLoader[K, V] | BatchLoader[K, V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> dict[K, V]:
        """See `Cache.get_or_load_many`."""
        check_callable(loader)
        engine, is_async = self._engine, is_coroutine_function(loader)
        annotation = batch_result_type(loader) if type is MISSING else type
        requests = [
            engine.request(_hashable(key), loader, timeout, tags, options, is_async=is_async, annotation=annotation)
            for key in unique_keys(keys)
        ]
        return cast("dict[K, V]", await read_many(engine.state, engine.tasks, requests, loader))

    async def set(
        self, key: K, value: V, *, ttl: Duration | None | MissingType = MISSING, tags: Iterable[str] = ()
    ) -> None:
        """See `Cache.set`."""
        check_hashable(_hashable(key))
        await self._engine.set_many(self._engine.tasks, {key: value}, ttl, tags)

    async def set_many(
        self, values: Mapping[K, V], *, ttl: Duration | None | MissingType = MISSING, tags: Iterable[str] = ()
    ) -> None:
        """See `Cache.set_many`."""
        await self._engine.set_many(self._engine.tasks, values, ttl, tags)

    async def invalidate(self, *keys: K) -> None:
        """See `Cache.invalidate`."""
        for key in keys:
            check_hashable(_hashable(key))
        await self._engine.invalidate(self._engine.tasks, cast("tuple[Hashable, ...]", keys))

    async def invalidate_tags(self, *tags: str) -> None:
        """See `Cache.invalidate_tags`."""
        await self._engine.invalidate_tags(self._engine.tasks, check_tags(tags))

    async def clear(self) -> None:
        """See `Cache.clear`."""
        await self._engine.clear(self._engine.tasks)

    def writing(self, *keys: K, tags: Iterable[str] = ()) -> AbstractAsyncContextManager[AsyncWriteFence]:
        """See `Cache.writing`."""
        for key in keys:
            check_hashable(_hashable(key))
        return writing_async(self._engine, cast("tuple[Hashable, ...]", keys), check_tags(tags))

    async def close(self) -> None:
        """See `Cache.close`. With a shared tier it also closes the connections of this event loop."""
        await self._engine.close_async()

    async def __aenter__(self) -> AsyncCache[K, V]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _hashable(key: object) -> Hashable:
    return key
