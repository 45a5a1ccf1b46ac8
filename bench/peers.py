"""The peers, each in the best setting that still does what is compared.

What is not installed does not take part. Every peer is imported when a comparison asks for it: theine, for one, starts
a thread when it is imported.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

MAXSIZE = 10_000
TTL = 300

SyncFunction = Callable[[str], object]
AsyncFunction = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A decorated function of somebody else's, and how it was set up.

    `stampede` says that concurrent callers of one missing key share a load, `ttl` that values expire, and `slow` that it
    is asked for fewer keys than the others, as it takes some hundred times as long.
    """

    name: str
    module: str
    build: Callable[[Callable[[str], Any]], Callable[[str], Any]]
    setting: str
    stampede: bool = True
    ttl: bool = True
    slow: bool = False

    def is_installed(self) -> bool:
        """Tell whether the peer's package can be imported."""
        return is_installed(self.module)


def is_installed(module: str) -> bool:
    """Tell whether the top package of a module can be imported."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def _lru_cache(function: SyncFunction) -> SyncFunction:
    return functools.lru_cache(maxsize=MAXSIZE)(function)


def _cachebox(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(MAXSIZE, TTL), postprocess=None)(function)


def _cachebox_copying(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(MAXSIZE, TTL))(function)


def _cachebox_keyed(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import cachebox

    cache: cachebox.TTLCache[str, Any] = cachebox.TTLCache(MAXSIZE, TTL)
    return cachebox.cached(cache, key_maker=lambda key: key, postprocess=None)(function)


def _moka(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import moka_py

    return moka_py.cached(maxsize=MAXSIZE, ttl=TTL, wait_concurrent=True)(function)


def _moka_lru(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import moka_py

    return moka_py.cached(maxsize=MAXSIZE, ttl=TTL, wait_concurrent=True, policy="lru")(function)


def _theine(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import theine

    return theine.Memoize(MAXSIZE, timedelta(seconds=TTL))(function)


def _theine_keyed(function: Callable[[str], Any]) -> Callable[[str], Any]:
    import theine

    decorated = theine.Memoize(MAXSIZE, timedelta(seconds=TTL))(function)
    decorated.key(lambda key: key)
    return decorated


def _cachetools(function: SyncFunction) -> SyncFunction:
    import cachetools

    return cachetools.cached(cachetools.TTLCache(MAXSIZE, TTL), lock=threading.Lock())(function)


def _cachetools_keyed(function: SyncFunction) -> SyncFunction:
    import cachetools

    cache: cachetools.TTLCache[str, object] = cachetools.TTLCache(MAXSIZE, TTL)
    return cachetools.cached(cache, key=lambda key: key, lock=threading.Lock())(function)


def _cachetools_condition(function: SyncFunction) -> SyncFunction:
    import cachetools

    return cachetools.cached(cachetools.TTLCache(MAXSIZE, TTL), condition=threading.Condition())(function)


def _dogpile(function: SyncFunction) -> SyncFunction:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL)
    return region.cache_on_arguments()(function)


def _cashews(function: AsyncFunction) -> AsyncFunction:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://", size=MAXSIZE)
    return cache(ttl=TTL, key="bench:{key}", lock=True)(function)


def _aiocache(function: AsyncFunction) -> AsyncFunction:
    from aiocache import cached_stampede

    decorated: AsyncFunction = cached_stampede(lease=2, ttl=TTL, key_builder=lambda _, key: key)(function)
    return decorated


def _async_lru(function: Callable[[str], Any]) -> Callable[[str], Any]:
    from async_lru import alru_cache

    return alru_cache(maxsize=MAXSIZE, ttl=TTL)(function)


SYNC_PEERS = (
    Peer("functools.lru_cache", "functools", _lru_cache, "maxsize=10000", stampede=False, ttl=False),
    # cachebox copies lists, dicts and sets unless told otherwise, and a key function is faster than its automatic key.
    # All three settings are shown; the fastest counts.
    Peer("cachebox.cached", "cachebox", _cachebox, "TTLCache(10000, 300), postprocess=None"),
    Peer("cachebox.cached, copying", "cachebox", _cachebox_copying, "TTLCache(10000, 300), default postprocess"),
    Peer(
        "cachebox.cached, key function",
        "cachebox",
        _cachebox_keyed,
        "TTLCache(10000, 300), postprocess=None, key_maker=lambda key: key",
    ),
    # Without wait_concurrent moka-py has no stampede protection.
    Peer("moka_py.cached", "moka_py", _moka, "maxsize=10000, ttl=300, wait_concurrent=True"),
    Peer("moka_py.cached, lru", "moka_py", _moka_lru, 'the same with policy="lru"'),
    # theine recommends a key function; its automatic key is shown too.
    Peer("theine.Memoize", "theine", _theine, "10000, 300 s, automatic key"),
    Peer("theine.Memoize, key function", "theine", _theine_keyed, "10000, 300 s, key=lambda key: key"),
    Peer("cachetools.cached, lock", "cachetools", _cachetools, "TTLCache(10000, 300), lock=Lock()", stampede=False),
    Peer(
        "cachetools.cached, lock, key function",
        "cachetools",
        _cachetools_keyed,
        "TTLCache(10000, 300), lock=Lock(), key=lambda key: key",
        stampede=False,
    ),
    # The lock alone makes cachetools thread-safe; with the condition concurrent callers share a load as well.
    Peer("cachetools.cached, condition", "cachetools", _cachetools_condition, "TTLCache(10000, 300), condition=..."),
    # dogpile's memory backend has no bound, so it never evicts.
    Peer("dogpile.cache", "dogpile.cache", _dogpile, "memory backend, expiration_time=300; unbounded"),
)

ASYNC_PEERS = (
    Peer("moka_py.cached async", "moka_py", _moka, "maxsize=10000, ttl=300, wait_concurrent=True"),
    Peer("cachebox.cached async", "cachebox", _cachebox, "TTLCache(10000, 300), postprocess=None"),
    Peer("cachebox.cached async, key function", "cachebox", _cachebox_keyed, "the same, key_maker=lambda key: key"),
    Peer("theine.Memoize async", "theine", _theine_keyed, "10000, 300 s, key=lambda key: key"),
    Peer("cashews", "cashews", _cashews, "mem:// size=10000, ttl=300, lock=True", slow=True),
    # aiocache's memory backend has no bound; cached_stampede is the one that locks.
    Peer("aiocache.cached_stampede", "aiocache", _aiocache, "memory, lease=2, ttl=300; unbounded", slow=True),
    Peer("async_lru.alru_cache", "async_lru", _async_lru, "maxsize=10000, ttl=300"),
)
