"""Writes on their way from the server to the source: what the owner of a partition may do with them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from ...clock import suspended_ns
from ...errors import JournalError
from ..base import Pending
from ..writer import tell
from .consumers import Ownership
from .known import Known
from .refusals import Fenced
from .server import Server, Word
from .wire import pending_from, state_from

_MOST_BYTES: Final = 16_000_000
"""After so many bytes of values no further write is taken."""


class Deliveries:
    """Takes writes, and tells the server what became of them.

    All but `take` raise `Fenced` when somebody else owns the partition by now, who delivers them again.
    """

    def __init__(self, server: Server, known: Known, ownership: Ownership, lease_ms: int) -> None:
        self._server = server
        self._known = known
        self._ownership = ownership
        self._lease_ms = lease_ms

    def take(self, limit: int) -> list[Pending]:
        """Return writes of one partition that this process owns, of each in turn."""
        for part in self._ownership.owned():
            if self._known.has_pending(part) and (taken := self._take(part, limit)):
                return taken
        return []

    def settle(self, taken: Sequence[Pending]) -> None:
        """Strike off what was delivered."""
        parts: dict[int, list[Pending]] = {}
        for one in taken:
            parts.setdefault(self._server.layout.part_of(one.key), []).append(one)
        for part, group in parts.items():
            reply = self._on(part, "settle", *(word for one in group for word in (one.key, one.version)))
            self._settled(part, group, reply)

    def postpone(self, taken: Pending, delay_ms: int, failures: int) -> None:
        """Put one behind all others."""
        part = self._server.layout.part_of(taken.key)
        reply, due_ms = self._on(part, "postpone", taken.key, taken.version, delay_ms, failures)
        self._known.postponed(part, state_from(reply), due_ms)

    def bury(self, taken: Pending, error: str) -> bool:
        """Make one a dead letter, if it is still the same."""
        part = self._server.layout.part_of(taken.key)
        reply, is_buried = self._on(part, "bury", taken.key, taken.version, error)
        self._settled(part, (taken,) if is_buried else (), reply)
        return bool(is_buried)

    def _take(self, part: int, limit: int) -> list[Pending]:
        noted_ns = suspended_ns()
        try:
            reply, found, seen = self._on(part, "take", self._lease_ms, limit, _MOST_BYTES)
        except Fenced:
            return []  # somebody else delivers them
        self._ownership.held_for([part], noted_ns)
        self._known.note(part, state_from(reply))
        self._known.saw(part, seen)
        try:
            return [pending_from(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        except struct.error as error:
            raise JournalError(
                f"the journal {self._server.location} holds a record that it has not written; remove it, or use another namespace"
            ) from error

    def _settled(self, part: int, taken: Sequence[Pending], reply: Any) -> None:  # Any: as the server sends it
        with self._known.lock:
            self._known.settled(part, {one.key: one.version for one in taken}, state_from(reply))
            room = self._known.made_room()
        if room is not None:
            tell(room)

    def _on(self, part: int, script: str, *words: Word) -> Any:  # Any: as above
        fence = self._ownership.fence(part)
        try:
            return self._server.on(part, script, fence, *words)
        except Fenced:
            self._ownership.lose(part)
            raise
