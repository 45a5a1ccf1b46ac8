"""One remembered value."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..events import EventKind
from ..policy import Policy
from .tags import Tag

DEAD = -1
"""The `fast_ns` of an entry that left the table: no clock is before it."""


class Entry:
    """A value with its key, its times and its place in the eviction queues.

    Readers take no lock. They read `value` first and `fast_ns` after it, and an entry is never filled anew; so what
    leaves the table sets `fast_ns` first and drops `value` after that, and a reader sees either both or a dead entry.

    What few entries need is an attribute of the class, and what the table sets is not set here first: an entry is made
    for every miss.

    Attributes:
        fast_ns: a look at the clock before this time is all that a hit needs; 0 where a hit needs more than that.
        fresh_ns: the value is fresh before this time.
        expire_ns: after this time the value is not served, whatever happens.
        read_ns: when it was last read, kept up only with an idle ttl.
        retry_ns: no refresh before this time, as the last one failed.
        freq: hits since it was last looked at for eviction, at most 3.
        queue: which eviction queue holds it, 0 for none; set by the queues.
        stamp: when eviction saw it last, by eviction's own clock.
        tick: the expiry bucket that holds it, 0 for none.
        epoch: the table's count of tag invalidations when its tags were last found alive; set by the table.
        shelf, slot: the dictionary that holds it, and its place there; set by the table.
        hash: of `slot`; set by the table, as the user's `__hash__` may raise when it is asked again.
        why: what took it out of the table, None for a caller; set by the table.
        seen: what identifies the record of the shared tier that it is a copy of.
        is_absent: `value` is the `NotFound` that the loader raised.
    """

    __slots__ = (
        "__dict__",
        "epoch",
        "expire_ns",
        "fast_ns",
        "freq",
        "fresh_ns",
        "hash",
        "key",
        "load_ns",
        "policy",
        "queue",
        "read_ns",
        "shelf",
        "slot",
        "stamp",
        "stored_ns",
        "tags",
        "tick",
        "value",
        "weight",
        "why",
    )

    failures: int = 0
    retry_ns: int = 0
    is_absent: bool = False
    seen: bytes = b""
    epoch: int
    hash: int
    queue: int
    shelf: dict[Hashable, Entry]
    slot: Hashable
    stamp: int
    why: EventKind | None

    def __init__(
        self,
        key: Hashable,
        value: Any,  # Any: a value of any type
        policy: Policy,
        stored_ns: int,
        fresh_ns: int,
        load_ns: int,
        weight: int,
    ) -> None:
        self.key = key
        self.value = value
        self.policy = policy
        self.stored_ns = self.read_ns = stored_ns
        self.fresh_ns = self.expire_ns = self.fast_ns = fresh_ns
        self.load_ns = load_ns
        self.weight = weight
        self.tags: tuple[Tag, ...] = ()
        self.freq = self.tick = 0

    def deadline_ns(self) -> int:
        """Return when the entry expires if nobody reads it until then."""
        idle_ns = self.policy.idle_ttl_ns
        return min(self.expire_ns, self.read_ns + idle_ns) if idle_ns else self.expire_ns
