"""Servers that belong together: a cluster, and a master with a replica and a sentinel."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from .binaries import find_server
from .redis_server import RedisServer, temporary_folder

_SLOTS = 16384
_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of a cluster; each has a third of the slots at the start."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def node_of(self, slot: int) -> RedisServer:
        """Return the node that has a slot at the start."""
        return self.nodes[min(slot * len(self.nodes) // _SLOTS, len(self.nodes) - 1)]

    def move(self, slot: int, to: RedisServer) -> None:
        """Give a slot that holds no records to another node."""
        owner = node_id(to)
        for node in [to, *(node for node in self.nodes if node is not to)]:
            with node.client() as client:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)

    def flush(self) -> None:
        """Empty all nodes."""
        for node in self.nodes:
            with node.client() as client:
                client.flushall()


@dataclass(frozen=True, slots=True)
class SentinelSetup:
    """A master, its replica and a sentinel that watches them under `service`."""

    master: RedisServer
    replica: RedisServer
    sentinel: RedisServer
    service: str = "main"

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{self.service}/0"

    def fail_over(self) -> None:
        """Make the replica the master, and wait until the sentinel says so."""
        with self.sentinel.client() as client:
            _until(lambda: client.execute_command("SENTINEL FAILOVER", self.service), "a replica that will do")
            _until(lambda: _master_port(client, self.service) == self.replica.port, "the fail-over")


def node_id(server: RedisServer) -> bytes:
    """Return the name of a cluster's node."""
    with server.client() as client:
        return _raw(client, "CLUSTER MYID")


@contextmanager
def running_cluster(kind: str = "redis", *, size: int = 3) -> Iterator[Cluster]:
    """A cluster of `size` masters without replicas."""
    binary = find_server(kind)
    with temporary_folder() as folder, ExitStack() as stack:
        nodes: list[RedisServer] = []
        for _ in range(size):
            options = {"cluster-enabled": "yes", "cluster-node-timeout": "5000"}
            node = RedisServer(folder, binary=binary, options=options)
            node.options["cluster-config-file"] = f"{node.port}.nodes"
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        _join(nodes)
        yield Cluster(nodes)


@contextmanager
def running_sentinel(kind: str = "redis") -> Iterator[SentinelSetup]:
    """A master, a replica that follows it, and a sentinel that knows both."""
    binary = find_server(kind)
    with temporary_folder() as folder, ExitStack() as stack:
        master = _started(RedisServer(folder, binary=binary), stack)
        replica = RedisServer(folder, binary=binary, options={"replicaof": f"127.0.0.1 {master.port}"})
        _started(replica, stack)
        sentinel = RedisServer(folder, binary=binary, mode="--sentinel")
        sentinel.options["sentinel"] = f"monitor main 127.0.0.1 {master.port} 1"
        _started(sentinel, stack)
        with sentinel.client() as client, replica.client() as follower:
            for name, value in (("down-after-milliseconds", 1000), ("failover-timeout", 3000)):
                client.execute_command("SENTINEL SET", "main", name, value)
            _until(lambda: _raw(follower, "ROLE")[3] == b"connected", "the replica to follow")
            _until(lambda: len(_raw(client, "SENTINEL REPLICAS", "main")) > 0, "the sentinel to know the replica")
        yield SentinelSetup(master, replica, sentinel)


def _started(server: RedisServer, stack: ExitStack) -> RedisServer:
    stack.callback(server.stop)
    server.start()
    return server


def _join(nodes: list[RedisServer]) -> None:
    """Share the slots out, introduce the nodes to each other and wait until all know all."""
    with ExitStack() as stack:
        clients = [stack.enter_context(node.client()) for node in nodes]
        for index, client in enumerate(clients):
            first, end = (-(-_SLOTS * place // len(nodes)) for place in (index, index + 1))
            client.execute_command("CLUSTER ADDSLOTS", *range(first, end))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        for client in clients:
            _until(lambda client=client: _is_complete(client, len(nodes)), "the cluster to form")


def _is_complete(client: Redis, size: int) -> bool:
    slots = _raw(client, "CLUSTER SLOTS")
    return b"cluster_state:ok" in _raw(client, "CLUSTER INFO") and len(slots) == size


def _master_port(client: Redis, service: str) -> int:
    return int(_raw(client, "SENTINEL GET-MASTER-ADDR-BY-NAME", service)[1])


def _raw(client: Redis, *command: object) -> Any:
    """Send a command and return its reply as it comes, whatever redis-py would make of it."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*[word for part in command for word in str(part).split(" ")])
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def _until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + _SECONDS
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.01)
