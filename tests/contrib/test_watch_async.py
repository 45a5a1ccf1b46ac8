"""Watched commits of async sessions: the event loop goes on while a fence waits.

SQLAlchemy runs async sessions in greenlets; where greenlet is not installed a thread stands in for one below.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Session
from tests.contrib.watched import KEYS, Database, User, postgres, rename, sqlite
from tests.support.processes import FENCE_SECONDS, Process, World
from tests.support.waiting import DEADLINE, Call, turns, until, wait_until

from credenza import ConfigurationError, TierError
from credenza.contrib.sqlalchemy import unit, watch
from credenza.tiers.base import Clear, Fence

HAS_GREENLET = importlib.util.find_spec("greenlet") is not None
needs_greenlet = pytest.mark.skipif(not HAS_GREENLET, reason="async sessions need greenlet")


@pytest.fixture
def world() -> Iterator[World]:
    """A tier that processes share."""
    made = World("async")
    yield made
    made.end()


async def loop_goes_on() -> bool:
    """Return once the event loop has taken some turns."""
    for _ in range(20):
        await asyncio.sleep(0)
    return True


# With a stand-in for the greenlet -------------------------------------------------------------------------------------


class StandIn:
    """Runs plain functions beside an event loop, which awaits what they wait for, as greenlets do.

    Attributes:
        waits: how often one of them has waited.
        pending: what it waits for; cancelling that is what cancelling its task is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_there = True
        self.waits = 0
        self.pending: concurrent.futures.Future[Any] | None = None

    def await_only(self, awaitable: Any) -> Any:
        """Have the loop await it."""
        if not self.is_there:
            awaitable.close()
            raise MissingGreenlet
        self.waits += 1
        self.pending = asyncio.run_coroutine_threadsafe(awaitable, self._loop)
        try:
            return self.pending.result(DEADLINE)
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None

    async def spawn(self, function: Callable[[], Any]) -> Any:
        """Await a plain function."""
        return await asyncio.to_thread(function)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database whose driver says that it is an async one."""
    with sqlite(tmp_path) as found:
        found.engine.dialect.is_async = True
        yield found


@pytest.fixture
def one(world: World) -> Process:
    """A process with an event loop."""
    return world.process(maxsize=0)


@pytest.fixture
def stand_in(one: Process, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Stands in for greenlets of the process's event loop."""
    made = StandIn(one.loop.loop)
    monkeypatch.setattr(unit, "await_only", made.await_only)
    return made


def commit(database: Database) -> None:
    with database.sessions() as session:
        rename(session, "Anna")
        session.commit()


@pytest.mark.parametrize("kind", [Fence, Clear])
def test_loop_goes_on_while_a_fence_waits_for_the_tier(
    one: Process, database: Database, stand_in: StandIn, kind: type
) -> None:
    """Raising and clearing are awaited by the event loop of the session."""

    async def main() -> None:
        hold = one.tier.hold(kind)
        task = asyncio.create_task(stand_in.spawn(lambda: commit(database)))
        await until(lambda: hold.reached, "the fence waits for the tier")
        assert await loop_goes_on()
        assert not task.done()
        hold.release()
        await task

    with watch(database.sessions, one.cache, keys=KEYS):
        one.loop.result(main())
    assert stand_in.waits == 2
    assert (one.tier.asked(Fence), one.tier.asked(Clear)) == (2, 2)
    assert database.name_of(1) == "Anna"


def test_async_commit_that_cannot_be_fenced_is_refused(world: World, database: Database, stand_in: StandIn) -> None:
    """Its error is raised where the session commits, and nothing is written."""
    one = world.process(maxsize=0, on_fence_failure="raise")
    one.tier.refused = (Fence,)
    with watch(database.sessions, one.cache, keys=KEYS), pytest.raises(TierError):
        world.processes[0].loop.result(stand_in.spawn(lambda: commit(database)))
    assert database.name_of(1) == "Ann"


def test_cancelled_fence_keeps_the_commit_from_happening(
    world: World, one: Process, database: Database, stand_in: StandIn
) -> None:
    """A client that leaves while its fence is raised has not written, and leaves no fence."""

    hold = one.tier.hold(Fence)
    with watch(database.sessions, one.cache, keys=KEYS):
        call = Call(lambda: commit(database))
        hold.wait_until_reached()
        wait_until(lambda: stand_in.pending, "the commit waits for its fence")
        assert stand_in.pending is not None
        stand_in.pending.cancel()
        assert isinstance(call.error(), asyncio.CancelledError)
        hold.release()
    assert database.name_of(1) == "Ann"
    wait_until(lambda: world.record("user:1")[:1] != b"B", "the fence is taken down")


def test_async_driver_outside_of_a_loop_uses_the_plain_face(
    one: Process, database: Database, stand_in: StandIn
) -> None:
    """Where nothing can be awaited the fence blocks, as the driver does."""
    stand_in.is_there = False
    with watch(database.sessions, one.cache, keys=KEYS):
        commit(database)
    assert (one.tier.asked(Fence), one.tier.asked(Clear)) == (2, 2)


def test_connection_left_to_the_collector_lets_its_fence_expire(
    world: World, one: Process, database: Database, stand_in: StandIn
) -> None:
    """A fence that nobody can await any more is no longer renewed."""
    world.may_leave_records = True

    def leave() -> None:
        with database.engine.connect() as connection:
            made.stale(connection, "user:1")
            rename(Session(connection), "Anna")
            connection.commit()
            stand_in.is_there = False

    with watch(database.sessions, one.cache, keys=KEYS) as made:
        one.loop.result(stand_in.spawn(leave))
        assert world.record("user:1")[:1] == b"B"
        one.loop.result(until(lambda: not one.shared.barriers, "the fence is given up"))
    world.advance(FENCE_SECONDS + 1)
    assert world.record("user:1")[:1] != b"B"


# With the real one ----------------------------------------------------------------------------------------------------


@needs_greenlet
def test_async_sessions_commit_and_roll_back(postgres_url: URL) -> None:
    """What is true for plain sessions is true for async ones: factories, connections, statements."""
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
    from tests.contrib.watched import Reader

    async def main() -> None:
        engine = create_async_engine(postgres_url)
        sessions, others = async_sessionmaker(engine), async_sessionmaker(engine)
        try:
            with watch(sessions, reader.cache, keys=KEYS) as made:
                reader.put("user:1", "user:2", "named")
                async with others() as session:
                    (await session.get_one(User, 1)).name = "Anna"
                    await session.commit()
                assert reader.kept("user:1") == {"user:1"}
                async with sessions() as session:
                    (await session.get_one(User, 1)).name = "Annika"
                    await session.flush()
                    await session.rollback()
                    assert reader.kept("user:1") == {"user:1"}
                    (await session.get_one(User, 1)).name = "Annika"
                    made.stale(session, "named")
                    await session.commit()
                assert reader.kept("user:1", "user:2", "named") == {"user:2"}
                async with engine.connect() as connection:
                    made.stale(connection, "user:2")
                    await connection.exec_driver_sql("UPDATE watched_users SET name = 'X'")
                    await connection.commit()
                assert reader.kept("user:2") == set()
        finally:
            await engine.dispose()

    with postgres(postgres_url) as database:
        reader = Reader(database)
        asyncio.run(main())


@needs_greenlet
@pytest.mark.parametrize("kind", [Fence, Clear])
def test_loop_goes_on_while_the_fence_of_an_async_session_waits(world: World, postgres_url: URL, kind: type) -> None:
    """A slow tier holds up one commit and nobody else."""
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    one = world.process(maxsize=0)

    async def main() -> None:
        engine = create_async_engine(postgres_url)
        sessions = async_sessionmaker(engine)
        try:
            with watch(sessions, one.cache, keys=KEYS):
                async with sessions() as session:
                    (await session.get_one(User, 1)).name = "Anna"
                    hold = one.tier.hold(kind)
                    task: Awaitable[None] = asyncio.create_task(session.commit())
                    await until(lambda: hold.reached, "the fence waits for the tier")
                    assert await loop_goes_on()
                    hold.release()
                    await task
        finally:
            await engine.dispose()

    with postgres(postgres_url) as database:
        one.loop.result(main())
        assert database.name_of(1) == "Anna"
    assert (one.tier.asked(Fence), one.tier.asked(Clear)) == (2, 2)


@needs_greenlet
@pytest.mark.parametrize("kind", [Fence, Clear])
def test_cancelled_async_commit_leaves_nothing_stale(world: World, postgres_url: URL, kind: type) -> None:
    """Before COMMIT it is not made; after it the fence is made up for."""
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    one, two = world.pair(maxsize=0)

    async def main() -> None:
        engine = create_async_engine(postgres_url)
        sessions = async_sessionmaker(engine)
        try:
            with watch(sessions, one.cache, keys=KEYS):
                async with sessions() as session:
                    (await session.get_one(User, 1)).name = "Anna"
                    hold = one.tier.hold(kind)
                    task = asyncio.create_task(session.commit())
                    await until(lambda: hold.reached, "the fence waits for the tier")
                    task.cancel()
                    await turns()
                    hold.release()
                    with pytest.raises(asyncio.CancelledError):
                        await task
        finally:
            await engine.dispose()

    with postgres(postgres_url) as database:
        two.read("user:1", lambda: database.name_of(1))
        one.loop.result(main())
        expected = "Ann" if kind is Fence else "Anna"
        assert database.name_of(1) == expected
        wait_until(lambda: not one.shared.barriers, "the fence is given up")
        assert two.read("user:1", lambda: database.name_of(1)) == expected
        world.advance(FENCE_SECONDS + 1)
        assert two.read("user:1", lambda: database.name_of(1)) == expected


@needs_greenlet
def test_plain_async_session_class_cannot_be_watched(world: World) -> None:
    """All async sessions are made of it."""
    from sqlalchemy.ext.asyncio import AsyncSession

    with pytest.raises(ConfigurationError, match="cannot be watched"):
        watch(AsyncSession, world.process().cache, keys=KEYS)
