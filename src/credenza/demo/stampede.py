"""Many requests for one profile in the same turn of the event loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope

from .client import Client

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


Herd = Callable[[str, int], Awaitable[list[str]]]
"""Sends as many requests for a path, all at the same moment, and returns what their `X-Cache` said."""


async def stampede(
    herd: Herd, path: str, *, user_id: int, queries: Callable[[], int], requests: int = REQUESTS
) -> Stampede:
    """Let the requests loose and count. Cancelling cancels them all.

    Args:
        herd: sends them.
        path: what they ask for.
        user_id: whom it is about.
        queries: tells how many statements have reached the database.
        requests: how many.
    """
    before, started = queries(), time.perf_counter()
    outcomes = await herd(f"{path}?id={user_id}", requests)
    return Stampede(
        requests=requests,
        outcomes=dict(Counter(outcomes)),
        queries=queries() - before,
        seconds=time.perf_counter() - started,
    )


def through_app(app: ASGIApp) -> Herd:
    """Return a herd that runs through the whole application, without sockets.

    All have looked for the profile before the first query can end.
    """

    async def send(path: str, requests: int) -> list[str]:
        where, _, query = path.partition("?")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_request(app, where, query)) for _ in range(requests)]
        return [task.result() for task in tasks]

    return send


def through_network(client: Client) -> Herd:
    """Return a herd that comes over the network, and so to all workers."""

    async def send(path: str, requests: int) -> list[str]:
        return [reply.cache or "error" for reply in await client.send_at_once(path, requests)]

    return send


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
