"""A repository with write-behind, over each journal that lives in this process, and in both faces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.waiting import wait_until

from credenza import Cache, Event, WriteBehind
from credenza.journal.base import Journal
from credenza.journal.sqlite import SqliteJournal
from credenza.testing import DictJournal, DictSource


class StagedSource(DictSource[Any, Any]):
    """A source that refuses what it is told to refuse, waits where it is told to wait, and notes what reaches it."""

    def __init__(self, records: Mapping[Any, Any] | None = None) -> None:
        super().__init__(records)
        self.batches: list[dict[Any, Any]] = []
        self.away: Exception | None = None
        self.poison: dict[Any, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()

    def store_many(self, records: Mapping[Any, Any], /) -> None:
        """Write records, all or none."""
        self.arrived.set()
        assert self.gate.wait(15)
        if self.away is not None:
            raise self.away
        for key in records:
            if key in self.poison:
                raise self.poison[key]
        self.batches.append(dict(records))
        super().store_many(records)

    def delete_many(self, keys: Iterable[Any], /) -> None:
        """Delete records, all or none."""
        if self.away is not None:
            raise self.away
        super().delete_many(keys)


class Desk:
    """A cache, a source, and a repository with write-behind between them, used from the face of the test.

    Attributes:
        events: what the cache told.
    """

    def __init__(self, face: str, open_journal: Callable[[], Journal], **cache_options: Any) -> None:
        self._loop = asyncio.new_event_loop() if face == "async" else None
        self._open_journal = open_journal
        self.cache_options = {"maxsize": 100, "ttl": 60} | cache_options
        self.source: Any = StagedSource()
        self.events: list[Event] = []
        self.caches: list[Cache[Any, Any]] = []

    def open(self, **options: Any) -> Any:
        """Begin, or begin again as the next process would; return the repository."""
        chosen: dict[str, Any] = {"max_delay": 0, "backoff": 0.001, "max_backoff": 0.01, **options}
        strategy = WriteBehind(chosen.pop("journal", None) or self._open_journal(), **chosen)
        cache: Cache[Any, Any] = Cache(**self.cache_options)
        cache.subscribe(self.events.append)
        self.caches.append(cache)
        self.cache = cache
        self.repository = cache.repository(self.source, strategy=strategy, key="user:{}")
        return self.repository

    def do(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the repository in this test's face."""
        if self._loop is None:
            return getattr(self.repository, name)(*args, **options)
        return self.run(getattr(self.repository.aio, name)(*args, **options))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of the async face."""
        assert self._loop is not None
        return self._loop.run_until_complete(coroutine)

    def told(self, kind: str) -> list[Any]:
        """Return the keys of the events of one kind."""
        return [event.key for event in self.events if event.kind == kind]

    def drained(self) -> bool:
        """Wait until nothing is pending."""
        wait_until(lambda: not self.repository.journal.count(), "the journal to be drained")
        return True

    def close(self) -> None:
        """End whatever this began."""
        if isinstance(self.source, StagedSource):
            self.source.gate.set()
            self.source.away = None
        for cache in self.caches:
            cache.close()
        if self._loop is not None:
            self._loop.close()


@pytest.fixture(params=["dict", "sqlite"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Journal]:
    """Return what opens the test's journal; again after it was closed, with what it held."""
    made: list[DictJournal] = []

    def opened(**options: Any) -> Journal:
        if request.param == "sqlite":
            return SqliteJournal(tmp_path / "writes.journal", **options)
        made.append(made[-1].reopen() if made else DictJournal(**options))
        return made[-1]

    return opened


@pytest.fixture(params=["sync", "async"])
def desk(request: pytest.FixtureRequest, open_journal: Callable[..., Journal]) -> Iterator[Desk]:
    """A desk in one of the faces."""
    made = Desk(request.param, open_journal)
    yield made
    made.close()
