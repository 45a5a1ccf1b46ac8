"""Reaches all followers when the process forks."""

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


class _Forks:
    def __init__(self) -> None:
        self._all: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._turn = threading.Lock()  # of one fork at a time; guards both
        self._held: list[Forkable] = []

    def add(self, follower: Forkable) -> None:
        with self._turn:
            self._all.add(follower)

    def before(self) -> None:
        self._turn.acquire()
        self._held = list(self._all)
        for follower in self._held:
            follower.before_fork()

    def after_in_parent(self) -> None:
        held, self._held = self._held, []
        for follower in held:
            follower.after_in_parent()
        self._turn.release()

    def after_in_child(self) -> None:
        held, self._held = self._held, []
        self._turn = threading.Lock()
        for follower in held:
            follower.after_in_child()


forks = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks.before, after_in_parent=forks.after_in_parent, after_in_child=forks.after_in_child)
