"""From a URL to the client of redis-py that it means, and the journal's own options in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from ...durations import nanoseconds_of
from ...errors import ConfigurationError

# Any in this module: redis-py's options are of all kinds, its clients have no public type in common, and it may not be
# installed.

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]+")
_MOST_PARTITIONS: Final = 128
_LEAST_LEASE_MS: Final = 100
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_TIMEOUT_SECONDS: Final = 5.0
_FORCED: Final = ("decode_responses", "protocol", "retry", "retry_on_timeout", "health_check_interval", "parser_class")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a journal is.

    Attributes:
        namespace: its name on the server.
        partitions: how many it shall have, None for as many as it has.
        lease_ms: how long a consumer owns a partition without a sign of life, None for the default.
        location: for messages, without user names and passwords.
        options: of redis-py's connections.
        hosts: the sentinels, or some nodes of the cluster.
        service: what the sentinels call the master.
    """

    namespace: str
    partitions: int | None
    lease_ms: int | None
    location: str
    is_cluster: bool
    options: Mapping[str, Any] = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def client(self) -> Any:
        """Return a client, whose connections are made when they are needed; one of a cluster asks for its slots at once.

        It never sends a command a second time, except where a cluster says that it belongs elsewhere.
        """
        retry = redis_module("redis.retry").Retry(redis_module("redis.backoff").NoBackoff(), 0)
        limits = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
        options = {**limits, **self.options, "retry": retry, "protocol": 2}
        if not self.hosts:
            kind = options.pop("connection_class", redis_module("redis.connection").Connection)
            pool = redis_module("redis.connection").ConnectionPool(connection_class=kind, **options)
            return redis_module().Redis.from_pool(pool)
        is_tls = options.pop("connection_class", None) is not None
        if self.is_cluster:
            cluster = redis_module("redis.cluster")
            nodes = [cluster.ClusterNode(host, port) for host, port in self.hosts]
            return cluster.RedisCluster(startup_nodes=nodes, require_full_coverage=False, ssl=is_tls, **options)
        asked = {**limits, "retry": retry, "protocol": 2, **self.sentinel_options}
        sentinel = redis_module("redis.sentinel").Sentinel(list(self.hosts), sentinel_kwargs=asked)
        return sentinel.master_for(self.service, ssl=is_tls, **options)


def redis_module(name: str = "redis") -> Any:
    """Return a module of redis-py; raises `ConfigurationError` where that is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            "a journal on Redis needs redis-py; install it with: pip install 'credenza[redis]'"
        ) from error


def target_of(url: str) -> Target:
    """Return what a URL means.

    Raises:
        ConfigurationError: it cannot be understood; the message never shows a password.
    """
    scheme, colon, rest = url.partition("://")
    base, _, kind = scheme.lower().partition("+")
    if (
        not colon
        or base not in ("redis", "rediss", "valkey", "valkeys", "unix")
        or kind not in ("", "sentinel", "cluster")
    ):
        raise ConfigurationError(
            f"a journal on Redis has no scheme {scheme.split(':')[0]!r}; use redis, rediss or unix, or redis+cluster, "
            "redis+sentinel and the like"
        )
    parts = urlsplit(f"{base.replace('valkey', 'redis')}://{rest}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: query.pop(name) for name in ("namespace", "partitions", "lease") if name in query}
    parts = parts._replace(query=urlencode(query))
    login, at, named = parts.netloc.rpartition("@")
    service, sentinel_options = "", dict[str, Any]()
    hosts: tuple[tuple[str, int], ...] = ()
    if kind:
        hosts = _hosts(named, _SENTINEL_PORT if kind == "sentinel" else _PORT)
        parts = parts._replace(netloc=f"{login}{at}server")
    if kind == "sentinel":
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise ConfigurationError(f"the URL {scheme}://... names no service; write {scheme}://host:26379/service/0")
        parts = parts._replace(path=f"/{database}")
    options = _options(scheme, parts)
    if kind:
        options = {name: value for name, value in options.items() if name not in ("host", "port")}
    for name in [name for name in options if name.startswith("sentinel_")]:
        sentinel_options[name.removeprefix("sentinel_")] = options.pop(name)
    namespace = own.get("namespace", "journal")
    return Target(
        namespace=_checked_namespace(namespace),
        partitions=_partitions_of(own.get("partitions")),
        lease_ms=lease_ms_of(own["lease"]) if "lease" in own else None,
        location=f"{scheme}://{named}{urlsplit(f'{base}://{rest}').path}?namespace={namespace}",
        is_cluster=kind == "cluster",
        options=options,
        hosts=hosts,
        service=service,
        sentinel_options=sentinel_options,
    )


def lease_ms_of(text: Any) -> int:
    """Return the length of a lease; raises `ConfigurationError` if it is none or too short."""
    lease_ms = nanoseconds_of(text, name="lease") // 1_000_000
    if lease_ms < _LEAST_LEASE_MS:
        raise ConfigurationError(f"lease must be at least {_LEAST_LEASE_MS} ms, got {text!r}")
    return lease_ms


def _checked_namespace(namespace: str) -> str:
    if not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError(f"namespace must be letters, digits, '_', '.' and '-', got {namespace!r}")
    return namespace


def _partitions_of(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_PARTITIONS:
        raise ConfigurationError(f"partitions must be a number from 1 to {_MOST_PARTITIONS}, got {text!r}")
    return int(text)


def _options(scheme: str, parts: SplitResult) -> dict[str, Any]:
    """Return what redis-py reads out of a URL, as far as a journal lets users choose."""
    path = parts.path.strip("/")
    if path and parts.scheme != "unix" and not path.isdecimal():
        raise ConfigurationError(
            f"the URL {scheme}://... ends in no number of a database; write {scheme}://host:port/0"
        )
    connection = redis_module("redis.connection")
    try:
        # `geturl` leaves out the slashes of a URL without a host, such as that of a socket.
        plain = f"{parts.scheme}://{parts.netloc}{parts.path}?{parts.query}"
        options: dict[str, Any] = connection.parse_url(plain)
    except ValueError as error:
        # `from None`: the words of the parser may be part of a password.
        message = (
            str(error) if str(error).startswith("Invalid value for") else "percent-encode special characters in it"
        )
        raise ConfigurationError(f"the URL {scheme}://... cannot be understood: {message}") from None
    options = {name: value for name, value in options.items() if name not in _FORCED}
    known = {name: value for name, value in options.items() if not name.startswith("sentinel_")}
    kind = known.pop("connection_class", connection.Connection)
    for name in ("max_connections", "timeout"):
        known.pop(name, None)
    try:
        kind(**known)
    except TypeError:
        raise ConfigurationError(
            f"unknown option in the URL {scheme}://...; use namespace, partitions, lease, or one of redis-py's, such as "
            "socket_timeout or ssl_ca_certs"
        ) from None
    except (ValueError, redis_module("redis.exceptions").RedisError) as error:
        raise ConfigurationError(f"the options in the URL {scheme}://... cannot work: {error}") from error
    return options


def _hosts(named: str, port: int) -> tuple[tuple[str, int], ...]:
    hosts: list[tuple[str, int]] = []
    for part in named.split(","):
        try:
            one = urlsplit(f"//{part}")
            hosts.append((one.hostname or "localhost", one.port or port))
        except ValueError:
            raise ConfigurationError(f"the journal's URL names a port that is no number, in {part!r}") from None
    return tuple(hosts)
