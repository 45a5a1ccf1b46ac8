"""Small multiples: a panel for each trace, a curve for each policy, over the size of the cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.plots.svg import CHARACTER, Picture

COLUMNS = 4
WIDTH, HEIGHT = 190.0, 148.0
TOP = 62.0
INSIDE = (34.0, 22.0, 14.0, 22.0)
"""From the edges of a panel to its curves: left, top, right, bottom."""

LEAST_RANGE = 4.0
"""How many points an axis spans at least, so that nothing looks like a difference that is none."""

LONGEST_TITLE = 13


@dataclass(frozen=True, slots=True)
class Curve:
    """How a policy is drawn: the colour, how thick, and its dashes."""

    colour: str
    width: float = 1.4
    dashes: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One trace: the percentage of each policy at each place, and a remark."""

    title: str
    places: Sequence[str]
    percents: Mapping[str, Sequence[float]]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Curves:
    """Percentages of which more is better. Each panel has an axis of its own."""

    title: str
    panels: Sequence[Panel]
    curves: Mapping[str, Curve]

    def alt(self) -> str:
        """Say for each panel what is reached in the middle of its places."""
        said = []
        for panel in self.panels:
            middle = len(panel.places) // 2
            figures = ", ".join(f"{name} {row[middle]:.1f} %" for name, row in panel.percents.items())
            said.append(f"{panel.title} at {panel.places[middle]}: {figures}")
        return f"{self.title}, more is better. {'; '.join(said)}."

    def svg(self) -> str:
        """Draw the panels in rows, with one legend for all."""
        columns = min(COLUMNS, max(2, len(self.panels)))
        picture = Picture(self.title, self.alt(), 16 + WIDTH * columns)
        picture.text(12, 22, self.title, kind="title")
        picture.text(picture.width - 12, 22, "percent, more is better", kind="quiet", anchor="end")
        self._legend(picture)
        for number, panel in enumerate(self.panels):
            row, column = divmod(number, columns)
            self._draw(picture, panel, 8 + WIDTH * column, TOP + HEIGHT * row)
        return picture.finished(TOP + HEIGHT * math.ceil(len(self.panels) / columns) + 4)

    def _legend(self, picture: Picture) -> None:
        x = 12.0
        for name, curve in self.curves.items():
            picture.line([(x, 40), (x + 22, 40)], curve.colour, width=curve.width, dashes=curve.dashes)
            picture.text(x + 28, 44, name, kind="ours" if curve.colour == "ours" else "")
            x += 48 + CHARACTER * len(name)

    def _draw(self, picture: Picture, panel: Panel, x: float, y: float) -> None:
        left, top, right, bottom = x + INSIDE[0], y + INSIDE[1], x + WIDTH - INSIDE[2], y + HEIGHT - INSIDE[3]
        marks = _marks([value for row in panel.percents.values() for value in row])
        low, high = marks[0], marks[-1]

        def place(number: int, value: float) -> tuple[float, float]:
            share = number / max(1, len(panel.places) - 1)
            return left + share * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

        picture.text(x + 6, y + 13, _shortened(panel.title))
        picture.text(right, y + 13, panel.remark, kind="quiet", anchor="end")
        for mark in marks:
            height = place(0, mark)[1]
            picture.line([(left, height), (right, height)], "grid")
            picture.text(left - 5, height + 4, f"{mark:g}", kind="quiet", anchor="end")
        for number, name in enumerate(panel.places):
            picture.text(place(number, low)[0], bottom + 14, name, kind="quiet", anchor="middle")
        for name, curve in self.curves.items():
            points = [place(*pair) for pair in enumerate(panel.percents.get(name, ()))]
            if points:
                picture.line(points, curve.colour, width=curve.width, dashes=curve.dashes)
            if curve.colour == "ours":
                for point in points:
                    picture.dot(*point, curve.colour)


def _shortened(title: str) -> str:
    return title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1]}…"


def _marks(values: Sequence[float]) -> list[float]:
    """Return three to seven round numbers that enclose all values."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    rough = max(high - low, LEAST_RANGE) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    first = math.floor(low / step)
    last = max(first + 2, math.ceil(high / step))
    return [round(step * number, 6) for number in range(first, last + 1)]
