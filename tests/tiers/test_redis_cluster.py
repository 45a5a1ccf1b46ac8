"""The Redis tier on a cluster: batches over several nodes, slots that move, nodes that are away."""
# ruff: noqa: F811  # a fixture is imported, and is the name of an argument

from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from redis.exceptions import ResponseError
from tests.support.servers import Cluster, running_cluster
from tests.support.servers.asking import Asking
from tests.support.servers.fixtures import asking  # noqa: F401  # a fixture
from tests.support.servers.groups import node_id
from tests.tiers.places import NEVER_MS

from credenza.tiers.base import Announce, Drop, Get, Lease, Log, Put, ReadHead, ReadLog, TierError
from credenza.tiers.redis.routes import slot_of

EPOCH, TOKEN = b"epoch--1", b"t" * 16
NAMES = [b"test:%d" % number for number in range(60)]


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster whose slots the test may move, and whose nodes it may stop."""
    with running_cluster() as cluster:
        yield cluster


def put(name: bytes) -> Put:
    return Put(name, b"of " + name, 600_000, NEVER_MS)


def test_batch_over_all_nodes_has_its_replies_in_order(asking: Asking, redis_cluster: Cluster) -> None:
    """Each reply is that of its operation, wherever it was performed."""
    ask = asking(redis_cluster.url)
    assert ask(*map(put, NAMES)) == [True] * len(NAMES)
    assert [record[25:] for record in ask(*map(Get, NAMES))] == [b"of " + name for name in NAMES]
    for node in redis_cluster.nodes:
        with node.client() as client:
            assert client.dbsize() > 0


def test_operations_on_one_record_keep_their_order(asking: Asking, redis_cluster: Cluster) -> None:
    """Whatever else the batch holds, a record sees its operations one after the other."""
    batch = [step for name in NAMES for step in (put(name), Get(name), Drop(name), Get(name))]
    replies = asking(redis_cluster.url)(*batch)
    for name, (stored, record, dropped, gone) in zip(NAMES, zip(*[iter(replies)] * 4, strict=True), strict=True):
        assert (stored, record[25:], dropped, gone) == (True, b"of " + name, True, b"")


@pytest.mark.parametrize("kind", [redis.RedisCluster, redis.asyncio.RedisCluster])
def test_existing_client_of_a_cluster_is_taken(
    asking: Asking, redis_cluster: Cluster, kind: type[redis.RedisCluster]
) -> None:
    """Any node that it knows shows the way to the others."""
    client = kind(host="127.0.0.1", port=redis_cluster.nodes[1].port)
    assert asking(client)(*map(put, NAMES)) == [True] * len(NAMES)
    if isinstance(client, redis.RedisCluster):
        client.close()


def test_slot_has_the_number_that_the_servers_give_it(redis_cluster: Cluster) -> None:
    """Names in braces included, which put records beside each other."""
    with redis_cluster.nodes[0].client() as client:
        for name in [
            b"",
            b"plain",
            b"{shop}~head",
            b"{shop}~log",
            b"a{}b",
            b"a{b",
            b"{a}{b}",
            b"}{a}",
            bytes(range(256)),
        ]:
            assert slot_of(name) == client.execute_command("CLUSTER KEYSLOT", name)


def test_slot_that_moved_is_followed(asking: Asking, own_cluster: Cluster) -> None:
    """A node that says where a slot has gone is believed, for the operations of the batch too."""
    name = NAMES[0]
    slot = slot_of(name)
    ask = asking(own_cluster.url)
    assert ask(Get(name)) == [b""]
    target = next(node for node in own_cluster.nodes if node is not own_cluster.node_of(slot))
    own_cluster.move(slot, target)
    assert ask(put(name), Get(NAMES[1]), Get(name))[2].endswith(name)
    with target.client() as client:
        assert client.exists(name)


def test_record_that_is_on_its_way_is_asked_for_where_it_will_be(asking: Asking, own_cluster: Cluster) -> None:
    """While a slot migrates, what its old node no longer has is the new one's to answer."""
    name, stays = NAMES[0], b"{" + NAMES[0] + b"}stays"
    slot = slot_of(name)
    assert slot == slot_of(stays)
    source = own_cluster.node_of(slot)
    target = next(node for node in own_cluster.nodes if node is not source)
    ask = asking(own_cluster.url)
    ask(put(stays))
    with source.client() as old, target.client() as new:
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", node_id(source))
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", node_id(target))
        leased, filled, kept = ask(Lease(name, TOKEN, 60_000), Get(name), Get(stays))
        assert (leased, filled[:17]) == (b"L" + TOKEN, b"L" + TOKEN)
        assert kept.endswith(stays)
        assert old.exists(stays)
        with pytest.raises(ResponseError):
            old.exists(name)


def test_announcement_waits_for_the_rest_of_its_batch(asking: Asking, own_cluster: Cluster) -> None:
    """What could not be done is not announced, wherever in the batch the announcement stands."""
    ask = asking(own_cluster.url)
    announcement = Announce(EPOCH, b"me", tuple(NAMES))
    assert ask(announcement, *map(put, NAMES))[0].sequence == 1
    home = own_cluster.node_of(slot_of(b"{credenza}~log"))
    other = next(node for node in own_cluster.nodes if node is not home)
    with other.client() as client:
        client.config_set("maxmemory", 1)
    replies = ask(announcement, *map(put, NAMES))
    assert "not announced" in str(replies[0])
    assert {type(reply) for reply in replies[1:]} >= {bool}
    log = ask(ReadLog(EPOCH, 0, 100, 0))[0]
    assert isinstance(log, Log)
    assert log.head.sequence == 1


def test_node_that_is_away_fails_its_own_operations_only(asking: Asking, own_cluster: Cluster) -> None:
    """The others have their replies, and the way is found again once it is back."""
    ask = asking(own_cluster.url)
    ask(*map(put, NAMES))
    own_cluster.nodes[0].kill9()
    replies = ask(*map(Get, NAMES))
    for name, reply in zip(NAMES, replies, strict=True):
        assert isinstance(reply, TierError) == (own_cluster.node_of(slot_of(name)) is own_cluster.nodes[0])
    for node in own_cluster.nodes[1:]:
        node.kill9()
    with pytest.raises(TierError, match="cannot be reached"):
        ask(*map(Get, NAMES))


def test_frozen_node_fails_its_own_operations_in_time(asking: Asking, own_cluster: Cluster) -> None:
    """The others are asked at the same time, and do not wait for it."""
    ask = asking(own_cluster.url)
    ask(*map(put, NAMES))
    own_cluster.nodes[0].pause()
    replies = ask.shortly(*map(Get, NAMES))
    own_cluster.nodes[0].resume()
    for name, reply in zip(NAMES, replies, strict=True):
        assert isinstance(reply, TierError) == (own_cluster.node_of(slot_of(name)) is own_cluster.nodes[0])
    assert not any(isinstance(reply, TierError) for reply in ask(*map(Get, NAMES)))


def test_cluster_without_a_script_is_taught_on_every_node(asking: Asking, redis_cluster: Cluster) -> None:
    """After SCRIPT FLUSH everywhere, the replies are the same."""
    ask = asking(redis_cluster.url)
    for node in redis_cluster.nodes:
        with node.client() as client:
            client.script_flush()
    assert ask(*map(put, NAMES), ReadHead(EPOCH))[:-1] == [True] * len(NAMES)


def test_server_that_is_no_cluster_raises(asking: Asking) -> None:
    """A plain server under a cluster's URL is refused with the server's own reason."""
    from tests.support.servers import running_redis

    with running_redis() as server, pytest.raises(TierError, match="(?i)cluster"):
        asking(f"redis+cluster://127.0.0.1:{server.port}")(Get(NAMES[0]))
