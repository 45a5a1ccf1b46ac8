"""The ledger: what was sent, what was acknowledged, and so which values a key may have.

Two writes of one key are ordered if the first had ended before the second began; an end is the acknowledgement, the error, or the
death of the process. A value is lost if a write that began after its end was acknowledged. Writes that overlap may come in
either order, and one that was cut off may have been kept or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.kills.records import Kind, Record

ABSENT = 0
"""What is found where no write ever came, or a delete came last."""

_MOST_EXAMPLES = 5


@dataclass(slots=True)
class Verdict:
    """What a run came to. All but the first block should be 0.

    Attributes:
        acknowledged: writes that returned.
        cut_off: writes that were under way when their process died, or raised; they may be kept or not.
        refused: writes for which the journal had no room.
        reads: what the writers read of their own keys.
        rows: how often a row of the source was written.
        lost: keys of which the source has an older value than the last acknowledged one.
        stale: reads that saw such a value.
        invented: values that nobody had sent, or whose writer was told that they were not kept.
        backwards: rows that got an older value after a newer one.
        twice: rows that got the same write again.
        left: writes that stayed in the journal although the source took everything.
        dead: dead letters.
    """

    acknowledged: int = 0
    cut_off: int = 0
    refused: int = 0
    reads: int = 0
    rows: int = 0
    lost: int = 0
    stale: int = 0
    invented: int = 0
    backwards: int = 0
    twice: int = 0
    left: int = 0
    dead: int = 0
    examples: list[str] = field(default_factory=list)

    def wrong(self, *, exactly_once: bool) -> int:
        """Return how much is against the promise; under "at least once" the same write may come again."""
        found = self.lost + self.stale + self.invented + self.backwards + self.left + self.dead
        return found + (self.twice if exactly_once else 0)


@dataclass(slots=True)
class _Write:
    """One write of a key; `end` is None while it is under way."""

    number: int
    value: int
    begin: int
    end: int | None = None


class _Story:
    """What is known of one key."""

    __slots__ = ("kept", "possible", "sent")

    def __init__(self) -> None:
        self.sent: set[int] = set()
        self.kept: _Write | None = None  # acknowledged last
        self.possible = [_Write(ABSENT, ABSENT, -1, -1)]

    def keep(self, write: _Write) -> None:
        """A write is known to be kept: what had ended before it began is over."""
        self.possible = [one for one in self.possible if one.end is None or one.end >= write.begin or one is write]

    def find(self, number: int) -> _Write | None:
        return next((one for one in self.possible if one.number == number), None)


class Ledger:
    """Follows the records of one writer process after another."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self._stories: dict[int, _Story] = {}
        self._open: dict[tuple[int, int], _Write] = {}
        self._now = 0

    def note(self, record: Record) -> None:
        """Take the next record of the process."""
        self._now += 1
        kind, key, number = record
        if kind in (Kind.SENT, Kind.DELETED):
            self._begin(key, number, ABSENT if kind is Kind.DELETED else number)
        elif kind in (Kind.KEPT, Kind.FAILED, Kind.FULL):
            self._end(kind, key, number)
        elif kind is Kind.READ:
            self.verdict.reads += 1
            self._see(key, number, "read")

    def end_process(self) -> None:
        """The process is dead: what was under way is cut off."""
        self._now += 1
        self.verdict.cut_off += len(self._open)
        for write in self._open.values():
            write.end = self._now
        self._open.clear()

    def check(self, found: Mapping[int, int]) -> None:
        """Compare the source, to which everything was delivered, with what it may hold."""
        for key in sorted(self._stories.keys() | found.keys()):
            number = found.get(key, ABSENT)
            self._see(key, number, "in the source")
            story = self._story(key)
            self._now += 1
            story.possible = [_Write(number, number, self._now, self._now)]  # nothing else can come any more

    def owed(self, found: Mapping[int, int]) -> int:
        """Count the keys of which the source has not the write that was acknowledged last."""
        stories = self._stories.items()
        return sum(story.kept is not None and found.get(key, ABSENT) != story.kept.value for key, story in stories)

    def _story(self, key: int) -> _Story:
        return self._stories.setdefault(key, _Story())

    def _begin(self, key: int, number: int, value: int) -> None:
        write = _Write(number, value, self._now)
        story = self._story(key)
        story.possible.append(write)
        story.sent.add(value)
        self._open[key, number] = write

    def _end(self, kind: Kind, key: int, number: int) -> None:
        write = self._open.pop((key, number))
        write.end = self._now
        story = self._story(key)
        if kind is Kind.KEPT:
            self.verdict.acknowledged += 1
            story.keep(write)
            story.kept = write
        elif kind is Kind.FAILED:
            self.verdict.cut_off += 1
        else:
            self.verdict.refused += 1
            story.possible.remove(write)
            story.sent.discard(write.value)

    def _see(self, key: int, value: int, where: str) -> None:
        story = self._story(key)
        fits = [one for one in story.possible if one.value == value]
        if fits:
            if len(fits) == 1:
                story.keep(fits[0])
            return
        verdict = self.verdict
        if value != ABSENT and value not in story.sent:
            verdict.invented += 1
            what = "which nobody sent"
        elif where == "read":
            verdict.stale += 1
            what = "which is older than what was acknowledged"
        else:
            verdict.lost += 1
            what = "which is older than what was acknowledged"
        if len(verdict.examples) < _MOST_EXAMPLES:
            expected = sorted(one.value for one in story.possible)
            verdict.examples.append(f"key {key}: {value} is {where}, {what}; expected one of {expected[-4:]}")
