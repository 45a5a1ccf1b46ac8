"""What every tier does to tags, the head and the log."""

from __future__ import annotations

import threading

import pytest
from tests.support.waiting import DEADLINE, wait_until
from tests.tiers.places import EPOCH, LONG_MS, OTHER_EPOCH, SHORT_MS, TIMEOUT_NS, Caller, Place, stamp, token

from credenza.tiers.base import Announce, Drop, Head, MarkTag, News, OpenTag, ReadHead, ReadLog, TierError
from credenza.tiers.records import stamp_of, tag_record, tag_writers

A, B = token("a"), token("b")
SENDER = token("s")


@pytest.fixture
def tag(place: Place) -> bytes:
    """The name of the tag's record that a test is about."""
    return place.name("tag")


def timeless(head: Head) -> Head:
    """Return the head without the clock."""
    return head._replace(now_ms=0)


# Tags -----------------------------------------------------------------------------------------------------------------


def test_open_tag_makes_a_record_once(call: Caller, tag: bytes) -> None:
    """The first stamp counts, whatever comes later."""
    opened = tag_record(stamp(3))
    assert call(OpenTag(tag, stamp(3)), OpenTag(tag, stamp(5)), OpenTag(tag, stamp(1))) == [opened, opened, opened]


def test_open_tag_of_another_epoch_begins_anew(call: Caller, tag: bytes) -> None:
    """The tier lost its memory since: even a smaller number is later."""
    call.one(OpenTag(tag, stamp(9)))
    opened = call.one(OpenTag(tag, stamp(2, OTHER_EPOCH)))
    assert opened == tag_record(stamp(2, OTHER_EPOCH))


def test_open_tag_of_another_epoch_keeps_writers_behind_the_fence(call: Caller, tag: bytes) -> None:
    """They are still writing."""
    marked = call.one(MarkTag(tag, stamp(9), joins=A, life_ms=LONG_MS))
    opened = call.one(OpenTag(tag, stamp(2, OTHER_EPOCH)))
    assert opened == tag_record(stamp(2, OTHER_EPOCH)) + marked[-24:]
    assert list(tag_writers(opened, call.one(ReadHead(EPOCH)).now_ms)) == [A]


def test_mark_tag_raises_the_stamp_and_never_lowers_it(call: Caller, tag: bytes) -> None:
    """The record is the reply, made if there was none."""
    marks = [MarkTag(tag, stamp(number)) for number in (4, 2, 7, 7)]
    assert [stamp_of(record) for record in call(*marks)] == [stamp(4), stamp(4), stamp(7), stamp(7)]


def test_mark_tag_takes_a_stamp_of_another_epoch(call: Caller, tag: bytes) -> None:
    """Numbers of different epochs are not compared."""
    call.one(MarkTag(tag, stamp(9)))
    assert stamp_of(call.one(MarkTag(tag, stamp(2, OTHER_EPOCH)))) == stamp(2, OTHER_EPOCH)
    assert stamp_of(call.one(OpenTag(tag, stamp(3, OTHER_EPOCH)))) == stamp(2, OTHER_EPOCH)


def test_mark_tag_lets_writers_in_and_out(call: Caller, tag: bytes) -> None:
    """The tag is fenced until the last of them left; leaving twice does no harm."""
    now_ms = call.one(ReadHead(EPOCH)).now_ms
    steps = [
        (MarkTag(tag, stamp(1), joins=A, life_ms=LONG_MS), True),
        (MarkTag(tag, stamp(1), joins=B, life_ms=LONG_MS), True),
        (MarkTag(tag, stamp(2), leaves=A), True),
        (MarkTag(tag, stamp(2), leaves=A), True),
        (MarkTag(tag, stamp(3), leaves=B), False),
    ]
    for mark, fenced in steps:
        assert bool(tag_writers(call.one(mark), now_ms)) is fenced
    assert call.one(OpenTag(tag, stamp(1))) == tag_record(stamp(3))


def test_mark_tag_by_a_writer_again_prolongs_its_share(call: Caller, place: Place, tag: bytes) -> None:
    """And adds no second one."""
    call(MarkTag(tag, stamp(1), joins=A, life_ms=SHORT_MS), MarkTag(tag, stamp(1), joins=A, life_ms=LONG_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    record = call.one(OpenTag(tag, stamp(1)))
    assert len(record) == len(tag_record(stamp(1))) + 24
    now_ms = call.one(ReadHead(EPOCH)).now_ms
    assert [deadline_ms > now_ms for deadline_ms in tag_writers(record, now_ms).values()] == [True]


def test_share_of_a_writer_that_was_killed_is_seen_until_it_is_taken_out(
    call: Caller, place: Place, tag: bytes
) -> None:
    """It expires, and stays in the record for somebody to see: the writer may have committed before it died."""
    call.one(MarkTag(tag, stamp(1), joins=A, life_ms=SHORT_MS))
    call.let_pass(place.name("sand"), SHORT_MS)
    now_ms = call.one(ReadHead(EPOCH)).now_ms
    record = call.one(MarkTag(tag, stamp(2)))
    assert [deadline_ms <= now_ms for deadline_ms in tag_writers(record, now_ms).values()] == [True]
    assert call.one(MarkTag(tag, stamp(3), leaves=A)) == tag_record(stamp(3))


def test_mark_without_a_number_keeps_the_stamp(call: Caller, tag: bytes) -> None:
    """Also one of another epoch; without a record it begins one."""
    call.one(MarkTag(tag, stamp(7, OTHER_EPOCH)))
    assert stamp_of(call.one(MarkTag(tag, stamp(0), joins=A, life_ms=LONG_MS))) == stamp(7, OTHER_EPOCH)
    assert call(Drop(tag), MarkTag(tag, stamp(0)))[1] == tag_record(stamp(0))


def test_dropped_tag_is_opened_anew(call: Caller, tag: bytes) -> None:
    """Values that carry it are told from newer ones by the stamp."""
    assert call(OpenTag(tag, stamp(1)), Drop(tag), OpenTag(tag, stamp(5)))[2] == tag_record(stamp(5))


# Head and log ---------------------------------------------------------------------------------------------------------


def test_head_that_is_not_there_begins_with_the_epoch_given(call: Caller) -> None:
    """Whoever comes first decides; nothing was announced, nothing cleared."""
    assert timeless(call.one(ReadHead(EPOCH))) == Head(EPOCH, 0, 0, 0, 0)
    assert timeless(call.one(ReadHead(OTHER_EPOCH))) == Head(EPOCH, 0, 0, 0, 0)


def test_first_announcement_makes_the_head_too(call: Caller) -> None:
    """It needs no reading before it."""
    assert timeless(call.one(Announce(EPOCH, SENDER))) == Head(EPOCH, 1, 0, 0, 0)


def test_first_reading_makes_the_head_too(call: Caller) -> None:
    """With nothing in the log."""
    log = call.one(ReadLog(EPOCH, 0, 10, 700))
    assert (timeless(log.head), log.news) == (Head(EPOCH, 0, 0, 0, 700), ())


def test_clock_of_the_head_goes_on(call: Caller) -> None:
    """In milliseconds, and never back."""
    first = call.one(ReadHead(EPOCH)).now_ms
    call.until(ReadHead(EPOCH), lambda head: head.now_ms > first + 2, "the clock to go on")
    assert call.one(Announce(EPOCH, SENDER)).now_ms > first
    assert call.one(ReadLog(EPOCH, 0, 1, 0)).head.now_ms > first


def test_announcements_are_numbered_and_read_in_order(call: Caller) -> None:
    """With all that was said, bytes of any kind included."""
    said = [((b"one",), ()), ((b"", bytes(range(256)), b"t" * 70_000), (b"tag", b"")), ((), ())]
    heads = [call.one(Announce(EPOCH, SENDER, names, tags)) for names, tags in said]
    assert [timeless(head) for head in heads] == [Head(EPOCH, number, 0, 0, 0) for number in (1, 2, 3)]
    log = call.one(ReadLog(EPOCH, 0, 10, 0))
    assert log.news == tuple(News(number, SENDER, *what, clears=False) for number, what in enumerate(said, start=1))
    assert timeless(log.head) == timeless(heads[-1])


def test_reading_begins_after_a_number_and_is_bounded(call: Caller) -> None:
    """The earliest come first, so that reading on closes the gap."""
    for number in range(1, 6):
        call.one(Announce(EPOCH, SENDER, (b"%d" % number,)))
    for after, most, expected in [(0, 2, [1, 2]), (2, 10, [3, 4, 5]), (4, 1, [5]), (5, 10, []), (77, 10, [])]:
        log = call.one(ReadLog(EPOCH, after, most, 0))
        assert ([news.sequence for news in log.news], log.head.sequence) == (expected, 5)


def test_announcement_that_clears_raises_the_floor(call: Caller) -> None:
    """Above the number that all loads noted before it, not above those that begin after it."""
    before = call.one(Announce(EPOCH, SENDER))
    after = call.one(Announce(EPOCH, SENDER, clears=True))
    assert before.sequence < after.floor <= after.sequence
    assert call.one(Announce(EPOCH, SENDER)).floor == after.floor
    log = call.one(ReadLog(EPOCH, 0, 10, 0))
    assert [news.clears for news in log.news] == [False, True, False]
    assert log.head.floor == call.one(ReadHead(EPOCH)).floor == after.floor


def test_reading_raises_the_widest_staleness(call: Caller) -> None:
    """Whoever must wait for the proofs of others waits for the longest."""
    widths = [call.one(ReadLog(EPOCH, 0, 1, width)).head.widest_ms for width in (500, 2000, 1000, 0)]
    assert widths == [500, 2000, 2000, 2000]
    assert call.one(ReadHead(EPOCH)).widest_ms == 2000
    assert call.one(Announce(EPOCH, SENDER)).widest_ms == 2000


def test_log_of_many_announcements_is_trimmed_at_its_old_end(call: Caller, colour: str) -> None:
    """About ten thousand are kept; the numbers tell that earlier ones are missing."""
    if colour == "async":
        pytest.skip("the log is the same one")
    for _ in range(24):
        call(*[Announce(EPOCH, SENDER, (b"name",))] * 500)
    log = call.one(ReadLog(EPOCH, 0, 20_000, 0))
    assert log.head.sequence == 12_000
    assert 9_000 <= len(log.news) <= 11_500
    assert [news.sequence for news in log.news] == list(range(12_001 - len(log.news), 12_001))


# Watching -------------------------------------------------------------------------------------------------------------


def watching(call: Caller, after: int) -> threading.Thread:
    """Start a thread that watches for longer than the test takes."""

    def watch() -> None:
        try:
            call.tier.watch(after, 4 * TIMEOUT_NS)
        except TierError:
            pass  # closed meanwhile

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_watch_returns_at_once_when_there_are_news_already(call: Caller) -> None:
    """Nothing is missed between reading the log and watching it."""
    call.one(Announce(EPOCH, SENDER))
    thread = watching(call, 0)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_watch_wakes_at_an_announcement_by_another_tier(place: Place, call: Caller) -> None:
    """Whoever says it."""
    sequence = call.one(ReadHead(EPOCH)).sequence
    thread = watching(call, sequence)
    other = place.open()
    other.perform([Announce(EPOCH, SENDER, (b"name",))], TIMEOUT_NS)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_watch_ends_when_its_time_is_over(call: Caller) -> None:
    """With nothing said, it returns all the same."""
    call.one(ReadHead(EPOCH))
    call.tier.watch(0, 30_000_000)


def test_watch_ends_when_the_tier_is_closed(call: Caller) -> None:
    """From another thread, so that a cache can be closed."""
    call.one(ReadHead(EPOCH))
    thread = watching(call, 0)

    def is_over() -> bool:
        call.tier.close()  # again and again: the thread may not have begun to watch
        return not thread.is_alive()

    wait_until(is_over, "the watching thread to end")
