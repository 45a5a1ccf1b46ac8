"""Places where journals keep their writes, and what tests do with any journal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.journal.patient import PatientJournal
from tests.support.waiting import DEADLINE

from credenza.journal.base import Entry, Journal, Pending, Receipt
from credenza.journal.memory import DictJournal
from credenza.journal.sqlite import SqliteJournal
from credenza.testing import FakeClock

KINDS = ["dict", "sqlite", "sqlite-os", "redis"]
"""What the suite runs over. Another journal adds its name here, and a branch to `Place.open`."""

TIMEOUT_NS = int(DEADLINE * 1_000_000_000)
FAR_MS = 3_600_000


@dataclass
class Place:
    """Where a journal is, while it is closed as well.

    Attributes:
        kind: which journal.
        path: the file; on a server it names the journal.
        clock: its clock.
        server_url: of the server of those that are on one.
    """

    kind: str
    path: str
    clock: FakeClock = field(default_factory=lambda: FakeClock(1000.0))
    opened: list[Any] = field(default_factory=list)
    server_url: ClassVar[str] = ""

    @property
    def has_clock(self) -> bool:
        """Whether the journal's delays are counted by `clock`."""
        return self.kind in {"dict", "sqlite", "sqlite-os", "redis"}

    def open(self, **options: Any) -> Journal:
        """Open the journal; it must not be open."""
        options["clock"] = self.clock
        if self.kind == "dict":
            journal: Any = self.opened[-1].reopen() if self.opened else DictJournal(**options)
        elif self.kind == "redis":
            namespace = self.path.strip("/").replace("/", "-")
            journal = PatientJournal(f"{self.server_url}/0?namespace={namespace}&partitions=1", **options)
        else:
            durability: Any = "os" if self.kind == "sqlite-os" else "disk"
            journal = SqliteJournal(self.path, durability=durability, **options)
        self.opened.append(journal)
        return journal

    def close(self) -> None:
        """Close whatever was opened."""
        for journal in self.opened:
            journal.close()


def wait_for(receipt: Receipt | None) -> Receipt:
    """Return a receipt when its signal is set."""
    assert receipt is not None, "the journal is full"
    event = threading.Event()
    receipt.signal.listen(event, event.set)
    assert event.wait(DEADLINE), "the journal does not say whether it kept the write"
    receipt.signal.forget(event)
    return receipt


def put(journal: Journal, *entries: tuple[str, str | None]) -> None:
    """Append entries as one, and return when they are kept."""
    receipt = wait_for(journal.append([entry(key, value) for key, value in entries]))
    if receipt.error is not None:
        raise receipt.error


def entry(key: str, value: str | None) -> Entry:
    """Return an entry for texts."""
    return Entry(key.encode(), None if value is None else value.encode())


def texts(taken: Iterable[Pending]) -> list[tuple[str, str | None]]:
    """Return the keys and values of pending writes."""
    return [(one.key.decode(), None if one.value is None else one.value.decode()) for one in taken]


def found(journal: Journal, *keys: str) -> dict[str, str | None]:
    """Return the pending values of keys."""
    values = journal.find([key.encode() for key in keys])
    return {key.decode(): None if value is None else value.decode() for key, value in values.items()}


def take_one(journal: Journal, key: str) -> Pending:
    """Take everything, and return what is pending of a key."""
    (one,) = [one for one in journal.take(1_000_000) if one.key == key.encode()]
    return one


def names_in(folder: str | os.PathLike[str]) -> list[str]:
    """Return what is in a folder."""
    return sorted(os.listdir(folder))
