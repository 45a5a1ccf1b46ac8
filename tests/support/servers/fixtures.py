"""The servers as fixtures; a conftest imports those that its tests ask for."""

from collections.abc import Iterator

import pytest

from .asking import Asking, askers
from .binaries import SERVERS, NoServerError, find_server
from .groups import Cluster, SentinelSetup, running_cluster, running_sentinel
from .redis_server import RedisServer, running_redis

__all__ = ["asking", "redis_cluster", "redis_sentinel", "redis_server", "shared_cluster", "shared_server"]


def _kinds() -> list[str]:
    """Return the servers that there are; Redis in any case, for the word on what is missing. Another test says of Valkey."""
    present = []
    for kind in SERVERS:
        try:
            find_server(kind)
        except NoServerError:
            continue
        present.append(kind)
    return present or ["redis"]


@pytest.fixture(scope="session", params=_kinds())
def shared_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server for the whole run, once Redis and once Valkey; may hold what earlier tests left."""
    with running_redis(request.param) as server:
        yield server


@pytest.fixture
def redis_server(shared_server: RedisServer) -> RedisServer:
    """A running server without records or scripts, used by one test at a time; the test must not stop it."""
    with shared_server.client() as client:
        client.flushall()
        client.script_flush()
    return shared_server


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """One cluster for the whole run."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(shared_cluster: Cluster) -> Cluster:
    """A running cluster without records; the test must not stop its nodes."""
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture
def redis_sentinel() -> Iterator[SentinelSetup]:
    """A master, a replica and a sentinel of the test's own."""
    with running_sentinel() as setup:
        yield setup


@pytest.fixture
def asking(colour: str) -> Iterator[Asking]:
    """Makes tiers that are asked in either colour, and closes them after the test."""
    with askers(colour) as ask:
        yield ask
