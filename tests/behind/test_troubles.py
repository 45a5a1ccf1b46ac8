"""Write-behind where something goes wrong around it: a full disk, a caller that leaves, a loop that stops, a fork, a tier."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.behind.conftest import Desk, StagedSource
from tests.support.waiting import until, wait_until

from credenza import Cache, ConfigurationError, DeadlockError, JournalError, JournalInUse, WriteBehind
from credenza.journal.base import Entry, Journal, Receipt
from credenza.journal.sqlite import SqliteJournal
from credenza.testing import AsyncDictSource, DictJournal, DictTier


class HeldJournal(DictJournal):
    """A journal whose disk is slow: what is appended is kept when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Any, Receipt]] = []

    def append(self, entries: Any) -> Receipt:
        """Keep nothing yet."""
        receipt = Receipt()
        self.held.append((entries, receipt))
        return receipt

    def keep(self) -> None:
        """Keep what was appended."""
        for entries, receipt in self.held:
            super().append(entries)
            receipt.signal.set()
        self.held.clear()


def test_write_that_the_journal_cannot_keep_has_not_happened() -> None:
    """A full disk: the caller is told, the next read is what it was, and the next write that can be kept is."""
    journal = DictJournal()
    source = StagedSource({1: "old"})
    with Cache(ttl=60) as cache:
        users = cache.repository(source, strategy=WriteBehind(journal, max_delay=0))
        assert users.get(1) == "old"
        journal.error = "the disk is full"
        with pytest.raises(JournalError, match="the disk is full") as caught:
            users.put(1, "new")
        assert caught.value.key == 1
        assert users.get(1) == "old"
        assert users.flush(timeout=10)
        journal.error = None
        users.put(1, "new")
        assert users.flush(timeout=10)
    assert source.records == {1: "new"}


def test_write_whose_caller_left_is_seen_once_it_is_kept() -> None:
    """1. A task puts. 2. It is cancelled. 3. A read loads the old value and keeps it. 4. The journal keeps the write.

    Without an invalidation after 4 the old value would be read until its ttl.
    """

    async def main() -> None:
        journal, source = HeldJournal(), StagedSource({1: "old"})
        source.gate.clear()
        async with Cache(ttl=60).aio as cache:
            users = cache_of(cache).repository(source, strategy=WriteBehind(journal, max_delay=0, close_timeout=0))
            putting = asyncio.create_task(users.aio.put(1, "new"))
            await until(lambda: journal.held, "the write to be appended")
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting
            assert await users.aio.get(1) == "old"
            assert await users.aio.get(1) == "old"
            journal.keep()
            assert await users.aio.get(1) == "new"

    asyncio.run(main())


def cache_of(face: Any) -> Cache[Any, Any]:
    """Return the cache of its async face."""
    cache: Cache[Any, Any] = face._engine.cache
    return cache


def test_retried_letter_replaces_what_was_loaded_meanwhile(desk: Desk) -> None:
    """1. A write is given up. 2. A read keeps the source's older value. 3. The letter is retried and delivered."""
    desk.source.records = {1: "older"}
    users = desk.open(max_failures=1)
    desk.source.poison = {1: ValueError()}
    desk.do("put", 1, "newer")
    assert desk.do("flush", timeout=10)
    assert desk.do("get", 1) == "older"
    desk.source.poison = {}
    assert users.journal.retry() == 1
    wait_until(lambda: desk.source.records == {1: "newer"}, "the letter to be delivered")
    assert desk.do("flush", timeout=10)
    assert desk.do("get", 1) == "newer"


def test_async_source_is_called_on_the_loop_that_uses_it() -> None:
    """Its batches are awaited there; `close` of the async face drains them."""

    class LoopSource(AsyncDictSource[int, str]):
        def __init__(self) -> None:
            super().__init__({1: "old"})
            self.loops: set[Any] = set()

        async def store_many(self, records: Any, /) -> None:
            self.loops.add(asyncio.get_running_loop())
            await super().store_many(records)

    source = LoopSource()

    async def main() -> Any:
        async with Cache(ttl=60).aio as cache:
            users = cache_of(cache).repository(source, strategy=WriteBehind(DictJournal(), max_delay=60))
            assert await users.aio.get(1) == "old"
            await users.aio.put(1, "new")
            await users.aio.put(2, "two")
            cache_of(cache).clear()
            assert await users.aio.get(1) == "new"
            assert await users.aio.get_many([1, 2]) == {1: "new", 2: "two"}
            await users.aio.delete(2)
        return asyncio.get_running_loop()

    loop = asyncio.run(main())
    assert source.inner.records == {1: "new"}
    assert source.loops == {loop}


def test_flush_that_would_block_its_own_source_raises() -> None:
    """A sync `flush` on the loop that an async source needs would never end (L7); `close` leaves the rest in the journal."""
    source, journal = AsyncDictSource[int, str](), DictJournal()

    async def main() -> None:
        cache: Cache[Any, Any] = Cache(ttl=60)
        users = cache.repository(source, strategy=WriteBehind(journal, max_delay=60))
        await users.aio.put(1, "value")
        with pytest.raises(DeadlockError, match=r"aio\.flush"):
            users.flush(timeout=1)
        assert users.close().pending == 1
        cache.close()

    asyncio.run(main())
    assert journal.reopen().count() == 1


def test_writes_wait_for_the_next_loop_of_an_async_source() -> None:
    """The loop stopped before the batch came: nothing is lost, and nothing fails, until there is a loop again."""
    source, journal = AsyncDictSource[int, str](), DictJournal()
    cache: Cache[Any, Any] = Cache(ttl=60)
    users = cache.repository(source, strategy=WriteBehind(journal, max_delay=0.01, max_failures=1))

    async def put() -> None:
        for number in range(20):
            await users.aio.put(number, "value")

    async def get() -> None:
        assert await users.aio.get(7) == "value"
        assert await users.aio.flush(timeout=10)

    asyncio.run(put())
    asyncio.run(get())
    assert source.inner.records == dict.fromkeys(range(20), "value")
    assert journal.dead() == []
    cache.close()


def test_journal_belongs_to_one_repository(tmp_path: Path) -> None:
    """A second one on the same file, in this process or in another, gets a clear error."""
    path = tmp_path / "writes.journal"
    with Cache() as cache, Cache() as other:
        cache.repository(StagedSource(), strategy=WriteBehind(path))
        with pytest.raises(JournalInUse, match="in use by this process already"):
            other.repository(StagedSource(), strategy=WriteBehind(f"sqlite://{path}"))
    with Cache() as cache:
        cache.repository(StagedSource(), strategy=WriteBehind(path)).put(1, "value")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_forked_child_writes_nothing_into_the_journal_of_its_parent(tmp_path: Path) -> None:
    """It is told to open its own; closing the cache there disturbs nobody."""
    source = StagedSource()
    with Cache(ttl=60) as cache:
        users = cache.repository(source, strategy=WriteBehind(tmp_path / "writes.journal", max_delay=0))
        users.put(1, "before")
        assert users.flush(timeout=10)
        child = os.fork()
        if not child:
            status = 1
            try:
                try:
                    users.put(2, "child")
                except JournalError:
                    cache.close()
                    status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        users.put(3, "after")
        assert users.flush(timeout=10)
    assert source.records == {1: "before", 3: "after"}


@pytest.mark.parametrize("maxsize", [0, 100])
def test_own_pending_write_is_read_whatever_the_shared_tier_has(maxsize: int) -> None:
    """1. A puts; its value is in the tier, and leaves it. 2. B loads the old value into the tier. 3. A still reads its own.

    4. The source has it: B's value is invalid.
    """
    tier, journal, source = DictTier(), DictJournal(), StagedSource({1: "old"})
    source.gate.clear()
    options: dict[str, Any] = {"maxsize": maxsize, "ttl": 60, "remote": tier, "max_staleness": 0.2}
    with Cache(**options) as one, Cache(**options) as two:
        ours = one.repository(source, strategy=WriteBehind(journal, max_delay=0), key="user:{}")
        theirs = two.repository(source, key="user:{}")
        ours.put(1, "new")
        assert theirs.get(1) == "new"
        two.invalidate("user:1")
        assert theirs.get(1) == "old"
        assert ours.get(1) == "new"
        assert ours.get_many([1]) == {1: "new"}
        source.gate.set()
        assert ours.flush(timeout=10)
        wait_until(lambda: theirs.get(1) == "new", "the delivery to be told")
        assert ours.get(1) == "new"


def test_threads_that_write_one_key_leave_the_last_write(open_journal: Callable[..., Journal]) -> None:
    """What is read after all have written is one of the last writes, everywhere the same, and is what the source has."""
    source = StagedSource()
    last: dict[int, list[int]] = {}
    with Cache(ttl=60) as cache:
        users = cache.repository(source, strategy=WriteBehind(open_journal(), max_delay=0.001, batch_size=7))

        def write(thread: int) -> None:
            for number in range(100):
                users.put(number % 5, [thread, number])
                assert users.get(number % 5) is not None

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = {key: users.get(key) for key in range(5)}
        assert users.flush(timeout=10)
        cache.clear()
        assert {key: users.get(key) for key in range(5)} == last == source.records
    assert all(value[1] >= 95 for value in last.values())


# Sources that surprise ------------------------------------------------------------------------------------------------


def test_second_repository_on_one_journal_is_refused(tmp_path: Path) -> None:
    """Each would write the other's records to its source."""
    journal = DictJournal()
    with Cache() as cache:
        users = cache.repository(StagedSource(), strategy=WriteBehind(journal), key="user:{}")
        with pytest.raises(ConfigurationError, match="a journal of its own"):
            cache.repository(StagedSource(), strategy=WriteBehind(journal), key="order:{}")
        users.put(1, "value")


def test_coroutine_of_a_plain_source_is_not_taken_for_a_write() -> None:
    """`load` is plain and `store_many` is not: nothing was written, so nothing is struck off."""

    class Mixed(StagedSource):
        async def store_many(self, records: Any, /) -> None:  # type: ignore[override]  # that is the mistake
            raise AssertionError

    with Cache() as cache:
        strategy = WriteBehind(DictJournal(), max_delay=0, close_timeout=0, backoff=0.001)
        users = cache.repository(Mixed(), strategy=strategy)
        users.put(1, "value")
        assert not users.flush(timeout=0.2)
        assert users.journal.count() == 1
        assert users.journal.dead() == []


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_source_that_raises_what_ends_threads_ends_none(error: type[BaseException]) -> None:
    """It is a refusal as any other: the write is a dead letter in the end, and the next one is delivered."""

    class Leaving(StagedSource):
        def store_many(self, records: Any, /) -> None:
            if 1 in records:
                raise error
            super().store_many(records)

    source = Leaving()
    with Cache() as cache:
        strategy = WriteBehind(DictJournal(), max_delay=0, backoff=0.001, max_failures=2)
        users = cache.repository(source, strategy=strategy)
        users.put(1, "value")
        users.put(2, "value")
        assert users.flush(timeout=10)
        assert [letter.error for letter in users.journal.dead()] == ["RuntimeError"]
    assert source.records == {2: "value"}


def test_journal_is_in_use_as_long_as_a_batch_is_under_way(tmp_path: Path) -> None:
    """1. A batch hangs in the source. 2. The cache is closed. 3. The next owner must not overtake the batch."""
    path, source = tmp_path / "writes.journal", StagedSource()
    source.gate.clear()
    cache: Cache[Any, Any] = Cache()
    users = cache.repository(source, strategy=WriteBehind(path, max_delay=0, close_timeout=0))
    users.put(1, "old")
    assert source.arrived.wait(10)
    cache.close()
    with Cache() as later:
        with pytest.raises(JournalInUse):
            later.repository(source, strategy=WriteBehind(path))
        source.gate.set()

        def opened() -> Any:
            try:
                return later.repository(source, strategy=WriteBehind(path, max_delay=0))
            except JournalInUse:
                return None

        found: list[Any] = []
        wait_until(lambda: found.append(opened()) or found[-1], "the journal to be let go of")
        found[-1].put(1, "new")
        assert found[-1].flush(timeout=10)
    assert source.records == {1: "new"}


def test_source_cannot_wait_for_its_own_delivery() -> None:
    """`flush`, or a put into the full journal, from within `store_many` would never end (L7)."""
    caught: list[type[Exception]] = []

    class Selfish(StagedSource):
        def store_many(self, records: Any, /) -> None:
            for call in (users.flush, lambda: users.put("other", 1)):
                try:
                    call()
                except DeadlockError as error:
                    caught.append(type(error))
            super().store_many(records)

    with Cache() as cache:
        users = cache.repository(Selfish(), strategy=WriteBehind(DictJournal(max_pending=1), max_delay=0))
        users.put(1, "value")
        assert users.flush(timeout=10)
    assert caught == [DeadlockError] * 2


def test_is_away_that_raises_stops_no_delivery(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in the user's function is logged, and the drivers' rule is taken instead."""
    source = StagedSource()
    source.poison = {1: ValueError()}

    def is_away(error: Exception) -> bool:
        raise ZeroDivisionError

    with Cache() as cache:
        strategy = WriteBehind(DictJournal(), max_delay=0, backoff=0.001, max_failures=1, is_away=is_away)
        users = cache.repository(source, strategy=strategy)
        users.put(1, "value")
        users.put(2, "value")
        assert users.flush(timeout=10)
        assert len(users.journal.dead()) == 1
    assert source.records == {2: "value"}
    assert "is_away failed on ValueError" in caplog.text


# Ending ---------------------------------------------------------------------------------------------------------------


def test_journal_that_somebody_has_closed_keeps_no_other_from_its_end() -> None:
    """The cache still closes, and drains the other repositories."""
    source = StagedSource()
    with Cache() as cache:
        users = cache.repository(StagedSource(), strategy=WriteBehind(DictJournal()), key="user:{}")
        orders = cache.repository(source, strategy=WriteBehind(DictJournal(), max_delay=60), key="order:{}")
        orders.put(1, "value")
        users.journal.close()
    assert source.records == {1: "value"}


def test_second_close_reports_what_the_first_did() -> None:
    """What is pending is still pending."""
    source = StagedSource()
    source.away = ConnectionError("no source")
    with Cache() as cache:
        users = cache.repository(source, strategy=WriteBehind(DictJournal(), max_delay=0))
        users.put(1, "value")
        assert users.close(timeout=0.05).pending == 1
        assert users.close().pending == 1


def test_what_the_journals_own_thread_calls_cannot_wait_for_it(tmp_path: Path) -> None:
    """A listener that is told of a late write there would hang every later one (L7)."""
    journal, caught = SqliteJournal(tmp_path / "writes.journal"), []

    def call_back(draft: object) -> None:
        for call in (lambda: journal.append((Entry(b"k", b"v"),)), lambda: journal.take(1)):
            try:
                call()
            except DeadlockError as error:
                caught.append(type(error))

    journal._do(call_back)
    journal.close()
    assert caught == [DeadlockError] * 2
