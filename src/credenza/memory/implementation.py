"""Which table serves: the compiled one where it was built, else the pure one."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..codec import fresh_values as pure_fresh_values
from ..codec import gets as pure_gets
from ..stats import Tally as PureTally
from .entry import Entry as PureEntry
from .fields import FlightFields as PureFlightFields
from .fields import StateFields as PureStateFields
from .table import Scope as PureScope
from .table import Table as PureTable

compiled: Any = None  # Any: a module whose types are the pure ones to the letter
"""The extension module; None where there was no compiler, or `CREDENZA_PURE` asks for the pure table."""

if os.environ.get("CREDENZA_PURE", "0") in {"", "0"}:
    try:
        from . import _table as compiled  # type: ignore[attr-defined,no-redef]
    except ImportError:
        pass

if TYPE_CHECKING or compiled is None:
    Entry = PureEntry
    Scope = PureScope
    Table = PureTable
    Tally = PureTally
    Lock = threading.RLock
    FlightFields = PureFlightFields
    StateFields = PureStateFields
    fresh_values = pure_fresh_values
    gets = pure_gets

    class Store:
        """Nothing: a cache answers by itself."""

        __slots__ = ()

else:
    Entry = compiled.Entry
    Scope = compiled.Scope
    Table = compiled.Table
    Tally = compiled.Tally
    Store = compiled.Store
    Lock = compiled.Lock
    FlightFields = compiled.FlightFields
    StateFields = compiled.StateFields
    fresh_values = compiled.fresh_values
    gets = compiled.gets

__all__ = [
    "Entry",
    "FlightFields",
    "Lock",
    "Scope",
    "StateFields",
    "Store",
    "Table",
    "Tally",
    "compiled",
    "fresh_values",
    "gets",
    "implementation",
    "serve_from_memory",
]

C = TypeVar("C", bound=type)


def implementation() -> Literal["compiled", "pure"]:
    """Tell which table this process uses; `CREDENZA_PURE=1` in the environment asks for the pure one."""
    return "pure" if compiled is None else "compiled"


def serve_from_memory(face: C) -> C:
    """Let the compiled `Store`, the base of `face`, answer what memory can, and ask the methods of `face` for the rest."""
    if compiled is not None:
        for name in ("get", "get_or_load", "set"):
            setattr(face, f"_{name}_beyond_memory", face.__dict__[name])
            delattr(face, name)
    return face
