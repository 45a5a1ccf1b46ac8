"""What a command says when it cannot do what it was asked: one line, an exit status, no traceback, no values."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import typer

from credenza import CacheError

_INTERRUPTED = 130  # what shells expect of a command that Ctrl+C ended


class CommandError(Exception):
    """The command cannot be carried out; the message says why, and what to do."""


@contextmanager
def complaining(command: str) -> Generator[None]:
    """Turn what a command raises into a line on stderr and the exit status 1; Ctrl+C into 130."""
    try:
        yield
    except (CommandError, CacheError) as error:
        complain(f"{command}: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        complain(f"{command}: interrupted")
        raise typer.Exit(_INTERRUPTED) from None


def complain(text: str) -> None:
    """Print a line to stderr."""
    typer.secho(f"credenza {text}", err=True, fg=typer.colors.RED)


def told(error: BaseException) -> str:
    """Say what happened in code that is not ours, without the values that its message may hold."""
    kind = type(error).__qualname__
    if isinstance(error, ImportError | CacheError):
        return f"{kind}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{kind} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else kind


def log_in_lines() -> None:
    """Show warnings of the library, each in one line."""
    logging.basicConfig(handlers=[_ToStderr(logging.WARNING)], level=logging.WARNING)


class _ToStderr(logging.Handler):
    """Writes to what is stderr at the time, which a progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = f" ({told(error)})" if error is not None else ""
        sys.stderr.write(f"{record.levelname}: {record.getMessage()}{cause}\n")
