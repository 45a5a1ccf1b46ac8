"""What several commands take."""

from typing import Annotated

import typer

Where = Annotated[
    str, typer.Argument(metavar="PATH-or-URL", help="The journal: a path, sqlite:///path or redis://host:port/0.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
