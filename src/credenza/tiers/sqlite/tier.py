"""The SQLite tier: which thread performs a batch, on which connection, until when."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from ...errors import ConfigurationError
from ..base import Get, Near, Operation, Reply, TierError
from .batches import GET, Batches, NeedsWriting, may_only_read
from .boot import now_ms
from .connections import Link, Links, forks
from .files import code_of, insist, is_busy
from .space import Space

T = TypeVar("T")

_WORKERS: Final = 2
_READERS: Final = 40
_INLINE: Final = 64
_POLL_SECONDS: Final = 0.003
_PAUSE: Final = 0.000_2
_WATCH_NS: Final = 1_000_000_000
_BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


_PATIENCE = 0.5
"""So much later than its thread an event loop gives up: the thread is to say first what is wrong."""


class Busy(TierError):
    """Somebody else kept the file locked for all the time that there was."""


class SqliteTier(Near):
    """One SQLite file in WAL mode that processes of one machine share.

    It may live on a local file system only. Beside it SQLite keeps `-wal` and `-shm`, and the tier a `-lock`. The file is
    begun anew when the machine was restarted, and when SQLite finds it broken: then it is moved to `<path>.corrupt-1` (`-2`,
    `-3`, no more than that) with a warning in the log. A file that is not ours is never changed.

    Looking values up reads from the file directly, also on an event loop, where it takes some microseconds; everything
    else goes to a worker thread there.

    Args:
        path: the file; its directory must exist and be writable.
        namespace: the prefix of the names, and whose log is read.
        max_bytes: how long an envelope may be before `Get` cuts it off.
        max_file_bytes: how large the file may become; values that would expire first are evicted.

    Raises:
        ConfigurationError: no file can be at that path, or an option is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = "credenza",
        max_bytes: int = 1_000_000,
        max_file_bytes: int = 1 << 30,
    ) -> None:
        self.path = os.path.abspath(os.fspath(path)) if os.fspath(path) else ""
        if not self.path or os.fspath(path) == ":memory:" or os.path.isdir(self.path):
            raise ConfigurationError(f"the SQLite tier needs the path of a file that processes share, got {path!r}")
        if max_file_bytes < 4 * max_bytes:
            raise ConfigurationError(f"max_file_bytes must be at least 4 * max_bytes, got {max_file_bytes!r}")
        self.namespace = namespace
        self.max_bytes = max_bytes
        self._batches = Batches(namespace, max_bytes)
        self._space = Space(max_file_bytes)
        self._links = Links(self.path, self._space.bound, _READERS)
        self._writer = Links(self.path, self._space.bound, 1)  # readers, however many, do not keep it waiting
        self._writing = threading.Lock()  # one writer of this process at a time: waiting in line beats trying again
        self._hiring = threading.Lock()  # guards `_workers` and `_closing`
        self._workers: ThreadPoolExecutor | None = None
        self._closing = threading.Event()  # of those who watch now
        forks.add(self)

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform`; a batch that writes is one transaction: all of it is performed, or nothing."""
        replies = self._at_once(operations)
        return self._until(operations, time.monotonic_ns() + timeout_ns) if replies is None else replies

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        """See `Tier.perform_async`; a batch that is cancelled may still be performed."""
        replies = self._at_once(operations)
        if replies is not None:
            return replies
        work = self._submitted(operations, time.monotonic_ns() + timeout_ns)
        try:
            async with asyncio.timeout(timeout_ns / 1_000_000_000 + _PATIENCE):
                return await asyncio.wrap_future(work)
        except TimeoutError:
            raise self._late() from None

    def watch(self, after: int, timeout_ns: int) -> None:
        """See `Tier.watch`; the file is looked at every few milliseconds."""
        deadline_ns = time.monotonic_ns() + timeout_ns
        with self._hiring:
            closing = self._closing
        while not closing.is_set() and self._sequence() == after:
            left = (deadline_ns - time.monotonic_ns()) / 1_000_000_000
            if left <= 0 or closing.wait(min(_POLL_SECONDS, left)):
                return

    def inspect(self, timeout_ns: int) -> None:
        """Open the file to see whether it can be used.

        Raises:
            ConfigurationError: it is no file of ours, or one of a later version.
            TierError: it cannot be opened now.
        """
        self._links.give_back(self._links.take(time.monotonic_ns() + timeout_ns))

    def forget_parent(self) -> None:
        """Begin anew in a forked child; the parent closed its connections before it forked."""
        self._writing, self._hiring = threading.Lock(), threading.Lock()
        self._workers, self._closing = None, threading.Event()

    def before_fork(self) -> None:
        """Close all connections while the process forks; see `connections`."""
        self._links.before_fork()
        self._writer.before_fork()

    def after_in_parent(self) -> None:
        """Go on."""
        self._links.after_in_parent()
        self._writer.after_in_parent()

    def after_in_child(self) -> None:
        """Begin anew: locks and threads of the parent are its own."""
        self._links.after_in_child()
        self._writer.after_in_child()
        self.forget_parent()

    def close(self) -> None:
        """Close the file and end the threads, after the batches that they perform; wake whoever watches."""
        self._close(waits=True)

    async def close_async(self) -> None:
        """Do as `close` without waiting for batches that the threads perform."""
        self._close(waits=False)

    def _close(self, *, waits: bool) -> None:
        with self._hiring:
            workers, self._workers = self._workers, None
            self._closing.set()
            self._closing = threading.Event()
        if workers is not None:
            workers.shutdown(wait=waits)
        self._links.close()
        self._writer.close()

    def _submitted(self, operations: Sequence[Operation], deadline_ns: int) -> Future[list[Reply]]:
        """Let a thread perform a batch, unless it gets round to it too late."""

        def work() -> list[Reply]:
            if time.monotonic_ns() >= deadline_ns:
                raise self._late()
            return self._until(operations, deadline_ns)

        try:
            with self._hiring:
                if self._workers is None:
                    self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="credenza-sqlite")
                return self._workers.submit(work)
        except RuntimeError as error:  # the interpreter is ending
            raise TierError(f"no thread is left to use the cache file {self.path!r}") from error

    def _late(self) -> TierError:
        return TierError(f"the cache file {self.path!r} did not answer in time")

    def _sequence(self) -> int:
        return self._on_link(self._links, self._batches.sequence, time.monotonic_ns() + _WATCH_NS)

    # Batches ----------------------------------------------------------------------------------------------------------

    def look(self, name: bytes) -> bytes | None:
        """See `Near.look`."""
        links = self._links
        link = links.take_idle()
        if link is None:
            return None
        try:
            row = link.execute(GET, (name, now_ms())).fetchone()
        except BaseException as error:
            links.throw_away(link)
            if isinstance(error, sqlite3.Error):
                return None  # the long way says what is wrong
            raise
        links.give_back(link)
        return row[0][: self._batches.most_bytes] if row and type(row[0]) is bytes else b""

    def _at_once(self, operations: Sequence[Operation]) -> list[Reply] | None:
        """Look a few records up on a connection that is at hand; None if that takes more than looking."""
        names = [operation.name for operation in operations if isinstance(operation, Get)]
        if len(operations) > _INLINE or len(names) < len(operations):
            return None
        if len(names) == 1:
            record = self.look(names[0])
            return None if record is None else [record]
        links = self._links
        link = links.take_idle()
        if link is None:
            return None
        try:
            link.execute("BEGIN")
            replies = self._batches.read(link.connection, operations)
            link.execute("COMMIT")
        except BaseException as error:
            links.throw_away(link)
            if isinstance(error, sqlite3.Error):
                return None  # as above
            raise
        links.give_back(link)
        return replies

    def _until(self, operations: Sequence[Operation], deadline_ns: int) -> list[Reply]:
        if may_only_read(operations):
            try:
                return self._on_link(self._links, lambda connection: self._read(connection, operations), deadline_ns)
            except NeedsWriting:
                pass
        try:
            return self._write_in_turn(operations, deadline_ns)
        except Busy as error:  # the file can be read, so it is not away: it refuses
            return [error] * len(operations)

    def _write_in_turn(self, operations: Sequence[Operation], deadline_ns: int) -> list[Reply]:
        if not self._writing.acquire(timeout=max(0, deadline_ns - time.monotonic_ns()) / 1_000_000_000):
            raise Busy(f"the cache file {self.path!r} is busy: other threads write to it")
        try:
            return self._on_link(
                self._writer, lambda connection: self._write(connection, operations, deadline_ns), deadline_ns
            )
        finally:
            self._writing.release()

    def _read(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Reply]:
        connection.execute("BEGIN")
        try:
            replies = self._batches.read(connection, operations)
        except NeedsWriting:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return replies

    def _write(self, connection: sqlite3.Connection, operations: Sequence[Operation], deadline_ns: int) -> list[Reply]:
        insist(connection, "BEGIN IMMEDIATE", deadline_ns)
        try:
            self._space.sweep(connection, len(operations))
            replies = self._batches.write(connection, operations)
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_FULL:
                raise
        else:
            return replies
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        insist(connection, "BEGIN IMMEDIATE", deadline_ns)
        self._space.make_room(connection)
        replies = self._batches.write(connection, operations)
        connection.execute("COMMIT")
        return replies

    def _on_link(self, links: Links, work: Callable[[sqlite3.Connection], T], deadline_ns: int) -> T:
        """Do some work on a connection, again while somebody else holds a lock that it needs."""
        while True:
            try:
                link = links.take(deadline_ns)
            except ConfigurationError as error:  # while batches are performed, the tier is merely away
                raise TierError(str(error)) from error
            try:
                result = work(link.connection)
            except NeedsWriting:
                links.give_back(link)
                raise
            except sqlite3.Error as error:
                if is_busy(error) and not link.connection.in_transaction:
                    links.give_back(link)
                else:
                    links.throw_away(link)
                if is_busy(error) and time.monotonic_ns() < deadline_ns:
                    time.sleep(_PAUSE)
                    continue
                self._replace_if_broken(link, error, deadline_ns)
                kind = Busy if is_busy(error) else TierError
                raise kind(f"the cache file {self.path!r} did not do what it was asked: {error}") from error
            except BaseException:
                links.throw_away(link)
                raise
            links.give_back(link)
            return result

    def _replace_if_broken(self, link: Link, error: sqlite3.Error, deadline_ns: int) -> None:
        """Begin a new file instead of one that SQLite cannot read any more."""
        if code_of(error) in _BROKEN:
            self._links.close()
            self._writer.replace_file(link.identity, deadline_ns)
