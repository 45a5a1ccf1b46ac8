"""How the file stays small: what expired goes, and values go early when it would grow beyond its bound.

Leases, fences and tags are never evicted: their absence would be taken for another truth. They are short and expire.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from .boot import now_ms

_EVERY: Final = 32
_BITE: Final = 128
_EXPIRED: Final = """
DELETE FROM records WHERE rowid IN (
    SELECT rowid FROM records WHERE is_value = ? AND expires_ms <= ? ORDER BY expires_ms LIMIT ?)
"""
_EVICTED: Final = """
DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE is_value = 1 ORDER BY expires_ms LIMIT ?)
"""
# Pages are set free, and used again, at the granularity of whole records: the bound needs some room below it.
_FULL: Final = 0.95


class Space:
    """Keeps a file below a size, a small bite with every few writing operations.

    Args:
        max_file_bytes: how large the file may become.
    """

    def __init__(self, max_file_bytes: int) -> None:
        self._max_file_bytes = max_file_bytes
        self._owed = 0  # writes since the last bite; batches of one process take turns

    def sweep(self, connection: sqlite3.Connection, operations: int) -> None:
        """Make room within a writing transaction that performs so many operations."""
        self._owed += operations
        if self._owed < _EVERY:
            return
        bite, self._owed = max(_BITE, 4 * self._owed), 0
        time_ms = now_ms()
        for is_value in (0, 1):
            connection.execute(_EXPIRED, (is_value, time_ms, bite))
        pages = self._max_pages(connection)
        if self._used(connection) > _FULL * pages:
            connection.execute(_EVICTED, (bite,))

    def make_room(self, connection: sqlite3.Connection) -> None:
        """Free a part of the file within a transaction, after a write did not fit."""
        pages = self._max_pages(connection)
        for _ in range(64):
            connection.execute(_EXPIRED, (1, now_ms(), _BITE))
            if self._used(connection) <= 0.9 * _FULL * pages or not connection.execute(_EVICTED, (_BITE,)).rowcount:
                return

    def bound(self, connection: sqlite3.Connection) -> None:
        """Set the size that a connection will never exceed."""
        page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {max(64, self._max_file_bytes // page_bytes)}")

    @staticmethod
    def _max_pages(connection: sqlite3.Connection) -> int:
        pages: int = connection.execute("PRAGMA max_page_count").fetchone()[0]
        return pages

    @staticmethod
    def _used(connection: sqlite3.Connection) -> int:
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return pages - free
