"""A journal in one SQLite file, for one process of one machine: no server, nothing to install."""

from .attached import AttachedJournal
from .journal import SqliteJournal

__all__ = ["AttachedJournal", "SqliteJournal"]
