"""Write-behind for edits: a journal takes them, the database gets them in batches."""

import threading
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Engine, event

from credenza import Cache, CacheError, DrainReport, Event, EventKind, Repository, WriteBehind
from credenza.contrib.sqlalchemy import TableSource

from .people import Person
from .schema import users
from .seeding import open_engine
from .settings import Settings

_MAX_DELAY = 0.5
_CLOSE_SECONDS = 10.0

Note = Callable[[str, float], None]
"""Takes a number that all workers are to see, by its name on the board."""


class Edits:
    """Edits of users that were acknowledged, and what the database has of them. Thread-safe.

    The repository knows only what the journal owes: its source finds nothing, and its cache keeps nothing. So `owed` tells
    edits that the database does not have yet, without asking it.

    Args:
        settings: which database.
        journal: a path or a URL.
        note: is told the numbers "edits", "statements" and "rows".
        forget: forgets profiles; called when the database has taken edits, if others may have loaded what it held before,
            and when one was given up.

    Raises:
        JournalError: the journal cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        journal: str,
        *,
        note: Note = lambda name, number: None,
        forget: Callable[[Iterable[int]], None] = lambda user_ids: None,
    ) -> None:
        self._note = note
        self._forget = forget
        self._lock = threading.Lock()  # guards the count, which many threads write
        self._count = 0
        self._engine = open_engine(settings.database, connections=1)
        self._cache: Cache[str, Person] = Cache(maxsize=1, name="edits")
        self._cache.subscribe(self._look_after)
        strategy = WriteBehind(journal, max_delay=_MAX_DELAY, close_timeout=_CLOSE_SECONDS)
        source = _Rows(self._engine, note, forget if settings.cache is not None else lambda user_ids: None)
        try:
            self._people: Repository[int, Person] = self._cache.repository(
                source, strategy=strategy, key="edit:{}", ttl=lambda _: 0
            )
        except BaseException:
            self._engine.dispose()
            raise

    async def owed(self, user_id: int) -> Person | None:
        """Return the last edit of a user that the database may not have; None if it has them all."""
        return await self._people.aio.get(user_id)

    def all_owed(self, user_ids: Iterable[int]) -> dict[int, Person]:
        """Do the same for many users."""
        return self._people.get_many(user_ids)

    async def write(self, person: Person) -> None:
        """Return when the journal has the edit."""
        await self._people.aio.put(person.id, person)
        self._acknowledge()

    def write_now(self, person: Person) -> None:
        """Do the same in a thread."""
        self._people.put(person.id, person)
        self._acknowledge()

    def pending(self) -> int:
        """Return how many users have an edit that the database has not taken, as far as this worker knows."""
        journal = self._people.journal
        return 0 if journal is None else journal.count()

    def flush(self, timeout: float) -> DrainReport:
        """Block until the database has what was acknowledged, or the time is over."""
        return self._people.flush(timeout=timeout)

    def close(self) -> None:
        """Deliver what is pending, for some seconds; what is left then is delivered after the next start."""
        self._cache.close()
        self._engine.dispose()

    def _acknowledge(self) -> None:
        with self._lock:
            self._count += 1
            self._note("edits", self._count)

    def _look_after(self, happened: Event) -> None:
        if happened.kind is EventKind.DEAD_LETTER and isinstance(happened.key, int):
            self._forget([happened.key])


class _Rows:
    """The rows of `users`, to be written: reading is for the profile's query. A `Source[int, Person]`."""

    def __init__(self, engine: Engine, note: Note, taken: Callable[[Iterable[int]], None]) -> None:
        self._table = TableSource(users, engine, value=Person)
        self._note = note
        self._taken = taken
        self._statements = self._written = 0
        event.listen(engine, "before_cursor_execute", self._count)

    def load(self, key: int, /) -> Person | None:
        """Return None: what the journal does not owe, the database has."""
        return None

    def load_many(self, keys: Iterable[int], /) -> dict[int, Person]:
        return {}

    def store(self, key: int, value: Person, /) -> None:
        self.store_many({key: value})

    def store_many(self, values: Mapping[int, Person], /) -> None:
        """Upsert all rows by one statement, which may be repeated.

        Raises:
            ConnectionError: the shared cache cannot be told; it will all be done again.
        """
        self._table.store_many(values)
        self._written += len(values)
        self._note("rows", self._written)
        try:
            self._taken(values)
        except CacheError as exc:
            raise ConnectionError("the shared cache cannot be told of what was written") from exc

    def delete(self, key: int, /) -> None:
        self._table.delete(key)

    def _count(self, _c: object, _u: object, _s: object, parameters: object, _x: object, is_many: bool) -> None:
        """Count what the driver is given: one statement, or one for each set of parameters."""
        self._statements += len(parameters) if is_many and isinstance(parameters, list) else 1
        self._note("statements", self._statements)
