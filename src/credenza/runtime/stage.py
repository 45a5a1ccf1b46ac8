"""Running a coroutine at once, and as a task only if it has to wait.

A task costs two turns of the event loop, more than most of the rest of a miss, and a loader that finds its value at once
needs neither. But code in a loader may ask for its task (`asyncio.timeout` does), and has to find one that it keeps. So the
first step runs on behalf of an idle task, the stage; if the coroutine ends in that step, the stage is idle again, and if
it waits, the stage goes on with it as its own and a new stage is made when one is needed.

Standing in for a task uses `_enter_task` and `_leave_task`, which asyncio documents for makers of tasks ("Extending").
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from asyncio.tasks import _enter_task, _leave_task, _register_task, _unregister_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Play = Coroutine[Any, Any, None]  # Any: what passes between a coroutine and whoever drives it


class Stages:
    """One idle stage per thread, for the loop that runs there. Thread-safe, as threads share nothing."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle = threading.local()

    def take(self, loop: asyncio.AbstractEventLoop) -> Stage:
        """Return an idle stage of `loop`, the running one, for the caller alone."""
        stage: Stage | None = getattr(self._idle, "stage", None)
        self._idle.stage = None  # what runs on it may want another one
        return stage if stage is not None and stage.loop is loop and stage.is_idle() else Stage(loop)

    def give_back(self, stage: Stage) -> None:
        """Keep `stage` for the next, if it is idle."""
        if stage.is_idle():
            self._idle.stage = stage


class Stage:
    """A task that waits for a coroutine to go on with."""

    __slots__ = ("_act", "_curtain", "loop", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._act: _Act | None = None
        self._curtain: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] = asyncio.Task(_Body(self), loop=loop)
        self._hide()

    def _hide(self) -> None:
        """Keep an idle stage out of `all_tasks`, and let it vanish with its loop without a word."""
        _unregister_task(self.task)
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio does with its own helpers

    def is_idle(self) -> bool:
        """Tell whether the stage is fit for another coroutine."""
        return self._act is None and not self.task.done() and not self.task.cancelling()

    def step(self, context: contextvars.Context, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` in `context` while the stage's task is the current one."""  # Any: what coroutines yield
        current = asyncio.current_task(self.loop)
        if current is not None:
            _leave_task(self.loop, current)
        _enter_task(self.loop, self.task)
        try:
            return context.run(function, *args)
        finally:
            _leave_task(self.loop, self.task)
            if current is not None:
                _enter_task(self.loop, current)

    def perform(self, play: Play, context: contextvars.Context) -> bool:
        """Run the first step of a coroutine, and go on with it if it waits; tell whether it has ended.

        Whoever calls has to keep `task` if it has not: the loop holds it weakly.

        Raises:
            BaseException: what the first step raised, but for a cancellation, which ends it silently, as in a task.
        """
        try:
            awaited = self.step(context, play.send, None)
        except (StopIteration, asyncio.CancelledError):
            return True
        self._act = _Act(play, context, awaited)
        _register_task(self.task)
        if self._curtain is not None and not self._curtain.done():
            self._curtain.set_result(None)
        return False

    def go_on(self, error: BaseException | None) -> Generator[Any, Any, None]:  # Any: what coroutines yield
        """Wait for a coroutine that has to wait, then be it; `error` was thrown before the task had its first turn."""
        if error is None and self._act is None:
            self._curtain = self.loop.create_future()
            try:
                yield from self._curtain
            except BaseException as raised:
                error = raised
        if self._act is None:
            if error is not None:
                raise error
            return
        yield from self._act.go_on(error)


class _Body(Coroutine[Any, Any, None]):  # Any: what coroutines yield
    """The coroutine of a stage's task.

    One of Python's own would not run at all if its task is cancelled before the first turn, and the act that it has
    got by then would never end.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._steps: Generator[Any, Any, None] | None = None

    def send(self, value: Any, /) -> Any:
        if self._steps is None:
            self._steps = self._stage.go_on(None)
        return self._steps.send(value)

    def throw(self, error: Any, *rest: Any) -> Any:
        if self._steps is not None:
            return self._steps.throw(error)
        self._steps = self._stage.go_on(error)
        return self._steps.send(None)

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._stage.go_on(None)


class _Act:
    """A coroutine that has run its first step, with its context and what it waits for."""

    __slots__ = ("_awaited", "_context", "_play")

    def __init__(self, play: Play, context: contextvars.Context, awaited: Any) -> None:  # Any: what coroutines yield
        self._play = play
        self._context = context
        self._awaited = awaited

    def go_on(self, error: BaseException | None) -> Generator[Any, Any, None]:  # Any: what coroutines yield
        """Drive the coroutine to its end in its context; `error` came up before it could go on."""
        awaited = self._awaited
        if isinstance(error, asyncio.CancelledError) and asyncio.isfuture(awaited) and awaited.cancel():
            error = None  # it comes back out of what is awaited, as when a task is cancelled while it waits
        step: Callable[..., Any] = self._play.send
        try:
            while True:
                argument: Any = None
                if error is None:
                    try:
                        argument = yield awaited
                    except GeneratorExit:  # collected with its loop, perhaps after the coroutine
                        self._context.run(self._play.close)
                        raise
                    except BaseException as raised:
                        error = raised
                if error is not None:
                    step, argument, error = self._play.throw, error, None
                else:
                    step = self._play.send
                awaited = self._context.run(step, argument)
        except StopIteration:
            return


class Resumed:
    """Awaits a coroutine whose first step has been run.

    Args:
        coroutine: it.
        awaited: what its first step waits for.
    """

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:  # Any: what coroutines yield
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:  # Any: as above, and what the coroutine returns
        step: Callable[..., Any] = self._coroutine.send
        awaited = self._awaited
        try:
            while True:
                try:
                    argument: Any = yield awaited
                except GeneratorExit:
                    self._coroutine.close()
                    raise
                except BaseException as error:
                    awaited = self._coroutine.throw(error)
                else:
                    awaited = step(argument)
        except StopIteration as stop:
            return stop.value
