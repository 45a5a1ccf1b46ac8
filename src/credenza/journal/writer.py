"""One thread that commits what many threads ask for, as much at once as has come meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ..flight import Signal

J = TypeVar("J")

_logger: Final = logging.getLogger("credenza")


class GroupWriter(Generic[J]):
    """A queue and the thread that empties it. The thread is started by the first job, and does not keep the process alive.

    Args:
        commit: does all jobs of a group, in their order, and tells whoever waits for them; called by the thread.
        refuse: tells whoever waits for a job, and was not told yet, that `commit` raised.
        name: of the thread.
    """

    def __init__(
        self,
        commit: Callable[[list[J]], None],
        refuse: Callable[[list[J], BaseException], None],
        *,
        name: str,
    ) -> None:
        self._commit = commit
        self._refuse = refuse
        self._name = name
        self._lock = threading.Lock()  # guards all below
        self._queue: list[J] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_resting = False
        self._bell = threading.Lock()  # held but for the moment when the resting thread is to go on
        self._bell.acquire()

    def put(self, job: J) -> bool:
        """Queue a job; tell whether it was taken, which it is not once this is closed. Does not block."""
        with self._lock:
            if self._is_closed:
                return False
            if self._thread is None:
                self._thread = self._started()
            self._queue.append(job)
            self._ring()
        return True

    def is_here(self) -> bool:
        """Tell whether the caller runs in the thread, and must not wait for it."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """Take no more jobs, and return when all that were taken are done."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _ring(self) -> None:
        """Wake the thread, with the lock held. An interrupt between any two steps leaves a bell that the next one rings."""
        if self._is_resting and self._bell.locked():
            self._bell.release()

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while True:
            with self._lock:
                group, self._queue = self._queue, []
                if not group and self._is_closed:
                    return
                self._is_resting = not group
            if not group:
                self._bell.acquire()
                continue
            try:
                self._commit(group)
            except BaseException as error:  # whoever waits must learn of it, and the thread must go on
                _logger.exception("%s failed unexpectedly", self._name)
                self._refuse_all(group, error)

    def _refuse_all(self, group: list[J], error: BaseException) -> None:
        try:
            self._refuse(group, error)
        except Exception:
            _logger.exception("%s failed again", self._name)


def tell(signal: Signal) -> None:
    """Set a signal; a waker that raises does not end the thread, nor keep other signals from being set."""
    try:
        signal.set()
    except Exception:
        _logger.exception("telling a caller what became of its write failed")
