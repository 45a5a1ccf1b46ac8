"""What the writer thread is asked to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import JournalError
from ..base import Entry, Receipt
from .draft import Draft


class Put:
    """Entries to keep, and whom to tell."""

    __slots__ = ("entries", "receipt")

    def __init__(self, entries: Sequence[Entry], receipt: Receipt) -> None:
        self.entries = entries
        self.receipt = receipt


class Task:
    """Something else to do in a transaction, for a caller that waits. It may be done twice, if the first attempt fails."""

    __slots__ = ("done", "error", "outcome", "work")

    def __init__(self, work: Callable[[Draft], Any]) -> None:
        self.work = work
        self.done = threading.Event()
        self.outcome: Any = None  # Any: whatever the work returns
        self.error: JournalError | None = None


Job = Put | Task
