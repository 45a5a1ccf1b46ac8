"""A small population on both databases, and the service on a real socket."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url
from tests.support.servers import running_postgres

from credenza.demo import seeding
from credenza.demo.population import Scale
from credenza.demo.server import address_of, listen, make_server
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings

SCALE = Scale(users=300)
DEADLINE = 30.0  # seconds that a condition may take on a slow machine


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail if it does not come to hold."""
    ends = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain: {what}"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> URL:
    """A SQLite file with 300 users, shared by all tests that put back what they change."""
    url = URL.create("sqlite", database=str(tmp_path_factory.mktemp("demo") / "people.db"))
    seeding.seed(url, SCALE)
    return url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server: the one in CREDENZA_TEST_POSTGRES, else one that is started here. Never a skip."""
    with running_postgres() as url:
        yield make_url(url).set(drivername="postgresql+psycopg")


@pytest.fixture(scope="session")
def postgres_url(postgres_server: URL) -> URL:
    """The same 300 users on PostgreSQL."""
    seeding.seed(postgres_server, SCALE)
    return postgres_server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> URL:
    """Each database in turn."""
    return request.getfixturevalue(f"{request.param}_url")


class Browser:
    """A client that keeps to plain HTTP and knows where the service is."""

    def __init__(self, address: str, connections: Callable[[], int] = lambda: 0) -> None:
        self.address = address
        self.connections = connections  # how many the server holds
        self.host, _, port = address.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def send(self, method: str, path: str, body: object = None) -> "Answer":
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, content)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def get(self, path: str) -> "Answer":
        return self.send("GET", path)

    def begin(self, method: str, path: str) -> socket.socket:
        """Send a request and do not wait for its answer; closing the socket is the client's disconnecting."""
        client = socket.create_connection((self.host, self.port), timeout=DEADLINE)
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: 0\r\n\r\n".encode())
        return client


class Answer:
    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.content = content

    @property
    def cache(self) -> str | None:
        return self.headers.get("x-cache")

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@contextlib.contextmanager
def serving(service: ProfileService) -> Iterator[Browser]:
    """Serve on a socket of this machine, from a thread with an event loop of its own."""
    listener = listen("127.0.0.1", 0)
    server = make_server(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), name="service")
    thread.start()
    try:
        wait_until(lambda: server.started, "the service starts")
        yield Browser(address_of(listener), lambda: len(server.server_state.connections))
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the service did not stop"


@pytest.fixture
def make_service(sqlite_url: URL) -> Iterator[Callable[..., ProfileService]]:
    """Make services; they are closed after the test."""
    made: list[ProfileService] = []

    def make(*, kind: type[ProfileService] = ProfileService, **options: Any) -> ProfileService:
        made.append(kind(Settings(**{"database": sqlite_url, "scale": SCALE, **options})))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service: Callable[..., ProfileService]) -> ProfileService:
    """A service with the defaults."""
    return make_service()


@pytest.fixture
def browser(service: ProfileService) -> Iterator[Browser]:
    """That service over HTTP."""
    with serving(service) as browser:
        yield browser


@pytest.fixture
def serve() -> Callable[[ProfileService], contextlib.AbstractContextManager[Browser]]:
    """`serving`, for tests that make their own service."""
    return serving


@pytest.fixture
def until() -> Callable[[Callable[[], bool], str], None]:
    """`wait_until`, for tests."""
    return wait_until


@pytest.fixture
def own_database(tmp_path: Path) -> URL:
    """A SQLite file that one test may break."""
    url = URL.create("sqlite", database=str(tmp_path / "own.db"))
    seeding.seed(url, Scale(users=50))
    return url
