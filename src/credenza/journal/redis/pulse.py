"""The thread that keeps leases, and what a process knows, fresh."""

from __future__ import annotations

import logging
import threading
from typing import Final

from ...errors import JournalError
from ..writer import tell
from .consumers import Ownership
from .known import Known
from .server import Server
from .wire import Look

_log = logging.getLogger("credenza")

_LOOK_SECONDS: Final = 0.25


class Pulse:
    """The thread that keeps leases and knowledge fresh, once there is something to keep. It never ends the process's life.

    Args:
        known: told how the partitions are.
    """

    def __init__(self, server: Server, known: Known, ownership: Ownership, lease_ms: int) -> None:
        self._server = server
        self._known = known
        self._ownership = ownership
        self._pause_s = min(_LOOK_SECONDS, lease_ms / 8000)
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()
        self._has_failed = False
        self.is_consuming = False

    def start(self) -> None:
        """See to it that the thread runs."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._ends.is_set():
                    self._thread = threading.Thread(target=self._run, name="credenza-journal-pulse", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait until it has."""
        self._ends.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def look(self) -> tuple[int, dict[int, Look]]:
        """Ask how all partitions are."""
        now_ms, looks = self._server.look(range(self._server.partitions))
        fresh = [part for part, look in looks.items() if look.is_new_run]
        if fresh:
            self._server.open(fresh)
            now_ms, looks = self._server.look(range(self._server.partitions))
        self._known.note_looks(now_ms, looks)
        with self._known.lock:
            room = self._known.made_room()
        if room is not None:
            tell(room)
        return now_ms, looks

    def _run(self) -> None:
        while not self._ends.wait(self._pause_s):
            try:
                self._beat()
                self._has_failed = False
            except Exception as error:  # nothing may end the thread: the leases would
                if not self._has_failed and not self._ends.is_set():
                    _log.warning("%s", error, exc_info=None if isinstance(error, JournalError) else error)
                self._has_failed = True

    def _beat(self) -> None:
        if self.is_consuming:
            self._ownership.renew()
            self._ownership.join()
        self.look()
