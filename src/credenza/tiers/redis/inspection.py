"""Whether a server can keep what it is given."""

from __future__ import annotations

import logging
from typing import Final

from ...errors import ConfigurationError
from ..base import TierError
from .links import Links, Parcel
from .refusals import Garbled
from .routes import Direct
from .wire import request_of

_LOGGER: Final = logging.getLogger("credenza")
_LEAST_VERSION: Final = (6, 2)
_warned: Final[set[str]] = set()


async def inspect(route: Direct, links: Links, deadline_ns: int) -> None:
    """Check all servers.

    Raises:
        ConfigurationError: one of them is too old, or evicts what protects writes.
        TierError: one of them is away.
    """
    for address in await route.addresses(links, deadline_ns):
        questions = request_of((b"INFO", b"server"), (b"CONFIG", b"GET", b"maxmemory-policy"))
        (answers,) = await links.exchange([Parcel(address, questions)], deadline_ns)
        if isinstance(answers, TierError):
            route.forget()
            raise answers
        _check_version(links.servers.shown(address), answers[0])
        _check_policy(links.servers.shown(address), answers[1])


def _check_version(where: str, about: object) -> None:
    if isinstance(about, TierError):
        return  # a user who may not ask; the first script that needs more says so
    if not isinstance(about, bytes):
        raise Garbled
    lines = [line.partition(":") for line in about.decode(errors="replace").splitlines()]
    version = next((value for name, _, value in lines if name == "redis_version"), "")
    try:
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return
    if numbers < _LEAST_VERSION:
        raise ConfigurationError(
            f"the server at {where} is Redis {version}; the shared tier needs 6.2 or later, or Valkey"
        )


def _check_policy(where: str, answer: object) -> None:
    if not isinstance(answer, list) or len(answer) < 2 or not isinstance(answer[1], bytes):
        return  # forbidden, or renamed, as managed servers do
    policy = answer[1].decode(errors="replace")
    if policy == "volatile-ttl":
        raise ConfigurationError(
            f"the server at {where} has maxmemory-policy volatile-ttl, which evicts what lives shortest: the fences around "
            "writes; use noeviction, or allkeys-lru"
        )
    if policy != "noeviction" and where not in _warned:
        _warned.add(where)
        _LOGGER.warning(
            "the server at %s has maxmemory-policy %s: with its memory full it may evict the fence around a write, and a "
            "reader may then keep the value from before it; use noeviction, or give it more memory than it fills",
            where,
            policy,
        )
