"""The markers: nothing is there, and something is to go."""

from __future__ import annotations

import enum
from typing import Final, Literal


class Missing(enum.Enum):
    """The type of `MISSING`; an enum member, so that type checkers can narrow it."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""Nothing is there. `None` is a value like any other and never means this."""

MissingType = Literal[Missing.MISSING]


class Deleted(enum.Enum):
    """The type of `DELETED`."""

    DELETED = "DELETED"

    def __repr__(self) -> str:
        return "DELETED"


DELETED: Final = Deleted.DELETED
"""In place of a value that is written: the record is to be deleted."""

DeletedType = Literal[Deleted.DELETED]
