"""A picture under construction: shapes at places, in colours that fit the reader's theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CHARACTER = 6.9
"""About how wide a character of the usual size is, so that labels find room; never less than that."""

_STYLE = """\
svg{--page:#fff;--text:#1f2328;--quiet:#57606a;--grid:#d8dee4;--ours:#00796b;--other:#a9b4c0;--goal:#bc4c00;--best:#8250df}
@media(prefers-color-scheme:dark){svg{--page:#1e2129;--text:#e6e8ec;--quiet:#a7b0bd;--grid:#3b414d;--ours:#4db6ac;
--other:#6d7889;--goal:#ff9e64;--best:#c297ff}}
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--text);
stroke:var(--page);stroke-width:3px;paint-order:stroke}
.title{font-size:14px;font-weight:600}.quiet{fill:var(--quiet);font-size:11px}.ours{fill:var(--ours);font-weight:600}
.goal{fill:var(--goal);font-size:11px}"""


class Picture:
    """Collects shapes. Places are pixels from the left and the top; colours are names of the style above."""

    def __init__(self, title: str, description: str, width: float) -> None:
        self.width = width
        self._head = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        self._shapes: list[str] = []
        self._words: list[str] = []

    def text(self, x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> None:
        """Write words whose baseline is at `y`, above all shapes; none are not written."""
        if not words:
            return
        look = f' class="{kind}"' if kind else ""
        self._words.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{escape(words)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._shapes.append(f'<rect {place} rx="2" fill="var(--{colour})"/>')

    def dot(self, x: float, y: float, colour: str) -> None:
        """Mark a point."""
        self._shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="var(--{colour})"/>')

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 1, dashes: str = "", veil: float = 1
    ) -> None:
        """Join points; `dashes` as in SVG, and `veil` is the opacity."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        look = f'stroke="var(--{colour})" stroke-width="{width:g}" stroke-opacity="{veil:g}"{dashed}'
        self._shapes.append(f'<polyline points="{path}" fill="none" {look}/>')

    def finished(self, height: float) -> str:
        """Return the picture, which is as high as it is now known to be."""
        size = f'width="{self.width:g}" height="{height:g}" viewBox="0 0 {self.width:g} {height:g}"'
        page = '<rect width="100%" height="100%" rx="6" fill="var(--page)"/>'
        start = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{self._head}<style>{_STYLE}</style>{page}'
        return "\n".join([start, *self._shapes, *self._words, "</svg>"]) + "\n"


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, nanoseconds in whichever unit of time is short."""
    if unit != "ns":
        return f"{value:,.0f} {unit}"
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} ns"


def times(ratio: float) -> str:
    """Return a ratio with as many digits as say something."""
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.2g} x" if ratio < 10 else f"{ratio:.3g} x"
