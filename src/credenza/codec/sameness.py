"""Whether a decoded value is what was encoded."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any  # Any: values of any type

_SCALARS = {str, int, float, bool, bytes, type(None)}
"""Types of which equal values are the same; equal lists of them are too, which is found without a loop in Python."""


def difference(value: Any, decoded: Any) -> str | None:
    """Say how a value differs from what it was decoded to, None if it is the same: of equal content and equal types.

    An int may come back as an equal float, as where a function that returns a float returns 0. Containers are compared
    item by item, objects by their fields, dates by their offset from UTC too.
    """
    kind, other = type(value), type(decoded)
    if kind is not other:
        if kind is int and other is float and value == decoded:
            return None
        return f"{kind.__qualname__} would come back as {other.__qualname__}"
    if kind in _SCALARS and value == decoded:
        return None
    if isinstance(value, dict):
        return _of_sequences(list(value), list(decoded), kind) or _of_sequences(
            list(value.values()), list(decoded.values()), kind
        )
    if isinstance(value, (list, tuple)):
        return _of_sequences(value, decoded, kind)
    if isinstance(value, (set, frozenset)):
        return _of_sets(value, decoded, kind)
    names = _field_names(value)
    if names is not None:
        return _of_fields(value, decoded, names)
    if value != decoded:
        is_no_number = value != value and decoded != decoded  # noqa: PLR0124  # NaN alone differs from itself
        return None if is_no_number else _otherwise(kind)
    if isinstance(value, (datetime.datetime, datetime.time)) and value.utcoffset() != decoded.utcoffset():
        return f"{kind.__qualname__} would come back in another time zone; convert it with astimezone(UTC)"
    return None


def _otherwise(kind: type) -> str:
    return f"{kind.__qualname__} would come back with another value"


def _of_sequences(value: Sequence[Any], decoded: Sequence[Any], kind: type) -> str | None:
    if len(value) != len(decoded):
        return _otherwise(kind)
    kinds = list(map(type, value))
    if _SCALARS.issuperset(kinds) and kinds == list(map(type, decoded)) and list(value) == list(decoded):
        return None
    return _first(map(difference, value, decoded))


def _of_sets(value: AbstractSet[Any], decoded: AbstractSet[Any], kind: type) -> str | None:
    if value != decoded:
        return _otherwise(kind)
    twins = {item: item for item in decoded}
    return _first(difference(item, twins[item]) for item in value)


def _of_fields(value: Any, decoded: Any, names: Iterable[str]) -> str | None:
    missing = object()
    return _first(difference(getattr(value, name, missing), getattr(decoded, name, missing)) for name in names)


def _first(differences: Iterable[str | None]) -> str | None:
    return next((each for each in differences if each is not None), None)


def _field_names(value: Any) -> Iterable[str] | None:
    """Return the names of an object's fields; None if it has none that are declared."""
    kind = type(value)
    if hasattr(kind, "__struct_fields__"):
        names: tuple[str, ...] = kind.__struct_fields__
        return names
    if hasattr(kind, "__dataclass_fields__"):
        return [field.name for field in dataclasses.fields(value)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return None
