"""One bar for each contender, the shortest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.plots.svg import CHARACTER, Picture, amount, times

WIDTH = 760.0
TOP, ROW, THICK = 46.0, 23.0, 14.0
ROOM_FOR_FIGURES = 128.0
MOST_ON_A_STRAIGHT_AXIS = 20
"""If the longest bar is more than this many times the shortest one, the axis is logarithmic."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One contender's figure, with its quartiles if it has some, and it / ours."""

    name: str
    value: float
    is_ours: bool = False
    low: float | None = None
    high: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A goal: our bar has to end at the left of it."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Figures of which less is better, beside those of `base`, which is one of ours."""

    title: str
    unit: str
    bars: Sequence[Bar]
    base: str
    lines: Sequence[Line] = field(default_factory=tuple)

    def alt(self) -> str:
        """List the figures."""
        figures = ", ".join(f"{bar.name} {amount(bar.value, self.unit)}" for bar in self.bars)
        goals = "".join(f" Goal {line.label}, {amount(line.value, self.unit)}." for line in self.lines)
        return f"{self.title}, less is better: {figures}.{goals}"

    def svg(self) -> str:
        """Draw the bars on one axis, goals as dashed lines across them."""
        picture = Picture(self.title, self.alt(), WIDTH)
        left = 24 + CHARACTER * max(len(bar.name) for bar in self.bars)
        bottom = TOP + ROW * len(self.bars)
        axis = self._axis(left, WIDTH - ROOM_FOR_FIGURES)
        picture.text(12, 22, self.title, kind="title")
        picture.text(WIDTH - 12, 22, f"{self.unit}, less is better; x: it / {self.base}", kind="quiet", anchor="end")
        for mark in axis.marks():
            x = axis.place(mark)
            picture.line([(x, TOP - 6), (x, bottom)], "grid")
            picture.text(x, bottom + 14, amount(mark, self.unit), kind="quiet", anchor="middle")
        for number, bar in enumerate(self.bars):
            self._draw(picture, bar, TOP + ROW * number, axis)
        for number, line in enumerate(self.lines):
            self._mark(picture, line, axis.place(line.value), bottom + 32 + 16 * number)
        if axis.is_logarithmic:
            said = "Each grid line stands for ten times the one before it."
            picture.text(12, bottom + 32 + 16 * len(self.lines), said, kind="quiet")
        return picture.finished(bottom + 26 + 16 * (len(self.lines) + axis.is_logarithmic))

    def _axis(self, left: float, right: float) -> _Axis:
        everything = [bar.value for bar in self.bars] + [line.value for line in self.lines]
        least, most = max(min(everything), 1e-9), max(everything)
        if most / least <= MOST_ON_A_STRAIGHT_AXIS:
            return _Axis(0, most, left, right, is_logarithmic=False)
        return _Axis(10 ** math.floor(math.log10(least * 0.7)), most, left, right, is_logarithmic=True)

    def _draw(self, picture: Picture, bar: Bar, y: float, axis: _Axis) -> None:
        end, middle, base = axis.place(bar.value), y + THICK / 2, y + THICK - 3
        picture.text(axis.left - 8, base, bar.name, kind="ours" if bar.is_ours else "", anchor="end")
        picture.bar(axis.left, y, max(1.0, end - axis.left), THICK, "ours" if bar.is_ours else "other")
        beyond = end
        if bar.low is not None and bar.high is not None and bar.low < bar.high:
            beyond = max(end, axis.place(bar.high))
            picture.line([(axis.place(bar.low), middle), (beyond, middle)], "text", width=1.5, veil=0.55)
        label = amount(bar.value, self.unit)
        if bar.ratio is not None and bar.name != self.base:
            label += f"  ·  {times(bar.ratio)}"
        picture.text(beyond + 7, base, label, kind="ours" if bar.is_ours else "")

    def _mark(self, picture: Picture, line: Line, x: float, y: float) -> None:
        picture.line([(x, TOP - 6), (x, y - 9)], "goal", width=1.5, dashes="4 3")
        is_left = x < WIDTH / 2
        picture.text(
            x + (4 if is_left else -4), y, f"goal {line.label}", kind="goal", anchor="start" if is_left else "end"
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where on the page a value lies."""

    least: float
    most: float
    left: float
    right: float
    is_logarithmic: bool

    def place(self, value: float) -> float:
        """Return the place of a value; what lies beyond an end is put on that end."""
        if self.is_logarithmic:
            share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        else:
            share = (value - self.least) / (self.most - self.least)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)

    def marks(self) -> list[float]:
        """Return where the grid lines are: at powers of ten, or at about five round numbers."""
        if self.is_logarithmic:
            first = round(math.log10(self.least))
            return [10.0**power for power in range(first, math.floor(math.log10(self.most)) + 1)]
        rough = self.most / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
        return [step * number for number in range(int(self.most / step) + 1)]
