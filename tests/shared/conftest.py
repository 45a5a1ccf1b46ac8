"""Processes for every test here, in both faces."""

from collections.abc import Iterator

import pytest
from tests.support.processes import Process, World


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A tier that processes share; nothing may be left behind in it."""
    made = World(request.param)
    yield made
    made.end()


@pytest.fixture
def sync_world() -> Iterator[World]:
    """The same for what has no colour."""
    made = World("sync")
    yield made
    made.end()


@pytest.fixture
def async_world() -> Iterator[World]:
    """The same for what only tasks can do."""
    made = World("async")
    yield made
    made.end()


@pytest.fixture
def one(world: World) -> Process:
    """A process with usual options."""
    return world.process()


@pytest.fixture
def two(world: World, one: Process) -> Process:
    """Another one beside it."""
    return world.process()
