"""Several workers for a test: processes as the command starts them, or services in threads, which may misbehave."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from credenza.demo.board import Board
from credenza.demo.client import Client
from credenza.demo.population import Scale
from credenza.demo.server import address_of, allow_open_files, listen_for, make_server
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings
from credenza.demo.supervisor import Workers

from .conftest import DEADLINE, Answer, Browser, wait_until

USERS = 60


def settings_for(database: URL, cache: str | Path | None, **options: object) -> Settings:
    """Return settings for two workers over that cache; a path means a SQLite file.

    The timeout is long: what these tests are about does not depend on how busy the machine is.
    """
    url = f"sqlite:///{cache}" if isinstance(cache, Path) else cache
    return Settings(
        **{
            "database": database,
            "scale": Scale(users=USERS),
            "workers": 2,
            "cache": url,
            "tier_timeout": 10.0,
            **options,
        }
    )  # type: ignore[arg-type]


@dataclass
class Crew:
    """Workers under one address, and what their supervisor has said."""

    address: str
    workers: Workers
    said: list[str] = field(default_factory=list)

    def pid(self, worker: int) -> int:
        pid = self.workers._workers[worker].process.pid
        assert pid is not None
        return pid

    @property
    def browser(self) -> Browser:
        return Browser(self.address)

    def ask(self, worker: str, path: str) -> Answer:
        """GET from that very worker."""
        return self.send(worker, "GET", path)

    def send(self, worker: str, method: str, path: str, body: object = None) -> Answer:
        """Send from connections of their own until that worker takes one; only safe where asking others does no harm."""

        async def scenario() -> Answer:
            with contextlib.closing(await Client(self.address).line(worker.__eq__)) as line:
                reply = await line.send(method, path, body)  # type: ignore[arg-type]
                assert reply.headers["x-worker"] == worker
                import json

                return Answer(reply.status, dict(reply.headers), json.dumps(reply.body).encode())

        return asyncio.run(scenario())


@contextlib.contextmanager
def crew(settings: Settings) -> Iterator[Crew]:
    """Start worker processes, and end them."""
    allow_open_files()
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        listeners = listen_for(settings.workers, "127.0.0.1", 0)
        for listener in set(listeners):
            stack.enter_context(listener)
        workers = stack.enter_context(Workers(settings, listeners, said.append))
        yield Crew(address_of(listeners[0]), workers, said)


@contextlib.contextmanager
def threads(make: Callable[[Settings, Board, int], ProfileService], settings: Settings) -> Iterator[str]:
    """Serve with one service for each worker, each in a thread with a loop of its own; yield the address."""
    allow_open_files()
    board = Board(settings.workers)
    listeners = listen_for(settings.workers, "127.0.0.1", 0)
    address = address_of(listeners[0])
    services = [make(settings, board, number) for number in range(settings.workers)]
    servers = [make_server(service, address=address) for service in services]
    running = [
        threading.Thread(target=lambda server=server, listener=listener: asyncio.run(server.serve(sockets=[listener])))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    for thread in running:
        thread.start()
    try:
        wait_until(lambda: all(server.started for server in servers), "the workers start")
        yield address
    finally:
        for server in servers:
            server.should_exit = True
        for thread in running:
            thread.join(DEADLINE)
        for service in services:
            service.close()
        assert not any(thread.is_alive() for thread in running), "a worker did not stop"
