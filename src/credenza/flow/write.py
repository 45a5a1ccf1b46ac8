"""Writing through a fence: the source first, then the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from ..memory.entry import Entry
from ..runtime.base import Runtime
from ..state import State

_log = logging.getLogger("credenza")

Written = tuple[Entry | None, tuple[object, ...]]
"""The entry of a written value, None if it is not to be kept, and its tags."""


async def write(
    state: State,
    run: Runtime,
    keys: tuple[Hashable, ...],
    action: Callable[[], Any],
    *,
    is_async: bool,
    make: Callable[[], Written] | None = None,
) -> None:  # Any: what the source returns, which nobody looks at
    """Run `action` inside a fence around `keys`, and invalidate them after it, whether it succeeded or not (I3).

    Args:
        state: the cache.
        run: the caller's colour.
        keys: what `action` writes.
        action: the write to the source.
        is_async: `action` gives a coroutine.
        make: makes the written entry and its tags, to be stored instead if no other write was under way (I5).
    """
    permit = state.enter_fence(keys, ())
    written: Written = (None, ())
    try:
        await run.perform(action, is_async=is_async)
        if make is not None:
            written = _made(keys, make)
    finally:
        state.leave_fence(permit, *written)


def _made(keys: tuple[Hashable, ...], make: Callable[[], Written]) -> Written:
    """Make the entry; the source has taken the write, so a weigher or ttl that raises must not fail it (E1)."""
    try:
        return make()
    except Exception:
        _log.exception("what was written to %r is not stored, as its ttl or weight could not be told", keys)
        return None, ()
