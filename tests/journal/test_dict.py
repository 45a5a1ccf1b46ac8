"""What the reference journal has that others have not: it fails on demand, and is opened again without a file."""

from __future__ import annotations

import pytest
from tests.journal.places import FAR_MS, entry, found, put, take_one, texts, wait_for

from credenza.errors import JournalError
from credenza.journal.memory import DictJournal


def test_journal_that_is_told_to_fail_keeps_nothing() -> None:
    """The receipt has the error, as that of a full disk; later it goes on."""
    journal = DictJournal(max_pending=2)
    put(journal, ("a", "1"))
    journal.error = "the disk is full"
    receipt = wait_for(journal.append([entry("a", "2"), entry("b", "1")]))
    assert isinstance(receipt.error, JournalError)
    assert str(receipt.error) == "the disk is full"
    assert (found(journal, "a", "b"), journal.count()) == ({"a": "1"}, 1)
    journal.error = None
    put(journal, ("b", "1"))
    assert texts(journal.take(10)) == [("a", "1"), ("b", "1")]


def test_reopening_ends_the_first_and_leaves_its_writes_to_the_next() -> None:
    """As the restart of a process does."""
    journal = DictJournal()
    put(journal, ("a", "1"), ("b", "1"))
    journal.postpone(take_one(journal, "b"), delay_ms=FAR_MS, failures=1, error="refused")
    again = journal.reopen()
    with pytest.raises(JournalError, match="closed"):
        journal.count()
    assert texts(again.take(10)) == [("a", "1")]
    assert again.count() == 2
    assert again.identity_of([]) == journal.identity_of([])
