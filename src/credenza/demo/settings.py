"""What can be chosen when the demo is started, checked once."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import DemoError
from .population import Scale

StrategyName = Literal["cache-aside", "write-through", "no-cache"]

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
        maxsize: how many profiles are kept.
        connections: how many statements may run at once.
    """

    database: URL
    scale: Scale = field(default_factory=Scale)
    strategy: StrategyName = "cache-aside"
    ttl: str | float = "60s"
    negative_ttl: str | float = "10s"
    maxsize: int = 10_000
    connections: int = 8

    def facts(self) -> dict[str, str]:
        """Return what visitors may know."""
        return {
            "strategy": self.strategy,
            "ttl": f"{self.ttl} s" if isinstance(self.ttl, int | float) else self.ttl,
            "at most": f"{self.maxsize:,}",
            "database": {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[self.database.get_backend_name()],
            "users": f"{self.scale.users:,}",
        }


def database_url(text: str | None, scale: Scale) -> URL:
    """Return the URL that was given, or the one of the default file.

    Raises:
        DemoError: it is not a URL of a database that the demo knows.
    """
    if text is None:
        return URL.create("sqlite", database=str(_cache_folder() / f"demo-{scale.users}.db"))
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


def _cache_folder() -> Path:
    """Where caches belong: $XDG_CACHE_HOME, else ~/.cache, else, without a home, the temporary folder."""
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
