"""Runs the service on a socket, with or without a tour."""

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any  # what a coroutine sends and receives

import uvicorn

from .app import make_app
from .errors import DemoError
from .service import ProfileService

SPREADS_CONNECTIONS = sys.platform == "linux"
"""Elsewhere SO_REUSEPORT is missing, or gives every connection to one of the sockets."""

_BACKLOG = 2048
_OPEN_FILES = 4096  # both ends of the tour's connections, and room
_GRACE = 2  # seconds for open requests when the server is told to stop
_POLL = 0.01


def listen_for(workers: int, host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each worker, all on one port; port 0 takes a free one.

    Where the system spreads connections over several sockets each worker gets its own; elsewhere all share one. They are
    opened here and not by the workers, so that connections wait for a worker that is started anew.

    Raises:
        DemoError: as `listen`.
    """
    first = listen(host, port)
    if workers == 1 or not SPREADS_CONNECTIONS:
        return [first] * workers
    port = first.getsockname()[1]
    first.close()  # it has told that nobody else is there: sockets that share a port would be let in beside others
    listeners: list[socket.socket] = []
    try:
        for _ in range(workers):
            listeners.append(listen(host, port, is_one_of_many=True))  # noqa: PERF401 - those that were opened are closed
    except DemoError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def listen(host: str, port: int, *, is_one_of_many: bool = False) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Args:
        host: the address or name of the interface.
        port: the port.
        is_one_of_many: several sockets of this process may have the port, and connections are spread over them.

    Raises:
        DemoError: the address cannot be had; the message says why and what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=is_one_of_many)
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


def make_server(
    service: ProfileService, *, address: str | None = None, on_started: Callable[[], None] | None = None
) -> uvicorn.Server:
    """Return a server that has not been started; it closes the service when it stops.

    Args:
        service: what it serves.
        address: where all workers are reached, if there are several.
        on_started: called when it answers; then signals are the caller's business, too.
    """
    server: uvicorn.Server
    app = make_app(service, address=address, is_stopping=lambda: server.should_exit)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=_GRACE, server_header=False
    )
    server = uvicorn.Server(config) if on_started is None else _WorkerServer(config, on_started)
    return server


class _WorkerServer(uvicorn.Server):
    """Leaves signals alone, and says when it has started."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()
