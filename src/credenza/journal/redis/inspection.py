"""Whether a server can keep what it is given."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

from ...errors import ConfigurationError, JournalError
from .server import Server
from .targets import Target

_log = logging.getLogger("credenza")

_LEAST_VERSION: Final = (6, 2)
_warned: Final[set[str]] = set()


def inspect(server: Server, target: Target) -> None:
    """Check all servers of a journal, as far as they may be asked.

    Raises:
        ConfigurationError: one of them is too old, or evicts what it is given.
    """
    for options in _nodes(server, target):
        _check_version(server, options)
        policy = _setting(server, "maxmemory-policy", options)
        if policy.startswith("allkeys-"):
            raise ConfigurationError(
                f"the server of the journal {server.location} has maxmemory-policy {policy}, which evicts pending writes; use "
                "noeviction, or a volatile one: nothing in a journal expires"
            )
        is_kept = _setting(server, "appendonly", options)
        where = server.location.partition("?")[0]
        if is_kept == "no" and where not in _warned:
            _warned.add(where)
            _log.warning(
                "the server of the journal %s has appendonly no: it loses acknowledged writes when it ends; use appendonly "
                "yes, and appendfsync always where they must survive the loss of power",
                where,
            )


def _nodes(server: Server, target: Target) -> Iterator[dict[str, Any]]:  # Any: a node of redis-py
    """Yield the options that choose each of the servers."""
    if not target.is_cluster:
        yield {}
        return
    for node in server.client.get_primaries():
        yield {"target_nodes": node}


def _check_version(server: Server, options: dict[str, Any]) -> None:  # Any: as above
    try:
        about = server.command("INFO", "server", **options)
    except JournalError:
        return  # a user who may not ask; or it says next what is wrong
    version = str(about.get("redis_version", "")) if isinstance(about, dict) else ""
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return
    if numbers < _LEAST_VERSION:
        raise ConfigurationError(
            f"the server of the journal {server.location} is Redis {version}; it needs 6.2 or later, or Valkey"
        )


def _setting(server: Server, name: str, options: dict[str, Any]) -> str:  # Any: as above
    """Return a setting of a server, empty if it does not tell."""
    try:
        found = server.command("CONFIG GET", name, **options)
    except JournalError:
        return ""  # forbidden, or renamed, as managed servers do
    return str(found.get(name, "")) if isinstance(found, dict) else ""
