"""Many foreign writers, readers that fill a cache, and a follower that is cut off at random: is anything stale in the end?"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.feeds.places import Place

from bench.feeds.following import Following, NewFeed
from bench.feeds.tally import Tally
from bench.feeds.writers import IDLE_TEAM, IDLE_USERS, TEAMS, USERS, Idler, Writer, Writers

WRITERS: Final = 4
READERS: Final = 2


class Storm:
    """One run.

    Writers go on for a part of their changes, then hold still until the follower has caught up; then each entry that is in the
    cache is compared with its row.

    Args:
        place: what is written, and followed.
        seed: of everything that is drawn.
        changes: how many are made, about.
        checks: in how many parts.
        new_feed: makes the feeds that are followed; those of the place if it is left out.

    Attributes:
        tally: what happened.
    """

    def __init__(
        self, place: Place, seed: int, changes: int, *, checks: int = 10, new_feed: NewFeed | None = None
    ) -> None:
        self.tally = Tally()
        self._place = place
        self._seed = seed
        self._share = -(-changes // checks // WRITERS)
        self._checks = checks
        self._new_feed = new_feed
        self._ends = threading.Event()
        self._writers = Writers(place, self.tally)

    def run(self, *, is_control: bool = False) -> list[str]:
        """Return the keys that were found stale. A control ends with the first of them."""
        began = time.monotonic()
        self._writers.fill(self._place.connect())
        following = Following(self._place, self._new_feed)
        try:
            following.catch_up()
            with ThreadPoolExecutor(WRITERS + READERS + 2) as pool:
                others = [pool.submit(self._read, following.cache, number) for number in range(READERS)]
                others += [pool.submit(self._harm, following), pool.submit(self._idle)]
                try:
                    self._blow(following, pool, is_control=is_control)
                finally:
                    self._ends.set()
            for other in others:
                other.result()
        finally:
            following.close()
        self.tally.seconds = time.monotonic() - began
        return self.tally.stale

    def _blow(self, following: Following, pool: ThreadPoolExecutor, *, is_control: bool) -> None:
        writers = [Writer(self._writers, self._seed * 100 + number) for number in range(WRITERS)]
        for _ in range(self._checks):
            for done in [pool.submit(writer.write, self._share) for writer in writers]:
                done.result()
            with self._writers.ends:
                following.catch_up()
                self._compare(following.cache)
            if is_control and self.tally.stale:
                return

    def _compare(self, cache: Any) -> None:
        connection = self._place.connect()
        self.tally.checks += 1
        for key in KEYS:
            value = cache.get(key, None)
            if value is not None:
                self.tally.compared += 1
                if value != self._loader(connection, key)():
                    self.tally.stale.append(key)
        connection.close()
        if self.tally.stale:
            cache.clear()

    # Beside the writers -----------------------------------------------------------------------------------------------

    def _harm(self, following: Following) -> None:
        chance = random.Random(self._seed)
        while not self._ends.wait(0.1 + chance.random() * 0.4):
            if self._place.is_postgres and chance.random() < 0.6:
                self._place.cut()
                self.tally.cuts += 1
            else:
                self.tally.crashes += following.crash()

    def _idle(self) -> None:
        idler = Idler(self._writers, self._seed * 100 + 90)
        while not self._ends.is_set():
            idler.write(self._ends)
            self._ends.wait(random.random())  # while a row is locked the table can be neither emptied nor altered

    def _read(self, cache: Any, number: int) -> None:
        chance, connection = random.Random(self._seed * 100 + 50 + number), self._place.connect()
        while not self._ends.wait(0.0005):
            key = chance.choice(KEYS)
            is_hit = cache.fetch(key, self._loader(connection, key)).status == "hit"
            with self._writers.lock:
                self.tally.hits += is_hit
                self.tally.reads += 1

    def _loader(self, connection: Any, key: str) -> Callable[[], Any]:
        kind, _, number = key.partition(":")
        column = "id" if kind == "user" else "team"
        statement = self._writers.sql(f"SELECT id, name, team FROM users WHERE {column} = ? ORDER BY id")
        return lambda: [list(row) for row in connection.execute(statement, (int(number),)).fetchall()]


KEYS: Final = [f"user:{number}" for number in range(USERS + IDLE_USERS)] + [
    f"team:{number}" for number in (*range(TEAMS), IDLE_TEAM)
]
