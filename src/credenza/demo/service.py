"""The profile service without HTTP: profiles through the library's repositories, and a cache without protection."""

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from credenza import Cache, CacheAside, CacheError, Event, EventKind, NoCache, NotFound, Repository, WriteThrough

from .behind import Edits
from .board import Board, Seat
from .burst import USERS, Burst, burst
from .caching import make_cache
from .database import Database
from .errors import DemoError, EditOvertaken, NoJournal
from .following import Following
from .journals import is_shared, journal_of, owed_in
from .people import Person, read_people
from .profile import Profile
from .settings import Settings, StrategyName
from .source import BehindSource, UserSource

_STRATEGIES: dict[StrategyName, CacheAside | WriteThrough | NoCache] = {
    "cache-aside": CacheAside(),
    "write-through": WriteThrough(),
    "write-behind": WriteThrough(),  # to the journal, which `BehindSource` has above the database
    "no-cache": NoCache(),
}

_SHOWN = (
    *("hits", "misses", "joined", "shared", "loads", "failures", "evictions", "size", "flights"),
    *("queries", "running", "cancelled", "unshared", "away"),
    *("edits", "statements", "rows", "pending", "recovered", "changes", "bursts"),
)
_SETTLE_SECONDS = 30.0


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
        self.cache: Cache[str, Profile] = make_cache(settings)
        self.cache.subscribe(self._note)
        self.edits = self._open_journal() if settings.strategy == "write-behind" else None
        source = UserSource(self.database)
        self.source = source if self.edits is None else BehindSource(source, self.edits)
        self.users: Repository[int, Profile] = self.cache.repository(
            self.source, strategy=_STRATEGIES[settings.strategy], key="user:{}"
        )
        self.unprotected: Cache[tuple[int, float], Profile] = Cache(
            maxsize=max(settings.maxsize, 1), ttl=settings.ttl, name="unprotected"
        )
        self._edits: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()
        self._forgotten = self._unshared = self._changed = 0
        self.following = Following(self.cache, settings) if settings.follow else None

    def _open_journal(self) -> Edits:
        journal = journal_of(self.settings, self.seat.worker)
        is_counted_here = not is_shared(self.settings) or self.seat.worker == 0
        self.seat.put("recovered", owed_in(journal) if is_counted_here else 0)
        try:
            return Edits(self.settings, journal, note=self.seat.put, forget=self._forget)
        except CacheError as exc:
            raise DemoError(str(exc)) from exc

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
        if self.edits is None:  # which counts for itself
            self._changed += 1
            self.seat.put("edits", self._changed)
        return changed

    async def burst(self, goes_on: Callable[[], bool] = lambda: True) -> Burst:
        """Edit many users many times, and wait until the database has it; it goes on if nobody waits any more.

        A fence around it all keeps the profiles out of the cache meanwhile: whoever asks sees the last edit.

        Args:
            goes_on: asked before each edit, in several threads; when it says no, there are no more.

        Raises:
            NoJournal: the strategy is another one.
        """
        if self.edits is None:
            raise NoJournal("a burst needs write-behind; start the demo with --strategy write-behind")
        people = await self.database.run(lambda connection: read_people(connection, range(1, USERS + 1)))
        return await asyncio.to_thread(self._burst, people, self.edits, goes_on)

    def _burst(self, people: list[Person], edits: Edits, goes_on: Callable[[], bool]) -> Burst:
        owed = edits.all_owed([person.id for person in people])
        with self.cache.writing(*(_key_of(person.id) for person in people)):
            newest = [owed.get(person.id, person) for person in people]
            done = burst(newest, edits, self.seat.board.total, goes_on=goes_on)
        self.forget_unprotected()
        return done

    async def settle(self) -> None:
        """Wait until the database has this worker's edits, and the cache has heard of all changes."""
        if self.edits is not None:
            await asyncio.to_thread(self.edits.flush, _SETTLE_SECONDS)
        if self.following is not None:
            await asyncio.to_thread(self.following.settle)

    async def expire(self, user_id: int) -> None:
        """Forget one profile, on all workers."""
        await self.users.aio.invalidate(user_id)

    def _forget(self, user_ids: Iterable[int]) -> None:
        """Forget profiles, from whatever thread."""
        self.cache.invalidate(*map(_key_of, user_ids))

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
        if self.edits is not None:
            numbers["pending"] = self.edits.pending()
        if self.following is not None:
            numbers["changes"] = self.following.changes
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
        """Deliver what is in the journal, then close the caches and the database."""
        if self.edits is not None:
            self.edits.close()
        self.cache.close()
        self.unprotected.close()
        self.database.close()


def _key_of(user_id: int) -> str:
    return f"user:{user_id}"
