"""How a repository reads and writes: one frozen object says it all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .codec import Codec
from .durations import Duration, nanoseconds_of
from .errors import ConfigurationError
from .journal.base import Journal


@dataclass(frozen=True, slots=True)
class CacheAside:
    """Load on a miss; write to the source inside a fence, then invalidate. The default."""


@dataclass(frozen=True, slots=True)
class WriteThrough:
    """Load on a miss; write to the source inside a fence, then store the new value."""


@dataclass(frozen=True, slots=True)
class NoCache:
    """Ask the source every time."""


@dataclass(frozen=True, slots=True)
class WriteBehind:
    """Keep writes in a journal, answer at once, and write them to the source in batches.

    A write that returned is in the journal, and reaches the source at least once, after the earlier ones of its key;
    several of one key become one. Reads see it meanwhile. The source needs `store_many` (idempotent) or `apply`.

    Args:
        journal: a path or `sqlite:///path` for a file of this process, a `redis://` URL for many processes, or a `Journal`.
        batch_size: the most writes that go to the source at once.
        max_delay: how long a write may wait for others to go with; longer delays mean fewer writes of hot keys.
        durability: "disk": a write that returned survives the machine's loss of power. "os": the process's death only;
            it waits for no disk. Redis is as durable as its server is configured.
        max_pending: the most records with a pending write.
        when_full: "block" until the source has taken some, at most for `block_timeout`; or "raise" `JournalFull` at once.
        block_timeout: how long a write to a full journal may take before it raises `JournalFull`; None for ever.
        max_failures: so often the source may refuse a write for reasons of the write's own; then it is a dead letter.
        backoff: how long to wait after a failure, doubling up to `max_backoff`.
        max_backoff: see there.
        close_timeout: how long `close` goes on writing to the source; what is left is done after the next start.
        is_away: tells whether an error of the source is about the source, not about what was written. None: what drivers
            raise for connections (`OSError`, PEP 249's `OperationalError` and `InterfaceError`). Such failures count for
            no write, and are retried for ever.
        codec: how values are kept in the journal; see `Codec`.

    Raises:
        ConfigurationError: an option is wrong.
    """

    journal: str | os.PathLike[str] | Journal
    batch_size: int = 500
    max_delay: Duration = 1.0
    durability: Literal["disk", "os"] = "disk"
    max_pending: int = 100_000
    when_full: Literal["block", "raise"] = "block"
    block_timeout: Duration | None = None
    max_failures: int = 10
    backoff: Duration = 0.1
    max_backoff: Duration = 30.0
    close_timeout: Duration = 10.0
    is_away: Callable[[Exception], bool] | None = None
    codec: Codec | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_pending", "max_failures"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{name} must be an int of at least 1, got {number!r}")
        for name in ("max_delay", "backoff", "max_backoff", "close_timeout", "block_timeout"):
            duration = getattr(self, name)
            if duration is not None and nanoseconds_of(duration, name=name) < 0:
                raise ConfigurationError(f"{name} must not be negative, got {duration!r}")
        if self.durability not in ("disk", "os"):
            raise ConfigurationError(f'durability must be "disk" or "os", got {self.durability!r}')
        if self.when_full not in ("block", "raise"):
            raise ConfigurationError(f'when_full must be "block" or "raise", got {self.when_full!r}')
        if self.block_timeout is not None and self.when_full == "raise":
            raise ConfigurationError('block_timeout contradicts when_full="raise"; leave one of them out')


Strategy = CacheAside | WriteThrough | WriteBehind | NoCache
