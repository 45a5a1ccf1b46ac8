"""The command line."""

import importlib.metadata
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run the command that the arguments name; the entry point of `credenza` and `python -m credenza`."""
    try:
        app = make_app()
    except ModuleNotFoundError as exc:
        if exc.name != "typer":
            raise
        sys.exit("credenza's commands need typer; install it: pip install 'credenza[cli]', or 'credenza[demo]' for all")
    app()


def make_app() -> "typer.Typer":
    """Return the commands; needs the packages of the extra `cli`."""
    import typer

    from .commands.journal import make_journal
    from .demo.command import demo

    app = typer.Typer(name="credenza", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def credenza(*, version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
        """A cache-aside library for Python services."""
        if version:
            typer.echo(importlib.metadata.version("credenza"))
            raise typer.Exit

    app.command()(demo)
    app.add_typer(make_journal())
    del credenza  # typer has it
    return app
