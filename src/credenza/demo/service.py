"""The profile service without HTTP: profiles through the library's repositories, and a cache without protection."""

import asyncio
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

from credenza import Cache, CacheAside, Event, EventKind, NoCache, NotFound, Repository, WriteThrough

from .board import Board, Seat
from .caching import make_cache
from .database import Database
from .errors import EditOvertaken
from .profile import Profile
from .settings import Settings, StrategyName
from .source import UserSource

_STRATEGIES: dict[StrategyName, CacheAside | WriteThrough | NoCache] = {
    "cache-aside": CacheAside(),
    "write-through": WriteThrough(),
    "no-cache": NoCache(),
}

_SHOWN = (
    *("hits", "misses", "joined", "shared", "loads", "failures", "evictions", "size", "flights"),
    *("queries", "running", "cancelled", "unshared", "away"),
)


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
    """Reads and changes profiles under one strategy, and counts.

    Args:
        settings: how.
        seat: where to show its counters to other workers; without it there are none.
    """

    def __init__(self, settings: Settings, seat: Seat | None = None) -> None:
        self.settings = settings
        self.seat = seat or Board().seat(0)
        self.database = Database(
            settings.database,
            connections=settings.connections,
            on_query=lambda queries: self.seat.put("queries", queries),
        )
        self.source = UserSource(self.database)
        self.cache: Cache[str, Profile] = make_cache(settings)
        self.cache.subscribe(self._note)
        self.users: Repository[int, Profile] = self.cache.repository(
            self.source, strategy=_STRATEGIES[settings.strategy], key="user:{}"
        )
        self.unprotected: Cache[tuple[int, float], Profile] = Cache(
            maxsize=max(settings.maxsize, 1), ttl=settings.ttl, name="unprotected"
        )
        self._edits: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()
        self._forgotten = self._unshared = 0

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
        key = (user_id, self.seat.board.total("forgotten"))
        profile = await self.unprotected.aio.get(key)
        if profile is not None:
            return Found(profile, "hit", 0.0, time.perf_counter() - started, 0.0)
        load_started = time.perf_counter()
        profile = await self.source.load(user_id)
        in_database = time.perf_counter() - load_started
        if profile is not None:
            await self.unprotected.aio.set(key, profile)
        return Found(profile, "miss", 0.0, time.perf_counter() - started - in_database, in_database)

    async def change(self, user_id: int, changes: Mapping[str, str]) -> Profile:
        """Change some fields and return the new profile; whoever asks after that sees it.

        Edits of one user take turns, and each starts from what the database holds: otherwise one that changes the name
        and one that changes the e-mail address would undo each other. One that another process overtakes is made anew.

        Raises:
            NotFound: there is no such user.
        """
        turn = self._edits.setdefault(user_id, asyncio.Lock())
        async with turn:
            while True:  # whoever overtakes has got on, so this comes to an end
                try:
                    return await self._change_once(user_id, changes)
                except EditOvertaken:
                    continue

    async def _change_once(self, user_id: int, changes: Mapping[str, str]) -> Profile:
        current = await self.source.load(user_id)
        if current is None:
            raise NotFound(user_id)
        changed = replace(current, name=changes.get("name", current.name), email=changes.get("email", current.email))
        with self.source.expecting(current):
            await self.users.aio.put(user_id, changed)
        self.forget_unprotected()
        return changed

    async def expire(self, user_id: int) -> None:
        """Forget one profile, on all workers."""
        await self.users.aio.invalidate(user_id)

    def forget_unprotected(self) -> None:
        """Let every worker's cache without protection begin anew; it has no other way to learn of changes."""
        self._forgotten += 1
        self.seat.put("forgotten", self._forgotten)

    def publish(self) -> None:
        """Show the counters of this worker to all; those of queries are shown as they are counted."""
        stats, database = self.cache.stats(), self.database
        numbers = {
            "hits": stats.hits + stats.stale_hits,
            "misses": stats.misses + stats.bypasses,
            "joined": stats.joins,
            "shared": stats.shared_hits,
            "loads": stats.loads,
            "load_seconds": stats.load_seconds,
            "failures": stats.load_failures,
            "evictions": stats.evictions,
            "unshared": self._unshared,
            "cancelled": database.cancelled,
            "size": stats.size,
            "flights": stats.flights,
            "running": database.running,
            "away": self.cache.health().tier == "away",
        }
        for name, number in numbers.items():
            self.seat.put(name, number)

    def counters(self) -> dict[str, float]:
        """Return what the page shows live: the counters of all workers, summed."""
        self.publish()
        total = self.seat.board.total
        counted = {name: int(total(name)) for name in _SHOWN}
        at_hand = counted["hits"] + counted["shared"]
        requests = at_hand + counted["misses"] + counted["joined"]
        return {
            **counted,
            "requests": requests,
            "hit_ratio": round(at_hand / requests, 4) if requests else 0.0,
            "mean_load_ms": round(total("load_seconds") / counted["loads"] * 1e3, 3) if counted["loads"] else 0.0,
        }

    def queries_by_worker(self) -> dict[str, int]:
        """Return how many statements each worker has sent to the database."""
        board = self.seat.board
        return {str(worker + 1): int(board.read(worker, "queries")) for worker in range(board.workers)}

    def _note(self, event: Event) -> None:
        self._unshared += event.kind is EventKind.UNSHARED

    def close(self) -> None:
        """Close the caches and the database."""
        self.cache.close()
        self.unprotected.close()
        self.database.close()
