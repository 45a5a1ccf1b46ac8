"""What a repository with write-behind promises to who writes and reads: the journal first, and no read without it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.behind.conftest import Desk

from credenza import ConfigurationError, JournalError, JournalFull, NotFound, UsageError, WriteBehind
from credenza.testing import DictSource


def test_put_returns_before_the_source_has_it(desk: Desk) -> None:
    """The write is in the journal; the source learns of it later."""
    users = desk.open()
    desk.source.gate.clear()
    desk.do("put", 42, "Ann")
    assert desk.source.records == {}
    assert users.journal.count() == 1
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert desk.source.records == {42: "Ann"}


@pytest.mark.parametrize("evicts", [False, True])
def test_pending_write_is_what_reads_see(desk: Desk, evicts: bool) -> None:
    """From memory, and from the journal once memory has forgotten it; not what the source still holds."""
    desk.source.records = {1: "old", 2: "old", 3: "other"}
    desk.open()
    desk.source.gate.clear()
    assert desk.do("get", 1) == "old"
    desk.do("put", 1, "new")
    desk.do("put", 2, "new")
    if evicts:
        desk.cache.clear()
    assert desk.do("get", 1) == "new"
    if evicts:
        desk.cache.clear()
    assert desk.do("get_many", [1, 2, 3, 4]) == {1: "new", 2: "new", 3: "other"}


@pytest.mark.parametrize("evicts", [False, True])
def test_pending_delete_is_what_reads_see(desk: Desk, evicts: bool) -> None:
    """A record that is to be deleted is not there, for single reads and for many."""
    desk.source.records = {1: "old", 2: "other"}
    desk.open()
    desk.source.gate.clear()
    desk.do("put", 3, "soon gone")
    desk.do("delete", 3)
    desk.do("delete", 1)
    if evicts:
        desk.cache.clear()
    with pytest.raises(NotFound):
        desk.do("get", 1)
    assert desk.do("get_many", [1, 2, 3]) == {2: "other"}
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert desk.source.records == {2: "other"}


def test_load_that_a_put_overtakes_is_not_kept(desk: Desk) -> None:
    """1. A load reads the old value. 2. A put returns. 3. The load ends: its value must not be read by who comes now (I1)."""
    desk.source.records = {1: "old"}
    users = desk.open()
    desk.source.gate.clear()
    loads, reading, goes_on = desk.source.load, threading.Event(), threading.Event()

    def slow_load(key: Any) -> Any:
        value = loads(key)
        reading.set()
        assert goes_on.wait(10)
        return value

    desk.source.load = slow_load
    reader = threading.Thread(target=users.get, args=(1,))
    reader.start()
    assert reading.wait(10)
    desk.do("put", 1, "new")
    goes_on.set()
    reader.join()
    desk.source.load = loads
    assert desk.do("get", 1) == "new"
    assert desk.do("get_many", [1]) == {1: "new"}


def test_writes_of_one_key_become_one(desk: Desk) -> None:
    """The last one of those that are pending goes to the source, and the others never do."""
    desk.open()
    desk.source.gate.clear()
    for number in range(50):
        desk.do("put", "hot", number)
        desk.do("put", f"cold {number % 5}", number)
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert desk.source.records["hot"] == 49
    assert sum("hot" in batch for batch in desk.source.batches) <= 2


def test_last_write_wins_whatever_is_under_way(desk: Desk) -> None:
    """A write that comes while an older one of its key is being delivered is delivered after it."""
    desk.open()
    desk.source.gate.clear()
    desk.do("put", 1, "first")
    assert desk.source.arrived.wait(10)
    desk.do("put", 1, "second")
    desk.do("delete", 2)
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert [batch[1] for batch in desk.source.batches if 1 in batch] == ["first", "second"]
    assert desk.source.records == {1: "second"}


def test_batches_have_at_most_batch_size(desk: Desk) -> None:
    """A large backlog goes in parts, in the order in which the records were written first."""
    desk.open(batch_size=10)
    desk.source.gate.clear()
    for number in range(35):
        desk.do("put", number, "value")
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert max(map(len, desk.source.batches)) <= 10
    assert [key for batch in desk.source.batches for key in batch] == list(range(35))


def test_full_journal_raises_where_it_is_to_raise(desk: Desk) -> None:
    """Nothing is dropped, and the write has not happened; one over a pending write has room."""
    users = desk.open(when_full="raise", journal=desk._open_journal(max_pending=3))
    desk.source.gate.clear()
    for number in range(3):
        desk.do("put", number, "value")
    with pytest.raises(JournalFull):
        desk.do("put", 3, "value")
    desk.do("put", 1, "newer")
    assert users.journal.count() == 3
    with pytest.raises(NotFound):
        desk.do("get", 3)
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    assert desk.source.records == {0: "value", 1: "newer", 2: "value"}
    desk.do("put", 3, "value")


def test_full_journal_blocks_until_the_source_has_taken_some(desk: Desk) -> None:
    """The writer waits, and goes on by itself."""
    users = desk.open(journal=desk._open_journal(max_pending=2), max_delay=60)
    desk.source.gate.clear()
    desk.do("put", 1, "value")
    desk.do("put", 2, "value")
    threading.Timer(0.05, desk.source.gate.set).start()
    desk.do("put", 3, "value")
    assert users.journal.count() <= 2
    assert desk.do("flush", timeout=10)
    assert desk.source.records == {1: "value", 2: "value", 3: "value"}


def test_full_journal_raises_after_block_timeout(desk: Desk) -> None:
    """Who does not want to wait for ever says for how long."""
    desk.open(journal=desk._open_journal(max_pending=1), block_timeout=0.02)
    desk.source.gate.clear()
    desk.do("put", 1, "value")
    with pytest.raises(JournalFull, match="block_timeout=0.02"):
        desk.do("put", 2, "value")


@pytest.mark.parametrize(("key", "value"), [(1, object()), (1, {"a": (1, 2)}), (1.5, "value"), (1, "x" * 2_000_000)])
def test_what_would_not_come_back_is_refused(desk: Desk, key: Any, value: Any) -> None:
    """The journal keeps what it can give back to the letter; the write has not happened."""
    users = desk.open()
    with pytest.raises(UsageError, match="the journal cannot keep this"):
        desk.do("put", key, value)
    assert users.journal.count() == 0


def test_write_after_close_is_refused(desk: Desk) -> None:
    """A repository that was closed acknowledges nothing."""
    desk.open()
    assert desk.do("close")
    with pytest.raises(JournalError):
        desk.do("put", 1, "value")
    assert desk.do("close")


def test_source_without_batches_is_refused() -> None:
    """Write-behind says what the source has to have."""

    class Single:
        def load(self, key: int) -> str:
            return "value"

        def store(self, key: int, value: str) -> None: ...

        def delete(self, key: int) -> None: ...

    from credenza import Cache

    with Cache() as cache, pytest.raises(ConfigurationError, match="store_many"):
        cache.repository(Single(), strategy=WriteBehind("never-made.journal"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an int of at least 1, got 0"),
        ({"max_pending": True}, "max_pending"),
        ({"durability": "ram"}, 'durability must be "disk" or "os"'),
        ({"when_full": "drop"}, 'when_full must be "block" or "raise"'),
        ({"when_full": "raise", "block_timeout": 1}, "contradicts"),
        ({"max_delay": "soon"}, "max_delay"),
        ({"backoff": -1}, "backoff"),
    ],
)
def test_options_are_checked_when_they_are_built(options: dict[str, Any], message: str) -> None:
    """A wrong option raises before anything is opened, and says what would be right."""
    with pytest.raises(ConfigurationError, match=message):
        WriteBehind("never-made.journal", **options)


def test_other_strategies_have_nothing_to_flush(desk: Desk) -> None:
    """`flush` and `close` may be called whatever the strategy is."""
    from credenza import Cache

    with Cache() as cache:
        users = cache.repository(DictSource())
        assert users.flush()
        assert users.close()
        with pytest.raises(UsageError, match=r"CacheAside\(\) has no journal"):
            _ = users.journal
