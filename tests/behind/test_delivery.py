"""How pending writes reach the source: retried, split, postponed, given up, and never lost or out of order."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import pytest
from tests.behind.conftest import Desk
from tests.support.waiting import wait_until

from credenza import DELETED, MISSING, JournalStatus, NotFound, WriteBatch


class Poison(Exception):
    """The source will not have this record."""


def test_source_that_is_away_gets_everything_when_it_is_back(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Writes are acknowledged meanwhile; one log line and one event for each change of state; no write counts a failure."""
    users = desk.open(max_failures=2)
    desk.source.away = ConnectionRefusedError("no source")
    for number in range(20):
        desk.do("put", number, "value")
    wait_until(lambda: desk.told("source_lost"), "the source to be missed")
    assert not desk.do("flush", timeout=0.3)
    assert desk.do("get", 7) == "value"
    assert users.journal.count() == 20
    desk.source.away = None
    assert desk.do("flush", timeout=10)
    assert desk.source.records == dict.fromkeys(range(20), "value")
    assert desk.told("source_lost") == desk.told("source_back") == [MISSING]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert users.journal.dead() == []


@pytest.mark.parametrize("error", [Poison("no"), sqlite3.OperationalError("no")], ids=["its own", "as if away"])
@pytest.mark.parametrize(("place", "batch_size"), [(0, 500), (4, 500), (9, 500), (4, 1)])
def test_poisonous_write_stops_no_other(desk: Desk, error: Exception, place: int, batch_size: int) -> None:
    """It is found by splitting its batch, tried again behind the others, and becomes a dead letter with its error.

    Where it is never in a batch with others, those that get through between its failures show whose fault they are.
    """
    desk.source.records = {place: "before"}
    users = desk.open(max_failures=3, batch_size=batch_size)
    desk.source.gate.clear()
    desk.source.poison = {place: error}
    for number in range(10):
        desk.do("put", number, "value")
    desk.source.gate.set()
    wait_until(lambda: len(desk.source.records) == 10, "the others to be delivered")
    others = itertools.count(100)

    def is_given_up() -> bool:
        if not isinstance(error, Poison):  # alone it looks like an outage; others that get through show that it is none
            desk.do("put", next(others), "value")
        return bool(desk.told("dead_letter"))

    wait_until(is_given_up, "the write to be given up")
    (letter,) = users.journal.dead()
    assert letter.failures == 3
    assert letter.error == type(error).__qualname__
    assert desk.source.records[place] == "before"
    assert desk.do("get", place) == "before"
    assert desk.told("dead_letter") == [place]
    assert desk.told("write_failed") == [place] * 2


def test_full_batch_does_not_wait_for_others(desk: Desk) -> None:
    """`max_delay` is for writes that might go with others; a batch that is full goes at once."""
    desk.open(batch_size=5, max_delay=3600)
    for number in range(5):
        desk.do("put", number, "value")
    wait_until(lambda: len(desk.source.records) == 5, "the batch to be delivered")


def test_dead_letter_that_is_retried_is_delivered(desk: Desk) -> None:
    """Once the cause is gone; reads see it again from then on."""
    users = desk.open(max_failures=1)
    desk.source.poison = {1: Poison()}
    desk.do("put", 1, "value")
    assert desk.do("flush", timeout=10)
    desk.source.poison = {}
    assert users.journal.retry() == 1
    assert users.journal.dead() == []
    wait_until(lambda: desk.source.records == {1: "value"}, "the letter to be delivered")


def test_dead_letter_that_was_written_anew_is_not_delivered(desk: Desk) -> None:
    """An older write must not come after a newer one of its key."""
    users = desk.open(max_failures=1)
    desk.source.poison = {1: Poison()}
    desk.do("put", 1, "older")
    assert desk.do("flush", timeout=10)
    desk.source.poison = {}
    desk.do("put", 1, "newer")
    assert desk.do("flush", timeout=10)
    assert users.journal.retry() == 0
    (letter,) = users.journal.dead()
    assert letter.is_superseded
    assert users.journal.discard() == 1
    assert desk.source.records == {1: "newer"}


def test_write_that_this_program_cannot_read_is_a_dead_letter(desk: Desk, open_journal: Any) -> None:
    """A value of another version of the program stops nobody, and is not lost."""
    users = desk.open(max_delay=60)
    desk.source.gate.clear()
    desk.do("put", 1, "value")
    behind = users._records.backlog.behind
    users.journal.append([behind.entry_of(2, "value")._replace(value=b"written by somebody else")]).signal.listen(
        None, lambda: None
    )
    wait_until(lambda: users.journal.count() == 2, "the foreign write to be kept")
    desk.source.gate.set()
    assert desk.do("flush", timeout=10)
    (letter,) = users.journal.dead()
    assert letter.value == b"written by somebody else"
    assert letter.error.startswith("unreadable")
    assert desk.source.records == {1: "value"}


def test_journal_is_finished_by_the_next_start(desk: Desk) -> None:
    """What was acknowledged and not delivered is delivered by whoever opens the journal next, and is read meanwhile."""
    desk.source.records = {3: "old"}
    desk.open(close_timeout=0.01)
    desk.source.away = ConnectionError("no source")
    desk.do("put", 1, "value")
    desk.do("put", 2, "value")
    desk.do("delete", 3)
    report = desk.do("close")
    assert (report.pending, bool(report)) == (3, False)
    desk.cache.close()
    desk.open()
    assert desk.do("get", 1) == "value"
    with pytest.raises(NotFound):
        desk.do("get", 3)
    desk.source.away = None
    assert desk.do("flush", timeout=10)
    assert desk.source.records == {1: "value", 2: "value"}


def test_close_of_the_cache_drains_its_journals(desk: Desk) -> None:
    """`Cache.close` goes on writing for `close_timeout`, and leaves no thread behind."""
    users = desk.open(max_delay=60)
    desk.do("put", 1, "value")
    desk.cache.close()
    assert desk.source.records == {1: "value"}
    with pytest.raises(Exception, match="closed"):
        users.journal.append([])


def test_status_tells_what_is_left(desk: Desk) -> None:
    """How many writes are pending, since when, and how many are dead."""
    users = desk.open(max_failures=1)
    desk.source.poison = {1: Poison()}
    desk.do("put", 1, "value")
    assert desk.do("flush", timeout=10).dead == 1
    desk.source.gate.clear()
    desk.do("put", 2, "value")
    status = users.journal.status()
    assert isinstance(status, JournalStatus)
    assert (status.pending, status.dead) == (1, 1)
    assert status.oldest_ms is not None


class Applying:
    """A source that applies each write once, loses replies after it has committed, and notes what it was given where."""

    def __init__(self, *, tells_place: bool = True) -> None:
        self.records: dict[Any, Any] = {}
        self.seen: dict[int, tuple[Any, Any]] = {}
        self.last = 0
        self.fails_after = 0
        self.poison: Any = MISSING
        self._tells_place = tells_place

    def load(self, key: Any) -> Any:
        """Return a record."""
        if key not in self.records:
            raise NotFound
        return self.records[key]

    def store(self, key: Any, value: Any) -> None:
        """Write-behind does not use it."""

    def delete(self, key: Any) -> None:
        """Write-behind does not use it."""

    def apply(self, batch: WriteBatch[Any, Any]) -> int | None:
        """Apply what is later than the last place, all or none."""
        places = [change.place for change in batch.changes]
        assert places == sorted(set(places))
        due = [change for change in batch.changes if change.place > self.last]
        for change in batch.changes:
            assert self.seen.get(change.place, (change.key, change.value)) == (change.key, change.value)
        if any(change.value == self.poison for change in due):
            raise sqlite3.OperationalError("refused, as if the source were away")
        for change in due:
            self.seen[change.place] = (change.key, change.value)
            self.last = change.place
            if change.value is DELETED:
                self.records.pop(change.key, None)
            else:
                self.records[change.key] = change.value
        if batch.changes and self.fails_after:
            self.fails_after -= 1
            raise ConnectionResetError("committed, but nobody was told")
        return self.last if self._tells_place else None


@pytest.mark.parametrize("tells_place", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_source_that_applies_has_each_write_once(desk: Desk, batch_size: int, tells_place: bool) -> None:
    """Whatever replies are lost: no write comes at two places, and none is left out."""
    source = desk.source = Applying(tells_place=tells_place)
    users = desk.open(batch_size=batch_size, backoff=0.001)
    expected = {}
    for number in range(60):
        source.fails_after = number % 3
        key = number % 7
        if number % 5 == 4:
            desk.do("delete", key)
            expected.pop(key, None)
        else:
            desk.do("put", key, number)
            expected[key] = number
    source.fails_after = 0
    assert desk.do("flush", timeout=10)
    assert source.records == expected
    assert users.journal.dead() == []
    values = [value for _, value in source.seen.values() if value is not DELETED]
    assert len(values) == len(set(values))


def test_write_that_an_applying_source_refuses_alone_stops_no_other(desk: Desk) -> None:
    """That it was not applied, though its error looks like an outage, the source says when it is asked for its place."""
    source = desk.source = Applying()
    source.poison = "poison"
    users = desk.open(max_failures=3, max_delay=60)
    for number in range(10):
        desk.do("put", number, "poison" if number == 4 else number)
    assert desk.do("flush", timeout=10)
    assert source.records == {number: number for number in range(10) if number != 4}
    (letter,) = users.journal.dead()
    assert letter.failures == 3
