"""The Redis tier when the server, or the way to it, is in trouble."""
# ruff: noqa: F811  # a fixture is imported, and is the name of an argument

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.support.servers import RedisServer, free_port, running_redis
from tests.support.servers.asking import PATIENCE_NS, SHORTLY_NS, Asking
from tests.support.servers.fixtures import asking  # noqa: F401  # a fixture
from tests.support.servers.impostors import answering, listening, proxy_to
from tests.support.waiting import wait_until
from tests.tiers.places import NEVER_MS

from credenza.tiers.base import (
    CLEARED,
    Announce,
    Clear,
    Drop,
    Fence,
    Get,
    Lease,
    MarkTag,
    Put,
    ReadHead,
    Stamp,
    TierError,
)
from credenza.tiers.redis import RedisTier
from credenza.tiers.redis.refusals import Garbled, Refusal
from credenza.tiers.redis.wire import Wire

NAME, EPOCH, TOKEN = b"test:name", b"epoch--1", b"t" * 16
SECRET = "swordfish"  # what must not be shown
ENVELOPE = b"confidential"


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may pause, stop and reconfigure."""
    with running_redis() as server:
        yield server


def put(value: bytes = ENVELOPE) -> Put:
    return Put(NAME, value, 600_000, NEVER_MS)


# Away -----------------------------------------------------------------------------------------------------------------


def test_frozen_server_raises_and_recovers_by_itself(asking: Asking, own_server: RedisServer) -> None:
    """Silence ends with the timeout; once the server goes on, so does the tier."""
    ask = asking(own_server.url)
    ask(put())
    own_server.pause()
    for _ in range(2):
        with pytest.raises(TierError, match="in time"):
            ask.shortly(Get(NAME))
    own_server.resume()
    assert ask(Get(NAME))[0].endswith(ENVELOPE)


def test_late_answer_is_not_taken_for_that_of_a_later_batch(asking: Asking, redis_server: RedisServer) -> None:
    """What was asked before a timeout is answered on a connection that nobody reads any more."""
    with proxy_to(redis_server.port) as proxy:
        ask = asking(proxy.url)
        ask(put(b"first"), Put(b"test:other", b"second", 600_000, NEVER_MS))
        proxy.hold()
        with pytest.raises(TierError):
            ask.shortly(Get(NAME))
        proxy.let_go()
        for _ in range(3):
            assert ask(Get(b"test:other"))[0].endswith(b"second")


def test_refused_connection_raises_at_once(asking: Asking) -> None:
    """The timeout, far longer than a test may take, is not waited for."""
    ask = asking(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(TierError, match="cannot be reached"):
        ask(Get(NAME), timeout_ns=3_600 * 1_000_000_000)


def test_host_that_nobody_knows_raises(asking: Asking) -> None:
    """A name that does not resolve is a tier that is away."""
    with pytest.raises(TierError, match="cannot be reached"):
        asking("redis://no-such-host.invalid")(Get(NAME))


def test_server_that_restarts_is_found_again(asking: Asking, own_server: RedisServer) -> None:
    """The connection that it ended is replaced without anybody noticing."""
    ask = asking(own_server.url)
    ask(put())
    own_server.kill9()
    with pytest.raises(TierError):
        ask(Get(NAME))
    own_server.start()
    assert ask(Get(NAME), put(), Get(NAME))[1:] == [True, ask(Get(NAME))[0]]


def test_answer_that_trickles_in_is_cut_off_by_the_timeout(asking: Asking, redis_server: RedisServer) -> None:
    """The timeout is that of the whole call; a byte now and then does not prolong it."""
    with proxy_to(redis_server.port) as proxy:
        ask = asking(proxy.url)
        ask(put(b"x" * 5_000))
        proxy.pause = 0.02
        with pytest.raises(TierError, match="in time"):
            ask.shortly(Get(NAME))


def test_server_that_accepts_and_is_silent_raises_while_connecting(asking: Asking) -> None:
    """Getting in is part of the timeout."""
    with listening(lambda sock: sock.recv(1) and sock.recv(65_536) and sock.recv(1) and None) as listener:
        ask = asking(f"redis://:{SECRET}@127.0.0.1:{listener.port}/3")
        with pytest.raises(TierError, match="in time"):
            ask.shortly(Get(NAME))


def test_watch_of_a_frozen_server_raises(own_server: RedisServer) -> None:
    """No news from a server that is away is not the news that there is none."""
    tier = RedisTier(own_server.url)
    tier.perform([ReadHead(EPOCH)], PATIENCE_NS)
    own_server.pause()
    with pytest.raises(TierError, match="in time"):
        tier.watch(0, SHORTLY_NS)
    tier.close()


# Garbage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*3\r\n:1\r\n:2\r\n:3\r\n",
        b":7\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"+OK\r\n:1\r\n",
        b"\0" * 64,
    ],
    ids=["http", "list", "number", "nil", "no list", "two answers", "zeros"],
)
def test_answer_that_nobody_understands_raises_and_ends_the_connection(asking: Asking, garbage: bytes) -> None:
    """A look-up has bytes for an answer; after anything else the connection is not used again."""
    with answering(garbage, b"$5\r\nlater\r\n") as listener:
        ask = asking(listener.url)
        for count in (1, 2):
            with pytest.raises(TierError):
                ask(Get(NAME))
            assert listener.accepted == count


@pytest.mark.parametrize(
    ("operation", "garbage"),
    [
        (Lease(NAME, TOKEN, 1_000), b":1\r\n"),
        (Drop(NAME), b"$1\r\n1\r\n"),
        (ReadHead(EPOCH), b"*2\r\n$8\r\nepoch--1\r\n:1\r\n"),
        (ReadHead(EPOCH), b"*5\r\n$8\r\nepoch--1\r\n$1\r\n1\r\n:0\r\n:0\r\n:0\r\n"),
    ],
    ids=["lease", "drop", "short head", "head with text"],
)
def test_answer_of_a_wrong_type_raises(asking: Asking, operation: Drop, garbage: bytes) -> None:
    """What is no answer to an operation is not passed on as one."""
    with answering(garbage) as listener, pytest.raises(TierError, match="nobody understands"):
        asking(listener.url)(operation)


def test_connection_that_ends_within_an_answer_raises(asking: Asking) -> None:
    """Half an answer is none, and is not asked for again."""
    with answering(b"$0\r\n\r\n", b"$100\r\nhalf") as listener:
        ask = asking(listener.url)
        assert ask(Get(NAME)) == [b""]
        with pytest.raises(TierError, match="ended the connection"):
            ask(Get(NAME))
        assert listener.accepted == 1


def test_new_connection_that_ends_without_an_answer_is_not_replaced(asking: Asking) -> None:
    """It had not been idle: whoever ended it had seen the batch."""
    with answering(b"") as listener:
        with pytest.raises(TierError, match="ended the connection"):
            asking(listener.url)(Get(NAME))
        assert listener.accepted == 1


# Refusals -------------------------------------------------------------------------------------------------------------


def test_wrong_password_raises_without_showing_it(asking: Asking) -> None:
    """The error names the reason and neither the password nor the value."""
    with running_redis(requirepass="right") as server:
        ask = asking(f"redis://:{SECRET}@127.0.0.1:{server.port}")
        with pytest.raises(TierError, match="[Pp]assword") as caught:
            ask(put())
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__)


def test_missing_password_is_a_reply_to_each_operation(asking: Asking) -> None:
    """A server that wants a password refuses the operations one by one; the caller decides."""
    with running_redis(requirepass="right") as server:
        ask = asking(f"redis://127.0.0.1:{server.port}")
        replies = ask(Get(NAME), put())
        assert [type(reply).__name__ for reply in replies] == ["Refusal", "Refusal"]
        assert "it wants a password" in str(replies[0])
        assert asking(server.url)(Get(NAME)) == [b""]


def test_replica_takes_no_writes_and_serves_look_ups(asking: Asking, redis_server: RedisServer) -> None:
    """A refusal is the reply of the operation that was refused, and of no other."""
    with running_redis(replicaof=f"127.0.0.1 {redis_server.port}") as replica:
        ask = asking(replica.url)
        refused, record = ask(Fence(NAME, TOKEN, 1_000), Get(NAME))
        assert isinstance(refused, TierError)
        assert "READONLY" in str(refused)
        assert record == b""


def test_full_server_refuses_values_and_lets_writers_go_on(asking: Asking, own_server: RedisServer) -> None:
    """Without memory nothing is stored, but fences stand, tags are marked, and what is there can be invalidated."""
    ask = asking(own_server.url)
    announcement, tag = Announce(EPOCH, b"me", (NAME,)), b"test:tag"
    ask(put(), announcement)
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
    refused, fenced = ask(put(ENVELOPE * 100), Fence(NAME, TOKEN, 60_000))
    assert isinstance(refused, TierError)
    assert "OOM" in str(refused)
    assert ENVELOPE.decode() not in str(refused)
    assert fenced is False
    assert ask(Get(NAME))[0].startswith(b"B")
    marked, announced = ask(MarkTag(tag, Stamp(EPOCH, 7), joins=TOKEN, life_ms=60_000), announcement)
    assert marked.startswith(b"T" + EPOCH)
    assert announced.sequence == 2
    assert ask(Get(tag)) == [marked]
    assert ask(Clear(NAME, TOKEN), Get(NAME), Drop(tag), Get(tag)) == [CLEARED, b"", True, b""]
    with own_server.client() as client:
        client.flushall()
    assert ask(announcement)[0].sequence == 1


@pytest.mark.parametrize("command", ["getrange", "hmget"])
def test_right_that_is_missing_inside_a_script_is_a_refusal(
    asking: Asking, redis_server: RedisServer, command: str
) -> None:
    """What may not be read is not taken for absent, which would lose a fence, or the memory of the namespace."""
    asking(redis_server.url)(Fence(NAME, TOKEN, 60_000), Announce(EPOCH, b"me", (NAME,)))
    rights = ("on", f">{SECRET}", "~*", "+@all", f"-{command}")
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", *rights)
    try:
        ask = asking(f"redis://reader:{SECRET}@127.0.0.1:{redis_server.port}")
        replies = ask(Get(NAME), Get(NAME), put(), ReadHead(b"epoch--2"), Announce(b"epoch--2", b"me"))
        is_refused = ["NOPERM" in str(reply) for reply in replies]
        assert is_refused == ([True] * 3 + [False] * 2 if command == "getrange" else [False] * 3 + [True] * 2)
    finally:
        with redis_server.client() as client:
            client.execute_command("ACL", "DELUSER", "reader")
    record, head = asking(redis_server.url)(Get(NAME), ReadHead(EPOCH))
    assert record.startswith(b"B")
    assert (head.epoch, head.sequence) == (EPOCH, 2 if command == "getrange" else 1)


def test_user_without_rights_is_refused_without_showing_the_value(asking: Asking, redis_server: RedisServer) -> None:
    """A server that repeats the arguments of a command in its error does not make us show them."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+getrange", "+select")
    try:
        ask = asking(f"redis://reader:{SECRET}@127.0.0.1:{redis_server.port}")
        record, refused = ask(Get(NAME), put())
        assert record == b""
        assert "NOPERM" in str(refused)
        assert ENVELOPE.decode() not in str(refused)
    finally:
        with redis_server.client() as client:
            client.execute_command("ACL", "DELUSER", "reader")


def test_error_that_repeats_the_arguments_is_not_shown(asking: Asking) -> None:
    """Some servers do that, and a value may be among them."""
    said = b"-ERR unknown command 'EVALSHA', with args beginning with: '" + ENVELOPE + b"'\r\n"
    with answering(said) as listener:
        (refused,) = asking(listener.url)(put())
        assert str(refused) == "the server refused: ERR"


# What others do to the server -----------------------------------------------------------------------------------------


def test_idle_connection_that_the_server_ended_is_replaced(asking: Asking, redis_server: RedisServer) -> None:
    """A batch that finds its connection closed is sent again on a new one, whatever it is."""
    ask = asking(redis_server.url)
    for operation in (put(), Get(NAME), Announce(EPOCH, b"me", (NAME,))):
        ask(operation)
        with redis_server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert not isinstance(ask(operation)[0], TierError)


def test_batch_is_not_sent_a_third_time(asking: Asking, redis_server: RedisServer) -> None:
    """A connection that ends before any answer is replaced once; a new one that ends as well is a failure."""

    def hang_up(sock: socket.socket) -> None:
        sock.recv(65_536)
        if listener.accepted == 1:
            sock.sendall(b"$0\r\n\r\n")
            sock.recv(65_536)

    with listening(hang_up) as listener:
        ask = asking(listener.url)
        assert ask(Get(NAME)) == [b""]
        with pytest.raises(TierError, match="ended the connection"):
            ask(Get(NAME))
        assert listener.accepted == 2


def test_script_that_the_server_forgot_is_brought_along_again(asking: Asking, redis_server: RedisServer) -> None:
    """After SCRIPT FLUSH a batch has the same replies as ever, look-ups between its writes included."""
    ask = asking(redis_server.url)
    batch = [Get(NAME), put(b"one"), Get(NAME), Fence(b"test:other", TOKEN, 60_000), put(b"two"), Get(NAME)]
    first = ask(*batch)
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    assert ask(*batch) == first
    assert first[0] == b""
    assert first[2].endswith(b"one")
    assert first[3] is False
    assert first[5].endswith(b"two")


def test_foreign_type_under_our_name_is_absent(asking: Asking, redis_server: RedisServer) -> None:
    """A list where a record should be is nothing to read and is overwritten."""
    ask = asking(redis_server.url)
    for operation in (Lease(NAME, TOKEN, 60_000), put(), Fence(NAME, TOKEN, 60_000), Drop(NAME)):
        with redis_server.client() as client:
            client.delete(NAME)
            client.rpush(NAME, "foreign")
        assert ask(Get(NAME)) == [b""]
        *looked, reply = ask(Get(NAME), Get(b"test:none"), operation)
        assert looked == [b"", b""]
        assert not isinstance(reply, TierError)


@pytest.mark.parametrize("answers", [[b"OK"], [b"V", b"OK"]])
def test_bytes_are_no_answer_to_what_is_done(answers: list[bytes]) -> None:
    """Who does not speak the protocol is found out, whether look-ups are in the same request or not."""
    operations = [Get(NAME), put()][-len(answers) :]
    with pytest.raises(Garbled):
        Wire("shop", 1_000).replies(operations, answers)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("NOPERM this user has no permissions to run the 'get' command", "NOPERM"),
        ("ERR Error running script: @user_script:9: -NOPERM this user has no permissions", "NOPERM"),
        (
            "ERR The user executing the script can't run this command or subcommand script: 0a, on @user_script:1.",
            "NOPERM",
        ),
        ("ERR ACL failure in script: User reader has no permissions to run the 'get' command script: 0a", "NOPERM"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: 0a, on @user_script:9.", "OOM"),
        ("ERR Error running script: @user_script: 9: -OOM command not allowed", "OOM"),
        ("MOVED 866 10.0.0.1:6379", "MOVED"),
    ],
)
def test_refusals_of_all_versions_are_told_apart(said: str, code: str) -> None:
    """Redis before 7, 7.0 and later ones say the same in other words."""
    assert Refusal(said).code == code


ODD_NUMBERS = {"negative": "-1", "huge": "1e30", "fraction": "1.5"}


@pytest.mark.parametrize("foreign", ["string", "hash", "negative", "huge", "fraction", "stream ahead"])
def test_foreign_head_or_log_begins_a_new_epoch(asking: Asking, redis_server: RedisServer, foreign: str) -> None:
    """Whatever somebody else wrote there, announcements are numbered from 1 again under a new epoch."""
    ask = asking(redis_server.url)
    with redis_server.client() as client:
        if foreign == "string":
            client.set("{credenza}~head", "foreign")
            client.set("{credenza}~log", "foreign")
        elif foreign == "hash":
            client.hset("{credenza}~head", mapping={"epoch": "short", "sequence": "many"})
        elif foreign in ODD_NUMBERS:
            ask(ReadHead(b"epoch--0"))
            client.hset("{credenza}~head", "floor", ODD_NUMBERS[foreign])
        else:
            ask(ReadHead(b"epoch--0"))
            client.xadd("{credenza}~log", {"foreign": "entry"}, id="100-0")
    head = ask(Announce(EPOCH, b"me", (NAME,)))[0]
    assert (head.epoch, head.sequence) == (EPOCH, 1)


def test_giant_value_is_cut_off(asking: Asking, redis_server: RedisServer) -> None:
    """Only as many bytes come over the line as a record may have."""
    ask = asking(redis_server.url, max_bytes=1_000)
    with redis_server.client() as client:
        client.set(NAME, b"V" * 5_000_000)
    assert ask(Get(NAME)) == [b"V" * 1_025]
    assert len(ask(Lease(NAME, TOKEN, 1_000))[0]) < 1_100_000


def test_threads_share_two_connections_and_each_has_its_own_replies(redis_server: RedisServer) -> None:
    """Many threads at once: every one reads what it wrote, over two connections at most."""
    with proxy_to(redis_server.port) as proxy:
        tier = RedisTier(proxy.url)
        wrong: list[object] = []

        def work(number: int) -> None:
            for turn in range(30):
                name, envelope = b"test:%d" % number, b"%d-%d" % (number, turn)
                stored, record = tier.perform([Put(name, envelope, 60_000, NEVER_MS), Get(name)], PATIENCE_NS)
                if stored is not True or not record.endswith(b"\0" + envelope):
                    wrong.append((stored, record))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert proxy.accepted <= 2
        tier.close()
        wait_until(lambda: not proxy.is_busy(), "the connection to end")
