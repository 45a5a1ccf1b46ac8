"""The journal's server away, full, emptied, replaced, or behaving badly."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.journal.places import entry, found, put, texts, wait_for
from tests.support.servers import Cluster, RedisServer, SentinelSetup, running_cluster, running_redis, running_sentinel
from tests.support.servers.impostors import answering
from tests.support.waiting import Call, wait_until

from credenza.errors import JournalError
from credenza.journal.base import Pending
from credenza.journal.redis import RedisJournal

SECRET = "the-value-that-nobody-may-read"


@contextmanager
def opened(
    server: RedisServer | str, *, partitions: int = 2, options: str = "", **others: Any
) -> Iterator[RedisJournal]:
    """The journal on a server of the test's own."""
    url = server if isinstance(server, str) else f"{server.url}/0"
    journal = RedisJournal(f"{url}?namespace=t&partitions={partitions}{options}", **others)
    try:
        yield journal
    finally:
        journal.close()


def refusal(journal: RedisJournal, key: str = "a", *, times: int = 1) -> str:
    """Write, and return why that was not kept; the value is not in it."""
    error = wait_for(journal.append([entry(key, SECRET * times)])).error
    assert error is not None, "the write was kept"
    cause: BaseException | None = error
    while cause is not None:
        assert SECRET not in str(cause)
        cause = cause.__cause__
    return str(error)


def is_kept(journal: RedisJournal, key: str, value: str) -> bool:
    """Write, and tell whether that was kept."""
    return wait_for(journal.append([entry(key, value)])).error is None


def take_all(journal: RedisJournal) -> list[Pending]:
    """Take and settle until there is no more."""
    delivered: list[Pending] = []
    while taken := journal.take(1000):
        delivered += taken
        journal.settle(taken)
    return delivered


# Away -----------------------------------------------------------------------------------------------------------------


def test_writes_are_refused_while_the_server_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """And all else raises; when it is back, what was acknowledged is there, and everything goes on by itself."""
    with running_redis(appendonly="yes", appendfsync="always") as server, opened(server) as journal:
        put(journal, ("a", "1"), ("b", "1"))
        taken = journal.take(10)
        server.kill9()
        wait_until(lambda: "reached" in refusal(journal, "c"), "the connection is gone")
        calls: list[Any] = [lambda: journal.find([b"a"]), lambda: journal.take(1), lambda: journal.settle(taken)]
        for call in [*calls, journal.status, journal.dead, journal.retry]:
            with pytest.raises(JournalError):
                call()
        server.start()
        wait_until(lambda: is_kept(journal, "d", "1"), "writes are kept again")
        assert found(journal, *"abcd") == {"a": "1", "b": "1", "d": "1"}
        delivered: list[Pending] = []
        wait_until(lambda: delivered.extend(take_all(journal)) or not journal.count(), "all is delivered")
    assert {key for key, _ in texts(delivered)} == {"a", "b", "d"}
    assert not [line for line in caplog.records if "forgotten" in line.getMessage()]


def test_server_that_does_not_answer_leaves_the_outcome_open() -> None:
    """The error says that the write may be kept all the same; the thread that writes goes on."""
    with running_redis() as server, opened(server, options="&socket_timeout=0.3") as journal:
        put(journal, ("a", "1"))
        server.pause()
        try:
            assert "may have been kept all the same" in refusal(journal)
        finally:
            server.resume()
        put(journal, ("a", "2"))
        wait_until(lambda: found(journal, "a") == {"a": "2"}, "the later write has the last word")


def test_close_ends_although_the_server_does_not_answer() -> None:
    """Within a few times the timeout of its connections."""
    with running_redis() as server:
        with opened(server, options="&socket_timeout=0.2") as journal:
            put(journal, ("a", "1"))
            journal.take(1)
            server.pause()
            receipts = [journal.append([entry(str(number), "1")]) for number in range(10)]
            Call(journal.close).result()
            server.resume()
        assert all(wait_for(receipt).error is not None for receipt in receipts)


def test_journal_cannot_be_opened_while_the_server_is_away() -> None:
    """The error says where it was sought, without the password."""
    with running_redis() as server:
        server.stop()
        with pytest.raises(JournalError, match=f"127.0.0.1:{server.port}") as caught:
            RedisJournal(server.url.replace("//", "//:open-sesame@"))
        assert "sesame" not in str(caught.value)


def test_consumer_that_cannot_reach_the_server_loses_its_lease() -> None:
    """It cannot know whether somebody else delivers by now."""
    with running_redis() as server, opened(server, lease=0.3, options="&socket_timeout=0.3") as journal:
        put(journal, ("a", "1"))
        taken = journal.take(1)
        assert journal.identity_of(taken)
        server.pause()
        try:
            wait_until(lambda: raises(lambda: journal.identity_of(taken)), "the lease is over")
        finally:
            server.resume()


def raises(call: Any) -> bool:
    """Tell whether a call raises the journal's error."""
    try:
        call()
    except JournalError:
        return True
    return False


# Forgetful ------------------------------------------------------------------------------------------------------------


def test_server_that_was_started_without_what_it_knew_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """One error is logged; nothing is owed any more, marks are passed, and a new journal begins under another name."""
    with running_redis() as server, opened(server, partitions=4) as journal:
        put(journal, *[(f"key-{number}", "1") for number in range(20)])
        taken = journal.take(1000)
        names, mark = names_of(journal), journal.mark()
        server.kill9()
        server.start()
        wait_until(lambda: journal.is_past(mark) and not journal.owes(b"key-1"), "the loss is noticed")
        with pytest.raises(JournalError):
            journal.settle(taken)
        put(journal, *[(f"key-{number}", "2") for number in range(20)])
        again = names_of(journal)
        assert again.keys() == names.keys()
        assert not set(again.values()) & set(names.values())
        assert {value for _, value in texts(take_all(journal))} == {"2"}
        assert journal.status().pending == 0
    assert sum("has forgotten writes" in line.getMessage() for line in caplog.records) == 1


def names_of(journal: RedisJournal) -> dict[bytes, str]:
    """Return under which names the keys that are pending would be delivered."""
    batches = [journal.take(1000) for _ in range(8)]
    return {one.key: journal.identity_of([one]) for batch in batches for one in batch}


def test_emptied_server_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Another application may have shared the database."""
    with running_redis() as server, opened(server) as journal:
        put(journal, ("a", "1"))
        with server.client() as client:
            client.flushall()
        wait_until(lambda: not journal.owes(b"a"), "the loss is noticed")
        put(journal, ("a", "2"))
        assert texts(take_all(journal)) == [("a", "2")]
        with opened(server) as other:  # what is fixed for the whole journal was made anew
            assert other.identity == journal.identity != ""
    assert "has forgotten writes" in caplog.text


def test_server_that_went_back_in_time_gives_no_number_twice(caplog: pytest.LogCaptureFixture) -> None:
    """A source that keeps the last place would leave out acknowledged writes otherwise."""
    with running_redis() as server, opened(server, partitions=1) as journal:
        put(journal, ("a", "1"))
        with server.client() as client:
            client.save()
        for number in range(2, 10):
            put(journal, ("a", str(number)), (f"key-{number}", "1"))
            journal.settle(taken := journal.take(10))
        name, last = journal.identity_of(taken), taken[-1]
        server.kill9()
        server.start()
        wait_until(lambda: is_kept(journal, "a", "new"), "writes are kept again")
        put(journal, ("b", "new"))
        kept: list[Pending] = []
        wait_until(lambda: kept.extend(journal.take(10)) or len(kept) == 2, "they are taken")
        assert journal.identity_of(kept) == name
        assert min(one.place for one in kept) > last.place
        assert min(one.version for one in kept) > last.version
    assert sum("has forgotten writes" in line.getMessage() for line in caplog.records) == 1


def test_lost_scripts_are_sent_again() -> None:
    """A server may forget them at any time."""
    with running_redis() as server, opened(server) as journal:
        for number in range(3):
            put(journal, ("a", str(number)))
            with server.client() as client:
                client.script_flush()
            assert texts(take_all(journal)) == [("a", str(number))]


# Full and forbidding --------------------------------------------------------------------------------------------------


def test_full_server_refuses_writes_and_lets_them_be_delivered() -> None:
    """What is pending is taken, postponed, buried and settled; then there is room again."""
    with running_redis(maxmemory="12mb") as server, opened(server, partitions=1) as journal:
        numbers = iter(range(10_000))
        value = "x" * 200_000
        wait_until(lambda: not is_kept(journal, f"key-{next(numbers)}", value), "the server is full")
        assert "memory is full" in refusal(journal, times=10_000)
        kept = journal.count()
        first, second, *rest = journal.take(1000)
        journal.postpone(first, delay_ms=0, failures=1, error="refused")
        assert journal.bury(second, error="refused")
        journal.settle(rest)
        assert (journal.count(), len(journal.dead())) == (1, 1)
        assert kept == len(rest) + 2
        assert [one.key for one in take_all(journal)] == [first.key]
        put(journal, ("a", "1"))


def test_replica_refuses_writes() -> None:
    """It says that it is one."""
    with running_redis() as server, opened(server) as journal:
        put(journal, ("a", "1"))
        with server.client() as client:
            client.replicaof("127.0.0.1", "1")
            try:
                assert "it is a replica" in refusal(journal)
            finally:
                client.replicaof("no", "one")
        put(journal, ("a", "2"))


@pytest.mark.parametrize("password", ["", "wrong-sesame"])
def test_server_that_wants_a_password_is_told_from_one_that_is_away(password: str) -> None:
    """With what it wants, and without what it got."""
    with running_redis(requirepass="open-sesame") as server:
        url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{server.port}"
        with pytest.raises(JournalError, match=r"wants a password|password is wrong") as caught:
            RedisJournal(url)
        assert "sesame" not in str(caught.value)


def test_user_who_may_not_run_a_command_is_told_so() -> None:
    """Without what was to be written."""
    with running_redis() as server, server.client() as client, opened(server) as journal:
        put(journal, ("a", "1"))
        client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], commands=["-xadd"], keys=["*"])
        assert "may not run the command" in refusal(journal, "b")
        client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], keys=["*"])
        put(journal, ("b", "1"))


def test_user_who_may_not_ask_about_the_server_can_use_the_journal() -> None:
    """Managed servers forbid what is only about them."""
    with running_redis() as server, server.client() as client:
        client.acl_setuser(
            "default",
            enabled=True,
            nopass=True,
            categories=["+@all"],
            commands=["-config", "-info", "-memory"],
            keys=["*"],
        )
        with opened(server) as journal:
            put(journal, ("a", "1"))
            assert journal.status().size_bytes == 0
            assert texts(take_all(journal)) == [("a", "1")]


def test_key_of_another_type_is_told_so() -> None:
    """Somebody else uses the names of the journal."""
    with running_redis() as server, server.client() as client:
        client.set("{t:p0}:pending", "mine")
        with pytest.raises(JournalError, match="holds something else"), opened(server, partitions=1):
            pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "still loading"),
        (b"-BUSY Redis is busy running a script\r\n", "script keeps it busy"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "cannot save"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "nobody understands"),
        (b"$5\r\nhello\r\n", "nobody understands"),
    ],
)
def test_server_that_cannot_serve_is_told_from_one_that_is_none(answer: bytes, message: str) -> None:
    """Each with a message that says what to do about it."""
    with answering(*[answer] * 20) as listener, pytest.raises(JournalError, match=message):
        RedisJournal(f"{listener.url}/0")


# Many servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes."""
    with running_cluster() as made:
        yield made


def test_journal_on_a_cluster_is_spread_over_its_nodes(cluster: Cluster) -> None:
    """All that it promises holds there, too."""
    cluster.flush()
    with opened(cluster.url, partitions=8) as first, opened(cluster.url, partitions=8) as second:
        keys = [f"key-{number}" for number in range(60)]
        put(first, *[(key, "1") for key in keys])
        assert found(second, *keys) == dict.fromkeys(keys, "1")
        assert all(has_keys(node) for node in cluster.nodes)
        mark = first.mark()
        delivered = take_all(first)
        assert {key for key, _ in texts(delivered)} == set(keys)
        assert first.is_past(mark)
        wait_until(lambda: (first.take(1), second.take(1), len(second._ownership.owned()))[2] == 4, "both have four")
        put(second, ("a", "1"), ("b", "1"))
        owner, (taken, *_) = next((one, batch) for one in (first, second) if (batch := one.take(10)))
        assert owner.bury(taken, error="refused")
        assert [letter.key for letter in first.dead()] == [taken.key]
        status = first.status()
        assert (status.pending, status.dead, status.size_bytes > 0) == (1, 1, True)
        assert first.retry() == 1


def test_node_that_does_not_answer_concerns_its_partitions_only(cluster: Cluster) -> None:
    """Writes of the others are kept meanwhile, also those that come at the same time."""
    cluster.flush()
    keys = [f"key-{number}" for number in range(12)]
    with opened(cluster.url, partitions=8, options="&socket_timeout=0.2") as journal:
        put(journal, *[(key, "1") for key in keys])
        cluster.nodes[0].pause()
        try:
            receipts = {key: journal.append([entry(key, "2")]) for key in keys}
            kept = [key for key, receipt in receipts.items() if wait_for(receipt).error is None]
        finally:
            cluster.nodes[0].resume()
        assert 0 < len(kept) < len(keys)
        wait_until(lambda: all(is_kept(journal, key, "3") for key in keys), "all nodes answer again")
        assert found(journal, *keys) == dict.fromkeys(keys, "3")


def has_keys(server: RedisServer) -> bool:
    """Tell whether a node has anything."""
    with server.client() as client:
        return int(client.dbsize()) > 0


def test_node_of_a_cluster_is_told_from_a_single_server(cluster: Cluster) -> None:
    """The error says which URL to use."""
    cluster.flush()
    with pytest.raises(JournalError, match=r"redis\+cluster://"), opened(cluster.nodes[0], partitions=8):
        pass


@pytest.fixture
def sentinel() -> Iterator[SentinelSetup]:
    """A master, a replica and a sentinel."""
    with running_sentinel() as setup:
        yield setup


@pytest.mark.timeout(60)
def test_journal_goes_on_when_a_replica_takes_over(sentinel: SentinelSetup) -> None:
    """What it had is delivered; its numbers go on behind all that were used."""
    with opened(sentinel.url, partitions=1, options="&socket_timeout=1") as journal:
        put(journal, ("a", "1"))
        before = journal.take(1)
        with sentinel.master.client() as client:
            assert client.wait(1, 5000) == 1
        sentinel.fail_over()
        wait_until(lambda: is_kept(journal, "b", "1"), "the new master takes writes")
        kept: list[Pending] = []
        wait_until(lambda: kept.extend(take_all(journal)) or not journal.count(), "it delivers")
        assert texts(kept) == [("a", "1"), ("b", "1")]
        assert kept[1].place > before[0].place


# Killed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
@pytest.mark.timeout(90)
def test_killed_server_loses_nothing_that_was_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    """With `appendfsync always`, twenty times under load, with the same journal open all the time."""
    caplog.set_level(logging.ERROR, "credenza")
    acknowledged: dict[str, int] = {}
    with running_redis(appendonly="yes", appendfsync="always") as server, opened(server, partitions=4) as journal:
        for turn in range(20):
            wait_until(lambda: is_kept(journal, "up", "1"), "the server is up")
            writers = [
                Call(lambda name=name, turn=turn: write_until_refused(journal, name, turn, acknowledged))
                for name in range(6)
            ]
            wait_until(lambda turn=turn: writes_of(turn, acknowledged) >= 30, "the writers write")
            server.kill9()
            for writer in writers:
                writer.result()
            server.start()
        wait_until(lambda: is_kept(journal, "up", "2"), "the server is up")
        kept = found(journal, *acknowledged)
    lost = {key: number for key, number in acknowledged.items() if int(kept.get(key) or -1) < number}
    assert lost == {}
    assert not caplog.records


def writes_of(turn: int, acknowledged: dict[str, int]) -> int:
    """Return how many keys were written in one turn."""
    return sum(key.split("-")[1] == str(turn) for key in acknowledged.copy())


def write_until_refused(journal: RedisJournal, name: int, turn: int, acknowledged: dict[str, int]) -> None:
    """Write keys of one's own, and keep what was acknowledged."""
    number = 0
    while True:
        number += 1
        key = f"{name}-{turn}-{number % 50}"
        if not is_kept(journal, key, str(number)):
            return
        acknowledged[key] = number
