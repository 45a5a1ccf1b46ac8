"""What redis-py's clients are told about a server, as far as it concerns the tier's own connections."""

from __future__ import annotations

import inspect
import socket
import ssl
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from ...errors import ConfigurationError
from .places import Access

# Any in this module: options of redis-py are of all kinds, and it may not be installed.

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


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


def access_from(options: Mapping[str, Any], *, is_tls: bool, must_be_master: bool = False) -> Access:
    """Return the access that the options of a connection of redis-py describe.

    Raises:
        ConfigurationError: it cannot work like this.
    """
    return Access(
        credentials=_credentials(options),
        database=int(options.get("db") or 0),
        client_name=options.get("client_name"),
        tls=_tls_context(options) if is_tls else None,
        keepalive=_keepalive(options),
        must_be_master=must_be_master,
    )


def check_names(options: Mapping[str, Any]) -> None:
    """Check that redis-py would know all options.

    Raises:
        ConfigurationError: one of them is unknown.
    """
    connection = redis_module("redis.connection")
    known = {"ssl", "connection_class"}
    kinds: tuple[type[Any], ...] = (
        connection.SSLConnection,
        connection.UnixDomainSocketConnection,
        connection.BlockingConnectionPool,
    )
    for kind in kinds:
        for base in inspect.getmro(kind)[:-1]:
            known |= inspect.signature(base).parameters.keys()
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigurationError(
            f"unknown option {unknown[0]!r} in the URL of a Redis tier; use namespace, codec, or one of redis-py's, "
            "such as client_name or ssl_ca_certs"
        )


def _credentials(options: Mapping[str, Any]) -> Any:
    provider = options.get("credential_provider")
    if provider is not None:
        return provider
    if options.get("username") or options.get("password"):
        kind = redis_module("redis.credentials").UsernamePasswordCredentialProvider
        return kind(options.get("username"), options.get("password"))
    return None


def _keepalive(options: Mapping[str, Any]) -> dict[int, int] | None:
    if options.get("socket_keepalive", True) is False:
        return None
    chosen = options.get("socket_keepalive_options")
    if isinstance(chosen, Mapping):
        return dict(chosen)
    return {getattr(socket, name): number for name, number in _KEEPALIVE.items() if hasattr(socket, name)}


def _tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Let redis-py make of its options what it would."""
    chosen = {name: value for name, value in options.items() if name.startswith("ssl_") and value is not None}
    for name in [name for name in chosen if "ocsp" in name]:
        if chosen.pop(name):
            raise ConfigurationError(f"the Redis tier cannot check certificates by OCSP; leave {name} out")
    try:
        connection = redis_module("redis.asyncio").SSLConnection(**chosen)
        context: ssl.SSLContext = connection.ssl_context.get()
    except (OSError, TypeError, ValueError, redis_module("redis.exceptions").RedisError) as error:
        raise ConfigurationError(f"the TLS options of the Redis tier cannot work: {error}") from error
    return context
