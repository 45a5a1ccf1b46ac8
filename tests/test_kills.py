"""A short run of bench.kills: writers that are killed lose nothing they acknowledged, and the ledger notices those that do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
from bench.kills import outage
from bench.kills.ledger import Ledger, Verdict
from bench.kills.nursery import Nursery
from bench.kills.plan import AT_LEAST_ONCE, CONTROLS, EXACTLY_ONCE, MOMENTS, Arm, Moment, Orders, moment, orders_until
from bench.kills.records import Kind, Listener, Record
from bench.kills.report import as_text
from bench.kills.run import Outcome, Places, run

KILLS = 12
MOST_KILLS = 200


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """What starts the writers of all tests."""
    with Nursery() as started:
        yield started


def shown(outcome: Outcome) -> str:
    return as_text([outcome], "a short run")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("arm", [AT_LEAST_ONCE, EXACTLY_ONCE], ids=lambda arm: arm.delivery)
def test_killed_writers_lose_nothing_that_was_acknowledged(arm: Arm, nursery: Nursery) -> None:
    """After kills at random moments the source has the last acknowledged value of each key, or one that was cut off."""
    outcome = run(arm, KILLS, 1, Places(), nursery)
    assert outcome.is_as_promised, shown(outcome)
    assert outcome.kills.total() >= KILLS
    assert outcome.verdict.acknowledged > KILLS, shown(outcome)
    assert outcome.rescued > 0, shown(outcome)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda arm: arm.sabotage)
def test_writer_that_is_broken_on_purpose_is_noticed(control: Arm, nursery: Nursery) -> None:
    """Each control ends with the finding that its broken rule leads to."""
    outcome = run(control, MOST_KILLS, 2, Places(), nursery)
    assert outcome.is_as_promised, shown(outcome)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("when_full", ["block", "raise"])
def test_source_that_is_away_gets_everything_in_order_when_it_is_back(when_full: str, nursery: Nursery) -> None:
    """Until then puts go on up to the bound, then block or raise, and the process does not grow."""
    outcome = outage.run(when_full, 1.0, 3, Places(), nursery, bound=1_000)
    assert outcome.is_as_promised, outage.as_text([outcome])
    assert outcome.pending == outcome.bound
    assert outcome.late == 0


# The ledger itself ----------------------------------------------------------------------------------------------------

SENT, DELETED, KEPT, FAILED, FULL = Kind.SENT, Kind.DELETED, Kind.KEPT, Kind.FAILED, Kind.FULL


def judge(*processes: Sequence[tuple[Kind, int]], found: int, key: int = 5) -> Verdict:
    """Follow processes that write one key, each of which is killed at its end, and compare with what the source has."""
    ledger = Ledger()
    for records in processes:
        for kind, number in records:
            ledger.note(Record(kind, key, number))
        ledger.end_process()
    ledger.check({key: found} if found else {})
    return ledger.verdict


def told(verdict: Verdict) -> tuple[int, int]:
    return verdict.lost, verdict.invented


def test_ledger_accepts_the_last_acknowledged_value_only() -> None:
    """What was acknowledged before it is lost, and what nobody sent is invented."""
    writes = [(SENT, 1), (KEPT, 1), (SENT, 2), (KEPT, 2)]
    assert told(judge(writes, found=2)) == (0, 0)
    assert told(judge(writes, found=1)) == (1, 0)
    assert told(judge(writes, found=0)) == (1, 0)
    assert told(judge(writes, found=3)) == (0, 1)


def test_ledger_accepts_a_write_that_was_cut_off_or_failed() -> None:
    """It may have been kept or not, until a later one of its key was acknowledged."""
    for end in ([], [(FAILED, 2)]):
        writes = [(SENT, 1), (KEPT, 1), (SENT, 2), *end]
        assert [told(judge(writes, found=number)) for number in (1, 2)] == [(0, 0), (0, 0)]
        later = [(SENT, 3), (KEPT, 3)]
        assert [told(judge(writes, later, found=number)) for number in (1, 2, 3)] == [(1, 0), (1, 0), (0, 0)]
    assert judge([(SENT, 1)], found=0).cut_off == 1


def test_ledger_accepts_either_of_two_writes_that_overlap() -> None:
    """Both are acknowledged, and nobody knows which came last."""
    writes = [(SENT, 1), (SENT, 2), (KEPT, 2), (KEPT, 1)]
    assert [told(judge(writes, found=number)) for number in (0, 1, 2)] == [(1, 0), (0, 0), (0, 0)]


def test_ledger_accepts_no_write_that_found_the_journal_full() -> None:
    """Its writer was told that it was not kept."""
    writes = [(SENT, 1), (KEPT, 1), (SENT, 2), (FULL, 2)]
    assert told(judge(writes, found=1)) == (0, 0)
    assert told(judge(writes, found=2)) == (0, 1)
    assert judge(writes, found=1).refused == 1


def test_ledger_takes_a_delete_for_a_write_of_nothing() -> None:
    """After one that was acknowledged, no row may be there."""
    writes = [(SENT, 1), (KEPT, 1), (DELETED, 2), (KEPT, 2)]
    assert told(judge(writes, found=0)) == (0, 0)
    assert told(judge(writes, found=1)) == (1, 0)
    assert told(judge([*writes, (SENT, 3), (KEPT, 3)], found=0)) == (1, 0)


def test_ledger_notices_a_read_that_misses_an_acknowledged_write() -> None:
    """What a read has seen is kept from then on, too, whether it was acknowledged or not."""
    ledger = Ledger()
    for record in (Record(SENT, 1, 1), Record(KEPT, 1, 1), Record(SENT, 1, 2)):
        ledger.note(record)
    ledger.end_process()
    for number, stale in ((1, 0), (2, 0), (1, 1), (0, 2)):
        ledger.note(Record(Kind.READ, 1, number))
        assert ledger.verdict.stale == stale


def test_ledger_counts_what_the_source_lacks() -> None:
    """A key is owed while the source has another value than the one that was acknowledged last."""
    ledger = Ledger()
    for key in (1, 2, 3):
        ledger.note(Record(SENT, key, key))
    for key in (1, 2):
        ledger.note(Record(KEPT, key, key))
    assert ledger.owed({1: 1}) == 1
    assert ledger.owed({1: 1, 2: 2}) == 0


def test_verdict_forgives_a_write_that_comes_twice_at_least_once_only() -> None:
    """Everything else is against both promises."""
    verdict = Verdict(twice=1)
    assert verdict.wrong(exactly_once=False) == 0
    assert verdict.wrong(exactly_once=True) == 1
    for name in ("lost", "stale", "invented", "backwards", "left", "dead"):
        verdict = Verdict()
        setattr(verdict, name, 1)
        assert verdict.wrong(exactly_once=False) == 1


def test_listener_puts_records_together_that_came_in_pieces() -> None:
    """A pipe may be read in the middle of a record."""
    whole = bytes([Kind.SENT]) + (7).to_bytes(4, "little") + (9).to_bytes(8, "little")
    listener = Listener()
    assert list(listener.take(whole + whole[:5])) == [Record(SENT, 7, 9)]
    assert list(listener.take(whole[5:])) == [Record(SENT, 7, 9)]


def test_orders_lead_to_their_moment() -> None:
    """A writer that is to die in a delivery is told where, and one that is to die while it closes is told to close."""
    chosen, orders = random.Random(1), Orders("journal", "source", 1, 1)
    assert orders_until(Moment("delivery", 0), orders, chosen).dies_at
    assert orders_until(Moment("close", 0), orders, chosen).lasts is not None
    assert orders_until(Moment("load", 0), orders, chosen) == orders
    assert {moment(chosen, MOMENTS).kind for _ in range(100)} == set(MOMENTS)
    assert Orders.from_text(orders.as_text()) == orders
