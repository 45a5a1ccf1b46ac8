"""Deliveries: pending writes on their way from the journal to the source.

A batch that the source refuses is split until the writes that it refuses are found; from left to right, so that a source
that keeps the last place it has applied never sees a place above one that still has to come. A write that is refused alone
goes behind the others, and is a dead letter after too many times. As long as the source takes nothing at all, that counts
for no write.

An error does not say that nothing was committed: the reply may have been lost. Where the source keeps its last place, a
write stays where it is until the source has said that it has not applied it; else it would come again as another one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ..codec import Unreadable
from ..errors import ConfigurationError, NotFound
from ..events import EventKind
from ..journal.base import Pending
from ..sentinel import DELETED, MISSING
from ..source import Change, WriteBatch
from .behind import Behind
from .drivers import is_about_connection

_log = logging.getLogger("credenza")

Perform = Callable[[Callable[[], Any]], Awaitable[Any]]  # Any: what methods of sources return, which nobody looks at
"""Calls a method of the source in its own way."""

Taken = tuple[Pending, Change[Any, Any]]  # Any: keys and values of any type
"""A write as the journal has it, and as the source takes it."""

_MOST_DOUBLINGS: Final = 20
_GLANCE_NS: Final = 50_000_000
_MOST_REFUSALS: Final = 3
"""So many writes, one after another, are refused alone before a source that took some a moment ago is thought to be away."""


class SourceAway(Exception):
    """The source takes nothing now; the cause says why. Nothing is lost."""


def is_about_source(error: Exception) -> bool:
    """Tell whether an error says that the source is away, rather than that it will not have what was written."""
    return isinstance(error, ConfigurationError) or is_about_connection(error)


class Delivery:
    """Takes what is pending to the source. One thread uses it.

    Args:
        behind: the journal and the terms.
        source: what has `apply(batch)`, or `store_many` with `delete_many` or `delete`.
        perform: how it is called.
        forgets: delivered records are invalidated: other processes may have loaded them meanwhile, and saw no journal. If
            not, only those are of which memory has another value, as after a dead letter was retried.
    """

    __slots__ = (
        "_applies",
        "_behind",
        "_failures",
        "_forgets",
        "_is_away",
        "_limit",
        "_perform",
        "_source",
        "_suspects",
        "is_idle",
    )

    def __init__(self, behind: Behind, source: Any, perform: Perform, *, forgets: bool) -> None:
        self._behind = behind
        self._source = source  # Any: one of two protocols, with optional methods
        self._perform = perform
        self._forgets = forgets
        self._applies = callable(getattr(source, "apply", None))
        self._limit = behind.terms.batch_size
        self._suspects = Suspects()
        self._failures = 0
        self._is_away = False
        self.is_idle = False

    async def deliver(self) -> int:
        """Deliver the next batch; return for how many nanoseconds to rest then: none, unless the source is away.

        Raises:
            JournalError: what was delivered may be delivered again.
        """
        taken = self._behind.journal.take(self._limit)
        self.is_idle = not taken
        if not taken:
            return _GLANCE_NS  # all that is pending was postponed, or is not for this process
        part = _Round(
            self._behind, self._suspects, self._apply, self._done, self._last_place if self._applies else None
        )
        try:
            await part.deliver(taken)
        except SourceAway as error:
            if not part.is_up:
                self._tell_away(error)
                self._limit = 1  # if one write is the cause, the next one will show it
                self._failures += 1
                return self._pause_ns()
        self._limit, self._failures = self._behind.terms.batch_size, 0
        if part.is_up and self._is_away:
            self._is_away = False
            _log.warning("cache %r: the source takes writes again", self._behind.state.name)
            self._behind.state.events.emit(EventKind.SOURCE_BACK)
        return 0

    def _pause_ns(self) -> int:
        """Return how long to leave alone a source that is away."""
        terms = self._behind.terms
        longest_ns = min(terms.max_backoff_ns, terms.backoff_ns << min(self._failures, _MOST_DOUBLINGS))
        return int(longest_ns * (1.0 - 0.5 * self._behind.state.random()))

    def _tell_away(self, error: SourceAway) -> None:
        if not self._is_away:
            self._is_away = True
            kind = type(error.__cause__).__qualname__
            _log.warning(
                "cache %r: the source takes no writes (%s); the journal keeps them", self._behind.state.name, kind
            )
            self._behind.state.events.emit(EventKind.SOURCE_LOST, MISSING, kind)

    async def _apply(self, taken: Sequence[Taken], identity: str) -> None:
        """Have the source take writes of different records, all of them or, where it is not transactional, perhaps some."""
        source, changes = self._source, [change for _, change in taken]
        if self._applies:
            batch = WriteBatch(identity, changes)
            await self._perform(lambda: source.apply(batch))
            return
        stores = {change.key: change.value for change in changes if change.value is not DELETED}
        deletes = [change.key for change in changes if change.value is DELETED]
        if stores:
            await self._perform(lambda: source.store_many(stores))
        if deletes and callable(getattr(source, "delete_many", None)):
            await self._perform(lambda: source.delete_many(deletes))
            return
        for key in deletes:
            try:
                await self._perform(lambda key=key: source.delete(key))  # type: ignore[misc]  # a lambda's default
            except NotFound:
                pass  # it came twice, or was gone anyway

    async def _last_place(self, pending: Pending) -> int | None:
        """Return the place up to which the source has applied the journal, None if it does not tell."""
        batch: WriteBatch[Any, Any] = WriteBatch(self._behind.journal.identity_of([pending]), ())  # Any: of any type
        place = await self._perform(lambda: self._source.apply(batch))
        return place if isinstance(place, int) else None

    def _done(self, taken: Sequence[Taken]) -> None:
        stale = [change.key for _, change in taken if self._forgets or self._behind.differs(change.key, change.value)]
        if stale:  # while they are still pending: else a read would find neither them nor what the source has now
            self._behind.forget(stale)
        self._behind.journal.settle([pending for pending, _ in taken])
        self._suspects.clear_of([pending.key for pending, _ in taken])


class Suspects:
    """Keys of writes that were refused alone as if the source were away: the next success shows that it was not."""

    __slots__ = ("_proven", "_suspects")

    def __init__(self) -> None:
        self._suspects: set[bytes] = set()
        self._proven: set[bytes] = set()

    def refused(self, key: bytes) -> bool:
        """Take note of a refusal; tell whether an earlier one of the key was its own, and not counted yet."""
        was_its_own = key in self._proven
        self._proven.discard(key)
        self._suspects.add(key)
        return was_its_own

    def clear_of(self, keys: Sequence[bytes]) -> None:
        """Take note of a success of other keys."""
        if self._suspects or self._proven:
            self._proven = (self._proven | self._suspects).difference(keys)
            self._suspects.clear()


class _Round:
    """One batch, and the parts that it is split into.

    Args:
        behind: the journal and the terms.
        suspects: what was refused as if the source were away.
        apply: has the source take writes.
        done: settles those that it took.
        last_place: asks the source how far it is; None for one that keeps no place.

    Attributes:
        is_up: the source has taken something in this round.
    """

    __slots__ = ("_apply", "_behind", "_done", "_last_place", "_refusals", "_suspects", "is_up")

    def __init__(
        self,
        behind: Behind,
        suspects: Suspects,
        apply: Callable[[Sequence[Taken], str], Awaitable[None]],
        done: Callable[[Sequence[Taken]], None],
        last_place: Callable[[Pending], Awaitable[int | None]] | None,
    ) -> None:
        self._behind = behind
        self._suspects = suspects
        self._apply = apply
        self._done = done
        self._last_place = last_place
        self._refusals = 0
        self.is_up = False

    async def deliver(self, taken: Sequence[Pending]) -> None:
        """Deliver what can be read, bury the rest."""
        readable: list[Taken] = []
        for pending in taken:
            key = self._behind.key_of(pending.key)
            try:
                if key is MISSING:
                    raise Unreadable("its key is none that a repository writes")
                value = self._behind.value_of(pending.key, pending.value)
            except Unreadable as error:
                self._bury(pending, f"unreadable: {error}")
            else:
                readable.append((pending, Change(key, value, pending.place)))
        if readable:
            await self._deliver(readable)

    async def _deliver(self, part: Sequence[Taken]) -> None:
        identity = self._behind.journal.identity_of([each[0] for each in part])  # raises if it is not ours any more
        try:
            await self._apply(part, identity)
        except Exception as error:
            is_away = self._is_away(error)
            if len(part) == 1:
                if not await self._has_applied(part[0], error, is_away=is_away):
                    self._refuse(*part[0], error, is_away=is_away)
                return
            # A source that takes no single write is not asked for each.
            middle = 1 if is_away and not self.is_up else len(part) // 2
            await self._deliver(part[:middle])
            await self._deliver(part[middle:])
        else:
            self.is_up, self._refusals = True, 0
            self._done(part)

    def _is_away(self, error: Exception) -> bool:
        try:
            return self._behind.terms.is_away(error)
        except Exception:  # the user's function
            _log.exception("is_away failed on %s", type(error).__qualname__)
            return is_about_source(error)

    async def _has_applied(self, taken: Taken, error: Exception, *, is_away: bool) -> bool:
        """Tell whether the source has applied a write although it raised; settle it then.

        Raises:
            SourceAway: it cannot be told, so the write is to be tried again where it is.
        """
        if self._last_place is None:
            return False
        try:
            place = await self._last_place(taken[0])
        except Exception as unanswered:
            raise SourceAway from unanswered
        if place is None:
            if is_away:
                raise SourceAway from error
            return False
        self.is_up = True
        if place < taken[0].place:
            return False
        self._done([taken])
        return True

    def _refuse(self, pending: Pending, change: Change[Any, Any], error: Exception, *, is_away: bool) -> None:
        """Let a write that is refused alone wait behind the others, or give it up."""
        terms, kind = self._behind.terms, type(error).__qualname__  # Any: of any type
        is_its_own = self.is_up or not is_away or self._suspects.refused(pending.key)
        failures = pending.failures + is_its_own
        self._refusals += 1
        if failures >= terms.max_failures:
            self._bury(pending, kind)
        else:
            delay_ns = min(terms.max_backoff_ns, terms.backoff_ns << min(failures, _MOST_DOUBLINGS))
            self._behind.journal.postpone(pending, delay_ms=delay_ns // 1_000_000, failures=failures, error=kind)
            if is_its_own:
                self._behind.state.events.emit(EventKind.WRITE_FAILED, change.key, kind)
        if is_away and (not self.is_up or self._refusals >= _MOST_REFUSALS):
            raise SourceAway from error

    def _bury(self, pending: Pending, error: str) -> None:
        """Give a write up: from now on the source's own value is read."""
        if not self._behind.journal.bury(pending, error=error):
            return
        key = self._behind.key_of(pending.key)
        if key is not MISSING:
            self._behind.forget((key,))
        _log.error("cache %r: a write is a dead letter (%s)", self._behind.state.name, error)
        self._behind.state.events.emit(EventKind.DEAD_LETTER, key, error)
