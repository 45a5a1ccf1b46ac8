"""Who uses the connections when: threads and the tasks of event loops in turns."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from ..base import TierError
from .links import Links
from .servers import Servers

_T = TypeVar("_T")
Steps = Callable[[Links], Coroutine[Any, Any, _T]]
_left_by_parents: Final[list[object]] = []  # what a forked child must not collect: its end would disturb the parent


class Desk:
    """Connections that threads use in turns, the one used last first. All methods are thread-safe."""

    def __init__(self, servers: Servers, *, most: int) -> None:
        self._servers = servers
        self._most = most
        self._lock = threading.Lock()  # guards the three below
        self._idle: list[Links] = []
        self._busy: set[Links] = set()
        self._closings = 0
        self._turns = _turns(most)

    def run(self, steps: Steps[_T]) -> _T:
        """Run a coroutine over connections, which never suspends, when it is this thread's turn."""
        turns = self._turns
        turns.get()
        try:
            links = self._take()
            try:
                return finished(steps(links))
            finally:
                self._give_back(links)
        finally:
            turns.put(None)

    @property
    def closings(self) -> int:
        """How often it was closed."""
        return self._closings

    def close(self, *, interrupts: bool = False) -> None:
        """Close the connections, now or as soon as whoever uses them is done; with `interrupts` that is at once."""
        with self._lock:
            self._closings += 1
            idle, self._idle = self._idle, []
            busy, self._busy = self._busy, set()
        for links in busy:
            links.is_retired = True
            for link in list(links.links.values()) if interrupts else ():
                link.interrupt()
        for links in idle:
            finished(links.close())

    def forget_parent(self) -> None:
        """Close the child's copies of the sockets, which ends nothing for the parent."""
        inherited = [*self._idle, *self._busy]
        self._lock, self._idle, self._busy, self._turns = threading.Lock(), [], set(), _turns(self._most)
        for links in inherited:
            finished(links.close())

    def _take(self) -> Links:
        with self._lock:
            links = self._idle.pop() if self._idle else Links(self._servers, is_async=False)
            self._busy.add(links)
            return links

    def _give_back(self, links: Links) -> None:
        with self._lock:
            if links in self._busy:
                self._busy.remove(links)
                self._idle.append(links)
                return
        finished(links.close())  # it was closed meanwhile


def _turns(count: int) -> SimpleQueue[None]:
    """Return as many turns as may be taken at once; a queue is a semaphore in C."""
    turns: SimpleQueue[None] = SimpleQueue()
    for _ in range(count):
        turns.put(None)
    return turns


def finished(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that does not suspend."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    steps.close()
    raise RuntimeError("a step that blocks its thread suspended")


class _LoopDesk:
    """The connections of one loop, used by its tasks in turns."""

    def __init__(self, servers: Servers) -> None:
        self.links = Links(servers, is_async=True)
        self.turn = asyncio.Lock()
        self.guard = _close_at_the_end(self.links)


class Loops:
    """The connections of every event loop that uses the tier. Thread-safe: each loop looks at its own only.

    A connection refers to its loop, so loops are not held weakly, which would be in vain: one that ends closes its
    connections, and what one leaves that was closed without a word is found when the next begins.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._desks: dict[asyncio.AbstractEventLoop, _LoopDesk] = {}

    async def run(self, steps: Steps[_T], deadline_ns: int) -> _T:
        """Run a coroutine over the connections of the running loop when it is this task's turn.

        Raises:
            TierError: the turn did not come in time.
        """
        loop = asyncio.get_running_loop()
        while True:
            desk = self._desks.get(loop) or await self._begin(loop)
            await _take_turn(desk, deadline_ns)
            if self._desks.get(loop) is desk:
                break
            desk.turn.release()  # it was closed while this task waited
        try:
            return await steps(desk.links)
        finally:
            desk.turn.release()

    async def close(self) -> None:
        """Close the connections of the running loop; a batch under way fails."""
        desk = self._desks.pop(asyncio.get_running_loop(), None)
        if desk is not None:
            await desk.guard.aclose()

    def forget_dead(self) -> None:
        """Close what loops left that are closed."""
        for loop in [loop for loop in list(self._desks) if loop.is_closed()]:
            desk = self._desks.pop(loop, None)
            for link in list(desk.links.links.values()) if desk is not None else ():
                link.bury()

    def forget_parent(self) -> None:
        """Give up the child's copies of the parent's connections."""
        desks, self._desks = self._desks, {}
        _left_by_parents.append(desks)
        for desk in desks.values():
            for link in desk.links.links.values():
                link.leave_to_parent()

    def __del__(self) -> None:
        self.forget_dead()

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> _LoopDesk:
        self.forget_dead()
        desk = self._desks[loop] = _LoopDesk(self._servers)
        await anext(desk.guard)  # does not suspend; from here on the loop knows of it
        return desk


async def _take_turn(desk: _LoopDesk, deadline_ns: int) -> None:
    if not desk.turn.locked():
        await desk.turn.acquire()  # at once
        return
    try:
        async with asyncio.timeout((deadline_ns - time.monotonic_ns()) / 1_000_000_000):
            await desk.turn.acquire()
    except TimeoutError as error:
        raise TierError("the tier is kept busy by other tasks") from error


async def _close_at_the_end(links: Links) -> AsyncGenerator[None, None]:
    """Close the connections when the loop ends: whoever ends a loop properly ends its asynchronous generators before."""
    try:
        yield
    finally:
        await links.close()
        with suppress(RuntimeError):
            await asyncio.sleep(0)  # the transports tell their protocols in the loop's next turn
