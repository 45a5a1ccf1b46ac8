"""Runs the service on a socket, with or without a tour."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Coroutine
from typing import Any  # what a coroutine sends and receives

import uvicorn

from .app import make_app
from .errors import DemoError
from .service import ProfileService

_BACKLOG = 2048
_GRACE = 2  # seconds for open requests when the server is told to stop
_POLL = 0.01


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        DemoError: the address cannot be had; the message says why and what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is in use; choose another with --port, or 0 for a free one"
            raise DemoError(message) from exc
        raise DemoError(f"cannot listen on {host}:{port}: {exc.strerror}; choose others with --host, --port") from exc


def address_of(listener: socket.socket) -> str:
    """Return the URL under which the service on this socket is reached."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


async def serve(
    service: ProfileService, listener: socket.socket, *, first: Callable[[], Coroutine[Any, Any, bool]] | None = None
) -> None:
    """Serve until a signal says stop.

    Args:
        service: closed at the end.
        listener: where to serve; closed at the end.
        first: awaited as soon as the service answers; serving goes on after it if it returns True.
    """
    server = make_server(service)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):  # noqa: ASYNC110 - it has a flag, and no event
        await asyncio.sleep(_POLL)
    if first is None:
        await serving
        return
    beside = asyncio.create_task(first())
    await asyncio.wait([beside, serving], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():  # told to stop in the middle
        beside.cancel()
    elif beside.exception() or not beside.result():
        server.should_exit = True
    await serving
    with contextlib.suppress(asyncio.CancelledError):
        await beside


def make_server(service: ProfileService) -> uvicorn.Server:
    """Return a server that has not been started; it closes the service when it stops."""
    server: uvicorn.Server
    app = make_app(service, is_stopping=lambda: server.should_exit)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=_GRACE, server_header=False
    )
    server = uvicorn.Server(config)
    return server
