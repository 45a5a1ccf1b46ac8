"""Every tier that there is, in both colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.servers import running_cluster, running_redis
from tests.support.servers.fixtures import (  # the fixtures of the tests of the Redis tier
    redis_cluster,
    redis_sentinel,
    redis_server,
    shared_cluster,
    shared_server,
)
from tests.tiers.places import CUSTOM, KINDS, Caller, Colour, Place

__all__ = ["redis_cluster", "redis_sentinel", "redis_server", "shared_cluster", "shared_server"]


class Servers:
    """Servers that are started when the first test asks for them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._addresses: dict[str, str] = {}

    def address(self, kind: str) -> str:
        """Return the URL of a server, starting it if need be."""
        if kind not in self._addresses:
            running: Any = running_cluster() if kind == "cluster" else running_redis(kind)
            self._addresses[kind] = self._stack.enter_context(running).url
        return self._addresses[kind]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this run."""
    with ExitStack() as stack:
        yield Servers(stack)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which tier a test is about."""
    return str(request.param)


@pytest.fixture
def place(kind: str, servers: Servers, tmp_path: Path) -> Iterator[Place]:
    """An empty place; what is opened there is closed after the test."""
    if kind == "dict":
        address = ""
    elif kind == "sqlite":
        address = str(tmp_path / "tier.db")
    else:
        address = CUSTOM if kind == "custom" else servers.address(kind)
    made = Place(kind, address)
    yield made
    made.close()


@pytest.fixture(params=["blocking", "async"])
def colour(request: pytest.FixtureRequest) -> Colour:
    """How the tier is called."""
    named: Colour = request.param
    return named


@pytest.fixture
def call(place: Place, colour: Colour) -> Iterator[Caller]:
    """A caller of a tier on the place."""
    caller = Caller(place.open(), colour)
    yield caller
    caller.close()
