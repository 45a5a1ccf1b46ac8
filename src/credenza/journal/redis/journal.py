"""The journal: what it promises, in terms of what is known here and what the scripts do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, cast

from ...errors import ConfigurationError, JournalError
from ...flight import Signal
from ..base import DeadLetter, Entry, JournalStatus, Pending, Receipt
from ..writer import tell
from .consumers import Ownership
from .delivering import Deliveries
from .inspection import inspect
from .keeping import Keeper
from .known import Known, Mark
from .letters import Letters
from .pulse import Pulse
from .server import Server
from .targets import lease_ms_of, target_of

_DEFAULT_LEASE_MS: Final = 15_000


class RedisJournal:
    """Keeps pending writes in Redis >= 6.2 or Valkey, for many processes: each may append, read and deliver.

    It is a `Journal`. Keys are spread over partitions; each has one owner at a time, which delivers its writes in order.
    The processes that deliver share the partitions evenly. Who closes the journal gives its partitions up at once; those of
    a process that is killed or paused are taken over when its lease ends, and it can then change nothing there any more.
    One `take` returns writes of one partition, and `identity_of` names it, as places of different ones cannot be compared.

    A write that is acknowledged is as durable as the server: with `appendonly yes` and `appendfsync always` it survives
    the loss of power. A server that has lost acknowledged writes is noticed, and an error is logged. Where it is not known
    whether the server has kept a write, since it did not answer, the receipt has an error, and the write may be kept.

    The bound is approximate where several processes write: each counts what the others have written as of a quarter of a
    second ago. It never drops anything. Entries of one call are kept all or none; on a Cluster, those of each partition are.

    After `os.fork` it belongs to the parent; the child opens a journal of its own.

    Args:
        url: `redis://host:port/db?namespace=orders&partitions=8&lease=15s`, and the other schemes of shared tiers. The
            namespace names the journal on its server, by default "journal". The number of partitions, by default 8, is fixed
            when the first write is kept.
        max_pending: how many keys may have a pending write.
        lease: how long a process that is silent keeps its partitions. A shorter one means that the writes of a killed
            process wait less; a longer one, that a process may be paused for longer in the middle of a call to the source,
            without its call coming after those of its successor.

    Raises:
        ConfigurationError: the URL is wrong, or names another number of partitions than the journal has; or the server evicts
            what it is given.
        JournalError: the server cannot be reached or is none, or the journal is of a later format.
    """

    is_shared = True

    def __init__(self, url: str, *, max_pending: int = 100_000, lease: Any = None) -> None:  # Any: a duration
        if max_pending < 1:
            raise ConfigurationError(f"max_pending must be at least 1, got {max_pending!r}")
        target = target_of(url)
        lease_ms = lease_ms_of(lease) if lease is not None else target.lease_ms or _DEFAULT_LEASE_MS
        self._pid = os.getpid()
        self._is_closed = False
        self._closing = threading.Lock()
        self._taking = threading.Lock()  # held while partitions change hands
        self._server = Server(target)
        try:
            inspect(self._server, target)
            self._ownership = Ownership(self._server, lease_ms)
            self._known = Known(self._server.layout, target.location, max_pending, self._lost)
            self._keeper = Keeper(self._server, self._known)
            self._pulse = Pulse(self._server, self._known, self._ownership, lease_ms)
            self._deliveries = Deliveries(self._server, self._known, self._ownership, lease_ms)
            self._letters = Letters(self._server, self._known)
            self._pulse.look()
        except BaseException:
            self._server.close()
            raise

    @property
    def identity(self) -> str:
        """See `Journal.identity`; empty before the first write of all."""
        return self._server.identity

    def identity_of(self, taken: Sequence[Pending]) -> str:
        """See `Journal.identity_of`: it names the partition, and what its numbers count.

        Raises:
            Fenced: the lease has ended, so that these must not be delivered by this process.
        """
        if not taken:
            return self.identity
        part = self._server.layout.part_of(taken[0].key)
        self._ownership.check(part)
        return f"{self._known.identity(part)}:{part}"

    # Keeping ----------------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """See `Journal.append`.

        Raises:
            JournalError: it was closed, or opened before this process was forked.
            JournalFull: these are more entries than it may hold at all.
        """
        self._require()
        self._pulse.start()
        return self._keeper.append(entries)

    def has_room(self) -> Signal:
        """See `Journal.has_room`."""
        self._require()
        self._pulse.start()
        return self._known.room()

    def owes(self, key: bytes) -> bool:
        """See `Journal.owes`."""
        self._require()
        return self._known.owes(key)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """See `Journal.find`."""
        self._require()
        return self._server.find(keys)

    # Delivering -------------------------------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Pending]:
        """See `Journal.take`; takes partitions over that nobody owns, and gives up what is more than this process's share."""
        with self._taking:
            self._balance()
            return self._deliveries.take(limit)

    def settle(self, taken: Sequence[Pending]) -> None:
        """See `Journal.settle`.

        Raises:
            JournalError: among others, when somebody else owns the partition by now, which delivers them again.
        """
        self._require()
        self._deliveries.settle(taken)

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        """See `Journal.postpone`; raises as `settle` does."""
        self._require()
        self._deliveries.postpone(taken, delay_ms, failures)

    def bury(self, taken: Pending, *, error: str) -> bool:
        """See `Journal.bury`; raises as `settle` does."""
        self._require()
        return self._deliveries.bury(taken, error)

    def wait(self, timeout_ns: int) -> None:
        """See `Journal.wait`; what others append is noticed within a quarter of a second."""
        self._require()
        ends_ns = time.monotonic_ns() + timeout_ns
        self._pulse.start()
        with self._taking:
            self._balance()
        self._known.wait(ends_ns - time.monotonic_ns(), self._ownership.parts)

    def wake(self) -> None:
        """See `Journal.wake`."""
        self._require()
        self._known.wake()

    # Looking ----------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """See `Journal.count`; as of a quarter of a second ago, where others write."""
        self._require()
        self._pulse.start()
        return self._known.count()

    def mark(self) -> object:
        """See `Journal.mark`; asks the server, as others may have written just now."""
        self._require()
        self._pulse.look()
        return self._known.mark()

    def is_past(self, mark: object) -> bool:
        """See `Journal.is_past`. A write that was replaced before it was delivered counts until its successor is."""
        self._require()
        self._pulse.start()
        return self._known.is_past(cast("tuple[Mark, ...]", mark))

    def status(self) -> JournalStatus:
        """See `Journal.status`."""
        self._require()
        return self._letters.status(*self._pulse.look())

    def dead(self) -> list[DeadLetter]:
        """See `Journal.dead`."""
        self._require()
        return self._letters.dead()

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.retry`; the bound does not keep it from it."""
        self._require()
        return self._letters.revive("retry", numbers)

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.discard`."""
        self._require()
        return self._letters.revive("discard", numbers)

    def close(self) -> None:
        """See `Journal.close`; does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            self._keeper.close()
            self._known.wake()
            self._pulse.stop()
            with self._taking:
                if self._pulse.is_consuming:
                    self._ownership.leave()
            tell(self._known.end())
            self._server.close()

    @classmethod
    def attach(cls, url: str) -> RedisJournal:
        """Return the journal for its operators: nothing is made where there is none.

        Raises:
            JournalError: there is none; or as for the class.
        """
        journal = cls(url)
        if not journal.identity:
            journal.close()
            raise JournalError(f"there is no journal at {journal.location}; the namespace in the URL names it")
        return journal

    @property
    def location(self) -> str:
        """Where it is, without passwords."""
        return self._server.location

    # Within -----------------------------------------------------------------------------------------------------------

    def _require(self) -> None:
        if self._is_closed:
            raise JournalError(f"the journal {self._server.location} was closed; open it anew")
        if os.getpid() != self._pid:
            raise JournalError(
                f"the journal {self._server.location} was opened before this process was forked; open it after the fork"
            )

    def _balance(self) -> None:
        self._require()  # with the lock, so that nothing is claimed once it was given up
        self._pulse.is_consuming = True
        self._pulse.start()
        self._server.make()
        self._ownership.balance(*self._pulse.look())

    def _lost(self, part: int) -> None:
        """Take note that the server has lost what it knew of a partition."""
        self._ownership.lose(part)
        self._server.forget()
