"""The peers that keep values in Redis, each in the best setting that still does what is compared.

They keep the same records as we do. Values travel through msgspec where a peer lets its serializer be chosen, and as pickles in
cashews, without the `repr` of each value that it takes by default.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from bench.peers import is_installed
from bench.records import TTL, USERS, User, decoder, encoder

LOCK_SECONDS = 5


@dataclass(frozen=True, slots=True)
class SyncPeer:
    """A cache of somebody else's for threads: a hit by hand, and what decorates.

    `decorate` lets one process load at a time.
    """

    name: str
    setting: str
    get: Callable[[str], object]
    decorate: Callable[[Callable[[str], User]], Callable[[str], object]]


@dataclass(frozen=True, slots=True)
class AsyncPeer:
    """A cache of somebody else's for tasks; see `SyncPeer`. `has_memory` says that a hit may come from this process."""

    name: str
    setting: str
    open: Callable[[], Coroutine[Any, Any, None]]
    get: Callable[[str], Awaitable[object]]
    decorate: Callable[[Callable[[str], Awaitable[User]]], Callable[[str], Awaitable[object]]]
    close: Callable[[], Coroutine[Any, Any, None]]
    has_memory: bool = False


def sync_peers(url: str) -> Iterator[SyncPeer]:
    """Yield those that are installed, with all records in place."""
    if is_installed("dogpile"):
        yield _dogpile(url)


def async_peers(url: str) -> Iterator[AsyncPeer]:
    """Yield those that are installed; their `open` puts the records in place."""
    if is_installed("cashews"):
        yield _cashews(url, has_memory=False)
        yield _cashews(url, has_memory=True)
    if is_installed("aiocache"):
        yield _aiocache(url)


def _dogpile(url: str) -> SyncPeer:
    from dogpile.cache import make_region

    # Of a value with its metadata the region serializes the value alone.
    region: Any = make_region(serializer=encoder(), deserializer=decoder())
    settings = {"url": url, "redis_expiration_time": 2 * TTL, "distributed_lock": True, "lock_timeout": LOCK_SECONDS}
    region.configure("dogpile.cache.redis", expiration_time=TTL, arguments=settings | {"thread_local_lock": False})
    region.set_multi(USERS)
    return SyncPeer(
        "dogpile.cache",
        "dogpile.cache.redis, distributed lock, msgspec",
        region.get,
        region.cache_on_arguments(),
    )


def _cashews(url: str, *, has_memory: bool) -> AsyncPeer:
    from cashews import Cache

    cache: Any = Cache()
    settings = {"client_side": True, "client_side_prefix": "memory:"} if has_memory else {"client_side": False}
    cache.setup(url, check_repr=False, pickle_type="default", max_connections=50, **settings)

    async def start() -> None:
        await cache.init()
        for key, user in USERS.items():
            await cache.set("cashews:" + key, user, expire=TTL)
            await cache.get("cashews:" + key)

    return AsyncPeer(
        "cashews, client_side" if has_memory else "cashews",
        f"client_side={has_memory}, pickle, check_repr=False",
        start,
        lambda key: cache.get("cashews:" + key),
        cache(ttl=TTL, key="cashews:decorated:{key}", lock=True),
        cache.close,
        has_memory,
    )


def _aiocache(url: str) -> AsyncPeer:
    from aiocache import RedisCache, cached_stampede
    from aiocache.serializers import BaseSerializer

    class Msgspec(BaseSerializer):  # type: ignore[misc]  # untyped
        """Encodes to bytes, which are left alone."""

        DEFAULT_ENCODING = None

        def __init__(self) -> None:
            super().__init__()
            self.dumps = encoder()
            decode = decoder()
            self.loads = lambda data: None if data is None else decode(data)

    place = urllib.parse.urlsplit(url)
    where: dict[str, Any] = {"endpoint": place.hostname, "port": place.port, "timeout": None}
    cache: Any = RedisCache(serializer=Msgspec(), pool_max_size=50, **where)

    async def start() -> None:
        for key, user in USERS.items():
            await cache.set("aiocache:" + key, user, ttl=TTL)

    def decorate(function: Callable[[str], Awaitable[User]]) -> Callable[[str], Awaitable[object]]:
        decorated: Callable[[str], Awaitable[object]] = cached_stampede(
            lease=LOCK_SECONDS,
            ttl=TTL,
            key_builder=lambda _, key: "aiocache:decorated:" + key,
            cache=RedisCache,
            serializer=Msgspec(),
            pool_max_size=1000,
            **where,
        )(function)
        return decorated

    return AsyncPeer(
        "aiocache",
        "RedisCache, msgspec, timeout=None",
        start,
        lambda key: cache.get("aiocache:" + key),
        decorate,
        cache.close,
    )
