"""Connections to the servers of one set-up, whichever colour they have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ..base import TierError
from .places import Place
from .wire import Raw


class Hung(TierError):
    """The server ended a connection that had been idle, before it answered anything."""

    def __init__(self, place: Place) -> None:
        super().__init__(f"the server at {place} ended the connection")


class Parcel(NamedTuple):
    """Commands for one server, and how many answers they have."""

    place: Place
    request: bytes
    answers: int


class Line(Protocol):
    """One connection. Whatever goes wrong closes it, so that no late answer is taken for that of a later command."""

    def send(self, request: bytes, count: int, deadline_ns: int) -> None:
        """Hand over a request that has `count` answers.

        Raises:
            Hung: the connection had ended.
            TierError: it takes too long.
        """
        ...

    async def receive(self, deadline_ns: int) -> list[Raw]:
        """Return the answers to what was sent last.

        Raises:
            Hung: the connection had been used before and ended without an answer.
            TierError: it takes too long, or ended, or answers what nobody understands.
        """
        ...

    def close(self) -> None:
        """End the connection; may be called again."""
        ...


class Lines:
    """The open connections, one to each server, used by one batch at a time.

    Coroutines that suspend only where `open_line` and its lines do.
    """

    def __init__(self, open_line: Callable[[Place, int], Awaitable[Line]]) -> None:
        self._open_line = open_line
        self._lines: dict[Place, Line] = {}
        self._closings = 0

    async def exchange(self, parcels: list[Parcel], deadline_ns: int) -> list[list[Raw] | TierError]:
        """Send all parcels, then collect the answers of each, or why there are none."""
        closings, under_way = self._closings, list[Line | TierError]()
        try:
            for parcel in parcels:
                under_way.append(await self._sent(parcel, deadline_ns, closings))
            return [
                await self._answers(parcel, sent, deadline_ns, closings)
                for parcel, sent in zip(parcels, under_way, strict=True)
            ]
        except BaseException:
            for parcel in parcels:
                self.drop(parcel.place)
            raise

    async def ask(self, parcel: Parcel, deadline_ns: int) -> list[Raw]:
        """Exchange one parcel.

        Raises:
            TierError: there is no answer.
        """
        (answers,) = await self.exchange([parcel], deadline_ns)
        if isinstance(answers, TierError):
            raise answers
        return answers

    def drop(self, place: Place) -> None:
        """Close the connection to a server, if there is one."""
        line = self._lines.pop(place, None)
        if line is not None:
            line.close()

    def close(self) -> None:
        """Close all connections; later exchanges open new ones, those under way do not."""
        self._closings += 1
        while self._lines:
            self._lines.popitem()[1].close()

    def lines(self) -> list[Line]:
        """Return the open connections."""
        return list(self._lines.values())

    def forget(self) -> list[Line]:
        """Return the open connections and know them no more."""
        lines, self._lines = self.lines(), {}
        return lines

    def note_closing(self) -> None:
        """Let no exchange that is under way open another connection."""
        self._closings += 1

    @property
    def closings(self) -> int:
        """How often the connections were closed."""
        return self._closings

    async def _sent(self, parcel: Parcel, deadline_ns: int, closings: int) -> Line | TierError:
        try:
            line = self._lines.get(parcel.place)
            if line is not None:
                try:
                    line.send(parcel.request, parcel.answers, deadline_ns)
                except Hung:
                    self.drop(parcel.place)
                else:
                    return line
            return await self._sent_anew(parcel, deadline_ns, closings)
        except TierError as error:
            self.drop(parcel.place)
            return error

    async def _sent_anew(self, parcel: Parcel, deadline_ns: int, closings: int) -> Line:
        line = await self._open_line(parcel.place, deadline_ns)
        if closings != self._closings:
            line.close()
            raise TierError("the tier was closed meanwhile")
        self._lines[parcel.place] = line
        line.send(parcel.request, parcel.answers, deadline_ns)
        return line

    async def _answers(
        self, parcel: Parcel, sent: Line | TierError, deadline_ns: int, closings: int
    ) -> list[Raw] | TierError:
        if isinstance(sent, TierError):
            return sent
        try:
            try:
                return await sent.receive(deadline_ns)
            except Hung:
                self.drop(parcel.place)
                if closings != self._closings:
                    raise
                line = await self._sent_anew(parcel, deadline_ns, closings)
                return await line.receive(deadline_ns)
        except TierError as error:
            self.drop(parcel.place)
            return error
