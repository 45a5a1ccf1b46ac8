"""A journal on Redis or Valkey, for many processes on many machines."""

from .journal import RedisJournal

__all__ = ["RedisJournal"]
