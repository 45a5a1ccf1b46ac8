"""What can be chosen when the demo is started, checked once."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import DemoError
from .population import Scale

StrategyName = Literal["cache-aside", "write-through", "write-behind", "no-cache"]

_SHARED_CACHES = {
    "sqlite": "SQLite file",
    "redis": "Redis",
    "rediss": "Redis",
    "unix": "Redis",
    "valkey": "Valkey",
    "redis+sentinel": "Redis behind Sentinel",
    "redis+cluster": "Redis Cluster",
}
_KNOWN = "sqlite:///path/to/file.db or postgresql+psycopg://user@host/name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the service runs.

    Attributes:
        database: where the people are.
        scale: how many there are.
        strategy: which of the library's strategies reads and writes them.
        ttl: how long a profile is kept; a duration as the library takes it.
        negative_ttl: how long an unknown user is remembered as such.
        maxsize: how many profiles are kept in the memory of each worker.
        connections: how many statements each worker may run at once.
        workers: how many processes serve.
        cache: the URL of the cache that they share, None if there is none.
        max_staleness: for how many seconds a worker may trust its memory without hearing from the shared cache; an edit
            waits that long before it commits.
        follow: whether to forget what other programs change in the database.
        tier_timeout: for how many seconds a request waits for the shared cache. It is longer than the library's default,
            since a stampede keeps the event loop of a worker busy for longer than that.
    """

    database: URL
    scale: Scale = field(default_factory=Scale)
    strategy: StrategyName = "cache-aside"
    ttl: str | float = "60s"
    negative_ttl: str | float = "10s"
    maxsize: int = 10_000
    connections: int = 8
    workers: int = 1
    cache: str | None = None
    follow: bool = False
    max_staleness: float = 0.25
    tier_timeout: float = 2.0

    def facts(self) -> dict[str, str]:
        """Return what visitors may know."""
        facts = {
            "strategy": self.strategy,
            "ttl": f"{self.ttl} s" if isinstance(self.ttl, int | float) else self.ttl,
            "at most": f"{self.maxsize:,}",
            "database": {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[self.database.get_backend_name()],
            "users": f"{self.scale.users:,}",
        }
        if self.cache is not None:  # of the URL no more than that, it may hold a password
            facts["shared cache"] = _SHARED_CACHES.get(urlsplit(self.cache).scheme.lower(), "another")
        if self.strategy == "write-behind":
            is_server = self.cache is not None and not self.cache.lower().startswith("sqlite:")
            facts["journal"] = "on the server" if is_server else "SQLite file"
        if self.follow:
            facts["follows"] = "the database"
        if self.workers > 1:
            facts["workers"] = str(self.workers)
        return facts


def database_url(text: str | None, scale: Scale) -> URL:
    """Return the URL that was given, or the one of the default file.

    Raises:
        DemoError: it is not a URL of a database that the demo knows.
    """
    if text is None:
        return URL.create("sqlite", database=str(cache_folder() / f"demo-{scale.users}.db"))
    try:
        url = make_url(text)
    except ArgumentError as exc:
        raise DemoError(f"--database must be a URL, got {text!r}; write {_KNOWN}") from exc
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise DemoError(f"--database knows no {url.drivername!r}; write {_KNOWN}")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise DemoError("--database needs a SQLite file, several connections read it; write sqlite:///path/to/file.db")
    return url


def cache_folder() -> Path:
    """Return where caches belong: $XDG_CACHE_HOME, else ~/.cache, else, without a home, the temporary folder."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):  # the specification wants relative ones ignored
        return Path(chosen) / "credenza"
    home = _home()
    return home / ".cache" / "credenza" if home else Path(tempfile.gettempdir()) / "credenza"


def _home() -> Path | None:
    if os.environ.get("HOME") == "":
        return None
    try:
        return Path.home()
    except RuntimeError:  # an account without an entry, as in some containers
        return None
