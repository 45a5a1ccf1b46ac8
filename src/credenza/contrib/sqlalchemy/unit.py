"""What one transaction makes stale, and the fence around its commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar  # Any: a cache of whatever keys and values

from sqlalchemy import Connection
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only

from credenza import AsyncWriteFence, Cache, UsageError

from .notes import Note

T = TypeVar("T")

_Leave = Callable[[BaseException | None], object]


class Unit:
    """What the transaction of one connection makes stale. Used by one thread or task at a time, as the connection is.

    Attributes:
        keys, tags: what becomes stale; dictionaries for their order.
        notes: the rows of the flush that runs now, by the identity of their instances.
        untold: watched classes whose rows were written by statements, with nothing that covers them.
        is_named: somebody has named what becomes stale.
        is_flushing: a flush is under way, and notes what it writes.
        driver: the driver's connection while the fence is up.
    """

    __slots__ = ("_leave", "driver", "is_flushing", "is_named", "keys", "notes", "tags", "untold")

    def __init__(self) -> None:
        self._leave: _Leave | None = None
        self.driver: Any = None  # Any: drivers have no type in common
        self.is_flushing = False
        self.keys: dict[Hashable, None] = {}
        self.tags: dict[str, None] = {}
        self.notes: dict[int, Note] = {}
        self.untold: dict[str, None] = {}
        self.is_named = False

    @property
    def is_fenced(self) -> bool:
        """Whether the commit has begun."""
        return self._leave is not None

    def add(self, keys: Iterable[Hashable], tags: Iterable[str]) -> None:
        """Add what becomes stale; raises `UsageError` for what cannot be a key."""
        listed = list(keys)
        try:
            self.keys.update(dict.fromkeys(listed))
        except TypeError as error:
            raise UsageError(f"a key must be hashable, got one of {listed!r}; use a str, an int or a tuple") from error
        self.tags.update(dict.fromkeys(tags))

    def forget(self) -> None:
        """Begin anew: the transaction was rolled back, or another one begins."""
        self.keys, self.tags, self.notes, self.untold = {}, {}, {}, {}
        self.is_named = self.is_flushing = False

    def raise_fence(self, cache: Cache[Any, Any], connection: Connection) -> None:
        """Fence what the transaction makes stale, in the colour of the connection; does nothing if nothing does.

        Raises:
            TierError, FenceLost: see `Cache.writing`; the transaction must not commit.
        """
        if self._leave is None and (self.keys or self.tags):
            self._leave = _enter(cache, connection, tuple(self.keys), tuple(self.tags))

    def settle(self, error: BaseException | None) -> None:
        """Take the fence down after the commit, and begin anew.

        Args:
            error: what the commit ended with. If it may have happened all the same, the shared fence is left to expire.
        """
        leave, self._leave, self.driver = self._leave, None, None
        self.forget()
        if leave is not None:
            leave(error)


def _enter(cache: Cache[Any, Any], connection: Connection, keys: tuple[Hashable, ...], tags: tuple[str, ...]) -> _Leave:
    if connection.dialect.is_async:
        manager = cache.aio.writing(*keys, tags=tags)
        try:
            _wait_for(manager.__aenter__())
        except MissingGreenlet:
            pass  # an async driver that somebody runs in a way of their own: no loop is there to go on meanwhile
        else:
            return lambda error: _leave_async(manager, error)
    fence = cache.writing(*keys, tags=tags)
    fence.__enter__()
    return lambda error: fence.__exit__(None if error is None else type(error), error, _trace(error))


def _leave_async(manager: AbstractAsyncContextManager[AsyncWriteFence], error: BaseException | None) -> None:
    try:
        _wait_for(manager.__aexit__(None if error is None else type(error), error, _trace(error)))
    except MissingGreenlet:
        pass  # the connection is let go by the collector; so is the fence, and it expires


def _wait_for(awaitable: Awaitable[T]) -> T:
    """Wait while the event loop goes on; SQLAlchemy calls its listeners in a greenlet of the loop's thread."""
    return await_only(awaitable)


def _trace(error: BaseException | None) -> Any:  # Any: a traceback or None
    return None if error is None else error.__traceback__
