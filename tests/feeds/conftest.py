"""Databases to follow, each test with one of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.feeds.places import KINDS, Place, place_of
from tests.feeds.postgres_server import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole run."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A database of each kind."""
    server = None if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    with place_of(request.param, server, tmp_path) as made:
        yield made


@pytest.fixture
def triggers(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Place]:
    """A PostgreSQL database with triggers."""
    with place_of("triggers", postgres_server, tmp_path) as made:
        yield made


@pytest.fixture
def logical(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Place]:
    """A PostgreSQL database with a publication."""
    with place_of("logical", postgres_server, tmp_path) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Place]:
    """A SQLite file with triggers."""
    with place_of("sqlite", None, tmp_path) as made:
        yield made
