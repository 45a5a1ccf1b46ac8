"""Type variables with defaults, so that a bare `Cache()` takes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    K = TypeVar("K", default=Any)  # Any: a bare Cache() takes keys and values of every type
    V = TypeVar("V", default=Any)
else:  # type variables have no defaults before Python 3.13, and the core has no dependencies
    from typing import TypeVar

    K = TypeVar("K")
    V = TypeVar("V")
