"""The servers of one set-up, and how redis-py is to connect to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

from ...errors import ConfigurationError

# Any in this module: options of redis-py are of all kinds, and it may not be installed.

Address = tuple[str, int] | None
"""A node of a cluster; None for the only server there is."""

_KEPT: Final = frozenset(
    "host port path db username password credential_provider client_name socket_keepalive socket_keepalive_options "
    "socket_type socket_read_size".split()
)


class Master:
    """Where the sentinels said last that the master is. Thread-safe: it is one reference."""

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address: Address = None


@dataclass(frozen=True, slots=True, eq=False)
class Servers:
    """A server, the master that sentinels name, or a cluster.

    Attributes:
        kind: the name of redis-py's class of connections.
        options: of a connection.
        hosts: the sentinels, or some nodes of the cluster.
        service: the name under which the sentinels watch the master.
        sentinel_options: of a connection to a sentinel.
        remap: turns the address that a node of a cluster gives into the one that it has from here.
        master: where the master is, behind sentinels.
    """

    kind: str
    options: Mapping[str, Any] = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    remap: Callable[[tuple[str, int]], tuple[str, int]] | None = None
    master: Master = field(default_factory=Master, repr=False)

    @property
    def is_cluster(self) -> bool:
        return bool(self.hosts) and not self.service

    def options_for(self, address: Address, *, is_async: bool) -> dict[str, Any]:
        """Return the options of a connection to one of the servers, without redis-py's own retries and greetings."""
        known = _known_options(connection_class(self.kind, is_async=is_async))
        placed = self.options if address is None else {**self.options, "host": address[0], "port": address[1]}
        chosen = {name: value for name, value in placed.items() if name in known}
        silent = ("driver_info",) if "driver_info" in known else ("lib_name", "lib_version")
        return {**chosen, **dict.fromkeys(silent), "protocol": 2}

    def shown(self, address: Address) -> str:
        """Return how messages call one of the servers."""
        if address is not None:
            return f"{address[0]}:{address[1]}"
        if self.service:
            return f"the service {self.service!r}"
        return str(self.options.get("path") or f"{self.options['host']}:{self.options['port']}")


def servers(kind: str, options: Mapping[str, Any], hosts: tuple[tuple[str, int], ...] = (), **others: Any) -> Servers:
    """Return servers that are reached with the options of a connection of redis-py, as far as they concern it.

    Raises:
        ConfigurationError: TLS cannot work like this.
    """
    return Servers(kind, connection_options(kind, options), hosts, **others)


def connection_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of redis-py's options that say how to get to a server and in."""
    kept = {n: value for n, value in options.items() if value is not None and (n in _KEPT or n.startswith("ssl_"))}
    if kind != "UnixDomainSocketConnection":
        kept = {"host": "localhost", "port": 6379, "socket_keepalive": True} | kept
    if kind == "SSLConnection":
        is_checked = str(kept.get("ssl_cert_reqs", "required")).lower() not in (
            "none",
            "cert_none",
            "verifymode.cert_none",
            "0",
        )
        kept = {"ssl_check_hostname": is_checked} | kept  # redis-py before 6 would not
        _check_tls({name: value for name, value in kept.items() if name.startswith("ssl_")})
    return kept


def redis_module(name: str = "redis") -> Any:
    """Return a module of redis-py.

    Raises:
        ConfigurationError: it, or hiredis, is not installed.
    """
    try:
        import_module("hiredis")
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            "the Redis tier needs redis-py and hiredis; install them with: pip install 'credenza[redis]'"
        ) from error


@cache
def connection_class(kind: str, *, is_async: bool) -> Any:
    """Return redis-py's class of connections of that name."""
    return getattr(redis_module("redis.asyncio.connection" if is_async else "redis.connection"), kind)


@cache
def _known_options(kind: type) -> frozenset[str]:
    return frozenset().union(*(inspect.signature(base).parameters for base in inspect.getmro(kind)[:-1]))


def check_names(options: Mapping[str, Any]) -> None:
    """Check that redis-py would know all options.

    Raises:
        ConfigurationError: one of them is unknown.
    """
    connection = redis_module("redis.connection")
    kinds = (connection.SSLConnection, connection.UnixDomainSocketConnection, connection.BlockingConnectionPool)
    unknown = sorted(set(options) - {"ssl", "connection_class"}.union(*map(_known_options, kinds)))
    if unknown:
        raise ConfigurationError(
            f"unknown option {unknown[0]!r} in the URL of a Redis tier; use namespace, codec, or one of redis-py's, "
            "such as client_name or ssl_ca_certs"
        )


def _check_tls(chosen: dict[str, Any]) -> None:
    """Let redis-py make of its options what it would."""
    for name in [name for name in chosen if "ocsp" in name]:
        if chosen.pop(name):
            raise ConfigurationError(f"the Redis tier cannot check certificates by OCSP; leave {name} out")
    kind = connection_class("SSLConnection", is_async=True)
    try:
        kind(**{name: value for name, value in chosen.items() if name in _known_options(kind)}).ssl_context.get()
    except (OSError, TypeError, ValueError, redis_module("redis.exceptions").RedisError) as error:
        raise ConfigurationError(f"the TLS options of the Redis tier cannot work: {error}") from error
