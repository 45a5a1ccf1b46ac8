"""Who delivers what: each partition has one owner at a time, and the processes that live share them evenly."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from typing import Final

from ...clock import suspended_ns
from ...errors import JournalError
from .refusals import Fenced
from .server import Server
from .wire import Look

_RENEW_SECONDS: Final = 1.0


class Ownership:
    """The partitions of one process. `claim` is called by the one thread that delivers, when nothing of it is under way.

    An owner has a lease, which a thread renews, and a number that grows with every owner. The server refuses whoever
    comes with an older number. Who was not heard of for as long as a lease is taken for dead.

    Args:
        server: where the journal is.
        lease_ms: how long a consumer owns a partition without a sign of life.
    """

    def __init__(self, server: Server, lease_ms: int) -> None:
        self._server = server
        self._lease_ms = lease_ms
        self.name = f"{os.getpid()}@{socket.gethostname()}#{secrets.token_hex(4)}"
        self._lock = threading.Lock()  # guards what follows
        self._fences: dict[int, int] = {}
        self._until_ns: dict[int, int] = {}
        self._free: set[int] = set(range(server.partitions))
        self._living: list[str] = []
        self._every_s = min(_RENEW_SECONDS, lease_ms / 4000)
        self._joined = self._renewed = -1e9
        self._turn = 0

    def parts(self) -> list[int]:
        """Return the partitions that this process owns, or might own."""
        with self._lock:
            return [*self._fences, *self._free]

    def owned(self) -> list[int]:
        """Return the partitions that this process owns, the one whose turn it is first."""
        with self._lock:
            parts = sorted(self._fences)
        self._turn += 1
        at = self._turn % len(parts) if parts else 0
        return parts[at:] + parts[:at]

    def fence(self, part: int) -> int:
        """Return the number that shows that this process owns a partition.

        Raises:
            Fenced: it does not.
        """
        with self._lock:
            fence = self._fences.get(part)
        if fence is None:
            raise self._fenced()
        return fence

    def check(self, part: int) -> None:
        """Raise `Fenced` unless half of the lease of a partition is left at least, for what is done under it."""
        self.fence(part)
        with self._lock:
            holds = suspended_ns() + self._lease_ms * 500_000 < self._until_ns.get(part, 0)
        if not holds:
            raise self._fenced()

    def lose(self, part: int) -> None:
        """Take note that a partition is this process's no more."""
        with self._lock:
            self._fences.pop(part, None)
            self._until_ns.pop(part, None)

    def held_for(self, parts: list[int], noted_ns: int) -> None:
        """Take note that leases were renewed by a call that began then."""
        with self._lock:
            for part in parts:
                self._until_ns[part] = noted_ns + self._lease_ms * 1_000_000

    def balance(self, now_ms: int, looks: dict[int, Look]) -> None:
        """Give up what is more than the share of this process, or take what is free up to that."""
        self.join(now=not self._fences)
        living = self._living if self.name in self._living else [*self._living, self.name]
        share = -(-len(looks) // len(living))
        with self._lock:
            owned = sorted(self._fences)
        for part in owned[share:]:
            self._release(part)
        free = [
            part
            for part, look in looks.items()
            if part not in owned and (look.owner in ("", self.name) or look.until_ms <= now_ms)
        ]
        first = living.index(self.name) * share
        for part in sorted(free, key=lambda part: (part - first) % len(looks)):
            if len(self._fences) >= share:
                break
            self._claim(part)
        with self._lock:
            self._free = set() if len(self._fences) >= share else {part for part in free if part not in self._fences}

    def join(self, *, now: bool = False) -> None:
        """Say that this process lives, if it is time to."""
        if now or time.monotonic() - self._joined >= self._every_s:
            self._living = self._server.consumers(self.name, self._lease_ms)
            self._joined = time.monotonic()

    def renew(self) -> None:
        """Prolong the leases, if it is time to; drop those that somebody else has."""
        with self._lock:
            fences = dict(self._fences)
        if not fences or time.monotonic() - self._renewed < self._every_s:
            return
        noted_ns = suspended_ns()
        words = {part: [fence] for part, fence in fences.items()}
        kept, errors = self._server.on_many("renew", words, self._lease_ms)
        self._renewed = time.monotonic()
        self.held_for([part for part, is_kept in kept.items() if is_kept], noted_ns)
        for part, is_kept in kept.items():
            if not is_kept and self._fences.get(part) == fences[part]:
                self.lose(part)
        for error in errors.values():
            raise error

    def leave(self) -> None:
        """Give all partitions up, so that others need not wait for the leases to end, which they must if the server is away."""
        try:
            for part in self.owned():
                self._release(part)
            self._server.leave(self.name)
        except JournalError:
            pass

    def _claim(self, part: int) -> None:
        noted_ns = suspended_ns()
        _, fence = self._server.on(part, "claim", self.name, self._lease_ms)
        if fence:
            with self._lock:
                self._fences[part] = fence
                self._until_ns[part] = noted_ns + self._lease_ms * 1_000_000

    def _release(self, part: int) -> None:
        try:
            self._server.on(part, "release", self.fence(part))
        except Fenced:
            pass
        self.lose(part)

    def _fenced(self) -> Fenced:
        return Fenced(
            f"this process does not own the partition of the journal {self._server.location} any more; another one "
            "delivers what is left"
        )
