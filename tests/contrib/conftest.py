"""Databases for tests of contrib: a SQLite file and a PostgreSQL server, both empty when a test begins."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from tests.support.servers import running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server: the one in CREDENZA_TEST_POSTGRES, else one that is started here. Never a skip."""
    with running_postgres() as url:
        yield make_url(url).set(drivername="postgresql+psycopg")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    """A SQLite file of the test's own."""
    return URL.create("sqlite", database=str(tmp_path / "source.db"))


@pytest.fixture
def postgres_url(postgres_server: URL) -> URL:
    """An empty database on PostgreSQL."""
    engine = create_engine(postgres_server)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres_server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> URL:
    """Each database in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    """Make engines; their connections are closed after the test."""
    made: list[Engine] = []

    def make(url: URL, **options: object) -> Engine:
        made.append(create_engine(url, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(database_url: URL, make_engine: Callable[..., Engine]) -> Engine:
    """An engine on each database in turn."""
    return make_engine(database_url)


@pytest.fixture
def statements(engine: Engine) -> list[str]:
    """What reaches the engine's database from now on; a test may clear it."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
        seen.append(statement)

    return seen
