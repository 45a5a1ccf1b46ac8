"""Loads that queue, since only so many may press the source at once."""

from __future__ import annotations

from collections.abc import Coroutine

from ..flight import Flight, Gate, check_progress
from ..runtime.base import Waiter
from ..state import State
from ..steps.landing import give_up_late
from ..steps.leaving import may_begin
from ..steps.request import Request

_LOOK_AGAIN_NS = 200_000_000
"""How often a load that queues looks for places whose event loop has stopped; such a loop tells nobody."""


async def take_turn(state: State, run: Waiter, flight: Flight, request: Request) -> bool:
    """Queue until few enough loads are under way; tell whether the load is still wanted then.

    Raises:
        DeadlockError: a load that is before this one in the queue needs the event loop that the call would block.
    """
    limit = request.policy.max_concurrent_loads
    assert limit is not None
    with state.lock:
        gate = state.gates.setdefault(limit, Gate(limit))
    turn = None if flight.gate is gate else gate.enter(flight)
    if turn is None:
        return may_begin(state, flight)
    try:
        stuck_loop = run.stuck_loop()
        while not turn.is_set:
            if stuck_loop is not None and gate.needs(stuck_loop):
                check_progress(flight, None, stuck_loop)
            await run.join(turn, None, _LOOK_AGAIN_NS)
            for late in gate.drop_dead(state.clock_ns()):
                give_up_late(state, late)
    except BaseException:
        gate.leave(flight)
        raise
    return may_begin(state, flight)


def drop_awaitable(request: Request) -> None:
    """Close a coroutine that a plain loader returned and that nobody wants any more, as it would complain."""
    if isinstance(request.awaitable, Coroutine):
        request.awaitable.close()
