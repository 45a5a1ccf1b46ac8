"""Many foreign writers, readers that fill a cache, and a follower that is cut off at random: is anything stale at the end?"""

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from tests.feeds.places import Place, following
from tests.support.waiting import Call, results

from credenza import Cache
from credenza.testing import DictTier

USERS = 200
TEAMS = 8


class Storm:
    """One run.

    Args:
        place: what is written, and followed.
        seed: of everything that is drawn.
        changes: how many rows are written in all, about.
    """

    def __init__(self, place: Place, seed: int, changes: int) -> None:
        self.place = place
        self.seed = seed
        self.changes = changes
        self.written = self.cuts = self.reads = self.hits = 0
        self._ends = threading.Event()
        self._one_writer = threading.Lock() if place.kind == "sqlite" else None

    def run(self) -> list[str]:
        """Return the keys that are stale once the follower has caught up."""
        first = self.place.connect()
        rows = [(number, f"n{number}", number % TEAMS) for number in range(USERS)]
        first.execute("BEGIN")
        for row in rows:
            first.execute(self._sql("INSERT INTO users VALUES (?, ?, ?)"), row)
        first.execute("COMMIT")
        with following(self.place, self._cache(), name=self._name()) as (cache, follower):
            others = [Call(lambda n=n: self._read(cache, n)) for n in range(2)] + [Call(self._cut)]
            writers = [Call(lambda n=n: self._write(n)) for n in range(4)]
            try:
                for writer in writers:
                    while not writer.is_done:
                        time.sleep(0.01)
                results(writers)
            finally:
                self._ends.set()
            results(others)
            assert follower.wait_until_caught_up(10), follower.status()
            return self._stale(cache)

    def _name(self) -> str | None:
        """A slot without a name is lost with the connection, and the cache emptied; with one the position must hold."""
        return "shop" if self.place.kind == "logical" else None

    def _cache(self) -> "Cache[Any, Any]":
        return Cache(ttl=None) if self._name() is None else Cache(ttl=None, remote=DictTier())

    def _sql(self, statement: str) -> str:
        return statement.replace("?", "%s") if self.place.is_postgres else statement

    # Writing ----------------------------------------------------------------------------------------------------------

    def _write(self, number: int) -> None:
        chance, connection = random.Random(self.seed * 100 + number), self.place.connect()
        if self.place.is_postgres:
            connection.execute("SET deadlock_timeout = '5ms'")
        mine = 0
        while mine < self.changes // 4:
            if self._one_writer is None:
                mine += self._transaction(chance, connection)
            else:
                with self._one_writer:
                    mine += self._transaction(chance, connection)
        self.written += mine

    def _transaction(self, chance: random.Random, connection: Any) -> int:
        """Write some rows in one transaction, which may take its time, fail, or be rolled back; return how many."""
        count = chance.choice((1, 1, 2, 5, 10))
        connection.execute("BEGIN IMMEDIATE" if self._one_writer else "BEGIN")
        try:
            for _ in range(count):
                self._change(chance, connection)
                if self._one_writer is None and chance.random() < 0.03:
                    time.sleep(chance.random() * 0.03)  # others commit meanwhile
        except (psycopg.Error, sqlite3.Error):  # a deadlock, or a key that is taken
            connection.execute("ROLLBACK")
            return 0
        connection.execute(chance.choice(("COMMIT", "COMMIT", "COMMIT", "COMMIT", "ROLLBACK")))
        return count

    def _change(self, chance: random.Random, connection: Any) -> None:
        user, other = chance.randrange(USERS), chance.randrange(USERS)
        word, team = f"n{chance.random()}", chance.randrange(TEAMS)
        kind = chance.random()
        if kind < 0.6:
            connection.execute(self._sql("UPDATE users SET name = ? WHERE id = ?"), (word, user))
        elif kind < 0.7:
            connection.execute(self._sql("UPDATE users SET team = ? WHERE id = ?"), (team, user))
        elif kind < 0.8:
            connection.execute(self._sql("DELETE FROM users WHERE id = ?"), (user,))
            connection.execute(self._sql("UPDATE users SET id = ? WHERE id = ?"), (user, other))
        elif kind < 0.9:
            upsert = "INSERT INTO users VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name"
            connection.execute(self._sql(upsert), (user, word, team))
        else:
            connection.execute("SAVEPOINT s")
            connection.execute(self._sql("DELETE FROM users WHERE team = ?"), (team,))
            connection.execute(chance.choice(("ROLLBACK TO s", "RELEASE s")))

    def _cut(self) -> None:
        chance = random.Random(self.seed)
        while not self._ends.wait(0.1 + chance.random() * 0.4):
            self.place.cut()
            self.cuts += 1

    # Reading ----------------------------------------------------------------------------------------------------------

    def _read(self, cache: Any, number: int) -> None:
        chance, connection = random.Random(self.seed * 100 + 50 + number), self.place.connect()
        while not self._ends.is_set():
            key = f"user:{chance.randrange(USERS)}" if chance.random() < 0.8 else f"team:{chance.randrange(TEAMS)}"
            self.hits += cache.fetch(key, self._loader(connection, key)).status == "hit"
            self.reads += 1
            self._ends.wait(0.001)
        for key in self._keys():
            cache.get_or_load(key, self._loader(connection, key))

    def _keys(self) -> list[str]:
        return [f"user:{number}" for number in range(USERS)] + [f"team:{number}" for number in range(TEAMS)]

    def _loader(self, connection: Any, key: str) -> Callable[[], Any]:
        kind, _, number = key.partition(":")
        column = "id" if kind == "user" else "team"
        statement = self._sql(f"SELECT id, name, team FROM users WHERE {column} = ? ORDER BY id")
        return lambda: [list(row) for row in connection.execute(statement, (int(number),)).fetchall()]

    def _stale(self, cache: Any) -> list[str]:
        connection = self.place.connect()
        held = {key: cache.get(key, None) for key in self._keys()}
        assert self.hits > self.reads / 20, "hardly anything was served from the cache"
        return [key for key, value in held.items() if value is not None and value != self._loader(connection, key)()]
