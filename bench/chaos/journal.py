"""Reads and writes of the database, recorded step by step."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.chaos.database import Database, dawdle
from bench.chaos.history import BEGUN, COMMITTED, DELIVERED, ENDED, FAILED, FENCED, LOAD, Recorder

_LOAD_PAUSE = 0.004
_WRITE_PAUSE = 0.006

Row = dict[str, int]


@dataclass(slots=True)
class Note:
    """What became of the fence of a write under way."""

    is_fenced: bool = True
    is_owed: bool = False


note_here: contextvars.ContextVar[Note | None] = contextvars.ContextVar("note", default=None)


class Journal:
    """Does reads and writes of the database and records them.

    Args:
        step: is called at every step of a write, and may end the process.
    """

    def __init__(self, database: Database, recorder: Recorder, step: Callable[[], None]) -> None:
        self.database = database
        self._recorder = recorder
        self._step = step
        self._numbers = itertools.count(1)

    def load(self, row: int) -> Row:
        """Read a row as a loader does: what it brings may be old by the time it arrives."""
        begin = time.monotonic_ns()
        version = self.database.version(row)
        dawdle(_LOAD_PAUSE)
        self._recorder.note(LOAD, row, version=version, begin=begin, end=time.monotonic_ns())
        return {"version": version}

    async def load_async(self, row: int) -> Row:
        """See `load`."""
        begin = time.monotonic_ns()
        version = self.database.version(row)
        await asyncio.sleep(random.random() * _LOAD_PAUSE)
        self._recorder.note(LOAD, row, version=version, begin=begin, end=time.monotonic_ns())
        return {"version": version}

    def begin(self, row: int, *, of_tag: bool = False) -> int:
        """Record that a write begins; return its number."""
        number = next(self._numbers)
        self._recorder.note(BEGUN, row, begin=time.monotonic_ns(), write=number, flag=of_tag)
        self._step()
        return number

    def commit(self, row: int, number: int, before_commit: Callable[[], object] = lambda: None) -> int:
        """Do the write in the database; return the version that it made."""
        note = note_here.get()
        self._recorder.note(FENCED, row, write=number, flag=note is None or note.is_fenced)
        dawdle(_WRITE_PAUSE)
        self._step()

        def commit_now() -> None:
            before_commit()
            self._step()

        version = self.database.count_up(row, commit_now)
        self._step()
        self._recorder.note(COMMITTED, row, version=version, end=time.monotonic_ns(), write=number)
        dawdle(_WRITE_PAUSE)
        self._step()
        return version

    def end(self, row: int, number: int, *, is_owed: bool) -> None:
        """Record that the call of a write has returned."""
        self._recorder.note(ENDED, row, end=time.monotonic_ns(), write=number, flag=is_owed)

    def fail(self, row: int, number: int) -> None:
        """Record that a write was refused, or rolled back."""
        self._recorder.note(FAILED, row, write=number)

    def deliver(self, row: int) -> None:
        """Record that an owed invalidation has been delivered."""
        self._recorder.note(DELIVERED, row, end=time.monotonic_ns())
