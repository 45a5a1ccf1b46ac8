"""What one caller wants of one key, and the moves it may be told to make."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from typing import Any, Final

from ..codec import TypedCodec
from ..flight import Flight
from ..memory.implementation import Entry, Tally
from ..policy import Policy
from ..sentinel import MISSING
from ..state import Look
from ..stats import Status


class Move(enum.Enum):
    """What a caller has to do next."""

    SERVE = enum.auto()
    """Take the value that was found; it is fresh."""
    SERVE_STALE = enum.auto()
    """Take the value that was found; it is stale."""
    REFRESH = enum.auto()
    """Take the value that was found, fresh or stale, and start the flight behind the caller's back."""
    LEAD = enum.auto()
    """Run the load of the flight."""
    JOIN = enum.auto()
    """Wait for the flight and use what it brings."""
    WAIT = enum.auto()
    """Wait for the flight, use nothing of it, and ask again: it began before a write that is under way."""
    LOOK = enum.auto()
    """Look in the shared tier, and ask again."""


AGAIN: Final = object()
"""No value yet: the caller has to wait, or to ask again."""

SERVE: Final = Move.SERVE
SERVE_STALE: Final = Move.SERVE_STALE
REFRESH: Final = Move.REFRESH
LEAD: Final = Move.LEAD
JOIN: Final = Move.JOIN
WAIT: Final = Move.WAIT
LOOK: Final = Move.LOOK


class Request:
    """What one call wants for one key, and what it found.

    Attributes:
        loader: the user's loader, as the caller's face takes it.
        tags: what the value will carry at least.
        seen_epoch: the table's epoch when the caller joined its flight.
        is_async: calling the loader gives a coroutine.
        is_forced: load even if a fresh value is at hand (`refresh`).
        keeps: whether what is loaded may be stored at all; False for `Flights`.
        place: how many callers had joined its flight when it did, itself included; `boarded_ns` is when that was.
        has_looked: the shared tier has been asked.
        look: its look-up in the shared tier, which has not been ended.
        is_from_tier: what is served is what its look-up found.
        tier_ns: how long the shared tier may take for it, 0 for as long as the policy says.
        found: what that brought, and `found_tags` the tags of it; not in memory yet, and to go there if `found_is_kept`.
        settlements: how many settlements of what is owed there had been when the shared tier was asked.
        seen: the beginning of the shared record that is to be replaced; b"" if there is none. `replaces_readable` tells
            whether others can still use it.
        typed: what decodes and encodes its values for the shared tier; None where there is none.
        value, is_absent, is_stale: what was found in memory; taken under the lock, as an entry that leaves loses its value.
        status, age_ns, load_ns: for `Fetched`, filled in on the way.
    """

    timeout_ns: int | None = None
    is_forced: bool = False
    keeps: bool = True
    arrived: int = -1
    seen_epoch: int = 0
    status: Status = Status.MISS
    value: Any = MISSING  # Any: a value of any type
    awaitable: Any = None  # Any: what a plain loader returned in the async face, if it is to be awaited
    is_absent: bool = False
    is_stale: bool = False
    age_ns: int = 0
    load_ns: int = 0
    place: int = 0
    boarded_ns: int = 0
    has_looked: bool = False
    look: Look | None = None
    found: Entry | None = None
    found_tags: tuple[object, ...] = ()
    found_is_kept: bool = True
    seen: bytes = b""
    replaces_readable: bool = False
    is_from_tier: bool = False
    tier_ns: int = 0
    settlements: int = 0
    typed: TypedCodec | None = None
    move: Move
    flight: Flight

    def __init__(
        self,
        key: Hashable,
        loader: Callable[..., Any],  # Any: a value, or an awaitable of one in the async face
        policy: Policy,
        tags: tuple[object, ...],
        tally: Tally,
        is_async: bool,  # noqa: FBT001  # made on every miss, where keywords would show in the figures
    ) -> None:
        self.key = key
        self.loader = loader
        self.policy = policy
        self.tags = tags
        self.tally = tally
        self.is_async = is_async
