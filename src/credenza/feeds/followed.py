"""What a follower asks of a cache, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Standing(Protocol):
    """How a cache stands with its shared tier."""

    @property
    def tier(self) -> str:
        """What it is, "none" without one."""
        ...

    @property
    def owed(self) -> int:
        """How many invalidations it has not taken yet."""
        ...


class Followed(Protocol):
    """What a follower asks of a cache."""

    def invalidate(self, *keys: Any) -> None: ...  # Any: a cache may be typed more narrowly
    def invalidate_tags(self, *tags: str) -> None: ...
    def clear(self) -> None: ...
    def health(self) -> Standing: ...


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """How a follower stands; a snapshot.

    Attributes:
        role: "reading"; "standby", while another process reads for the shared tier; "away", while the database cannot be
            asked; or "closed".
        lag: the cache has heard of everything that was committed this many seconds ago; None until then.
        position: of the feed, for people.
        applied: how many changed rows were applied.
        clears: how often the cache was emptied, for a gap or for a table as a whole.
        error: why it is away.
    """

    role: str
    lag: float | None
    position: str
    applied: int
    clears: int
    error: str | None
