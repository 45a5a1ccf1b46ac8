"""Connections of redis-py to the servers of one set-up, of either colour.

The colours of redis-py have the same methods. So what follows is written once, as coroutines, which never suspend over
connections that block.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ..base import TierError
from .discovery import find_master, unreached
from .punctual import is_late, parser_class, seconds_left, settled, within
from .refusals import Garbled
from .servers import Address, Servers, connection_class, redis_module
from .wire import Raw, Request, Words, request_of

_ROOMY_BYTES: Final = 32_768
"""What a transport takes without waiting for its peer."""


class Parcel(NamedTuple):
    """A request to one server."""

    address: Address
    request: Request


class _Hung(TierError):
    """The server ended a connection that had been idle, before it answered anything."""


class Link:
    """A connection, used by one batch at a time; whatever goes wrong closes it, so that no late answer is ever read.

    Args:
        connection: of redis-py.
        where: its server, for messages.
        master: its address, if the sentinels named it.
        is_async: its colour.
    """

    __slots__ = ("_answers", "_connection", "_is_async", "_is_closed", "_is_used", "_parser", "_where", "master")

    def __init__(self, connection: Any, parser: Any, where: str, master: Address, *, is_async: bool) -> None:
        self._connection = connection  # Any: the colours have no type in common
        self._parser = parser
        self._where = where
        self.master = master
        self._is_async = is_async
        self._is_used = False
        self._is_closed = False
        self._answers = 0

    async def connect(self, deadline_ns: int) -> None:
        """Connect and get in.

        Raises:
            Unreached: that is not possible, or takes too long.
        """
        self._parser.deadline_ns = deadline_ns
        try:
            async with within(deadline_ns, is_async=self._is_async):
                await settled(self._connection.connect())
        except Exception as error:
            await self.close()
            raise unreached(self._where, error) from error
        except BaseException:
            await self.close()
            raise

    async def send(self, request: Request, deadline_ns: int) -> None:
        """Send a request.

        Raises:
            TierError: the connection had ended, or takes no more.
        """
        parser, packed, self._answers = self._parser, request.packed, request.answers
        parser.has_begun, parser.deadline_ns = False, deadline_ns
        try:
            if self._is_closed:
                raise ConnectionError  # redis-py would connect anew
            if not self._is_async:
                self._connection.send_packed_command((packed,), check_health=False)
            elif len(packed) < _ROOMY_BYTES:
                await self._connection.send_packed_command((packed,), check_health=False)
            else:
                async with within(deadline_ns, is_async=True):
                    await self._connection.send_packed_command((packed,), check_health=False)
        except Exception as error:
            await self.close()
            raise self._failure(error) from error
        except BaseException:
            await self.close()
            raise

    async def receive(self, deadline_ns: int) -> list[Raw]:
        """Return the answers to what was sent last.

        Raises:
            TierError: they do not come, or nobody understands them.
        """
        read = self._connection.read_response
        answers: list[Raw] = []
        try:
            if self._is_async:
                async with within(deadline_ns, is_async=True):
                    while len(answers) < self._answers:
                        answers.append(await read(disable_decoding=True))
                        answers += self._parser.at_hand(self._answers - len(answers))
            else:
                while len(answers) < self._answers:
                    answers.append(read(disable_decoding=True))
                    answers += self._parser.at_hand(self._answers - len(answers))
            if self._parser.has_more():
                raise Garbled
        except Exception as error:
            await self.close()
            raise self._failure(error) from error
        except BaseException:
            await self.close()
            raise
        self._is_used = True
        return answers

    async def close(self) -> None:
        """End the connection; may be called again."""
        if self._is_async:
            self._is_closed = True
            with suppress(Exception):  # it is dropped whatever happens
                await self._connection.disconnect(nowait=True)
        else:
            self.interrupt()

    def interrupt(self) -> None:
        """End a connection that blocks, from any thread; whoever waits for an answer learns of it."""
        self._is_closed = True
        with suppress(OSError):
            self._connection.disconnect()

    def bury(self) -> None:
        """Close a connection whose event loop was closed before it, which only the socket itself still can."""
        writer, self._connection._writer = self._connection._writer, None  # redis-py warns else
        if writer is None:
            return
        with suppress(RuntimeError):
            writer.transport.abort()
        transport = getattr(getattr(writer.transport, "_ssl_protocol", None), "_transport", None) or writer.transport
        sock = getattr(transport, "_sock", None)
        if sock is not None:
            sock.close()
            transport._sock = None  # asyncio warns else

    def leave_to_parent(self) -> None:
        """Give up the copy of the descriptor that a forked child has.

        Parent and child share the selector of the parent's loop, and closing the transport would unregister the socket
        for both. So the descriptor alone is replaced; the caller sees to it that this object is never collected.
        """
        writer = self._connection._writer  # nobody else has the socket
        sock = writer.get_extra_info("socket") if writer is not None else None
        if sock is not None and sock.fileno() >= 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, sock.fileno())
            os.close(nothing)

    def _failure(self, error: Exception) -> TierError:
        if isinstance(error, TierError):
            return error
        if is_late(error):
            return TierError(f"the server at {self._where} did not answer in time")
        if isinstance(error, redis_module("redis.exceptions").InvalidResponse):
            return Garbled()
        kind = _Hung if self._is_used and not self._parser.has_begun else TierError
        return kind(f"the server at {self._where} ended the connection instead of answering")


class Links:
    """The open connections, one to each server, used by one batch at a time."""

    def __init__(self, servers: Servers, *, is_async: bool) -> None:
        self.servers = servers
        self.is_async = is_async
        self.is_retired = False  # no further connection is opened
        self.links: dict[Address, Link] = {}

    async def exchange(self, parcels: Sequence[Parcel], deadline_ns: int) -> list[list[Raw] | TierError]:
        """Send all parcels, then collect the answers of each, or why there are none."""
        under_way: list[Link | TierError] = []
        if self.servers.service:
            await self._leave_former_master()
        try:
            for parcel in parcels:
                under_way.append(await self._sent(parcel, deadline_ns))  # noqa: PERF401  # read in the clause below
            return [await self._answers(*pair, deadline_ns) for pair in zip(parcels, under_way, strict=True)]
        except BaseException:
            for parcel in parcels:
                await self.drop(parcel.address)
            raise

    async def ask(self, address: Address, command: Words, deadline_ns: int) -> Raw:
        """Return the answer to one command, a refusal included.

        Raises:
            TierError: there is none.
        """
        (answers,) = await self.exchange([Parcel(address, request_of(command))], deadline_ns)
        if isinstance(answers, TierError):
            raise answers
        return answers[0]

    async def drop(self, address: Address) -> None:
        """Close the connection to a server, if there is one."""
        link = self.links.pop(address, None)
        if link is not None:
            await link.close()

    async def close(self) -> None:
        """Close all connections for good; an exchange under way opens no other."""
        self.is_retired = True
        while self.links:
            await self.links.popitem()[1].close()

    async def _leave_former_master(self) -> None:
        """Close the connection to a server that the sentinels do not call the master any more.

        They demote it in their own time, ten seconds after a fail-over that somebody asked for, and until then it takes what
        it is told, which is lost.
        """
        link = self.links.get(None)
        if link is not None and link.master != self.servers.master.address:
            await self.drop(None)

    async def _sent(self, parcel: Parcel, deadline_ns: int) -> Link | TierError:
        try:
            link = self.links.get(parcel.address)
            if link is not None:
                try:
                    await link.send(parcel.request, deadline_ns)
                except _Hung:
                    pass
                else:
                    return link
            return await self._sent_anew(parcel, deadline_ns)
        except TierError as error:
            await self.drop(parcel.address)
            return error

    async def _sent_anew(self, parcel: Parcel, deadline_ns: int) -> Link:
        if self.is_retired:
            raise TierError("the tier was closed meanwhile")
        link = await open_link(self.servers, parcel.address, deadline_ns, is_async=self.is_async)
        if self.is_retired:
            await link.close()
            raise TierError("the tier was closed meanwhile")
        self.links[parcel.address] = link
        await link.send(parcel.request, deadline_ns)
        return link

    async def _answers(self, parcel: Parcel, sent: Link | TierError, deadline_ns: int) -> list[Raw] | TierError:
        if isinstance(sent, TierError):
            return sent
        try:
            try:
                return await sent.receive(deadline_ns)
            except _Hung:
                link = await self._sent_anew(parcel, deadline_ns)
                return await link.receive(deadline_ns)
        except TierError as error:
            await self.drop(parcel.address)
            return error


async def open_link(servers: Servers, address: Address, deadline_ns: int, *, is_async: bool) -> Link:
    """Connect to a server, which is the master that a sentinel names if there are sentinels.

    Raises:
        Unreached: that is not possible, or takes too long.
    """
    where = servers.shown(address)
    master = await find_master(servers, deadline_ns, is_async=is_async) if servers.service else None
    address = master or address
    parsers: list[Any] = []

    def new_parser(**options: Any) -> Any:  # Any: whatever redis-py gives its parsers
        parsers.append(parser_class(is_async=is_async)(**options))
        return parsers[-1]

    options = servers.options_for(address, is_async=is_async)
    limit = None if is_async else seconds_left(deadline_ns)
    try:
        connection = connection_class(servers.kind, is_async=is_async)(
            **options, socket_timeout=limit, socket_connect_timeout=limit, parser_class=new_parser
        )
    except Exception as error:
        raise unreached(where, error) from error
    link = Link(connection, parsers[-1], where, master, is_async=is_async)
    await link.connect(deadline_ns)
    return link
