"""Change feeds of SQLite files."""

from .feed import SqliteFeed
from .migration import install, migration, uninstall

__all__ = ["SqliteFeed", "install", "migration", "uninstall"]
