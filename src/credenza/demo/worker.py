"""One worker of several: what runs in a process of its own."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from multiprocessing.connection import Connection

import uvicorn

from .board import Board, Cells
from .server import address_of, make_server
from .service import ProfileService
from .settings import Settings


def work(settings: Settings, worker: int, cells: Cells, listener: socket.socket, line: Connection) -> None:
    """Serve until the supervisor closes its end of the line; it is closed, too, when the supervisor is killed.

    Args:
        settings: how to serve.
        worker: which one this is, counted from 0.
        cells: of the board.
        listener: where to serve.
        line: to the supervisor; "ready" goes that way when the service answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl+C to all of us, and the supervisor decides
    logging.basicConfig(format=f"%(levelname)s %(name)s (worker {worker + 1}): %(message)s", level=logging.WARNING)
    asyncio.run(_serve(ProfileService(settings, Board(settings.workers, cells).seat(worker)), listener, line))


async def _serve(service: ProfileService, listener: socket.socket, line: Connection) -> None:
    server = make_server(service, address=address_of(listener), on_started=lambda: _tell(line))
    signal.signal(signal.SIGTERM, lambda *_: _stop(server))
    threading.Thread(target=_obey, args=(server, line), name="supervisor", daemon=True).start()
    try:
        await server.serve(sockets=[listener])
    finally:
        service.close()  # once more does no harm, and the server closes it only if it came to start


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def _tell(line: Connection) -> None:
    """Tell the supervisor that the service answers; if it is gone, `_obey` sees that, too."""
    with contextlib.suppress(OSError):
        line.send("ready")


def _obey(server: uvicorn.Server, line: Connection) -> None:
    """Wait for the other end to be closed."""
    try:
        line.recv()
    except (EOFError, OSError):
        _stop(server)
