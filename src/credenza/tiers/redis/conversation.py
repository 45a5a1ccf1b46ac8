"""Batches for servers whose addresses are known: sent, brought to the script's knowledge, understood."""

from __future__ import annotations

from typing import NamedTuple

from ..base import Get, Operation, Reply, TierError
from .lines import Lines, Parcel
from .places import Place
from .refusals import Garbled, Refusal
from .wire import Raw, Wire, pack

_ASKING = pack(b"ASKING")


class Batch(NamedTuple):
    """Operations for one server.

    Attributes:
        is_asking: each is to be performed by a server that is about to take its slot over.
    """

    place: Place
    operations: list[Operation]
    is_asking: bool = False


async def converse(wire: Wire, lines: Lines, batches: list[Batch], deadline_ns: int) -> list[list[Reply] | TierError]:
    """Perform batches on their servers side by side; return the replies of each, or why there are none."""
    sent = await lines.exchange([_parcel(wire, batch) for batch in batches], deadline_ns)
    results = [_understood(wire, lines, batch, answers) for batch, answers in zip(batches, sent, strict=True)]
    for place, result in enumerate(results):
        if isinstance(result, list) and _is_untaught(result):
            results[place] = await _teach(wire, lines, batches[place], result, deadline_ns)
    return results


def _is_untaught(replies: list[Reply]) -> bool:
    if Refusal not in map(type, replies):  # nearly always
        return False
    return any(isinstance(reply, Refusal) and reply.code == "NOSCRIPT" for reply in replies)


def _parcel(wire: Wire, batch: Batch) -> Parcel:
    operations = batch.operations
    if not batch.is_asking:
        return Parcel(batch.place, wire.request(operations), len(operations))
    request = b"".join([_ASKING + wire.request_with_script([operation]) for operation in operations])
    return Parcel(batch.place, request, 2 * len(operations))


def _understood(wire: Wire, lines: Lines, batch: Batch, answers: list[Raw] | TierError) -> list[Reply] | TierError:
    if isinstance(answers, TierError):
        return answers
    try:
        return wire.replies(batch.operations, answers[1::2] if batch.is_asking else answers)
    except Garbled as error:
        lines.drop(batch.place)
        return error


async def _teach(
    wire: Wire, lines: Lines, batch: Batch, replies: list[Reply], deadline_ns: int
) -> list[Reply] | TierError:
    """Perform again what failed because the server does not know the script, this time with the script.

    Look-ups behind the first failure are repeated too, so that they see what the operations before them did.
    """
    failed = [isinstance(reply, Refusal) and reply.code == "NOSCRIPT" for reply in replies]
    first = failed.index(True)
    again = [place for place in range(first, len(replies)) if failed[place] or isinstance(batch.operations[place], Get)]
    operations = [batch.operations[place] for place in again]
    parcel = Parcel(batch.place, wire.request_with_script(operations), len(operations))
    (answers,) = await lines.exchange([parcel], deadline_ns)
    repeated = _understood(wire, lines, Batch(batch.place, operations), answers)
    if isinstance(repeated, TierError):
        return repeated
    for place, reply in zip(again, repeated, strict=True):
        replies[place] = reply
    return replies
