"""What database drivers raise when it is about the connection or the server, and not about what was asked of it."""

from __future__ import annotations

from typing import Final

_NAMES: Final = frozenset({"OperationalError", "InterfaceError"})
"""Of PEP 249: every driver has its own classes of these names, and SQLAlchemy wraps them in others."""


def is_about_connection(error: BaseException) -> bool:
    """Tell whether an error says that the database is away, or was lost, perhaps in the middle of a commit."""
    return isinstance(error, OSError) or any(kind.__name__ in _NAMES for kind in type(error).__mro__)
