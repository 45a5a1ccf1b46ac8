"""What holds for every call: its value, its error, its time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from typing import Any

from credenza import LoadTimeout, NotFound

from .facts import NEVER, Facts, identity_of, last_moment_of, origin_of
from .history import SECOND, Call, Change, Run, Stored, Value, Write
from .source import LoaderError

_WRITES = ("put", "delete", "writing")


class CallRules:
    """Checks one call after the other."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def of(self, call: Call) -> Iterator[str]:
        if call.end is None:
            return
        if call.timeout_ns is not None:
            late_ns = call.end_ns - call.start_ns - call.timeout_ns - (call.end_lag_ns - call.start_lag_ns)
            if late_ns > 0:
                yield f"L6: it ended {late_ns / SECOND} s after its timeout"
        if call.error is not None:
            yield from self._of_error(call, call.error)
        for key, value in call.results.items():
            if isinstance(value, Value):
                yield from self._of_value(call, key, value)
        if call.kind == "get_or_load_many" and call.error is None:
            yield from self._of_bulk(call)

    def _of_value(self, call: Call, key: Hashable, value: Value) -> Iterator[str]:
        if value.key != key:
            yield f"L2: {key} got {value}"
        yield from self._too_old(call, key, value, self._facts.tags_of(key, value))
        yield from self._past_commits(call, key, value)
        yield from self._inside_fences(call, key, value)
        yield from self._expired(call, key, value)
        if call.status is not None:
            yield from self._misreported(call, key, value)
        if call.kind == "refresh" and not self._facts.took_part(call, key, value.origin):
            yield f"refresh: {value.origin} was over before the call"

    def _too_old(self, call: Call, key: Hashable, what: Any, tags: tuple[str, ...]) -> Iterator[str]:
        """I1, I2: nothing whose load began before an invalidation goes to a call that came after it."""
        origin = origin_of(what)
        last = last_moment_of(origin)
        for change in self._facts.history.changes:
            if change is origin or (isinstance(origin, Write) and change is origin.exit):
                continue
            is_between = last < change.start and change.end is not None and change.end < call.start
            if is_between and change.concerns(key, tags):
                yield f"I1/I2: {what} is from before {change}, and the call from after it"

    def _past_commits(self, call: Call, key: Hashable, value: Value) -> Iterator[str]:
        """Whoever calls after a write sees it; a value that somebody `set` by hand says nothing about the source."""
        if isinstance(value.origin, Change):
            return
        newest = max((v for k, v, over in self._facts.history.committed if k == key and over < call.start), default=0)
        if value.version < newest:
            yield f"I3/I5: version {newest} had been written before the call, and it got {value}"

    def _inside_fences(self, call: Call, key: Hashable, value: Value) -> Iterator[str]:
        """I3: inside a fence readers go to the source."""
        first = value.origin.began if isinstance(value.origin, Run) else last_moment_of(value.origin)
        for write in self._facts.history.writes:
            is_inside = write.is_up_at(call.start) and write.is_up_at(call.end or 0)
            if is_inside and first < call.start and write.concerns(key, self._facts.asked_tags(key)):
                yield f"I3: inside {write} it got {value}, which is from before the call"

    def _expired(self, call: Call, key: Hashable, what: Any) -> Iterator[str]:
        """F1: the ttl and the windows in force bound what is served."""
        origin = origin_of(what)
        if self._facts.took_part(call, key, origin):
            return
        stores = [stored for stored in self._facts.stores[id(identity_of(what))] if stored.at < (call.end or 0)]
        if not stores:
            yield f"L2: {what} came neither from a load nor from the table"
            return
        stored = stores[-1]
        age_ns = call.start_ns - stored.at_ns
        ttl_ns = self._facts.ttl_ns_of(key, what)
        may_be_stale = call.kind != "get" and not isinstance(what, NotFound)
        if age_ns >= ttl_ns + (self._facts.windows_ns if may_be_stale else 0):
            yield f"F1: {what} was {age_ns / SECOND} s old, its ttl is {ttl_ns / SECOND} s"
        elif age_ns >= ttl_ns:
            yield from self._stale(call, key, what, stored, age_ns - ttl_ns)
        idle_ns = self._facts.policy.get("idle_ttl", 0) * SECOND
        if idle_ns and call.start_ns - self._last_read_ns(call, what, stored) >= idle_ns:
            yield f"F1: {what} had been idle for longer than idle_ttl"

    def _stale(self, call: Call, key: Hashable, what: Any, stored: Stored, late_ns: int) -> Iterator[str]:
        policy = self._facts.policy
        if late_ns < policy.get("stale_while_revalidate", 0) * SECOND:
            return
        has_failed = any(
            run.error is not None and stored.at < (run.returned or NEVER) <= (call.end or 0)
            for run in self._facts.runs[key]
        )
        ran_late = "load_timeout" in policy and any(
            flown.begin_ns + policy["load_timeout"] * SECOND <= call.end_ns for flown in self._facts.flown_of(key)
        )
        waited_ns = call.end_ns - call.start_ns
        if "soft_timeout" in policy and waited_ns >= policy["soft_timeout"] * SECOND:
            return
        if not (has_failed or ran_late):
            yield f"F1: stale {what} was served, and no load had failed"

    def _last_read_ns(self, call: Call, what: Any, stored: Stored) -> int:
        reads = [
            other.end_ns
            for other in self._facts.history.calls
            if other is not call
            and other.start < (call.end or 0)
            and stored.key in other.keys
            and (stored.value in other.results.values() or other.error is not None)
        ]
        return max([stored.at_ns, *reads])

    def _misreported(self, call: Call, key: Hashable, value: Value) -> Iterator[str]:
        origin = value.origin
        took_part = self._facts.took_part(call, key, origin)
        is_own = isinstance(origin, Run) and origin.call is call
        if call.status in {"miss", "bypass"} and not is_own:
            yield f"status: {call.status}, and {value} is of somebody else"
        if call.status == "joined" and (is_own or not took_part):
            yield f"status: joined, and {value} is not of a load that it could join"
        if call.status == "hit" and not self._facts.stores[id(value)]:
            yield f"status: hit, and {value} was never stored"

    def _of_bulk(self, call: Call) -> Iterator[str]:
        asked = [run for run in self._facts.history.runs if run.call is call and len(run.flights) >= 1]
        for run in asked:
            if len(set(run.keys)) != len(run.keys) or not set(run.keys) <= set(call.keys):
                yield f"L9: its loader was asked for {run.keys}"
        if [key for key in call.keys if key in call.results] != list(call.results):
            yield "L9: the result has other keys, or another order"

    # Errors -----------------------------------------------------------------------------------------------------------

    def _of_error(self, call: Call, error: BaseException) -> Iterator[str]:
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
            yield from self._of_leaving(call, error)
        elif isinstance(error, LoadTimeout):
            yield from self._of_timeout(call)
        elif isinstance(error, LoaderError) and not isinstance(error.run, Run):
            if call.kind not in _WRITES:
                yield f"L2: it got {error!r}"
        elif isinstance(error, (LoaderError, NotFound)):
            run = getattr(error, "run", None)
            if isinstance(run, Run):
                yield from self._of_shared_error(call, error, run)
        else:
            yield f"L2: nobody raised {error!r}"

    def _of_leaving(self, call: Call, error: BaseException) -> Iterator[str]:
        """L2: a cancellation or an interrupt is never shared."""
        whom = getattr(error, "whom", None)
        if whom is None:  # a load's own task was cancelled
            leaders = {call, call.parent}  # a call that a loader makes ends with the loader
            led = [
                r for r in self._facts.history.runs if r.call in leaders and isinstance(r.error, asyncio.CancelledError)
            ]
            if not led and not any(flown.flight.error is error for flown in self._facts.history.flown.values()):
                yield "L2: it was cancelled, and neither its client nor its load were"
        elif isinstance(whom, Run):
            if whom.call is not call and not self._contains(call, whom):
                yield f"L2: it got the interrupt of {whom}"
        elif whom != call.actor and not call.kind.startswith("nested"):
            yield f"L2: it got what concerns {whom}"

    def _contains(self, call: Call, run: Run) -> bool:
        """Tell whether a loader that `call` led made, itself or by a loader of its own, the call that led `run`."""
        inner = run.call
        while inner is not None and inner is not call:
            inner = inner.parent
        return inner is call

    def _of_timeout(self, call: Call) -> Iterator[str]:
        elapsed_ns = call.end_ns - call.start_ns
        if call.timeout_ns is not None and elapsed_ns >= call.timeout_ns:
            return
        limit_ns = self._facts.policy.get("load_timeout", 0) * SECOND
        late = limit_ns and any(
            flown.begin_ns + limit_ns <= call.end_ns for key in call.keys for flown in self._facts.flown_of(key)
        )
        if not late and not self._facts.config.nests:
            yield "L6: it timed out too early"

    def _of_shared_error(self, call: Call, error: Exception, run: Run) -> Iterator[str]:
        keys = [key for key in run.keys if key in call.keys]
        if not keys and not self._facts.config.nests:
            yield f"L2: it got the error of {run}"
        problems = [list(self._of_error_about(call, key, error, run)) for key in keys]
        if problems and all(problems):  # one of the keys may have brought it
            yield from problems[0]
        twins = [other for other in self._facts.history.calls if other is not call and other.error is error]
        if twins and not self._facts.config.nests:
            yield f"L2: {call} and {twins[0]} got the same exception object"

    def _of_error_about(self, call: Call, key: Hashable, error: Exception, run: Run) -> Iterator[str]:
        yield from self._too_old(call, key, error, self._facts.asked_tags(key))
        if self._facts.took_part(call, key, run):
            return
        if isinstance(error, NotFound) and "negative_ttl" in self._facts.policy:
            yield from self._expired(call, key, error)
        else:
            yield f"L3: {run} had failed before the call, which got its error"
