"""The goals, and whether a figure reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.measure import Samples, Spread
from bench.plots import Plot
from bench.plots.bars import Bar, Bars, Line


class Sense(StrEnum):
    """On which side of its limit a goal lies."""

    AT_MOST = "≤"
    AT_LEAST = "≥"
    ABOVE = ">"


class Verdict(StrEnum):
    """What became of a goal."""

    REACHED = "reached"
    MISSED = "missed"
    UNMEASURED = "not measured"
    SHOWN = "no goal"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit on one figure, with the number it has in the design; without a limit the figure is only shown."""

    number: str
    measure: str
    against: str
    limit: float | None
    sense: Sense = Sense.AT_MOST
    unit: str = ""

    def __str__(self) -> str:
        return "-" if self.limit is None else f"{self.sense} {self.limit:g}{self.unit}"

    def is_reached(self, value: float) -> bool:
        """Tell whether `value` is on the right side of the limit, if there is one."""
        if self.limit is None:
            return True
        match self.sense:
            case Sense.AT_MOST:
                return value <= self.limit
            case Sense.AT_LEAST:
                return value >= self.limit
            case Sense.ABOVE:
                return value > self.limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal beside what was measured; `value` is `None` where somebody was missing.

    `implementation` says which table of ours ran, "compiled" or "pure".
    """

    goal: Goal
    value: Spread | None
    ours: str = ""
    theirs: str = ""
    note: str = ""
    implementation: str = ""

    @property
    def verdict(self) -> Verdict:
        """Compare the median with the goal."""
        if self.value is None:
            return Verdict.UNMEASURED
        if self.goal.limit is None:
            return Verdict.SHOWN
        return Verdict.REACHED if self.goal.is_reached(self.value.median) else Verdict.MISSED

    @property
    def is_close(self) -> bool:
        """Tell whether the quartiles lie on both sides of the limit, so that noise may have decided."""
        if self.value is None:
            return False
        return self.goal.is_reached(self.value.low) != self.goal.is_reached(self.value.high)


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that are shown below the goals, and drawn if there is a plot of them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    plot: Plot | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What one comparison hands back."""

    outcomes: Sequence[Outcome] = ()
    tables: Sequence[Table] = field(default_factory=tuple)


SAME = "the same as the other: how far noise goes"
"""The setting of a contender that takes part twice; it is not drawn."""

OURS = "credenza"
"""How the names of our own contenders begin."""

GOALS = {
    goal.number: goal
    for goal in (
        Goal("P1", "@cached hit on def, one str argument", "functools.lru_cache", 0.75),
        Goal("P1a", "@cached(key=template, tags=...) hit, one int argument", "functools.lru_cache", None),
        Goal("P1b", "hit of a cached method", "functools.lru_cache on the method", None),
        Goal("P1c", "@cached hit, a SQLite tier below, bounded", "the same, no tier; 5 % are noise", 1.05),
        Goal("P2", "cache.get hit", "cachebox.VTTLCache.get", 0.8),
        Goal("P3", "await of a @cached hit on async def", "await of an empty async def", 0.8),
        Goal("P4", "@cached hit", "fastest peer with ttl and stampede protection", 0.12),
        Goal("P5", "set with ttl, evicting", "cachebox.VTTLCache.insert", 0.5),
        Goal("P6", "@cached miss, empty loader, sync", "cachebox.cached", 0.7),
        Goal("P6a", "@cached miss, empty loader, async", "moka-py wait_concurrent", 0.5),
        Goal("P7", "bytes per entry, keys and values excluded", "cachebox.VTTLCache", 1.0),
        Goal("P8", "@cached hit, pure table", "cachetools.cached(TTLCache, lock)", 0.15),
        Goal("P9", "8 threads of hits, total throughput", "1 thread", 0.9, Sense.AT_LEAST),
        Goal("P10", "loads of one cold key, 10,000 tasks and 64 threads", "one load", 1, Sense.AT_MOST),
        Goal("S1", "hit in Redis, 50 and 500 tasks at once, memory off", "redis-py asyncio GET, 50 tasks", 0.2),
        Goal("S2", "hit in Redis, sync, memory off", "redis-py GET", 1.15),
        Goal("S3", "get_many of 100 keys in Redis, memory off", "redis-py MGET", 1.3),
        Goal("S4", "hit, sync, memory and Redis", "dogpile.cache on Redis", 0.5),
        Goal("S4a", "hit, async, memory and Redis", "faster of cashews and aiocache on Redis", 0.5),
        Goal("S4b", "hit in Redis, sync, memory off", "dogpile.cache on Redis", 0.5),
        Goal("S4c", "hit in Redis, async, memory off", "faster of cashews and aiocache, no memory of theirs", 0.5),
        Goal("S5", "hit in SQLite, sync, memory off", "diskcache get", 0.8),
        Goal("S6", "loads of one cold key, 8 processes x 200 tasks", "one load", 1),
        Goal(
            "W1", 'write-behind puts, 32 threads, SQLite, "disk"', "write-through, 32 threads", 3, Sense.AT_LEAST, " x"
        ),
        Goal(
            "W1a", 'write-behind puts, 32 threads, SQLite, "os"', "write-through, 32 threads", 15, Sense.AT_LEAST, " x"
        ),
        Goal(
            "W2",
            'write-behind puts, 32 threads, PostgreSQL, "disk"',
            "write-through, 32 threads",
            5,
            Sense.AT_LEAST,
            " x",
        ),
        Goal(
            "W2a",
            'write-behind puts, 32 threads, PostgreSQL, "os"',
            "write-through, 32 threads",
            20,
            Sense.AT_LEAST,
            " x",
        ),
        Goal("W3", "rows written of 10,000 puts on 100 hot keys", "write-through", 0.05),
        Goal("H1", "mean hit ratio over the traces", "the best single policy", 0, Sense.ABOVE, " points"),
        Goal("H2", "worst gap on one trace and size", "the best policy there", 1, Sense.AT_MOST, " points"),
    )
}


def compare(
    number: str, samples: Samples, ours: str, theirs: str | None, *, note: str = "", implementation: str = ""
) -> Outcome:
    """Return the outcome of a goal that is a ratio of two contenders' times."""
    goal = GOALS[number]
    if theirs is None or ours not in samples.per_operation or theirs not in samples.per_operation:
        return Outcome(goal, None, note="a contender is not installed")
    return Outcome(
        goal,
        samples.ratio(ours, theirs),
        f"{samples.spread(ours).median:,.0f} ns",
        f"{samples.spread(theirs).median:,.0f} ns ({theirs})",
        note,
        implementation,
    )


def table_of(
    title: str,
    samples: Samples,
    *,
    base: str,
    note: str = "",
    lines: Sequence[tuple[str, str]] = (),
) -> Table:
    """Return everybody's nanoseconds, fastest first, with `base` divided by each, and a plot of them.

    `lines` are goals to draw: the number of each, and the contender whose time its limit multiplies.
    """
    rows, bars = [], []
    for name in sorted(samples.per_operation, key=lambda name: samples.spread(name).median):
        figure = samples.spread(name)
        ratio = samples.ratio(base, name).median
        quartiles = f"{figure.low:,.0f} - {figure.high:,.0f}"
        rows.append((name, f"{figure.median:,.0f}", quartiles, f"{ratio:.3f}", samples.settings[name]))
        if samples.settings[name] == SAME:
            continue
        bars.append(
            Bar(name, figure.median, name.startswith(OURS), figure.low, figure.high, samples.ratio(name, base).median)
        )
    said = f"{samples.operations:,} operations a round; the empty loop's {samples.loop_ns:.0f} ns are subtracted."
    columns = ("contender", "ns", "quartiles", f"{base} / it", "setting")
    plot = Bars(title, "ns", bars, base, [_line(number, name, samples) for number, name in lines])
    return Table(title, columns, rows, f"{said} {note}".rstrip(), plot)


def twins(samples: Samples, name: str, twin: str) -> str:
    """Return how far two contenders are apart that are the same."""
    if name not in samples.per_operation or twin not in samples.per_operation:
        return ""
    ratio = samples.ratio(twin, name)
    return f"Noise control, {name} / itself: {ratio.median:.3f} ({ratio.low:.3f} - {ratio.high:.3f})."


def _line(number: str, name: str, samples: Samples) -> Line:
    goal = GOALS[number]
    assert goal.limit is not None
    return Line(f"{number}: {goal.sense} {goal.limit:g} x {name}", goal.limit * samples.spread(name).median)
