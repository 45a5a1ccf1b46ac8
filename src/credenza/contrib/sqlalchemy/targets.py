"""Sessions of every kind: what listeners can be put on, and what does the work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any  # Any: what may turn out to be no session at all

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from credenza import ConfigurationError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker

    AnyFactory = (
        sessionmaker[Any]
        | scoped_session[Any]
        | type[Session | AsyncSession]
        | async_sessionmaker[Any]
        | async_scoped_session[Any]
    )
    AnySession = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]
    AnyConnection = Connection | AsyncConnection


def target_of(sessions: Any) -> Any:
    """Return what listeners can be put on.

    Raises:
        ConfigurationError: they are sessions of everybody, or none.
    """
    asyncio = _asyncio()
    if asyncio is not None:
        if isinstance(sessions, asyncio.async_scoped_session):
            sessions = sessions.session_factory
        if isinstance(sessions, asyncio.async_sessionmaker):
            return _own_class(sessions)
        if isinstance(sessions, type) and issubclass(sessions, asyncio.AsyncSession):
            made: type[Any] = sessions
            sessions = made.sync_session_class
    if isinstance(sessions, (sessionmaker, scoped_session)):
        return sessions
    if isinstance(sessions, type) and issubclass(sessions, Session) and sessions is not Session:
        return sessions
    raise ConfigurationError(
        f"{sessions!r} cannot be watched; pass a sessionmaker, an async_sessionmaker, a scoped_session, or a subclass of "
        "Session of your own"
    )


def engines_of(sessions: Any) -> Iterator[Engine]:
    """Yield the engines that a factory names; sessions may come to others later."""
    options: dict[str, Any] = getattr(getattr(sessions, "session_factory", sessions), "kw", {})
    for bind in [options.get("bind"), *(options.get("binds") or {}).values()]:
        found = getattr(bind, "sync_engine", bind)
        if isinstance(found, (Engine, Connection)):
            yield found.engine


def worker_of(where: Any) -> Session | Connection:
    """Return the session or connection that does the work; raises `UsageError` if there is none."""
    asyncio = _asyncio()
    if isinstance(where, scoped_session) or (asyncio is not None and isinstance(where, asyncio.async_scoped_session)):
        where = where()
    if asyncio is not None:
        if isinstance(where, asyncio.AsyncSession):
            where = where.sync_session
        elif isinstance(where, asyncio.AsyncConnection):
            where = where.sync_connection
    if isinstance(where, (Session, Connection)):
        return where
    raise UsageError(f"a transaction is that of a session or a connection, got {where!r}")


def _asyncio() -> Any:
    """Return SQLAlchemy's asyncio package if it is in use; without greenlet it cannot be imported."""
    return sys.modules.get("sqlalchemy.ext.asyncio")


def _own_class(sessions: Any) -> type[Session]:
    """Give the async sessions of one factory a class of plain sessions of their own; otherwise all share one."""
    common: type[Session] = sessions.kw.get("sync_session_class") or sessions.class_.sync_session_class
    own = type(common.__name__, (common,), {})
    sessions.configure(sync_session_class=own)
    return own
