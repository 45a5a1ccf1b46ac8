"""A tour of the running service over HTTP: what a cache promises, each promise checked."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any  # decoded JSON

from .client import Client, Reply
from .errors import DemoError
from .stampede import REQUESTS

USER = 42
UNKNOWN_USER = 2_000_000_011
_MUCH_MORE = 10  # times as many queries without protection: the promise; it is usually all of them


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
    """

    step: str
    cache: str
    queries: int
    seconds: float
    promise: str
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the strategy promises.

    Attributes:
        cold: `X-Cache` of the first read.
        warm: of the next one, and how many queries that costs.
        is_shared: whether one load serves a whole stampede.
        after_update: `X-Cache` of the first read after an update, and how many queries that costs.
    """

    cold: str
    warm: str
    warm_queries: int
    is_shared: bool
    after_update: str
    after_update_queries: int


_Action = Callable[[], Awaitable[list[Reply]]]
_Check = Callable[[list[Reply], int], Iterable[str]]

_EXPECTED = {
    "cache-aside": _Expected("miss", "hit", 0, True, "miss", 1),
    "write-through": _Expected("miss", "hit", 0, True, "hit", 0),
    "no-cache": _Expected("bypass", "bypass", 1, False, "bypass", 1),
}


class Tour:
    """Drives one service.

    It expects to be alone with it: the queries of other visitors would be counted too.

    Args:
        client: speaks to the service.
        requests: how many a stampede has.
    """

    def __init__(self, client: Client, *, requests: int = REQUESTS) -> None:
        self._client = client
        self._requests = requests
        self._expected = _EXPECTED["cache-aside"]

    async def run(self, on_row: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """Go through all steps and return their rows; `on_row` gets each one as soon as it is known."""
        self._expected = _EXPECTED[(await self._stats())["settings"]["strategy"]]
        steps: list[Callable[[], Awaitable[Row]]] = [
            self._first_load,
            self._second_load,
            self._stampede_protected,
            self._stampede_unprotected,
            self._update,
            self._unknown_first,
            self._unknown_again,
        ]
        rows: list[Row] = []
        for step in steps:
            rows.append(await step())
            on_row(rows[-1])
        return rows

    async def _first_load(self) -> Row:
        await self._expire(USER)
        return await self._read("first load", USER, status=200, cache=self._expected.cold, queries=1)

    async def _second_load(self) -> Row:
        want = self._expected
        return await self._read("second load", USER, status=200, cache=want.warm, queries=want.warm_queries)

    async def _unknown_first(self) -> Row:
        await self._expire(UNKNOWN_USER)
        return await self._read("unknown user", UNKNOWN_USER, status=404, cache=self._expected.cold, queries=1)

    async def _unknown_again(self) -> Row:
        cache, queries = self._expected.warm, self._expected.warm_queries
        return await self._read("unknown user again", UNKNOWN_USER, status=404, cache=cache, queries=queries)

    async def _stampede_protected(self) -> Row:
        await self._expire(USER)
        most = 1 if self._expected.is_shared else self._requests

        def check(replies: list[Reply], queries: int) -> Iterable[str]:
            yield from _all_answered_alike(replies)
            if queries > most:
                yield f"{queries} queries"

        step = f"{self._requests} at once, protected"
        return await self._row(step, _count(most), self._at_once("/user"), check)

    async def _stampede_unprotected(self) -> Row:
        await self._expire(USER)

        def check(replies: list[Reply], queries: int) -> Iterable[str]:
            yield from _all_answered_alike(replies)
            if queries < _MUCH_MORE:
                yield f"only {_count(queries)}: nothing to compare with"

        step = f"{self._requests} at once, unprotected"
        return await self._row(step, f"{_MUCH_MORE} queries or more", self._at_once("/unprotected/user"), check)

    async def _update(self) -> Row:
        want = self._expected
        old = (await self._get(USER)).body["name"]
        new = f"{old.removesuffix(' the Second')} the Second"
        if (put := await self._rename(new)).status != 200:
            return Row("update, then read", "", 0, 0.0, "the new name", (f"the update answered {put.status}",))

        def check(replies: list[Reply], queries: int) -> Iterable[str]:
            if replies[0].body.get("name") != new:
                yield f"the old name {replies[0].body.get('name')!r}"
            yield from _differences(replies[0], queries, 200, want.after_update, want.after_update_queries)

        try:
            promise = f"the new name, {want.after_update}, {_count(want.after_update_queries)}"
            return await self._row("update, then read", promise, self._once(USER), check)
        finally:
            await self._rename(old)

    async def _read(self, step: str, user_id: int, *, status: int, cache: str, queries: int) -> Row:
        def check(replies: list[Reply], counted: int) -> Iterable[str]:
            return _differences(replies[0], counted, status, cache, queries)

        return await self._row(step, f"{status}, {cache}, {_count(queries)}", self._once(user_id), check)

    async def _row(self, step: str, promise: str, action: _Action, check: _Check) -> Row:
        before = (await self._stats())["queries"]
        started = time.perf_counter()
        replies = await action()
        seconds = time.perf_counter() - started
        queries = (await self._stats())["queries"] - before
        return Row(step, _tally(replies), queries, seconds, promise, tuple(check(replies, queries)))

    def _once(self, user_id: int) -> _Action:
        async def action() -> list[Reply]:
            return [await self._get(user_id)]

        return action

    def _at_once(self, path: str) -> _Action:
        return lambda: self._client.send_at_once(f"{path}?id={USER}", self._requests)

    async def _get(self, user_id: int) -> Reply:
        return await self._client.send("GET", f"/user?id={user_id}")

    async def _rename(self, name: str) -> Reply:
        return await self._client.send("PUT", f"/user?id={USER}", {"name": name})

    async def _expire(self, user_id: int) -> None:
        await self._client.send("POST", f"/expire?id={user_id}")

    async def _stats(self) -> Any:  # decoded JSON
        reply = await self._client.send("GET", "/stats")
        if reply.status != 200 or not reply.body:
            raise DemoError("what answers there is not the profile service; name its address with --url")
        return reply.body


def _differences(reply: Reply, counted: int, status: int, cache: str, queries: int) -> Iterable[str]:
    if reply.status != status:
        yield f"status {reply.status}"
    if reply.cache != cache:
        yield f"X-Cache {reply.cache!r}"
    if counted != queries:
        yield _count(counted)


def _all_answered_alike(replies: list[Reply]) -> Iterable[str]:
    if failed := [reply.status for reply in replies if reply.status != 200]:
        yield f"{len(failed)} answered {failed[0]}"
    elif any(reply.body != replies[0].body for reply in replies):
        yield "the answers differ"


def _tally(replies: list[Reply]) -> str:
    counts = Counter(reply.cache or "none" for reply in replies)
    if len(replies) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {cache}" for cache, count in counts.most_common())


def _count(queries: int) -> str:
    return {0: "no query", 1: "1 query"}.get(queries, f"{queries} queries")
