"""The commits of the connections that are watched: fenced before, cleared after."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any  # Any: drivers' connections and transaction ids, a cache of whatever keys and values
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Delete, Engine, Insert, Update, event
from sqlalchemy.engine import ExceptionContext, TwoPhaseTransaction
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import Pool

from credenza import Cache

from .rules import Rules
from .unit import Unit

_log = logging.getLogger("credenza")

_WRITES = (Insert, Update, Delete)


class Commits:
    """The units of the connections that are watched, and the listeners on their engines.

    Args:
        cache: what is fenced.
        rules: what statements make stale.
    """

    def __init__(self, cache: Cache[Any, Any], rules: Rules) -> None:
        self._cache = cache
        self._rules = rules
        # No lock: one thread at a time uses a connection, and SQLAlchemy takes a listener once however often it comes.
        self._units: WeakKeyDictionary[Connection, Unit] = WeakKeyDictionary()
        self._engines: WeakKeyDictionary[Engine, Pool] = WeakKeyDictionary()
        self._fenced: dict[int, Unit] = {}
        self._warned: set[str] = set()

    def find(self, connection: Connection) -> Unit | None:
        """Return the unit of a connection that is watched."""
        return self._units.get(connection)

    def unit_of(self, connection: Connection) -> Unit:
        """Return the unit of a connection, which is watched from now on."""
        unit = self._units.get(connection)
        if unit is None:
            unit = self._units[connection] = Unit()
            self.listen(connection.engine)
        return unit

    def listen(self, engine: Engine) -> None:
        """Listen to an engine, as early as it is known."""
        if engine in self._engines:
            return
        pool = engine.pool
        for target, name, listener in self._listeners(engine, pool):
            event.listen(target, name, listener)
        # The first of its kind, as one that raises keeps those after it from being asked.
        event.listen(engine, "handle_error", self._handle_error, insert=True)
        self._engines[engine] = pool  # last, so that nobody commits on the strength of it before all of them listen

    def close(self) -> None:
        """Remove the listeners; what is committed from now on is not fenced."""
        engines = list(self._engines.items())
        self._engines.clear()
        for engine, pool in engines:
            removed = [*self._listeners(engine, pool), (engine, "handle_error", self._handle_error)]
            for target, name, listener in removed:
                with contextlib.suppress(InvalidRequestError):
                    event.remove(target, name, listener)

    def _listeners(self, engine: Engine, pool: Pool) -> Iterator[tuple[Any, str, Any]]:
        yield engine, "begin", self._begin
        yield engine, "begin_twophase", self._begin_twophase
        yield engine, "before_execute", self._before_execute
        yield engine, "commit", self._commit
        yield engine, "prepare_twophase", self._prepare_twophase
        yield engine, "commit_twophase", self._commit_twophase
        yield engine, "rollback", self._rollback
        yield engine, "rollback_twophase", self._rollback_twophase
        yield pool, "reset", self._reset
        yield pool, "invalidate", self._reset

    # Before the commit ------------------------------------------------------------------------------------------------

    def _before_execute(
        self, connection: Connection, statement: Any, _multiparams: Any, _params: Any, _options: Any
    ) -> None:
        if not isinstance(statement, _WRITES):
            return
        unit = self.find(connection)
        name = getattr(statement.table, "fullname", None)
        rule = None if name is None or unit is None or unit.is_flushing else self._rules.of_table(name)
        if rule is None or unit is None:
            return
        unit.add((), rule.tags)
        if not rule.tags:
            unit.untold[rule.label] = None

    def _commit(self, connection: Connection) -> None:
        unit = self.find(connection)
        if unit is not None and not unit.is_fenced:
            try:
                self._fence(connection, unit)
            except BaseException:
                unit.forget()
                _roll_back(connection)
                raise

    def _prepare_twophase(self, connection: Connection, _xid: Any) -> None:
        """Fence here, since a transaction that is prepared can no longer be refused."""
        unit = self.find(connection)
        if unit is not None:
            self._fence(connection, unit)

    def _commit_twophase(self, connection: Connection, xid: Any, is_prepared: bool) -> None:  # noqa: FBT001  # the event's
        unit = self.find(connection)
        if unit is None or unit.is_fenced:
            return
        try:
            self._fence(connection, unit)
        except BaseException:
            unit.forget()
            connection.dialect.do_rollback_twophase(connection, xid, is_prepared)
            raise

    def _fence(self, connection: Connection, unit: Unit) -> None:
        self._warn(unit)
        unit.raise_fence(self._cache, connection)
        if unit.is_fenced:
            unit.driver = connection.connection.dbapi_connection
            self._fenced[id(unit.driver)] = unit

    def _warn(self, unit: Unit) -> None:
        """Say so, once for a class, when a commit leaves old values in the cache."""
        if unit.is_named:
            return
        for label in unit.untold.keys() - self._warned:
            self._warned.add(label)
            _log.warning(
                "%r: a statement wrote rows of %s, and cannot tell which became stale; name them with "
                "stale(session, ...), or give a tag that covers them all with tags= or bulk=",
                self._cache,
                label,
            )

    # After it ---------------------------------------------------------------------------------------------------------

    def settle(self, unit: Unit, error: BaseException | None = None) -> None:
        """Clear what a commit has fenced; see `Unit.settle`."""
        self._fenced.pop(id(unit.driver), None)
        unit.settle(error)

    def _handle_error(self, context: ExceptionContext) -> None:
        """End the unit of a commit that failed: whatever fails inside the fence is the commit."""
        connection = context.connection
        unit = None if connection is None else self.find(connection)
        if connection is None or unit is None or not unit.is_fenced:
            return
        if not context.is_disconnect and not isinstance(connection.get_transaction(), TwoPhaseTransaction):
            with contextlib.suppress(Exception):
                _roll_back(connection)
        self.settle(unit, context.original_exception)

    def _begin(self, connection: Connection) -> None:
        unit = self.find(connection)
        if unit is not None and unit.is_fenced:
            self.settle(unit)

    def _begin_twophase(self, connection: Connection, _xid: Any) -> None:
        self._begin(connection)

    def _rollback(self, connection: Connection) -> None:
        unit = self.find(connection)
        if unit is None:
            return
        if _commits_by_itself(connection):
            self._fence(connection, unit)  # nothing is rolled back, so that it is as if committed
        self.settle(unit)

    def _rollback_twophase(self, connection: Connection, _xid: Any, _is_prepared: bool) -> None:  # noqa: FBT001  # the event's
        unit = self.find(connection)
        if unit is not None:
            self.settle(unit)

    def _reset(self, driver: Any, _record: Any, _state: Any) -> None:
        """End the unit of a connection that goes back into the pool, where nobody else said that it was committed."""
        unit = self._fenced.get(id(driver))
        if unit is not None:
            self.settle(unit)


def _roll_back(connection: Connection) -> None:
    """Roll back a transaction whose commit was refused or has failed.

    SQLAlchemy takes it for ended. If the connection is closed then, it goes back into the pool as it is, and whoever gets it
    next would commit what was refused, with no fence around it.
    """
    connection.dialect.do_rollback(connection.connection)


def _commits_by_itself(connection: Connection) -> bool:
    """Tell whether each statement of the connection was committed by itself."""
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return True
    driver = None if connection.invalidated else connection.connection.dbapi_connection
    if driver is None or getattr(driver, "in_transaction", False):
        return False
    try:
        return bool(connection.dialect.detect_autocommit_setting(driver))
    except (AttributeError, NotImplementedError):  # of SQLAlchemy before 2.0.43, and of dialects that cannot tell
        return False
