"""The tier itself: operations in, replies out."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Final

from ...errors import ConfigurationError
from ..base import Operation, Reply, TierError
from .access import redis_module
from .blocking import Desk
from .inspection import inspect
from .lines import Lines, Parcel
from .looping import Loops
from .targets import route_to
from .wire import Wire, watch_command

_TICK_NS: Final = 110_000_000
"""How much later than it was told a server may answer that there was nothing: it looks ten times a second."""
_GRACE_NS: Final = 250_000_000
"""After how much more time its silence means that it is away."""
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]+")


class RedisTier:
    """What processes share, kept by Redis >= 6.2 or Valkey: a single server, behind Sentinel, or a Cluster.

    Nothing is connected before the first operation. A process has at most two connections to a server from its threads,
    one for operations and one that waits for news, and one from each event loop; all of them are the tier's own, speak
    RESP2 and deliver bytes, whatever an existing client is set to. No call waits longer than its timeout, but for a name
    server that is slow to resolve the host.

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
        self._route = route_to(target)  # Any above: redis-py's clients have no public type in common
        self._wire = Wire(namespace, max_bytes)
        self._callers = Desk()
        self._watching = Desk()
        self._loops = Loops()

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform`. Operations that the server refuses one by one have a `TierError` for their reply."""
        deadline_ns = time.monotonic_ns() + timeout_ns
        batch = list(operations)
        if not batch:
            return []
        return self._callers.run(lambda lines: self._route.perform(self._wire, lines, batch, deadline_ns), timeout_ns)

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform_async`. Batches of one event loop are performed one after the other."""
        deadline_ns = time.monotonic_ns() + timeout_ns
        batch = list(operations)
        if not batch:
            return []
        return await self._loops.run(
            lambda lines: self._route.perform(self._wire, lines, batch, deadline_ns), timeout_ns
        )

    def watch(self, after: int, timeout_ns: int) -> None:
        """See `Tier.watch`. Returns at once when `close` is called; a server that is silent is given 250 ms more."""
        deadline_ns = time.monotonic_ns() + timeout_ns + _GRACE_NS
        block_ms = max(1, max(timeout_ns - _TICK_NS, timeout_ns // 2) // 1_000_000)
        closings = self._watching.closings
        try:
            self._watching.run(lambda lines: self._wait(lines, after, block_ms, deadline_ns), timeout_ns)
        except TierError:
            if self._watching.closings == closings:
                raise

    def inspect(self, timeout_ns: int) -> None:
        """Check that the servers can keep what they are given.

        Raises:
            ConfigurationError: one of them is too old, or evicts what protects writes.
            TierError: one of them is away.
        """
        deadline_ns = time.monotonic_ns() + timeout_ns
        self._callers.run(lambda lines: inspect(self._route, lines, deadline_ns), timeout_ns)

    def forget_parent(self) -> None:
        """See `Tier.forget_parent`; the parent's connections stay as they are."""
        self._callers.forget_parent()
        self._watching.forget_parent()
        self._loops.forget_parent()

    def close(self) -> None:
        """Close the connections of threads, and end a `watch` under way; a later call connects anew."""
        self._callers.close()
        self._watching.close(interrupts=True)
        self._loops.forget_dead()

    async def close_async(self) -> None:
        """Close the connections of the running event loop; a later call connects anew."""
        await self._loops.close()

    async def _wait(self, lines: Lines, after: int, block_ms: int, deadline_ns: int) -> None:
        place = await self._route.place_of(lines, self._wire.log, deadline_ns)
        try:
            (answer,) = await lines.ask(Parcel(place, watch_command(self._wire.log, after, block_ms), 1), deadline_ns)
        except TierError:
            self._route.forget(place)
            raise
        if isinstance(answer, TierError):
            raise answer
