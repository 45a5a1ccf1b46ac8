"""Kills a process in the middle of its edits, and looks whether one that was acknowledged is missing.

It works in a folder of its own, with the classes that the service uses and a small database.
"""

import contextlib
import itertools
import multiprocessing
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine

from . import seeding
from .behind import Edits
from .errors import DemoError
from .journals import journal_of, owed_in
from .people import Person, read_people
from .population import Scale
from .settings import Settings
from .spawning import without_ctrl_c

_USERS = 100
_THREADS = 16
_ACKNOWLEDGED = 1_000  # edits before the kill
_PATIENCE = 30.0
_TOLD = struct.Struct("<II")  # a user, and which of their edits was acknowledged

Write = Callable[[Edits, Person], None]
"""Makes an edit; returns when it is acknowledged."""


@dataclass(frozen=True, slots=True)
class Crash:
    """What was found.

    Attributes:
        acknowledged: edits that were acknowledged before the process was killed.
        recovered: users whose last edit only the journal had then.
        statements: that brought these to the database.
        missing: users of whom the database has an older edit than the last one that was acknowledged.
        seconds: until the database had all, from the kill on.
    """

    acknowledged: int
    recovered: int
    statements: int
    missing: int
    seconds: float


def write_through_journal(edits: Edits, person: Person) -> None:
    """Make an edit as the service does."""
    edits.write_now(person)


def crash(write: Write = write_through_journal) -> Crash:
    """Have a process edit users, kill it without a word, let another one deliver, and compare; blocks for some seconds.

    Args:
        write: how an edit is made; a function that can be imported.

    Raises:
        DemoError: a process has not come as far as that.
    """
    with tempfile.TemporaryDirectory(prefix="credenza-demo-", ignore_cleanup_errors=True) as folder:
        scale = Scale(users=_USERS)
        database = URL.create("sqlite", database=str(Path(folder) / "people.db"))
        settings = Settings(database=database, scale=scale, strategy="write-behind")
        seeding.seed(database, scale)
        last, told = _killed(settings, write)
        killed = time.perf_counter()
        recovered = owed_in(journal_of(settings, 0))
        statements = _delivered(settings)
        seconds = time.perf_counter() - killed
        numbers = {person.id: _number_of(person.name) for person in _people(settings)}
        missing = sum(numbers.get(user, 0) < number for user, number in last.items())
    return Crash(told, recovered, statements, missing, seconds)


def _killed(settings: Settings, write: Write) -> tuple[dict[int, int], int]:
    """Kill a process that edits; return for each user the last edit that it has acknowledged, and how many in all."""
    last: dict[int, int] = {}
    told = 0
    with _process(_edit, settings, write) as (process, line), contextlib.suppress(EOFError, OSError):
        while line.poll(_PATIENCE):
            user, number = _TOLD.unpack(line.recv_bytes())
            last[user] = max(number, last.get(user, 0))
            told += 1
            if told == _ACKNOWLEDGED:
                process.kill()  # and read on: what it has said before counts, too
    if told < _ACKNOWLEDGED:
        raise DemoError(f"the process that was to be killed has made {told} edits only")
    return last, told


def _delivered(settings: Settings) -> int:
    """Have another process deliver what the journal holds; return how many statements that took."""
    with _process(_deliver, settings) as (_, line):
        try:
            if line.poll(_PATIENCE):
                return int(_TOLD.unpack(line.recv_bytes())[0])
        except (EOFError, OSError):
            pass
    raise DemoError("the process that was to deliver the edits has not done so")


@contextlib.contextmanager
def _process(
    work: Callable[..., None], *arguments: object
) -> Generator[tuple[SpawnProcess, Any]]:  # Any: as in `supervisor`
    """Run `work` in a process that is gone with the block; it is also given its end of a line."""
    context = multiprocessing.get_context("spawn")
    line, their_line = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(*arguments, their_line), daemon=True)
    with without_ctrl_c():
        process.start()
    their_line.close()  # so that the end of the process is the end of the line
    try:
        yield process, line
    finally:
        process.kill()
        process.join()
        process.close()
        line.close()


def _edit(settings: Settings, write: Write, line: Connection) -> None:
    """Edit until killed, and tell each edit that was acknowledged; each user has one thread, so that the order is known."""
    edits = Edits(settings, journal_of(settings, 0))
    people = _people(settings)
    lock = threading.Lock()  # one thread at a time tells

    def go_on(mine: Sequence[Person]) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            for number, person in ((number, person) for number in itertools.count(1) for person in mine):
                write(edits, replace(person, name=f"Edit {number}"))
                with lock:
                    line.send_bytes(_TOLD.pack(person.id, number))

    threads = [threading.Thread(target=go_on, args=(people[first::_THREADS],)) for first in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _deliver(settings: Settings, line: Connection) -> None:
    counted: dict[str, float] = {}
    edits = Edits(settings, journal_of(settings, 0), note=counted.__setitem__)
    edits.close()
    line.send_bytes(_TOLD.pack(int(counted.get("statements", 0)), 0))


def _people(settings: Settings) -> list[Person]:
    engine = create_engine(settings.database)
    try:
        with engine.connect() as connection:
            return read_people(connection, range(1, _USERS + 1))
    finally:
        engine.dispose()


def _number_of(name: str) -> int:
    word, _, number = name.partition(" ")
    return int(number) if word == "Edit" and number.isdecimal() else 0
