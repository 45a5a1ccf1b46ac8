"""Every journal against the reference: whatever is asked of both, in whatever order, both hold the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.journal.places import Place, wait_for

from credenza.journal.base import Entry, Journal, Pending

KEYS = [b"a", b"b", b"c", b"d"]
ENTRIES = st.lists(st.builds(Entry, st.sampled_from(KEYS), st.sampled_from([b"1", b"2", None])), max_size=3)
WHICH = st.integers(0, 20)
DELAYS = st.sampled_from([0, 0, 500, 5000])


class OnceSource:
    """A source that applies each write once."""

    def __init__(self) -> None:
        self.place = 0
        self.versions: set[int] = set()

    def apply(self, batch: list[Pending]) -> None:
        """Apply what is behind the last place; all else was applied before."""
        for one in batch:
            if one.place > self.place:
                assert one.version not in self.versions, "a write is applied twice"
                self.versions.add(one.version)
            else:
                assert one.version in self.versions, "a write is left out that was never applied"
        self.place = max([self.place, *(one.place for one in batch)])

    def revoke(self, one: Pending) -> None:
        """Take back what was applied, as it is said to have failed."""
        self.versions.discard(one.version)


class Machine(RuleBasedStateMachine):
    """Two journals; what one call returned is paired with what the same call of the other did."""

    kind: str
    folder: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).number += 1
        self.model_place = Place("dict", "")
        self.place = Place(self.kind, str(self.folder / f"{self.number}.journal"), self.model_place.clock)
        self.model, self.journal = self.open()
        self.sources = [OnceSource(), OnceSource()]
        self.taken: list[tuple[Pending, Pending]] = []
        self.has_waited = False
        self.marks: list[tuple[object, object]] = []

    def open(self) -> tuple[Journal, Journal]:
        """Open both."""
        return self.model_place.open(max_pending=3), self.place.open(max_pending=3)

    @rule(entries=ENTRIES)
    def append(self, entries: list[Entry]) -> None:
        """Write, where there is room."""
        receipts = self.model.append(entries), self.journal.append(entries)
        assert (receipts[0] is None) == (receipts[1] is None)
        if receipts[1] is not None:
            assert wait_for(receipts[1]).error is None

    @rule(limit=st.integers(1, 4))
    def take(self, limit: int) -> None:
        """Take some, and remember them for a while."""
        theirs, ours = self.model.take(limit), self.journal.take(limit)
        assert [one[:2] + one[4:5] for one in ours] == [one[:2] + one[4:5] for one in theirs]
        assert [one.place for one in ours] == sorted({one.place for one in ours})
        self.taken = [*zip(theirs, ours, strict=True), *self.taken][:12]

    @rule(limit=st.integers(1, 4), refused=st.sets(st.integers(0, 3), max_size=2), settles=st.booleans())
    def deliver(self, limit: int, refused: set[int], settles: bool) -> None:
        """Take to a source that keeps the last place and leaves out what is not behind it; perhaps die before settling."""
        for number, journal in enumerate((self.model, self.journal)):
            taken = journal.take(limit)
            for index in sorted(refused):
                if index < len(taken):
                    journal.postpone(taken[index], delay_ms=500, failures=1, error="refused")
                    self.sources[number].revoke(taken[index])
            rest = [one for index, one in enumerate(taken) if index not in refused]
            self.sources[number].apply(rest)
            if settles:
                journal.settle(rest)

    @rule(which=st.lists(WHICH, max_size=4))
    def settle(self, which: list[int]) -> None:
        """Strike off what was taken now or long ago, what is replaced or gone meanwhile included."""
        pairs = [self.taken[index] for index in which if index < len(self.taken)]
        self.model.settle([pair[0] for pair in pairs])
        self.journal.settle([pair[1] for pair in pairs])

    @rule(which=WHICH, delay_ms=DELAYS, failures=st.integers(0, 3))
    def postpone(self, which: int, delay_ms: int, failures: int) -> None:
        """Let one wait."""
        if which < len(self.taken):
            theirs, ours = self.taken[which]
            self.model.postpone(theirs, delay_ms=delay_ms, failures=failures, error="refused")
            self.journal.postpone(ours, delay_ms=delay_ms, failures=failures, error="refused")
            self.sources[0].revoke(theirs)
            self.sources[1].revoke(ours)

    @rule(which=WHICH)
    def bury(self, which: int) -> None:
        """Give one up."""
        if which < len(self.taken):
            theirs, ours = self.taken[which]
            assert self.model.bury(theirs, error="refused") == self.journal.bury(ours, error="refused")

    @rule(numbers=st.one_of(st.none(), st.lists(st.integers(1, 6), max_size=3)))
    def retry(self, numbers: list[int] | None) -> None:
        """Try dead letters again."""
        assert self.model.retry(numbers) == self.journal.retry(numbers)

    @rule(numbers=st.one_of(st.none(), st.lists(st.integers(1, 6), max_size=3)))
    def discard(self, numbers: list[int] | None) -> None:
        """Forget dead letters."""
        assert self.model.discard(numbers) == self.journal.discard(numbers)

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def let_pass(self, seconds: float) -> None:
        """Wait, for delays to be over."""
        self.place.clock.advance(seconds)
        self.has_waited = True

    @rule()
    def mark(self) -> None:
        """Remember how far it is."""
        self.marks = [(self.model.mark(), self.journal.mark()), *self.marks][:3]

    @precondition(lambda self: not self.has_waited)
    @rule()
    def reopen(self) -> None:
        """Close both, and open them again: not after the test's clock has gone on, as delays are kept by the wall's."""
        self.model.close()
        self.journal.close()
        self.model, self.journal = self.open()
        self.marks = []

    @invariant()
    def both_hold_the_same(self) -> None:
        """Values, dead letters, room and marks."""
        values = self.model.find(KEYS)
        assert self.journal.find(KEYS) == values
        assert [key for key in KEYS if self.journal.owes(key)] == sorted(values)
        assert self.journal.count() == self.model.count() == len(values)
        assert timeless(self.journal) == timeless(self.model)
        assert self.journal.has_room().is_set == self.model.has_room().is_set
        for theirs, ours in self.marks:
            assert self.journal.is_past(ours) == self.model.is_past(theirs)

    def teardown(self) -> None:
        """Close what this run opened."""
        self.place.close()
        self.model_place.close()


def timeless(journal: Journal) -> list[tuple[Any, ...]]:
    """Return the dead letters without their times."""
    return [(one.number, one.key, one.value, one.failures, one.error, one.is_superseded) for one in journal.dead()]


@pytest.mark.timeout(120)
def test_journal_and_reference_hold_the_same(kind: str, tmp_path: Path) -> None:
    """For any calls in any order, closing and opening again included."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    machine = type("Machine", (Machine,), {"kind": kind, "folder": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )
