"""The thread that has a cache follow a change feed."""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Final, Self

from ..durations import Duration, seconds_of
from ..errors import CacheClosed, CacheError, ConfigurationError, FeedError
from ..forks import Forks
from .base import Batch, Feed
from .followed import Followed, FollowerStatus
from .mapping import Rules

_log = logging.getLogger("credenza")
_forks = Forks()

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 5.0
_TIMEOUT: Final = 10.0
_START_TIMEOUT: Final = 2.0
_STOP_SECONDS: Final = 2.0
_MOST_KEYS: Final = 1000


class Follower:
    """Invalidates what a database says has changed, in a daemon thread, until it or the cache is closed or gone.

    While the database is away nothing is invalidated; what was missed is applied when it is back. Until then an entry may be
    stale for as long as its ttl, or for `max_lag` if that is set. In a forked child a follower goes on from where it was, with
    a connection of its own.

    Args:
        cache: held weakly.
        feed: of this follower alone.
        rules: what is stale.
        max_lag: while the feed is away, empty the cache this often, so that nothing is older than that.

    Raises:
        ConfigurationError: the feed does not tell what the rules need, or it keeps its position for all processes and the
            cache has no shared tier. A database that is away is no error.
    """

    def __init__(self, cache: Followed, feed: Feed, rules: Rules, *, max_lag: Duration | None = None) -> None:
        self._cache = weakref.ref(cache)
        self._feed = feed
        self._rules = rules
        self._max_lag = None if max_lag is None else seconds_of(max_lag, name="max_lag")
        if self._max_lag is not None and self._max_lag <= 0:
            raise ConfigurationError(
                f"max_lag must be positive, got {max_lag!r}; leave it out to keep entries for their ttl"
            )
        if feed.name is not None and cache.health().tier == "none":
            raise ConfigurationError(
                f"the feed has the name {feed.name!r}, so that one process reads it for all, and this cache has no shared tier "
                "to tell the others; leave name= out"
            )
        self._timeout = _TIMEOUT if self._max_lag is None else min(_TIMEOUT, self._max_lag / 2)
        self._pause = feed.rest if self._max_lag is None else min(feed.rest, self._max_lag / 4)
        self._role = "away"
        self._error: str | None = None
        self._applied = self._clears = 0
        self._heard = time.monotonic()
        self._caught_up: float | None = None
        self._is_closed = self._is_forked = False
        self._renew()
        self._begin()

    def _renew(self) -> None:
        self._turn = threading.Lock()  # held while the feed is used: a fork waits for it
        self._news = threading.Condition()  # told after each round
        self._rest = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="credenza-follower", daemon=True)
        self._late = threading.Event()  # set when the thread below is to end
        self._guard = threading.Thread(target=self._keep_promise, name="credenza-follower-lag", daemon=True)

    def _begin(self) -> None:
        try:
            self._rules.check(self._feed.connect(min(self._timeout, _START_TIMEOUT)))
        except FeedError as error:
            self._lose(error)
        except BaseException:
            self._feed.disconnect()
            raise
        _forks.add(self)
        self._start()

    def _start(self) -> None:
        self._thread.start()
        if self._max_lag is not None:
            self._guard.start()

    # For callers ------------------------------------------------------------------------------------------------------

    def status(self) -> FollowerStatus:
        """Return how it stands now. Does not block."""
        caught_up = self._caught_up
        lag = None if caught_up is None else time.monotonic() - caught_up
        role = "closed" if self._is_closed else self._role
        return FollowerStatus(role, lag, self._feed.position, self._applied, self._clears, self._error)

    def wait_until_caught_up(self, timeout: Duration = 10) -> bool:
        """Block until everything that was committed before the call is applied; tell whether it was, in time.

        Raises:
            FeedError: the database cannot be asked how far it is.
        """
        ends = time.monotonic() + seconds_of(timeout, name="timeout")
        mark = self._feed.mark(max(0.0, ends - time.monotonic()))
        while not self._feed.has_reached(mark):
            self.wake()
            left = ends - time.monotonic()
            if left <= 0 or self._is_closed:
                return False
            with self._news:
                if not self._feed.has_reached(mark):
                    self._news.wait(min(left, 0.05))
        return True

    def wake(self) -> None:
        """Have it look now. Does not block."""
        self._rest.set()
        self._feed.wake()

    def close(self) -> None:
        """End the thread, and wait for it a little; the position is kept up to what was applied. Harmless when closed."""
        self._is_closed = True
        self._late.set()
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The thread -------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while self._goes_on():
                try:
                    if self._round():
                        pause = _FIRST_PAUSE
                except CacheClosed:
                    return
                except Exception as error:
                    if self._lose(error) and isinstance(error, ConfigurationError):
                        self._empty()  # the log or its triggers are gone: what was missed since is nowhere
                    self._rest.clear()
                    if self._goes_on():
                        self._rest.wait(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, _LONGEST_PAUSE if self._max_lag is None else self._max_lag / 4)
        finally:
            self._is_closed = True
            self._late.set()
            with self._turn:
                self._leave()

    def _leave(self) -> None:
        """Keep the position a last time, if that can be done."""
        try:
            if self._role == "reading" and self._owes_nothing():
                self._feed.save(_STOP_SECONDS)
        except CacheError:
            _log.debug("the position of a change feed was not kept", exc_info=True)
        finally:
            self._feed.disconnect()

    def _goes_on(self) -> bool:
        return not self._is_closed and self._cache() is not None

    def _round(self) -> bool:
        """Read and apply once; tell whether that was done, and not left to another process."""
        began = time.monotonic()
        batch: Batch | None = None
        with self._turn:
            self._rules.check(self._feed.connect(self._timeout))
            is_reader = self._feed.elect(self._timeout)
            self._find(is_reader=is_reader)
            if is_reader:
                batch = self._feed.read(self._timeout)
        is_kept = True
        if batch is not None:
            self._apply(batch)
            with self._turn:
                is_kept = self._settle(began, batch)
        self._heard = began
        with self._news:
            self._news.notify_all()
        if batch is None or not batch.has_more or not is_kept:
            self._feed.wait(self._pause)
        return batch is not None

    def _apply(self, batch: Batch) -> None:
        cache = self._cache()
        if cache is None:
            return
        stale = self._rules.stale(batch.changes)
        if batch.is_gap or stale.is_all:
            self._clears += 1
            cache.clear()
        else:
            for start in range(0, len(stale.keys), _MOST_KEYS):
                keys: tuple[Hashable, ...] = tuple(stale.keys[start : start + _MOST_KEYS])
                cache.invalidate(*keys)
            if stale.tags:
                cache.invalidate_tags(*stale.tags)
        self._applied += len(batch.changes)

    def _settle(self, began: float, batch: Batch) -> bool:
        """Move on, now that the cache has forgotten; tell whether the position was kept: the shared tier must have, too."""
        self._feed.settle()
        may_keep = self._feed.name is None or self._owes_nothing()
        if may_keep:
            self._feed.save(self._timeout)
        if not batch.has_more:
            self._caught_up = began
            self._feed.trim(self._timeout)
        return may_keep

    def _owes_nothing(self) -> bool:
        cache = self._cache()
        return cache is not None and not cache.health().owed

    def _find(self, *, is_reader: bool) -> None:
        if self._error is not None:
            _log.warning("the change feed is back")
        self._error = None
        self._role = "reading" if is_reader else "standby"

    def _lose(self, error: Exception) -> bool:
        """Note that the feed is away, in the log once and not for each attempt; tell whether it was there before."""
        said = str(error) if isinstance(error, CacheError) else type(error).__name__
        is_new = self._error is None
        if is_new:
            _log.warning("the change feed is away, and the cache follows nothing until it is back: %s", said)
            if not isinstance(error, CacheError):
                _log.debug("a change feed failed", exc_info=error)
        self._role, self._error = "away", said
        with self._turn:
            self._feed.disconnect()
        return is_new

    def _keep_promise(self) -> None:
        """Empty the cache before `max_lag` is over without a word, whatever the other thread is waiting for."""
        max_lag = self._max_lag or 0.0
        while not self._late.wait(max_lag / 4) and self._goes_on():
            if time.monotonic() - self._heard >= max_lag / 2:
                self._empty()

    def _empty(self) -> None:
        self._heard = time.monotonic()
        cache = self._cache()
        if cache is None:
            return
        self._clears += 1
        try:
            cache.clear()
        except CacheClosed:
            self._is_closed = True
        except CacheError:
            _log.warning("the cache could not be emptied while its change feed is away")

    # Forks ------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait until the feed is not in use, and have it leave nothing open."""
        self._is_forked = self._turn.acquire(timeout=1.0)
        if self._is_forked:
            self._feed.before_fork()

    def after_in_parent(self) -> None:
        """Go on."""
        if self._is_forked:
            self._feed.after_in_parent()
            self._turn.release()

    def after_in_child(self) -> None:
        """Go on with a thread and a connection of the child's own."""
        self._feed.after_in_child()
        is_alive = self._goes_on()
        self._renew()
        if is_alive:
            self._start()
