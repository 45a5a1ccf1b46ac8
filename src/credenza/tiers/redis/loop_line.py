"""A connection of an event loop."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import Any

from ..base import TierError
from .answers import ended, new_reader, take_answers, too_late
from .lines import Hung
from .places import Place, check_welcome, greeting, no_credentials, tune
from .refusals import Unreached
from .wire import Raw


class LoopLine(asyncio.Protocol):
    """A `Line` of one event loop, used by one task at a time; at the same time what its transport reports to."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._reader = new_reader()
        self._transport: asyncio.Transport | None = None
        self._is_used = False
        self._has_begun = False  # part of an answer to the last request is here
        self._answers: list[Raw] = []
        self._count = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: TierError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if self._place.port and sock is not None:
            tune(sock, self._place)

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        try:
            is_complete = take_answers(self._reader, data, self._answers, self._count)
        except TierError as error:
            self._answers = []
            self._fail(error)
            return
        if is_complete:
            self._wake()

    def eof_received(self) -> None:
        self._fail(self._lost())

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(self._lost())

    def send(self, request: bytes, count: int, deadline_ns: int) -> None:
        if self._failure is not None:
            raise Hung(self._place)
        assert self._transport is not None
        self._answers, self._count, self._has_begun = [], count, False
        self._transport.write(request)

    async def receive(self, deadline_ns: int) -> list[Raw]:
        if len(self._answers) < self._count and self._failure is None:
            await self._wait(deadline_ns)
        if self._failure is not None and len(self._answers) < self._count:
            raise self._failure
        self._is_used = True
        return self._answers

    def close(self) -> None:
        self._fail(ended(self._place))

    def bury(self) -> None:
        """Close a connection whose event loop was closed before it, which only the socket itself still can."""
        transport: Any = self._transport  # Any: no public method of a closed loop's transport closes it
        with suppress(RuntimeError):
            transport.abort()
        transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            sock.close()
            transport._sock = None

    def leave_to_parent(self) -> None:
        """Give up the copy of the descriptor that a forked child has.

        Parent and child share the selector of the parent's loop, and closing the transport would unregister the socket
        for both. So the descriptor alone is replaced; the caller sees to it that this object is never collected.
        """
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None and sock.fileno() >= 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, sock.fileno())
            os.close(nothing)

    async def _wait(self, deadline_ns: int) -> None:
        left = (deadline_ns - time.monotonic_ns()) / 1_000_000_000
        self._waiter = self._loop.create_future()
        alarm = self._loop.call_later(left, self._give_up)
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            alarm.cancel()
            self._waiter = None

    def _give_up(self) -> None:
        self._fail(too_late(self._place))

    def _lost(self) -> TierError:
        return Hung(self._place) if self._is_used and not self._has_begun else ended(self._place)

    def _fail(self, error: TierError) -> None:
        if self._failure is None:
            self._failure = error
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def open_loop_line(place: Place, deadline_ns: int) -> LoopLine:
    """Connect to a server on the running loop and get in.

    Raises:
        Unreached: that is not possible, or takes too long.
    """
    try:
        async with asyncio.timeout((deadline_ns - time.monotonic_ns()) / 1_000_000_000):
            line = await _connected(place)
            try:
                await _introduce(line, place, deadline_ns)
            except BaseException:
                line.close()
                raise
            return line
    except TimeoutError as error:
        raise Unreached(f"the server at {place} cannot be reached in time") from error
    except (OSError, ValueError) as error:
        raise Unreached(f"the server at {place} cannot be reached: {error}") from error


async def _connected(place: Place) -> LoopLine:
    loop = asyncio.get_running_loop()
    if not place.port:
        _, line = await loop.create_unix_connection(lambda: LoopLine(place), place.host)
        return line
    tls = place.access.tls
    _, line = await loop.create_connection(lambda: LoopLine(place), place.host, place.port, ssl=tls)
    return line


async def _introduce(line: LoopLine, place: Place, deadline_ns: int) -> None:
    provider = place.access.credentials
    try:
        credentials = () if provider is None else await provider.get_credentials_async()
    except Exception as error:
        raise no_credentials(place, error) from error
    greeted = greeting(place.access, credentials)
    if greeted.names:
        line.send(greeted.request, len(greeted.names), deadline_ns)
        check_welcome(place, greeted.names, await line.receive(deadline_ns))
