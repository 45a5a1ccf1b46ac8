"""What has a turn in a simulation: tasks, and threads that stand still while they have none."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

Fault = Callable[[], BaseException]


class Abandoned(BaseException):
    """Unwinds what is left of a simulation that is over."""


class Actor:
    """Something that runs when it has the turn.

    Attributes:
        name: for messages.
        fault: makes what may be thrown into it where it waits; None for nothing.
        fault_rate: how likely that is, each time it waits.
        is_done, result, error: how it ended.
        parks: counts its waits, so that an alarm of an earlier one is known as such.
        group: what is frozen together, such as a simulated process; None for the one that it is begun by.
    """

    def __init__(self, name: str, fault: Fault | None, fault_rate: float) -> None:
        self.name = name
        self.fault = fault
        self.fault_rate = fault_rate
        self.is_done = self.is_parked = self.is_preempted = False
        self.result: Any = None  # Any: what the actor returns
        self.error: BaseException | None = None
        self.thrown: BaseException | None = None
        self.parks = 0
        self.group: object = None

    def take_turn(self, error: BaseException | None) -> int | None:
        """Run until it waits or ends; `error` is thrown into it first. Returns until when it waits at most."""
        raise NotImplementedError


class Task(Actor):
    """A coroutine."""

    def __init__(self, play: Coroutine[Any, Any, Any], context: contextvars.Context, *about: Any) -> None:
        super().__init__(*about)  # Any: what a coroutine sends, and the actor's own arguments
        self._play = play
        self._context = context

    def take_turn(self, error: BaseException | None) -> int | None:
        try:
            if error is None:
                until_ns: int | None = self._context.run(self._play.send, None)
            else:
                until_ns = self._context.run(self._play.throw, error)
        except StopIteration as stop:
            self.is_done, self.result = True, stop.value
        except BaseException as raised:
            self.is_done, self.error = True, raised
        else:
            return until_ns
        return None


class Thread(Actor):
    """A plain function on a carrier. Whoever runs it stands still meanwhile."""

    def __init__(self, job: Callable[[], Any], carrier: _Carrier, *about: Any) -> None:
        super().__init__(*about)  # Any: the job's result, and the actor's own arguments
        self._job = job
        self._carrier = carrier
        self._until_ns: int | None = None
        self._error: BaseException | None = None
        carrier.job = self._run

    def take_turn(self, error: BaseException | None) -> int | None:
        self._error, self._until_ns = error, None
        self._carrier.go.release()
        self._carrier.back.acquire()
        return self._until_ns

    def give_turn(self, until_ns: int | None) -> None:
        """Stop here, in the actor's own thread, until it has the turn again."""
        self._until_ns = until_ns
        self._carrier.back.release()
        self._carrier.go.acquire()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            if self._error is not None:
                raise self._error
            self.result = self._job()
        except BaseException as error:
            self.error = error
        self.is_done = True


class _Carrier(threading.Thread):
    """An OS thread that carries one simulated thread after the other. Two locks pass the turn to it and back."""

    def __init__(self, idle: list[_Carrier]) -> None:
        super().__init__(name="credenza-simulated", daemon=True)
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        self.job: Callable[[], None] | None = None
        self._idle = idle
        self.start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.job is None:
                return
            self.job()
            self.job = None
            self._idle.append(self)
            self.back.release()


class Carriers:
    """OS threads for many simulations, one after the other. `close` ends them."""

    def __init__(self) -> None:
        self._idle: list[_Carrier] = []

    def take(self) -> _Carrier:
        """Return an idle one."""
        return self._idle.pop() if self._idle else _Carrier(self._idle)

    def close(self) -> None:
        """End all that are idle."""
        while self._idle:
            carrier = self._idle.pop()
            carrier.go.release()
            carrier.join()
