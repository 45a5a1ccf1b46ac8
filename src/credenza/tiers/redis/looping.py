"""Connections of event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, TypeVar

from ..base import TierError
from .lines import Lines
from .loop_line import LoopLine, open_loop_line

_T = TypeVar("_T")
_left_by_parents: Final[list[object]] = []  # what a forked child must not collect: its end would disturb the parent


class _Desk:
    """The lines of one loop, used by its tasks in turns."""

    def __init__(self) -> None:
        self.lines = Lines(open_loop_line)
        self.turn = asyncio.Lock()
        self.guard = _close_at_the_end(self.lines)


class Loops:
    """The lines of every event loop that uses the tier. Thread-safe: each loop looks at its own only.

    A connection refers to its loop, so loops are not held weakly, which would be in vain: one that ends closes its
    connections, and what one leaves that was closed without a word is found when the next begins.
    """

    def __init__(self) -> None:
        self._desks: dict[asyncio.AbstractEventLoop, _Desk] = {}

    async def run(self, steps: Callable[[Lines], Coroutine[Any, Any, _T]], timeout_ns: int) -> _T:
        """Run a coroutine over the lines of the running loop when it is this task's turn.

        Raises:
            TierError: the turn did not come in time.
        """
        ends_ns = time.monotonic_ns() + timeout_ns
        loop = asyncio.get_running_loop()
        while True:
            desk = self._desks.get(loop) or await self._begin(loop)
            await _take_turn(desk, ends_ns)
            if self._desks.get(loop) is desk:
                break
            desk.turn.release()  # it was closed while this task waited
        try:
            return await steps(desk.lines)
        finally:
            desk.turn.release()

    async def close(self) -> None:
        """Close the lines of the running loop; a batch under way fails."""
        desk = self._desks.pop(asyncio.get_running_loop(), None)
        if desk is not None:
            await desk.guard.aclose()

    def forget_dead(self) -> None:
        """Close what loops left that are closed."""
        for loop in [loop for loop in list(self._desks) if loop.is_closed()]:
            desk = self._desks.pop(loop, None)
            for line in desk.lines.forget() if desk is not None else ():
                assert isinstance(line, LoopLine)
                line.bury()

    def forget_parent(self) -> None:
        """Give up the child's copies of the parent's connections."""
        desks, self._desks = self._desks, {}
        for desk in desks.values():
            _left_by_parents.append(desk)
            for line in desk.lines.lines():
                assert isinstance(line, LoopLine)
                line.leave_to_parent()

    def __del__(self) -> None:
        self.forget_dead()

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> _Desk:
        self.forget_dead()
        desk = self._desks[loop] = _Desk()
        await anext(desk.guard)  # does not suspend; from here on the loop knows of it
        return desk


async def _take_turn(desk: _Desk, ends_ns: int) -> None:
    if not desk.turn.locked():
        await desk.turn.acquire()  # at once
        return
    try:
        async with asyncio.timeout((ends_ns - time.monotonic_ns()) / 1_000_000_000):
            await desk.turn.acquire()
    except TimeoutError as error:
        raise TierError("the tier is kept busy by other tasks") from error


async def _close_at_the_end(lines: Lines) -> AsyncGenerator[None, None]:
    """Close the lines when the loop ends: whoever ends a loop properly ends its asynchronous generators before."""
    try:
        yield
    finally:
        lines.close()
        await asyncio.sleep(0)  # the transports tell their protocols in the loop's next turn
