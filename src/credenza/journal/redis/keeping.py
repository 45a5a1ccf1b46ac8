"""Writes on their way to the server: what many threads append goes there together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...errors import JournalError
from ..base import Entry, Receipt
from ..writer import GroupWriter, tell
from .known import Known
from .refusals import Unanswered, Unreached
from .server import Server, Word
from .wire import packed_value, state_from

_MOST_ENTRIES: Final = 500
_MOST_BYTES: Final = 4_000_000


class Put:
    """Entries to keep, and whom to tell."""

    __slots__ = ("entries", "is_queued", "receipt", "size")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.receipt = Receipt()
        self.is_queued = True  # its entries are counted
        self.size = sum(len(key) + len(value or b"") for key, value in entries)


class Keeper:
    """Keeps what is appended, in a thread of its own. One script does all that has come meanwhile.

    A single server keeps the entries of one call all or none. On a cluster that holds for each partition.

    Args:
        server: where to.
        known: told what was kept, before anybody who waits.
    """

    def __init__(self, server: Server, known: Known) -> None:
        self._server = server
        self._known = known
        self._writer: GroupWriter[Put] = GroupWriter(self._commit, self._refuse, name="credenza-journal")

    def append(self, entries: Sequence[Entry]) -> Receipt | None:
        """Queue entries; None if there is no room. Does not block."""
        put = Put(tuple(entries))
        with self._known.lock:
            if not self._known.claim(put.entries):
                return None
            if not self._writer.put(put):
                self._known.release(put.entries)
                raise JournalError(f"the journal {self._server.location} was closed; open it anew")
        return put.receipt

    def close(self) -> None:
        """Keep what is queued, and take no more."""
        self._writer.close()

    def _commit(self, group: list[Put]) -> None:
        chunks = list(_chunks(group))
        for index, chunk in enumerate(chunks):
            errors, is_away = self._keep(chunk)
            self._tell(chunk, errors)
            if is_away:
                rest = [put for later in chunks[index + 1 :] for put in later]
                self._refuse(rest, JournalError(str(next(iter(errors.values())))))  # they were not sent
                return

    def _keep(self, puts: Sequence[Put]) -> tuple[dict[int, JournalError], bool]:
        """Have the server keep entries, of each key the last; return what failed, and whether the server is away."""
        parts: dict[int, dict[bytes, bytes]] = {}
        for put in puts:
            for key, value in put.entries:
                parts.setdefault(self._server.layout.part_of(key), {})[key] = packed_value(value)
        words: dict[int, list[Word]] = {
            part: [len(entries), *(word for pair in entries.items() for word in pair)]
            for part, entries in parts.items()
        }
        try:
            self._server.make()
            replies, errors = self._server.on_many("append", words)
        except JournalError as error:
            replies, errors = {}, dict.fromkeys(parts, error)
        with self._known.lock:
            for part, reply in replies.items():
                self._known.kept(part, parts[part], state_from(reply))
        is_away = not replies and any(isinstance(error, Unanswered | Unreached) for error in errors.values())
        return errors, is_away

    def _tell(self, puts: Sequence[Put], errors: Mapping[int, JournalError]) -> None:
        """Tell whoever waits what became of the entries."""
        part_of = self._server.layout.part_of
        with self._known.lock:
            for put in puts:
                self._known.release(put.entries)
                put.is_queued = False
            room = self._known.made_room() if errors else None
        for put in puts:
            if errors:
                failed = [errors[part] for part in {part_of(key) for key, _ in put.entries} if part in errors]
                put.receipt.error = _error_of(failed[0], self._server.location) if failed else None
            tell(put.receipt.signal)
        if room is not None:
            tell(room)

    def _refuse(self, puts: list[Put], error: BaseException) -> None:
        """Tell whoever was not told that it failed."""
        told = [put for put in puts if not put.receipt.signal.is_set]
        with self._known.lock:
            for put in told:
                if put.is_queued:
                    self._known.release(put.entries)
                    put.is_queued = False
            room = self._known.made_room()
        for put in told:
            put.receipt.error = _error_of(error, self._server.location)
            tell(put.receipt.signal)
        if room is not None:
            tell(room)


def _error_of(error: BaseException, location: str) -> JournalError:
    """Return the error for one of those who wait."""
    if isinstance(error, Unanswered):
        made = JournalError(f"{error}; the write is not acknowledged, and may have been kept all the same")
    elif isinstance(error, JournalError):
        made = JournalError(str(error))
    else:
        made = JournalError(f"the journal {location} failed unexpectedly: {type(error).__name__}")
    made.__cause__ = error
    return made


def _chunks(group: Sequence[Put]) -> Iterator[list[Put]]:
    """Split a group, so that no script keeps the server busy for long; the entries of one call stay together."""
    chunk: list[Put] = []
    entries = size = 0
    for put in group:
        if chunk and (entries + len(put.entries) > _MOST_ENTRIES or size + put.size > _MOST_BYTES):
            yield chunk
            chunk, entries, size = [], 0, 0
        chunk.append(put)
        entries, size = entries + len(put.entries), size + put.size
    if chunk:
        yield chunk
