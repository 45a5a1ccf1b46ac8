"""Reading many keys: one load for all that nobody is loading yet."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from ..errors import NotFound, UsageError
from ..flight import Flight
from ..runtime.base import Runtime
from ..state import State
from ..steps import LEAD, SERVE, SERVE_STALE, WAIT, Move, Request, approach, fail, land, leave
from .read import AGAIN, lead, outcome, serve, take_turn

BatchCall = Callable[[Sequence[Any]], Any]  # Any: keys and, in the async face, an awaitable of the mapping

_Boarded = tuple[Request, Flight, Move]


async def read_many(
    state: State, run: Runtime, requests: Sequence[Request], loader: BatchCall
) -> dict[Hashable, Any]:  # Any: values of any type
    """Return the values of all requests' keys that the source has, in their order.

    The loader is asked once for the keys that are neither at hand nor being loaded; for the rest the flights of others
    are joined (L9). One key's error is the call's error; what was loaded for the others is kept.
    """
    arrived = state.arrivals
    timeout_ns = requests[0].timeout_ns if requests else None
    ends_ns = None if timeout_ns is None else state.clock_ns() + timeout_ns
    found: dict[Hashable, Any] = {}
    pending = list(requests)
    while pending:
        boarded = _board(state, run, pending, loader, arrived, found)
        pending = []
        try:
            while boarded:
                request, flight, move = boarded.pop(0)
                try:
                    value = await outcome(state, run, request, flight, move, ends_ns)
                except NotFound:
                    continue
                if value is AGAIN:
                    pending.append(request)
                else:
                    found[request.key] = value
        except BaseException:
            for _, flight, move in boarded:
                if move is not WAIT:
                    leave(state, flight)
            raise
    return {request.key: found[request.key] for request in requests if request.key in found}


def _board(
    state: State,
    run: Runtime,
    pending: Sequence[Request],
    loader: BatchCall,
    arrived: int,
    found: dict[Hashable, Any],
) -> list[_Boarded]:
    """Serve what is at hand, begin one load for what nobody loads, and return what is to be waited for."""
    with state.lock:
        moves = [(request, *approach(state, request, arrived)) for request in pending]
    leading = [(request, flight) for request, move, flight in moves if move is LEAD and flight is not None]
    behind = [(request, flight) for request, move, flight in moves if move is not LEAD and _is_refresh(move, flight)]
    for request, move, _ in moves:
        if move is SERVE or move is SERVE_STALE:
            try:
                found[request.key] = serve(state, request, is_fresh=move is SERVE)
            except NotFound:
                pass
    if behind:
        flights = _man(behind)
        run.start(flights[0], _load_many(state, run, flights, [request for request, _ in behind], loader))
    if leading:
        flights = _man(leading)
        asked = [request for request, _ in leading]
        lead(state, run, flights, asked, _load_many(state, run, flights, asked, loader))
    return [(request, flight, move) for request, move, flight in moves if flight is not None and not _serves(move)]


def _serves(move: Move) -> bool:
    return move is SERVE or move is SERVE_STALE


def _is_refresh(move: Move, flight: Flight | None) -> bool:
    return _serves(move) and flight is not None


def _man(boarded: Sequence[tuple[Request, Flight | None]]) -> tuple[Flight, ...]:
    """Let the flights know that they are one load."""
    flights = tuple(flight for _, flight in boarded if flight is not None)
    for flight in flights:
        flight.crew = flights
    return flights


async def _load_many(
    state: State, run: Runtime, flights: Sequence[Flight], requests: Sequence[Request], loader: BatchCall
) -> None:
    """Run the batch loader and end its flights, those that it has no value for with `NotFound`."""
    first = flights[0]
    limit = requests[0].policy.max_concurrent_loads
    try:
        if limit is not None and not await take_turn(state, run, first, limit):
            return
        keys = [request.key for request in requests]
        values = await run.call(first, loader, keys, is_async=requests[0].is_async)
        if not isinstance(values, Mapping):
            raise UsageError(f"a batch loader returns a mapping of keys to values, got {type(values).__qualname__}")
    except BaseException as error:
        for flight, request in zip(flights, requests, strict=True):
            fail(state, flight, error, request)
        if not isinstance(error, Exception):
            raise
    else:
        for flight, request in zip(flights, requests, strict=True):
            if request.key in values:
                land(state, flight, values[request.key], request)
            else:
                fail(state, flight, NotFound(f"the batch loader returned nothing for {request.key!r}"), request)
    finally:
        if first.gate is not None:
            with state.lock:
                first.gate.leave()
