"""A cache for web services and jobs: load once however many ask, never hand out what was invalidated."""

from .aio import AsyncCache
from .cache import Cache, cached
from .codec import Codec, Pickle
from .decorate import AsyncCachedFunction, CachedFunction
from .errors import (
    CacheClosed,
    CacheError,
    ConfigurationError,
    DeadlockError,
    FeedError,
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
from .feeds.followed import FollowerStatus
from .feeds.follower import Follower
from .fetched import Fetched
from .flights import Flights
from .journal.base import DeadLetter, JournalStatus
from .journal.keys import record_key
from .journal.urls import attach_journal
from .memory.implementation import implementation
from .policy import Policy
from .repository import AsyncRepository, Repository
from .runtime.deliverer import DrainReport
from .sentinel import DELETED, MISSING
from .sharing import Health
from .source import AsyncSource, Change, Loaded, Source, WriteBatch
from .stats import CacheInfo, Stats, Status
from .strategies import CacheAside, NoCache, WriteBehind, WriteThrough
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
    "DeadLetter",
    "DeadlockError",
    "DrainReport",
    "Event",
    "EventKind",
    "FeedError",
    "FenceLost",
    "Fetched",
    "Flights",
    "Follower",
    "FollowerStatus",
    "Health",
    "JournalError",
    "JournalFull",
    "JournalInUse",
    "JournalStatus",
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
    "WriteBehind",
    "WriteFence",
    "WriteThrough",
    "attach_journal",
    "cached",
    "implementation",
    "record_key",
]
