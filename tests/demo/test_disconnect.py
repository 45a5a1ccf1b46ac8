"""A statement that nobody waits for any more is stopped; the database is watched, not the service."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, event, text

from credenza.demo.database import Database
from credenza.demo.errors import DatabaseFailed
from credenza.demo.profile import Profile
from credenza.demo.seeding import open_engine
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings
from credenza.demo.source import UserSource

from .conftest import Browser

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]
Until = Callable[[Callable[[], bool], str], None]

pytestmark = pytest.mark.timeout(60)  # a stampede without protection is 500 queries

ENDLESS = text(
    "WITH RECURSIVE endless(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM endless WHERE i < 2000000000)"
    " SELECT count(*) FROM endless"
)


class Watch:
    """Sees which endless statements a database runs, and which errors it gave to those that it stopped."""

    def __init__(self, database: Database, url: URL) -> None:
        self.errors: list[str] = []
        self._steps = 0
        self._url = url
        event.listen(
            database.engine, "handle_error", lambda context: self.errors.append(str(context.original_exception))
        )
        if url.get_backend_name() == "sqlite":
            event.listen(database.engine, "connect", self._count_steps)

    def runs(self) -> int:
        """Ask PostgreSQL which statements are active; see whether SQLite's virtual machine goes on."""
        if self._url.get_backend_name() == "sqlite":
            before, self._steps = self._steps, 0
            return 1 if before else 0
        engine = create_engine(self._url)
        with engine.connect() as connection:
            active = connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                    " AND query LIKE '%RECURSIVE endless%' AND pid <> pg_backend_pid()"
                )
            )
        engine.dispose()
        return int(active or 0)

    def _count_steps(self, connection: Any, _: object) -> None:
        def step() -> int:
            self._steps += 1
            return 0

        connection.set_progress_handler(step, 1000)


class SlowSource(UserSource):
    """Never ends while `is_slow`, as far as a test is concerned."""

    is_slow = True

    async def load(self, key: int, /) -> Profile | None:
        if self.is_slow:
            await self._database.run(lambda connection: connection.execute(ENDLESS).scalar())
        return await super().load(key)


class SlowService(ProfileService):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.source = SlowSource(self.database)
        self.users = self.cache.repository(self.source, key="user:{}")
        self.watch = Watch(self.database, settings.database)


@pytest.fixture
def slow(make_service: MakeService, database_url: URL) -> SlowService:
    """A service whose loads do not end, on each database."""
    service = make_service(kind=SlowService, database=database_url)
    assert isinstance(service, SlowService)
    return service


@pytest.fixture
def visited(slow: SlowService, serve: Serve) -> Iterator[Browser]:
    """The same over HTTP."""
    with serve(slow) as browser:
        yield browser


def test_disconnect_of_the_only_client_stops_its_statement(visited: Browser, slow: SlowService, until: Until) -> None:
    """The statement is gone from the database, nothing is cached, and the next request loads anew."""
    client = visited.begin("GET", "/user?id=5")
    until(lambda: slow.watch.runs() == 1, "the statement runs")
    client.close()
    until(lambda: slow.watch.runs() == 0 and slow.database.running == 0, "the statement is stopped")
    assert slow.database.cancelled == 1
    assert [error.split()[0] for error in slow.watch.errors] in (["interrupted"], ["canceling"])

    slow.source.is_slow = False
    answer = visited.get("/user?id=5")
    assert (answer.status, answer.cache) == (200, "miss")


def test_disconnect_of_one_client_leaves_the_statement_to_the_other(
    visited: Browser, slow: SlowService, until: Until
) -> None:
    """Whoever leaves, the load's leader included, the rest wait on; the last one's leaving stops the statement."""
    clients = []
    for number in range(1, 4):
        clients.append(visited.begin("GET", "/user?id=5"))
        until(lambda number=number: visited.connections() == number, "the client is served")
        visited.get("/stats")
        until(lambda number=number: visited.connections() == number, "only the waiting clients are left")
    until(lambda: slow.watch.runs() == 1, "the statement runs")
    for left in (2, 1):
        clients[2 - left].close()
        until(lambda left=left: visited.connections() == left, "the service sees the client leave")
        for _ in range(3):  # turns of the service's loop, in which a wrong cancellation would come through
            visited.get("/stats")
        until(lambda: slow.watch.runs() == 1, "the statement still runs")
        assert (slow.database.queries, slow.database.running, slow.database.cancelled) == (1, 1, 0)
    clients[2].close()
    until(lambda: slow.watch.runs() == 0 and slow.database.running == 0, "the statement is stopped")
    assert slow.database.cancelled == 1


def test_closing_the_page_in_a_stampede_stops_its_statements(visited: Browser, slow: SlowService, until: Until) -> None:
    """Eight statements run, hundreds queue: none is left, and most of those that queue never reach the database."""
    client = visited.begin("POST", "/stampede?id=5&protection=off")
    until(lambda: slow.database.running == slow.settings.connections, "every connection is busy")
    client.close()
    until(lambda: slow.watch.runs() == 0 and slow.database.running == 0, "all statements are stopped")
    assert slow.database.queries < 100
    slow.source.is_slow = False
    until(lambda: visited.send("POST", "/stampede?id=5").body.get("queries") == 1, "the next stampede is let in")


def test_stopping_the_server_stops_its_statements(slow: SlowService, serve: Serve, until: Until) -> None:
    """A server that is told to stop does not wait for a statement that may never end."""
    with serve(slow) as browser:
        client = browser.begin("GET", "/user?id=5")
        until(lambda: slow.watch.runs() == 1, "the statement runs")
    client.close()
    assert slow.watch.runs() == 0 or slow.database.running == 0
    assert slow.database.cancelled == 1


def test_cancelled_work_stops_before_the_cancellation_is_seen(database_url: URL) -> None:
    """When `run` has raised `CancelledError`, the statement has ended, and the pool works on."""

    async def scenario() -> None:
        database = Database(database_url, connections=2)
        tasks = [
            asyncio.create_task(database.run(lambda connection: connection.execute(ENDLESS).scalar())) for _ in range(6)
        ]
        while database.queries < 2:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        assert (database.running, database.queries) == (0, 2)
        answers = await asyncio.gather(*(database.run(_one) for _ in range(4)))
        assert answers == [1, 1, 1, 1]
        database.close()

    asyncio.run(scenario())


def test_cancelled_write_leaves_no_trace(database_url: URL) -> None:
    """The transaction of a piece of work that is stopped is rolled back."""

    def rename_and_linger(connection: Connection) -> None:
        connection.execute(text(f"UPDATE {table} SET name = 'Nobody' WHERE id = 1"))
        connection.execute(ENDLESS)

    table = "users" if database_url.get_backend_name() == "sqlite" else "credenza_demo.users"

    async def scenario() -> None:
        database = Database(database_url, connections=1)
        task = asyncio.create_task(database.run(rename_and_linger))
        while database.queries < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        database.close()

    asyncio.run(scenario())
    engine = open_engine(database_url, connections=1)
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT name FROM {table} WHERE id = 1")) != "Nobody"
    engine.dispose()


def test_failed_statement_is_told_in_general_words(database_url: URL) -> None:
    """The error says nothing of the inside; its cause does."""

    async def scenario() -> None:
        database = Database(database_url, connections=1)
        try:
            await database.run(lambda connection: connection.execute(text("SELECT * FROM nowhere")))
        finally:
            database.close()

    with pytest.raises(DatabaseFailed, match=r"^the database could not answer$") as caught:
        asyncio.run(scenario())
    assert "nowhere" in str(caught.value.__cause__)


def test_deleted_user_is_gone_with_everything(own_database: URL) -> None:
    """The source's `delete` leaves no row that refers to the user."""

    async def scenario() -> None:
        database = Database(own_database, connections=1)
        source = UserSource(database)
        assert await source.load(1) is not None
        await source.delete(1)
        assert await source.load(1) is None
        assert (
            await database.run(
                lambda connection: connection.scalar(text("SELECT count(*) FROM posts WHERE user_id = 1"))
            )
            == 0
        )
        assert await database.run(lambda connection: connection.execute(text("PRAGMA foreign_key_check")).all()) == []
        database.close()

    asyncio.run(scenario())


def _one(connection: Connection) -> int:
    return connection.execute(text("SELECT 1")).scalar_one()
