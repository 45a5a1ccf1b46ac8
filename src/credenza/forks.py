"""What has to get ready for a fork, and go on after it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that gets ready for a fork, and over it."""

    def before_fork(self) -> None: ...
    def after_in_parent(self) -> None: ...
    def after_in_child(self) -> None: ...


class Forks:
    """Reaches all things of one kind when the process forks; kinds that were made later get ready first. Thread-safe."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._turn = threading.Lock()  # of one fork at a time; guards both
        self._held: list[Forkable] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child
            )

    def add(self, one: Forkable) -> None:
        """Reach this one, too, as long as it lives."""
        with self._turn:
            self._all.add(one)

    def _before(self) -> None:
        self._turn.acquire()
        self._held = list(self._all)
        for one in self._held:
            one.before_fork()

    def _after_in_parent(self) -> None:
        held, self._held = self._held, []
        for one in held:
            one.after_in_parent()
        self._turn.release()

    def _after_in_child(self) -> None:
        held, self._held = self._held, []
        self._turn = threading.Lock()
        for one in held:
            one.after_in_child()
