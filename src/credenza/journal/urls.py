"""Opening a journal by what a user names it: the URLs are those of shared tiers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal, Protocol
from urllib.parse import unquote

from ..errors import ConfigurationError
from .base import DeadLetter, Journal, JournalStatus

_ON_SERVERS: Final = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})


class AttachedJournal(Protocol):
    """What an operator has of a journal, also while a service has it open. All but `close` may raise `JournalError`."""

    def status(self) -> JournalStatus:
        """Return what it holds."""
        ...

    def dead(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        ...

    def retry(self, numbers: Sequence[int] | None = None) -> int:
        """Make dead letters pending again, all or those named, except superseded ones; return how many."""
        ...

    def discard(self, numbers: Sequence[int] | None = None) -> int:
        """Forget dead letters, all or those named; return how many."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_journal(
    where: str | os.PathLike[str] | Journal, *, durability: Literal["disk", "os"], max_pending: int
) -> Journal:
    """Return the journal at a path or a URL; one that is given as such is returned itself.

    Raises:
        ConfigurationError: the URL is of no kind that there is.
        JournalError: it cannot be opened.
    """
    if not isinstance(where, str | os.PathLike):
        return where
    text = os.fspath(where)
    if _is_on_server(text):
        from .redis import RedisJournal  # noqa: PLC0415  # needs an extra

        return RedisJournal(text, max_pending=max_pending)
    from .sqlite import SqliteJournal  # noqa: PLC0415  # brings sqlite3

    return SqliteJournal(_path_of(text), durability=durability, max_pending=max_pending)


def attach_journal(where: str | os.PathLike[str]) -> AttachedJournal:
    """Return the journal at a path or a URL for its operators: to look at it, and to retry or discard dead letters.

    It may be open elsewhere, and goes on there. Nothing is made where there is no journal.

    Raises:
        ConfigurationError: the URL is of no kind that there is.
        JournalError: there is no journal, or none that this version understands.
    """
    text = os.fspath(where)
    if _is_on_server(text):
        from .redis import RedisJournal  # noqa: PLC0415  # as above

        return RedisJournal.attach(text)
    from .sqlite import SqliteJournal  # noqa: PLC0415  # as above

    return SqliteJournal.attach(_path_of(text))


def _is_on_server(text: str) -> bool:
    scheme, colon, _ = text.partition(":")
    if not colon or "://" not in text or scheme == "sqlite":
        return False
    if scheme.lower().partition("+")[0] not in _ON_SERVERS:
        raise ConfigurationError(
            "a journal is named by a path, sqlite:///path or redis://host:port/0; "
            f"there is none of the kind {scheme[:20]!r}"
        )
    return True


def _path_of(text: str) -> str:
    """Return the path that a URL stands for; what is no URL is a path itself."""
    scheme, colon, path = text.partition(":")
    if not colon or scheme != "sqlite":
        return text
    path = unquote(path)
    return "/" + path.lstrip("/") if path.startswith("//") else path
