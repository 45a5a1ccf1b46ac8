"""The one marker for absence."""

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
