"""Many requests for one profile in the same turn of the event loop."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope

from .database import Database

REQUESTS = 500


@dataclass(frozen=True, slots=True)
class Stampede:
    """What became of the requests.

    Attributes:
        outcomes: how many ended how, by their `X-Cache`; "error" where that is missing.
        queries: statements that reached the database meanwhile.
        seconds: until the last one was answered.
    """

    requests: int
    outcomes: dict[str, int]
    queries: int
    seconds: float


async def stampede(app: ASGIApp, path: str, *, user_id: int, database: Database, requests: int = REQUESTS) -> Stampede:
    """Send the requests through the whole application, without sockets, and count.

    All of them have looked for the profile before the first query can end. Cancelling cancels them all.
    """
    queries, started = database.queries, time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_request(app, path, f"id={user_id}")) for _ in range(requests)]
    return Stampede(
        requests=requests,
        outcomes=dict(Counter(task.result() for task in tasks)),
        queries=database.queries - queries,
        seconds=time.perf_counter() - started,
    )


async def _request(app: ASGIApp, path: str, query: str) -> str:
    """Send one request, return its `X-Cache`."""
    outcome = "error"

    async def receive() -> Message:
        await asyncio.Event().wait()  # this client has nothing more to say, and does not leave
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal outcome
        if message["type"] == "http.response.start":
            outcome = dict(message["headers"]).get(b"x-cache", b"error").decode()

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [],
        "client": ("stampede", 0),
        "server": ("service", 0),
    }
    await app(scope, receive, send)
    return outcome
