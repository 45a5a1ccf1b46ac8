"""Connections of psycopg that keep to their time."""

from __future__ import annotations

import functools
import logging
import math
import selectors
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from ...errors import ConfigurationError, FeedError

_log = logging.getLogger("credenza")

_OPTIONS = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "application_name": "credenza",
}
# The server, too, must notice that this end is gone: until then it keeps the lock that says who reads.
_SETTINGS = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
    "SET synchronous_commit = off; SET default_transaction_isolation = 'read committed'; SET TimeZone = 'UTC'"
)
_FOR_GOOD = ("42P01", "3F000", "42883", "42703", "42501", "28P01", "28000", "3D000")


def psycopg_module() -> Any:  # Any: an optional dependency
    """Return psycopg.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import psycopg  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        raise ConfigurationError("feeds of PostgreSQL need psycopg; pip install 'credenza[postgres]'") from error
    return psycopg


@functools.cache
def _connection_class() -> Any:  # Any: a class of an optional dependency
    psycopg = psycopg_module()

    class Punctual(psycopg.Connection):  # type: ignore[misc,name-defined]  # of type Any
        """A connection that gives up when the time is over, be it that the server is frozen."""

        deadline = math.inf

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            return super().wait(_until(gen, self), *args, **kwargs)

    return Punctual


def _until(gen: Any, connection: Any) -> Generator[Any, Any, Any]:
    """Pass on what goes between psycopg and a generator of its own; psycopg comes by ten times a second at least."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > connection.deadline:
                raise psycopg_module().OperationalError("the server does not answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


class Link:
    """One connection in autocommit mode, used by one thread at a time.

    Args:
        url: a connection string of libpq.
        timeout: for getting in, in seconds.

    Raises:
        FeedError: the server is away, or does not let us in.
    """

    def __init__(self, url: str, timeout: float) -> None:
        with translated("cannot connect"):
            self._connection = _connection_class().connect(
                url,
                autocommit=True,
                connect_timeout=max(1, math.ceil(timeout)),
                tcp_user_timeout=max(1000, int(timeout * 1000)),
                **_OPTIONS,
            )
        self._is_notified = False
        self._connection.add_notify_handler(self._hear)  # for what arrives while a statement runs
        try:
            self.run(_SETTINGS, timeout=timeout)
        except BaseException:
            self.close()
            raise

    def run(self, statement: str, parameters: Any = None, *, timeout: float) -> list[Any]:
        """Execute a statement and return its rows."""
        with translated("a statement failed"):
            self._connection.deadline = time.monotonic() + timeout
            cursor = self._connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description is not None else []

    def wait(self, other: socket.socket, seconds: float) -> None:
        """Block until the server notifies, there is something to read from `other`, or the time is over."""
        if not self._is_notified:
            with translated("the connection ended"), selectors.DefaultSelector() as selector:
                selector.register(self._connection.fileno(), selectors.EVENT_READ)
                selector.register(other, selectors.EVENT_READ)
                if any(key.fileobj is not other for key, _ in selector.select(seconds)):
                    self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies() is not None:
            pass
        self._is_notified = False

    def _hear(self, _notification: object) -> None:
        self._is_notified = True

    def close(self) -> None:
        """Hang up."""
        try:
            self._connection.close()
        except Exception:
            _log.debug("a connection did not close well", exc_info=True)


@contextmanager
def translated(what: str) -> Generator[None, None, None]:
    """Turn psycopg's errors into ours. What the server says may quote values, so its code is given instead."""
    psycopg = psycopg_module()
    try:
        yield
    except psycopg.Error as error:
        code = error.sqlstate
        name = type(error).__name__
        if code in _FOR_GOOD and what != "cannot connect":
            raise ConfigurationError(
                f"the change log cannot be used ({name}, {code}): run the migration of credenza.feeds.postgres, and grant its "
                "role to whom the follower connects as"
            ) from None
        raise FeedError(f"{what}: {name}{f' ({code})' if code else ''}") from None
    except OSError as error:
        raise FeedError(f"{what}: {type(error).__name__}") from None


class Bell:
    """Wakes a thread that waits for a connection."""

    def __init__(self) -> None:
        self.ear, self._hammer = socket.socketpair()
        self.ear.setblocking(False)
        self._hammer.setblocking(False)

    def ring(self) -> None:
        """End a wait, or the next one."""
        try:
            self._hammer.send(b"!")
        except OSError:
            pass  # it rings already, or is closed

    def hush(self) -> None:
        """Forget that it rang."""
        try:
            while self.ear.recv(4096):
                pass
        except OSError:
            pass

    def __del__(self) -> None:
        self.ear.close()
        self._hammer.close()


def quoted(name: str) -> str:
    """Return an identifier as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def array(texts: Sequence[str]) -> str:
    """Return an array of strings as SQL writes it."""
    return f"ARRAY[{', '.join(map(literal, texts))}]::text[]"
