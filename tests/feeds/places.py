"""Databases that are followed: PostgreSQL by triggers, PostgreSQL by logical decoding, and SQLite, under one handle."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from tests.feeds.postgres_server import PostgresServer

from credenza import Cache
from credenza.feeds import postgres, sqlite
from credenza.feeds.follower import Follower
from credenza.feeds.mapping import Rules

KINDS = ("triggers", "logical", "sqlite")
TABLES = {"users": ["id", "team"]}
KEYS = {"users": ["user:{id}", "team:{team}"]}
TAGS = {"users": "users"}

_numbers = itertools.count()


class Place:
    """A database with the table `users (id, name, team)`, whose log is installed.

    Attributes:
        kind: of `KINDS`.
        where: its URL or path.
    """

    def __init__(self, kind: str, where: str, server: PostgresServer | None) -> None:
        self.kind = kind
        self.where = where
        self.server = server
        self._open: list[Any] = []

    @property
    def is_postgres(self) -> bool:
        return self.kind != "sqlite"

    def connect(self) -> Any:
        """Return a connection in autocommit mode, closed with the place."""
        if self.is_postgres:
            connection: Any = psycopg.connect(self.where, autocommit=True)
        else:
            connection = sqlite3.connect(self.where, isolation_level=None, timeout=10, check_same_thread=False)
        self._open.append(connection)
        return connection

    def feed(self, name: str | None = None, **options: Any) -> Any:
        """Return a feed of its own for one follower."""
        if self.kind == "triggers":
            return postgres.PostgresFeed(self.where, name=name, **options)
        if self.kind == "logical":
            return postgres.LogicalFeed(self.where, publication="shop", slot=name, **options)
        return sqlite.SqliteFeed(self.where, name=name, poll=0.01, **options)

    def cut(self) -> None:
        """End the connections of all followers, where there is a server that can."""
        if self.is_postgres:
            with psycopg.connect(self.where, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'credenza' AND datname = current_database()"
                )

    def close(self) -> None:
        for connection in self._open:
            connection.close()


@contextmanager
def place_of(kind: str, server: PostgresServer | None, folder: Path) -> Iterator[Place]:
    """A new database, removed at the end."""
    made = "CREATE TABLE users (id integer PRIMARY KEY, name text, team integer)"
    if kind == "sqlite":
        place = Place(kind, str(folder / f"{next(_numbers)}.db"), None)
        connection = place.connect()
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = off")
        connection.execute(made)
        sqlite.install(connection, TABLES)
        try:
            yield place
        finally:
            place.close()
        return
    assert server is not None
    place = Place(kind, server.url("followed"), server)
    with server.connect() as admin:
        if not admin.execute("SELECT FROM pg_database WHERE datname = 'followed'").fetchall():
            admin.execute("CREATE DATABASE followed")
        try:
            connection = place.connect()
            connection.execute(made)
            if kind == "triggers":
                postgres.install(connection, TABLES)
            else:
                connection.execute("ALTER TABLE users REPLICA IDENTITY FULL; CREATE PUBLICATION shop FOR TABLE users")
            yield place
        finally:
            place.close()
            _empty(admin, server)


def _empty(admin: "psycopg.Connection[Any]", server: PostgresServer) -> None:
    admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'followed'")
    admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    with server.connect("followed") as connection:
        connection.execute(
            "DROP PUBLICATION IF EXISTS shop; DROP SCHEMA IF EXISTS credenza CASCADE; "
            "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        )


def follow(cache: Any, feed: Any, **options: Any) -> Follower:
    """Have a cache follow a feed of `users`."""
    rules = Rules(keys=options.pop("keys", KEYS), tags=options.pop("tags", TAGS), whole=options.pop("whole", None))
    return Follower(cache, feed, rules, **options)


@contextmanager
def following(place: Place, cache: "Cache[Any, Any] | None" = None, **options: Any) -> Iterator[tuple[Any, Follower]]:
    """A cache that follows the place and has caught up; what is around is closed at the end."""
    cache = Cache(ttl=None) if cache is None else cache
    follower = follow(cache, place.feed(options.pop("name", None), **options.pop("feed", {})), **options)
    try:
        assert follower.wait_until_caught_up()
        yield cache, follower
    finally:
        follower.close()
        cache.close()


class Recorder:
    """Stands in for a cache: notes what it is asked, and fails if it is told to.

    Attributes:
        keys, tags: what was invalidated.
        clears: how often it was emptied.
        error: raised by every call while it is set.
        owed: what its health reports.
    """

    def __init__(self, *, tier: str = "up") -> None:
        self.keys: list[Any] = []
        self.tags: list[str] = []
        self.clears = 0
        self.calls = 0
        self.error: Exception | None = None
        self.owed = 0
        self.tier = tier

    def _note(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error

    def invalidate(self, *keys: Any) -> None:
        self._note()
        self.keys += keys

    def invalidate_tags(self, *tags: str) -> None:
        self._note()
        self.tags += tags

    def clear(self) -> None:
        self._note()
        self.clears += 1

    def health(self) -> "Recorder":
        return self
