"""Every cache of the process, since a fork has to reach all of them."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from .state import State


class Forkable(Protocol):
    """A cache, as far as forks are concerned."""

    state: State

    def forget_the_parent(self) -> None:
        """Begin anew in a child."""
        ...


class _Forks:
    """Holds the locks of all caches while the process forks, so that no child gets a table in the middle of a step."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._turn = threading.Lock()  # of one fork at a time; guards both
        self._held: list[Forkable] = []

    def add(self, engine: Forkable) -> None:
        with self._turn:
            self._all.add(engine)

    def before(self) -> None:
        self._turn.acquire()
        self._held = list(self._all)
        for engine in self._held:
            engine.state.lock.acquire()

    def after_in_parent(self) -> None:
        for engine in self._held:
            engine.state.lock.release()
        self._held = []
        self._turn.release()

    def after_in_child(self) -> None:
        for engine in self._held:
            engine.forget_the_parent()
        self._held = []
        self._turn = threading.Lock()


forks = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)
