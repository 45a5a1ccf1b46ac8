"""The database as coroutines: statements run in worker threads, and stop when nobody waits for them any more.

SQLAlchemy's plain engine serves both databases with one code path. A worker thread cannot be cancelled, its statement
can: SQLite's `interrupt` and psycopg's `cancel_safe` may both be called from another thread.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar  # Any: a DBAPI connection has no common type

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from .errors import DatabaseFailed
from .seeding import open_engine

T = TypeVar("T")

_log = logging.getLogger("credenza.demo")
_BETWEEN_STOPS = 0.02
_STOP_TIMEOUT = 2.0


class Database:
    """A pool of connections, with one worker thread for each, and counters.

    Args:
        url: which database.
        connections: how many.
        on_query: called with the number of queries, before each of them reaches the database.

    Attributes:
        queries: statements that have reached the database.
        cancelled: pieces of work whose statement was stopped.
    """

    def __init__(
        self, url: URL, *, connections: int = 8, on_query: Callable[[int], None] = lambda queries: None
    ) -> None:
        self._on_query = on_query
        self.queries = 0
        self.cancelled = 0
        self._lock = threading.Lock()  # guards the counters and the set of jobs, which every worker writes
        self._jobs: set[_Job[Any]] = set()
        self._engine = open_engine(url, connections=connections)
        self._workers = ThreadPoolExecutor(connections, thread_name_prefix="database")
        self._stopping: set[asyncio.Task[None]] = set()
        event.listen(self._engine, "before_cursor_execute", self._count_query)

    @property
    def running(self) -> int:
        """How many pieces of work connections are busy with now."""
        return len(self._jobs)

    @property
    def engine(self) -> Engine:
        """The engine itself, for tests that watch it."""
        return self._engine

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and return its result.

        Cancelling the awaiting task stops the statement that is running, and returns when it has stopped. The
        transaction is rolled back then, as it is when `work` raises.

        Raises:
            DatabaseFailed: the database could not answer; its cause is the driver's error.
        """
        job = _Job(self._engine, work)
        done = self._workers.submit(self._run, job)
        outcome = asyncio.wrap_future(done)
        try:
            await asyncio.wait([outcome])
        except asyncio.CancelledError:
            if done.cancel():  # still queued
                raise
            stop = asyncio.create_task(self._stop(job, outcome))
            self._stopping.add(stop)
            stop.add_done_callback(self._stopping.discard)
            await asyncio.shield(stop)
            raise
        try:
            return outcome.result()
        except SQLAlchemyError as exc:
            raise DatabaseFailed("the database could not answer") from exc

    def close(self) -> None:
        """Close all connections; blocks until the statements that still run have been stopped."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        while jobs := self._running_jobs():
            for job in jobs:
                job.stop()
            time.sleep(_BETWEEN_STOPS)
        self._workers.shutdown(wait=True)
        self._engine.dispose()

    def _run(self, job: "_Job[T]") -> T:
        with self._lock:
            self._jobs.add(job)
        try:
            return job.run()
        finally:
            with self._lock:
                self._jobs.discard(job)

    def _running_jobs(self) -> "list[_Job[Any]]":
        with self._lock:
            return list(self._jobs)

    async def _stop(self, job: "_Job[T]", outcome: "asyncio.Future[T]") -> None:
        """Stop until it has stopped: a stop between two statements hits nothing, and the next one would run on."""
        with self._lock:
            self.cancelled += 1
        while not outcome.done():
            await asyncio.to_thread(job.stop)
            await asyncio.wait([outcome], timeout=_BETWEEN_STOPS)
        outcome.exception()  # read, so that nobody complains that it never was

    def _count_query(self, *_: object) -> None:
        with self._lock:
            self.queries += 1
            self._on_query(self.queries)


class _Job(Generic[T]):
    """One piece of work, and the connection that it is busy with."""

    def __init__(self, engine: Engine, work: Callable[[Connection], T]) -> None:
        self._engine = engine
        self._work = work
        self._lock = threading.Lock()  # guards the two below
        self._connection: Any = None  # the driver's, while the work uses it
        self._is_stopped = False

    def run(self) -> T:
        """Do the work; runs in a worker thread."""
        with self._engine.connect() as connection:
            with self._lock:
                if self._is_stopped:
                    raise _Stopped
                self._connection = connection.connection.driver_connection
            try:
                with connection.begin():
                    return self._work(connection)
            finally:
                with self._lock:
                    self._connection = None
                if self._is_stopped:
                    # PostgreSQL delivers a cancellation when it pleases: nobody else may get it with this connection.
                    connection.invalidate()

    def stop(self) -> None:
        """Stop the statement that is running; may be called again, from any thread."""
        with self._lock:
            self._is_stopped = True
            if self._connection is None:
                return
            try:
                _stop_statement(self._connection)
            except Exception as exc:  # any driver's; the statement then ends by itself
                _log.warning("a statement could not be stopped: %s", exc)


class _Stopped(Exception):
    """The work was given up before it began."""


def _stop_statement(connection: Any) -> None:  # a driver's connection
    if hasattr(connection, "interrupt"):
        connection.interrupt()
    else:
        connection.cancel_safe(timeout=_STOP_TIMEOUT)
