"""Whether the readers of a run saw what its level promises.

The versions of a row count up with its commits, so that linearizability of single rows is decided exactly: a read must
return at least the version of every write whose call had returned before the read began, and at least the version of
every read that had returned before it began. The other levels forgive what is younger than their bound.

A write counts from the moment from which the promise speaks of it:

- its call has returned; or, where the level includes killed writers, its commit;
- if its invalidation was owed (the tier was away, and the level lets writes go on), from the delivery on;
- never, if the tier lost its memory, or the write's fence, while the write was under way. Reads that miss such a write
  are counted apart: here the promise ends.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.chaos.history import TAGS, History, Write
from bench.chaos.plan import TTL, Arm

NANOSECONDS: Final = 1_000_000_000
FENCE_SECONDS: Final = 10
_NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Loss:
    """The tier lost something between two moments: one record, or everything if `name` is empty."""

    begin: int
    end: int
    name: str = ""


@dataclass(slots=True)
class Verdict:
    """The figures of one run.

    Attributes:
        missed: reads that missed a write of which the promise speaks, whatever their age.
        worst: the longest time by which a read was late for such a write, in seconds.
        not_linearizable: reads that missed such a write, or are older than an earlier read.
        broken: reads that the level does not allow.
        beyond: reads that missed a write only where the promise ends; the worst of them were late by `worst_beyond` seconds.
        loads_at_once: the most loads of one key at the same time.
        unfinished: writes that a kill cut off.
        examples: of broken reads, in words.
    """

    reads: int = 0
    writes: int = 0
    loads: int = 0
    missed: int = 0
    worst: float = 0.0
    not_linearizable: int = 0
    broken: int = 0
    beyond: int = 0
    worst_beyond: float = 0.0
    loads_at_once: int = 0
    unfinished: int = 0
    owed: int = 0
    examples: list[str] = field(default_factory=list)


def check(history: History, arm: Arm, max_staleness: float, losses: Sequence[Loss]) -> Verdict:
    """Compare what was read with what was written."""
    verdict = Verdict(loads=sum(map(len, history.loads.values())))
    for row, reads in history.reads.items():
        _Row(row, history, arm, max_staleness, losses).check(reads, verdict)
    for row, writes in history.writes.items():
        verdict.writes += sum(bool(write.ended) for write in writes)
        verdict.unfinished += sum(not write.ended and not write.failed for write in writes)
        verdict.owed += sum(write.is_owed for write in writes)
        verdict.loads_at_once = max(verdict.loads_at_once, _most_at_once(history.loads.get(row, ())))
    return verdict


class _Row:
    """The check of one row."""

    def __init__(self, row: int, history: History, arm: Arm, max_staleness: float, losses: Sequence[Loss]) -> None:
        self._row = row
        self._arm = arm
        self._losses = losses
        self._deliveries = history.deliveries
        self._bound = round(max_staleness * NANOSECONDS)
        self._writes = {write.version: write for write in history.writes.get(row, ()) if write.version}
        writes = list(self._writes.values())
        counted = [(self._counts_from(write), write) for write in writes]
        self._counted = _Floor((moment, write.version) for moment, write in counted)
        self._due = _Floor((moment + self._allowance(write), write.version) for moment, write in counted)
        self._all = _Floor((write.ended or _NEVER, write.version) for write in writes)
        sound = [write for write in writes if self._is_sound(write)]
        self._sound = sorted([1, *(write.version for write in sound)])
        self._at_once = sorted([1, *(write.version for write in sound if not self._allowance(write))])
        self._loads = _Latest((end, version) for _, end, version, _ in history.loads.get(row, ()))
        self._stored = _Latest((write.ended, write.version) for write in writes if write.ended)

    def check(self, reads: list[tuple[int, int, int]], verdict: Verdict) -> None:
        """Judge the reads of the row."""
        seen = _Floor((end, _implied(self._sound, version)) for _, end, version in reads)
        seen_at_once = _Floor((end, _implied(self._at_once, version)) for _, end, version in reads)
        is_linearizable = self._arm.coherence in ("strict", "bounded")
        for begin, end, version in reads:
            verdict.reads += 1
            late = self._counted.late(begin, version)
            is_old = late > 0 or version < seen.at(begin)
            verdict.missed += late > 0
            verdict.worst = max(verdict.worst, late / NANOSECONDS)
            verdict.not_linearizable += is_old
            if not is_old and version < self._all.at(begin):
                verdict.beyond += 1
                verdict.worst_beyond = max(verdict.worst_beyond, self._all.late(begin, version) / NANOSECONDS)
            if self._arm.coherence == "ttl":
                is_broken = late > 0 and self._is_too_old(begin, version)
            else:
                is_broken = self._due.late(begin, version) > 0
                is_broken |= is_linearizable and version < seen_at_once.at(begin)
            if is_broken:
                verdict.broken += 1
                if len(verdict.examples) < 5:
                    verdict.examples.append(self._told(begin, end, version, late))

    def _told(self, begin: int, end: int, version: int, late: int) -> str:
        """Say what a broken read missed, with times in milliseconds from its beginning."""
        read = f"row {self._row}: version {version} read within {(end - begin) / 1e6:.1f} ms, {late / 1e6:.1f} ms late"
        write = self._writes.get(version + 1)
        if write is None:
            return f"{read}; nobody knows who wrote the next version"
        steps = ", ".join(
            f"{name} {(moment - begin) / 1e6:.1f}"
            for name in ("begun", "committed", "ended")
            if (moment := getattr(write, name))
        )
        how = "by tag" if write.is_of_tag else "by key"
        fate = "owed" if write.is_owed else "fenced" if write.is_fenced else "not fenced"
        return f"{read}; the next one in process {write.process}, {how}, {fate}: {steps}"

    def _is_too_old(self, begin: int, version: int) -> bool:
        stored = max(self._loads.before(begin, version), self._stored.before(begin, version))
        return begin - stored > TTL * NANOSECONDS

    def _allowance(self, write: Write) -> int:
        """Return for how long reads may miss a write that counts."""
        if self._arm.coherence == "strict":
            return 0
        return self._bound if self._arm.memory or write.is_of_tag else 0

    def _counts_from(self, write: Write) -> int:
        """Return from when on reads have to see a write, `_NEVER` where no promise speaks of it."""
        if self._is_lost(write):
            return _NEVER
        if write.is_owed:
            found = self._deliveries.get((write.process, TAGS if write.is_of_tag else self._row), [])
            return min((moment for moment in found if moment > write.ended), default=_NEVER)
        if write.ended:
            return write.ended
        includes_kills = self._arm.coherence == "bounded" and self._arm.memory and write.is_fenced
        return write.committed if includes_kills and write.committed else _NEVER

    def _is_lost(self, write: Write) -> bool:
        """Tell whether the tier lost what protected a write while it was under way."""
        return any(_touches(loss, write, self._row) for loss in self._losses)

    def _is_sound(self, write: Write) -> bool:
        """Tell whether the promise speaks of a write from its commit on: once it was seen, it is seen by all."""
        return write.is_fenced and not write.is_owed and not self._is_lost(write)


def _implied(versions: Sequence[int], version: int) -> int:
    """Return the newest of `versions` of which a read of `version` is proof."""
    return versions[max(0, bisect.bisect_right(versions, version) - 1)]


def _touches(loss: Loss, write: Write, row: int) -> bool:
    end = write.ended or write.begun + FENCE_SECONDS * NANOSECONDS
    if loss.end < write.begun or loss.begin > end:
        return False
    return loss.name in ("", f":row:{row}", f"#group:{row}")


class _Floor:
    """What is to be seen at least, from moments on: (moment, version)."""

    def __init__(self, moments: Iterable[tuple[int, int]]) -> None:
        points = sorted(moments)
        self._moments = [moment for moment, _ in points]
        self._highest = list(itertools.accumulate((version for _, version in points), max))
        by_version = sorted((version, moment) for moment, version in points)
        self._versions = [version for version, _ in by_version]
        self._earliest = list(itertools.accumulate((moment for _, moment in reversed(by_version)), min))[::-1]

    def at(self, moment: int) -> int:
        """Return the highest version that counted before a moment."""
        place = bisect.bisect_left(self._moments, moment)
        return self._highest[place - 1] if place else 0

    def late(self, moment: int, version: int) -> int:
        """Return for how long a higher version had counted at a moment; 0 for none."""
        place = bisect.bisect_right(self._versions, version)
        if place == len(self._versions):
            return 0
        return max(0, moment - self._earliest[place])


class _Latest:
    """When a version was last brought from the source."""

    def __init__(self, moments: Iterable[tuple[int, int]]) -> None:
        self._by_version: dict[int, list[int]] = {}
        for moment, version in sorted(moments):
            self._by_version.setdefault(version, []).append(moment)

    def before(self, moment: int, version: int) -> int:
        """Return the last such moment before another one; that one if there is none, as it went by unrecorded."""
        found = self._by_version.get(version, [])
        place = bisect.bisect_left(found, moment)
        return found[place - 1] if place else 0


def _most_at_once(loads: Iterable[tuple[int, int, int, str]]) -> int:
    """Return the most loads that were under way at one moment."""
    changes = sorted((moment, change) for begin, end, _, _ in loads for moment, change in ((begin, 1), (end, -1)))
    return max(itertools.accumulate((change for _, change in changes)), default=0)
