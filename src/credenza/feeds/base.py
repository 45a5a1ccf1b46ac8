"""The port to a change feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Columns = Mapping[str, frozenset[str]]
"""The columns that a feed tells, by table."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that is there, or was, and is not as it was before.

    Attributes:
        table: as it was named when the feed was installed.
        row: the columns that are told; None for "any row of the table", as after TRUNCATE.
    """

    table: str
    row: Mapping[str, Any] | None  # Any: columns of every type


@dataclass(frozen=True, slots=True)
class Batch:
    """What a feed had to say at one time.

    Attributes:
        changes: in no promised order.
        is_gap: further changes may have been missed, so that everything is stale.
        has_more: there is more to read at once.
    """

    changes: Sequence[RowChange] = field(default=())
    is_gap: bool = False
    has_more: bool = False


class Feed(Protocol):
    """The changes of one database, read by one thread.

    What was read and not settled is read again. Without a position, at first or as what it leads to is gone, `read` reports a
    gap and goes on from now. `wake`, `mark`, `has_reached` and `position` may be used by any thread.

    Methods raise `FeedError` where the database cannot be asked, within `timeout` seconds, and `ConfigurationError` where
    asking again would not help.

    Attributes:
        name: under which the position is kept, for all processes; None for a position in this process's memory.
        rest: how long to wait for a word from the database before asking it, in seconds.
    """

    name: str | None
    rest: float

    @property
    def position(self) -> str:
        """What was settled, for people; "" at first."""
        ...

    def connect(self, timeout: float) -> Columns:
        """Connect, and return what is told. Harmless when connected."""
        ...

    def elect(self, timeout: float) -> bool:
        """Tell whether this follower is the one of its name that reads; one without a name always is."""
        ...

    def read(self, timeout: float) -> Batch:
        """Return what has changed since the position."""
        ...

    def settle(self) -> None:
        """Move the position behind what `read` returned last."""
        ...

    def save(self, timeout: float) -> None:
        """Keep the position under the name; does nothing without one, or where it has not moved."""
        ...

    def trim(self, timeout: float) -> None:
        """Delete what is older than is retained, a part of it at a time, if it is time for that."""
        ...

    def wait(self, seconds: float) -> None:
        """Block until there may be news, `wake` is called, or the time is over."""
        ...

    def wake(self) -> None:
        """End a `wait`, or the next one."""
        ...

    def mark(self, timeout: float) -> object:
        """Return the place that the database has come to, asked over a connection of its own."""
        ...

    def has_reached(self, mark: Any) -> bool:  # Any: what `mark` returned
        """Tell whether all that was committed before `mark` was called is settled, here or by the one that reads."""
        ...

    def disconnect(self) -> None:
        """Let go of the database, and of the name. Harmless when disconnected."""
        ...

    def before_fork(self) -> None:
        """Leave nothing open that a child must not inherit."""
        ...

    def after_in_parent(self) -> None:
        """Go on as before; what was let go is connected anew by `connect`."""
        ...

    def after_in_child(self) -> None:
        """Abandon, untouched, what belongs to the parent; the position stays."""
        ...
