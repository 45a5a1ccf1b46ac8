"""The profile service without HTTP: profiles through the library's repositories, and a cache without protection."""

import asyncio
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

from credenza import Cache, CacheAside, NoCache, NotFound, Repository, WriteThrough

from .database import Database
from .profile import Profile
from .settings import Settings, StrategyName
from .source import UserSource

_STRATEGIES: dict[StrategyName, CacheAside | WriteThrough | NoCache] = {
    "cache-aside": CacheAside(),
    "write-through": WriteThrough(),
    "no-cache": NoCache(),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A profile, or None for an unknown user, and where that came from.

    Attributes:
        status: what goes into `X-Cache`.
        age: seconds since it was stored.
        cache_seconds: time spent in the cache, waiting for somebody else's load included.
        database_seconds: time of the load that brought it; 0.0 if it was at hand.
    """

    profile: Profile | None
    status: str
    age: float
    cache_seconds: float
    database_seconds: float


class ProfileService:
    """Reads and changes profiles under one strategy, and counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database, connections=settings.connections)
        self.source = UserSource(self.database)
        self.cache: Cache[str, Profile] = Cache(
            maxsize=settings.maxsize, ttl=settings.ttl, negative_ttl=settings.negative_ttl, name="profiles"
        )
        self.users: Repository[int, Profile] = self.cache.repository(
            self.source, strategy=_STRATEGIES[settings.strategy], key="user:{}"
        )
        self.unprotected: Cache[int, Profile] = Cache(maxsize=settings.maxsize, ttl=settings.ttl, name="unprotected")
        self._edits: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()

    async def find(self, user_id: int) -> Found:
        """Return the profile as the strategy gives it: from memory, from somebody else's load, or from the database."""
        started = time.perf_counter()
        fetched = await self.users.aio.fetch(user_id)
        seconds = time.perf_counter() - started
        # Who joined a load late has waited for a part of it only.
        in_database = min(fetched.load_time, seconds)
        return Found(fetched.value, fetched.status, fetched.age, seconds - in_database, in_database)

    async def find_unprotected(self, user_id: int) -> Found:
        """Do what one writes around a dictionary: look, load, store. Everybody who misses asks the database."""
        started = time.perf_counter()
        profile = await self.unprotected.aio.get(user_id)
        if profile is not None:
            return Found(profile, "hit", 0.0, time.perf_counter() - started, 0.0)
        load_started = time.perf_counter()
        profile = await self.source.load(user_id)
        in_database = time.perf_counter() - load_started
        if profile is not None:
            await self.unprotected.aio.set(user_id, profile)
        return Found(profile, "miss", 0.0, time.perf_counter() - started - in_database, in_database)

    async def change(self, user_id: int, changes: Mapping[str, str]) -> Profile:
        """Change some fields and return the new profile; whoever asks after that sees it.

        Edits of one user take turns, and each starts from what the database holds: otherwise one that changes the name
        and one that changes the e-mail address would undo each other.

        Raises:
            NotFound: there is no such user.
        """
        turn = self._edits.setdefault(user_id, asyncio.Lock())
        async with turn:
            current = await self.source.load(user_id)
            if current is None:
                raise NotFound(user_id)
            changed = replace(
                current, name=changes.get("name", current.name), email=changes.get("email", current.email)
            )
            await self.users.aio.put(user_id, changed)
            await self.unprotected.aio.invalidate(user_id)
        return changed

    async def expire(self, user_id: int) -> None:
        """Forget one profile."""
        await self.users.aio.invalidate(user_id)

    async def expire_unprotected(self, user_id: int) -> None:
        """Forget one profile in the cache without protection."""
        await self.unprotected.aio.invalidate(user_id)

    def counters(self) -> dict[str, float]:
        """Return what the page shows live."""
        stats = self.cache.stats()
        return {
            "requests": stats.requests,
            "hits": stats.hits + stats.stale_hits,
            "misses": stats.misses + stats.bypasses,
            "joined": stats.joins,
            "loads": stats.loads,
            "failures": stats.load_failures,
            "evictions": stats.evictions,
            "size": stats.size,
            "flights": stats.flights,
            "hit_ratio": round(stats.hit_ratio, 4),
            "mean_load_ms": round(stats.mean_load_seconds * 1e3, 3),
            "queries": self.database.queries,
            "running": self.database.running,
            "cancelled": self.database.cancelled,
        }

    def close(self) -> None:
        """Close the caches and the database."""
        self.cache.close()
        self.unprotected.close()
        self.database.close()
