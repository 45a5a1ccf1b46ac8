"""Time contenders in interleaved rounds.

A shared machine changes its speed from second to second, so two contenders are never timed one after the other as a
whole. Each round times every contender once, in a shuffled order, on the same keys; a ratio is taken inside its round,
and the median over all rounds is reported with its quartiles.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

Key = str
Timer = Callable[[Sequence[Key]], int]

LOOP = "empty loop"


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who takes part: `timer` spends the operation on each key and returns the nanoseconds.

    One that is slow is asked for the first of every `one_in` keys of a round.
    """

    name: str
    timer: Timer
    setting: str = ""
    one_in: int = 1


@dataclass(frozen=True, slots=True)
class Samples:
    """Nanoseconds per operation of each contender, one figure a round, rounds in the same order for all.

    The time of an empty loop over the same keys, taken in the same rounds, is subtracted.
    """

    per_operation: Mapping[str, Sequence[float]]
    settings: Mapping[str, str]
    loop_ns: float
    operations: int

    def spread(self, name: str) -> Spread:
        """Return the nanoseconds per operation of one contender."""
        return spread(self.per_operation[name])

    def ratio(self, ours: str, theirs: str) -> Spread:
        """Return ours / theirs: the median of the ratios of all rounds."""
        pairs = zip(self.per_operation[ours], self.per_operation[theirs], strict=True)
        return spread([mine / other for mine, other in pairs])

    def fastest(self, names: Sequence[str]) -> str | None:
        """Return whose median is the lowest among those of `names` that took part."""
        present = [name for name in names if name in self.per_operation]
        return min(present, key=lambda name: self.spread(name).median, default=None)


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def measure(
    contenders: Sequence[Contender],
    keys_of_round: Callable[[int], Sequence[Key]],
    *,
    rounds: int,
    seed: int = 1,
) -> Samples:
    """Time every contender once per round.

    Args:
        contenders: who takes part.
        keys_of_round: the keys of a round, the same for everybody; round 0 warms up and is not counted.
        rounds: how many rounds count.
        seed: of the order inside a round.
    """
    shuffled = random.Random(seed)
    order = [Contender(LOOP, sync_timer(None)), *contenders]
    totals: dict[str, list[float]] = {contender.name: [] for contender in order}
    operations = 0
    try:
        for number in range(rounds + 1):
            keys = keys_of_round(number)
            operations = len(keys)
            shuffled.shuffle(order)
            for contender in order:
                part = keys[:: contender.one_in]
                elapsed = _timed(contender, part)
                if number:
                    totals[contender.name].append(elapsed / len(part))
    finally:
        gc.unfreeze()
    loop = statistics.median(totals.pop(LOOP))
    per_operation = {name: [each - loop for each in row] for name, row in totals.items()}
    return Samples(per_operation, {c.name: c.setting for c in contenders}, loop, operations)


def _timed(contender: Contender, keys: Sequence[Key]) -> int:
    """Time one contender with a collected heap.

    The collector stays on, so that all pay for the garbage they make, and what was there before is frozen, so that
    nobody pays for what the others hold.
    """
    gc.collect()
    gc.freeze()
    return contender.timer(keys)


def sync_timer(function: Callable[[Key], object] | None) -> Timer:
    """Return a timer that calls `function` with each key; `None` makes the empty loop."""

    def call_each(keys: Sequence[Key]) -> int:
        start = perf_counter_ns()
        for key in keys:
            function(key)  # type: ignore[misc]  # None takes the other loop
        return perf_counter_ns() - start

    def loop_only(keys: Sequence[Key]) -> int:
        start = perf_counter_ns()
        for _ in keys:
            pass
        return perf_counter_ns() - start

    return with_code_of_its_own(loop_only if function is None else call_each)


def async_timer(function: Callable[[Key], Awaitable[object]], runner: asyncio.Runner) -> Timer:
    """Return a timer that awaits `function` of each key, one after another, in the runner's loop."""

    async def await_each(keys: Sequence[Key]) -> int:
        start = perf_counter_ns()
        for key in keys:
            await function(key)
        return perf_counter_ns() - start

    body = with_code_of_its_own(await_each)

    def timer(keys: Sequence[Key]) -> int:
        elapsed: int = runner.run(body(keys))
        return elapsed

    return timer


def with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function together with its code.

    The interpreter specialises a call site for what it has seen there. If all contenders shared one call site, each
    would run on what another left behind.
    """
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace()
    return types.FunctionType(code, function.__globals__, function.__name__, closure=function.__closure__)
