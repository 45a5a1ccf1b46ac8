"""Columns as Python values: those that psycopg would have given the application."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .links import psycopg_module

# These are the same in JSON: booleans, integers, texts, JSON itself.
_AS_THEY_ARE: Final = frozenset({16, 20, 21, 23, 25, 26, 18, 19, 1042, 1043, 114, 3802})
_TIMES: Final = frozenset({1114, 1184})


class Reader:
    """Turns logged columns into values of the types that psycopg gives. For one thread."""

    def __init__(self) -> None:
        psycopg = psycopg_module()
        self._transformer = psycopg.adapt.Transformer()
        self._format = psycopg.pq.Format.TEXT

    def from_text(self, text: bytes, kind: int) -> Any:  # Any: a value of the column's type
        """Return the value that the server writes as `text`; `kind` is the type's number."""
        return self._transformer.get_loader(kind, self._format).load(text)

    def from_json(self, text: str, kinds: Mapping[str, int]) -> dict[str, Any]:  # Any: as above
        """Return a row that was logged as JSON."""
        row: dict[str, Any] = json.loads(text, parse_float=str)
        return {name: self._restored(value, kinds.get(name, 25)) for name, value in row.items()}

    def _restored(self, value: Any, kind: int) -> Any:
        if value is None or kind in _AS_THEY_ARE or not isinstance(value, (str, int)):
            return value
        text = str(value)
        return self.from_text((text.replace("T", " ") if kind in _TIMES else text).encode(), kind)
