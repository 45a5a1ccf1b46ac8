"""Annotations: which type a loader's result has, and whether it can be decoded."""

from __future__ import annotations

import collections.abc
import functools
import importlib
import inspect
import operator
import types
import typing
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    Never,
    NoReturn,
    TypeVar,
    Union,
)  # Any: annotations are any objects

from ..errors import ConfigurationError
from ..sentinel import MISSING
from ..source import Loaded

_SAY_NOTHING: tuple[Any, ...] = (MISSING, Any, object, inspect.Parameter.empty, Loaded, Never, NoReturn)
_PLAIN = (dict, list, str, int, float, bytes, bool, type(None))
_ADVICE = "annotate the loader with a dataclass, a TypedDict or a msgspec.Struct, pass such a type=, or Codec(Pickle(secret=...))"


def value_type(annotation: Any) -> Any:
    """Return the type of the value that an annotated loader gives, `MISSING` if it says nothing that can be used.

    `Loaded[User]` and `Awaitable[User]` stand for `User`. What was not resolved, such as the name of a class, says nothing.
    """
    if annotation is None:
        return type(None)
    if any(annotation is word for word in _SAY_NOTHING) or isinstance(annotation, (str, ForwardRef, TypeVar)):
        return MISSING
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Loaded or origin is collections.abc.Awaitable:
        return value_type(arguments[0])
    if origin is collections.abc.Coroutine:
        return value_type(arguments[2])
    if origin in (Union, types.UnionType):
        members = [value_type(each) for each in arguments]
        return MISSING if MISSING in members else functools.reduce(operator.or_, members)
    return MISSING if _is_unresolved(annotation) else annotation


def _is_unresolved(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return False
    if origin is Annotated:
        return _is_unresolved(arguments[0])
    return isinstance(annotation, (str, ForwardRef)) or any(map(_is_unresolved, arguments))


def name_of(annotation: Any) -> str:
    """Return a name that is the same in every process and version of Python."""
    if annotation is MISSING:
        return ""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return name_of(arguments[0])
    if origin is Literal:
        return f"Literal{list(arguments)!r}"
    if origin in (Union, types.UnionType):
        return "|".join(sorted(map(name_of, arguments)))
    if origin is not None:
        return f"{name_of(origin)}[{','.join(map(name_of, arguments))}]"
    if isinstance(annotation, type):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return repr(annotation)


def check_decodable(annotation: Any) -> None:
    """Raise `ConfigurationError` if msgspec does not know how to make what is annotated."""
    inspection = importlib.import_module("msgspec.inspect")
    try:
        nodes: list[Any] = [inspection.type_info(annotation)]
    except Exception as error:  # it resolves the annotations of the user's classes, which may raise anything
        raise ConfigurationError(
            f"no value of type {name_of(annotation)} can be decoded: {error}; {_ADVICE}"
        ) from error
    seen: dict[int, Any] = {}  # classes may contain themselves
    while nodes:
        node = nodes.pop()
        if isinstance(node, tuple):
            nodes.extend(node)
        elif isinstance(node, inspection.CustomType):
            _check_custom(node.cls, annotation)
        elif isinstance(node, (inspection.Type, inspection.Field)) and id(node) not in seen:
            seen[id(node)] = node
            nodes.extend(getattr(node, name) for name in node.__struct_fields__ if not name.startswith("default"))


def _check_custom(kind: type, annotation: Any) -> None:
    """Accept what plain data is an instance of, such as object and Iterable; msgspec checks no more than that."""
    try:
        if any(issubclass(plain, kind) for plain in _PLAIN):
            return
    except TypeError:  # a protocol that is for type checkers only
        pass
    of = "" if kind is annotation else f" in {name_of(annotation)}"
    raise ConfigurationError(f"no value of type {name_of(kind)}{of} can be decoded; {_ADVICE}")
