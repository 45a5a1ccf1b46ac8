"""Credenza beside SQLAlchemy 2: tables and mapped classes as sources, and sessions whose commits invalidate."""

from importlib import import_module

try:
    import_module("sqlalchemy")
except ImportError as error:
    raise ImportError("credenza.contrib.sqlalchemy needs SQLAlchemy 2; pip install 'credenza[sqlalchemy]'") from error

from .applied import applied_table
from .async_source import AsyncTableSource
from .source import TableSource
from .watch import Watch, watch

__all__ = ["AsyncTableSource", "TableSource", "Watch", "applied_table", "watch"]
