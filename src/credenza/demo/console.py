"""What the demo prints."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import seeding
from .following import install_feed
from .recovery import recover
from .rows import Row
from .settings import Settings
from .tour import Tour

_PLAIN_WIDTH = 140


def make_console() -> Console:
    """Return a console that does not fold tables where nobody reads them on a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def prepare(console: Console, settings: Settings) -> None:
    """Make the database ready, and say what an earlier run has left for it in journals.

    Raises:
        DemoError: the database or a journal cannot be used.
    """
    seed_with_progress(console, settings)
    if settings.follow:
        install_feed(settings)
    if settings.strategy == "write-behind":
        show_recovered(console, recover(settings))


def show_recovered(console: Console, users: int) -> None:
    """Say that there were edits in journals, if there were."""
    if users:
        whose = "1 user" if users == 1 else f"{users:,} users"
        console.print(
            f"Recovered from the journal: the last edits of {whose}, acknowledged before the demo was killed."
        )


def seed_with_progress(console: Console, settings: Settings) -> None:
    """Fill the database, unless that is done already, and say so."""
    url, scale = settings.database, settings.scale
    place = _place(settings)
    if seeding.is_seeded(url, scale):
        console.print(f"Database: {escape(place)}, {scale.users:,} users, as seeded before.", soft_wrap=True)
        return
    console.print(
        f"Database: {escape(place)} is made now, {scale.users:,} users and {scale.rows:,} rows in all.", soft_wrap=True
    )
    with _progress(console) as progress:
        task = progress.add_task("Seeding", total=scale.rows)
        seeding.seed(url, scale, lambda rows: progress.advance(task, rows))


async def show_tour(console: Console, tour: Tour) -> bool:
    """Run the tour, print its table, return whether every promise held."""
    with console.status("Touring") as status:
        rows = await tour.run(on_row=lambda row: status.update(f"Touring: {escape(row.step)} done"))
    console.print(tour_table(rows))
    broken = [row.step for row in rows if row.broken]
    if broken:
        console.print(f"[red]Broken: {escape(', '.join(broken))}.[/red]")
    return not broken


def tour_table(rows: list[Row]) -> Table:
    """Return the tour's table."""
    table = Table(title="The tour: each row is a promise, checked over HTTP", title_justify="left")
    table.add_column("step", no_wrap=True)
    table.add_column("X-Cache", min_width=len("499 joined, 1 miss"))
    table.add_column("queries", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("promised", min_width=len("200, hit or shared,"))
    table.add_column("kept", min_width=len("skipped:"))
    for row in rows:
        if row.skipped:
            table.add_row(row.step, "-", "-", "-", row.promise, f"[dim]skipped: {escape(row.skipped)}[/dim]")
            continue
        kept = f"[red]no: {escape('; '.join(row.broken))}[/red]" if row.broken else "[green]yes[/green]"
        table.add_row(row.step, row.cache, f"{row.queries:,}", _duration(row.seconds), row.promise, kept)
    return table


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _place(settings: Settings) -> str:
    if settings.database.get_backend_name() == "sqlite":
        return str(Path(settings.database.database or "").absolute())
    return settings.database.render_as_string()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
