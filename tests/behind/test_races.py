"""Writes that come into memory without a fence: whatever overtakes them, the last one is what is read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.behind.conftest import StagedSource
from tests.support.waiting import wait_until

from credenza import Cache, EventKind, WriteBehind
from credenza.fence import Fences
from credenza.journal.base import Receipt
from credenza.testing import DictJournal


class StagedJournal(DictJournal):
    """A journal that commits what was appended, and tells each caller of it, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []
        self.receipts: list[Receipt] = []
        self._kept: Callable[[Sequence[object]], None] = lambda _: None

    def follow(self, kept: Callable[[Sequence[object]], None]) -> None:
        """Note whom to tell."""
        self._kept = kept

    def append(self, entries: Any) -> Receipt:
        """Keep nothing yet."""
        self.receipts.append(Receipt())
        self.held.append(entries)
        return self.receipts[-1]

    def commit(self) -> None:
        """Keep what was appended, and tell no caller yet."""
        held, self.held = self.held, []
        for entries in held:
            super().append(entries)
        self._kept([entry.note for entries in held for entry in entries])


class Races:
    """A repository over a staged journal, and threads that write to it."""

    def __init__(self, **options: Any) -> None:
        self.journal = StagedJournal()
        self.source = StagedSource({1: "old"})
        self.cache: Cache[Any, Any] = Cache(ttl=60)
        chosen: dict[str, Any] = {"max_delay": 60, "close_timeout": 0, **options}
        self.tags = chosen.pop("tags", ())
        strategy = WriteBehind(self.journal, **chosen)
        self.users: Any = self.cache.repository(self.source, strategy=strategy, key="user:{}", tags=self.tags)
        self.errors: list[BaseException] = []

    def put(self, key: Any, value: Any) -> threading.Thread:
        """Begin a write in a thread; return when it was appended."""
        count = len(self.journal.receipts)

        def work() -> None:
            try:
                self.users.put(key, value)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: len(self.journal.receipts) > count, "the write to be appended")
        return thread

    def tell(self, number: int, thread: threading.Thread) -> None:
        """Tell one caller that its write was kept; return when it went on."""
        self.journal.receipts[number].signal.set()
        thread.join(10)
        assert not thread.is_alive()

    def in_memory(self) -> int:
        """Return how many entries there are."""
        return self.cache.stats().size

    def close(self) -> None:
        """Let every caller go on, and end."""
        for receipt in self.journal.receipts:
            receipt.signal.set()
        self.source.gate.set()
        self.cache.close()


@pytest.fixture
def races() -> Iterator[Races]:
    """One whose writes stay pending."""
    made = Races()
    yield made
    made.close()


def test_later_write_stays_whoever_goes_on_first(races: Races) -> None:
    """1. A, then B is kept, of one key. 2. B's caller goes on. 3. A's caller goes on, and must not store A over B (I5)."""
    first, second = races.put(1, "A"), races.put(1, "B")
    races.journal.commit()
    races.tell(1, second)
    assert races.users.get(1) == "B"
    races.tell(0, first)
    assert races.users.get(1) == "B"
    assert races.in_memory() == 1


def test_writes_land_before_those_that_were_kept_after_them(races: Races) -> None:
    """1. A is kept. 2. B is kept, and its caller goes on. 3. Nobody reads A, although A's caller never went on."""
    first = races.put(1, "A")
    races.journal.commit()
    second = races.put(1, "B")
    races.journal.commit()
    races.tell(1, second)
    assert races.users.get(1) == "B"
    races.tell(0, first)
    assert races.users.get(1) == "B"


def test_value_that_was_loaded_before_the_commit_goes_when_the_write_lands(races: Races) -> None:
    """1. A write is appended. 2. A read loads the old value and keeps it. 3. The write returns: the next read sees it (J2)."""
    writer = races.put(1, "new")
    assert races.users.get(1) == "old"
    races.journal.commit()
    races.tell(0, writer)
    assert races.users.get(1) == "new"


def test_load_that_began_before_the_commit_is_not_kept(races: Races) -> None:
    """1. A load has read the source. 2. A write is kept, and returns. 3. The load ends: nobody else reads its value (I1)."""
    load, reading, goes_on = races.source.load, threading.Event(), threading.Event()

    def slow_load(key: Any) -> Any:
        value = load(key)
        reading.set()
        assert goes_on.wait(10)
        return value

    races.source.load = slow_load  # type: ignore[method-assign]  # staged
    reader = threading.Thread(target=races.users.get, args=(1,))
    reader.start()
    assert reading.wait(10)
    writer = races.put(1, "new")
    races.journal.commit()
    races.tell(0, writer)
    goes_on.set()
    reader.join(10)
    assert races.users.get(1) == "new"


def test_write_that_is_given_up_before_its_caller_goes_on_is_not_stored() -> None:
    """1. A write is kept. 2. The source refuses it for good. 3. Its caller goes on: the source's own value is read (J4)."""
    races = Races(max_delay=0, max_failures=1)
    given_up = threading.Event()
    races.cache.subscribe(lambda event: given_up.set() if event.kind == EventKind.DEAD_LETTER else None)
    try:
        races.source.poison[1] = ValueError("no")
        writer = races.put(1, "new")
        races.journal.commit()
        assert given_up.wait(10)
        races.tell(0, writer)
        assert races.users.get(1) == "old"
    finally:
        races.close()


def test_write_whose_caller_left_is_seen_once_it_is_kept() -> None:
    """1. A task puts, and is cancelled. 2. A read keeps the old value. 3. The journal keeps the write: it is read now."""

    async def main() -> None:
        races = Races()
        putting = asyncio.create_task(races.users.aio.put(1, "new"))
        while not races.journal.receipts:
            await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await races.users.aio.get(1) == "old"
        races.journal.commit()
        races.journal.receipts[0].signal.set()
        assert await races.users.aio.get(1) == "new"
        races.close()

    asyncio.run(main())


def test_write_whose_caller_left_does_not_land_later() -> None:
    """1. A task puts, and is cancelled. 2. The write is kept and delivered. 3. The source changes. 4. Another write lands."""

    async def main() -> None:
        races = Races()
        putting = asyncio.create_task(races.users.aio.put(1, "new"))
        while not races.journal.receipts:
            await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        races.journal.commit()
        races.journal.receipts[0].signal.set()
        assert await races.users.aio.flush(timeout=10)
        races.source.records[1] = "newest"
        races.cache.invalidate("user:1")
        putting = asyncio.create_task(races.users.aio.put(2, "other"))
        while len(races.journal.receipts) < 2:
            await asyncio.sleep(0)
        races.journal.commit()
        races.journal.receipts[1].signal.set()
        await putting
        assert await races.users.aio.get(1) == "newest"
        races.close()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["clear", "tag"])
def test_what_is_invalidated_during_a_write_is_not_stored(how: str) -> None:
    """The next read loads, from the journal."""
    races = Races(tags=("team",))
    try:
        writer = races.put(1, "new")
        if how == "clear":
            races.cache.clear()
        else:
            races.cache.invalidate_tags("team")
        races.journal.commit()
        races.tell(0, writer)
        assert races.in_memory() == 0
        assert races.users.get(1) == "new"
    finally:
        races.close()


def test_write_inside_a_fence_is_not_stored(races: Races) -> None:
    """A `writing` block keeps memory empty of its keys, whoever writes them meanwhile (I3)."""
    with races.cache.writing("user:1"):
        writer = races.put(1, "new")
        races.journal.commit()
        races.tell(0, writer)
        assert races.in_memory() == 0
    assert races.users.get(1) == "new"


def test_caller_that_is_interrupted_leaves_the_writes_of_others_to_land(
    races: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A and B are kept. 2. B's caller lands A first, and is interrupted. 3. A's caller goes on: A is read."""
    assert races.users.get(1) == "old"
    first, second = races.put(1, "A"), races.put(2, "B")
    races.journal.commit()
    disturb, calls = Fences.disturb, []

    def interrupted(fences: Fences, key: Any) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise KeyboardInterrupt
        disturb(fences, key)

    monkeypatch.setattr(Fences, "disturb", interrupted)
    races.tell(1, second)
    assert [type(error) for error in races.errors] == [KeyboardInterrupt]
    races.tell(0, first)
    assert races.users.get(1) == "A"
    assert races.users.get(2) == "B"
