"""From a URL to a tier: what is understood, and what the errors say, and do not say."""

from collections.abc import Mapping
from typing import Any

import pytest
import redis

from credenza.errors import ConfigurationError
from credenza.tiers.redis import RedisTier
from credenza.tiers.redis.servers import Servers, connection_class
from credenza.tiers.sqlite import SqliteTier
from credenza.tiers.urls import open_tier, split_options

SECRET = "trout/fin"  # what must not be shown


def servers_of(tier: object) -> Servers:
    """Return where a tier connects to."""
    assert isinstance(tier, RedisTier)
    return tier._loops._servers


def login_of(options: Mapping[str, Any]) -> tuple[Any, Any]:
    return options.get("username"), options.get("password")


@pytest.mark.parametrize(
    ("url", "host", "port", "database"),
    [
        ("redis://", "localhost", 6379, 0),
        ("redis://cache", "cache", 6379, 0),
        ("redis://cache:7000/4", "cache", 7000, 4),
        ("valkey://cache:7000/4", "cache", 7000, 4),
        ("redis://cache?db=5", "cache", 6379, 5),
        ("REDIS://cache", "cache", 6379, 0),
        ("redis://[::1]:7000", "::1", 7000, 0),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock", 0, 2),
    ],
)
def test_address_and_database_are_read(url: str, host: str, port: int, database: int) -> None:
    """Each scheme says where the server is and which of its databases is meant."""
    servers = servers_of(open_tier(url))
    options = servers.options
    address = (options["path"], 0) if "path" in options else (options["host"], options["port"])
    assert (*address, options.get("db", 0)) == (host, port, database)
    assert servers.kind == ("UnixDomainSocketConnection" if "path" in options else "Connection")


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_checks_certificate_and_host_by_default(scheme: str) -> None:
    """Only who asks for it gets less."""

    def made(url: str, is_async: bool) -> Any:
        servers = servers_of(open_tier(url))
        options = servers.options_for(None, is_async=is_async)
        return connection_class(servers.kind, is_async=is_async)(**options)

    for is_async in (True, False):
        assert made(f"{scheme}://cache", is_async).check_hostname
        assert not made(f"{scheme}://cache?ssl_cert_reqs=none", is_async).check_hostname


def test_login_is_decoded() -> None:
    """User name and password may hold any character."""
    servers = servers_of(open_tier("redis://ann:trout%2Ffin@cache"))
    assert login_of(servers.options) == ("ann", SECRET)
    assert SECRET not in repr(servers)


def test_namespace_is_taken_from_the_url_unless_it_is_given() -> None:
    """`namespace` and `codec` are ours and are not passed on."""
    assert open_tier("redis://cache").namespace == "credenza"
    assert open_tier("redis://cache?namespace=shop&codec=json").namespace == "shop"
    assert open_tier("redis://cache?namespace=shop", namespace="other").namespace == "other"
    assert split_options("redis://c?a=1&namespace=shop&codec=json&b=%2F") == (
        "redis://c?a=1&b=%2F",
        {"namespace": "shop", "codec": "json"},
    )
    assert split_options("redis://c") == ("redis://c", {})


def test_several_sentinels_have_one_service() -> None:
    """Their login is their own; that of the URL is the master's."""
    servers = servers_of(
        open_tier("redis+sentinel://ann:pw@one,two:1234/main/3?sentinel_password=own&client_name=shop")
    )
    assert (servers.service, servers.hosts) == ("main", (("one", 26379), ("two", 1234)))
    assert login_of(servers.sentinel_options) == (None, "own")
    assert login_of(servers.options) == ("ann", "pw")
    assert (servers.options["db"], servers.options["client_name"]) == (3, "shop")
    assert not servers.is_cluster


def test_several_nodes_are_one_cluster() -> None:
    """Any of them may be asked; TLS is that of all."""
    servers = servers_of(open_tier("rediss+cluster://:pw@one:7000,two"))
    assert servers.is_cluster
    assert servers.hosts == (("one", 7000), ("two", 6379))
    assert servers.kind == "SSLConnection"
    assert login_of(servers.options) == (None, "pw")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/a.db", "/var/a.db"),
        ("sqlite:////var/a%20b.db?namespace=x", "/var/a b.db"),
        ("sqlite:a.db", "a.db"),
        ("sqlite:../var/a.db?codec=json", "../var/a.db"),
        ("SQLite:/var/a.db", "/var/a.db"),
    ],
)
def test_sqlite_has_a_path(url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes begin an absolute path, four as well; without any it is a relative one."""
    seen: list[str] = []
    monkeypatch.setattr(SqliteTier, "__init__", lambda self, path, *, namespace: seen.append(str(path)))
    monkeypatch.setattr(SqliteTier, "__del__", lambda self: None, raising=False)
    open_tier(url)
    assert seen == [path]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "begins with one of sqlite, redis"),
        ("cache:6379", "begins with one of"),
        ("redis:/cache", "begins with one of"),
        ("memcached://cache", "'memcached'"),
        ("http+sentinel://cache/main", "'http+sentinel'"),
        ("redis://cache/shop", "number of a database"),
        ("redis://cache?db=shop", "Invalid value for 'db'"),
        ("redis://cache?colour=blue", "unknown option 'colour'"),
        ("redis://cache:port", "percent-encode"),
        ("redis+sentinel://cache", "names no service"),
        ("redis+sentinel://cache/main/shop", "number of a database"),
        ("redis+sentinel://cache:port/main", "percent-encode"),
        ("redis+cluster://cache/2", "only the database 0"),
        ("rediss://cache?ssl_ca_certs=/no/such/file", "TLS options"),
        ("rediss://cache?ssl_validate_ocsp=true", "OCSP"),
        ("redis://cache?namespace=a b", "namespace must be"),
        ("redis://cache?namespace=", "namespace must be"),
        ("sqlite://shop.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:", "three slashes"),
        ("sqlite:///shop.db?colour=blue", "unknown option 'colour'"),
    ],
)
def test_url_that_cannot_work_is_refused(url: str, says: str) -> None:
    """The message says what is wrong and what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        open_tier(url)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://ann:{SECRET}@cache",
        f"redis://ann:{SECRET}@cache/0",
        f"redis://ann:{SECRET}@cache?colour=blue",
        "redis://ann:troutfin@cache?colour=blue",
        "redis://ann:troutfin@cache:port",
        "redis://ann:troutfin@cache/shop",
        "redis+sentinel://ann:troutfin@cache",
        f"redis+sentinel://ann:{SECRET}@cache:1/main",
        f"redis+cluster://ann:{SECRET}@cache",
        "ann:troutfin@cache",
        "troutfin://cache?colour=blue".replace("troutfin:", "redis+troutfin:ann:"),
    ],
)
def test_password_is_never_shown(url: str) -> None:
    """However broken the URL is: neither the message nor what an error was raised from repeats it."""
    with pytest.raises(ConfigurationError) as caught:
        open_tier(url)
    said = str(caught.value) + repr(caught.value.__cause__)
    assert "trout" not in said.replace("redis+troutfin", "")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("target", [None, 7, b"redis://cache", object(), {"host": "cache"}])
def test_target_that_is_no_client_is_refused(target: object) -> None:
    """The message names its type."""
    with pytest.raises(ConfigurationError, match=type(target).__name__):
        RedisTier(target)


def test_client_with_connections_of_its_own_kind_is_refused() -> None:
    """A double of Redis for tests would otherwise lead to whatever listens on its port."""

    class Pretending(redis.Connection):
        def _connect(self) -> None:
            raise AssertionError

    client = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Pretending))
    with pytest.raises(ConfigurationError, match="of a kind of their own"):
        RedisTier(client)


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "{a}", "é"])
def test_namespace_of_other_characters_is_refused(namespace: str) -> None:
    """It is part of every name, and must not be taken for another part."""
    with pytest.raises(ConfigurationError, match="namespace must be"):
        RedisTier("redis://cache", namespace=namespace)


def test_missing_redis_py_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not installed it learns how to."""
    import sys

    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ConfigurationError, match=r"credenza\[redis\]"):
        RedisTier("redis://cache")
