"""What the processes of a run did: one file each, so written that a killed process loses at most what was under way."""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

_RECORD = struct.Struct("<BBBBIqqq")

READ, LOAD, BEGUN, FENCED, COMMITTED, ENDED, FAILED, DELIVERED = range(8)
TAGS = 255
"""Stands for a key where invalidations by tag were delivered."""


class Recorder:
    """Appends records to a file. Thread-safe: one record is one write to a file opened for appending."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(
        self, kind: int, key: int, *, version: int = 0, begin: int = 0, end: int = 0, write: int = 0, flag: bool = False
    ) -> None:
        """Write one record; what has returned survives a SIGKILL."""
        os.write(self._file, _RECORD.pack(kind, key, flag, 0, version, begin, end, write))


@dataclass(slots=True)
class Write:
    """One write, as far as it came.

    Attributes:
        process: which process.
        version: what the database has made of it; 0 if nobody knows.
        begun, committed, ended: when, in nanoseconds; 0 for "never, as far as is known".
        is_fenced: the shared tier had its fence when the commit began.
        is_owed: its invalidation was owed when the call returned.
        is_of_tag: the fence was around a tag.
        failed: it was certainly not committed.
    """

    process: str
    key: int
    begun: int
    version: int = 0
    committed: int = 0
    ended: int = 0
    is_fenced: bool = True
    is_owed: bool = False
    is_of_tag: bool = False
    failed: bool = False


@dataclass(slots=True)
class History:
    """All that was recorded of a run, by key.

    Attributes:
        reads: (begin, end, version); loads likewise, and of which process they were.
        deliveries: by process and key, when owed invalidations were delivered.
        torn: records that a kill cut off.
    """

    reads: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    loads: dict[int, list[tuple[int, int, int, str]]] = field(default_factory=lambda: defaultdict(list))
    writes: dict[int, list[Write]] = field(default_factory=lambda: defaultdict(list))
    deliveries: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    torn: int = 0


def read_history(folder: Path) -> History:
    """Put the files of a run together."""
    history = History()
    for path in sorted(folder.glob("*.history")):
        _read_file(path, history)
    return history


def _read_file(path: Path, history: History) -> None:
    content = path.read_bytes()
    whole = len(content) - len(content) % _RECORD.size
    history.torn += whole != len(content)
    writes: dict[int, Write] = {}
    for kind, key, flag, _, version, begin, end, number in _RECORD.iter_unpack(content[:whole]):
        if kind == READ:
            history.reads[key].append((begin, end, version))
        elif kind == LOAD:
            history.loads[key].append((begin, end, version, path.stem))
        elif kind == DELIVERED:
            history.deliveries[path.stem, key].append(end)
        elif kind == BEGUN:
            writes[number] = Write(path.stem, key, begin, is_of_tag=bool(flag))
            history.writes[key].append(writes[number])
        else:
            _go_on(writes[number], kind, version, end, flag=bool(flag))


def _go_on(write: Write, kind: int, version: int, end: int, *, flag: bool) -> None:
    if kind == FENCED:
        write.is_fenced = flag
    elif kind == COMMITTED:
        write.version, write.committed = version, end
    elif kind == ENDED:
        write.ended, write.is_owed = end, flag
    elif kind == FAILED:
        write.failed = True
