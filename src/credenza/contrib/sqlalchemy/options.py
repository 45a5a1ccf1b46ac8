"""What a source is told, besides its target and its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar  # Any: columns of every type

from sqlalchemy import Table

V = TypeVar("V")

Target = Table | type[Any]
Columns = dict[str, Any]
MakeValue = Callable[[Columns], V]
TakeColumns = Callable[[V], Mapping[str, Any]]
KeyNames = object | Sequence[object]
"""Names of columns or attributes, or these themselves."""

APPLIED = "credenza_applied"


class Common(TypedDict, total=False):
    """Options that go with values of every kind; see `TableSource`."""

    key: KeyNames | None
    exactly_once: bool
    applied: str


@dataclass(frozen=True, slots=True)
class Options:
    """All of them; see `TableSource`."""

    value: type | None
    row: MakeValue[Any] | None
    columns: TakeColumns[Any] | None
    key: KeyNames | None = None
    exactly_once: bool = False
    applied: str = APPLIED
