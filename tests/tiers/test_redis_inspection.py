"""What the Redis tier asks of a server before it relies on it."""

import logging
from collections.abc import Iterator

import pytest
from tests.support.servers import Cluster, RedisServer, running_redis
from tests.support.servers.asking import PATIENCE_NS, SHORTLY_NS
from tests.support.servers.impostors import answering

from credenza.errors import ConfigurationError
from credenza.tiers.base import TierError
from credenza.tiers.redis import RedisTier, inspection


@pytest.fixture(autouse=True)
def unwarned() -> Iterator[None]:
    """Warnings are given once in a process; each test begins anew."""
    inspection._warned.clear()
    yield
    inspection._warned.clear()


def inspect(target: str, timeout_ns: int = PATIENCE_NS) -> None:
    tier = RedisTier(target)
    try:
        tier.inspect(timeout_ns)
    finally:
        tier.close()


def with_policy(server: RedisServer, policy: str) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", policy)


def info(version: str) -> bytes:
    text = f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n".encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


def test_server_that_evicts_nothing_is_fine(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised and nothing is said."""
    with_policy(redis_server, "noeviction")
    inspect(redis_server.url)
    assert not caplog.records


def test_server_that_evicts_what_lives_shortest_is_refused(redis_server: RedisServer) -> None:
    """Fences live shortest."""
    with_policy(redis_server, "volatile-ttl")
    try:
        with pytest.raises(ConfigurationError, match="volatile-ttl"):
            inspect(redis_server.url)
    finally:
        with_policy(redis_server, "noeviction")


def test_server_that_may_evict_a_fence_is_warned_about_once(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one line for it, however many tiers there are."""
    with_policy(redis_server, "allkeys-lru")
    try:
        inspect(redis_server.url)
        inspect(redis_server.url)
    finally:
        with_policy(redis_server, "noeviction")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "allkeys-lru" in record.getMessage()


def test_server_that_does_not_tell_its_policy_is_taken(redis_server: RedisServer) -> None:
    """Managed servers forbid CONFIG, which is not their fault."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config", "-info")
    try:
        inspect(f"redis://app:pw@127.0.0.1:{redis_server.port}")
    finally:
        with redis_server.client() as client:
            client.execute_command("ACL", "DELUSER", "app")


@pytest.mark.parametrize(
    ("version", "is_refused"), [("6.0.16", True), ("5.0.7", True), ("6.2.0", False), ("10.0.1", False)]
)
def test_server_that_is_too_old_is_refused(version: str, is_refused: bool) -> None:
    """Leases are taken by a script that 6.2 is the first to run."""
    with answering(info(version) + b"*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n") as listener:
        if not is_refused:
            inspect(listener.url)
            return
        with pytest.raises(ConfigurationError, match=version):
            inspect(listener.url)


def test_server_that_is_away_raises(redis_server: RedisServer) -> None:
    """Nothing can be said of it."""
    with running_redis() as server:
        server.pause()
        with pytest.raises(TierError, match="in time"):
            inspect(server.url, SHORTLY_NS)


def test_every_node_of_a_cluster_is_inspected(redis_cluster: Cluster) -> None:
    """One that evicts fences is enough."""
    inspect(redis_cluster.url)
    with_policy(redis_cluster.nodes[2], "volatile-ttl")
    try:
        with pytest.raises(ConfigurationError, match=str(redis_cluster.nodes[2].port)):
            inspect(redis_cluster.url)
    finally:
        with_policy(redis_cluster.nodes[2], "noeviction")
