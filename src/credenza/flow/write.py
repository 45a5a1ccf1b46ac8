"""Writing through a fence: the source first, then the cache."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from ..codec import TypedCodec
from ..memory.implementation import Entry
from ..runtime.base import Waiter
from ..shared.shared import Barrier
from ..state import State
from .fence import abandon_fence, confirm, lower_fence, may_have_committed, raise_fence

_log = logging.getLogger("credenza")

Made = tuple[TypedCodec | None, Entry | None, tuple[object, ...]]
"""The entry of a written value, None if it is not to be kept, what encodes it for a shared tier, and its tags."""

Make = Callable[[], Made]
"""Makes it, once it is known that it is asked for."""

_NOTHING: Made = (None, None, ())


class Write:
    """One write: a fence in this process, and one in the shared tier if there is one.

    Args:
        state: the cache.
        run: the caller's colour.
        keys: what is written.
        tags: what else becomes stale by it.
    """

    __slots__ = ("_barrier", "_permit", "_run", "_state")

    def __init__(self, state: State, run: Waiter, keys: tuple[Hashable, ...], tags: tuple[object, ...]) -> None:
        self._state = state
        self._run = run
        self._permit = state.enter_fence(keys, tags)
        self._barrier: Barrier | None = None

    async def begin(self) -> None:
        """Raise the fence that other processes see; without it the write is not to begin.

        Raises:
            TierError: it could not be raised, and the policy lets no write go on without it.
        """
        if self._state.shared is None:
            return
        try:
            self._barrier = await raise_fence(self._state, self._run, self._permit.keys, self._permit.tags)
        except BaseException:
            self._state.leave_fence(self._permit)
            raise

    async def confirm(self) -> None:
        """Make sure that the fence outlives a commit that comes now.

        Raises:
            FenceLost: it was gone.
        """
        if self._barrier is not None:
            await confirm(self._state, self._run, self._barrier)

    async def end(self, error: BaseException | None, made: Made = _NOTHING) -> None:
        """Invalidate what was written, or store it if nobody else wrote meanwhile (I3, I5).

        Args:
            error: what the write ended with. If it may have been committed all the same, the shared fence is left to expire.
            made: the written value.
        """
        _, entry, tags = made
        may_keep = False
        try:
            may_keep = await self._lower(error, made)
        finally:
            self._state.leave_fence(self._permit, entry if may_keep else None, tags)

    async def _lower(self, error: BaseException | None, made: Made) -> bool:
        barrier = self._barrier
        if barrier is None:
            return True
        if error is not None and may_have_committed(error):
            abandon_fence(self._state, barrier)
            return False
        typed, entry, tags = made
        written = () if entry is None else ((typed, entry, tags),)
        kept = await lower_fence(self._state, self._run, barrier, written)
        return entry is not None and entry.key in kept


async def write(
    state: State,
    run: Waiter,
    keys: tuple[Hashable, ...],
    action: Callable[[], Awaitable[Any]],
    *,
    make: Make | None = None,
) -> None:  # Any: what the source returns, which nobody looks at
    """Run `action` inside a fence around `keys`, and invalidate them after it, whether it succeeded or not (I3).

    Args:
        state: the cache.
        run: the caller's colour.
        keys: what `action` writes.
        action: the write to the source, or to the journal.
        make: makes the written entry and its tags, to be stored instead if no other write was under way (I5).

    Raises:
        TierError: the shared tier could not be fenced, and the policy lets no write go on without it.
        Exception: what `action` raised.
    """
    fenced = Write(state, run, keys, ())
    await fenced.begin()
    try:
        await action()
        made = made_by(make, keys)
    except BaseException as error:
        await fenced.end(error)
        raise
    await fenced.end(None, made)


def made_by(make: Make | None, keys: tuple[Hashable, ...]) -> Made:
    """Make the entry. A weigher or ttl that raises must not fail a write that the source has taken, or will (E1)."""
    if make is None:
        return _NOTHING
    try:
        return make()
    except Exception:
        _log.exception("what was written to %r is not stored, as its ttl or weight could not be told", keys)
        return _NOTHING
