"""Finding what is at hand, in memory or in the shared tier, without loading."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from ..runtime.base import Waiter
from ..state import State
from ..stats import Status
from ..steps.looks import begin_look, end_look
from ..steps.request import Request
from .exchange import tier_of
from .look import look_up


async def find_many(state: State, run: Waiter, requests: Sequence[Request]) -> dict[Hashable, Any]:
    """Return the fresh values of the requests' keys that the shared tier has; memory has been asked already."""
    timeout_ns = tier_of(state).timeout_ns  # Any: values of any type
    looking = [request for request in requests if begin_look(state, request)]
    for request in looking:
        request.tier_ns = timeout_ns
    if looking:
        await look_up(state, run, looking)
    found: dict[Hashable, Any] = {}
    for request in looking:
        if end_look(state, request):
            request.tally.shared_hits += 1
            request.status = Status.SHARED
            found[request.key] = request.value
    for request in requests:
        request.tally.misses += request.key not in found
    return found
