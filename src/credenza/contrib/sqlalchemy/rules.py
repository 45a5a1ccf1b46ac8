"""What the rows of a mapped class make stale."""

from __future__ import annotations

import string
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any  # Any: rows of whatever class the user has mapped

from sqlalchemy import Table, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from credenza import ConfigurationError, UsageError, cached

Made = Hashable | Iterable[Hashable] | None
Names = str | Callable[[Any], Made] | Sequence[str | Callable[[Any], Made]]
"""Templates over the columns of a row, such as "user:{id}", and callables of the row that return keys or tags."""

_Make = Callable[[Any], Iterable[Hashable]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a row of one mapped class makes stale.

    Attributes:
        entity: the class; rows of its subclasses count.
        keys, tags: what makes them of a row.
        columns: the attributes that they are made of; None if callables may look at any.
    """

    entity: type
    keys: tuple[_Make, ...]
    tags: tuple[_Make, ...]
    columns: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class RowRules:
    """The rules for the rows of one mapper.

    Attributes:
        compared: the columns whose old values count.
        fetched: those among them that are asked for where nobody has loaded them; a deferred one only if it is named.
    """

    rules: tuple[Rule, ...]
    compared: tuple[str, ...]
    fetched: tuple[str, ...]

    def stale(self, row: Any) -> tuple[list[Hashable], list[Hashable]]:
        """Return the keys and tags that a row makes stale."""
        keys = [key for rule in self.rules for make in rule.keys for key in make(row)]
        return keys, [tag for rule in self.rules for make in rule.tags for tag in make(row)]


@dataclass(frozen=True, slots=True)
class TableRule:
    """What a statement makes stale that writes rows of one table, nobody knows which.

    Attributes:
        label: names the class or table in messages.
        tags: empty if there is nothing that covers all rows.
    """

    label: str
    tags: tuple[str, ...]


class Rules:
    """What is watched, checked once.

    Args:
        keys, tags: see `watch`.
        bulk: see `watch`.

    Raises:
        ConfigurationError: one of them names what is no mapped class, or a column that it does not have.
    """

    def __init__(
        self,
        keys: Mapping[type, Names],
        tags: Mapping[type | Table, Names],
        bulk: Mapping[type | Table, str | Sequence[str]],
    ) -> None:
        if not keys and not tags:
            raise ConfigurationError('nothing is watched; say what becomes stale, as in keys={User: "user:{id}"}')
        for entity in keys:
            if isinstance(entity, Table):
                raise ConfigurationError(
                    f"keys= is by mapped class, got the table {entity.name!r}, whose rows no session sees; use tags="
                )
        self.rules = [
            _rule(entity, keys.get(entity, ()), tags.get(entity, ()))
            for entity in dict.fromkeys([*keys, *tags])
            if not isinstance(entity, Table)
        ]
        self._of_mapper: dict[Mapper[Any], RowRules] = {}
        self._tables: dict[str, TableRule] = {}
        for watched in dict.fromkeys([*keys, *tags, *bulk]):
            plain = _plain(tags.get(watched, ()))
            covering = _plain(bulk.get(watched, ()))
            is_all = len(covering) == len(_listed(bulk.get(watched, ())))
            if not is_all or (isinstance(watched, Table) and len(plain) < len(_listed(tags.get(watched, ())))):
                raise ConfigurationError(
                    f"tags for statements on {_label(watched)} must be plain names, as no row is there for fields"
                )
            self._add_tables(watched, plain + covering)

    def _add_tables(self, entity: type | Table, tags: list[str]) -> None:
        if isinstance(entity, Table):
            names = [entity.fullname]
        else:
            names = [table.fullname for table in mapper_of(entity).tables if isinstance(table, Table)]
        for name in names:
            known = self._tables.get(name, TableRule(_label(entity), ()))
            self._tables[name] = TableRule(known.label, tuple(dict.fromkeys([*known.tags, *tags])))

    def of_table(self, name: str) -> TableRule | None:
        """Return what is to become stale with a table, None if nobody watches it."""
        return self._tables.get(name)

    def of_mapper(self, mapper: Mapper[Any]) -> RowRules:
        """Return the rules for the rows of a mapper, those for its base classes included."""
        known = self._of_mapper.get(mapper)
        if known is None:
            found = tuple(rule for rule in self.rules if issubclass(mapper.class_, rule.entity))
            named = {name for rule in found for name in rule.columns or ()}
            sees_all = any(rule.columns is None for rule in found)
            compared = tuple(each.key for each in mapper.column_attrs if sees_all or each.key in named)
            fetched = tuple(name for name in compared if name in named or not mapper.column_attrs[name].deferred)
            known = self._of_mapper[mapper] = RowRules(found, compared, fetched)
        return known


def _label(entity: type | Table) -> str:
    return entity.name if isinstance(entity, Table) else entity.__name__


def mapper_of(entity: type) -> Mapper[Any]:
    """Return the mapper of a class; raises `ConfigurationError` if it is not mapped."""
    found: object
    try:
        found = inspect(entity)
    except NoInspectionAvailable:
        found = None
    if not isinstance(found, Mapper):
        raise ConfigurationError(f"{entity!r} is no mapped class; watch knows what becomes stale by mapped class")
    return found


def _rule(entity: type, keys: Names, tags: Names) -> Rule:
    known = mapper_of(entity).column_attrs.keys()
    fields = [name for each in _listed(keys) + _listed(tags) if isinstance(each, str) for name in _fields(each)]
    for name in fields:
        if name not in known:
            raise ConfigurationError(
                f"a template for {entity.__name__} names {name!r}, which is no column of it; its columns are: "
                f"{', '.join(known)}; for more pass a callable of the row"
            )
    sees_all = any(callable(each) for each in _listed(keys) + _listed(tags))
    return Rule(
        entity,
        tuple(map(_maker, _listed(keys))),
        tuple(map(_maker, _listed(tags))),
        None if sees_all else frozenset(fields),
    )


def _listed(names: Any) -> list[Any]:
    return [names] if isinstance(names, str) or callable(names) else list(names)


def _plain(names: Any) -> list[str]:
    """Return the names that are the same for every row."""
    return [_template(each)() for each in _listed(names) if isinstance(each, str) and not _fields(each)]


def _maker(source: Any) -> _Make:
    """Return what makes the keys or tags of a row."""
    if isinstance(source, str):
        render, names = _template(source), _fields(source)
        return lambda row: (render(*[getattr(row, name) for name in names]),)
    if not callable(source):
        raise ConfigurationError(
            f'what a row makes stale is a template such as "user:{{id}}" or a callable, got {source!r}'
        )
    return lambda row: _several(source(row))


def _several(made: Any) -> Iterable[Hashable]:
    """Return what a callable has made as several; a lone text or number is one key."""
    if made is None:
        return ()
    if isinstance(made, (str, bytes, int)):
        return (made,)
    if isinstance(made, Iterable):
        return made
    raise UsageError(f"a callable of a row returns the keys or tags that become stale, got {made!r}")


def _fields(text: str) -> list[str]:
    """Return the attributes that a template names, each once."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigurationError(f"the template {text!r} is malformed: {error}") from error
    return list(dict.fromkeys(name.split(".")[0] for _, name, _, _ in parsed if name is not None))


def _template(text: str) -> Callable[..., Any]:  # Any: a key that is text
    """Return what renders a template as `@cached(key=...)` does: as the key of a function with those arguments."""

    def row(*_values: object) -> None:
        """Stand for the row."""

    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in _fields(text)]
    row.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it, typeshed does not say
    return cached(maxsize=1, key=text)(row).key_for
