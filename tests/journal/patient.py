"""The journal on Redis, as the suite for all journals wants one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from credenza.journal.base import Entry, Pending, Receipt
from credenza.journal.redis import RedisJournal
from credenza.journal.redis.wire import pending_from
from credenza.testing import FakeClock

_SLOWER = 1_000_000
"""Delays are so much longer for the server, so that none ends by itself while a test runs."""


class PatientJournal(RedisJournal):
    """Delivers from when it is opened; its delays end when the test's clock says so; it knows what others have written.

    It has one partition, so that all that is pending has one order. What a `RedisJournal` knows without asking is what
    it wrote itself, since it was opened; the suite is about one process, so that it learns the rest here.
    """

    def __init__(self, url: str, *, clock: FakeClock, **options: Any) -> None:
        super().__init__(url, **options)
        self._clock = clock
        self._known_s = clock()
        with self._taking:
            self._balance()

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        if not self._is_closed:
            self._learn()
        return super().append(entries)

    def owes(self, key: bytes) -> bool:
        return super().owes(key) or key in self.find([key])

    def take(self, limit: int) -> list[Pending]:
        self._let_pass()
        return super().take(limit)

    def wait(self, timeout_ns: int) -> None:
        self._let_pass()
        super().wait(timeout_ns)

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        self._let_pass()
        super().postpone(taken, delay_ms=delay_ms * _SLOWER, failures=failures, error=error)

    def close(self) -> None:
        if not self._is_closed:
            self._let_pass()
        super().close()

    def _learn(self) -> None:
        """Learn which keys are pending."""
        records = self._server.command("HGETALL", self._server.layout.pending(0))
        versions = {key: pending_from(key, record).version for key, record in records.items()}
        with self._known.lock:
            self._known._owed[0] = dict(sorted(versions.items(), key=lambda item: item[1]))

    def _let_pass(self) -> None:
        """Have the server's delays run down by what has passed on the test's clock."""
        if self._is_closed:
            return
        passed_ms = (self._clock() - self._known_s) * 1000
        self._known_s = self._clock()
        late = self._server.layout.keys(0)[3]
        if passed_ms:
            for key in self._server.command("ZRANGE", late, 0, -1):
                self._server.command("ZINCRBY", late, -round(passed_ms * _SLOWER), key)
