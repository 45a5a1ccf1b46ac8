"""Where statements go: the engine that a source was given, or that the sessions of a factory would use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Dialect, Engine, Table, insert
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from credenza import ConfigurationError

from .options import Target

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

Bind = Engine | sessionmaker[Any] | scoped_session[Any]  # Any: sessions of every class

_DIALECTS = ("sqlite", "postgresql")


def engine_of(bind: Bind, target: Target) -> Engine:
    """Return the engine to which sessions send inserts of the target.

    Raises:
        ConfigurationError: there is none, or it cannot do what a source needs.
    """
    if isinstance(bind, Engine):
        return _checked(bind)
    if isinstance(bind, scoped_session):
        bind = bind.session_factory
    if not isinstance(bind, sessionmaker):
        raise ConfigurationError(f"TableSource takes an Engine or a sessionmaker, got {type(bind).__qualname__}")
    with bind() as session:
        return _checked(_bound(session, target))


def async_engine_of(bind: AsyncEngine | async_sessionmaker[Any], target: Target) -> AsyncEngine:  # Any: as above
    """Do as `engine_of`, for coroutines."""
    from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker  # noqa: PLC0415  # they need greenlet

    if isinstance(bind, AsyncEngine):
        _checked(bind.sync_engine)
        return bind
    if not isinstance(bind, async_sessionmaker):
        raise ConfigurationError(
            f"AsyncTableSource takes an AsyncEngine or an async_sessionmaker, got {type(bind).__qualname__}"
        )
    return AsyncEngine(_checked(_bound(bind().sync_session, target)))


def _bound(session: Session, target: Target) -> Engine:
    try:
        if isinstance(target, Table):
            bound = session.get_bind(clause=insert(target))
        else:
            bound = session.get_bind(target, clause=insert(target))
    except UnboundExecutionError as error:
        raise ConfigurationError("the session factory has no engine yet; bind it before the source is made") from error
    if not isinstance(bound, Engine):
        raise ConfigurationError(
            "the session factory is bound to a single connection, whose transaction would hide what others commit; "
            "bind it to an engine"
        )
    return bound


def _checked(engine: Engine) -> Engine:
    if engine.dialect.name not in _DIALECTS:
        raise ConfigurationError(
            f"a table source upserts, which it can do on SQLite and PostgreSQL, got {engine.dialect.name!r}; "
            "write a source with load, store and delete for it"
        )
    if "AUTOCOMMIT" in (engine.get_execution_options().get("isolation_level"), _own_level(engine.dialect)):
        raise ConfigurationError(
            "a table source writes a batch in one transaction, and the engine is in AUTOCOMMIT; "
            'give it engine.execution_options(isolation_level="READ COMMITTED"), on SQLite "SERIALIZABLE"'
        )
    return engine


def _own_level(dialect: Dialect) -> object:
    """Return what `create_engine(isolation_level=...)` was told; only the dialect knows it."""
    return getattr(dialect, "_on_connect_isolation_level", None)
