"""The connection that reads what is pending, beside the one that writes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from ...errors import JournalError
from . import files
from .draft import Slot

T = TypeVar("T")

_FIND: Final = "SELECT value FROM pending WHERE place = ?"
_PAUSE: Final = 0.000_2
_PATIENCE_NS: Final = 10_000_000_000


class Reader:
    """Reads for one thread at a time.

    Args:
        path: the journal.
        slots: where the pending writes are; told of a commit right after it.
    """

    def __init__(self, path: str, slots: Mapping[bytes, Slot]) -> None:
        self._path = path
        self._slots = slots
        self._lock = threading.Lock()  # held while the connection reads
        self.connection = files.open_reader(path)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Return the values of those keys that are pending."""
        slots = self._slots
        found: dict[bytes, bytes | None] = {}
        wanted = [key for key in keys if key in slots]
        ends_ns = time.monotonic_ns() + _PATIENCE_NS
        while wanted:
            for key, row in self.read(partial(self._rows, keys=wanted)):
                if row is not None:
                    found[key] = row[0]
            # A row that moved or went by a commit of which the memory was not told yet: it will be, at once.
            wanted = [key for key in wanted if key not in found and key in slots]
            if wanted:
                if time.monotonic_ns() > ends_ns:
                    raise JournalError(f"the journal {self._path!r} does not hold what it should; open it anew")
                time.sleep(_PAUSE)
        return found

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` reads."""
        with self._lock:
            try:
                return work(self.connection)
            except sqlite3.Error as error:
                raise JournalError(f"the journal {self._path!r} cannot be read: {error}") from error

    def close(self) -> None:
        """Close the connection when nobody reads."""
        with self._lock:
            self.connection.close()

    def _rows(
        self, connection: sqlite3.Connection, *, keys: Sequence[bytes]
    ) -> list[tuple[bytes, tuple[bytes | None] | None]]:
        """Return the row of each key that is pending, None if it is not where it was known to be."""
        slots = self._slots
        return [
            (key, connection.execute(_FIND, (slot.place,)).fetchone())
            for key in keys
            if (slot := slots.get(key)) is not None
        ]
