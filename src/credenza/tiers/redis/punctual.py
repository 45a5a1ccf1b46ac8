"""The time that a call may take, on connections that block and on those of an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import cache, partial
from inspect import isawaitable
from itertools import islice
from typing import Any, Final

from .refusals import Refusal
from .servers import redis_module

_LEAST_S: Final = 0.001
"""What is left for an answer that may have come while others were waited for."""


def seconds_left(deadline_ns: int) -> float:
    """Return the time until a deadline, a moment if it has passed."""
    return max((deadline_ns - time.monotonic_ns()) / 1_000_000_000, _LEAST_S)


def within(deadline_ns: int, *, is_async: bool) -> AbstractAsyncContextManager[object]:
    """Return a block that a deadline ends, where it is one of an event loop."""
    return asyncio.timeout(seconds_left(deadline_ns)) if is_async else nullcontext()


async def settled(outcome: Any) -> Any:
    """Return what a method of redis-py returns, of either colour; Any, as that is."""
    return await outcome if isawaitable(outcome) else outcome


def is_late(error: BaseException) -> bool:
    """Tell whether an error says that something took too long."""
    return isinstance(error, TimeoutError | redis_module("redis.exceptions").TimeoutError)


@cache
def parser_class(*, is_async: bool) -> Any:
    """Return redis-py's parser, made to know when time is up and which errors are replies.

    Any: redis-py may not be installed. The timeout of a socket starts anew with every byte; this one does not.
    """
    base: Any = redis_module("redis.asyncio.connection" if is_async else "redis.connection").DefaultParser
    nothing = redis_module("redis._parsers.hiredis").NOT_ENOUGH_DATA

    class Parser(base):  # type: ignore[misc]  # it is Any, as said
        deadline_ns = 0
        has_begun = False  # part of an answer to what was sent last is here

        @classmethod
        def parse_error(cls, response: str | bytes) -> Refusal:
            return Refusal(response)

        def at_hand(self, most: int) -> Iterator[Any]:
            """Yield answers that are here already, without redis-py's steps for each."""
            return islice(iter(partial(self._reader.gets, False), nothing), most)

        def has_more(self) -> bool:
            return bool(self._reader.has_data())

    class BlockingParser(Parser):
        def read_from_socket(self, timeout: object = None, raise_on_timeout: bool = True) -> bool:  # noqa: FBT001, FBT002
            super().read_from_socket(timeout=seconds_left(self.deadline_ns))
            self.has_begun = True
            return True

    class LoopParser(Parser):
        async def read_from_socket(self) -> bool:
            await super().read_from_socket()
            self.has_begun = True
            return True

    return LoopParser if is_async else BlockingParser
