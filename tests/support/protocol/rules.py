"""The promise of DESIGN section 5, checked over a history."""

from __future__ import annotations

from collections.abc import Iterator

from credenza import FenceLost, LoadTimeout, TierError

from .config import Config
from .database import LoaderError, LostConnection
from .history import NEVER, SECOND, History, Read, Run, Write
from .process import Cancelled, Interrupted

_RATES_DIFFER = 1.011
"""Clocks differ by one in a hundred: so much longer than it says may a proof hold."""

_FENCE_NS = 10 * SECOND
_CONFIRMED_NS = int(4.9 * SECOND)
_LEASE_NS = 3 * SECOND


def violations(history: History, config: Config) -> Iterator[str]:
    """Yield what is wrong; nothing for a history that keeps the promise."""
    yield from history.broken
    promise = Promise(history, config)
    for write in history.writes:
        yield from promise.of_write(write)
    for read in history.reads:
        yield from promise.of_error(read)
        if read.error is None and read.end < NEVER:
            for key, value in read.values.items():
                yield from promise.of_read(read, key, value)
    for key in config.keys:
        yield from promise.of_order(key)
        yield from promise.of_loads(key)


class Promise:
    """Checks one history."""

    def __init__(self, history: History, config: Config) -> None:
        self._history = history
        self._config = config
        self._has_memory = config.maxsize != 0
        self._staleness_ns = int(config.staleness * SECOND * _RATES_DIFFER)
        self._has_fences = config.coherence in ("bounded", "strict")
        self._is_linear = config.coherence == "strict" or (config.coherence == "bounded" and not self._has_memory)
        self._versions: dict[str, dict[int, int]] = {
            key: {write.value: version for version, write in enumerate(commits)}
            for key, commits in history.commits.items()
        }

    # Writes -----------------------------------------------------------------------------------------------------------

    def of_write(self, write: Write) -> Iterator[str]:
        yield from self.of_error(write)
        if not (self._has_fences and write.is_fenced and write.is_announced and write.committed < NEVER):
            return
        if write.was_covered or write.is_owed:
            return
        if write.was_due:
            yield f"{write} was committed when its fence was gone before its time"
        faults = self._faults_before(write)
        if not faults:
            yield f"{write} was committed when its fence was gone, and nothing had happened"
        is_confirmed = write.confirmed_ns is not None and write.committed_ns - write.confirmed_ns < _CONFIRMED_NS
        if is_confirmed and not {"jumps", "loses"}.intersection(faults) and self._was_prompt(write):
            yield f"{write} was committed when its fence was gone, and it had been confirmed"

    def _was_prompt(self, write: Write) -> bool:
        """Tell whether the commit came at once after the fence was confirmed."""
        return write.confirmed_ns == write.committed_ns

    def _is_due(self, write: Write) -> bool:
        """Tell whether the promise is about this write at all."""
        return write.committed < NEVER and not self._is_outlived(write)

    def _is_outlived(self, write: Write) -> bool:
        """Tell whether it was committed after its fence had gone, or without one that others knew of, for a reason."""
        if not (self._has_fences and write.is_fenced) or (write.is_announced and write.was_covered):
            return False
        return bool(self._faults_before(write))

    def _faults_before(self, write: Write) -> list[str]:
        """Return what had gone wrong lately when the write was committed."""
        since_ns = write.committed_ns - 2 * _FENCE_NS
        return [what for moment, at_ns, what in self._history.faults if moment < write.committed and at_ns >= since_ns]

    def _returned(self, write: Write) -> tuple[int, int]:
        """Return the moment and the time from which on the write is known to be over; `NEVER` if it is not."""
        if write.end == NEVER or isinstance(write.error, (TierError, LostConnection, Cancelled, Interrupted)):
            return NEVER, NEVER
        if isinstance(write.error, LoaderError) and not write.is_fenced:
            return NEVER, NEVER  # it raised before it invalidated anything
        is_safe = self._has_fences and write.is_fenced and not self._is_outlived(write)
        if write.is_owed and not is_safe:
            return max(write.end, write.delivered), max(write.end_ns, write.delivered_ns)
        return write.end, write.end_ns

    def _required(self, key: str, read: Read) -> Iterator[tuple[int, str]]:
        """Yield the versions that a read has to be as new as, and why."""
        for version, write in enumerate(self._history.commits[key]):
            end, end_ns = self._returned(write)
            if not version:
                continue
            if self._is_outlived(write) and not (write.is_owed and write.delivered < NEVER):
                continue
            is_at_once = self._is_linear and self._reaches_tier(write) and not (write.is_owed and self._has_memory)
            if end < read.start and (is_at_once or self._is_seen(read, write)):
                yield version, f"{write} had ended"
            elif self._config.coherence != "ttl" and end_ns + self._staleness_ns <= read.start_ns:
                yield version, f"{write} had ended max_staleness before"
            is_fenced = self._has_fences and write.is_fenced and not self._is_outlived(write)
            if is_fenced and write.committed_ns + self._staleness_ns <= read.start_ns:
                yield version, f"{write} had been committed max_staleness before"

    def _is_seen(self, read: Read, write: Write) -> bool:
        """Tell whether the reader sees the write as soon as it has ended: in its own process, or without a memory tier."""
        has_no_memory = self._config.coherence == "invalidate" and not self._has_memory
        return write.process == read.process or (has_no_memory and self._reaches_tier(write))

    def _reaches_tier(self, write: Write) -> bool:
        """Tell whether whoever asks the tier sees the write. That somebody has cleared is looked up now and then only."""
        return self._config.coherence == "strict" or "clear" not in write.kind

    # Reads ------------------------------------------------------------------------------------------------------------

    def of_read(self, read: Read, key: str, value: int) -> Iterator[str]:
        version = self._versions[key].get(value)
        if version is None or self._history.commits[key][version].committed > read.end:
            yield f"{read} got {value} for {key}, which nobody had committed"
            return
        for needed, why in self._required(key, read):
            if version < needed:
                newest = self._history.commits[key][needed].value
                yield f"{read} got {value} for {key}, and {newest} was required: {why} ({self._config.coherence})"
        yield from self._of_age(read, key, version)

    def _of_age(self, read: Read, key: str, version: int) -> Iterator[str]:
        """F1, `ttl`: no value was superseded longer ago than ttl, the windows in force and its load."""
        commits = self._history.commits[key]
        policy = self._config.policy
        if version + 1 == len(commits) or self._config.jumps:
            return
        most_ns = (
            self._config.ttl * SECOND
            + max(policy.get("stale_while_revalidate", 0), policy.get("stale_if_error", 0)) * SECOND
        )
        longest_ns = 20 * SECOND  # a load reads before it ends; its process may have been paused in between
        if commits[version + 1].committed_ns + int(most_ns * _RATES_DIFFER) + longest_ns < read.start_ns:
            yield f"F1: {read} got {commits[version].value} for {key}, superseded longer than ttl ago"

    def of_order(self, key: str) -> Iterator[str]:
        """Linearizable: who reads after another read has ended sees no older version, as far as writes were fenced."""
        if not self._is_linear:
            return
        fenced = [0]
        for version, write in enumerate(self._history.commits[key]):
            is_fenced = write.is_fenced and self._reaches_tier(write) and not self._is_outlived(write)
            fenced.append(version if is_fenced else fenced[-1])
        reads = [read for read in self._history.reads if key in read.values and read.error is None and read.end < NEVER]
        ended = sorted(reads, key=lambda read: read.end)
        newest, first, index = 0, None, 0
        for read in sorted(reads, key=lambda read: read.start):
            while index < len(ended) and ended[index].end < read.start:
                seen = fenced[1 + self._versions[key].get(ended[index].values[key], 0)]
                if seen > newest:
                    newest, first = seen, ended[index]
                index += 1
            version = self._versions[key].get(read.values[key])
            if version is not None and version < newest:
                yield f"{read} got {read.values[key]} for {key}, though {first} had got a newer version and ended before it began"

    # Loads ------------------------------------------------------------------------------------------------------------

    def of_loads(self, key: str) -> Iterator[str]:
        """L1: one load at a time in all processes, as long as nothing ends leases."""
        runs = [run for run in self._history.runs if run.key == key]
        for index, run in enumerate(runs):
            for other in runs[index + 1 :]:
                if other.began > run.returned or run.is_free or other.is_free:
                    continue
                if not self._may_overlap(key, run, other):
                    yield f"L1: {other} of {key} began while {run} was under way"

    def _may_overlap(self, key: str, run: Run, other: Run) -> bool:
        first = min(each.call.start if each.call else each.began for each in (run, other))
        if any(first < moment < other.began for moment in self._history.upsets.get(key, ())):
            return True
        if self._config.policy.get("stale_while_revalidate") or self._config.policy.get("early_refresh"):
            return True
        since_ns = run.began_ns - 2 * _FENCE_NS
        if any(at_ns >= since_ns and moment < other.began for moment, at_ns, _ in self._history.faults):
            return True
        return any(
            write.start < other.began and (write.end > first or self._may_still_fence(write, run, other))
            for write in self._history.writes
            if key in write.keys or "tags" in write.kind
        )

    @staticmethod
    def _may_still_fence(write: Write, *runs: Run) -> bool:
        """Tell whether the fence of a write that may have been committed had not expired long before the loads."""
        return write.error is not None and write.end_ns + _FENCE_NS + SECOND > min(run.began_ns for run in runs)

    # Errors -----------------------------------------------------------------------------------------------------------

    def of_error(self, call: Read | Write) -> Iterator[str]:
        error = call.error
        if error is None or isinstance(error, (LoaderError, LostConnection, Cancelled, Interrupted, LoadTimeout)):
            return
        if isinstance(call, Write) and isinstance(error, (TierError, FenceLost)) and self._history.faults:
            return
        if isinstance(error, BaseException) and type(error).__name__ in ("CancelledError", "Abandoned"):
            return
        yield f"{call} raised {error!r}"
