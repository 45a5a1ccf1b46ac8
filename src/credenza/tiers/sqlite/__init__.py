"""A shared tier in one SQLite file, for the processes of one machine: no server, nothing to install."""

from .tier import SqliteTier

__all__ = ["SqliteTier"]
