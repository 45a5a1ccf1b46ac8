"""What comes in on a connection, taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..base import TierError
from .places import Place
from .refusals import Garbled, Refusal
from .wire import Raw

if TYPE_CHECKING:
    import hiredis

_INCOMPLETE: Final = object()


def new_reader() -> hiredis.Reader:
    """Return a parser whose answers are bytes, integers, lists and refusals."""
    import hiredis  # noqa: PLC0415  # optional; `RedisTier` says so when it is missing

    return hiredis.Reader(protocolError=Garbled, replyError=Refusal, notEnoughData=_INCOMPLETE)


def take_answers(reader: hiredis.Reader, part: bytes, answers: list[Raw], count: int) -> bool:
    """Parse what came in and say whether all answers are complete.

    Raises:
        Garbled: it is not the server's protocol, or more than was asked for.
    """
    reader.feed(part)
    while len(answers) < count:
        answer = reader.gets()
        if answer is _INCOMPLETE:
            return False
        answers.append(answer)
    if reader.has_data():
        raise Garbled
    return True


def too_late(place: Place) -> TierError:
    """Return the error for a server that takes too long."""
    return TierError(f"the server at {place} did not answer in time")


def ended(place: Place) -> TierError:
    """Return the error for a connection that ended in the middle."""
    return TierError(f"the server at {place} ended the connection instead of answering")
