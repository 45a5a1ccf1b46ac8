"""The rows that a flush writes, as they were and as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any  # Any: rows of whatever class the user has mapped, and the values of their columns

from sqlalchemy import Connection, inspect, select
from sqlalchemy.orm import InstanceState, Mapper, object_session

from .rules import RowRules


@dataclass(slots=True, eq=False)
class Note:
    """One row that a flush writes.

    Attributes:
        row: the instance.
        was_there, is_there: before the flush, and after it.
        is_modified: something of it has changed, a collection included.
        old: what has changed, as it was.
        rules: what the row makes stale.
    """

    row: Any
    rules: RowRules
    was_there: bool
    is_there: bool
    is_modified: bool
    old: dict[str, Any]

    def views(self) -> Iterator[Any]:
        """Yield the row as it was, if that is another, and as it is."""
        if self.was_there:
            _add_old(self.old, inspect(self.row), self.rules)
            if self.old or not self.is_there:
                yield _Before(self.row, self.old)
        if self.is_there:
            yield self.row


class _Before:
    """A row as it was: whoever asks for a column that has changed gets the old value."""

    __slots__ = ("_old", "_row")

    def __init__(self, row: Any, old: dict[str, Any]) -> None:
        self._row = row
        self._old = old

    def __getattr__(self, name: str) -> Any:
        old = self._old
        return old[name] if name in old else getattr(self._row, name)


def note_insert(rules: RowRules, row: Any) -> Note:
    """Note a new row."""
    return Note(row, rules, was_there=False, is_there=True, is_modified=True, old={})


def note_switch(rules: RowRules, mapper: Mapper[Any], connection: Connection, row: Any) -> Note | None:
    """Note a new row that takes the place of one deleted in the same flush, which SQLAlchemy makes one UPDATE of."""
    session, identity = object_session(row), mapper.primary_key_from_instance(row)
    if session is None or mapper.identity_key_from_primary_key(identity) not in session.identity_map:
        return None
    old = _stored(mapper, connection, identity, rules.fetched)
    return Note(row, rules, was_there=True, is_there=True, is_modified=True, old=old)


def note_update(rules: RowRules, mapper: Mapper[Any], connection: Connection, row: Any) -> Note:
    """Note a row right before it is written; asks the database for old values that were replaced unseen."""
    state: InstanceState[Any] = inspect(row)
    session = object_session(row)
    is_modified = session is None or session.is_modified(row)
    old: dict[str, Any] = {}
    if is_modified:
        _add_old(old, state, rules)
        unknown = [name for name in rules.fetched if name not in old and state.attrs[name].history.added]
        old |= _stored(mapper, connection, state.identity, unknown)
    return Note(row, rules, was_there=True, is_there=True, is_modified=is_modified, old=old)


def note_delete(rules: RowRules, mapper: Mapper[Any], connection: Connection, row: Any) -> Note:
    """Note a row right before it is deleted; asks the database for what is not loaded, as nobody can afterwards."""
    state: InstanceState[Any] = inspect(row)
    old: dict[str, Any] = {}
    _add_old(old, state, rules)
    unknown = []
    for name in rules.fetched:
        if name in old:
            continue
        unchanged: list[Any] = list(state.attrs[name].history.unchanged)
        if unchanged:
            old[name] = unchanged[0]
        else:
            unknown.append(name)
    old |= _stored(mapper, connection, state.identity, unknown)
    return Note(row, rules, was_there=True, is_there=False, is_modified=True, old=old)


def _add_old(old: dict[str, Any], state: InstanceState[Any], rules: RowRules) -> None:
    """Add what history knows; a value that is there already is older."""
    for name in rules.compared:
        deleted = state.attrs[name].history.deleted
        if deleted and name not in old:
            old[name] = deleted[0]


def _stored(
    mapper: Mapper[Any], connection: Connection, identity: Sequence[Any] | None, names: Sequence[str]
) -> dict[str, Any]:
    """Return columns of a row as the database has them."""
    if not names or identity is None:
        return {}
    columns = [mapper.columns[name] for name in names]
    is_row = [column == value for column, value in zip(mapper.primary_key, identity, strict=True)]
    found = connection.execute(select(*columns).select_from(mapper.persist_selectable).where(*is_row)).first()
    return {} if found is None else dict(zip(names, found, strict=True))
