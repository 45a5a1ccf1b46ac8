"""The journal on Redis, as far as it is not like all others: partitions, their owners, and what processes know of each other."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.journal.places import TIMEOUT_NS, entry, found, put, texts, wait_for
from tests.support.forking import in_child
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import Call, wait_until

from credenza.errors import ConfigurationError, JournalError
from credenza.journal.base import Pending
from credenza.journal.redis import RedisJournal
from credenza.journal.redis.known import Known
from credenza.journal.redis.wire import NOTHING_PENDING, Layout, State

_namespaces = itertools.count()
Opening = Callable[..., RedisJournal]


@pytest.fixture
def namespace() -> str:
    """One that nobody has used."""
    return f"redis-{next(_namespaces)}"


@pytest.fixture
def opening(journal_server: RedisServer, namespace: str) -> Iterator[Opening]:
    """Opens the journal, once for each process that a test is about; all are closed after it."""
    opened: list[RedisJournal] = []

    def open_one(*, partitions: int = 4, **options: Any) -> RedisJournal:
        url = f"{journal_server.url}/0?namespace={namespace}&partitions={partitions}"
        opened.append(RedisJournal(url, **options))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()


def fill(journal: RedisJournal, count: int, value: str = "1") -> list[str]:
    """Write so many keys, and return them."""
    keys = [f"key-{number}" for number in range(count)]
    put(journal, *[(key, value) for key in keys])
    return keys


def drain(journal: RedisJournal, limit: int = 1000) -> list[list[Pending]]:
    """Take and settle until there is no more."""
    batches = []
    while taken := journal.take(limit):
        batches.append(taken)
        journal.settle(taken)
    return batches


def parts_of(journal: RedisJournal) -> set[int]:
    """Return the partitions that a process owns."""
    return set(journal._ownership.owned())


def fall_silent(journal: RedisJournal, server: RedisServer, namespace: str) -> None:
    """Make of a process one that was paused for longer than its leases."""
    journal._pulse.stop()
    with server.client() as client:
        for part in parts_of(journal):
            client.hset(f"{{{namespace}:p{part}}}:head", "until", 1)
        client.zrem(f"{{{namespace}}}:consumers", journal._ownership.name)


# Partitions -----------------------------------------------------------------------------------------------------------


def test_one_take_returns_writes_of_one_partition(opening: Opening) -> None:
    """And `identity_of` names that, as places of different ones say nothing about each other."""
    journal = opening()
    keys = fill(journal, 40)
    names: dict[str, str] = {}
    while taken := journal.take(5):
        name = journal.identity_of(taken)
        assert [one.place for one in taken] == sorted(one.place for one in taken)
        names.update((one.key.decode(), name) for one in taken)
        journal.settle(taken)
    assert sorted(names) == sorted(keys)
    assert len(set(names.values())) == 4
    fill(journal, 40, "2")
    again = {one.key.decode(): journal.identity_of(taken) for taken in drain_taking(journal) for one in taken}
    assert again == names


def drain_taking(journal: RedisJournal) -> Iterator[list[Pending]]:
    """Yield batches before they are settled."""
    while taken := journal.take(1000):
        yield taken
        journal.settle(taken)


def test_settling_writes_of_several_partitions_settles_all(opening: Opening) -> None:
    """Although no single `take` returns such."""
    journal = opening()
    fill(journal, 40)
    taken = [one for _ in range(4) for one in journal.take(1000)]
    assert len(taken) == 40
    journal.settle(taken)
    assert (journal.count(), journal.status().pending) == (0, 0)


def test_number_of_partitions_is_fixed_with_the_first_write(opening: Opening) -> None:
    """Another number is an error that names both; none at all means whatever it has."""
    first = opening(partitions=4)
    put(first, ("a", "1"))
    with pytest.raises(ConfigurationError, match="partitions=4, which cannot be changed, got 8"):
        opening(partitions=8)
    other = RedisJournal(first.location.replace("?", "/?").replace("/0/?", "/0?"))
    try:
        assert found(other, "a") == {"a": "1"}
    finally:
        other.close()


def test_journal_that_two_make_with_different_numbers_is_refused_to_the_second(opening: Opening) -> None:
    """Both opened it before anything was written."""
    first, second = opening(partitions=4), opening(partitions=8)
    put(first, ("a", "1"))
    error = wait_for(second.append([entry("a", "2")])).error
    assert error is not None
    assert "4 partitions" in str(error)
    assert found(first, "a") == {"a": "1"}


def test_ten_thousand_writes_of_hundred_keys_are_delivered_as_hundred(opening: Opening) -> None:
    """Each with its last value, in few batches."""
    journal = opening()
    receipts = [journal.append([entry(f"key-{number % 100}", str(number))]) for number in range(10_000)]
    for receipt in receipts:
        assert wait_for(receipt).error is None
    batches = drain(journal)
    delivered = dict(pair for batch in batches for pair in texts(batch))
    assert sum(map(len, batches)) == len(delivered) == 100
    assert len(batches) == 4
    assert delivered == {f"key-{number}": str(9_900 + number) for number in range(100)}


def test_take_is_bounded_in_bytes(opening: Opening) -> None:
    """A batch of large values is cut; what is left over is taken next, and `wait` does not wait for it."""
    journal = opening(partitions=1)
    for number in range(20):
        assert wait_for(journal.append([entry(str(number), "x" * 1_000_000)])).error is None
    taken = journal.take(1000)
    assert 1 < len(taken) < 20
    Call(lambda: journal.wait(TIMEOUT_NS)).result()
    journal.settle(taken)
    assert sum(map(len, drain(journal))) == 20 - len(taken)


def test_write_over_a_postponed_one_has_its_turn_amid_the_others(opening: Opening) -> None:
    """A stream takes no entry before its last: such keys wait beside it, and come when it is their turn all the same."""
    journal = opening(partitions=1)
    put(journal, ("a", "1"))
    journal.postpone(journal.take(1)[0], delay_ms=3_600_000, failures=1, error="refused")
    put(journal, ("b", "1"), ("c", "1"))
    put(journal, ("a", "2"))
    mark = journal.mark()
    assert texts(journal.take(2)) == [("a", "2"), ("b", "1")]
    put(journal, ("a", "3"))
    assert [texts(batch) for batch in drain(journal, 2)] == [[("b", "1"), ("c", "1")], [("a", "3")]]
    assert journal.is_past(mark)
    assert journal.status().pending == 0


# Owners ---------------------------------------------------------------------------------------------------------------


def test_partitions_are_shared_evenly(opening: Opening) -> None:
    """A newcomer gets its share when the others look again, and what is free at once."""
    first, second, third = opening(partitions=8), opening(partitions=8), opening(partitions=8)
    first.take(1)
    assert parts_of(first) == set(range(8))
    second.take(1)
    assert parts_of(second) == set()
    wait_until(lambda: (first.take(1), second.take(1)) and len(parts_of(first)) == 4, "the first gives up its half")
    wait_until(lambda: (second.take(1), len(parts_of(second)))[1] == 4, "the second has the other half")
    for journal in (third, first, second, third):
        wait_until(lambda journal=journal: (journal.take(1), len(parts_of(journal)))[1] <= 3, "nobody has too many")
    wait_until(
        lambda: all((one.take(1), 2 <= len(parts_of(one)) <= 3)[1] for one in (first, second, third)),
        "each has two or three",
    )
    shares = [parts_of(one) for one in (first, second, third)]
    assert sorted(part for share in shares for part in share) == list(range(8))


def test_partition_that_two_claim_at_once_goes_to_one(opening: Opening) -> None:
    """The one who comes second has seen it free, and is refused all the same."""
    first, second = opening(partitions=2), opening(partitions=2)
    put(first, ("a", "1"))
    seen = second._pulse.look()
    first.take(1)
    second._ownership.balance(*seen)
    assert (parts_of(first), parts_of(second)) == ({0, 1}, set())


def test_closed_journal_gives_its_partitions_up_at_once(opening: Opening) -> None:
    """Nobody waits for its leases."""
    first, second = opening(lease=3600), opening(lease=3600)
    fill(first, 40)
    assert first.take(1)
    assert second.take(1000) == []
    first.close()
    assert sum(map(len, drain(second))) == 40


def test_consumer_that_fell_silent_is_refused_when_it_wakes(
    opening: Opening, journal_server: RedisServer, namespace: str
) -> None:
    """It can neither settle, postpone nor bury what another one has taken, nor learn under which name to deliver it."""
    first, second = opening(partitions=1), opening(partitions=1)
    put(first, ("a", "1"), ("b", "1"))
    stale = first.take(10)
    fall_silent(first, journal_server, namespace)
    fresh = second.take(10)
    assert fresh == stale
    calls: list[Callable[[], object]] = [
        lambda: first.settle(stale),
        lambda: first.postpone(stale[0], delay_ms=0, failures=1, error="refused"),
        lambda: first.bury(stale[0], error="refused"),
        lambda: first.identity_of(stale),
    ]
    for call in calls:
        with pytest.raises(JournalError, match=r"taken over|does not own"):
            call()
    assert (found(second, "a", "b"), second.dead()) == ({"a": "1", "b": "1"}, [])
    second.settle(fresh)
    assert second.count() == 0


def test_consumer_whose_lease_has_ended_may_not_deliver(opening: Opening) -> None:
    """Nor may one that cannot tell, since it was paused itself: it asks its own clock."""
    journal = opening(partitions=1, lease=0.1)
    put(journal, ("a", "1"))
    taken = journal.take(10)
    journal._pulse.stop()

    def is_refused() -> bool:
        try:
            journal.identity_of(taken)
        except JournalError:
            return True
        return False

    wait_until(is_refused, "the lease ends")
    journal.settle(journal.take(10))  # nobody else has it, so that it goes on


def test_silent_consumer_is_succeeded_when_its_lease_ends(opening: Opening) -> None:
    """Its successor delivers what it has left."""
    first, second = opening(lease=0.2), opening(lease=0.2)
    fill(first, 40)
    assert first.take(10)
    first._pulse.stop()
    delivered: list[Pending] = []
    wait_until(
        lambda: delivered.extend(one for batch in drain(second) for one in batch) or len(delivered) == 40,
        "all is delivered",
    )


def test_lease_is_renewed_while_a_delivery_takes_long(opening: Opening) -> None:
    """A source that is slow loses no partition."""
    first, second = opening(partitions=1, lease=0.3), opening(partitions=1, lease=0.3)
    put(first, ("a", "1"))
    taken = first.take(10)
    renewals = []
    renew = first._ownership.renew
    first._ownership.renew = lambda: (renew(), renewals.append(1))[0]  # type: ignore[method-assign]
    wait_until(lambda: len(renewals) > 15, "several leases would have ended")
    assert second.take(10) == []
    first.settle(taken)


def test_batch_that_comes_late_is_left_out_by_a_source_that_keeps_places(
    opening: Opening, journal_server: RedisServer, namespace: str
) -> None:
    """The one danger that no lease averts: a process that is paused in the middle of its call to the source."""
    first, second = opening(partitions=1), opening(partitions=1)
    records: dict[str, str | None] = {}
    last: dict[str, int] = {}

    def apply(name: str, taken: list[Pending]) -> None:
        for one in taken:
            if one.place > last.get(name, 0):
                last[name] = one.place
                records.update(texts([one]))

    put(first, ("a", "old"))
    stale = first.take(10)
    name = first.identity_of(stale)
    fall_silent(first, journal_server, namespace)
    put(second, ("a", "new"))
    fresh = second.take(10)
    apply(second.identity_of(fresh), fresh)
    second.settle(fresh)
    apply(name, stale)
    assert records == {"a": "new"}


def test_each_key_is_delivered_in_order_though_consumers_come_and_go(opening: Opening) -> None:
    """Some close, some are killed in the middle of a batch; whatever is written last comes last."""
    writer = opening(max_pending=100)
    writes, keys = 300, 12
    delivered: dict[str, list[int]] = {f"key-{number}": [] for number in range(keys)}

    def write() -> None:
        for number in range(writes):
            put(writer, (f"key-{number % keys}", str(number)))

    def consume(turns: int, *, dies: bool) -> None:
        journal = opening(lease=0.25)
        for _ in range(turns):
            taken = journal.take(5)
            try:
                if taken:
                    journal.identity_of(taken)
                for key, value in texts(taken):
                    delivered[key].append(int(value or 0))
                journal.settle(taken)
            except JournalError:
                continue  # somebody else has it by now
        if dies:
            journal.take(5)
            journal._pulse.stop()
        else:
            journal.close()

    writing = Call(write)
    for dies in (False, True, False, True):
        pair = [Call(lambda dies=dies: consume(10, dies=dies)), Call(lambda: consume(8, dies=False))]
        for call in pair:
            call.result()
    writing.result()
    last = opening(lease=0.25)
    wait_until(lambda: (consume_all(last, delivered), last.status().pending == 0)[1], "all is delivered")
    for key, numbers in delivered.items():
        assert numbers == sorted(numbers), f"{key} is delivered out of order: {numbers}"
        assert numbers[-1] == max(number for number in range(writes) if f"key-{number % keys}" == key)


def consume_all(journal: RedisJournal, delivered: dict[str, list[int]]) -> None:
    for batch in drain(journal):
        for key, value in texts(batch):
            delivered[key].append(int(value or 0))


# What processes know of each other --------------------------------------------------------------------------------------


def test_process_finds_what_another_has_written(opening: Opening) -> None:
    """`find` asks the server; `owes` and `count` say what this process knows."""
    first, second = opening(), opening()
    put(first, ("a", "1"))
    assert (found(second, "a"), second.owes(b"a"), first.owes(b"a")) == ({"a": "1"}, False, True)
    put(second, ("a", "2"))
    assert found(first, "a") == {"a": "2"}
    wait_until(lambda: first.count() == second.count() == 1, "each has heard of the other")


def test_process_learns_that_another_has_delivered_its_writes(opening: Opening) -> None:
    """`owes` says no, a mark is passed, and there is room again."""
    writer, consumer = opening(max_pending=3), opening()
    put(writer, ("a", "1"), ("b", "1"), ("c", "1"))
    mark, room = writer.mark(), writer.has_room()
    assert not writer.is_past(mark)
    assert not room.is_set
    assert writer.append([entry("d", "1")]) is None
    drain(consumer)
    wait_until(lambda: writer.is_past(mark) and room.is_set, "the writer learns of it")
    assert [writer.owes(key) for key in (b"a", b"b", b"c")] == [False] * 3
    put(writer, ("d", "1"))


def test_wait_ends_when_another_process_appends(opening: Opening) -> None:
    """The process that owns the partitions need not be the one that writes."""
    consumer, writer = opening(), opening()
    consumer.take(1)
    call = Call(lambda: consumer.wait(TIMEOUT_NS))
    put(writer, ("a", "1"))
    call.result()
    assert texts(consumer.take(10)) == [("a", "1")]


def test_bound_counts_what_others_have_written(opening: Opening) -> None:
    """As of a moment ago."""
    first, second = opening(max_pending=3), opening(max_pending=3)
    put(first, ("a", "1"), ("b", "1"), ("c", "1"))
    wait_until(lambda: second.count() == 3, "the second process hears of them")
    assert second.append([entry("d", "1")]) is None
    assert not second.has_room().is_set


def test_mark_counts_what_was_there_before_the_journal_was_opened(opening: Opening) -> None:
    """Whoever flushes after a restart means what was written before it, too."""
    first = opening()
    fill(first, 10)
    first.close()
    second = opening()
    mark = second.mark()
    assert not second.is_past(mark)
    drain(second)
    assert second.is_past(mark)


def test_oldest_write_is_known_to_all(opening: Opening) -> None:
    """`status` asks the server, also from a process that neither writes nor delivers."""
    first, second = opening(), opening()
    put(first, ("a", "1"))
    (taken,) = first.take(1)
    status = second.status()
    assert (status.pending, status.oldest_ms) == (1, taken.since_ms)
    assert status.owner is not None
    assert f"process {os.getpid()} on" in status.owner


def test_reply_that_was_overtaken_is_not_believed() -> None:
    """A look that began before a write may arrive after the write's own reply, and shows nothing pending."""
    known = Known(Layout("t", 1), "here", 10)
    before = State("name", base=5, changes=1, number=5, pending=0, floor=NOTHING_PENDING)
    with known.lock:
        known.kept(0, [b"a"], State("name", base=5, changes=2, number=6, pending=1, floor=None))
    known.note(0, before)
    assert (known.count(), known.owes(b"a"), known.is_past(known.mark())) == (1, True, False)
    known.note(0, before._replace(changes=3, number=6))
    assert (known.count(), known.owes(b"a"), known.is_past(known.mark())) == (0, False, True)


# Operators ------------------------------------------------------------------------------------------------------------


def test_attaching_to_what_is_not_there_makes_nothing(journal_server: RedisServer, namespace: str) -> None:
    """A mistyped namespace is an error, and not an empty journal."""
    with pytest.raises(JournalError, match="there is no journal"):
        RedisJournal.attach(f"{journal_server.url}/0?namespace={namespace}")
    with journal_server.client() as client:
        assert client.keys(f"*{namespace}*") == []


def test_attached_journal_takes_no_partition(opening: Opening) -> None:
    """It looks, retries and discards beside the process that delivers."""
    consumer = opening()
    put(consumer, ("a", "1"), ("b", "1"), ("c", "1"))
    for key in ("a", "b"):
        bury(consumer, key)
    attached = RedisJournal.attach(consumer.location)
    try:
        assert (attached.status().pending, attached.status().dead) == (1, 2)
        first, second = attached.dead()
        assert (attached.discard([first.number]), attached.retry([second.number])) == (1, 1)
        assert attached.status().owner == consumer.status().owner
    finally:
        attached.close()
    assert {key for batch in drain(consumer) for key, _ in texts(batch)} == {"b", "c"}


def bury(journal: RedisJournal, key: str) -> None:
    """Give one write up."""
    for _ in range(4):
        for one in journal.take(100):
            if one.key == key.encode():
                assert journal.bury(one, error="refused")
                return
    raise AssertionError(f"{key} is not pending")


def test_dead_letters_of_all_partitions_have_numbers_of_their_own(opening: Opening) -> None:
    """And are listed by when they died."""
    journal = opening()
    keys = fill(journal, 20)
    for key in keys:
        bury(journal, key)
    letters = journal.dead()
    assert len({letter.number for letter in letters}) == 20
    assert [letter.died_ms for letter in letters] == sorted(letter.died_ms for letter in letters)
    assert journal.retry([letter.number for letter in letters[:5]]) == 5
    assert len(journal.dead()) == 15


# Opening --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1", "no scheme 'http'"),
        ("redis://127.0.0.1/0?namespace=a/b", "namespace must be"),
        ("redis://127.0.0.1/0?partitions=0", "partitions must be"),
        ("redis://127.0.0.1/0?partitions=many", "partitions must be"),
        ("redis://127.0.0.1/0?lease=0", "lease must be"),
        ("redis://127.0.0.1/0?lease=soon", "lease"),
        ("redis://127.0.0.1/orders", "number of a database"),
        ("redis://127.0.0.1/0?nonsense=1", "unknown option"),
        ("redis://127.0.0.1:port/0", "cannot be understood"),
        ("redis://127.0.0.1/0?socket_timeout=long", "Invalid value for"),
        ("rediss://127.0.0.1/0?ssl_cert_reqs=sometimes", "cannot work"),
        ("redis+sentinel://127.0.0.1", "names no service"),
        ("redis+cluster://127.0.0.1:port", "port"),
    ],
)
def test_url_that_cannot_work_is_refused(url: str, message: str) -> None:
    """With what is wrong about it, and without the password."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        RedisJournal(url.replace("://", "://ann:open-sesame@"))
    assert "sesame" not in str(caught.value)


def test_bound_must_be_positive(journal_server: RedisServer) -> None:
    """Nothing could be written otherwise."""
    with pytest.raises(ConfigurationError, match="max_pending"):
        RedisJournal(journal_server.url, max_pending=0)


def test_journal_of_a_later_format_is_left_alone(opening: Opening, journal_server: RedisServer, namespace: str) -> None:
    """The error names both formats."""
    journal = opening()
    put(journal, ("a", "1"))
    journal.close()
    with journal_server.client() as client:
        client.hset(f"{{{namespace}}}:about", "format", "2")
    with pytest.raises(JournalError, match="format 2, .* up to format 1"):
        opening()


def test_location_tells_no_password(journal_server: RedisServer) -> None:
    """It is in messages and in the status."""
    with running_redis(requirepass="open-sesame") as server:
        journal = RedisJournal(f"{server.url}/0?namespace=orders")
        try:
            assert journal.status().location == f"redis://127.0.0.1:{server.port}/0?namespace=orders"
            assert "sesame" not in repr(vars(journal._server))
        finally:
            journal.close()


def test_unix_socket_serves_as_well(journal_server: RedisServer, namespace: str) -> None:
    """On one machine."""
    journal = RedisJournal(f"{journal_server.unix_url}?namespace={namespace}&partitions=2")
    try:
        put(journal, ("a", "1"))
        assert texts(journal.take(1)) == [("a", "1")]
        assert journal_server.unix_url in journal.location
    finally:
        journal.close()


def test_server_that_evicts_anything_is_refused() -> None:
    """It would drop pending writes; one that evicts only what expires is as good as one that evicts nothing."""
    with running_redis(maxmemory_policy="allkeys-lru") as server:
        with pytest.raises(ConfigurationError, match="allkeys-lru, which evicts pending writes"):
            RedisJournal(server.url)
        with server.client() as client:
            client.config_set("maxmemory-policy", "volatile-ttl")
        journal = RedisJournal(server.url)
        try:
            put(journal, ("a", "1"))
            journal.take(1)
            with server.client() as client:
                assert [client.ttl(key) for key in client.keys("*")] == [-1] * len(client.keys("*"))
        finally:
            journal.close()


def test_server_that_keeps_nothing_on_disk_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is as durable as it is configured; one line says how durable that is."""
    caplog.set_level(logging.WARNING, "credenza")
    with running_redis() as server:
        for namespace in ("one", "two"):
            RedisJournal(f"{server.url}/0?namespace={namespace}").close()
    assert sum("appendonly no" in line.getMessage() for line in caplog.records) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_is_refused(opening: Opening) -> None:
    """It opens a journal of its own; the parent's goes on."""
    journal = opening()
    put(journal, ("a", "1"))

    def use() -> list[str]:
        said = []
        for call in (lambda: journal.append([entry("b", "1")]), lambda: journal.take(1), journal.count):
            try:
                call()
            except JournalError as error:
                said.append("fork" if "forked" in str(error) else str(error))
        journal.close()
        return said

    assert in_child(use) == repr(["fork"] * 3)
    put(journal, ("b", "1"))
    assert sum(map(len, drain(journal))) == 2
