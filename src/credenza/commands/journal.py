"""`credenza journal`: what operators do with the journal of a write-behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer

from credenza import DeadLetter, JournalStatus, attach_journal

from .complaints import CommandError, complaining
from .drain import drain
from .options import AsJson, Where, Yes
from .show import (
    age_text,
    count_text,
    is_on_terminal,
    key_text,
    show_fields,
    show_json,
    show_table,
    size_text,
    time_text,
)


def make_journal() -> typer.Typer:
    """Return the commands."""
    app = typer.Typer(name="journal", no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(about)
    for command in (status, dead, retry, discard, drain):
        app.command()(command)
    return app


def about() -> None:
    """Look after the journals in which write-behind keeps what the source has not taken yet."""


def status(where: Where, *, as_json: AsJson = False) -> None:
    """Show what a journal holds; a service may have it open."""
    with complaining("journal status"):
        with closing(attach_journal(where)) as attached:
            found = attached.status()
        if as_json:
            show_json(dataclasses.asdict(found))
        else:
            show_fields(_fields(found))


def _fields(found: JournalStatus) -> list[tuple[str, str]]:
    oldest = "none" if found.oldest_ms is None else f"{age_text(time.time() - found.oldest_ms / 1000)} ago"
    aside = found.kept_aside or ("none",)
    return [
        ("location", found.location),
        ("pending", f"{found.pending:,}"),
        ("dead", f"{found.dead:,}"),
        ("oldest pending", oldest),
        ("size", size_text(found.size_bytes)),
        ("owner", found.owner or "none"),
        *[("put aside", path) for path in aside],
    ]


def dead(where: Where, *, as_json: AsJson = False) -> None:
    """List the dead letters: writes that the source refused too often. Their values are not shown."""
    with complaining("journal dead"):
        with closing(attach_journal(where)) as attached:
            letters = attached.dead()
        if as_json:
            show_json([_without_value(letter) for letter in letters])
        elif letters:
            header = ("number", "key", "failures", "error", "when", "superseded")
            show_table(header, [_row(letter) for letter in letters], numbers=frozenset({"number", "failures"}))
        else:
            typer.echo("There are no dead letters.")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        str(letter.number),
        key_text(letter.key),
        str(letter.failures),
        letter.error,
        time_text(letter.died_ms),
        "yes" if letter.is_superseded else "no",
    )


def _without_value(letter: DeadLetter) -> dict[str, object]:
    return {
        "number": letter.number,
        "key": key_text(letter.key),
        "failures": letter.failures,
        "error": letter.error,
        "died_ms": letter.died_ms,
        "is_superseded": letter.is_superseded,
        "is_deletion": letter.value is None,
    }


def retry(
    where: Where,
    numbers: Annotated[list[int] | None, typer.Argument(help="Those of `dead`; all without them.")] = None,
    *,
    yes: Yes = False,
) -> None:
    """Make dead letters pending again; a service may have the journal open."""
    with complaining("journal retry"), closing(attach_journal(where)) as attached:
        letters = _chosen(attached.dead(), numbers)
        living = [letter.number for letter in letters if not letter.is_superseded]
        if living and not numbers and not yes and is_on_terminal():
            typer.confirm(f"Retry {count_text(len(living), 'dead letter')}?", abort=True)
        count = attached.retry(living) if living else 0
        owner = attached.status().owner
        typer.echo(f"{count_text(count, 'dead letter')} made pending again, {len(letters) - len(living)} superseded.")
        if count:
            typer.echo(
                f"Delivery: by {owner}." if owner else "Delivery: by whoever opens the journal next, or `drain`."
            )


def discard(
    where: Where, numbers: Annotated[list[int], typer.Argument(help="Those of `dead`.")], *, yes: Yes = False
) -> None:
    """Forget dead letters for good; a service may have the journal open."""
    with complaining("journal discard"), closing(attach_journal(where)) as attached:
        letters = _chosen(attached.dead(), numbers)
        if not yes:
            if not is_on_terminal():
                raise CommandError("what is discarded is lost; say --yes")
            typer.confirm(f"Forget {count_text(len(letters), 'dead letter')} for good?", abort=True)
        count = attached.discard([letter.number for letter in letters])
        typer.echo(f"{count_text(count, 'dead letter')} discarded.")


def _chosen(letters: Sequence[DeadLetter], numbers: Sequence[int] | None) -> list[DeadLetter]:
    """Return the letters that are named, all without names; nothing is done if one of them is not there."""
    if not numbers:
        return list(letters)
    by_number = {letter.number: letter for letter in letters}
    missing = sorted(set(numbers) - by_number.keys())
    if missing:
        named = ", ".join(map(str, missing))
        raise CommandError(
            f"there is no dead letter {named}; nothing was done, `credenza journal dead` lists those that are"
        )
    return [by_number[number] for number in dict.fromkeys(numbers)]
