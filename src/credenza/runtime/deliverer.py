"""The thread that takes pending writes from a journal to the source."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import JournalError
from ..flight import Signal
from ..journal.base import Journal
from .base import block
from .sourcecalls import SourceCalls

_log = logging.getLogger("credenza")

_IDLE_NS = 1_000_000_000
_GLANCE_SECONDS = 0.05
"""How often it looks whether a batch is full."""

_AFTER_FAILURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What is left in a journal; true if that is nothing.

    Attributes:
        pending: writes that the source has not taken.
        dead: writes that it never will, unless they are retried.
    """

    pending: int
    dead: int

    def __bool__(self) -> bool:
        return not self.pending


class Delivery(Protocol):
    """What the thread does, one batch at a time."""

    @property
    def is_idle(self) -> bool:
        """Whether the last call found nothing to deliver."""
        ...

    async def deliver(self) -> int:
        """Deliver the next batch; return for how many nanoseconds to rest then.

        Raises:
            JournalError: the journal could not be read or written.
        """
        ...


class Deliverer:
    """Delivers in a daemon thread, from `start` until it is stopped. Thread-safe.

    Args:
        journal: where the writes are.
        delivery: what takes a batch to the source.
        calls: how the source is called.
        is_urgent: tells whether somebody waits for a delivery.
        batch_size: so many pending writes do not wait for others.
        max_delay_ns: nor does any for longer than this.

    Attributes:
        is_delivering: a batch is under way.
    """

    def __init__(
        self,
        journal: Journal,
        delivery: Delivery,
        calls: SourceCalls,
        is_urgent: Callable[[], bool],
        *,
        batch_size: int,
        max_delay_ns: int,
    ) -> None:
        self.calls = calls
        self._journal = journal
        self._delivery = delivery
        self._is_urgent = is_urgent
        self._batch_size = batch_size
        self._max_delay_ns = max_delay_ns
        self._lock = threading.Lock()  # guards _thread, _flushes, _round
        self._thread: threading.Thread | None = None
        self._flushes = 0
        self._round = Signal()
        self.ended = Signal()
        self._rest = threading.Event()
        self.is_delivering = False
        self._is_closing = self._has_failed = False
        self._since_ns: int | None = None  # when the oldest pending write was seen first; this and _mark: of the thread
        self._mark: object = None  # behind what is to be delivered without another delay

    def start(self) -> None:
        """See to it that the thread runs."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None and not self._is_closing:
                thread = threading.Thread(target=self._run, name="credenza-deliverer", daemon=True)
                thread.start()
                self._thread = thread

    def hurry(self) -> None:
        """Have it deliver what is pending now, whatever the delays."""
        with self._lock:
            self._flushes += 1
        self._awake()

    def relax(self) -> None:
        """Take `hurry` back."""
        with self._lock:
            self._flushes -= 1

    def next_round(self) -> Signal:
        """Return what is set when another batch has been tried."""
        with self._lock:
            return self._round

    def stop(self) -> None:
        """End the thread after the batch that is under way; `ended` is set then.

        The journal is closed at that moment, and not before: as long as a batch is under way nobody else may deliver.
        """
        self._is_closing = True
        self._awake()
        with self._lock:
            thread = self._thread
        if thread is None:
            self._journal.close()
            self.ended.set()

    def _awake(self) -> None:
        self._rest.set()
        with contextlib.suppress(JournalError):  # somebody has closed it
            self._journal.wake()

    def _run(self) -> None:
        try:
            self._deliver()
        finally:
            self._journal.close()
            self.ended.set()

    def _deliver(self) -> None:
        while not self._is_closing:
            self._rest.clear()
            try:
                self._rest.wait(self._step())
            except BaseException as error:  # nothing may end the thread: what is pending would stay
                self._tell(error)
                self._rest.wait(_AFTER_FAILURE_SECONDS)
            self._end_round()

    def _step(self) -> float:
        """Deliver a batch if it is time; return for how many seconds to rest."""
        pending = self._journal.count()
        if not pending:
            self._since_ns = self._mark = None
            self._journal.wait(_IDLE_NS)
            return 0
        now_ns = time.monotonic_ns()
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        waits_ns = self._since_ns + self._max_delay_ns - now_ns
        if pending < self._batch_size and waits_ns > 0 and not (self._flushes or self._is_urgent()):
            return min(waits_ns / 1e9, _GLANCE_SECONDS)
        if not self.calls.may_call():
            return _GLANCE_SECONDS
        if self._mark is None:
            self._mark = self._journal.mark()
        self.is_delivering = True
        try:
            rest_ns = block(self._delivery.deliver())
        finally:
            self.is_delivering = False
        self._has_failed = False
        if self._delivery.is_idle or self._journal.is_past(self._mark):
            self._since_ns = self._mark = None
        return rest_ns / 1e9

    def _tell(self, error: BaseException) -> None:
        """Log what stopped a round, once until one has ended well; a journal that was closed under it is none of it."""
        if not (self._has_failed or self._is_closing):
            unexpected = None if isinstance(error, JournalError) else error
            _log.error("pending writes were not delivered, and will be tried again: %s", error, exc_info=unexpected)
        self._has_failed = True

    def _end_round(self) -> None:
        with self._lock:
            ended, self._round = self._round, Signal()
        ended.set()
