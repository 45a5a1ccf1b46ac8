"""From a URL, or a client of redis-py, to the servers that it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ...errors import ConfigurationError
from .servers import Servers, check_names, connection_options, redis_module, servers

# Any in this module: redis-py's clients have no public type in common, and it may not be installed.

SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "valkey",
    "valkeys",
    *(f"{scheme}+{kind}" for kind in ("sentinel", "cluster") for scheme in ("redis", "rediss", "valkey", "valkeys")),
)
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_NO_PORT = "percent-encode special characters in the user name and the password, and write ports as numbers"


def servers_of(target: Any) -> Servers:
    """Return the servers of a target.

    Raises:
        ConfigurationError: it cannot be understood; the message never shows a password.
    """
    if isinstance(target, str):
        return _from_url(target)
    if hasattr(target, "nodes_manager"):
        return _from_cluster(target)
    pool = getattr(target, "connection_pool", None)
    if pool is None or not hasattr(pool, "connection_kwargs"):
        raise ConfigurationError(
            f"a Redis tier is made from a URL or a client of redis-py, got {type(target).__module__}.{type(target).__name__}"
        )
    if hasattr(pool, "sentinel_manager"):
        return _from_sentinel(pool)
    return servers(_kind_of(pool), pool.connection_kwargs)


# URLs -----------------------------------------------------------------------------------------------------------------


def _from_url(url: str) -> Servers:
    scheme, colon, rest = url.partition("://")
    base, _, kind = scheme.lower().partition("+")
    if not colon or scheme.lower() not in SCHEMES:
        raise ConfigurationError(
            f"a Redis tier has no scheme {scheme.split(':')[0]!r}; use one of {', '.join(SCHEMES)}"
        )
    plain = f"{base.replace('valkey', 'redis')}://{rest}"
    tls = "SSLConnection" if base in ("rediss", "valkeys") else "Connection"
    if not kind:
        return servers("UnixDomainSocketConnection" if base == "unix" else tls, _options(scheme, plain))
    parts = urlsplit(plain)
    login, at, _ = parts.netloc.rpartition("@")
    hosts = _hosts(scheme, parts, _SENTINEL_PORT if kind == "sentinel" else _PORT)
    if kind == "cluster":
        options = _options(scheme, parts._replace(netloc=f"{login}{at}cluster").geturl())
        if options.get("db"):
            raise ConfigurationError("a cluster has only the database 0; leave the path of the URL out")
        return servers(tls, options, hosts)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(f"the URL {scheme}://... names no service; write {scheme}://host:26379/service/0")
    options = _options(scheme, parts._replace(netloc=f"{login}{at}master", path=f"/{database}").geturl())
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    return servers(tls, options, hosts, service=service, sentinel_options=_sentinel_options({**_tls(options), **own}))


def _options(scheme: str, plain: str) -> dict[str, Any]:
    """Return what redis-py reads out of a URL."""
    try:
        options: dict[str, Any] = redis_module("redis.connection").parse_url(plain)
        path = urlsplit(plain).path.strip("/")
    except ValueError as error:
        # `from None`: the words of the parser may be part of a password.
        message = str(error) if str(error).startswith("Invalid value for") else _NO_PORT
        raise ConfigurationError(f"the URL {scheme}://... cannot be understood: {message}") from None
    if path and not scheme.startswith("unix") and not path.isdecimal():
        raise ConfigurationError(
            f"the URL {scheme}://... ends in no number of a database; write {scheme}://host:port/0"
        )
    names = {name: value for name, value in options.items() if name not in ("sentinel_username", "sentinel_password")}
    check_names(names)
    return options


def _hosts(scheme: str, parts: SplitResult, port: int) -> tuple[tuple[str, int], ...]:
    hosts: list[tuple[str, int]] = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{part}")
            hosts.append((one.hostname or "localhost", one.port or port))
        except ValueError:
            raise ConfigurationError(f"the URL {scheme}://... cannot be understood: {_NO_PORT}") from None
    return tuple(hosts)


# Clients --------------------------------------------------------------------------------------------------------------


def _kind_of(pool: Any) -> str:
    """Return the name of redis-py's class from which the connections of a pool descend."""
    kind = pool.connection_class
    if getattr(getattr(kind, "_connect", None), "__module__", "").partition(".")[0] == "redis":
        names = [base.__name__ for base in kind.__mro__]
        for name in ("SSLConnection", "UnixDomainSocketConnection", "Connection"):
            if name in names:
                return name
    raise ConfigurationError(
        f"the connections of this client are of a kind of their own, {kind.__module__}.{kind.__name__}, which the Redis "
        "tier cannot make; pass a URL, or a client of redis-py with its own connections"
    )


def _from_sentinel(pool: Any) -> Servers:
    if not pool.is_master:
        raise ConfigurationError("a Redis tier writes: pass Sentinel.master_for(...), not slave_for(...)")
    pools = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    hosts = tuple((str(each.connection_kwargs["host"]), int(each.connection_kwargs["port"])) for each in pools)
    own = _sentinel_options(pools[0].connection_kwargs)
    return servers(_kind_of(pool), pool.connection_kwargs, hosts, service=str(pool.service_name), sentinel_options=own)


def _from_cluster(client: Any) -> Servers:
    manager = client.nodes_manager
    nodes = [*client.get_nodes(), *manager.startup_nodes.values()]
    # Asynchronous: a node is its own pool.
    is_pool = hasattr(nodes[0], "connection_class")
    pool = nodes[0] if is_pool else client.get_redis_connection(nodes[0]).connection_pool
    hosts = tuple(dict.fromkeys((str(node.host), int(node.port)) for node in nodes))
    return servers(_kind_of(pool), pool.connection_kwargs, hosts, remap=getattr(manager, "address_remap", None))


def _sentinel_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a client of a sentinel that are not its address."""
    kept = connection_options("Connection", options)
    return {name: value for name, value in kept.items() if name not in ("host", "port", "db")}


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith("ssl_")}
