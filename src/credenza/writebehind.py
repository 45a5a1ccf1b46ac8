"""Write-behind for one repository: its journal, what delivers it, and what its reads ask first."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, cast

from .arguments import timeout_ns_of
from .codec import Codec
from .durations import Duration, nanoseconds_of
from .engine import Engine
from .errors import ConfigurationError, DeadlockError, JournalError, NotFound, TierError
from .flow.behind import Behind, Terms, over, put, put_landing
from .flow.delivery import Delivery, is_about_source
from .flow.invalidate import names_of, owe
from .flow.write import Make, made_by
from .journal.urls import open_journal
from .runtime.base import Runtime, block
from .runtime.deliverer import Deliverer, DrainReport
from .runtime.sourcecalls import SourceCalls
from .sentinel import DELETED
from .strategies import WriteBehind

_log = logging.getLogger("credenza")

_FLUSH_LOOK_NS = 200_000_000
_STOP_NS = 1_000_000_000
"""How long `close` waits for a batch that is under way; then the journal is closed at its end."""


class Backlog:
    """What a repository with write-behind has that others have not. Thread-safe.

    Args:
        engine: the cache.
        source: where the records are.
        strategy: the options.
        annotation: what records are decoded to.
        key_of: gives the cache's key of a record.
        is_async: the source's methods are coroutines.

    Raises:
        ConfigurationError: the source cannot take batches.
        JournalError: the journal cannot be opened.
    """

    def __init__(
        self,
        engine: Engine,
        source: Any,  # Any: one of two protocols, with optional methods
        strategy: WriteBehind,
        annotation: Any,  # Any: an annotation
        key_of: Callable[[Any], Hashable],
        *,
        is_async: bool,
    ) -> None:
        check_source(source)
        self._engine = engine
        self._source = source
        self._key_of = key_of
        self._is_async = is_async
        self._close_ns = nanoseconds_of(strategy.close_timeout, name="close_timeout")
        self._is_closing = False
        self._report: DrainReport | None = None  # of `close`
        self.where = strategy.journal
        typed, terms = (strategy.codec or Codec()).of(annotation), _terms(strategy)
        self._check_alone()
        journal = self.journal = open_journal(
            strategy.journal, durability=strategy.durability, max_pending=strategy.max_pending
        )
        self.behind = Behind(engine.state, journal, typed, terms, key_of, self._forget, self._forget_soon)
        self.lands = self.behind.landings is not None
        self._calls = SourceCalls(is_async=is_async)
        self.behind.is_in_source = self._calls.is_calling
        if is_async:
            with contextlib.suppress(RuntimeError):  # made before there is a loop: the first use tells
                self._note_loop()
        forgets = engine.state.shared is not None and not journal.is_shared
        delivery = Delivery(self.behind, source, self._calls, forgets=forgets)
        self._deliverer = Deliverer(
            journal,
            delivery,
            self._calls,
            lambda: bool(self.behind.waiting),
            batch_size=terms.batch_size,
            max_delay_ns=terms.max_delay_ns,
        )
        try:
            self._deliverer.start()
        except BaseException:  # no thread can be started
            journal.close()
            raise
        engine.backlogs.add(self)

    def _check_alone(self) -> None:
        if any(isinstance(other, Backlog) and other.where == self.where for other in tuple(self._engine.backlogs)):
            raise ConfigurationError(
                "another repository of this cache has this journal, and each would write the other's records to its source; "
                "give each one a journal of its own, on a server by ?namespace="
            )

    # Reading ----------------------------------------------------------------------------------------------------------

    def loader_of(self, key: Any) -> Callable[[], Any]:  # Any: keys and values of any type
        """Return what loads a record: from the journal, else from the source."""
        return functools.partial(self._load_async if self._is_async else self._load, key)

    def _load(self, key: Any) -> Any:  # Any: as above
        pending = self.behind.find_many((key,))
        return found_in(pending, key) if pending else self._source.load(key)

    async def _load_async(self, key: Any) -> Any:  # Any: as above
        self._note_loop()
        pending = await self._find_async((key,))
        return found_in(pending, key) if pending else await self._source.load(key)

    async def _find_async(self, keys: Sequence[Any]) -> dict[Any, Any]:  # Any: as above
        """Return what is pending; a journal on a server is asked in a worker, so that the loop goes on."""
        self._note_loop()
        find = functools.partial(self.behind.find_many, keys)
        return cast("dict[Any, Any]", await self._engine.tasks.offload(find)) if self.journal.is_shared else find()

    def load_many(self, keys: Sequence[Any]) -> dict[Any, Any]:  # Any: as above
        """Load records: the pending ones from the journal, the others from the source with one call."""
        pending = self.behind.find_many(keys)
        missing = [key for key in keys if key not in pending]
        return over(pending, self._source.load_many(missing) if missing else {})

    async def load_many_async(self, keys: Sequence[Any]) -> dict[Any, Any]:  # Any: as above
        """Do the same with an async source."""
        pending = await self._find_async(keys)
        missing = [key for key in keys if key not in pending]
        return over(pending, await self._source.load_many(missing) if missing else {})

    def pending(self, keys: Sequence[Any]) -> dict[Any, Any]:  # Any: as above
        """Return the pending values of records of which the cache may know less than the journal.

        Behind a shared tier it may: other processes see no journal that is ours alone, and may have loaded an older value.
        """
        if self._engine.state.shared is None or self.journal.is_shared:
            return {}
        owed = [key for key in keys if self.behind.owes(key)]
        return self.behind.find_many(owed) if owed else {}

    # Writing ----------------------------------------------------------------------------------------------------------

    async def put(self, run: Runtime, key: Any, value: Any) -> None:  # Any: as above
        """Return when the journal has the write; `DELETED` deletes."""
        self._check_open()
        await put(self.behind, run, key, value)
        self._deliverer.start()

    async def put_landing(self, run: Runtime, key: Any, value: Any, cache_key: Hashable, make: Make | None) -> None:
        """Do the same without a fence, and return when memory has the write, too; only where `lands`."""  # Any: as above
        self._check_open()
        landings = self.behind.landings
        assert landings is not None
        _, entry, tags = made_by(make, (cache_key,))
        await put_landing(self.behind, landings, run, key, value, landings.begin(cache_key, entry, tags))
        self._deliverer.start()

    def _check_open(self) -> None:
        if self._is_async:
            self._note_loop()
        if self._is_closing:
            raise JournalError("the repository was closed; make a new one")

    def _note_loop(self) -> None:
        self._calls.loop = asyncio.get_running_loop()

    def _forget_soon(self, keys: Sequence[Any]) -> None:  # Any: as above
        """Invalidate records from the journal's own thread, which must not wait for a server."""
        if self._engine.state.shared is None:
            self._forget(keys)
        else:
            self._engine.tasks.workers.submit(functools.partial(self._forget, keys))

    def _forget(self, keys: Iterable[Any]) -> None:  # Any: as above
        """Invalidate records everywhere, from whatever thread this happens in."""
        engine, cache_keys = self._engine, tuple(map(self._key_of, keys))
        if engine.state.is_closed:
            return
        try:
            block(engine.invalidate(engine.threads, cache_keys))
        except TierError:  # under on_fence_failure="raise"; nobody is there to be told
            owe(engine.state, names_of(engine.state, cache_keys), ())

    # Ending -----------------------------------------------------------------------------------------------------------

    async def flush(self, run: Runtime, timeout: Duration | None) -> DrainReport:
        """Wait until the source has taken, or will never take, what was written before this call."""
        if self._would_block_source(run):
            raise DeadlockError(
                "flush would block the event loop that the async source needs; use repository.aio.flush"
            )
        if self._calls.is_calling():
            raise DeadlockError("a source that takes a batch cannot wait for itself to have taken it")
        if self._is_async and run is self._engine.threads and not self._calls.may_call():
            raise DeadlockError("no event loop runs that the async source could use; use repository.aio.flush")
        return await self._drain(run, timeout_ns_of(timeout))

    async def _drain(self, run: Runtime, timeout_ns: int | None) -> DrainReport:
        if self._is_async and run is self._engine.tasks:
            self._note_loop()
        clock_ns = self._engine.state.clock_ns
        ends_ns = None if timeout_ns is None else clock_ns() + timeout_ns
        journal, deliverer = self.journal, self._deliverer
        mark = journal.mark()
        deliverer.start()
        deliverer.hurry()
        try:
            while not journal.is_past(mark):
                left_ns = _FLUSH_LOOK_NS if ends_ns is None else min(_FLUSH_LOOK_NS, ends_ns - clock_ns())
                if left_ns <= 0:
                    break
                await run.join(deliverer.next_round(), None, left_ns)
            ended = deliverer.next_round()
            if deliverer.is_delivering:  # what was given up is invalidated in the end
                await run.join(ended, None, _FLUSH_LOOK_NS)
        finally:
            deliverer.relax()
        return self.report()

    def _would_block_source(self, run: Runtime) -> bool:
        loop = run.stuck_loop()
        return loop is not None and loop is self._calls.loop

    def report(self) -> DrainReport:
        """Return what is left."""
        status = self.journal.status()
        return DrainReport(status.pending, status.dead)

    def _left(self) -> int:
        try:
            return self.journal.count()
        except JournalError:  # somebody has closed it
            return 0

    async def close(self, run: Runtime, timeout: Duration | None) -> DrainReport:
        """Write to the source what is pending, within the time; then close the journal, which keeps the rest."""
        if self._is_closing:
            return self._report if self._report is not None else DrainReport(self._left(), 0)
        self._is_closing = True
        timeout_ns = self._close_ns if timeout is None else nanoseconds_of(timeout, name="timeout")
        if self._is_async and (
            self._would_block_source(run) or not (run is self._engine.tasks or self._calls.may_call())
        ):
            timeout_ns = 0  # nobody runs the loop that the source needs
        try:
            report = self._report = await self._drain(run, timeout_ns)
        except JournalError as error:
            _log.error("a journal cannot be drained: %s", error)  # it says what to do
            report = self._report = DrainReport(self._left(), 0)
        finally:
            self._engine.backlogs.discard(self)
            self._deliverer.stop()
            await run.join(self._deliverer.ended, None, _STOP_NS)
        if not report:
            _log.warning(
                "a journal was closed with %d pending writes; they are delivered after the next start", report.pending
            )
        return report


def check_source(source: Any) -> None:  # Any: is checked here
    """Refuse a source that cannot take batches."""
    if callable(getattr(source, "apply", None)) or callable(getattr(source, "store_many", None)):
        return
    raise ConfigurationError(
        f"write-behind needs a source with store_many(mapping), which may be called twice with the same records, "
        f"or apply(batch); {source!r} has neither"
    )


def _terms(strategy: WriteBehind) -> Terms:
    return Terms(
        batch_size=strategy.batch_size,
        max_delay_ns=nanoseconds_of(strategy.max_delay, name="max_delay"),
        raises_when_full=strategy.when_full == "raise",
        block_ns=None
        if strategy.block_timeout is None
        else nanoseconds_of(strategy.block_timeout, name="block_timeout"),
        max_failures=strategy.max_failures,
        backoff_ns=nanoseconds_of(strategy.backoff, name="backoff"),
        max_backoff_ns=nanoseconds_of(strategy.max_backoff, name="max_backoff"),
        is_away=strategy.is_away or is_about_source,
    )


def found_in(pending: Mapping[Any, Any], key: Any) -> Any:  # Any: of any type
    """Return the pending value of a record; raises `NotFound` where that is to be deleted."""
    if pending[key] is DELETED:
        raise NotFound(f"there is no record {key!r}").about(key)
    return pending[key]
