"""`credenza demo`: seeds, tours, serves."""

import logging
from enum import StrEnum
from typing import Annotated, Any

import typer

_DEFAULT_PORT = 8042
_INTERRUPTED = 130  # what shells expect of a command that Ctrl+C ended


class StrategyOption(StrEnum):
    """How profiles are read and written."""

    CACHE_ASIDE = "cache-aside"
    WRITE_THROUGH = "write-through"
    WRITE_BEHIND = "write-behind"
    NO_CACHE = "no-cache"


def demo(
    *,
    tour: Annotated[
        bool, typer.Option("--tour", help="Print the tour's table and exit: 0 if every promise held.")
    ] = False,
    no_tour: Annotated[bool, typer.Option("--no-tour", help="Serve at once, without the tour.")] = False,
    url: Annotated[
        str | None, typer.Option(help="With --tour: a service that runs already, instead of one of its own.")
    ] = None,
    strategy: Annotated[
        StrategyOption, typer.Option(help="How profiles are read and written.")
    ] = StrategyOption.CACHE_ASIDE,
    ttl: Annotated[str, typer.Option(help="How long a profile is kept: '250ms', '30s', '5m', '1h30m'.")] = "60s",
    maxsize: Annotated[int, typer.Option(help="How many profiles are kept, by each worker.")] = 10_000,
    cache: Annotated[
        str | None,
        typer.Option(
            help="A cache that processes share: redis://host:port/0, sqlite:///path, ... Without it each process has"
            " its memory only; with several workers a temporary SQLite file is used."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Forget what other programs change in the database, as soon as they do.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="How many processes serve the page, all on the same port.")
    ] = 1,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"The port, 0 for a free one. Without it {_DEFAULT_PORT}; with --tour a free one."
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="sqlite:///path or postgresql+psycopg://… Without it a file in your cache folder."),
    ] = None,
    users: Annotated[int, typer.Option(min=50, help="How many users a new database gets.")] = 20_000,
) -> None:
    """Serve a profile page over a real database, made fast by the cache, in one process or in several.

    Fills the database on the first run, prints the tour's table, and goes on serving until it is interrupted.
    """
    if (tour and no_tour) or (url and not tour):
        raise typer.BadParameter("--tour and --no-tour exclude each other, and --url needs --tour")
    status = _start(
        url=url,
        database=database,
        users=users,
        strategy=strategy.value,
        ttl=ttl,
        maxsize=maxsize,
        cache=cache,
        follow=follow,
        workers=workers,
        host=host,
        port=port if port is not None else 0 if tour else _DEFAULT_PORT,
        mode="tour" if tour else "serve" if no_tour else "both",
    )
    raise typer.Exit(status)


def _start(**options: Any) -> int:  # Any: those of `run.start`, which checks them
    """Run the demo and return the exit status."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        from . import run  # here, since it needs packages that come with the extra
    except ModuleNotFoundError as exc:
        return _complain(f"the demo needs {exc.name}; install it: pip install 'credenza[demo]'")
    try:
        return 0 if run.start(**options) else 1
    except run.DemoError as exc:
        return _complain(str(exc))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _complain(message: str) -> int:
    typer.secho(f"credenza demo: {message}", err=True, fg=typer.colors.RED)
    return 2
