"""A cache for web services and jobs: load once however many ask, never hand out what was invalidated."""

from .aio import AsyncCache
from .cache import Cache, cached
from .codec import Codec, Pickle
from .decorate import AsyncCachedFunction, CachedFunction
from .engine import Fetched
from .errors import (
    CacheClosed,
    CacheError,
    ConfigurationError,
    DeadlockError,
    FenceLost,
    JournalError,
    JournalFull,
    JournalInUse,
    LoadTimeout,
    NotFound,
    TierError,
    UsageError,
)
from .events import Event, EventKind
from .flights import Flights
from .policy import Policy
from .repository import AsyncRepository, CacheAside, NoCache, Repository, WriteThrough
from .sentinel import DELETED, MISSING
from .sharing import Health
from .source import AsyncSource, Change, Loaded, Source, WriteBatch
from .stats import CacheInfo, Stats, Status
from .writing import AsyncWriteFence, WriteFence

__version__ = "0.1.0"

__all__ = [
    "DELETED",
    "MISSING",
    "AsyncCache",
    "AsyncCachedFunction",
    "AsyncRepository",
    "AsyncSource",
    "AsyncWriteFence",
    "Cache",
    "CacheAside",
    "CacheClosed",
    "CacheError",
    "CacheInfo",
    "CachedFunction",
    "Change",
    "Codec",
    "ConfigurationError",
    "DeadlockError",
    "Event",
    "EventKind",
    "FenceLost",
    "Fetched",
    "Flights",
    "Health",
    "JournalError",
    "JournalFull",
    "JournalInUse",
    "LoadTimeout",
    "Loaded",
    "NoCache",
    "NotFound",
    "Pickle",
    "Policy",
    "Repository",
    "Source",
    "Stats",
    "Status",
    "TierError",
    "UsageError",
    "WriteBatch",
    "WriteFence",
    "WriteThrough",
    "cached",
]
