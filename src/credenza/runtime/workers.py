"""Worker threads for what must not block its caller."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("credenza")

_IDLE_SECONDS = 5.0


class Workers:
    """Daemon threads, made when none is idle and gone after a few idle seconds.

    There is no upper bound, unlike with `ThreadPoolExecutor`: a load may wait for another load, and a full pool would
    let both wait for ever. `max_concurrent_loads` bounds what reaches the source. They are daemons, as a loader that
    hangs must not keep the interpreter from ending.
    """

    __slots__ = ("_idle", "_jobs", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._idle = 0  # guarded by _lock: threads that wait, less the jobs that nobody has taken yet

    def submit(self, job: Callable[[], object]) -> None:
        """Run `job` in some thread, soon. What it raises is logged; a job has to tell its outcome itself."""
        with self._lock:
            needs_thread = self._idle <= 0
            self._idle -= not needs_thread
        if needs_thread:
            threading.Thread(target=self._work, args=(job,), name="credenza-worker", daemon=True).start()
        else:
            self._jobs.put(job)

    def _work(self, job: Callable[[], object]) -> None:
        while True:
            _run(job)
            del job
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        return
                job = self._jobs.get()


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except Exception:
        _log.exception("a worker thread's job failed")
    except BaseException:  # a loader's KeyboardInterrupt or SystemExit concerns its leader, who has left
        _log.debug("a worker thread's job was interrupted", exc_info=True)
