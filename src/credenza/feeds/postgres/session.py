"""The connection that a feed of PostgreSQL reads over: made anew when it is lost, abandoned when the process forks."""

from __future__ import annotations

from typing import Any, Final

from ...errors import FeedError
from .links import Bell, Link

_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"


class Session:
    """A connection to the primary, or none. Used by one thread, but for `wake`, `ask_once` and what is about forks.

    Args:
        url: a connection string of libpq.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._link: Link | None = None
        self._bell = Bell()
        self._has_lock = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, be it a broken one."""
        return self._link is not None

    def open(self, timeout: float) -> None:
        """Connect."""
        self._link = Link(self._url, timeout)
        if self.run("SELECT pg_is_in_recovery()", timeout=timeout)[0][0]:
            raise FeedError(
                "the server is a hot standby, and only the primary knows the order of commits; name that one"
            )

    def run(self, statement: str, parameters: Any = None, *, timeout: float) -> list[Any]:
        """Execute a statement and return its rows."""
        if self._link is None:
            raise FeedError("not connected")
        return self._link.run(statement, parameters, timeout=timeout)

    def lock(self, name: str, timeout: float) -> bool:
        """Take the lock of this name, or tell that another session has it. It goes with the connection."""
        if not self._has_lock:
            self._has_lock = bool(self.run(_LOCK, (name,), timeout=timeout)[0][0])
        return self._has_lock

    @property
    def has_lock(self) -> bool:
        """Whether `lock` succeeded over this connection."""
        return self._has_lock

    def ask_once(self, statement: str, timeout: float) -> list[Any]:
        """Execute a statement over a connection of its own; for any thread."""
        link = Link(self._url, timeout)
        try:
            return link.run(statement, timeout=timeout)
        finally:
            link.close()

    def wait(self, seconds: float) -> None:
        """Block until the server notifies, `wake` is called, or the time is over."""
        if self._link is None:
            raise FeedError("not connected")
        self._link.wait(self._bell.ear, seconds)
        self._bell.hush()

    def wake(self) -> None:
        """End a wait, or the next one."""
        self._bell.ring()

    def close(self) -> None:
        """Hang up, if connected."""
        link, self._link, self._has_lock = self._link, None, False
        if link is not None:
            link.close()

    def after_in_child(self) -> None:
        """Abandon the connection: closing it would end the parent's session."""
        if self._link is not None:
            _inherited.append(self._link)
        self._link, self._has_lock, self._bell = None, False, Bell()


_inherited: list[Link] = []
"""Connections of a parent that must never be closed here."""
