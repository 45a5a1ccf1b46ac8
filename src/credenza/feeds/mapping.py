"""From rows that changed to what is stale: keys and tags."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import CacheError, ConfigurationError
from ..keys import Template, check_hashable, check_tags
from .base import Columns, RowChange

_log = logging.getLogger("credenza")

Row = Mapping[str, Any]  # Any: columns of every type
Maker = str | Callable[[Row], Iterable[Any]] | Sequence[str]
"""A template such as "user:{id}", several, or a callable from a row to what is stale."""
Makers = Mapping[str, Maker]

_ADVICE: Final = (
    "install the feed with it (for logical decoding: publish it with REPLICA IDENTITY FULL), or leave it out"
)


@dataclass(frozen=True, slots=True)
class Stale:
    """What a batch of changes makes stale.

    Attributes:
        is_all: everything; keys and tags say nothing more then.
    """

    keys: Sequence[Hashable] = ()
    tags: Sequence[str] = ()
    is_all: bool = False


class Rules:
    """Says what the changes of each table make stale. Stateless, thread-safe.

    Args:
        keys: by table, the keys that are made of a row.
        tags: by table, the tags.
        whole: by table, tags that everything made of the table carries: for TRUNCATE and DDL. Without them all is stale.

    Raises:
        ConfigurationError: a template is malformed, or there is nothing to follow.
    """

    def __init__(self, *, keys: Makers | None, tags: Makers | None, whole: Mapping[str, str | Sequence[str]] | None):
        self._keys = {table: _compiled(table, maker) for table, maker in (keys or {}).items()}
        self._tags = {table: _compiled(table, maker) for table, maker in (tags or {}).items()}
        self._whole = {
            table: (names,) if isinstance(names, str) else tuple(names) for table, names in (whole or {}).items()
        }
        self.tables = frozenset(self._keys) | frozenset(self._tags)
        if not self.tables:
            raise ConfigurationError('a feed is followed for keys or tags; pass keys={"users": "user:{id}"} or tags=')
        for table in self._whole.keys() - self.tables:
            raise ConfigurationError(f"whole= names the table {table!r}, for which there are neither keys nor tags")
        for names in self._whole.values():
            check_tags(names)

    def check(self, told: Columns) -> None:
        """Raise `ConfigurationError` for a table or a column that the feed does not tell."""
        for table in sorted(self.tables):
            if table not in told:
                known = ", ".join(sorted(told)) or "none"
                raise ConfigurationError(f"the feed does not tell the table {table!r}; {_ADVICE}; it tells: {known}")
            for column in sorted(self.columns_of(table) - told[table]):
                known = ", ".join(sorted(told[table]))
                raise ConfigurationError(
                    f"the feed does not tell the column {column!r} of {table!r}; {_ADVICE}; it tells: {known}"
                )

    def columns_of(self, table: str) -> frozenset[str]:
        """Return the columns that the templates of a table name; what callables use nobody knows."""
        makers = (*self._keys.get(table, ()), *self._tags.get(table, ()))
        return frozenset(name for maker in makers if isinstance(maker, Template) for name in maker.fields)

    def stale(self, changes: Iterable[RowChange]) -> Stale:
        """Return what the changes make stale, each key and tag once.

        A row that a template or a callable cannot be applied to makes everything stale, as nobody can tell what it was for.
        """
        keys: dict[Hashable, None] = {}
        tags: dict[str, None] = {}
        for change in changes:
            if change.table not in self.tables:
                continue
            if change.row is None:
                if change.table not in self._whole:
                    return Stale(is_all=True)
                tags.update(dict.fromkeys(self._whole[change.table]))
                continue
            try:
                keys.update(dict.fromkeys(_made(self._keys.get(change.table, ()), change.row)))
                tags.update(dict.fromkeys(check_tags(_made(self._tags.get(change.table, ()), change.row))))
            except Exception as error:
                _log.error(  # its traceback may show values
                    "no keys can be made of a row of %r (%s): the cache is emptied", change.table, type(error).__name__
                )
                return Stale(is_all=True)
        return Stale(tuple(keys), tuple(tags))


def _made(makers: Iterable[Template | Callable[[Row], Iterable[Any]]], row: Row) -> list[Any]:
    made: list[Any] = []
    for maker in makers:
        if isinstance(maker, Template):
            made.append(maker.render([row[name] for name in maker.fields]))
            continue
        several = maker(row)
        if isinstance(several, (str, bytes)):
            raise CacheError("a callable of keys= or tags= returns several, in a list")
        made.extend(several)
    for key in made:
        check_hashable(key)
    return made


def _compiled(table: str, maker: Maker) -> tuple[Template | Callable[[Row], Iterable[Any]], ...]:
    if callable(maker):
        return (maker,)
    texts = (maker,) if isinstance(maker, str) else maker
    if (
        isinstance(texts, (str, bytes))
        or not isinstance(texts, Sequence)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise ConfigurationError(
            f'for {table!r} there must be a template such as "user:{{id}}", a list of them, or a callable, got {maker!r}'
        )
    made = tuple(Template(text) for text in texts)
    for template in made:
        for name in template.fields:
            if not name or "." in name:
                raise ConfigurationError(f"the template {template.text!r} of {table!r} must name columns, got {name!r}")
    return made
