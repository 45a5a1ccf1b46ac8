"""The Redis tier behind a sentinel: the master, whoever that is."""
# ruff: noqa: F811  # a fixture is imported, and is the name of an argument

import pytest
import redis.asyncio
import redis.sentinel
from tests.support.servers import RedisServer, SentinelSetup, free_port
from tests.support.servers.asking import SECOND_NS, SHORTLY_NS, Asking
from tests.support.servers.fixtures import asking  # noqa: F401  # a fixture
from tests.support.servers.impostors import answering, listening
from tests.support.waiting import wait_until
from tests.tiers.places import NEVER_MS

from credenza.errors import ConfigurationError
from credenza.tiers.base import Get, Put, TierError
from credenza.tiers.redis import RedisTier

NAME = b"test:name"
WRITE = Put(NAME, b"envelope", 600_000, NEVER_MS)


def test_master_is_found_and_found_again_after_a_fail_over(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """Writes go to the master; once another server is that, they go there, though the old one takes them for a while."""
    ask = asking(redis_sentinel.url)
    assert ask(WRITE) == [True]
    redis_sentinel.fail_over()
    with redis_sentinel.master.client() as old, redis_sentinel.replica.client() as new:
        new.delete(NAME)  # it was replicated

        def is_written_there() -> bool:
            ask.tier.watch(0, SHORTLY_NS)  # as the keeper of a cache does all the time
            return ask(WRITE) == [True] and bool(new.exists(NAME))

        wait_until(is_written_there, "writes to go to the new master")
        assert old.role()[0] == b"master"


def test_sentinel_that_is_frozen_keeps_nobody_waiting(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """Whoever watches has a master to watch, and keeps leases and proofs alive in between."""
    ask = asking(redis_sentinel.url)
    assert ask(WRITE) == [True]
    ask.tier.watch(0, SHORTLY_NS)
    redis_sentinel.sentinel.pause()
    try:
        for _ in range(12):
            ask.tier.watch(0, SHORTLY_NS // 2)  # raises no TierError: the master is there
            assert ask(WRITE) == [True]
    finally:
        redis_sentinel.sentinel.resume()


def test_sentinels_that_are_away_end_no_connection_to_the_master(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """Nobody needs them while the master is there."""
    ask = asking(redis_sentinel.url)
    assert ask(WRITE) == [True]
    ask.tier.watch(0, SHORTLY_NS)
    redis_sentinel.sentinel.stop()
    for _ in range(2):
        ask.tier.watch(0, SECOND_NS)
        assert ask(WRITE) == [True]


def test_master_that_became_a_replica_is_left(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """A refusal to write makes the tier ask the sentinel again, which may not know better yet."""
    ask = asking(redis_sentinel.url)
    ask(WRITE)
    with redis_sentinel.master.client() as client:
        client.replicaof("127.0.0.1", redis_sentinel.replica.port)
        wait_until(lambda: client.role()[0] == b"slave", "the master to be a replica")
        (first,) = ask(WRITE)
        assert "READONLY" in str(first)
        client.replicaof("NO", "ONE")
        asked = redis_sentinel.sentinel.client().info("stats")["total_connections_received"]
        assert ask(WRITE) == [True]
        assert redis_sentinel.sentinel.client().info("stats")["total_connections_received"] > asked + 1


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel])
def test_client_made_by_a_sentinel_is_taken(asking: Asking, redis_sentinel: SentinelSetup, module: type) -> None:
    """`Sentinel.master_for` of either colour names the service and its sentinels."""
    sentinel = module.Sentinel([("127.0.0.1", redis_sentinel.sentinel.port)])
    assert asking(sentinel.master_for(redis_sentinel.service, db=2))(WRITE) == [True]
    with redis_sentinel.master.client(db=2) as client:
        assert client.exists(NAME)
    with pytest.raises(ConfigurationError, match="master_for"):
        RedisTier(sentinel.slave_for(redis_sentinel.service))


def test_sentinel_that_is_away_is_passed_over(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """Others are asked, be the first refused, silent or confused; each leaves time for the next."""
    with listening(lambda sock: sock.recv(1_000) and sock.recv(1)) as silent, answering(b"+what?\r\n-ERR\r\n") as odd:
        hosts = [free_port(), silent.port, redis_sentinel.sentinel.port]
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in hosts)}/{redis_sentinel.service}"
        assert asking(url)(WRITE, timeout_ns=3_000_000_000) == [True]
        with pytest.raises(TierError):
            asking(f"redis+sentinel://127.0.0.1:{odd.port}/main")(WRITE)


def test_service_that_nobody_watches_raises(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """The error names it."""
    with pytest.raises(TierError, match="'other'"):
        asking(f"redis+sentinel://127.0.0.1:{redis_sentinel.sentinel.port}/other")(Get(NAME))


def test_sentinels_have_no_connection_that_stays(asking: Asking, redis_sentinel: SentinelSetup) -> None:
    """They are asked once, and only the connection to the master stays open."""

    def count(server: RedisServer) -> int:
        with server.client() as client:
            return len(client.client_list(_type="normal"))

    before = count(redis_sentinel.sentinel)
    ask = asking(redis_sentinel.url)
    ask(WRITE)
    wait_until(lambda: count(redis_sentinel.sentinel) == before, "the connection to the sentinel to end")
    ask.tier.watch(0, 1_000_000)
    wait_until(lambda: count(redis_sentinel.sentinel) == before, "the connection to the sentinel to end")
