"""What operators ask for: how a journal is, and its dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from ...errors import JournalError
from ..base import DeadLetter, JournalStatus
from .known import Known
from .server import Server
from .wire import Look, letter_from, since_ms_of, state_from


class Letters:
    """Dead letters are counted in each partition; their numbers in the journal tell the partition, too."""

    def __init__(self, server: Server, known: Known) -> None:
        self._server = server
        self._known = known

    def dead(self) -> list[DeadLetter]:
        """Return all dead letters, oldest first."""
        partitions = self._server.partitions
        letters = [
            letter_from(number * partitions + part, packed, is_superseded=bool(is_superseded))
            for part in range(partitions)
            for number, packed, is_superseded in self._server.on(part, "letters")
        ]
        return sorted(letters, key=lambda letter: (letter.died_ms, letter.number))

    def revive(self, how: Literal["retry", "discard"], numbers: Sequence[int] | None) -> int:
        """Make dead letters pending, or forget them; return how many."""
        partitions = self._server.partitions
        chosen: dict[int, list[int]] = {}
        for number in sorted(set(numbers)) if numbers is not None else ():
            chosen.setdefault(number % partitions, []).append(number // partitions)
        count = 0
        for part in range(partitions) if numbers is None else sorted(chosen):
            extent = "all" if numbers is None else "some"
            reply, done = self._server.on(part, "revive", how, extent, *chosen.get(part, ()))
            self._known.note(part, state_from(reply))
            count += done
        return count

    def status(self, now_ms: int, looks: Mapping[int, Look]) -> JournalStatus:
        """Return what the journal holds. What waits longest is looked for among those whose turn is next, or was once."""
        owners = sorted({look.owner for look in looks.values() if look.owner and look.until_ms > now_ms})
        since = [since_ms for part, look in looks.items() if look.state.pending for since_ms in self._oldest_ms(part)]
        return JournalStatus(
            location=self._server.location,
            pending=sum(look.state.pending for look in looks.values()),
            dead=sum(look.dead for look in looks.values()),
            oldest_ms=min(since, default=None),
            size_bytes=sum(self._size_bytes(part) for part in looks),
            owner=", ".join(_shown(name) for name in owners) or None,
        )

    def _oldest_ms(self, part: int) -> list[int]:
        record = self._server.on(part, "oldest")
        return [] if record is None else [since_ms_of(record)]

    def _size_bytes(self, part: int) -> int:
        total = 0
        with suppress(JournalError):  # a user who may not ask
            for key in self._server.layout.keys(part):
                total += self._server.command("MEMORY USAGE", key) or 0
        return total


def _shown(name: str) -> str:
    """Return how messages call a consumer."""
    number, _, host = name.partition("#")[0].partition("@")
    return f"process {number} on {host}"
