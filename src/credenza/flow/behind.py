"""Write-behind: the journal first, the source later.

What is read is the journal over the source: a pending write is what the source is going to hold. So a write goes to the
journal, and a load asks the journal before the source. Delivery changes nothing of what is read, unless a write is given
up: then its key is invalidated.

A write needs a fence where other processes read, or write to the journal. Where none does, it lands in memory in the journal's
own order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..codec import FOREVER, TypedCodec, Unencodable, Unreadable
from ..durations import NANOSECONDS
from ..errors import DeadlockError, JournalError, JournalFull, UsageError, copy_exception
from ..events import EventKind
from ..journal.base import Entry, FollowedJournal, Journal, NotedEntry, Receipt
from ..runtime.base import Waiter
from ..sentinel import DELETED, MISSING, MissingType
from ..shared.names import Names
from ..state import State
from ..tiers.base import Stamp
from .landing import Landing, Landings

_NO_STAMP: Final = Stamp(bytes(8), 0)


@dataclass(frozen=True, slots=True)
class Terms:
    """How writes are taken and delivered; `credenza.WriteBehind` explains each. Durations are in nanoseconds."""

    batch_size: int
    max_delay_ns: int
    raises_when_full: bool
    block_ns: int | None
    max_failures: int
    backoff_ns: int
    max_backoff_ns: int
    is_away: Callable[[Exception], bool]


class Behind:
    """A repository's journal, with its records as bytes and back. Thread-safe.

    Args:
        state: the cache.
        journal: where the writes are kept.
        typed: what encodes the records.
        terms: the options.
        cache_key_of: gives the cache's key of a record.
        forget: invalidates records everywhere; called without locks held.
        forget_soon: has it done, without blocking.

    Attributes:
        is_in_source: tells whether the caller is the source, on its way of taking a batch.
        landings: how writes come into memory without a fence; None where they need one.
        waiting: writers that wait for room; for their sake nothing is delayed.
    """

    __slots__ = (
        "_cache_key_of",
        "_forget",
        "_names",
        "_typed",
        "forget_soon",
        "is_in_source",
        "journal",
        "landings",
        "state",
        "terms",
        "waiting",
    )

    def __init__(
        self,
        state: State,
        journal: Journal,
        typed: TypedCodec,
        terms: Terms,
        cache_key_of: Callable[[Any], Hashable],
        forget: Callable[[Sequence[Any]], None],  # Any: keys of records
        forget_soon: Callable[[Sequence[Any]], None],  # Any: as above
    ) -> None:
        self.state = state
        self.journal = journal
        self.terms = terms
        self._cache_key_of = cache_key_of
        self._forget = forget
        self.forget_soon = forget_soon
        self.is_in_source: Callable[[], bool] = lambda: False
        self.landings: Landings | None = None
        if state.shared is None and isinstance(journal, FollowedJournal):
            self.landings = Landings(state)
            journal.follow(self.landings.kept)
        self.waiting: set[object] = set()
        self._names = Names("k")
        self._typed = typed

    def forget(self, keys: Sequence[Any]) -> None:  # Any: keys of records
        """Invalidate records everywhere; called without locks held."""
        if self.landings is not None:
            self.landings.withdraw({self._cache_key_of(key) for key in keys})
        self._forget(keys)

    def owes(self, key: Any) -> bool:  # Any: is checked by the names
        """Tell without I/O whether this process knows of a pending write of the record."""
        return self.journal.owes(self._name_of(key))

    def find_many(self, keys: Sequence[Any]) -> dict[Any, Any]:  # Any: of any type
        """Return the pending values of those records that have one, or `DELETED`. May block on I/O.

        Raises:
            JournalError: the journal cannot be asked, so what the source holds may not be the last write.
        """
        names = {key: self._name_of(key) for key in keys}
        asked = [name for name in names.values() if self.journal.is_shared or self.journal.owes(name)]
        found = self.journal.find(asked) if asked else {}
        pending: dict[Any, Any] = {}
        for key, name in names.items():
            if name in found:
                try:
                    pending[key] = self.value_of(name, found[name])
                except Unreadable as error:  # its delivery will fail for the same reason, and bury it
                    self.state.events.emit(EventKind.UNREADABLE, key, str(error))
        return pending

    def entry_of(self, key: Any, value: Any) -> Entry:  # Any: of any type
        """Return what the journal keeps of a write; raises `UsageError` for what would not come back as it is."""
        name = self._name_of(key)
        if value is DELETED:
            return Entry(name, None)
        try:
            packed = self._typed.pack(
                name, value, stamp=_NO_STAMP, stored_ms=0, fresh_ms=FOREVER, stale_ms=0, load_ms=0
            )
        except Unencodable as error:
            raise UsageError(f"the journal cannot keep this value: {error}") from None
        return Entry(name, packed)

    def value_of(self, name: bytes, packed: bytes | None) -> Any:  # Any: a value of any type, or DELETED
        """Return the value of a write; raises `Unreadable` if this version of the program does not understand it."""
        return DELETED if packed is None else self._typed.unpack(name, packed, 0).value

    def differs(self, key: Any, value: Any) -> bool:  # Any: of any type
        """Tell whether memory has another value of the record, or may be about to get one."""
        cache_key, state = self._cache_key_of(key), self.state
        with state.lock:
            if cache_key in state.flights or cache_key in state.looks:
                return True  # it may have begun before a dead letter was retried, and bring what the source held then
            entry = state.table.find(cache_key)
            cached = MISSING if entry is None else entry.value
        if cached is MISSING:
            return False
        try:
            return not (cached is value or cached == value)
        except Exception:  # the user's comparison
            return True

    def key_of(self, name: bytes) -> Hashable | MissingType:
        """Return the record's key, `MISSING` for bytes that are none."""
        return self._names.key(name)

    def _name_of(self, key: Any) -> bytes:  # Any: as above
        try:
            return self._names.record(key)
        except UsageError as error:
            raise UsageError(f"the journal cannot keep this key: {error}") from None


async def put_landing(behind: Behind, landings: Landings, run: Waiter, key: Any, value: Any, landing: Landing) -> None:
    """Do as `put`, without a fence around it, and return when memory has the write, too."""  # Any: of any type
    try:
        await put(behind, run, key, value, landing)
        landings.land(landing)
    except BaseException:
        landings.drop(landing)
        raise


async def put(
    behind: Behind, run: Waiter, key: Any, value: Any, landing: Landing | None = None
) -> None:  # Any: of any type
    """Return when the journal has the write; `DELETED` is the value of one that deletes.

    Raises:
        UsageError: the journal cannot keep the key or the value.
        JournalFull: it has no room, and the terms say not to wait, or not so long.
        JournalError: it cannot keep anything now.
    """
    entry = behind.entry_of(key, value)
    if landing is not None:
        entry = NotedEntry(*entry)
        entry.note = landing
    receipt = behind.journal.append((entry,)) or await _append_when_there_is_room(behind, run, entry)
    try:
        await run.join(receipt.signal, None, None)
    except BaseException:
        # Whoever called is gone, and the fence with it; the write may be kept all the same, and is to be seen then.
        receipt.signal.listen(receipt, lambda: behind.forget_soon((key,)))
        raise
    if receipt.error is not None:
        error = copy_exception(receipt.error)  # the other writes of its commit raise theirs
        assert isinstance(error, JournalError)
        raise error.about(key)


async def _append_when_there_is_room(behind: Behind, run: Waiter, entry: Entry) -> Receipt:
    terms, journal, clock_ns = behind.terms, behind.journal, behind.state.clock_ns
    if terms.raises_when_full:
        raise JournalFull("the journal is full: the source does not take writes as fast as they come")
    if behind.is_in_source():
        raise DeadlockError("the journal is full, and a source that takes a batch cannot wait for itself to make room")
    began_ns, writer = clock_ns(), object()
    behind.waiting.add(writer)
    journal.wake()
    try:
        while True:
            room = journal.has_room()
            receipt = journal.append((entry,))
            if receipt is not None:
                return receipt
            left_ns = None if terms.block_ns is None else terms.block_ns - (clock_ns() - began_ns)
            if left_ns is not None and left_ns <= 0:
                seconds = (terms.block_ns or 0) / NANOSECONDS
                raise JournalFull(
                    f"the journal has been full for block_timeout={seconds:g} s; the source takes no writes"
                )
            await run.join(room, None, left_ns)
    finally:
        behind.waiting.discard(writer)


def over(pending: Mapping[Any, Any], loaded: Mapping[Any, Any]) -> dict[Any, Any]:  # Any: of any type
    """Return the records as the source is going to hold them: the pending writes over what it holds now."""
    return {key: value for key, value in {**loaded, **pending}.items() if value is not DELETED}
