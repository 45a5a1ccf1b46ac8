"""What happened in one simulation, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from credenza.flight import Flight

SECOND = 10**9


class Value:
    """A value that knows where it comes from: a load, a `set` or a write."""

    __slots__ = ("key", "origin", "version")

    def __init__(self, key: Hashable, version: int, origin: Any) -> None:
        self.key = key
        self.version = version
        self.origin = origin

    def __repr__(self) -> str:
        return f"<{self.key} version {self.version} of {self.origin}>"


class Call:
    """One call of a client. `end` is None as long as it has not ended."""

    def __init__(self, number: int, actor: str, kind: str, keys: tuple[Hashable, ...], about: str) -> None:
        self.number = number
        self.actor = actor
        self.kind = kind
        self.keys = keys
        self.about = about
        self.start = self.start_ns = self.start_lag_ns = 0
        self.end: int | None = None
        self.end_ns = self.end_lag_ns = 0
        self.results: dict[Hashable, Any] = {}
        self.error: BaseException | None = None
        self.timeout_ns: int | None = None
        self.status: str | None = None
        self.parent: Call | None = None

    def __repr__(self) -> str:
        return f"call {self.number}"


class Run:
    """One run of a loader. `read` is when it looked at the source, `returned` when the loader was over."""

    def __init__(self, number: int, call: Call | None, keys: list[Hashable], flights: dict[Hashable, Flight]) -> None:
        self.number = number
        self.call = call
        self.keys = keys
        self.flights = flights
        self.began = self.began_ns = 0
        self.returned: int | None = None
        self.returned_ns = 0
        self.is_async = False
        self.hangs = False
        self.waits = 0
        self.values: dict[Hashable, Any] = {}
        self.tags: dict[Hashable, tuple[str, ...]] = {}
        self.ttl_ns: dict[Hashable, int] = {}
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        return f"load {self.number}"


class Change:
    """Something after which older values must not be seen: an invalidation, a `set`, one edge of a write.

    Attributes:
        keys: what it is about; None for everything.
        tags: and whatever carries one of these.
        end: None if it never ended.
    """

    def __init__(self, kind: str, keys: tuple[Hashable, ...] | None, tags: tuple[str, ...], start: int) -> None:
        self.kind = kind
        self.keys = keys
        self.tags = tags
        self.start = start
        self.end: int | None = None

    def concerns(self, key: Hashable, tags: tuple[str, ...]) -> bool:
        return self.keys is None or key in self.keys or any(tag in self.tags for tag in tags)

    def __repr__(self) -> str:
        return f"{self.kind} at {self.start}"


class Write:
    """A write to the source inside a fence. Between `body_start` and `body_end` the fence is surely up."""

    def __init__(self, call: Call, kind: str, keys: tuple[Hashable, ...], tags: tuple[str, ...]) -> None:
        self.call = call
        self.kind = kind
        self.keys = keys
        self.tags = tags
        self.body_start: int | None = None
        self.body_end: int | None = None
        self.entry: Change | None = None
        self.exit: Change | None = None

    def concerns(self, key: Hashable, tags: tuple[str, ...]) -> bool:
        return key in self.keys or any(tag in self.tags for tag in tags)

    def is_up_at(self, moment: int) -> bool:
        return self.body_start is not None and self.body_start < moment < (self.body_end or 1 << 60)

    def __repr__(self) -> str:
        return f"{self.kind} of {self.call}"


class Stored:
    """One entry put into the table."""

    def __init__(self, key: Hashable, value: Any, tags: tuple[object, ...], at: int, at_ns: int) -> None:
        self.key = key
        self.value = value
        self.tags = tuple(tag for tag in tags if isinstance(tag, str))
        self.at = at
        self.at_ns = at_ns
        self.ttl_ns: int | None = None


class Flown:
    """One flight, from its entry in the register to its removal."""

    def __init__(self, flight: Flight, begin: int, begin_ns: int) -> None:
        self.flight = flight
        self.begin = begin
        self.begin_ns = begin_ns
        self.end: int | None = None


class History:
    """All of it, with a line for people to read per event.

    Args:
        now: returns the time and the name of who has the turn.
    """

    def __init__(self, now: Callable[[], tuple[int, str]]) -> None:
        self._now = now
        self.moment = 0
        self.lines: list[tuple[int, int, str, tuple[Any, ...]]] = []
        self.calls: list[Call] = []
        self.runs: list[Run] = []
        self.changes: list[Change] = []
        self.writes: list[Write] = []
        self.stored: list[Stored] = []
        self.flown: dict[Flight, Flown] = {}
        self.committed: list[tuple[Hashable, int, int]] = []  # key, version, moment when the write was over
        self.broken: list[str] = []

    def note(self, *what: Any) -> int:
        """Add a line; return its number, which is the moment."""
        self.moment += 1
        at_ns, actor = self._now()
        self.lines.append((self.moment, at_ns, actor, what))
        return self.moment

    def print(self) -> str:
        """Return the interleaving as text."""
        return "\n".join(
            f"{moment:5} {at_ns / SECOND:8.2f}s  {actor:<18} {' '.join(map(str, what))}"
            for moment, at_ns, actor, what in self.lines
        )
