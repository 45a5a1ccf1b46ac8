"""The bar that shows how a delivery goes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.remaining or 0:,.0f} left")


@contextmanager
def delivery_bar(total: int) -> Generator[Callable[[int], None]]:
    """Show a bar on stderr; give what is to be called with the number of rows that are left."""
    columns = (TextColumn("Delivering"), BarColumn(), MofNCompleteColumn(), _Rate(), _Left(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        most = total

        def watch(left: int) -> None:
            nonlocal most
            most = max(most, left)
            progress.update(task, total=most, completed=most - left)

        yield watch
