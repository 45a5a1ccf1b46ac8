"""The tier itself: operations in, replies out."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from ...errors import ConfigurationError
from ..base import Operation, Reply, TierError
from .discovery import find_master
from .inspection import inspect
from .links import Links
from .routes import Direct, ViaCluster
from .servers import redis_module
from .targets import servers_of
from .turns import Desk, Loops, finished
from .wire import Wire, watch_command

_TICK_NS: Final = 110_000_000
"""How much later than it was told a server may answer that there was nothing: it looks ten times a second."""
_GRACE_NS: Final = 250_000_000
"""After how much more time its silence means that it is away."""
_LOOK_FOR_MASTER_NS: Final = 1_000_000_000
"""How often the sentinels are asked whether another server is the master now."""
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]+")


_PATIENCE: Final = 5
"""An event loop that is busy fires its timers late, while the reply waits to be read; who asks has a better one."""


class RedisTier:
    """What processes share, kept by Redis >= 6.2 or Valkey: a single server, behind Sentinel, or a Cluster.

    Its connections are redis-py's, but none of an existing client's: nothing is connected before the first operation, and a
    process has at most three connections to a server from its threads, two for operations and one that waits for news,
    and one from each event loop; sentinels are asked once a second while somebody watches. The connections speak RESP2 and
    deliver bytes, whatever an existing client is set to.

    No call waits longer than its timeout, but for three things that redis-py does not bound in calls that block: each
    address of a host name, and each request for which the server has no room, may take the time that was left when
    the connection was made; resolving a host name takes as long as it takes. The sentinels, and the nodes of a cluster that
    are asked for its slots, share the time evenly. Waiting for one of the two connections is not counted.

    On a Cluster the operations of a batch keep their order for each record; different records are served side by side.

    Args:
        target: a URL, or a client of redis-py, of either colour, from which the address and credentials are taken.
        namespace: the prefix of the names of the cache that uses it.
        max_bytes: how long an envelope may be; a longer one is cut off when it is read, and so is not understood.

    Raises:
        ConfigurationError: the target cannot be understood, or redis-py or hiredis is not installed.
    """

    def __init__(self, target: Any, *, namespace: str = "credenza", max_bytes: int = 1_000_000) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigurationError(f"namespace must be letters, digits, '_', '.' and '-', got {namespace!r}")
        if max_bytes < 1:
            raise ConfigurationError(f"max_bytes must be positive, got {max_bytes!r}")
        redis_module()
        self.namespace = namespace
        self.max_bytes = max_bytes
        servers = servers_of(target)  # Any above: redis-py's clients have no public type in common
        self._wire = Wire(namespace, max_bytes)
        self._route = ViaCluster(self._wire, servers) if servers.is_cluster else Direct(self._wire)
        self._callers = Desk(servers, most=2)  # one may be kept waiting by a batch that the other would not wait for
        self._watching = Desk(servers, most=1)
        self._servers = servers
        self._looked_ns = 0
        self._look: threading.Thread | None = None
        self._loops = Loops(servers)

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform`. Operations that the server refuses one by one have a `TierError` for their reply."""
        batch = list(operations)
        if not batch:
            return []
        return self._callers.run(
            lambda links: self._route.perform(links, batch, time.monotonic_ns() + timeout_ns),
        )

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform_async`. Batches of one event loop are performed one after the other."""
        deadline_ns = time.monotonic_ns() + _PATIENCE * timeout_ns
        batch = list(operations)
        if not batch:
            return []
        return await self._loops.run(lambda links: self._route.perform(links, batch, deadline_ns), deadline_ns)

    def watch(self, after: int, timeout_ns: int) -> None:
        """See `Tier.watch`. Returns at once when `close` is called; a server that is silent is given 250 ms more."""
        deadline_ns = time.monotonic_ns() + timeout_ns + _GRACE_NS
        block_ms = max(1, max(timeout_ns - _TICK_NS, timeout_ns // 2) // 1_000_000)
        closings = self._watching.closings
        try:
            if self._servers.service:
                self._look_for_master()
            self._watching.run(lambda links: self._wait(links, after, block_ms, deadline_ns))
        except TierError:
            if self._watching.closings == closings:
                raise

    def inspect(self, timeout_ns: int) -> None:
        """Check that the servers can keep what they are given.

        Raises:
            ConfigurationError: one of them is too old, or evicts what protects writes.
            TierError: one of them is away.
        """
        self._callers.run(lambda links: inspect(self._route, links, time.monotonic_ns() + timeout_ns))

    def forget_parent(self) -> None:
        """See `Tier.forget_parent`; the parent's connections stay as they are."""
        self._callers.forget_parent()
        self._watching.forget_parent()
        self._look = None
        self._loops.forget_parent()

    def close(self) -> None:
        """Close the connections of threads, and end a `watch` under way; a later call connects anew."""
        self._callers.close()
        self._watching.close(interrupts=True)
        self._loops.forget_dead()
        look, self._look = self._look, None
        if look is not None and look.is_alive():
            look.join(_GRACE_NS / 1_000_000_000)

    async def close_async(self) -> None:
        """Close the connections of the running event loop; a later call connects anew."""
        await self._loops.close()

    def _look_for_master(self) -> None:
        """Have the sentinels asked now and then: a master that was replaced while it lives ends no connection by itself.

        That is for a thread of its own: the caller keeps proofs, leases and fences alive, and finding a host may take its time.
        """
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < _LOOK_FOR_MASTER_NS or (self._look is not None and self._look.is_alive()):
            return
        self._looked_ns = now_ns
        self._look = threading.Thread(target=self._ask_sentinels, name="credenza-sentinels", daemon=True)
        with suppress(RuntimeError):  # the interpreter is ending
            self._look.start()

    def _ask_sentinels(self) -> None:
        with suppress(TierError):  # whoever talks to the master goes on
            finished(find_master(self._servers, time.monotonic_ns() + _LOOK_FOR_MASTER_NS, is_async=False))

    async def _wait(self, links: Links, after: int, block_ms: int, deadline_ns: int) -> None:
        address = await self._route.address_of(links, self._wire.log, deadline_ns)
        try:
            answer = await links.ask(address, watch_command(self._wire.log, after, block_ms), deadline_ns)
        except TierError:
            self._route.forget()
            raise
        if isinstance(answer, TierError):
            raise answer
