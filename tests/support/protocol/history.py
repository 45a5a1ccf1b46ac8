"""What happened in one simulation, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SECOND = 10**9
MILLISECOND = 10**6
NEVER = 1 << 62


class Call:
    """One call of a client.

    Attributes:
        number: counts the calls.
        process: the number of the process that makes it.
        start, end: moments; `end` is `NEVER` for one that did not end.
    """

    def __init__(self, number: int, process: int, actor: str, kind: str, keys: tuple[str, ...]) -> None:
        self.number = number
        self.process = process
        self.actor = actor
        self.kind = kind
        self.keys = keys
        self.start = self.start_ns = 0
        self.end = self.end_ns = NEVER
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"call {self.number}"


class Read(Call):
    """A call that reads. `values` has the number of a write for each key that brought one."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.values: dict[str, int] = {}
        self.status = ""


class Write(Call):
    """A call that writes one version of one key.

    Attributes:
        value: what it writes; no other write has the same.
        is_fenced: it raises a fence before it commits.
        is_announced: its fence was up, as far as its process knows.
        committed, committed_ns: when the source had it.
        was_covered: its fence was there when it was committed.
        fenced_ms: when its fence was raised or renewed last, by the tier's clock; None if the tier has lost it since.
        was_due: its fence should have been there when it was committed, by its age.
        confirmed_ns: when its process made sure of that last.
        is_owed: its process owed an invalidation when the call ended, or since; `delivered` is when it did no longer.
    """

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.value = 0
        self.is_fenced = False
        self.is_announced = False
        self.committed = self.committed_ns = NEVER
        self.was_covered = False
        self.fenced_ms: int | None = None
        self.was_due = False
        self.confirmed_ns: int | None = None
        self.is_owed = False
        self.delivered = self.delivered_ns = NEVER


class Run:
    """One run of a loader; `is_free` if a fence is up when it begins, so that no lease keeps it apart from others."""

    def __init__(self, number: int, process: int, key: str, call: Call | None) -> None:
        self.number = number
        self.process = process
        self.key = key
        self.call = call
        self.began = self.read = 0
        self.began_ns = 0
        self.returned = NEVER
        self.is_free = False

    def __repr__(self) -> str:
        return f"load {self.number}"


class History:
    """All of it, with a line for people to read per event.

    Args:
        now: returns the time and the name of who has the turn.
    """

    def __init__(self, now: Callable[[], tuple[int, str]]) -> None:
        self._now = now
        self.moment = 0
        self.lines: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self.reads: list[Read] = []
        self.writes: list[Write] = []
        self.runs: list[Run] = []
        self.calls = 0
        self.commits: dict[str, list[Write]] = {}
        self.faults: list[tuple[int, int, str]] = []  # moment, time, what
        self.upsets: dict[str, list[int]] = {}  # by key: moments at which a lease may have ended
        self.broken: list[str] = []

    def note(self, *what: Any) -> int:
        """Add a line; return its number, which is the moment."""
        self.moment += 1
        at_ns, actor = self._now()
        self.lines.append((self.moment, at_ns, actor, what))
        return self.moment

    def fault(self, *what: Any) -> None:
        """Add a line about something that goes wrong."""
        moment = self.note("FAULT:", *what)
        self.faults.append((moment, self.lines[-1][1], str(what[0])))

    def upset(self, key: str | None) -> None:
        """Note that a lease of `key`, or of any key, may have ended now."""
        for each in self.commits if key is None else (key,):
            self.upsets.setdefault(each, []).append(self.moment)

    def print(self) -> str:
        """Return the interleaving as text."""
        return "\n".join(
            f"{moment:5} {at_ns / SECOND:9.4f}s  {actor:<16} {' '.join(map(_text, what))}"
            for moment, at_ns, actor, what in self.lines
        )


def _text(part: Any) -> str:
    return part() if callable(part) else str(part)
