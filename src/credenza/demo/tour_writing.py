"""The part of the tour that is about writing: write-behind, and what other programs write."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterator, Mapping

from .burst import EDITS, USERS, without_number
from .client import Reply
from .crash import crash
from .errors import DemoError
from .rows import USER, Probe, Row, second_name, skipped, tally
from .seeding import SCHEMA
from .settings import Settings

_LEAST_SHARE = 20  # edits for each statement
_SEEN_WITHIN = 1.0
_PATIENCE = 10.0
_POLL = 0.005

_NOT_OURS = "only by the command that started the service"

_UPDATE_FILE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.execute("UPDATE users SET name = ? WHERE id = ?", (sys.argv[2], int(sys.argv[3])))
connection.commit()
"""
_UPDATE_SERVER = f"""
import psycopg, sys
with psycopg.connect(sys.stdin.read()) as connection:
    connection.execute("UPDATE {SCHEMA}.users SET name = %s WHERE id = %s", (sys.argv[2], int(sys.argv[3])))
"""  # noqa: S608 - the name of the schema is ours


class WritingTour:
    """Drives one service.

    Args:
        probe: speaks to it.
        facts: what it says of its settings.
        settings: these themselves; without them some steps are skipped.
    """

    def __init__(self, probe: Probe, facts: Mapping[str, str], settings: Settings | None) -> None:
        self._probe = probe
        self._facts = facts
        self._settings = settings

    def steps(self) -> list[Callable[[], Awaitable[Row]]]:
        """Return the steps that fit the service, in the order in which they are taken."""
        behind = [self._burst, self._killed] if self._facts["strategy"] == "write-behind" else []
        return [*behind, *([self._foreign] if "follows" in self._facts else [])]

    async def _burst(self) -> Row:
        name = without_number((await self._probe.get(USER)).body["name"])
        started = time.perf_counter()
        reply = await self._probe.client.send("POST", "/burst")
        seconds = time.perf_counter() - started
        after = await self._probe.get(USER)
        step = f"burst: {EDITS:,} edits of {USERS} users"
        promise = f"at most {EDITS // _LEAST_SHARE} statements, the last names"
        statements = int(reply.body.get("statements", 0))
        broken = [f"the burst answered {reply.status}"] if reply.status != 200 else list(_lacking(reply))
        if after.body.get("name") != name:
            broken.append(f"the name {after.body.get('name')!r}")
        return Row(step, "-", statements, seconds, promise, tuple(broken))

    async def _killed(self) -> Row:
        """Kill a process of our own that edits; this is about the journal, and leaves the service alone."""
        step, promise = "kill -9 in the middle of edits", "0 acknowledged edits missing"
        if self._settings is None:
            return skipped(step, promise, _NOT_OURS)
        started = time.perf_counter()
        found = await asyncio.to_thread(crash)
        seconds = time.perf_counter() - started
        broken = (f"{found.missing} missing",) if found.missing else ()
        told = f"{found.acknowledged:,} acknowledged, {found.recovered} recovered"
        return Row(step, told, found.statements, seconds, promise, broken)

    async def _foreign(self) -> Row:
        """Change a name past the service, in another process, and read until the new one is seen."""
        step, promise = "UPDATE by another program", f"the new name within {_SEEN_WITHIN:.0f} s"
        if self._settings is None:
            return skipped(step, promise, _NOT_OURS)
        old = (await self._probe.get(USER)).body["name"]
        new = second_name(old)
        try:
            before = (await self._probe.stats())["queries"]
            await _update(self._settings, new)
            seconds, replies = await self._until_named(new)
            queries = (await self._probe.stats())["queries"] - before
        finally:
            await _update(self._settings, old)
            await self._until_named(old)
        broken = () if seconds <= _SEEN_WITHIN else (f"the old name for {seconds:.1f} s",)
        return Row(step, tally(replies), queries, seconds, promise, broken)

    async def _until_named(self, name: str) -> tuple[float, list[Reply]]:
        """Read until the name is seen, for some seconds at most; return how long that took, and what was read."""
        started, replies = time.perf_counter(), [await self._probe.get(USER)]
        while replies[-1].body.get("name") != name and time.perf_counter() < started + _PATIENCE:
            await asyncio.sleep(_POLL)
            replies.append(await self._probe.get(USER))
        return time.perf_counter() - started, replies


def _lacking(reply: Reply) -> Iterator[str]:
    """Say in what a burst is not as promised."""
    done = reply.body
    if done["edits"] < EDITS:
        yield f"{done['edits']:,} edits"
    if done["statements"] * _LEAST_SHARE > done["edits"]:
        yield f"{done['statements']:,} statements"
    if done["pending"]:
        yield f"{done['pending']} users are still to be written"


async def _update(settings: Settings, name: str) -> None:
    """Change the name of the tour's user by another process, which knows nothing of the cache.

    Raises:
        DemoError: it could not.
    """
    database = settings.database
    is_file = database.get_backend_name() == "sqlite"
    program, place = (_UPDATE_FILE, database.database or "") if is_file else (_UPDATE_SERVER, "")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, place, name, str(USER)), stdin=PIPE, stderr=PIPE
    )
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    _, error = await process.communicate(b"" if is_file else url.encode())  # a password is for no list of processes
    if process.returncode:
        last = error.decode(errors="replace").strip().rpartition("\n")[2]
        raise DemoError(f"the tour cannot change {database.render_as_string()} from another process: {last}")
