"""Writing through a fence: the source first, then the cache."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from ..memory.entry import Entry
from ..runtime.base import Runtime
from ..state import State


async def write(
    state: State,
    run: Runtime,
    keys: tuple[Hashable, ...],
    action: Callable[[], Any],
    *,
    is_async: bool,
    make: Callable[[], tuple[Entry, tuple[object, ...]]] | None = None,
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
    written: tuple[Entry | None, tuple[object, ...]] = (None, ())
    try:
        await run.perform(action, is_async=is_async)
        if make is not None:
            written = make()
    finally:
        state.leave_fence(permit, *written)
