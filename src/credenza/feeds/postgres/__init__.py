"""Change feeds of PostgreSQL."""

from .feed import PostgresFeed
from .logical import LogicalFeed
from .migration import install, migration, removal, uninstall

__all__ = ["LogicalFeed", "PostgresFeed", "install", "migration", "removal", "uninstall"]
