"""The lines of the tour's table, and how they are measured."""

import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any  # decoded JSON

from .client import Client, Line, Reply
from .errors import DemoError

USER = 42


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        step: what was done.
        cache: which `X-Cache` came back, and how often.
        queries: statements that reached the database.
        seconds: how long it took.
        promise: what should be so, in words.
        broken: what was otherwise; empty if the promise held.
        skipped: why it was not tried; empty if it was.
    """

    step: str
    cache: str
    queries: int
    seconds: float
    promise: str
    broken: tuple[str, ...]
    skipped: str = ""


def skipped(step: str, promise: str, why: str) -> Row:
    """Return the row of a step that was not taken."""
    return Row(step, "", 0, 0.0, promise, (), why)


Action = Callable[[], Awaitable[Sequence[Reply]]]
Check = Callable[[Sequence[Reply], int], Iterable[str]]


class Probe:
    """Asks the service, and measures what that costs.

    It expects to be alone with it: the queries of other visitors would be counted too.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    async def measure(self, step: str, promise: str, action: Action, check: Check) -> Row:
        """Do something and return its row; `check` is given the answers and the number of queries."""
        before = (await self.stats())["queries"]
        started = time.perf_counter()
        replies = await action()
        seconds = time.perf_counter() - started
        queries = (await self.stats())["queries"] - before
        return Row(step, tally(replies), queries, seconds, promise, tuple(check(replies, queries)))

    async def get(self, user_id: int) -> Reply:
        """Read a profile."""
        return await self.client.send("GET", f"/user?id={user_id}")

    @contextlib.asynccontextmanager
    async def renaming(self, new: str, *, back: str, line: Line | None = None) -> AsyncGenerator[Reply]:
        """Let the tour's user have another name inside the block, which is given the answer to that.

        In the end all is as before, also in the database. One worker does it all, since each may have a journal: the one at
        the other end of `line`, or any.
        """
        path = f"/user?id={USER}"
        with contextlib.ExitStack() as stack:
            if line is None:
                line = stack.enter_context(contextlib.closing(await self.client.line(lambda _: True)))
            try:
                yield await line.send("PUT", path, {"name": new})
            finally:
                await line.send("PUT", path, {"name": back})
                await line.send("POST", "/settle")

    async def expire(self, user_id: int) -> None:
        """Have a profile forgotten."""
        await self.client.send("POST", f"/expire?id={user_id}")

    async def stats(self) -> Any:  # decoded JSON
        """Return the service's counters.

        Raises:
            DemoError: it is another service.
        """
        reply = await self.client.send("GET", "/stats")
        if reply.status != 200 or not reply.body:
            raise DemoError("what answers there is not the profile service; name its address with --url")
        return reply.body


def differences(reply: Reply, counted: int, status: int, cache: Collection[str], queries: int) -> Iterable[str]:
    """Say in what one answer and its cost are not as promised."""
    if reply.status != status:
        yield f"status {reply.status}"
    if reply.cache not in cache:
        yield f"X-Cache {reply.cache!r}"
    if counted != queries:
        yield count(counted)


def unlike(replies: Sequence[Reply]) -> Iterable[str]:
    """Say whether some have failed, or are not like the others."""
    if failed := [reply.status for reply in replies if reply.status != 200]:
        yield f"{len(failed)} answered {failed[0]}"
    elif any(reply.body != replies[0].body for reply in replies):
        yield "the answers differ"


def count(queries: int) -> str:
    """Return a number of queries in words."""
    return {0: "no query", 1: "1 query"}.get(queries, f"{queries} queries")


def second_name(name: str) -> str:
    """Return the name that the tour gives somebody, other than the present one."""
    return f"{name.removesuffix(' the Second')} the Second"


def tally(replies: Sequence[Reply]) -> str:
    """Return how often each `X-Cache` came back."""
    counts = Counter(reply.cache or "none" for reply in replies)
    if len(replies) == 1:
        return next(iter(counts))
    return ", ".join(f"{times} {cache}" for cache, times in counts.most_common())
