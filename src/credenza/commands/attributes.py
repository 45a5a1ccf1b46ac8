"""Objects of the user's program, by the names that the command line gives them."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from typing import Any  # Any: objects that the user's program defines

from .complaints import CommandError, told


def source_at(name: str) -> Any:
    """Return the source at `package.module:attribute`, or the one that a callable there returns."""
    found = attribute_at(name, option="--to")
    if inspect.isclass(found) or not _is_source(found):
        if not callable(found):
            raise CommandError(f"{name} is {type(found).__qualname__!r}, no source: that has store_many or apply")
        try:
            found = found()
        except Exception as error:
            raise CommandError(f"{name}() raised {told(error)}") from error
        if inspect.iscoroutine(found):
            found.close()
            raise CommandError(f"{name} is a coroutine function; a plain one is needed, also for an async source")
        if not _is_source(found):
            raise CommandError(
                f"{name}() returned {type(found).__qualname__!r}, no source: that has store_many or apply"
            )
    return found


def attribute_at(name: str, *, option: str) -> Any:
    """Return what is at `package.module:attribute`; modules are looked for in the current directory, too."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise CommandError(f"{option} takes package.module:attribute, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise CommandError(f"cannot import {module_name!r}: {told(error)}") from error
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        raise CommandError(f"there is no {path!r} in {module_name!r}") from None


def _is_source(thing: Any) -> bool:
    return any(callable(getattr(thing, name, None)) for name in ("store_many", "apply"))
