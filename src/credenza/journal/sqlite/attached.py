"""A journal as it is seen beside the process that has it open, if any has: by operators."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from ...errors import JournalError
from ...flight import Signal
from ..base import DeadLetter, Entry, JournalStatus, Pending, Receipt
from . import files, letters, schema
from .forks import forks
from .owner import owner_of

T = TypeVar("T")

# Dead letters that were asked for are pending for whoever looks, although only the journal's owner gives them their place.
_COUNT = """
SELECT (SELECT count(*) FROM pending) + (SELECT count(*) FROM dead WHERE is_asked_for = 1),
       (SELECT min(since_ms) FROM pending), (SELECT count(*) FROM dead WHERE is_asked_for = 0)
"""
_FIND = "SELECT value FROM pending WHERE key = ? ORDER BY place DESC LIMIT 1"


class AttachedJournal:
    """Reads a journal, and retries or discards its dead letters; all else raises `JournalError`.

    Each call opens the file and closes it. Dead letters that are retried are pending from when the owner has noticed, which
    takes it half a second, or from when the journal is opened again.

    Args:
        path: the file, in full.

    Raises:
        JournalError: there is none, it is no journal, of a later format, or broken.
    """

    is_shared = False

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity = str(self._on_file(lambda connection: schema.about(connection, "identity")))

    def identity_of(self, taken: Sequence[Pending]) -> str:
        """See `Journal.identity_of`."""
        return self._identity

    def owes(self, key: bytes) -> bool:
        """See `Journal.owes`; this one asks the file."""
        return bool(self.find([key]))

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """See `Journal.find`; reads the whole file."""

        def read(connection: sqlite3.Connection) -> dict[bytes, bytes | None]:
            rows = {key: connection.execute(_FIND, (key,)).fetchone() for key in keys}
            return {key: row[0] for key, row in rows.items() if row is not None}

        return self._on_file(read)

    def count(self) -> int:
        """See `Journal.count`; this one asks the file."""
        return self._counted()[0]

    def status(self) -> JournalStatus:
        """See `Journal.status`."""
        pending, oldest_ms, dead = self._counted()
        return JournalStatus(
            location=self.path,
            pending=pending,
            dead=dead,
            oldest_ms=oldest_ms,
            size_bytes=files.size_bytes(self.path),
            owner=owner_of(self.path),
            kept_aside=files.kept_aside(self.path),
        )

    def dead(self) -> list[DeadLetter]:
        """See `Journal.dead`."""
        return self._on_file(letters.read)

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.retry`."""
        return self._on_file(lambda connection: letters.ask_for(connection, numbers))

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """See `Journal.discard`."""
        return self._on_file(lambda connection: letters.discard(connection, numbers))

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """Raise `JournalError`, as all that follows but `close`."""
        self._refuse()

    def has_room(self) -> Signal:
        """See `append`."""
        self._refuse()

    def take(self, limit: int) -> list[Pending]:
        """See `append`."""
        self._refuse()

    def settle(self, taken: Sequence[Pending]) -> None:
        """See `append`."""
        self._refuse()

    def postpone(self, taken: Pending, *, delay_ms: int, failures: int, error: str) -> None:
        """See `append`."""
        self._refuse()

    def bury(self, taken: Pending, *, error: str) -> bool:
        """See `append`."""
        self._refuse()

    def wait(self, timeout_ns: int) -> None:
        """See `append`."""
        self._refuse()

    def mark(self) -> object:
        """See `append`."""
        self._refuse()

    def is_past(self, mark: object) -> bool:
        """See `append`."""
        self._refuse()

    def wake(self) -> None:
        """See `append`."""
        self._refuse()

    def close(self) -> None:
        """Do nothing: no file is open between calls."""

    def _counted(self) -> tuple[int, int | None, int]:
        row: tuple[int, int | None, int] = self._on_file(lambda connection: connection.execute(_COUNT).fetchone())
        return row

    def _refuse(self) -> NoReturn:
        raise JournalError(
            f"the journal {self.path!r} is attached, not open: it can be looked at, and dead letters retried or discarded"
        )

    def _on_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if (refusal := forks.refusal(self.path)) is not None:
            raise JournalError(refusal)
        if not os.path.exists(self.path):
            raise JournalError(f"there is no journal at {self.path!r}")
        uri = f"{Path(self.path).as_uri()}?mode=rw"
        try:
            with contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=files.BUSY_SECONDS, isolation_level=None)
            ) as connection:
                if not schema.is_ours(connection, self.path):
                    raise JournalError(f"{self.path!r} is an empty file and no journal yet")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN")
                outcome = work(connection)
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"cannot read the journal {self.path!r}: {error}") from error
        return outcome
