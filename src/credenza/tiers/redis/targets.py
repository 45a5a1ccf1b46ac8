"""From a URL, or a client of redis-py, to the way to its servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from ...errors import ConfigurationError
from .access import access_from, check_names, redis_module
from .cluster import ViaCluster
from .places import Access, Place
from .routes import Direct, Route, ViaSentinel

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


def route_to(target: Any) -> Route:
    """Return the way to the servers of a target.

    Raises:
        ConfigurationError: it cannot be understood; the message never shows a password.
    """
    if isinstance(target, str):
        return _route_from_url(target)
    if hasattr(target, "nodes_manager"):
        return _route_of_cluster(target)
    pool = getattr(target, "connection_pool", None)
    if pool is None or not hasattr(pool, "connection_kwargs"):
        raise ConfigurationError(
            f"a Redis tier is made from a URL or a client of redis-py, got {type(target).__module__}.{type(target).__name__}"
        )
    if hasattr(pool, "sentinel_manager"):
        return _route_of_sentinel(pool)
    return Direct(_place(pool.connection_kwargs, _access_of(pool)))


# URLs -----------------------------------------------------------------------------------------------------------------


def _route_from_url(url: str) -> Route:
    scheme, colon, rest = url.partition("://")
    base, _, kind = scheme.lower().partition("+")
    if not colon or scheme.lower() not in SCHEMES:
        raise ConfigurationError(
            f"a Redis tier has no scheme {scheme.split(':')[0]!r}; use one of {', '.join(SCHEMES)}"
        )
    plain = f"{base.replace('valkey', 'redis')}://{rest}"
    if not kind:
        options = _options(scheme, plain)
        return Direct(_place(options, access_from(options, is_tls=base in ("rediss", "valkeys"))))
    parts = urlsplit(plain)
    login, at, _ = parts.netloc.rpartition("@")
    hosts = _hosts(scheme, parts, _SENTINEL_PORT if kind == "sentinel" else _PORT)
    is_tls = base in ("rediss", "valkeys")
    if kind == "cluster":
        options = _options(scheme, parts._replace(netloc=f"{login}{at}cluster").geturl())
        access = access_from(options, is_tls=is_tls)
        if access.database:
            raise ConfigurationError("a cluster has only the database 0; leave the path of the URL out")
        return ViaCluster([Place(host, port, access) for host, port in hosts])
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(f"the URL {scheme}://... names no service; write {scheme}://host:26379/service/0")
    options = _options(scheme, parts._replace(netloc=f"{login}{at}master", path=f"/{database}").geturl())
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    sentinels = [Place(host, port, access_from({**_tls(options), **own}, is_tls=is_tls)) for host, port in hosts]
    return ViaSentinel(sentinels, service, access_from(options, is_tls=is_tls, must_be_master=True))


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


def _hosts(scheme: str, parts: SplitResult, port: int) -> list[tuple[str, int]]:
    hosts: list[tuple[str, int]] = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{part}")
            hosts.append((one.hostname or "localhost", one.port or port))
        except ValueError:
            raise ConfigurationError(f"the URL {scheme}://... cannot be understood: {_NO_PORT}") from None
    return hosts


# Clients --------------------------------------------------------------------------------------------------------------


def _access_of(pool: Any, *, must_be_master: bool = False) -> Access:
    kind = pool.connection_class
    if getattr(getattr(kind, "_connect", None), "__module__", "").partition(".")[0] != "redis":
        raise ConfigurationError(
            f"the connections of this client are of a kind of their own, {kind.__module__}.{kind.__name__}, which the Redis "
            "tier cannot make; pass a URL, or a client of redis-py with its own connections"
        )
    is_tls = any(base.__name__ == "SSLConnection" for base in kind.__mro__)
    return access_from(pool.connection_kwargs, is_tls=is_tls, must_be_master=must_be_master)


def _place(options: Mapping[str, Any], access: Access) -> Place:
    if options.get("path"):
        return Place(str(options["path"]), 0, access)
    return Place(str(options.get("host") or "localhost"), int(options.get("port") or _PORT), access)


def _route_of_sentinel(pool: Any) -> Route:
    if not pool.is_master:
        raise ConfigurationError("a Redis tier writes: pass Sentinel.master_for(...), not slave_for(...)")
    pools = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    sentinels = [_place(each.connection_kwargs, _access_of(each)) for each in pools]
    return ViaSentinel(sentinels, str(pool.service_name), _access_of(pool, must_be_master=True))


def _route_of_cluster(client: Any) -> Route:
    manager = client.nodes_manager
    nodes = [*client.get_nodes(), *manager.startup_nodes.values()]
    if hasattr(nodes[0], "connection_class"):  # asynchronous: a node is its own pool
        access = _access_of(nodes[0])
    else:
        access = _access_of(client.get_redis_connection(nodes[0]).connection_pool)
    known = dict.fromkeys((str(node.host), int(node.port)) for node in nodes)
    return ViaCluster(
        [Place(host, port, access) for host, port in known], remap=getattr(manager, "address_remap", None)
    )


def _tls(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith("ssl_")}
