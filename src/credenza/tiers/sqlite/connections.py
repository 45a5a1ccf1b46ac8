"""A few connections to the file, each used by one batch at a time, and none of them open while the process forks.

SQLite remembers per process which locks it holds on a file. A child inherits that memory but not the locks, so even
connections of its own would break the file. Before a fork, therefore, batches under way are waited for and all connections are
closed; parent and child open new ones when they need them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ...forks import Forks
from ..base import TierError
from .files import Identity, identity_of, open_file, put_aside

_PAUSE: Final = 0.001
_PATIENCE: Final = 0.05
_FORK_PATIENCE_NS: Final = 1_000_000_000
_CHECK_NS: Final = 50_000_000


class Link:
    """A connection and what is known of its file.

    Attributes:
        execute: the connection's method.
        identity: the file that it has open.
        is_retired: whether it is closed when it is given back.
    """

    __slots__ = ("connection", "execute", "identity", "is_retired")

    def __init__(self, connection: sqlite3.Connection, identity: Identity) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.identity = identity
        self.is_retired = False


class Links:
    """The connections of one tier for one purpose.

    Args:
        path: the file.
        prepare: done to each new connection.
        most: how many there may be.
    """

    def __init__(self, path: str, prepare: Callable[[sqlite3.Connection], None], most: int) -> None:
        self.path = path
        self._prepare = prepare
        self._most = most
        self._idle: deque[Link] = deque()  # taking and giving back are atomic: a look-up takes no lock
        self._open: set[Link] = set()  # only added to with the gate held
        self._gate = threading.Lock()  # who holds it opens connections, or keeps others from it
        self._returned = threading.Condition(threading.Lock())  # guards `_waiting`
        self._waiting = 0  # threads that wait for a connection; while there are any, nobody jumps the queue
        self._checked_ns = 0
        self._is_forking = False  # then the gate is held, and connections are given back but not taken
        self._is_spoilt = False

    def take_idle(self) -> Link | None:
        """Return a connection that is at hand; blocks for nothing. It must be given back or thrown away."""
        if self._waiting:
            return None
        try:
            link = self._idle.pop()
        except IndexError:
            return None
        now_ns = time.monotonic_ns()
        if self._is_forking or now_ns - self._checked_ns > _CHECK_NS:
            self._checked_ns = now_ns
            return self._if_current(link)
        return link

    def take(self, deadline_ns: int) -> Link:
        """Return a connection to the file that is at the path now, opening one if need be.

        Raises:
            TierError: the file cannot be opened, or there is no connection to spare in time.
            ConfigurationError: the file is not ours.
        """
        while True:
            link = self.take_idle()
            link = self._if_current(link) if link else self._another(deadline_ns) or self._spared(deadline_ns)
            if link is not None:
                return link
            if time.monotonic_ns() >= deadline_ns:
                raise TierError(f"all connections to the cache file {self.path!r} are in use")

    def give_back(self, link: Link) -> None:
        """Keep a connection for the next batch; only one that is not in a transaction."""
        if link.is_retired:
            self.throw_away(link)
        else:
            self._idle.append(link)
            if self._waiting:
                with self._returned:
                    self._returned.notify()

    def throw_away(self, link: Link) -> None:
        """Close a connection that may be in any state. Until that is done it counts as open: a fork waits for it."""
        link.connection.close()
        self._open.discard(link)

    def replace_file(self, seen: Identity, deadline_ns: int) -> None:
        """Begin a new file instead of the broken one that was seen."""
        self.close()
        with self._gate:
            put_aside(self.path, seen, deadline_ns)

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        for link in list(self._open):
            link.is_retired = True
        while True:
            try:
                self.throw_away(self._idle.pop())
            except IndexError:
                return

    def _another(self, deadline_ns: int) -> Link | None:
        """Open a connection; None if there are enough, or others are opening some until the deadline."""
        left = max(0, deadline_ns - time.monotonic_ns()) / 1_000_000_000
        if len(self._open) >= self._most or not self._gate.acquire(timeout=left):
            return None
        try:
            if len(self._open) >= self._most:  # others were faster while this thread waited for the gate
                return None
            if self._is_spoilt:
                raise TierError(f"the process was forked in the middle of using the cache file {self.path!r}")
            link = Link(*open_file(self.path, deadline_ns, self._prepare))
            self._open.add(link)
            return link
        finally:
            self._gate.release()

    def _spared(self, deadline_ns: int) -> Link | None:
        """Wait for a connection that somebody gives back, for a little while: somebody may also close one."""
        left = max(0, deadline_ns - time.monotonic_ns()) / 1_000_000_000
        with self._returned:
            self._waiting += 1  # before the look at `_idle`, as who gives back looks at it afterwards
            try:
                if not self._idle:
                    self._returned.wait(min(left, _PATIENCE))
                link = self._idle.pop()
            except IndexError:
                return None
            finally:
                self._waiting -= 1
        return self._if_current(link)

    def _if_current(self, link: Link) -> Link | None:
        """Return `link` if its file is still the one at the path; else close it, for deleted files learn no news."""
        try:
            is_current = not (self._is_forking or link.is_retired) and identity_of(self.path) == link.identity
        except OSError:
            is_current = False
        if is_current:
            return link
        self.throw_away(link)
        return None

    def before_fork(self) -> None:
        """Close everything and let nobody open anything; wait for batches under way, for a while."""
        patience_ns = time.monotonic_ns() + _FORK_PATIENCE_NS
        self._is_forking = self._gate.acquire(timeout=_FORK_PATIENCE_NS / 1_000_000_000)
        while self._open and time.monotonic_ns() < patience_ns:
            try:
                self.throw_away(self._idle.pop())
            except IndexError:
                time.sleep(_PAUSE)

    def after_in_parent(self) -> None:
        """Let connections be opened again."""
        if self._is_forking:
            self._is_forking = False
            self._gate.release()

    def after_in_child(self) -> None:
        """Begin anew; what could not be closed in time is not touched, and makes the file unusable here."""
        if self._open or not self._is_forking:
            self._is_spoilt = True
            _inherited.extend(self._open)
        self._idle, self._open, self._is_forking, self._waiting = deque(), set(), False, 0
        self._gate, self._returned = threading.Lock(), threading.Condition(threading.Lock())


_inherited: list[Link] = []
"""Connections of a parent that must never be closed here."""

forks = Forks()
"""Reaches all tiers."""
