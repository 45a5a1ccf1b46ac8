"""Names of records: keys and tags as bytes, and back.

A name is `<namespace>:<key>` for a record and `<namespace>#<tag>` for a tag. A key is written so that it can be read by
people and by nobody in two ways:

    text        as it is, in UTF-8; with "~s" before it if it begins with "~"
    others      "~" and an item

    item        "N", "T", "F"                       None, True, False
                "i42"                               an int
                "s4:text", "b4:data"                str and bytes with their length in bytes
                "(item,item)"                       a tuple
                "f9:app.users" item                 a key of a function: the name of its scope, then its slot
                "t7:app.Hue"                        a type, within the slot of a function with typed=True

A name has one reading: what does not come out as it went in is no name of ours.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

from ..errors import ConfigurationError, UsageError
from ..memory.implementation import gets
from ..sentinel import MISSING, MissingType
from ..tiers.base import Get

_MOST_LEVELS: Final = 32
"""How deep tuples may be nested: a name is read by recursion, whoever made it."""

_WORDS: Final = {None: b"N", True: b"T", False: b"F"}
_VALUES: Final = {78: None, 84: True, 70: False}
_INT = re.compile(rb"0|-?[1-9][0-9]*").match
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,8}):").match
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+").fullmatch


class Scope(Protocol):
    """The keys of one function: those are `(scope, slot)`."""

    @property
    def name(self) -> str: ...


class NoName(Exception):
    """The bytes are none of our names."""


class Names:
    """Translates keys and tags of one namespace. Thread-safe.

    Args:
        namespace: keeps the records of several caches apart within one tier.

    Attributes:
        scopes: the functions whose keys may be named, by name. A function that is not in here has no names.

    Raises:
        ConfigurationError: the namespace has characters other than letters, digits, "_", "." and "-".
    """

    def __init__(self, namespace: str) -> None:
        if not isinstance(namespace, str) or not _NAMESPACE(namespace):
            raise ConfigurationError(
                f'namespace must be made of ASCII letters, digits, "_", "." and "-", got {namespace!r}; '
                'a name such as "shop" keeps several caches apart'
            )
        self.namespace = namespace
        self.scopes: dict[str, Scope] = {}
        self._types: dict[str, type] = {}
        self._text_prefix = f"{namespace}:"
        self._prefix = self._text_prefix.encode()
        self._tag_prefix = f"{namespace}#".encode()

    def record(self, key: Hashable) -> bytes:
        """Return the name of the record of `key`.

        Members of subclasses of str and int, such as StrEnum, have the name of their plain value.

        Raises:
            UsageError: the key is of a type that processes cannot agree upon.
        """
        if type(key) is str and key[:1] != "~":
            try:
                return (self._text_prefix + key).encode()
            except UnicodeEncodeError:
                return self._prefix + key.encode("utf-8", "surrogatepass")
        return self._prefix + self._other(key)

    def gets(self, keys: Sequence[Hashable]) -> list[Get]:
        """Return what looks the records of `keys` up; see `record`."""
        return gets(self._text_prefix, keys, self.record)

    def tag(self, tag: str) -> bytes:
        """Return the name of the record of a tag."""
        return self._tag_prefix + str.encode(tag, "utf-8", "surrogatepass")

    def key(self, name: bytes) -> Hashable | MissingType:
        """Return the key whose record has this name.

        Returns:
            The key; equal to the one that was named, with subclasses of str, int and tuple as their plain value.
            `MISSING` if no key of this process can have that name.
        """
        if not name.startswith(self._prefix):
            return MISSING
        text = name[len(self._prefix) :]
        try:
            key = self._read(text) if text[:1] == b"~" else text.decode("utf-8", "surrogatepass")
            return key if self.record(key) == name else MISSING
        except (NoName, UsageError, ValueError):  # a ValueError: text that is not UTF-8, an int of too many digits
            return MISSING

    def tag_of(self, name: bytes) -> str | MissingType:
        """Return the tag whose record has this name, `MISSING` if it is none of ours."""
        if not name.startswith(self._tag_prefix):
            return MISSING
        try:
            return name[len(self._tag_prefix) :].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return MISSING

    # Writing ----------------------------------------------------------------------------------------------------------

    def _other(self, key: Any) -> bytes:  # Any: is checked here
        """Return what follows the namespace in the name of a key that is no plain text."""
        kind = type(key)
        if issubclass(kind, str):
            _check_plain(kind, str)
            text = str.encode(key, "utf-8", "surrogatepass")
            return b"~s" + text if text[:1] == b"~" else text
        if kind is tuple and len(key) == 2 and self._is_scope(key[0]):
            scope = str.encode(key[0].name, "utf-8", "surrogatepass")
            return b"~f%d:%b%b" % (len(scope), scope, self._item(key[1], 1, may_have_types=True))
        return b"~" + self._item(key, 0, may_have_types=False)

    def _is_scope(self, part: object) -> bool:
        name = getattr(part, "name", None)
        return isinstance(name, str) and self.scopes.get(name) is part

    def _item(self, part: Any, level: int, *, may_have_types: bool) -> bytes:  # Any: is checked here
        if part is None or part is True or part is False:
            return _WORDS[part]
        kind = type(part)  # isinstance() would believe an object that only says that it is a str
        if issubclass(kind, str):
            _check_plain(kind, str)
            text = str.encode(part, "utf-8", "surrogatepass")
            return b"s%d:%b" % (len(text), text)
        if issubclass(kind, int):
            _check_plain(kind, int)
            return _int_item(part)
        if kind is bytes:
            return b"b%d:%b" % (len(part), part)
        if issubclass(kind, tuple):
            _check_plain(kind, tuple)
            if level > _MOST_LEVELS:
                raise UsageError(f"a key for a shared tier has at most {_MOST_LEVELS} levels of tuples; flatten it")
            inner = [self._item(each, level + 1, may_have_types=may_have_types) for each in tuple.__iter__(part)]
            return b"(%b)" % b",".join(inner)
        if may_have_types and issubclass(kind, type):
            name = self._name_type(part).encode("utf-8", "surrogatepass")
            return b"t%d:%b" % (len(name), name)
        raise UsageError(
            f"a key for a shared tier is a str, an int, bytes, a bool, None or a tuple of them, got a "
            f"{type(part).__qualname__}; pass key= with a template such as 'user:{{user.id}}', or a callable of the arguments"
        )

    def _name_type(self, kind: type) -> str:
        """Return a type's name, having taken care that `key` finds this very type by it."""
        name = f"{kind.__module__}.{kind.__qualname__}"
        if self._types.setdefault(name, kind) is not kind:
            raise UsageError(
                f"two types of arguments are called {name}; pass key= instead of typed=True to tell them apart"
            )
        return name

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read(self, text: bytes) -> Hashable:
        """Return a key that may have this name; the caller names it again and compares."""
        if text[:2] == b"~s":
            return text[2:].decode("utf-8", "surrogatepass")
        if text[:2] != b"~f":
            return self._read_item(text, 1, 0)[0]
        name, end = _sized(text, 2)
        scope = self.scopes.get(name.decode("utf-8", "surrogatepass"))
        if scope is None:
            raise NoName
        return (scope, self._read_item(text, end, 0)[0])

    def _read_item(self, text: bytes, start: int, level: int) -> tuple[Hashable, int]:
        """Return the item at `start`, and where it ends."""
        sign = text[start : start + 1]
        if sign in (b"N", b"T", b"F") and sign:
            return _VALUES[sign[0]], start + 1
        if sign == b"i":
            digits = _INT(text, start + 1)
            if digits is None:
                raise NoName
            return int(digits[0]), digits.end()
        if sign == b"(" and level <= _MOST_LEVELS:
            return self._read_tuple(text, start + 1, level)
        if sign in (b"s", b"b", b"t") and sign:
            data, end = _sized(text, start + 1)
            if sign == b"b":
                return data, end
            name = data.decode("utf-8", "surrogatepass")
            if sign == b"s":
                return name, end
            kind = self._types.get(name)
            if kind is not None:
                return kind, end
        raise NoName

    def _read_tuple(self, text: bytes, start: int, level: int) -> tuple[Hashable, int]:
        items: list[Hashable] = []
        if text[start : start + 1] == b")":
            return (), start + 1
        while True:
            item, start = self._read_item(text, start, level + 1)
            items.append(item)
            sign = text[start : start + 1]
            start += 1
            if sign == b")":
                return tuple(items), start
            if sign != b",":
                raise NoName


def _sized(text: bytes, start: int) -> tuple[bytes, int]:
    """Return the bytes after a length, and where they end."""
    length = _LENGTH(text, start)
    if length is None:
        raise NoName
    end = length.end() + int(length[1])
    return text[length.end() : end], end


def _int_item(number: int) -> bytes:
    try:
        return b"i%b" % int.__repr__(number).encode()
    except ValueError:
        raise UsageError("an int in a key for a shared tier has more digits than Python writes; shorten it") from None


def _check_plain(own: type, kind: type) -> None:
    """Refuse a subclass whose members differ from their plain value: a key that is read back would not find them."""
    if own is kind:
        return
    above = own.__mro__[: own.__mro__.index(kind)]
    if any(method in vars(base) for base in above for method in ("__eq__", "__hash__")):
        raise UsageError(
            f"a key of type {own.__qualname__} compares otherwise than the {kind.__name__} that it is; "
            f"pass the plain {kind.__name__}"
        )
