"""What every journal promises: keeping, turns, delivery, dead letters, waiting, and what is there after it was closed."""

from __future__ import annotations

import threading
import time

import pytest
from tests.journal.places import FAR_MS, TIMEOUT_NS, Place, entry, found, put, take_one, texts, wait_for
from tests.support.waiting import DEADLINE, Call, results, start_together, wait_until

from credenza.errors import JournalError, JournalFull
from credenza.journal.base import Journal

# Keeping --------------------------------------------------------------------------------------------------------------


def test_write_that_was_acknowledged_is_pending(journal: Journal) -> None:
    """Its value is found, and that of a deletion is None; nothing is known of other keys."""
    put(journal, ("a", "1"), ("b", None))
    assert found(journal, "a", "b", "c") == {"a": "1", "b": None}
    assert [journal.owes(key) for key in (b"a", b"b", b"c")] == [True, True, False]
    assert journal.count() == 2


def test_later_write_of_a_key_replaces_the_earlier_one(journal: Journal) -> None:
    """In one append or in several; the value that is delivered is the last."""
    put(journal, ("a", "1"), ("a", "2"))
    assert found(journal, "a") == {"a": "2"}
    put(journal, ("a", "3"))
    put(journal, ("a", None))
    assert texts(journal.take(10)) == [("a", None)]


def test_version_grows_with_every_write(journal: Journal) -> None:
    """So that what was delivered can be told from what came later."""
    put(journal, ("a", "1"))
    first = take_one(journal, "a").version
    put(journal, ("b", "1"))
    put(journal, ("a", "2"))
    second, third = take_one(journal, "b").version, take_one(journal, "a").version
    assert first < second < third


def test_values_come_back_byte_for_byte(journal: Journal) -> None:
    """Empty ones, zeros, and large ones; keys as well."""
    values = {b"": b"", b"\x00": b"\x00\xff", b"k" * 1000: bytes(range(256)) * 2000, "ü".encode(): b"x"}
    for key, value in values.items():
        assert wait_for(journal.append([entry("", "")._replace(key=key, value=value)])).error is None
    assert journal.find(list(values)) == values
    assert {one.key: one.value for one in journal.take(10)} == values


def test_nothing_to_keep_is_kept_at_once(journal: Journal) -> None:
    """An append of no entries has a receipt like others."""
    assert wait_for(journal.append([])).error is None
    assert journal.count() == 0


def test_writes_of_many_threads_are_all_kept(journal: Journal) -> None:
    """Each in the order of its own thread's calls."""
    numbers = iter(range(8))

    def write() -> None:
        number = next(numbers)
        for turn in range(20):
            put(journal, (f"own-{number}", str(turn)), ("common", f"{number}-{turn}"))

    results(start_together(8, write))
    kept = found(journal, *[f"own-{number}" for number in range(8)], "common")
    assert [kept[f"own-{number}"] for number in range(8)] == ["19"] * 8
    assert (kept["common"] or "").endswith("-19")
    assert journal.count() == 9


def test_appends_that_nobody_waits_for_keep_their_order(journal: Journal) -> None:
    """The last call of a thread has the last word."""
    receipts = [journal.append([entry("a", str(number))]) for number in range(50)]
    for receipt in receipts:
        assert wait_for(receipt).error is None
    assert found(journal, "a") == {"a": "49"}


# Room -----------------------------------------------------------------------------------------------------------------


def test_full_journal_takes_no_new_key(place: Place) -> None:
    """It says so, and keeps nothing of an append that fits in part only."""
    journal = place.open(max_pending=2)
    put(journal, ("a", "1"))
    assert journal.append([entry("b", "1"), entry("c", "1")]) is None
    assert journal.count() == 1
    put(journal, ("b", "1"))
    assert journal.append([entry("c", "1")]) is None
    assert found(journal, "a", "b", "c") == {"a": "1", "b": "1"}


def test_full_journal_takes_writes_over_pending_ones(place: Place) -> None:
    """They need no room."""
    journal = place.open(max_pending=2)
    put(journal, ("a", "1"), ("b", "1"))
    put(journal, ("b", "2"), ("a", None))
    assert found(journal, "a", "b") == {"a": None, "b": "2"}


def test_more_writes_at_once_than_fit_at_all_are_refused(place: Place) -> None:
    """Whoever waited for room for them would wait for ever."""
    journal = place.open(max_pending=2)
    with pytest.raises(JournalFull, match="max_pending"):
        journal.append([entry("a", "1"), entry("b", "1"), entry("c", "1")])


def test_settled_write_makes_room(place: Place) -> None:
    """Whoever waits for room is told."""
    journal = place.open(max_pending=1)
    assert journal.has_room().is_set
    put(journal, ("a", "1"))
    room = journal.has_room()
    assert not room.is_set
    journal.settle(journal.take(10))
    assert room.is_set
    put(journal, ("b", "1"))


def test_buried_write_makes_room(place: Place) -> None:
    """A dead letter does not count as pending."""
    journal = place.open(max_pending=1)
    put(journal, ("a", "1"))
    room = journal.has_room()
    assert journal.bury(take_one(journal, "a"), error="refused")
    assert room.is_set
    put(journal, ("b", "1"))


def test_settling_a_key_that_is_written_again_leaves_it_its_room(place: Place) -> None:
    """The bound holds for keys that are queued as well as for those that are kept."""
    journal = place.open(max_pending=1)
    for turn in range(30):
        put(journal, ("a", str(turn)))
        (taken,) = journal.take(1)
        receipt = journal.append([entry("a", "again")])
        journal.settle([taken])
        assert wait_for(receipt).error is None
        assert journal.count() == 1
        assert journal.append([entry("b", "1")]) is None
        journal.settle(journal.take(1))


# Turns ----------------------------------------------------------------------------------------------------------------


def test_writes_are_taken_in_the_order_of_their_first_appends(journal: Journal) -> None:
    """At most as many as asked for; a hot key keeps its turn."""
    for key in "abc":
        put(journal, (key, "1"))
    put(journal, ("a", "2"))
    assert texts(journal.take(2)) == [("a", "2"), ("b", "1")]


def test_what_was_taken_and_not_settled_is_taken_again(journal: Journal) -> None:
    """With the same place, so that a source can tell that it has it."""
    put(journal, ("a", "1"), ("b", "1"))
    first = journal.take(10)
    assert journal.take(10) == first


def test_write_over_one_that_was_taken_goes_behind_all(journal: Journal) -> None:
    """It may be delivered at its old place at this moment."""
    put(journal, ("a", "1"))
    put(journal, ("b", "1"))
    (old,) = journal.take(1)
    put(journal, ("a", "2"))
    taken = journal.take(10)
    assert texts(taken) == [("b", "1"), ("a", "2")]
    assert old.place < taken[0].place < taken[1].place


def test_write_over_one_behind_those_that_were_taken_keeps_its_turn(journal: Journal) -> None:
    """Only what was taken has moved on."""
    for key in "abc":
        put(journal, (key, "1"))
    place = journal.take(3)[1].place
    journal.settle(journal.take(3))
    put(journal, ("d", "1"), ("e", "1"))
    put(journal, ("d", "2"))
    taken = journal.take(10)
    assert texts(taken) == [("d", "2"), ("e", "1")]
    assert taken[0].place > place


def test_places_are_never_given_twice(place: Place) -> None:
    """Not to another write, and not after the journal was opened again."""
    seen: set[int] = set()
    for turn in range(4):
        journal = place.open()
        for key in "ab":
            put(journal, (key, str(turn)))
        places = {one.place for one in journal.take(10)}
        assert len(places) == 2
        assert not places & seen
        seen |= places
        if turn % 2:
            journal.settle(journal.take(10))
        journal.close()


# Delivery -------------------------------------------------------------------------------------------------------------


def test_settled_write_is_gone(journal: Journal) -> None:
    """Nothing is pending any more."""
    put(journal, ("a", "1"), ("b", "1"))
    journal.settle(journal.take(1))
    assert found(journal, "a", "b") == {"b": "1"}
    assert (journal.count(), journal.owes(b"a")) == (1, False)
    assert texts(journal.take(10)) == [("b", "1")]


def test_write_that_came_during_the_delivery_stays(journal: Journal) -> None:
    """What was delivered is struck off by its version."""
    put(journal, ("a", "1"))
    taken = journal.take(10)
    put(journal, ("a", "2"))
    journal.settle(taken)
    assert found(journal, "a") == {"a": "2"}
    journal.settle(taken)
    assert texts(journal.take(10)) == [("a", "2")]


def test_settling_twice_changes_nothing_more(journal: Journal) -> None:
    """Nor does settling what was never there."""
    put(journal, ("a", "1"), ("b", "1"))
    taken = journal.take(1)
    journal.settle(taken)
    journal.settle(taken)
    journal.settle([])
    assert journal.count() == 1


def test_postponed_write_is_not_taken_before_it_is_due(journal: Journal, place: Place) -> None:
    """It is pending all the same."""
    put(journal, ("a", "1"), ("b", "1"))
    taken = take_one(journal, "a")
    journal.postpone(taken, delay_ms=FAR_MS, failures=3, error="refused")
    assert texts(journal.take(10)) == [("b", "1")]
    assert (found(journal, "a"), journal.count()) == ({"a": "1"}, 2)
    place.clock.advance(FAR_MS / 1000 + 1)
    late = take_one(journal, "a")
    assert (late.failures, late.version) == (3, taken.version)
    assert late.place > taken.place


def test_postponed_write_comes_behind_what_was_delivered_meanwhile(journal: Journal, place: Place) -> None:
    """A source that has noted a later place would leave it out otherwise."""
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=FAR_MS, failures=1, error="refused")
    put(journal, ("b", "1"))
    (delivered,) = journal.take(10)
    journal.settle([delivered])
    place.clock.advance(FAR_MS / 1000 + 1)
    assert take_one(journal, "a").place > delivered.place


def test_postponed_write_that_is_due_keeps_the_place_it_was_taken_with(journal: Journal) -> None:
    """From then on it is a write like others."""
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=0, failures=1, error="refused")
    first = take_one(journal, "a")
    put(journal, ("b", "1"))
    assert take_one(journal, "a") == first


def test_write_over_a_postponed_one_is_due_at_once(journal: Journal) -> None:
    """It is another value, and has not failed."""
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=FAR_MS, failures=3, error="refused")
    put(journal, ("a", "2"))
    later = take_one(journal, "a")
    assert (later.value, later.failures) == (b"2", 0)


def test_write_that_was_replaced_is_not_postponed(journal: Journal) -> None:
    """The later one must not wait for the sake of the earlier."""
    put(journal, ("a", "1"))
    taken = take_one(journal, "a")
    put(journal, ("a", "2"))
    journal.postpone(taken, delay_ms=FAR_MS, failures=3, error="refused")
    assert texts(journal.take(10)) == [("a", "2")]
    journal.settle(journal.take(10))
    journal.postpone(taken, delay_ms=0, failures=3, error="refused")
    assert journal.count() == 0


# Dead letters ---------------------------------------------------------------------------------------------------------


def test_buried_write_is_a_dead_letter_and_pending_no_more(journal: Journal) -> None:
    """With its value and the last error."""
    put(journal, ("a", "1"), ("b", None))
    before_ms = time.time_ns() // 1_000_000
    assert journal.bury(take_one(journal, "a"), error="refused")
    assert journal.bury(take_one(journal, "b"), error="refused, too")
    first, second = journal.dead()
    assert (first.key, first.value, first.error, first.is_superseded) == (b"a", b"1", "refused", False)
    assert (second.key, second.value, second.error) == (b"b", None, "refused, too")
    assert first.number < second.number
    assert before_ms <= first.died_ms <= second.died_ms
    assert (journal.count(), found(journal, "a", "b")) == (0, {})
    assert (journal.status().pending, journal.status().dead) == (0, 2)


def test_write_that_was_replaced_is_not_buried(journal: Journal) -> None:
    """The later one is pending."""
    put(journal, ("a", "1"))
    taken = take_one(journal, "a")
    put(journal, ("a", "2"))
    assert not journal.bury(taken, error="refused")
    assert (journal.dead(), found(journal, "a")) == ([], {"a": "2"})


def test_retried_dead_letter_is_pending_again(journal: Journal) -> None:
    """Behind all others, and with no failures."""
    put(journal, ("a", "1"), ("b", "1"))
    journal.bury(take_one(journal, "a"), error="refused")
    assert journal.retry() == 1
    taken = journal.take(10)
    assert texts(taken) == [("b", "1"), ("a", "1")]
    assert taken[1].failures == 0
    assert (journal.dead(), journal.retry()) == ([], 0)


def test_dead_letter_is_superseded_by_a_later_write(journal: Journal) -> None:
    """Delivered now, it would undo the later one, which may have been delivered long ago."""
    put(journal, ("a", "1"), ("b", "1"))
    for key in "ab":
        journal.bury(take_one(journal, key), error="refused")
    put(journal, ("a", "2"))
    journal.settle(journal.take(10))
    assert [letter.is_superseded for letter in journal.dead()] == [True, False]
    assert journal.retry() == 1
    assert texts(journal.take(10)) == [("b", "1")]
    assert [letter.key for letter in journal.dead()] == [b"a"]


def test_dead_letters_are_retried_and_discarded_by_number(journal: Journal) -> None:
    """Others stay; numbers that do not exist are no error."""
    for key in "abc":
        put(journal, (key, "1"))
        journal.bury(take_one(journal, key), error="refused")
    a, b, c = [letter.number for letter in journal.dead()]
    assert journal.retry([b, b, c + 100]) == 1
    assert journal.discard([a, b]) == 1
    assert [letter.number for letter in journal.dead()] == [c]
    assert journal.retry([]) == journal.discard([]) == 0
    assert journal.discard() == 1
    assert (journal.dead(), found(journal, "a", "b", "c")) == ([], {"b": "1"})


def test_letter_that_dies_again_has_a_new_number(journal: Journal) -> None:
    """A number that an operator has noted never means another letter."""
    put(journal, ("a", "1"))
    numbers = []
    for _ in range(3):
        journal.bury(take_one(journal, "a"), error="refused")
        numbers += [letter.number for letter in journal.dead()]
        assert journal.retry() == 1
    assert sorted(set(numbers)) == numbers


# Waiting --------------------------------------------------------------------------------------------------------------


def test_wait_ends_when_something_is_appended(journal: Journal) -> None:
    """Also for what was appended before it began, unless it was taken."""
    call = Call(lambda: journal.wait(TIMEOUT_NS))
    put(journal, ("a", "1"))
    call.result()
    Call(lambda: journal.wait(TIMEOUT_NS)).result()


def test_wait_for_what_was_taken_does_not_end(journal: Journal) -> None:
    """A source that is away must not make its deliverer run in circles."""
    put(journal, ("a", "1"), ("b", "1"))
    journal.take(10)
    call = Call(lambda: journal.wait(TIMEOUT_NS))
    began = time.monotonic()
    journal.wait(20_000_000)
    assert time.monotonic() - began >= 0.02
    assert not call.is_done
    put(journal, ("a", "2"))
    call.result()


def test_wait_for_what_was_postponed_does_not_end(journal: Journal) -> None:
    """Before it is due, there is nothing to take."""
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=FAR_MS, failures=1, error="refused")
    began = time.monotonic()
    journal.wait(20_000_000)
    assert time.monotonic() - began >= 0.02
    assert journal.take(10) == []


def test_wait_ends_at_once_while_not_all_was_taken(journal: Journal) -> None:
    """What a limit has left over."""
    put(journal, ("a", "1"), ("b", "1"))
    journal.take(1)
    Call(lambda: journal.wait(TIMEOUT_NS)).result()


def test_wait_ends_when_it_is_woken(journal: Journal) -> None:
    """Even if it has not quite begun, and once only."""
    journal.wake()
    journal.wait(TIMEOUT_NS)
    call = Call(lambda: journal.wait(TIMEOUT_NS))
    journal.wake()
    call.result()


def test_wait_ends_when_a_postponed_write_is_due(journal: Journal) -> None:
    """Nobody else would say so."""
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=0, failures=1, error="refused")
    journal.wait(TIMEOUT_NS)
    assert texts(journal.take(10)) == [("a", "1")]


def test_wait_ends_when_the_journal_is_closed(journal: Journal) -> None:
    """The thread that delivers must not outlive it."""
    is_waiting = threading.Event()

    def wait() -> None:
        is_waiting.set()
        try:
            journal.wait(TIMEOUT_NS)
        except JournalError:
            pass

    call = Call(wait)
    assert is_waiting.wait(DEADLINE)
    journal.close()
    call.result()


# Marks ----------------------------------------------------------------------------------------------------------------


def test_mark_is_passed_when_all_before_it_is_settled(journal: Journal) -> None:
    """What came later does not count; nothing pending is past every mark."""
    assert journal.is_past(journal.mark())
    put(journal, ("a", "1"), ("b", "1"))
    mark = journal.mark()
    put(journal, ("c", "1"))
    assert not journal.is_past(mark)
    journal.settle(journal.take(1))
    assert not journal.is_past(mark)
    journal.settle(journal.take(1))
    assert journal.is_past(mark)


def test_mark_is_not_passed_by_a_write_that_was_replaced(journal: Journal) -> None:
    """The source has neither the write nor its successor."""
    put(journal, ("a", "1"))
    mark = journal.mark()
    put(journal, ("a", "2"))
    assert not journal.is_past(mark)
    journal.settle(journal.take(1))
    assert journal.is_past(mark)


def test_mark_is_passed_for_a_key_that_is_written_all_the_time(journal: Journal) -> None:
    """One delivery of what was there suffices, although the key never ceases to be pending."""
    put(journal, ("a", "1"))
    mark = journal.mark()
    for turn in range(3):
        taken = journal.take(1)
        put(journal, ("a", f"later-{turn}"))
        journal.settle(taken)
    assert journal.is_past(mark)


def test_mark_is_not_passed_while_a_write_is_postponed(journal: Journal) -> None:
    """A dead letter, on the other hand, is pending no more."""
    put(journal, ("a", "1"))
    mark = journal.mark()
    journal.postpone(take_one(journal, "a"), delay_ms=0, failures=1, error="refused")
    assert not journal.is_past(mark)
    journal.bury(take_one(journal, "a"), error="refused")
    assert journal.is_past(mark)


# Closing and opening --------------------------------------------------------------------------------------------------


def test_journal_that_is_opened_again_holds_what_it_held(place: Place) -> None:
    """Pending writes in their order, postponed ones with their delay, dead letters, and its name."""
    journal = place.open()
    for key in "abcd":
        put(journal, (key, "1"))
    put(journal, ("e", None))
    taken = {one.key: one for one in journal.take(10)}
    journal.postpone(taken[b"a"], delay_ms=FAR_MS, failures=2, error="refused")
    journal.bury(taken[b"b"], error="refused")
    journal.settle([taken[b"c"]])
    name, letters, oldest_ms = journal.identity_of([]), journal.dead(), journal.status().oldest_ms
    journal.close()
    again = place.open()
    assert (again.identity_of([]), again.dead(), again.status().oldest_ms) == (name, letters, oldest_ms)
    assert found(again, *"abcde") == {"a": "1", "d": "1", "e": None}
    kept = again.take(10)
    assert kept == [taken[b"d"], taken[b"e"]]
    place.clock.advance(2 * FAR_MS / 1000)
    (late,) = [one for one in again.take(10) if one.key == b"a"]
    assert (late.failures, late.since_ms) == (2, taken[b"a"].since_ms)


def test_write_over_one_from_before_the_opening_goes_behind_all(place: Place) -> None:
    """Nobody knows whether that had been taken, or delivered."""
    journal = place.open()
    put(journal, ("a", "1"), ("b", "1"))
    journal.close()
    again = place.open()
    put(again, ("a", "2"))
    assert texts(again.take(10)) == [("b", "1"), ("a", "2")]


def test_postponed_write_from_before_the_opening_comes_behind_what_is_delivered(place: Place) -> None:
    """Its place was given before, and later ones may have been delivered."""
    journal = place.open()
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=0, failures=1, error="refused")
    put(journal, ("b", "1"))
    journal.close()
    again = place.open()
    a, b = take_one(again, "a"), take_one(again, "b")
    assert b.place < a.place
    assert take_one(again, "a") == a


def test_wait_ends_at_once_when_the_opened_journal_holds_something(place: Place) -> None:
    """After a crash, delivery goes on without anybody writing."""
    journal = place.open()
    put(journal, ("a", "1"))
    journal.take(1)
    journal.close()
    again = place.open()
    Call(lambda: again.wait(TIMEOUT_NS)).result()


def test_closed_journal_raises(journal: Journal) -> None:
    """Each call but another `close`."""
    put(journal, ("a", "1"))
    (taken,) = journal.take(1)
    journal.close()
    journal.close()
    calls = [
        lambda: journal.append([entry("a", "2")]),
        journal.has_room,
        lambda: journal.owes(b"a"),
        lambda: journal.find([b"a"]),
        lambda: journal.take(1),
        lambda: journal.settle([taken]),
        lambda: journal.postpone(taken, delay_ms=0, failures=1, error="refused"),
        lambda: journal.bury(taken, error="refused"),
        lambda: journal.wait(TIMEOUT_NS),
        journal.wake,
        journal.count,
        journal.mark,
        lambda: journal.is_past(0),
        journal.status,
        journal.dead,
        journal.retry,
        journal.discard,
    ]
    for call in calls:
        with pytest.raises(JournalError, match="closed"):
            call()


def test_close_keeps_what_is_queued(place: Place) -> None:
    """Whoever waits for a receipt gets it."""
    journal = place.open()
    receipts = [journal.append([entry(str(number), "1")]) for number in range(200)]
    journal.close()
    assert [wait_for(receipt).error for receipt in receipts] == [None] * 200
    assert place.open().count() == 200


def test_close_tells_those_who_wait_for_room(place: Place) -> None:
    """They try again, and learn that it was closed."""
    journal = place.open(max_pending=1)
    put(journal, ("a", "1"))
    room = journal.has_room()
    journal.close()
    assert room.is_set


# Status ---------------------------------------------------------------------------------------------------------------


def test_status_says_what_there_is(journal: Journal, place: Place) -> None:
    """How much, since when, where, whose, and how large."""
    before_ms = time.time_ns() // 1_000_000
    put(journal, ("a", "1" * 100))
    put(journal, ("a", "2" * 100), ("b", None))
    status = journal.status()
    assert (status.pending, status.dead, status.kept_aside) == (2, 0, ())
    assert status.oldest_ms is not None
    assert before_ms <= status.oldest_ms <= time.time_ns() // 1_000_000
    assert status.size_bytes >= 100
    assert status.owner
    assert status.location
    journal.settle(journal.take(10))
    assert (journal.status().pending, journal.status().oldest_ms) == (0, None)


def test_oldest_write_of_a_hot_key_is_the_oldest_that_was_not_delivered(journal: Journal) -> None:
    """A key that never ceases to be pending does not look like one that is never delivered."""
    put(journal, ("a", "1"))
    wait_until(lambda: time.time_ns() // 1_000_000 > (journal.status().oldest_ms or 0), "a millisecond passes")
    taken = journal.take(1)
    put(journal, ("a", "2"))
    assert journal.status().oldest_ms == taken[0].since_ms
    journal.settle(taken)
    assert (journal.status().oldest_ms or 0) > taken[0].since_ms
