"""What becomes of open journals when the process forks.

SQLite remembers per process which locks it holds on a file. A child inherits that memory but not the locks: it must not use the
parent's connections, not even close them, and must not open the same file as long as it believes to hold locks on it.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An open journal."""

    path: str

    def forget(self) -> list[sqlite3.Connection]: ...


class _Forks:
    """Reaches all open journals when the process forks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the set
        self._open: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._inherited: set[str] = set()

    def add(self, journal: Forkable) -> None:
        with self._lock:
            self._open.add(journal)

    def remove(self, journal: Forkable) -> None:
        with self._lock:
            self._open.discard(journal)

    def refusal(self, path: str) -> str | None:
        """Return why a journal cannot be opened in this process; None if it can."""
        if path not in self._inherited:
            return None
        return (
            f"the journal {path!r} was open when this process was forked, which SQLite does not bear; close it before the "
            'fork, or start the process by "spawn"'
        )

    def before(self) -> None:
        self._lock.acquire()

    def after_in_parent(self) -> None:
        self._lock.release()

    def after_in_child(self) -> None:
        self._lock = threading.Lock()
        inherited, self._open = list(self._open), weakref.WeakSet()
        for journal in inherited:
            for connection in journal.forget():
                # Its memory is shared with the parent. Not even the end of the interpreter may close it.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            self._inherited.add(journal.path)


forks = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)
