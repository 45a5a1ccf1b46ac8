"""Foreign clients: transactions that take their time, fail, are rolled back and are committed out of order."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from tests.feeds.places import Place

from bench.feeds.tally import Tally

USERS: Final = 200
TEAMS: Final = 8
IDLE_USERS: Final = 20
IDLE_TEAM: Final = 99
_ERRORS: Final = (psycopg.Error, sqlite3.Error)  # a deadlock, a lock, or a key that is taken


class Writers:
    """What all of them share.

    Attributes:
        lock: guards the tally.
        ends: held while an idle transaction ends, and by whoever compares.
    """

    def __init__(self, place: Place, tally: Tally) -> None:
        self.place = place
        self.tally = tally
        self.lock = threading.Lock()
        self.ends = threading.Lock()
        self._turn: Any = contextlib.nullcontext() if place.is_postgres else threading.Lock()
        self._begun = self._newest = 0

    def sql(self, statement: str) -> str:
        return statement.replace("?", "%s") if self.place.is_postgres else statement

    def connect(self) -> Any:
        connection = self.place.connect()
        if self.place.is_postgres:
            connection.execute("SET deadlock_timeout = '5ms'; SET lock_timeout = '3s'")
        return connection

    def fill(self, connection: Any) -> None:
        """Make all rows, in one transaction."""
        idle = [(USERS + number, "idle", IDLE_TEAM) for number in range(IDLE_USERS)]
        connection.execute("BEGIN")
        self.insert(connection, [(number, f"n{number}", number % TEAMS) for number in range(USERS)] + idle)
        connection.execute("COMMIT")

    def insert(self, connection: Any, rows: Sequence[tuple[int, str, int]]) -> int:
        """Insert rows in one statement, or give those that are there another name; return how many."""
        places = ", ".join(["(?, ?, ?)"] * len(rows))
        upsert = (
            f"INSERT INTO users (id, name, team) VALUES {places} ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        )
        flat = [value for row in rows for value in row]
        return int(connection.execute(self.sql(upsert), flat).rowcount)

    @contextlib.contextmanager
    def transaction(self, connection: Any, *, ending: str, is_idle: bool = False) -> Iterator[None]:
        """A transaction that ends with the statement `ending`."""
        with self._turn:
            connection.execute("BEGIN" if self.place.is_postgres else "BEGIN IMMEDIATE")
            with self.lock:
                self._begun += 1
                number = self._begun
            try:
                yield
                with self.ends if is_idle else contextlib.nullcontext():
                    connection.execute(ending)
            except _ERRORS:
                connection.execute("ROLLBACK")
                with self.lock:
                    self.tally.failures += 1
                return
            self._note(number, ending, is_idle=is_idle)

    def _note(self, number: int, ending: str, *, is_idle: bool) -> None:
        with self.lock:
            self.tally.idle += is_idle
            if ending == "ROLLBACK":
                self.tally.rollbacks += 1
                return
            self.tally.commits += 1
            self.tally.out_of_order += number < self._newest
            self._newest = max(self._newest, number)


class Writer:
    """One connection."""

    def __init__(self, writers: Writers, seed: int) -> None:
        self._writers = writers
        self._chance = random.Random(seed)
        self._connection = writers.connect()
        self._changes = self._rows = self._truncates = self._shapes = 0

    def write(self, changes: int) -> None:
        """Write until so many changes are made."""
        ends = self._changes + changes
        while self._changes < ends:
            self._transact()
        tally = self._writers.tally
        with self._writers.lock:
            tally.changes += self._changes - (ends - changes)
            tally.rows, self._rows = tally.rows + self._rows, 0
            tally.truncates, self._truncates = tally.truncates + self._truncates, 0
            tally.shapes, self._shapes = tally.shapes + self._shapes, 0

    def _transact(self) -> None:
        chance, is_postgres = self._chance, self._writers.place.is_postgres
        ending = chance.choice(("COMMIT", "COMMIT", "COMMIT", "COMMIT", "ROLLBACK"))
        with self._writers.transaction(self._connection, ending=ending):
            if chance.random() < 0.004:
                self._change_all()
                return
            for _ in range(chance.choice((1, 1, 2, 5, 10))):
                self._change()
                self._changes += 1
                if is_postgres and chance.random() < 0.02:
                    time.sleep(chance.random() * 0.02)  # others commit meanwhile

    def _change(self) -> None:
        chance = self._chance
        user, other, team = chance.randrange(USERS), chance.randrange(USERS), chance.randrange(TEAMS)
        word, kind = f"n{chance.random()}", chance.random()
        if kind < 0.6:
            self._run("UPDATE users SET name = ? WHERE id = ?", word, user)
        elif kind < 0.7:
            self._run("UPDATE users SET team = ? WHERE id = ?", team, user)
        elif kind < 0.8:
            self._run("DELETE FROM users WHERE id = ?", user)
            self._run("UPDATE users SET id = ? WHERE id = ?", user, other)
        elif kind < 0.97:
            some = sorted(chance.sample(range(USERS), chance.choice((1, 1, 10))))
            self._rows += self._writers.insert(self._connection, [(number, word, team) for number in some])
        else:
            self._connection.execute("SAVEPOINT s")
            self._run("DELETE FROM users WHERE team = ?", team)
            self._connection.execute(chance.choice(("ROLLBACK TO s", "RELEASE s")))

    def _change_all(self) -> None:
        """Empty the table and fill it again, or change its columns, and with them what is in it."""
        is_postgres = self._writers.place.is_postgres
        if is_postgres:
            self._connection.execute("SET LOCAL lock_timeout = '200ms'")
        if self._chance.random() < 0.5:
            self._connection.execute("TRUNCATE users" if is_postgres else "DELETE FROM users")
            rows = [(number, f"n{self._chance.random()}", number % TEAMS) for number in range(USERS)]
            self._rows += self._writers.insert(self._connection, rows)
            self._truncates += 1
            return
        if self._writers.place.kind == "triggers":
            self._connection.execute("ALTER TABLE users ALTER name TYPE text USING name || '!'")
        else:  # noticed with the next change of the table, over logical decoding
            self._connection.execute("ALTER TABLE users ADD COLUMN age integer")
            self._run("UPDATE users SET name = name || '!' WHERE id = ?", self._chance.randrange(USERS))
            self._connection.execute("ALTER TABLE users DROP COLUMN age")
        self._shapes += 1

    def _run(self, statement: str, *parameters: Any) -> None:
        self._rows += self._connection.execute(self._writers.sql(statement), parameters).rowcount


class Idler:
    """A connection whose transactions write rows of their own and then do nothing for long. In a file nobody else could write."""

    def __init__(self, writers: Writers, seed: int) -> None:
        self._writers = writers
        self._chance = random.Random(seed)
        self._connection = writers.connect()

    def write(self, stop: threading.Event) -> None:
        """Make one transaction."""
        chance, idles = self._chance, self._chance.random() * 1.5
        if not self._writers.place.is_postgres:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM users").fetchone()
            stop.wait(idles)
            self._connection.execute("COMMIT")
            return
        ending = chance.choice(("COMMIT", "COMMIT", "ROLLBACK"))
        with self._writers.transaction(self._connection, ending=ending, is_idle=True):
            user = USERS + chance.randrange(IDLE_USERS)
            statement = self._writers.sql("UPDATE users SET name = ? WHERE id = ?")
            self._connection.execute(statement, (f"n{chance.random()}", user))
            stop.wait(idles)
