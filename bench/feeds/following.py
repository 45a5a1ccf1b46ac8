"""A cache, and a follower of it that can be cut off and made to die in the middle of its work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.feeds.places import Place, follow

from credenza import Cache, CacheClosed, FeedError
from credenza.feeds.follower import Follower
from credenza.testing import DictTier

NAME = "shop"
_PATIENCE = 0.3
NewFeed = Callable[[], Any]
"""Makes a feed that keeps its position under `NAME`."""


class Followed:
    """The cache, seen by one follower: closed for it when it is to die."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._lock = threading.Lock()  # guards the two below
        self._is_doomed = self._is_dead = False

    def doom(self) -> None:
        """Die at the next call."""
        with self._lock:
            self._is_doomed = True

    def pardon(self) -> bool:
        """Go on, unless it is too late; tell whether it is."""
        with self._lock:
            self._is_doomed = False
            return self._is_dead

    @property
    def is_dead(self) -> bool:
        return self._is_dead

    def invalidate(self, *keys: Any) -> None:
        self._die()
        self._cache.invalidate(*keys)

    def invalidate_tags(self, *tags: str) -> None:
        self._die()
        self._cache.invalidate_tags(*tags)

    def clear(self) -> None:
        self._die()
        self._cache.clear()

    def health(self) -> Any:
        return self._cache.health()

    def _die(self) -> None:
        with self._lock:
            self._is_dead |= self._is_doomed
            if self._is_dead:
                raise CacheClosed("the follower dies before it has applied what it read")


class Following:
    """A cache with a shared tier, whose follower is replaced when it dies and goes on from the position that is kept.

    Attributes:
        cache: what readers use.
    """

    def __init__(self, place: Place, new_feed: NewFeed | None = None) -> None:
        self.cache: Cache[Any, Any] = Cache(ttl=None, remote=DictTier())
        self._place = place
        self._new_feed = new_feed or (lambda: place.feed(NAME))
        self._lock = threading.Lock()  # held while the follower is replaced
        self._begin()

    def catch_up(self, seconds: float = 30.0) -> None:
        """Return once everything that was committed is applied."""
        with self._lock:
            ends = time.monotonic() + seconds
            while not self._has_caught_up(ends - time.monotonic()):
                assert time.monotonic() < ends, self._follower.status()

    def crash(self) -> bool:
        """Have the follower die before it applies the next batch, and begin another one; tell if there was a batch."""
        with self._lock:
            self._followed.doom()
            ends = time.monotonic() + _PATIENCE
            while not self._followed.is_dead and time.monotonic() < ends:
                time.sleep(0.001)
            if not self._followed.pardon():
                return False
            self._follower.close()
            self._begin()
            return True

    def _has_caught_up(self, seconds: float) -> bool:
        try:
            return self._follower.wait_until_caught_up(seconds)
        except FeedError:  # the connection that asked was cut off
            return False

    def close(self) -> None:
        self._follower.close()
        self.cache.close()

    def _begin(self) -> None:
        self._followed = Followed(self.cache)
        self._follower: Follower = follow(self._followed, self._new_feed())
