"""Fences and invalidation that follow the commits of sessions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self  # Any: sessions and rows of whatever class, a cache of any keys and values
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Table, event
from sqlalchemy.orm import Mapper, Session, SessionTransaction

from credenza import Cache, UsageError

from .commits import Commits
from .notes import note_delete, note_insert, note_switch, note_update
from .rules import Names, Rules
from .targets import engines_of, target_of, worker_of

if TYPE_CHECKING:
    from .targets import AnyConnection, AnyFactory, AnySession


def watch(
    sessions: AnyFactory,
    cache: Cache[Any, Any],
    *,
    keys: Mapping[type, Names] | None = None,
    tags: Mapping[type | Table, Names] | None = None,
    bulk: Mapping[type | Table, str | Sequence[str]] | None = None,
) -> Watch:
    """Fence and invalidate, from now on, whatever these sessions commit.

    Each commit is fenced right before it reaches the database, row locks held, as by `Cache.writing`, and cleared right
    after it. A rollback leaves the cache alone. A fence that cannot be raised, where the policy says so, keeps the commit
    from happening: it raises `TierError` or `FenceLost`, and is rolled back.

    Args:
        sessions: a `sessionmaker`, `scoped_session` or subclass of `Session`, or their async counterparts; of an
            `async_sessionmaker` the sessions that it makes from now on.
        cache: what holds values made of the rows. Close the watch before it: a closed cache refuses the commits.
        keys: for each mapped class what its rows make stale: a template over the columns such as "user:{id}", a callable of
            the row that returns keys, or several of them. If columns have changed, the keys of the row as it was are stale
            as well; a callable is then called a second time with the row as it was.
        tags: in the same way the tags that each written row makes stale. For a `Table` plain names.
        bulk: tags that become stale, beside the plain ones in `tags`, with statements such as `update(User)`, of whose rows
            nobody knows.

    Raises:
        ConfigurationError: a class is not mapped, a template names what is no column, or `sessions` cannot be watched.
    """
    return Watch(sessions, cache, Rules(keys or {}, tags or {}, bulk or {}))


class _Work:
    """What a session does until its transaction ends.

    Attributes:
        keys, tags: what its user has named.
        connections: those it has begun to use.
    """

    __slots__ = ("connections", "is_flushing", "keys", "tags")

    def __init__(self) -> None:
        self.keys: tuple[Hashable, ...] = ()
        self.tags: tuple[str, ...] = ()
        self.connections: list[Connection] = []
        self.is_flushing = False


class Watch:
    """What `watch` returns. Thread-safe, but for `close`, which is for a time when nothing is committed."""

    def __init__(self, sessions: AnyFactory, cache: Cache[Any, Any], rules: Rules) -> None:
        self._rules = rules
        self._commits = Commits(cache, rules)
        self._works: WeakKeyDictionary[Session, _Work] = WeakKeyDictionary()
        self._listening: list[tuple[Any, str, Callable[..., None]]] = []
        target = target_of(sessions)
        self._listen(target, "after_begin", self._after_begin)
        self._listen(target, "before_flush", self._before_flush)
        self._listen(target, "after_flush", self._after_flush)
        self._listen(target, "after_commit", self._after_commit)
        self._listen(target, "after_soft_rollback", self._after_soft_rollback)
        self._listen(target, "after_transaction_end", self._after_transaction_end)
        for rule in rules.rules:
            self._listen(rule.entity, "before_insert", self._before_insert, propagate=True)
            self._listen(rule.entity, "after_insert", self._after_insert, propagate=True)
            self._listen(rule.entity, "before_update", self._before_update, propagate=True)
            self._listen(rule.entity, "before_delete", self._before_delete, propagate=True)
        for engine in engines_of(sessions):
            self._commits.listen(engine)

    def stale(self, where: AnySession | AnyConnection, /, *keys: Hashable, tags: Iterable[str] = ()) -> None:
        """Name what the transaction makes stale that cannot be seen: by `text()`, a bulk statement, a trigger.

        It is fenced and invalidated if and when the transaction commits.

        Args:
            where: the session that writes, or a connection that writes without one. Its fence then stands until the
                connection is closed or begins another transaction.
            keys: what becomes stale.
            tags: names under which it is found.
        """
        if isinstance(tags, str):
            raise UsageError(f"tags is a collection of tags, got the str {tags!r}; write tags=[{tags!r}]")
        named = tuple(tags)
        target = worker_of(where)
        if isinstance(target, Connection):
            self._name(target, keys, named)
            return
        work = self._work_of(target)
        work.keys += keys
        work.tags += named
        for connection in work.connections:
            self._name(connection, keys, named)

    def close(self) -> None:
        """End the watch. May be called again."""
        listening, self._listening = self._listening, []
        for target, name, listener in listening:
            event.remove(target, name, listener)
        self._commits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self, target: Any, name: str, listener: Callable[..., None], **options: bool) -> None:
        event.listen(target, name, listener, **options)
        self._listening.append((target, name, listener))

    def _name(self, connection: Connection, keys: tuple[Hashable, ...], tags: tuple[str, ...]) -> None:
        unit = self._commits.unit_of(connection)
        if unit.is_fenced:  # of the transaction before, whose connection nobody has closed
            self._commits.settle(unit)
        unit.add(keys, tags)
        unit.is_named = True

    # What a session does ----------------------------------------------------------------------------------------------

    def _work_of(self, session: Session) -> _Work:
        work = self._works.get(session)
        if work is None:
            work = self._works[session] = _Work()
        return work

    def _after_begin(self, session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
        work, unit = self._work_of(session), self._commits.unit_of(connection)
        unit.is_flushing = work.is_flushing
        if connection not in work.connections:
            work.connections.append(connection)
            if work.keys or work.tags:
                self._name(connection, work.keys, work.tags)

    def _before_flush(self, session: Session, _context: Any, _instances: Any) -> None:
        self._set_flushing(session, is_flushing=True)

    def _after_flush(self, session: Session, _context: Any) -> None:
        """Make keys of the rows that were written, which have their generated values now."""
        for connection in self._work_of(session).connections:
            unit = self._commits.unit_of(connection)
            notes, unit.notes = unit.notes, {}
            for note in notes.values():
                if not note.is_modified and not session.is_modified(note.row):
                    continue
                for view in note.views():
                    keys, tags = note.rules.stale(view)
                    unit.add(keys, map(_tag, tags))
        self._set_flushing(session, is_flushing=False)

    def _set_flushing(self, session: Session, *, is_flushing: bool) -> None:
        """Tell the statements of a flush, whose rows are noted, from others."""
        work = self._work_of(session)
        work.is_flushing = is_flushing
        for connection in work.connections:
            unit = self._commits.unit_of(connection)
            unit.is_flushing = is_flushing
            unit.notes = {}

    def _after_commit(self, session: Session) -> None:
        """Clear what was fenced; nothing is if this is the end of a savepoint, or of a session inside a greater transaction."""
        for connection in self._work_of(session).connections:
            unit = self._commits.find(connection)
            if unit is not None and unit.is_fenced:
                self._commits.settle(unit)

    def _after_soft_rollback(self, session: Session, _transaction: SessionTransaction) -> None:
        self._set_flushing(session, is_flushing=False)

    def _after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._works.pop(session, None)

    # What a flush writes ----------------------------------------------------------------------------------------------

    def _before_insert(self, mapper: Mapper[Any], connection: Connection, row: Any) -> None:
        unit = self._commits.find(connection)
        note = None if unit is None else note_switch(self._rules.of_mapper(mapper), mapper, connection, row)
        if unit is not None and note is not None:
            unit.notes[id(row)] = note

    def _after_insert(self, mapper: Mapper[Any], connection: Connection, row: Any) -> None:
        unit = self._commits.find(connection)
        if unit is not None and id(row) not in unit.notes:
            unit.notes[id(row)] = note_insert(self._rules.of_mapper(mapper), row)

    def _before_update(self, mapper: Mapper[Any], connection: Connection, row: Any) -> None:
        unit = self._commits.find(connection)
        if unit is not None:
            unit.notes[id(row)] = note_update(self._rules.of_mapper(mapper), mapper, connection, row)

    def _before_delete(self, mapper: Mapper[Any], connection: Connection, row: Any) -> None:
        unit = self._commits.find(connection)
        if unit is not None:
            unit.notes[id(row)] = note_delete(self._rules.of_mapper(mapper), mapper, connection, row)


def _tag(tag: Hashable) -> str:
    if not isinstance(tag, str):
        raise UsageError(f"a tag is a str, got {tag!r}; write it as one, such as 'user:42'")
    return tag
