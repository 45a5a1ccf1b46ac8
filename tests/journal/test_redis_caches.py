"""Caches of several processes over one journal on Redis: what one writes the others read, and the source gets it in order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.servers import RedisServer
from tests.support.waiting import results, start_together, wait_until

from credenza import Cache, WriteBehind
from credenza.source import WriteBatch
from credenza.testing import DictSource

_namespaces = itertools.count()


class LoggingSource(DictSource[int, str]):
    """Keeps what reaches it in batches, in their order.

    Attributes:
        log: the records' keys and values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, str]] = []
        self.lock = threading.Lock()

    def store_many(self, records: Mapping[int, str]) -> None:
        with self.lock:
            self.log += records.items()
            self.records.update(records)


class PlaceKeepingSource(DictSource[int, str]):
    """Leaves out what it has, as it keeps the last place of each journal.

    Attributes:
        journals: by the name that batches came under, the records that did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.journals: dict[str, set[int]] = {}
        self._places: dict[str, int] = {}

    def apply(self, batch: WriteBatch[int, Any]) -> None:
        for change in batch.changes:
            if change.place > self._places.get(batch.journal, 0):
                self._places[batch.journal] = change.place
                self.journals.setdefault(batch.journal, set()).add(change.key)
                self.records[change.key] = change.value


@pytest.fixture
def url(journal_server: RedisServer) -> str:
    """A journal that nobody has used."""
    return f"{journal_server.url}/0?namespace=caches-{next(_namespaces)}&partitions=4"


@pytest.fixture
def caches() -> Iterator[list[Cache[Any, Any]]]:
    """Those of three processes."""
    made: list[Cache[Any, Any]] = [Cache() for _ in range(3)]
    yield made
    for cache in made:
        cache.close()


def repositories(caches: list[Cache[Any, Any]], source: Any, url: str) -> list[Any]:
    """Return the records as each process has access to them."""
    return [cache.repository(source, strategy=WriteBehind(url, max_delay=0.05), key="record:{}") for cache in caches]


def test_pending_write_is_read_in_every_process(caches: list[Cache[Any, Any]], url: str) -> None:
    """While the source does not have it yet."""
    source = LoggingSource()
    first, second, _ = repositories(caches, source, url)
    with source.lock:
        first.put(1, "new")
        assert (first.get(1), second.get(1)) == ("new", "new")
    assert second.flush(timeout=10)
    assert source.records == {1: "new"}


def test_writes_of_all_processes_reach_the_source_in_the_order_of_each_key(
    caches: list[Cache[Any, Any]], url: str
) -> None:
    """Whoever delivers them; one of the processes goes in the middle of it."""
    source = LoggingSource()
    processes = repositories(caches, source, url)
    numbers = iter(range(3))

    def write() -> None:
        own = next(numbers)
        for turn in range(60):
            processes[own].put(own * 10 + turn % 5, f"{turn:03}")
        if own == 0:
            caches[own].close()

    results(start_together(3, write))
    wait_until(lambda: processes[1].flush(timeout=1), "all is delivered")
    assert source.records == {own * 10 + key: f"{55 + key:03}" for own in range(3) for key in range(5)}
    for key in source.records:
        values = [value for logged, value in source.log if logged == key]
        assert values == sorted(values)


def test_source_that_keeps_places_hears_of_each_partition_by_a_name_of_its_own(
    caches: list[Cache[Any, Any]], url: str
) -> None:
    """Places of different partitions say nothing about each other: what is left out under one name would be lost."""
    source = PlaceKeepingSource()
    processes = repositories(caches, source, url)
    for turn in range(3):
        for key in range(40):
            processes[(key + turn) % 3].put(key, str(turn))
        wait_until(lambda: processes[0].flush(timeout=1), "all is delivered")
        assert source.records == {key: str(turn) for key in range(40)}
    assert len(source.journals) == 4
    assert sum(map(len, source.journals.values())) == 40
