"""Draw figures as SVG files: no dependency, the same bytes for the same figures, readable on light and on dark pages."""

from __future__ import annotations

from typing import Protocol


class Plot(Protocol):
    """Something to draw."""

    def alt(self) -> str:
        """Say in words what is drawn, for who cannot see it."""
        ...

    def svg(self) -> str:
        """Return the picture."""
        ...
