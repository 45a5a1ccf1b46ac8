"""The sync face of a cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from ._typevars import K, V
from .aio import AsyncCache
from .arguments import check_sync_loader
from .clock import Clock, in_nanoseconds
from .codec import Codec
from .decorate import AsyncCachedFunction, CachedFunction, Decoration, Decorator, check_function
from .durations import Duration
from .engine import SHAPES_HITS, Engine
from .errors import ConfigurationError
from .events import Listener
from .feeds.base import Feed
from .feeds.follower import Follower
from .feeds.mapping import Makers, Rules
from .fetched import Fetched, fetched
from .flow.bulk import read_many
from .flow.read import read
from .keys import check_hashable, check_tags, unique_keys
from .memory.implementation import Store, Table, compiled, serve_from_memory
from .memory.no_table import NoTable
from .policy import Policy, PolicyOptions, ttl_ns_of
from .quick import may_be_quick
from .repository import Repository
from .runtime.base import block
from .sentinel import MISSING, MissingType
from .sharing import Health, batch_result_type, health_of, tier_and_codec
from .source import AsyncSource, BatchLoader, Loader, Source
from .state import State, Weigh
from .stats import CacheInfo, Stats
from .strategies import CacheAside, Strategy
from .writing import WriteFence, writing

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")
RK = TypeVar("RK")
RV = TypeVar("RV")
Weigher = Callable[[Any], int] | Callable[[Any, Any], int]  # Any: keys and values of every type


@serve_from_memory
class Cache(Store, Generic[K, V]):
    """A bounded cache in memory that loads what is missing once, however many ask.

    Thread-safe; `cache.aio` is the same cache for tasks, with the same names, and shares entries and loads with this face.

    Args:
        maxsize: the most entries; None for no bound.
        max_weight: the most that the weights of all entries may sum up to; needs a `weigher`.
        weigher: returns the weight of a value, an int of at least 0; called with the value, or with key and value if it
            takes two arguments. An entry heavier than `max_weight` is not stored.
        eviction: "s3fifo", or "lru" for workloads known to want it; a hit with "lru" takes a lock.
        clock: returns monotonic seconds, for tests (`credenza.testing.FakeClock`). Timeouts are waited for in real time.
        name: for messages.
        remote: the shared tier below: a URL (see `from_url`), a tier such as `credenza.testing.DictTier`, or a client of
            redis-py. Then `maxsize=0` means "no memory tier".
        codec: how values travel to it: a `Codec`, "msgpack" (the default) or "json".
        namespace: the beginning of all its names, "credenza" by default; keeps applications on one server apart.
        policy: the options as one object; `options` are changes to it.
        options: see `Policy`.

    Raises:
        ConfigurationError: an option is wrong or contradicts another.

    Examples:
        >>> cache = Cache(maxsize=1_000, ttl="5m")
        >>> cache.get_or_load("user:42", lambda: "Ann")
        'Ann'
        >>> cache.get("user:42")
        'Ann'
    """

    def __init__(
        self,
        *,
        maxsize: int | None = 10_000,
        max_weight: int | None = None,
        weigher: Weigher | None = None,
        eviction: str = "s3fifo",
        clock: Clock | None = None,
        name: str = "cache",
        remote: object = None,
        codec: Codec | str | None = None,
        namespace: str | None = None,
        policy: Policy | None = None,
        **options: Unpack[PolicyOptions],
    ) -> None:
        if (max_weight is None) != (weigher is None):
            raise ConfigurationError("max_weight and weigher need each other; give both, or bound by maxsize alone")
        if remote is None and (codec is not None or namespace is not None):
            raise ConfigurationError("codec and namespace are about a shared tier, and there is none; pass remote=")
        has_memory = remote is None or maxsize != 0
        table = Table(maxsize=maxsize, max_weight=max_weight, eviction=eviction) if has_memory else NoTable()
        clock_ns = in_nanoseconds(clock, counts_sleep=remote is not None)
        state = State(table, clock_ns=clock_ns, weigh=None if weigher is None else _weigh_by(weigher), name=name)
        self._engine = Engine(state, (policy or Policy()).replace(options))
        self._engine.cache = self
        if remote is not None:
            self._engine.share(*tier_and_codec(remote, namespace, codec))
        if compiled is not None and has_memory:
            self._serve_quickly()
        self.aio: AsyncCache[K, V] = AsyncCache(self._engine)
        """The async face."""

    def _serve_quickly(self) -> None:
        """Tell the compiled base where to look, and what a value is stored with if that takes memory alone."""
        state, policy = self._engine.state, self._engine.policy
        sets_in_memory = may_be_quick(state, policy)
        serve: Callable[..., None] = getattr(self, "_serve")  # noqa: B009  # of the compiled base alone
        serve(state.table, state.tally, state if sets_in_memory else None, policy, policy.ttl_ns, policy.jitter)

    @staticmethod
    def _nanoseconds(ttl: Duration) -> int:
        """Return a ttl that a call gives, for the compiled base."""
        return ttl_ns_of(ttl)

    @classmethod
    def from_url(cls, url: str, **arguments: Any) -> Cache[K, V]:  # Any: those of the class
        """Return a cache over the shared tier at `url`.

        Args:
            url: `sqlite:///path`, `redis://host:port/db`, `rediss://`, `unix://path`, `valkey://`,
                `redis+sentinel://host:port,host:port/service/db` or `redis+cluster://host:port`. `?namespace=shop` and
                `?codec=json` are ours, other parameters go to redis-py.
            arguments: as for the class.

        Raises:
            ConfigurationError: the URL is malformed; the server cannot keep the promise (older than 6.2, `volatile-ttl`); the
                file is none of ours; or a library is missing. A server that is away is no error: it may come back.

        Examples:
            >>> cache = Cache.from_url("sqlite:////tmp/shop.db", maxsize=1_000)
            >>> cache.close()
        """
        return cls(remote=url, **arguments)

    @property
    def policy(self) -> Policy:
        """The options of this cache."""
        return self._engine.policy

    # Reading ----------------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: K, *, type: Any = MISSING) -> V | None: ...
    @overload
    def get(self, key: K, default: D, *, type: Any = MISSING) -> V | D: ...
    def get(self, key: K, default: Any = None, *, type: Any = MISSING) -> Any:
        """Return the fresh value of `key`, or `default`. Never loads; blocks only for a shared tier.

        Args:
            key: any hashable.
            default: what to return if there is none.
            type: what a shared tier's bytes are decoded to; without it plain data.
        """
        engine = self._engine
        value = engine.get(_hashable(key)) if engine.has_memory else MISSING
        if value is MISSING and engine.state.shared is not None:
            value = engine.find_one(key, type)
        return default if value is MISSING else value

    def get_or_load(
        self,
        key: K,
        loader: Loader[V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> V:
        """Return the value of `key`, loading it if it is not at hand.

        Of all callers, in threads and in tasks, one loads and the others wait for its value or error. A failed load
        stores nothing.

        Args:
            key: any hashable.
            loader: called without arguments; may return `Loaded` to decide on ttl and tags, or raise `NotFound`.
            timeout: how long the call may take in all. With it, a load that this call begins runs in a worker thread.
            tags: names under which `invalidate_tags` finds the entry.
            type: what a shared tier's bytes are decoded to; without it the loader's return annotation, or plain data.
            options: see `Policy`; instead of the cache's.

        Raises:
            LoadTimeout: `timeout` or `load_timeout` passed. The load goes on if others wait for it.
            DeadlockError: the call would wait for itself, or block the event loop that it waits for.
            CacheClosed: the cache was closed.
            Exception: what the loader raised.
        """
        engine = self._engine
        if SHAPES_HITS.isdisjoint(options):
            value = engine.fast(engine.state.table.entries, _hashable(key), engine.state.tally)
            if value is not MISSING:
                return cast("V", value)
        check_sync_loader(loader)
        request = engine.request(_hashable(key), loader, timeout, tags, options, is_async=False, annotation=type)
        return cast("V", block(read(engine.state, engine.threads, request)))

    def fetch(
        self,
        key: K,
        loader: Loader[V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Fetched[V]:
        """Do as `get_or_load`, and tell where the value came from: what an `X-Cache` header says."""
        check_sync_loader(loader)
        engine = self._engine
        request = engine.request(_hashable(key), loader, timeout, tags, options, is_async=False, annotation=type)
        return fetched(request, cast("V", block(read(engine.state, engine.threads, request))))

    def get_many(self, keys: Iterable[K], *, type: Any = MISSING) -> dict[K, V]:
        """Return the fresh values that are at hand, by key; with a shared tier in one round trip."""
        engine = self._engine
        return cast("dict[K, V]", block(engine.find(engine.threads, unique_keys(keys), type)))

    def get_or_load_many(
        self,
        keys: Iterable[K],
        loader: BatchLoader[K, V],
        *,
        timeout: Duration | None = None,
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> dict[K, V]:
        """Return the values of `keys`, loading those that are missing with one call.

        Args:
            keys: any hashables; each is asked for once.
            loader: called once with the list of the keys that are neither at hand nor being loaded by others; returns a
                mapping. Keys that it leaves out are not found, and not in the result.
            timeout: as in `get_or_load`.
            tags: as in `get_or_load`, for all keys.
            type: as in `get_or_load`; the loader's annotation is that of a mapping to it.
            options: as in `get_or_load`.

        Raises: as `get_or_load`.
        """
        check_sync_loader(loader)
        engine = self._engine
        annotation = batch_result_type(loader) if type is MISSING else type
        requests = [
            engine.request(_hashable(key), loader, timeout, tags, options, is_async=False, annotation=annotation)
            for key in unique_keys(keys)
        ]
        return cast("dict[K, V]", block(read_many(engine.state, engine.threads, requests, loader)))

    # Writing ----------------------------------------------------------------------------------------------------------

    def set(self, key: K, value: V, *, ttl: Duration | None | MissingType = MISSING, tags: Iterable[str] = ()) -> None:
        """Store `value`. Loads of `key` that began before are not stored any more.

        Inside a `writing` block for the key or a tag nothing is stored, since the block invalidates it on leaving.

        Args:
            key: any hashable.
            value: anything, None included.
            ttl: how long it is fresh, instead of the policy's; None for "never expires".
            tags: names under which `invalidate_tags` finds it.
        """
        check_hashable(_hashable(key))
        block(self._engine.set_many(self._engine.threads, {key: value}, ttl, tags))

    def set_many(
        self, values: Mapping[K, V], *, ttl: Duration | None | MissingType = MISSING, tags: Iterable[str] = ()
    ) -> None:
        """Store every value of the mapping, as `set` does."""
        block(self._engine.set_many(self._engine.threads, values, ttl, tags))

    def invalidate(self, *keys: K) -> None:
        """Forget `keys`. No call that starts later gets a value whose load began before.

        With a shared tier that holds for all processes; how soon their memory follows is said by `coherence`.

        Raises:
            TierError: the shared tier is away, and `on_fence_failure` is "raise"; it is forgotten here all the same.
        """
        for key in keys:
            check_hashable(_hashable(key))
        block(self._engine.invalidate(self._engine.threads, cast("tuple[Hashable, ...]", keys)))

    def invalidate_tags(self, *tags: str) -> None:
        """Forget whatever carries one of `tags`, in constant time; loads under way are held to it as with `invalidate`."""
        block(self._engine.invalidate_tags(self._engine.threads, check_tags(tags)))

    def clear(self) -> None:
        """Forget everything; loads under way are held to it as with `invalidate`."""
        block(self._engine.clear(self._engine.threads))

    def writing(self, *keys: K, tags: Iterable[str] = ()) -> AbstractContextManager[WriteFence]:
        """Fence a write to the database: inside the block nothing loaded is stored for `keys` and `tags`.

        Readers go to the source meanwhile. On leaving, normally or by exception, keys and tags are invalidated. Blocks
        may be nested and may overlap those of others. With a shared tier all of that holds for all processes; call
        `confirm` of what the block is given right before a commit that comes late. If the block ends with an error that
        may have left a commit under way (a lost connection, a cancellation), the fence stays until it expires.

        Raises:
            TierError: the shared tier cannot be fenced, and `on_fence_failure` is "raise"; the block is not entered.
        """
        for key in keys:
            check_hashable(_hashable(key))
        return writing(self._engine, cast("tuple[Hashable, ...]", keys), check_tags(tags))

    # Wrapping ---------------------------------------------------------------------------------------------------------

    @property
    def cached(self) -> Decorator:
        """Decorate a function, an `async def` or a method, so that this cache answers its calls.

        See `Decorator.__call__` for the arguments.
        """
        return Decorator(self._engine)

    @overload
    def repository(
        self,
        source: AsyncSource[RK, RV],
        *,
        strategy: Strategy | None = None,
        key: str = "{}",
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Repository[RK, RV]: ...
    @overload
    def repository(
        self,
        source: Source[RK, RV],
        *,
        strategy: Strategy | None = None,
        key: str = "{}",
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Repository[RK, RV]: ...
    def repository(
        self,
        source: Source[RK, RV] | AsyncSource[RK, RV],
        *,
        strategy: Strategy | None = None,
        key: str = "{}",
        tags: Iterable[str] = (),
        type: Any = MISSING,
        **options: Unpack[PolicyOptions],
    ) -> Repository[RK, RV]:
        """Return access to one kind of record, under one strategy for reads and writes.

        Args:
            source: where the records are.
            strategy: `CacheAside()` (the default), `WriteThrough()`, `WriteBehind(...)` or `NoCache()`.
            key: a template with one field for the record's key, such as "user:{}".
            tags: templates of the same kind, or plain names.
            type: what a shared tier's bytes are decoded to; without it the return annotation of the source's `load`.
            options: see `Policy`; instead of the cache's.
        """
        policy = self.policy.override(options)
        return Repository(self._engine, source, strategy or CacheAside(), key, tags, policy, type)

    def follow(
        self,
        feed: Feed,
        *,
        keys: Makers | None = None,
        tags: Makers | None = None,
        whole: Mapping[str, str | Sequence[str]] | None = None,
        max_lag: Duration | None = None,
    ) -> Follower:
        """Invalidate what a database says has changed, whoever changed it; until the follower or the cache is closed.

        Args:
            feed: what the database tells, from `credenza.feeds.postgres` or `credenza.feeds.sqlite`; of this follower alone.
            keys: by table, what a changed row makes stale: a template over its columns such as "user:{id}", several, or a
                callable that takes the row and returns keys.
            tags: by table, the tags, in the same ways.
            whole: by table, tags that everything made of it carries, for TRUNCATE and changed columns; without them the cache
                is emptied then.
            max_lag: while the database cannot be asked, empty the cache this often, so that nothing is older than that. None:
                entries live for their ttl, and what was missed is applied when it is back.

        Raises:
            ConfigurationError: the feed does not tell what is asked for. A database that is away is no error.
        """
        follower = Follower(self, feed, Rules(keys=keys, tags=tags, whole=whole), max_lag=max_lag)
        self._engine.followers.append(follower)
        return follower

    # Looking ----------------------------------------------------------------------------------------------------------

    def __contains__(self, key: object) -> bool:
        return self._engine.has(_hashable(key))

    def __len__(self) -> int:
        return self._engine.state.table.size

    def __repr__(self) -> str:
        state = self._engine.state
        return f"<{type(self).__name__} {state.name!r}: {state.table.size} entries, maxsize={state.table.maxsize}>"

    def health(self) -> Health:
        """Return how the cache stands with its shared tier, and what is promised now."""
        return health_of(self._engine.state)

    def stats(self) -> Stats:
        """Return the counters as they are now."""
        return self._engine.state.snapshot()

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, maxsize and currsize, as `functools.lru_cache` does; joined loads count as misses."""
        stats = self.stats()
        return CacheInfo(
            stats.hits + stats.stale_hits, stats.misses + stats.joins, self._engine.state.table.maxsize, stats.size
        )

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event, in the thread where it happens; return what ends that.

        A listener must be quick and thread-safe. What it raises is logged and stops nobody.
        """
        return self._engine.state.events.subscribe(listener)

    # Ending -----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget everything here, stop async loads under way and refuse later calls. May be called again."""
        self._engine.close()

    def __enter__(self) -> Cache[K, V]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@overload
def cached(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]  # the first that fits is meant
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncCachedFunction[P, R]: ...
@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...
@overload
def cached(
    *,
    maxsize: int | None = 10_000,
    max_weight: int | None = None,
    weigher: Weigher | None = None,
    eviction: str = "s3fifo",
    clock: Clock | None = None,
    key: str | Callable[..., Hashable] | None = None,
    tags: Iterable[str] = (),
    typed: bool = False,
    **options: Unpack[PolicyOptions],
) -> Decoration: ...
def cached(
    function: Callable[..., Any] | None = None,
    /,
    *,
    maxsize: int | None = 10_000,
    max_weight: int | None = None,
    weigher: Weigher | None = None,
    eviction: str = "s3fifo",
    clock: Clock | None = None,
    key: str | Callable[..., Hashable] | None = None,
    tags: Iterable[str] = (),
    typed: bool = False,
    **options: Unpack[PolicyOptions],
) -> Any:  # Any: one of the overloads' results
    """Decorate a function with a cache of its own: `functools.lru_cache` with ttl, bounds and one load at a time.

    Args:
        function: see `Decorator.__call__`, as for `key`, `tags` and `typed`.
        maxsize: see `Cache`, as for `max_weight`, `weigher`, `eviction` and `clock`.
        options: see `Policy`.

    Examples:
        >>> @cached(maxsize=1_000, ttl="1h")
        ... def square(number: int) -> int:
        ...     return number * number
        >>> square(3), square(3)
        (9, 9)
        >>> square.cache_info()
        CacheInfo(hits=1, misses=1, maxsize=1000, currsize=1)
    """
    if function is not None:
        check_function(function)
    name = getattr(function, "__qualname__", "cached")
    cache: Cache[Any, Any] = Cache(
        maxsize=maxsize,
        max_weight=max_weight,
        weigher=weigher,
        eviction=eviction,
        clock=clock,
        name=name,
        **options,
    )
    decorator = cache.cached
    if function is not None:
        return decorator(function)
    return decorator(key=key, tags=tags, typed=typed)


def _hashable(key: object) -> Hashable:
    return key


def _weigh_by(weigher: Weigher) -> Weigh:
    """Return the weigher as one of key and value, that refuses what is no weight."""
    if not callable(weigher):
        raise ConfigurationError(f"weigher must be a callable that returns a value's weight, got {weigher!r}")
    takes_key = _required_arguments(weigher) >= 2

    def weigh(key: Hashable, value: Any) -> int:  # Any: a value of any type
        weight = weigher(key, value) if takes_key else weigher(value)  # type: ignore[call-arg]  # told by its signature
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            raise ConfigurationError(f"weigher must return an int of at least 0, got {weight!r}")
        return weight

    return weigh


def _required_arguments(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a built-in without a signature, such as sys.getsizeof
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)
