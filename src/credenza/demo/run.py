"""Puts the demo together: settings, database, service, tour."""

import asyncio
import contextlib
import socket
from typing import Literal, cast

from rich.console import Console

from credenza import CacheError

from .client import Client
from .console import make_console, seed_with_progress, show_tour
from .errors import DemoError
from .population import Scale
from .server import address_of, listen, serve
from .service import ProfileService
from .settings import Settings, StrategyName, database_url
from .tour import Tour

Mode = Literal["tour", "serve", "both"]

_OPEN_FILES = 4096  # both ends of the tour's connections, and room

__all__ = ["DemoError", "start"]


def start(
    *,
    url: str | None,
    database: str | None,
    users: int,
    strategy: str,
    ttl: str,
    maxsize: int,
    host: str,
    port: int,
    mode: Mode,
) -> bool:
    """Do what the command's options say; blocks until that is done.

    Args:
        url: a service that runs already, to be toured; the options of a service of our own are not looked at then.
        database: a URL, None for the default file.
        users: how many a new database gets.
        strategy: one of the names in `settings`.
        ttl: a duration as the library takes it.
        maxsize: how many profiles are kept.
        host: the address to listen on.
        port: the port, 0 for a free one.
        mode: "tour" (then stop), "serve", or "both".

    Returns:
        Whether every promise of the tour held.

    Raises:
        DemoError: it cannot start; the message says what to do.
    """
    if url:
        return asyncio.run(tour_of(url))
    settings = make_settings(database=database, users=users, strategy=strategy, ttl=ttl, maxsize=maxsize)
    return run(settings, host=host, port=port, mode=mode)


def make_settings(*, database: str | None, users: int, strategy: str, ttl: str, maxsize: int) -> Settings:
    """Return the settings that the options describe.

    Raises:
        DemoError: one of them is wrong.
    """
    scale = Scale(users=users)
    return Settings(
        database=database_url(database, scale),
        scale=scale,
        strategy=cast("StrategyName", strategy),
        ttl=ttl,
        maxsize=maxsize,
    )


def run(settings: Settings, *, host: str, port: int, mode: Mode) -> bool:
    """Seed if need be, then tour, serve, or both; blocks until that is done.

    Returns:
        Whether every promise of the tour held.

    Raises:
        DemoError: it cannot start; the message says what to do.
    """
    console = make_console()
    allow_open_files()
    listener = listen(host, port)  # before the seeding: whoever cannot listen need not wait
    try:
        seed_with_progress(console, settings)
        service = _make_service(settings)
    except BaseException:
        listener.close()
        raise
    visit = _Visit(service, listener, console, mode)
    with contextlib.suppress(KeyboardInterrupt):  # how serving ends
        asyncio.run(visit.run())
    return visit.is_kept


async def tour_of(url: str) -> bool:
    """Tour a service that runs already; return whether every promise held."""
    allow_open_files()
    return await show_tour(make_console(), Tour(Client(url)))


def allow_open_files() -> None:
    """Raise the limit of open files, which is low on some systems, as far as that goes."""
    try:
        import resource  # not everywhere
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _make_service(settings: Settings) -> ProfileService:
    try:
        return ProfileService(settings)
    except CacheError as exc:
        raise DemoError(str(exc)) from exc


class _Visit:
    """One run of the service. `is_kept`: whether every promise of the tour held; not if it was interrupted."""

    def __init__(self, service: ProfileService, listener: socket.socket, console: Console, mode: Mode) -> None:
        self.is_kept = mode == "serve"
        self._service = service
        self._listener = listener
        self._console = console
        self._mode = mode

    async def run(self) -> None:
        try:
            await serve(self._service, self._listener, first=self._begin)
        finally:
            self._service.close()  # once more does no harm, and the server closes it only if it came to start

    async def _begin(self) -> bool:
        """Tour; tell whether to go on serving."""
        address = address_of(self._listener)
        if self._mode != "serve":
            self.is_kept = await show_tour(self._console, Tour(Client(address)))
        if self._mode != "tour":
            self._console.print(f"\nThe profile page is at [bold]{address}/[/bold] (Ctrl+C stops it).", soft_wrap=True)
        return self._mode != "tour"
