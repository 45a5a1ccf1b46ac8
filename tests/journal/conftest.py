"""Every journal that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journal.places import KINDS, Place
from tests.support.servers import RedisServer, find_server, running_redis

from credenza.journal.base import Journal


@pytest.fixture(scope="module", autouse=True)
def server_binary(request: pytest.FixtureRequest) -> None:
    """Skip what is about Redis where there is none; the tests of the tier say what to do."""
    if request.module.__name__.rpartition(".")[2].startswith("test_redis"):
        find_server("redis")


@pytest.fixture(scope="session")
def journal_server() -> Iterator[RedisServer]:
    """One server for the whole run, on which each place has a namespace of its own."""
    with running_redis() as server:
        Place.server_url = server.url
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which journal a test is about."""
    if request.param == "redis":
        request.getfixturevalue("journal_server")
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Place]:
    """An empty place; what is opened there is closed after the test."""
    made = Place(kind, str(tmp_path / "the.journal"))
    yield made
    made.close()


@pytest.fixture
def journal(place: Place) -> Journal:
    """An empty journal."""
    return place.open()
