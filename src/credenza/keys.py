"""Keys: from the arguments of a call, or from a template."""

from __future__ import annotations

import datetime
import decimal
import enum
import inspect
import re
import string
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar  # Any: arguments of calls, whatever they are

from .errors import ConfigurationError, UsageError

K = TypeVar("K")

_WORDS_THAT_ARE_VALUES = frozenset({"True", "False", "None"})
_PUNCTUATION_OF_PLAIN_TEXT = ".@+-"
_WRITTEN_BY_STR = (uuid.UUID, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)


def check_hashable(key: object, *, what: str = "key") -> None:
    """Raise `UsageError` if `key` cannot be hashed; an error out of a `__hash__` of the user's own passes."""
    try:
        hash(key)
    except TypeError as error:
        raise UsageError(
            f"a {what} must be hashable, got {key!r} ({error}); use a str, an int or a tuple, or pass a template or a "
            "callable as key="
        ) from error


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags as a tuple; a lone str is refused, as it would be taken for its letters."""
    if isinstance(tags, str):
        raise UsageError(f"tags is a collection of tags, got the str {tags!r}; write tags=[{tags!r}]")
    try:
        listed = tuple(tags)
    except TypeError:
        raise UsageError(f"tags is a collection of tags, got {tags!r}; write tags=[...], or leave it out") from None
    for tag in listed:
        if not isinstance(tag, str):
            raise UsageError(f"a tag is a str, got {tag!r}; write it as one, such as 'user:42'")
    return tuple(dict.fromkeys(listed))


def unique_keys(keys: Iterable[K]) -> list[K]:
    """Return each key once, in order; raises `UsageError` for one that is not hashable."""
    listed = list(keys)
    try:
        return list(dict.fromkeys(listed))
    except TypeError:
        for key in listed:
            check_hashable(key)
        raise


class Template:
    """A key pattern such as "user:{user_id}", whose rendering is injective: no argument can forge another key.

    Integers and plain text appear as they are (`user:42`, `user:ann`); what could be taken for something else is quoted
    (`user:'42'` for the text, `'a:b'`). A field is a name, or a name and attributes (`{user.id}`).

    Args:
        text: the pattern; braces are doubled to stand for themselves.

    Raises:
        ConfigurationError: a format specification, an index, or two fields that nothing separates.
    """

    __slots__ = ("_literals", "_plain", "fields", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: list[str] = []
        self._literals: list[str] = [""]
        self._parse()
        free = "".join(sign for sign in _PUNCTUATION_OF_PLAIN_TEXT if sign not in "".join(self._literals))
        self._plain = re.compile(rf"[^\W\d][\w{re.escape(free)}]*").fullmatch
        self._check_separators()

    def _parse(self) -> None:
        try:
            pieces = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ConfigurationError(f"the key template {self.text!r} is malformed: {error}") from error
        for literal, name, spec, conversion in pieces:
            self._literals[-1] += literal
            if name is None:
                continue
            if spec or conversion or "[" in name:
                raise ConfigurationError(
                    f"the key template {self.text!r} may name arguments and their attributes only, as in "
                    f'"user:{{user.id}}"; for more pass a callable as key='
                )
            self.fields.append(name)
            self._literals.append("")

    def _check_separators(self) -> None:
        for literal in self._literals[1:-1]:
            if not re.search(r"[^\w']", literal):
                raise ConfigurationError(
                    f"two fields of the key template {self.text!r} are not kept apart, so different arguments could make "
                    "one key; put a separator such as ':' between them"
                )

    def render(self, values: Sequence[object]) -> str:
        """Return the key for one value per field, in the order of `fields`.

        Raises:
            UsageError: a value of a type that has no injective text.
        """
        text = self._literals[0]
        for value, literal in zip(values, self._literals[1:], strict=True):
            text += (int.__repr__(value) if type(value) is int else self._render_value(value)) + literal
        return text

    def _render_value(self, value: object) -> str:
        if isinstance(value, enum.Enum):
            member = value.name if value.name is not None else repr(value.value)  # flags without a name have a value
            return f"{type(value).__module__}.{type(value).__qualname__}({member})"
        if value is None or isinstance(value, bool):
            return repr(value)
        if isinstance(value, int):
            return int.__repr__(value)
        if isinstance(value, str):
            text = str.__str__(value)  # of a subclass its text, whatever it says of itself
            return text if self._plain(text) and text not in _WORDS_THAT_ARE_VALUES else _quoted(text)
        if isinstance(value, bytes):
            return bytes.__repr__(value)
        if isinstance(value, (tuple, list)):
            opening, closing = "()" if isinstance(value, tuple) else "[]"
            return opening + ",".join(map(self._render_value, value)) + closing
        if isinstance(value, float):
            return f"float({float.__repr__(value)})"
        if isinstance(value, _WRITTEN_BY_STR):
            return f"{type(value).__name__}({value})"
        raise UsageError(
            f"the key template {self.text!r} cannot show {value!r} of type {type(value).__qualname__}; name an attribute "
            'of it, as in "user:{user.id}", or pass a callable as key='
        )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Binder:
    """Turns the arguments of a call into one tuple, the same however they were passed.

    `f(1)`, `f(user_id=1)` and, with the default 1, `f()` give the same tuple.
    """

    __slots__ = ("_defaults", "_least", "_signature", "has_only_positional", "names", "parameters")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        parameters = self.parameters = tuple(self._signature.parameters.values())
        self.names = tuple(parameter.name for parameter in parameters)
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.has_only_positional = all(parameter.kind in positional for parameter in parameters)
        self._defaults = tuple(p.default for p in parameters if p.default is not inspect.Parameter.empty)
        self._least = len(parameters) - len(self._defaults)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of all parameters in their order; raises `TypeError` as the call itself would."""
        if self.has_only_positional and not kwargs and self._least <= len(args) <= len(self.names):
            return args + self._defaults[len(args) - self._least :]
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(
            tuple(sorted(value.items())) if isinstance(value, dict) and self._collects_keywords(name) else value
            for name, value in bound.arguments.items()
        )

    def positional(self, bound: tuple[Any, ...]) -> list[Any]:
        """Return the arguments of a bound tuple that are passed by position."""
        values: list[Any] = []
        for parameter, value in zip(self.parameters, bound, strict=True):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                values.extend(value)
            elif parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
                values.append(value)
        return values

    def keywords(self, bound: tuple[Any, ...]) -> dict[str, Any]:
        """Return those that are passed by name."""
        values: dict[str, Any] = {}
        for parameter, value in zip(self.parameters, bound, strict=True):
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                values.update(value)
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                values[parameter.name] = value
        return values

    def types_of(self, bound: tuple[Any, ...]) -> tuple[type, ...]:
        """Return the types of all arguments, those in `*args` and `**kwargs` one by one."""
        types: list[type] = []
        for parameter, value in zip(self.parameters, bound, strict=True):
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                types.extend(map(type, value))
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                types.extend(type(item) for _, item in value)
            else:
                types.append(type(value))
        return tuple(types)

    def _collects_keywords(self, name: str) -> bool:
        return self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD

    def values_of(self, template: Template) -> Callable[[tuple[Any, ...]], list[Any]]:
        """Return what picks the values of the template's fields from a bound tuple.

        Raises:
            ConfigurationError: the template names an argument that the function does not have.
        """
        paths = []
        for field in template.fields:
            name, *attributes = field.split(".")
            if name not in self.names:
                known = ", ".join(self.names) or "none"
                raise ConfigurationError(
                    f"the template {template.text!r} names {field!r}, which is no argument of the function; "
                    f"its arguments are: {known}"
                )
            paths.append((self.names.index(name), attributes))
        return lambda bound: [_follow(bound[index], attributes) for index, attributes in paths]


def _follow(value: Any, attributes: Sequence[str]) -> Any:
    for attribute in attributes:
        value = getattr(value, attribute)
    return value


def has_attributes(text: str) -> bool:
    """Tell whether a template names attributes of arguments, so that equal arguments may make different keys."""
    return any("." in field for field in Template(text).fields)


class Token:
    """Stands for one instance; equal only to itself."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<a {self.name}>"


class Instances:
    """Stands in for the instances whose methods are cached, so that no key keeps one of them alive.

    Thread-safe. An instance is told by identity; a token is never used again for another one.

    Attributes:
        tokens: by the id of an instance, a weak reference to it and its token.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens: dict[int, tuple[weakref.ref[object], Token]] = {}

    def token_of(self, instance: object) -> Token:
        """Return the stand-in of `instance`.

        Raises:
            UsageError: the instance cannot be referenced weakly.
        """
        known = self.tokens.get(id(instance))
        if known is not None and known[0]() is instance:
            return known[1]
        number = id(instance)
        try:
            reference = weakref.ref(instance, lambda dead: self._forget(number, dead))
        except TypeError as error:
            raise UsageError(
                f"a cached method is keyed by its instance, held weakly, and {type(instance).__qualname__} forbids that; "
                'add "__weakref__" to its __slots__, or pass key= with a template that names what tells instances apart'
            ) from error
        record = (reference, Token(type(instance).__qualname__))
        while True:
            current = self.tokens.setdefault(number, record)
            if current[0]() is instance:
                return current[1]
            self.tokens.pop(number, None)  # of an instance that died at the same address

    def _forget(self, number: int, dead: weakref.ref[object]) -> None:
        known = self.tokens.get(number)
        if known is not None and known[0] is dead:
            del self.tokens[number]
