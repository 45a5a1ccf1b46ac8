"""Puts the demo together: settings, database, service, tour."""

import asyncio
import contextlib
import socket
from typing import cast

from rich.console import Console

from .caching import check_cache
from .client import Client
from .console import make_console, prepare, show_tour
from .errors import DemoError
from .population import Scale
from .server import address_of, allow_open_files, listen, serve
from .service import ProfileService
from .settings import Settings, StrategyName, database_url
from .several import Mode, run_workers, say_where
from .tour import Tour

__all__ = ["DemoError", "start"]


def start(
    *,
    url: str | None,
    database: str | None,
    users: int,
    strategy: str,
    ttl: str,
    maxsize: int,
    cache: str | None,
    follow: bool,
    workers: int,
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
        cache: the URL of a shared cache; None for a file of our own if there are several workers, else for none.
        follow: forget what other programs change in the database.
        workers: how many processes serve.
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
    scale = Scale(users=users)
    settings = Settings(
        database=database_url(database, scale),
        scale=scale,
        strategy=cast("StrategyName", strategy),
        ttl=ttl,
        maxsize=maxsize,
        cache=cache,
        follow=follow,
        workers=workers,
    )
    return (run if workers == 1 else run_workers)(settings, host=host, port=port, mode=mode)


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
        check_cache(settings)
        prepare(console, settings)
        service = ProfileService(settings)
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
            self.is_kept = await show_tour(self._console, Tour(Client(address), settings=self._service.settings))
        if self._mode != "tour":
            say_where(self._console, address)
        return self._mode != "tour"
