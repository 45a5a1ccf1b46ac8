"""How the thread that delivers calls a source: here, or on the event loop where an async one lives."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from ..errors import ConfigurationError

_GLANCE_SECONDS = 0.05
"""How often it looks whether the loop still runs; a loop that stops tells nobody."""

_calling: ContextVar[object] = ContextVar("calling", default=None)
"""The `SourceCalls` on whose behalf this code runs: what it waits for must not be a delivery of the same repository."""


class SourceCalls:
    """Calls the methods of a source from the delivering thread.

    Attributes:
        loop: where an async source lives, None as long as nobody has used it.
    """

    __slots__ = ("_is_async", "_left", "loop")

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async
        self._left: _Call | None = None  # of the delivering thread alone
        self.loop: asyncio.AbstractEventLoop | None = None

    def may_call(self) -> bool:
        """Tell whether the source can be called at all: an async one needs the event loop of those who use it."""
        return not self._is_async or (self.loop is not None and self.loop.is_running())

    def is_calling(self) -> bool:
        """Tell whether the caller is the source itself, on its way of taking a batch."""
        return _calling.get() is self

    async def __call__(self, action: Callable[[], Any]) -> Any:  # Any: what the source returns
        """Call it, and wait for what it returns.

        Raises:
            ConfigurationError: a plain source returned a coroutine, so that nothing was written.
            ConnectionError: the event loop of an async source has stopped, or has cancelled the call.
            RuntimeError: the source raised what would end the thread.
        """
        try:
            return self._call_on_loop(action) if self._is_async else self._call_here(action)
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(f"the source raised {type(error).__qualname__}") from error

    def _call_here(self, action: Callable[[], Any]) -> Any:  # Any: as above
        token = _calling.set(self)
        try:
            result = action()
        finally:
            _calling.reset(token)
        if inspect.iscoroutine(result):
            result.close()
            raise ConfigurationError("a method of a plain source returned a coroutine; make all of them async, or none")
        return result

    def _call_on_loop(self, action: Callable[[], Any]) -> Any:  # Any: as above
        self._wait_for_left()
        loop = self.loop
        if loop is None or not loop.is_running():
            raise ConnectionError("the event loop of the async source does not run")
        call = _Call(self, loop, action)
        future = asyncio.run_coroutine_threadsafe(call.run(), loop)
        while True:
            try:
                return future.result(_GLANCE_SECONDS)
            except concurrent.futures.CancelledError:
                raise ConnectionError("the event loop has cancelled the call of the source") from None
            except TimeoutError:
                if future.done():
                    return future.result()  # its own, or the value that came in the last moment
                if not loop.is_running():
                    self._left = call
                    call.leave()
                    raise ConnectionError("the event loop of the async source has stopped") from None

    def _wait_for_left(self) -> None:
        """Wait for a call whose loop had stopped and runs again: it holds older values than those that come now."""
        while self._left is not None:
            if self._left.loop.is_closed() or self._left.ended.wait(_GLANCE_SECONDS):
                self._left = None
            elif not self._left.loop.is_running():
                return  # should that ever go on, it is cancelled first


class _Call:
    """One call on an event loop, which may stop and run again."""

    __slots__ = ("_action", "_calls", "_is_left", "_task", "ended", "loop")

    def __init__(self, calls: SourceCalls, loop: asyncio.AbstractEventLoop, action: Callable[[], Any]) -> None:
        self._calls = calls
        self._action = action  # Any: what the source returns
        self._is_left = False
        self._task: asyncio.Task[Any] | None = None  # Any: as above
        self.loop = loop
        self.ended = threading.Event()

    async def run(self) -> Any:  # Any: as above
        self._task = asyncio.current_task()
        _calling.set(self._calls)
        try:
            if self._is_left:
                raise asyncio.CancelledError
            result = self._action()
            return await result if inspect.isawaitable(result) else result
        finally:
            self.ended.set()

    def leave(self) -> None:
        """Have it cancelled when the loop runs again."""
        self._is_left = True
        with contextlib.suppress(RuntimeError):  # closed: it never will
            self.loop.call_soon_threadsafe(lambda: None if self._task is None else self._task.cancel())
