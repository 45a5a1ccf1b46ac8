"""What a cache tells about itself while it works."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from .errors import UsageError
from .sentinel import MISSING

_log = logging.getLogger("credenza")


class EventKind(enum.StrEnum):
    """What happened; the words are those of the glossary."""

    MISS = "miss"
    LOAD = "load"
    LOAD_FAILED = "load_failed"
    JOIN = "join"
    STALE = "stale"
    STORED = "stored"
    REFUSED = "refused"
    TOO_HEAVY = "too_heavy"
    EVICTED = "evicted"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"
    TAG_INVALIDATED = "tag_invalidated"
    CLEARED = "cleared"
    REFRESH_FAILED = "refresh_failed"
    TIER_LOST = "tier_lost"
    TIER_BACK = "tier_back"
    OWED = "owed"
    DELIVERED = "delivered"
    FENCE_LOST = "fence_lost"
    UNREADABLE = "unreadable"
    UNSHARED = "unshared"
    RESYNCED = "resynced"
    WRITE_FAILED = "write_failed"
    DEAD_LETTER = "dead_letter"
    SOURCE_LOST = "source_lost"
    SOURCE_BACK = "source_back"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: what.
        key: to which key; the tag for `TAG_INVALIDATED`; `MISSING` where it is about the whole cache.
        detail: the error's type where a load failed, or a word on why. Never a value.
    """

    kind: EventKind
    key: Hashable = MISSING
    detail: str = ""


Listener = Callable[[Event], object]


class Events:
    """The listeners of one cache. A hit is no event: the hit path tells nobody."""

    __slots__ = ("listeners",)

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every event from now on, in the thread where it happens, and return what ends that."""
        if not callable(listener):
            raise UsageError(f"a listener is called with each event, got {listener!r}, which is not callable")
        self.listeners += (listener,)
        return lambda: self._unsubscribe(listener)

    def _unsubscribe(self, listener: Listener) -> None:
        self.listeners = tuple(other for other in self.listeners if other is not listener)

    def emit(self, kind: EventKind, key: Hashable = MISSING, detail: str = "") -> None:
        """Tell the listeners; one that raises is logged, and the others are still told."""
        event = Event(kind, key, detail)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                _log.exception("a listener failed on the event %r", kind.value)
