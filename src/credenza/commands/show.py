"""What commands print: tables for people on a terminal, aligned text elsewhere, JSON for machines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import typer

from credenza import MISSING, record_key

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_COULD_BE_ANOTHER: Final = re.compile(r"""$|[\s\d('"-]|b['"]|(None|True|False)$""").match


def is_on_terminal() -> bool:
    """Tell whether people read the output, and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show_json(found: object) -> None:
    """Print what machines read."""
    typer.echo(json.dumps(found, indent=2))


def show_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names with what they stand for, one a line."""
    _show([(name, plain(text)) for name, text in fields], header=None, numbers=frozenset())


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: frozenset[str]) -> None:
    """Print rows below a header; the columns in `numbers` are aligned to the right."""
    _show([[plain(cell) for cell in row] for row in rows], header=header, numbers=numbers)


def _show(rows: Sequence[Sequence[str]], *, header: Sequence[str] | None, numbers: frozenset[str]) -> None:
    if sys.stdout.isatty():
        _show_rich(rows, header, numbers)
        return
    names = header or [""] * len(rows[0])
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in [names, *rows] if header else rows:
        cells = [
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for cell, width, name in zip(row, widths, names, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())


def _show_rich(rows: Sequence[Sequence[str]], header: Sequence[str] | None, numbers: frozenset[str]) -> None:
    from rich.console import Console  # noqa: PLC0415  # slow to import, and for people only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    names = header or [""] * len(rows[0])
    table = Table(show_header=header is not None)
    for name in names:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def plain(text: str) -> str:
    """Return text that moves no cursor and ends no line."""
    return text if text.isprintable() else repr(text)[1:-1]


def key_text(key: bytes) -> str:
    """Return a record's key as it was given to the repository; text without quotes where it can be nothing else."""
    record: Any = record_key(key)  # Any: a key of any type
    if record is MISSING:
        return f"{key!r} (no key)"
    if isinstance(record, str) and record.isprintable() and not _COULD_BE_ANOTHER(record):
        return record
    return repr(record)


def size_text(size_bytes: int) -> str:
    """Return a size with its unit."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(seconds: float) -> str:
    """Return a duration in its two largest units; what lies ahead, as clocks differ, is no time ago."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit_seconds, unit in _UNITS:
        count, left = divmod(left, unit_seconds)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def time_text(wall_ms: int) -> str:
    """Return a time of the wall clock, in UTC."""
    return datetime.fromtimestamp(wall_ms // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def count_text(count: int, noun: str) -> str:
    """Return "1 write" or "2 writes"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
