"""What holds for loads, and for what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator

from .facts import NEVER, Facts, last_moment_of, origin_of
from .history import SECOND, Flown, Run, Stored, Write
from .source import LoaderError

_READS = ("get_or_load", "fetch", "call", "refresh")


class LoadRules:
    """Checks the loads and the stores of one history."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def violations(self) -> Iterator[str]:
        """Yield what is wrong, one line each."""
        for stored in self._facts.history.stored:
            yield from self._of_store(stored)
        for runs in self._facts.runs.values():
            yield from self._of_runs(runs)
        yield from self._of_concurrency()
        yield from self._of_backoff()
        yield from self._of_cancelled_loads()

    def _of_store(self, stored: Stored) -> Iterator[str]:
        origin = origin_of(stored.value)
        for write in self._facts.history.writes:
            if write.is_up_at(stored.at) and write.concerns(stored.key, stored.tags) and write is not origin:
                yield f"I3: at {stored.at} {stored.value} was stored inside {write}"
        if origin is None:
            return
        own = origin.exit if isinstance(origin, Write) else origin
        last = last_moment_of(origin)
        if isinstance(origin, Write):
            last = origin.body_start or 0
        for change in self._facts.history.changes:
            is_between = last < change.start and change.end is not None and change.end < stored.at
            if change is not own and is_between and change.concerns(stored.key, stored.tags):
                yield f"I1/I2/I5: at {stored.at} {stored.value} was stored, {change} had overtaken it"
        if isinstance(origin, Write):
            yield from self._not_alone(stored, origin)
        yield from self._too_long(stored)

    def _not_alone(self, stored: Stored, write: Write) -> Iterator[str]:
        for other in self._facts.history.writes:
            if other is write or stored.key not in other.keys or other.body_start is None:
                continue
            if other.body_start < (write.body_end or NEVER) and (write.body_start or 0) < (other.body_end or NEVER):
                yield f"I5: at {stored.at} {stored.value} was stored, and {other} was under way meanwhile"

    def _too_long(self, stored: Stored) -> Iterator[str]:
        ttl_ns = self._facts.ttl_ns_of(stored.key, stored.value)
        if stored.ttl_ns is not None and stored.ttl_ns > ttl_ns:
            yield f"F1: at {stored.at} {stored.value} was stored for {stored.ttl_ns / SECOND} s, its ttl is {ttl_ns / SECOND}"

    # Loads ------------------------------------------------------------------------------------------------------------

    def _of_runs(self, runs: list[Run]) -> Iterator[str]:
        for index, run in enumerate(runs):
            for key in run.keys:
                if runs is self._facts.runs[key]:
                    yield from self._with_context(run, key)
                    for later in runs[index + 1 :]:
                        if later.began < (run.returned or NEVER):
                            yield from self._at_once(key, run, later)
                    yield from self._unpublished(key, run)

    def _with_context(self, run: Run, key: Hashable) -> Iterator[str]:
        if run.call is None or key not in run.call.keys:
            yield f"L10: {run} of {key} ran in the context of {run.call}"

    def _at_once(self, key: Hashable, run: Run, later: Run) -> Iterator[str]:
        """L1: two loads of a key at once need a reason; see the module."""
        first, second = (self._facts.history.flown[r.flights[key]] for r in (run, later))
        if first is second:
            yield f"L1: {run} and {later} are one flight"
            return
        if second.begin < first.begin:  # the first one queued for longer
            run, later, first, second = later, run, second, first
        if not self._is_replaced(key, run, first, second):
            yield f"L1: {run} and {later} load {key} at once"

    def _is_replaced(self, key: Hashable, run: Run, first: Flown, second: Flown) -> bool:
        tags = tuple({*self._facts.tags_of(key, run.values.get(key)), *self._facts.asked_tags(key)})
        for change in self._facts.history.changes:
            if change.start < second.begin and (change.end or NEVER) > first.begin and change.concerns(key, tags):
                return True
        if (
            "load_timeout" in self._facts.policy
            and second.begin_ns >= first.begin_ns + self._facts.policy["load_timeout"] * SECOND
        ):
            return True
        return run.is_async and any(
            set(call.keys).intersection(run.keys)
            and first.begin < (call.end or NEVER)
            and call.start < second.begin
            and (call.error is not None or call.end is None or self._facts.config.nests)
            for call in self._facts.history.calls
        )

    def _unpublished(self, key: Hashable, run: Run) -> Iterator[str]:
        """L8: between a loader's end and the storing of its value no flight of the key begins."""
        for stored in (
            self._facts.stores[id(run.values.get(key))] if key in run.values and run.values[key] is not None else ()
        ):
            for flown in self._facts.flown_of(key):
                if (run.returned or NEVER) < flown.begin < stored.at:
                    yield f"L8: at {flown.begin} a flight of {key} began, and {run} was not stored yet"

    def _of_concurrency(self) -> Iterator[str]:
        """Count the loads that run at once; one past its `load_timeout` has lost its place, stopped or not."""
        limit = self._facts.policy.get("max_concurrent_loads")
        if limit is None or self._facts.config.nests:
            return
        runs = self._facts.history.runs
        for run in runs:
            others = [other for other in runs if other.began <= run.began < (other.returned or NEVER)]
            in_time = [other for other in others if not self._is_late(other, run.began_ns)]
            if len(in_time) > limit:
                yield f"max_concurrent_loads: {', '.join(map(str, in_time))} ran at once"

    def _is_late(self, run: Run, at_ns: int) -> bool:
        limit_ns = self._facts.policy.get("load_timeout", 10**6) * SECOND
        return any(self._facts.history.flown[flight].begin_ns + limit_ns <= at_ns for flight in run.flights.values())

    def _of_backoff(self) -> Iterator[str]:
        """F3: after a failed load a stale value waits for its next refresh."""
        if "error_backoff" not in self._facts.policy or "soft_timeout" in self._facts.policy:
            return  # with soft_timeout a load that somebody waited for becomes one behind its readers
        least_ns = int(self._facts.policy["error_backoff"] * SECOND * (1 - self._facts.policy["jitter"]))
        for key, runs in self._facts.runs.items():
            refreshes = [flown for flown in self._facts.flown_of(key) if flown.flight.is_kept]
            for run in runs:
                flown = self._facts.history.flown[run.flights[key]]
                if not isinstance(run.error, LoaderError) or not (run.returned or NEVER) < (flown.end or 0):
                    continue
                for refresh in refreshes:
                    is_too_early = flown.end < refresh.begin and refresh.begin_ns < run.returned_ns + least_ns
                    if is_too_early and not self._is_stored_between(key, flown.end or 0, refresh.begin):
                        yield f"F3: at {refresh.begin} a refresh of {key} began, too early after {run} had failed"

    def _is_stored_between(self, key: Hashable, first: int, last: int) -> bool:
        return any(stored.key == key and first < stored.at < last for stored in self._facts.history.stored)

    def _of_cancelled_loads(self) -> Iterator[str]:
        """L5: a load is not cancelled while somebody waits for it.

        Only where it is sure who does: no preemption, no time limits, no faults of loads, no loads inside loads.
        """
        config = self._facts.config
        if config.preempt_rate or config.load_fault_rate or config.nests or "load_timeout" in self._facts.policy:
            return
        for run in self._facts.history.runs:
            if not isinstance(run.error, asyncio.CancelledError):
                continue
            for call in self._facts.history.calls:
                if call.kind not in _READS or call.keys[0] not in run.flights:
                    continue
                flown = self._facts.history.flown[run.flights[call.keys[0]]]
                is_waiting = flown.begin < call.start < (flown.end or 0) and (call.end or 0) > (run.returned or 0)
                is_replaced = any(  # the call itself found the flight overtaken, and leads another one
                    call.start < other.begin < (run.returned or 0) for other in self._facts.flown_of(call.keys[0])
                )
                if (
                    is_waiting
                    and not is_replaced
                    and not any(write.is_up_at(call.start) for write in self._facts.history.writes)
                ):
                    yield f"L5: {run} was cancelled, and {call} waited for it"
