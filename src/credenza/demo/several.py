"""Runs the demo over several processes."""

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape
from sqlalchemy import text

from .caching import check_cache
from .client import Client
from .console import make_console, prepare, show_tour
from .seeding import SCHEMA, open_engine
from .server import address_of, allow_open_files, listen_for
from .settings import Settings
from .supervisor import Workers
from .tour import Tour

Mode = Literal["tour", "serve", "both"]

_LOCK_SECONDS = 10


def run_workers(settings: Settings, *, host: str, port: int, mode: Mode) -> bool:
    """Do as `run.run`, with several worker processes under this one.

    Without a shared cache they get one of their own: a file, which is removed at the end.
    """
    console = make_console()
    allow_open_files()
    is_kept = mode == "serve"
    with ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):  # how serving ends
        listeners = listen_for(settings.workers, host, port)
        for listener in set(listeners):
            stack.enter_context(listener)
        own_cache = None
        if settings.cache is None:
            own_cache = stack.enter_context(_own_cache(console))
            settings = replace(settings, cache=f"sqlite:///{quote(own_cache.as_posix())}")
        check_cache(settings)
        prepare(console, settings)
        workers = stack.enter_context(Workers(settings, listeners, lambda message: console.print(escape(message))))
        address = address_of(listeners[0])
        if mode != "serve":
            tour = Tour(Client(address), control=Hand(workers, settings, own_cache), settings=settings)
            is_kept = asyncio.run(show_tour(console, tour))
        if mode != "tour":
            say_where(console, address)
            workers.wait()
    return is_kept


def say_where(console: Console, address: str) -> None:
    """Print the address of the page."""
    console.print(f"\nThe profile page is at [bold]{address}/[/bold] (Ctrl+C stops it).", soft_wrap=True)


@contextlib.contextmanager
def _own_cache(console: Console) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="credenza-demo-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "cache.db"
        console.print(f"Shared cache: the file {escape(str(file))}; name another with --cache.", soft_wrap=True)
        yield file


class Hand:
    """The `Control` of our own workers, and of the shared cache if that is ours, too."""

    def __init__(self, workers: Workers, settings: Settings, own_cache: Path | None) -> None:
        self.kill = workers.kill
        self.are_ready = workers.are_ready
        self._settings = settings
        self._own_cache = own_cache

    @contextlib.contextmanager
    def hold_database(self) -> Generator[None]:
        if self._settings.database.get_backend_name() == "sqlite":
            with _locked(str(self._settings.database.database), "EXCLUSIVE"):  # readers wait, too
                yield
            return
        engine = open_engine(self._settings.database, connections=1)
        try:
            with engine.connect() as connection:
                connection.execute(text(f"LOCK TABLE {SCHEMA}.users IN ACCESS EXCLUSIVE MODE"))
                yield
        finally:
            engine.dispose()

    def hold_cache(self) -> AbstractContextManager[None] | None:
        return None if self._own_cache is None else _locked(str(self._own_cache), "IMMEDIATE")


@contextlib.contextmanager
def _locked(path: str, how: str) -> Generator[None]:
    """Hold a lock on a SQLite file."""
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)) as connection:
        connection.execute(f"BEGIN {how}")
        yield
        connection.execute("ROLLBACK")
