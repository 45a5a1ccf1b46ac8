"""A cache for web services and jobs: load once however many ask, never hand out what was invalidated."""

from .aio import AsyncCache
from .cache import Cache, cached
from .decorate import AsyncCachedFunction, CachedFunction
from .engine import Fetched
from .errors import CacheClosed, CacheError, ConfigurationError, DeadlockError, LoadTimeout, NotFound, UsageError
from .events import Event, EventKind
from .flights import Flights
from .policy import Policy
from .repository import AsyncRepository, CacheAside, NoCache, Repository, WriteThrough
from .sentinel import MISSING
from .source import AsyncSource, Loaded, Source
from .stats import CacheInfo, Stats, Status

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "AsyncCache",
    "AsyncCachedFunction",
    "AsyncRepository",
    "AsyncSource",
    "Cache",
    "CacheAside",
    "CacheClosed",
    "CacheError",
    "CacheInfo",
    "CachedFunction",
    "ConfigurationError",
    "DeadlockError",
    "Event",
    "EventKind",
    "Fetched",
    "Flights",
    "LoadTimeout",
    "Loaded",
    "NoCache",
    "NotFound",
    "Policy",
    "Repository",
    "Source",
    "Stats",
    "Status",
    "UsageError",
    "WriteThrough",
    "cached",
]
