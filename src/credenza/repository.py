"""One kind of record, under one strategy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from .arguments import timeout_ns_of
from .durations import NANOSECONDS, Duration
from .engine import Engine
from .errors import ConfigurationError, LoadTimeout, NotFound, UsageError
from .fetched import Fetched, fetched
from .flow.behind import over
from .flow.bulk import read_many
from .flow.read import read
from .flow.write import Made, write
from .functions import gather_or_cancel
from .journal.base import Journal
from .keys import Template, check_tags
from .memory.implementation import Tally
from .policy import Policy
from .runtime.base import Runtime, block
from .runtime.deliverer import DrainReport
from .runtime.tasks import is_coroutine_function
from .sentinel import DELETED, MISSING, DeletedType
from .sharing import result_type
from .source import AsyncSource, Source
from .stats import Status
from .steps.appraisal import make_entry, ttl_ns_for
from .steps.request import Request
from .strategies import NoCache, Strategy, WriteBehind, WriteThrough
from .writebehind import Backlog, found_in

K = TypeVar("K")
V = TypeVar("V")


class _Records(Generic[K, V]):
    """What the two faces of a repository share: keys, requests, and the source's methods."""

    def __init__(
        self,
        engine: Engine,
        source: Source[K, V] | AsyncSource[K, V],
        strategy: Strategy,
        key: str,
        tags: Iterable[str],
        policy: Policy,
        annotation: Any,  # Any: an annotation
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise ConfigurationError(
                f"strategy must be CacheAside(), WriteThrough(), WriteBehind(...) or NoCache(), got {strategy!r}"
            )
        self.engine = engine
        self.source: Any = source  # Any: one of two protocols, with optional methods
        self.strategy = strategy
        self.policy = policy
        self._key = _one_field(key)
        self._tags = [_one_field(tag) if "{" in tag else tag for tag in check_tags(tags)]
        for name in ("load", "store", "delete"):
            if not callable(getattr(source, name, None)):
                raise ConfigurationError(f"a source has load, store and delete, and {source!r} has no {name}")
        self.is_async = is_coroutine_function(self.source.load)
        annotation = result_type(self.source.load) if annotation is MISSING else annotation
        self.typed = engine.codec_of(annotation)
        self.has_load_many = callable(getattr(source, "load_many", None))
        self._stores_writes = isinstance(strategy, (WriteThrough, WriteBehind))
        self.backlog: Backlog | None = None
        if isinstance(strategy, WriteBehind):
            self.backlog = Backlog(engine, source, strategy, annotation, self.key_of, is_async=self.is_async)

    def key_of(self, key: K) -> Hashable:
        return self._key.render((key,))

    def tags_of(self, key: K) -> tuple[str, ...]:
        return tuple(tag if isinstance(tag, str) else tag.render((key,)) for tag in self._tags)

    def request(self, key: K, timeout: Duration | None) -> Request:
        """Return what reading `key` asks for. Past the cache, it is a load of its own that is not kept."""
        is_cached = not isinstance(self.strategy, NoCache)
        cache_key = self.key_of(key) if is_cached else object()
        tally = self.engine.state.tally if is_cached else Tally()
        loader = functools.partial(self.source.load, key) if self.backlog is None else self.backlog.loader_of(key)
        request = Request(cache_key, loader, self.policy, self.tags_of(key), tally, self.is_async)
        request.timeout_ns, request.keeps, request.typed = timeout_ns_of(timeout), is_cached, self.typed
        request.has_looked = not is_cached
        return request

    def written(self, cache_key: Hashable, key: K, value: V) -> Made:
        """Return the entry that write-through stores, what encodes it, and its tags."""
        policy, state = self.policy, self.engine.state
        ttl_ns = ttl_ns_for(policy, value, MISSING)
        if not ttl_ns:
            return None, None, ()
        entry = make_entry(state, cache_key, value, policy, ttl_ns, state.clock_ns())
        return self.typed, entry, self.tags_of(key)

    async def put(self, run: Runtime, key: K, value: V) -> None:
        """Write a record, in the caller's colour."""
        await self._write(run, key, value)

    async def delete(self, run: Runtime, key: K) -> None:
        """Delete a record, in the caller's colour."""
        await self._write(run, key, DELETED)

    async def _write(self, run: Runtime, key: K, value: V | DeletedType) -> None:
        if isinstance(self.strategy, NoCache):
            await self._store(run, key, value)
            return
        cache_key, make, backlog = self.key_of(key), None, self.backlog
        if self._stores_writes and value is not DELETED:
            make = functools.partial(self.written, cache_key, key, value)
        if backlog is not None and backlog.lands:
            await backlog.put_landing(run, key, value, cache_key, make)
            return
        perform = self._store if backlog is None else backlog.put
        action = functools.partial(perform, run, key, value)
        await write(self.engine.state, run, (cache_key,), action, make=make)

    async def _store(self, run: Runtime, key: K, value: V | DeletedType) -> None:
        store, delete = self.source.store, self.source.delete
        call = functools.partial(delete, key) if value is DELETED else functools.partial(store, key, value)
        await run.perform(call, is_async=self.is_async)

    async def fetch(self, run: Runtime, key: K, timeout: Duration | None) -> Fetched[V | None]:
        """Read a record, in the caller's colour."""
        if self.backlog is not None and key in (pending := self.backlog.pending((key,))):
            self.engine.state.tally.hits += 1
            return Fetched(found_in(pending, key), Status.HIT, 0.0, 0.0)
        request = self.request(key, timeout)
        value = cast("V | None", await read(self.engine.state, run, request))
        if not request.keeps:
            self.engine.state.bypasses += 1
            request.status = Status.BYPASS
        return fetched(request, value)

    def time_left(self, timeout: Duration | None) -> Callable[[], Duration | None]:
        """Return what tells how much of `timeout` is left, for a call that reads one record after another."""
        timeout_ns = timeout_ns_of(timeout)
        if timeout_ns is None:
            return lambda: None
        clock_ns = self.engine.state.clock_ns
        ends_ns = clock_ns() + timeout_ns

        def left() -> Duration:
            left_ns = ends_ns - clock_ns()
            if left_ns <= 0:
                raise LoadTimeout(f"no values within timeout={timeout!r}; those that were loaded are kept")
            return left_ns / NANOSECONDS

        return left

    async def get_many(self, run: Runtime, keys: Iterable[K], timeout: Duration | None) -> dict[K, V]:
        """Read records with one `load_many`, in the caller's colour."""
        unique = list(dict.fromkeys(keys))
        pending = {} if self.backlog is None else self.backlog.pending(unique)
        asked = [key for key in unique if key not in pending]
        requests = [self.request(key, timeout) for key in asked]
        by_key = {request.key: key for request, key in zip(requests, asked, strict=True)}
        load_many = self._load_many_async if self.is_async else self._load_many
        found = await read_many(self.engine.state, run, requests, functools.partial(load_many, by_key))
        if isinstance(self.strategy, NoCache):
            self.engine.state.bypasses += len(unique)
        values = over(pending, {by_key[key]: value for key, value in found.items() if value is not None})
        return {key: values[key] for key in unique if values.get(key) is not None}

    def _load_many(self, by_key: Mapping[Hashable, K], keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        load_many = self.source.load_many if self.backlog is None else self.backlog.load_many
        found = load_many([by_key[key] for key in keys])
        return {key: found[by_key[key]] for key in keys if by_key[key] in found}

    async def _load_many_async(self, by_key: Mapping[Hashable, K], keys: Sequence[Hashable]) -> dict[Hashable, Any]:
        load_many = self.source.load_many if self.backlog is None else self.backlog.load_many_async
        found = await load_many([by_key[key] for key in keys])
        return {key: found[by_key[key]] for key in keys if by_key[key] in found}

    async def flush(self, run: Runtime, timeout: Duration | None) -> DrainReport:
        """Wait until what was written has reached the source, in the caller's colour."""
        return DrainReport(0, 0) if self.backlog is None else await self.backlog.flush(run, timeout)

    async def close(self, run: Runtime, timeout: Duration | None) -> DrainReport:
        """Drain and close the journal, in the caller's colour."""
        return DrainReport(0, 0) if self.backlog is None else await self.backlog.close(run, timeout)


class Repository(Generic[K, V]):
    """Access to one kind of record. Thread-safe; `aio` is the async face.

    Made by `Cache.repository`. With an async source only `aio` can be used.

    Examples:
        >>> from credenza import Cache, WriteThrough
        >>> from credenza.testing import DictSource
        >>> users = Cache().repository(DictSource({42: "Ann"}), strategy=WriteThrough(), key="user:{}")
        >>> users.get(42)
        'Ann'
        >>> users.put(42, "Anne")
        >>> users.get(42)
        'Anne'
    """

    def __init__(
        self,
        engine: Engine,
        source: Source[K, V] | AsyncSource[K, V],
        strategy: Strategy,
        key: str,
        tags: Iterable[str],
        policy: Policy,
        annotation: Any = MISSING,  # Any: an annotation
    ) -> None:
        self._records: _Records[K, V] = _Records(engine, source, strategy, key, tags, policy, annotation)
        self.aio: AsyncRepository[K, V] = AsyncRepository(self._records)
        """The async face."""

    def get(self, key: K, *, timeout: Duration | None = None) -> V | None:
        """Return the record, None if the source returns None for it.

        Raises:
            NotFound: the source raised it.
            LoadTimeout: `timeout` or `load_timeout` passed.
            Exception: what the source raised.
        """
        return self.fetch(key, timeout=timeout).value

    def fetch(self, key: K, *, timeout: Duration | None = None) -> Fetched[V | None]:
        """Do as `get`, and tell where the record came from."""
        self._check_colour()
        return block(self._records.fetch(self._records.engine.threads, key, timeout))

    def get_many(self, keys: Iterable[K], *, timeout: Duration | None = None) -> dict[K, V]:
        """Return the records that there are, loading those that are missing with one `load_many` if the source has it."""
        self._check_colour()
        if self._records.has_load_many:
            return block(self._records.get_many(self._records.engine.threads, keys, timeout))
        time_left = self._records.time_left(timeout)
        found: dict[K, V] = {}
        for key in dict.fromkeys(keys):
            with contextlib.suppress(NotFound):
                value = self.get(key, timeout=time_left())
                if value is not None:
                    found[key] = value
        return found

    def put(self, key: K, value: V) -> None:
        """Write the record to the source, then to the cache as the strategy says; a failed write invalidates it.

        With write-behind it returns when the journal has it. Raises `JournalError`, or `JournalFull`, if that cannot keep
        it: then the write has not happened.
        """
        self._check_colour()
        block(self._records.put(self._records.engine.threads, key, value))

    def delete(self, key: K) -> None:
        """Delete the record from the source, then from the cache."""
        self._check_colour()
        block(self._records.delete(self._records.engine.threads, key))

    def invalidate(self, *keys: K) -> None:
        """Forget the records, as `Cache.invalidate` does."""
        engine = self._records.engine
        block(engine.invalidate(engine.threads, tuple(map(self._records.key_of, keys))))

    def flush(self, *, timeout: Duration | None = None) -> DrainReport:
        """Wait until the source has taken what was written before this call, or the time is over; tell what is left.

        Only write-behind has something to wait for. Writes that were postponed since the source refused them are waited
        for, too, until they are dead letters.
        """
        return block(self._records.flush(self._records.engine.threads, timeout))

    def close(self, *, timeout: Duration | None = None) -> DrainReport:
        """Flush for as long as `timeout`, by default the strategy's `close_timeout`; then close the journal.

        What is left in it is delivered after the next start. `Cache.close` does this for all its repositories.
        """
        return block(self._records.close(self._records.engine.threads, timeout))

    @property
    def journal(self) -> Journal:
        """The journal of a repository with write-behind, for its `status()`, `dead()`, `retry()` and `discard()`.

        Raises:
            UsageError: the strategy is another one.
        """
        if self._records.backlog is None:
            raise UsageError(f"a repository with {self._records.strategy!r} has no journal; only WriteBehind(...) has")
        return self._records.backlog.journal

    def _check_colour(self) -> None:
        if self._records.is_async:
            raise UsageError(f"{self._records.source!r} is an async source; use repository.aio")


class AsyncRepository(Generic[K, V]):
    """The async face of a `Repository`: the same names as coroutines. A plain source runs in worker threads."""

    def __init__(self, records: _Records[K, V]) -> None:
        self._records = records

    async def get(self, key: K, *, timeout: Duration | None = None) -> V | None:
        """See `Repository.get`."""
        return (await self.fetch(key, timeout=timeout)).value

    async def fetch(self, key: K, *, timeout: Duration | None = None) -> Fetched[V | None]:
        """See `Repository.fetch`."""
        return await self._records.fetch(self._records.engine.tasks, key, timeout)

    async def get_many(self, keys: Iterable[K], *, timeout: Duration | None = None) -> dict[K, V]:
        """See `Repository.get_many`; without `load_many` the loads run concurrently."""
        if self._records.has_load_many:
            return await self._records.get_many(self._records.engine.tasks, keys, timeout)
        found: dict[K, V] = {}

        async def collect(key: K) -> None:
            with contextlib.suppress(NotFound):
                value = await self.get(key, timeout=timeout)
                if value is not None:
                    found[key] = value

        unique = list(dict.fromkeys(keys))
        await gather_or_cancel([collect(key) for key in unique])
        return {key: found[key] for key in unique if key in found}

    async def put(self, key: K, value: V) -> None:
        """See `Repository.put`."""
        await self._write(functools.partial(self._records.put, key=key, value=value))

    async def delete(self, key: K) -> None:
        """See `Repository.delete`."""
        await self._write(functools.partial(self._records.delete, key=key))

    async def invalidate(self, *keys: K) -> None:
        """See `Repository.invalidate`."""
        engine = self._records.engine
        await engine.invalidate(engine.tasks, tuple(map(self._records.key_of, keys)))

    async def flush(self, *, timeout: Duration | None = None) -> DrainReport:
        """See `Repository.flush`."""
        return await self._records.flush(self._records.engine.tasks, timeout)

    async def close(self, *, timeout: Duration | None = None) -> DrainReport:
        """See `Repository.close`."""
        return await self._records.close(self._records.engine.tasks, timeout)

    async def _write(self, flow: Callable[[Runtime], Coroutine[Any, Any, None]]) -> None:
        """Run a write; one to a plain source goes to a worker with its fence, which must outlast a caller's cancellation.

        A journal has a thread of its own for that.
        """
        engine = self._records.engine  # Any: what coroutines send and yield
        if self._records.is_async or self._records.backlog is not None:
            await flow(engine.tasks)
        else:
            await engine.tasks.offload(lambda: block(flow(engine.threads)))


def _one_field(text: str) -> Template:
    template = Template(text)
    if len(template.fields) != 1 or "." in template.fields[0]:
        raise ConfigurationError(f'the template of a record\'s key has one field, as in "user:{{}}", got {text!r}')
    return template
