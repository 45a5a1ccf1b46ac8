"""The part of the tour that needs several workers: what they promise together, each promise checked."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any, Protocol  # Any: decoded JSON

from .client import Line, Reply
from .errors import DemoError, LineCut
from .rows import USER, Probe, Row, count, second_name, skipped, tally, unlike

HERD = 1_000
_FRESH_USER = (
    USER + 1
)  # whom no worker has read, so that even those which do not hear of each other have nothing at hand
_WAITING = 20  # requests that wait for the load of a worker that is killed
_LONGEST_WAIT = 30.0  # seconds after which somebody waits for ever, as far as the tour is concerned
_POLL = 0.02

_NOT_OURS = "not by the command that started the workers"
_NOT_CACHED = "with this strategy nothing is cached"


class Control(Protocol):
    """What whoever started the workers may do to them."""

    def kill(self, worker: str) -> None:
        """End a worker without a word to it; another takes its place."""

    def are_ready(self) -> bool:
        """Tell whether all workers answer."""
        ...

    def hold_database(self) -> AbstractContextManager[None]:
        """Let no query of the database come to an end inside the block."""
        ...

    def hold_cache(self) -> AbstractContextManager[None] | None:
        """Let nobody write to the shared cache inside the block; None if it is not ours to stop."""
        ...


class WorkersTour:
    """Drives the workers of one service.

    Args:
        probe: speaks to them.
        workers: how many there are.
        queries_after_update: how many queries the reads after an update cost, None if nothing is cached.
        is_exact: whether they cost so many; else at most one for each worker.
        control: what may be done to them; without it some steps are skipped.
    """

    def __init__(
        self,
        probe: Probe,
        workers: int,
        *,
        queries_after_update: int | None,
        is_exact: bool,
        control: Control | None,
    ) -> None:
        self._probe = probe
        self._names = [str(number + 1) for number in range(workers)]
        self._queries_after_update = queries_after_update
        self._is_exact = is_exact
        self._control = control

    def steps(self) -> list[Callable[[], Awaitable[Row]]]:
        """Return the steps, in the order in which they are taken."""
        return [self._stampede, self._update, self._killed, self._away]

    async def _stampede(self) -> Row:
        step = f"{HERD:,} at once over {len(self._names)} workers"
        if self._queries_after_update is None:
            return skipped(step, count(1), _NOT_CACHED)
        await self._probe.expire(_FRESH_USER)

        def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
            yield from unlike(replies)
            if queries != 1:
                yield count(queries)
            if len({reply.headers.get("x-worker") for reply in replies}) < 2:
                yield "one worker has answered them all"

        return await self._probe.measure(
            step, "1 query", lambda: self._probe.client.send_at_once(f"/user?id={_FRESH_USER}", HERD), check
        )

    async def _update(self) -> Row:
        """Edit on one worker, with the old value in the memory of all, and read on each of them."""
        with ExitStack() as stack:
            lines = [stack.enter_context(closing(await self._line(name.__eq__))) for name in self._names]
            await _read_on(lines)
            shown = [reply.body["name"] for reply in await _read_on(lines)]  # read twice, it is in the memory of all
            old, new = shown[0], second_name(shown[0])
            while new in shown:  # on a worker that has not heard of an earlier edit
                new += "i"
            most = len(lines)
            wanted = most if self._queries_after_update is None else self._queries_after_update

            def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
                if put.status != 200:
                    yield f"the update answered {put.status}"
                yield from unlike(replies)
                late = [reply.headers["x-worker"] for reply in replies if reply.body.get("name") != new]
                if late:
                    yield f"the old name on worker {', '.join(late)}"
                if queries != wanted and (self._is_exact or queries > most):
                    yield count(queries)

            cost = count(wanted) if self._is_exact else f"at most {count(most)}"
            step, promise = "edit on one, read on each worker", f"the new name on each, {cost}"
            async with self._probe.renaming(new, back=old, line=lines[0]) as put:
                return await self._probe.measure(step, promise, lambda: _read_on(lines), check)

    async def _killed(self) -> Row:
        """Kill the worker that loads while others wait for it: the database is held, so that the load is not over."""
        step, promise = "worker killed while it loads", "1 further query, nobody waits for long"
        control = self._control
        if control is None or self._queries_after_update is None:
            return skipped(step, promise, _NOT_OURS if control is None else _NOT_CACHED)
        await self._probe.expire(USER)
        with ExitStack() as stack:
            loading = stack.enter_context(closing(await self._line(lambda _: True)))
            others = [stack.enter_context(closing(await self._line(loading.worker.__ne__))) for _ in range(_WAITING)]
            before = (await self._probe.stats())["queries"]
            with control.hold_database():
                lost = asyncio.create_task(_read(loading))
                await self._until(lambda stats: stats["queries"] > before, "the load does not begin")
                waiting = [asyncio.create_task(_read(line)) for line in others]
                await self._probe.stats()  # a round trip, in which they arrive
                control.kill(loading.worker)
            started = time.perf_counter()
            replies, broken = await _outcomes(waiting)
            seconds = time.perf_counter() - started
            if not isinstance((await asyncio.gather(lost, return_exceptions=True))[0], LineCut):
                broken.append("the killed worker has answered")
        await self._until(lambda _: control.are_ready(), "no other worker takes the place of the one that was killed")
        queries = (await self._probe.stats())["queries"] - before
        if queries != 2:
            broken.append(f"{queries - 1} further queries")
        return Row(step, f"1 cut off, {tally(replies)}", queries, seconds, promise, tuple(broken))

    async def _away(self) -> Row:
        """Let the shared cache take nothing for a while: every worker goes on with the database."""
        step, promise = "shared cache stopped", f"every page, at most {count(len(self._names))}"
        held = self._control.hold_cache() if self._control else None
        if held is None:
            return skipped(step, promise, "it is not this command's to stop")
        await self._probe.expire(USER)

        def check(replies: Sequence[Reply], queries: int) -> Iterable[str]:
            yield from unlike(replies)
            if not 1 <= queries <= len(self._names):
                yield count(queries)

        with ExitStack() as stack:
            lines = [stack.enter_context(closing(await self._line(name.__eq__))) for name in self._names]
            with held:
                row = await self._probe.measure(step, promise, lambda: _read_on(lines), check)
            for line in lines:  # a worker that is asked tells the others how it is
                await line.send("GET", "/stats")
        await self._until(lambda stats: not stats["away"], "the shared cache does not come back")
        return row

    async def _line(self, is_wanted: Callable[[str], bool]) -> Line:
        return await self._probe.client.line(is_wanted)

    async def _until(self, is_so: Callable[[Any], bool], otherwise: str) -> None:
        """Ask for the counters until they are as wanted."""
        ends = time.monotonic() + _LONGEST_WAIT
        while not is_so(await self._probe.stats()):
            if time.monotonic() > ends:
                raise DemoError(f"the tour cannot go on: {otherwise}")
            await asyncio.sleep(_POLL)


async def _read(line: Line) -> Reply:
    return await line.send("GET", f"/user?id={USER}")


async def _read_on(lines: Sequence[Line]) -> list[Reply]:
    return await asyncio.gather(*map(_read, lines))


async def _outcomes(reads: Sequence[asyncio.Task[Reply]]) -> tuple[list[Reply], list[str]]:
    """Wait for the answers, though not for ever, and return them with what is wrong about them."""
    done, pending = await asyncio.wait(reads, timeout=_LONGEST_WAIT)
    for read in pending:
        read.cancel()
    replies = [read.result() for read in done if read.exception() is None]
    broken = list(unlike(replies))
    if pending:
        broken.append(f"{len(pending)} still wait after {_LONGEST_WAIT:.0f} s")
    if failed := len(done) - len(replies):
        broken.append(f"{failed} have got no answer")
    return replies, broken
