"""Connections of threads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from ..base import TierError
from .answers import ended, new_reader, take_answers, too_late
from .lines import Hung, Lines
from .places import Place, check_welcome, greeting, no_credentials, tune
from .refusals import Unreached
from .wire import Raw

_T = TypeVar("_T")
_READ_BYTES: Final = 65_536


class BlockingLine:
    """A `Line` that blocks the thread. Used by one thread at a time, but for `interrupt`."""

    __slots__ = ("_count", "_is_used", "_place", "_reader", "_socket")

    def __init__(self, place: Place, sock: socket.socket) -> None:
        self._place = place
        self._socket = sock
        self._reader = new_reader()
        self._is_used = False
        self._count = 0

    def send(self, request: bytes, count: int, deadline_ns: int) -> None:
        self._count = count
        try:
            self._socket.settimeout(_seconds_left(self._place, deadline_ns))
            self._socket.sendall(request)
        except TimeoutError as error:
            self.close()
            raise too_late(self._place) from error
        except OSError as error:
            self.close()
            raise self._lost(error) from error
        except BaseException:
            self.close()
            raise

    async def receive(self, deadline_ns: int) -> list[Raw]:
        try:
            return self._received(deadline_ns)
        except BaseException:
            self.close()
            raise

    def _received(self, deadline_ns: int) -> list[Raw]:
        answers: list[Raw] = []
        reader = self._reader
        has_begun = False
        while True:
            try:
                part = self._socket.recv(_READ_BYTES)
            except TimeoutError as error:
                raise too_late(self._place) from error
            except OSError as error:
                raise (ended(self._place) if has_begun else self._lost(error)) from error
            if not part:
                raise ended(self._place) if has_begun else self._lost(None)
            has_begun = True
            if take_answers(reader, part, answers, self._count):
                self._is_used = True
                return answers
            self._socket.settimeout(_seconds_left(self._place, deadline_ns))

    def interrupt(self) -> None:
        """Wake whoever waits for an answer, from another thread; it finds the connection ended."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()

    def _lost(self, error: OSError | None) -> TierError:
        return Hung(self._place) if self._is_used else ended(self._place)


class Desk:
    """Lines that threads use in turns.

    All methods are thread-safe.
    """

    def __init__(self) -> None:
        self._lines = Lines(open_blocking_line)
        self._turn = threading.Lock()  # whoever holds it uses the lines

    def run(self, steps: Callable[[Lines], Coroutine[Any, Any, _T]], timeout_ns: int) -> _T:
        """Run a coroutine over the lines, which never suspends, when it is this thread's turn.

        Raises:
            TierError: the turn did not come in time.
        """
        lines = self._lines
        if not self._turn.acquire(timeout=timeout_ns / 1_000_000_000):
            raise TierError("the tier is kept busy by other threads")
        closings = lines.closings
        try:
            return _finished(steps(lines))
        finally:
            self._turn.release()
            if lines.closings != closings:
                self._close_idle()

    @property
    def closings(self) -> int:
        """How often it was closed."""
        return self._lines.closings

    def close(self, *, interrupts: bool = False) -> None:
        """Close the lines, now or as soon as whoever uses them is done; with `interrupts` that is at once."""
        self._lines.note_closing()
        if interrupts:
            for line in self._lines.lines():
                if isinstance(line, BlockingLine):
                    line.interrupt()
        self._close_idle()

    def forget_parent(self) -> None:
        """Close the child's copies of the sockets, which ends nothing for the parent."""
        self._turn = threading.Lock()
        lines, self._lines = self._lines, Lines(open_blocking_line)
        lines.close()

    def _close_idle(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                self._lines.close()
            finally:
                self._turn.release()


async def open_blocking_line(place: Place, deadline_ns: int) -> BlockingLine:
    """Connect to a server and get in; blocks the thread.

    Raises:
        Unreached: that is not possible, or takes too long.
    """
    try:
        sock = _connected(place, deadline_ns)
    except TimeoutError as error:
        raise Unreached(f"the server at {place} cannot be reached in time") from error
    except (OSError, ValueError) as error:
        raise Unreached(f"the server at {place} cannot be reached: {error}") from error
    line = BlockingLine(place, sock)
    try:
        await _introduce(line, place, deadline_ns)
    except BaseException:
        line.close()
        raise
    return line


async def _introduce(line: BlockingLine, place: Place, deadline_ns: int) -> None:
    provider = place.access.credentials
    try:
        credentials = () if provider is None else provider.get_credentials()
    except Exception as error:
        raise no_credentials(place, error) from error
    greeted = greeting(place.access, credentials)
    if greeted.names:
        line.send(greeted.request, len(greeted.names), deadline_ns)
        check_welcome(place, greeted.names, await line.receive(deadline_ns))


def _connected(place: Place, deadline_ns: int) -> socket.socket:
    if not place.port:
        return _dialled(place, socket.AF_UNIX, place.host, deadline_ns)
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    failure: Exception = OSError("the host has no address")
    for tried, (family, _, _, _, address) in enumerate(found):
        now_ns = time.monotonic_ns()
        try:  # an address that nobody answers at leaves time for the others
            return _dialled(place, family, address, now_ns + (deadline_ns - now_ns) // (len(found) - tried))
        except (OSError, TierError) as error:
            failure = error
    raise failure


def _dialled(place: Place, family: int, address: Any, deadline_ns: int) -> socket.socket:
    """Connect to an address and add TLS. Any: an address is what its family takes."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_seconds_left(place, deadline_ns))
        sock.connect(address)
        if not place.port:
            return sock
        tune(sock, place)
        if place.access.tls is None:
            return sock
        sock.settimeout(_seconds_left(place, deadline_ns))
        return place.access.tls.wrap_socket(sock, server_hostname=place.host)
    except BaseException:
        sock.close()
        raise


def _seconds_left(place: Place, deadline_ns: int) -> float:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise too_late(place)
    return left_ns / 1_000_000_000


def _finished(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that does not suspend."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    steps.close()
    raise RuntimeError("a step that blocks its thread suspended")
