"""The two implementations of the table, and how a cache is made of either."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import credenza
from credenza import stats
from credenza.memory import entry, table
from credenza.memory import implementation as choice

_OWN_MODULES = ("entry", "table", "eviction", "expiry", "tags", "_table")
"""Those below `credenza.memory` that an implementation is made of; they keep their names."""


@dataclass(frozen=True)
class Implementation:
    """The types that a cache is made of, by the names under which modules of the package import them."""

    name: str
    types: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.types[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        return self.name

    def run(self, program: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a process of its own with this implementation, for a minute at most."""
        return subprocess.run(
            [sys.executable, *options, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that runs with this implementation."""
        here = {name: value for name, value in os.environ.items() if name != "CREDENZA_PURE"}
        return here | ({"CREDENZA_PURE": "1"} if self.name == "pure" else {})


PURE = Implementation(
    "pure",
    {
        "Entry": entry.Entry,
        "Scope": table.Scope,
        "Table": table.Table,
        "Tally": stats.Tally,
        "Lock": threading.RLock,
        "compiled": None,
    },
)
COMPILED = (
    None
    if choice.compiled is None
    else Implementation("compiled", {name: getattr(choice, name) for name in PURE.types})
)

WHY_SKIPPED = "the compiled table was not built, or CREDENZA_PURE is set: there is only the pure one to test"


def both() -> tuple[Implementation, Implementation] | None:
    """Return both implementations, or None if there is only one."""
    return None if COMPILED is None else (PURE, COMPILED)


@contextmanager
def chosen(implementation: Implementation) -> Iterator[None]:
    """Let what the package makes meanwhile be of `implementation`; the process itself runs with the compiled one, if any."""
    before = [(module, name, getattr(module, name)) for module, name in _places(len(sys.modules))]
    for module, name, _ in before:
        setattr(module, name, implementation.types[name])
    try:
        yield
    finally:
        for module, name, was in before:
            setattr(module, name, was)


@functools.lru_cache(maxsize=1)
def _places(_modules: int) -> list[tuple[ModuleType, str]]:
    """Return where the package names a type of the implementation that the process runs with, anew when modules have come."""
    if COMPILED is None:
        return []
    own = {f"{credenza.__name__}.memory.{name}" for name in _OWN_MODULES} | {stats.__name__}
    known = {(name, id(kind)) for each in (PURE, COMPILED) for name, kind in each.types.items() if kind is not None}
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == credenza.__name__ and name not in own
    ]
    return [(module, name) for module in modules for name, value in vars(module).items() if (name, id(value)) in known]
