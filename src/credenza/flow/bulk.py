"""Reading many keys: one load for all that nobody is loading yet."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any

from ..errors import NotFound, UsageError
from ..flight import Flight, loading
from ..runtime.base import Runtime, Waiter, block
from ..state import State
from ..steps.approach import approach
from ..steps.landing import fail, land
from ..steps.leaving import leave
from ..steps.looks import begin_looks
from ..steps.request import AGAIN, JOIN, LEAD, REFRESH, WAIT, Request
from .exchange import tier_of
from .lease import SharedLoad
from .look import look_up
from .read import lead, outcome, serve, start_behind
from .turns import drop_awaitable, take_turn

BatchCall = Callable[[Sequence[Any]], Any]  # Any: keys and, in the async face, an awaitable of the mapping


async def read_many(
    state: State, run: Runtime, requests: Sequence[Request], loader: BatchCall
) -> dict[Hashable, Any]:  # Any: values of any type
    """Return the values of all requests' keys that the source has, in their order.

    The loader is asked once for the keys that are neither at hand nor being loaded; for the rest the flights of others
    are joined (L9). One key's error is the call's error; what was loaded for the others is kept.
    """
    timeout_ns = requests[0].timeout_ns if requests else None
    ends_ns = None if timeout_ns is None else state.clock_ns() + timeout_ns
    found: dict[Hashable, Any] = {}
    pending = list(requests)
    if state.shared is not None and requests and requests[0].keeps:
        await _look_first(state, run, pending, timeout_ns)
    while pending:
        boarded = _board(state, run, pending, loader, found)
        pending = []
        try:
            while boarded:
                request = boarded.pop(0)
                try:
                    value = await outcome(state, run, request, ends_ns)
                except NotFound:
                    continue
                if value is AGAIN:
                    pending.append(request)
                else:
                    found[request.key] = value
        except BaseException:
            _leave_all(state, boarded)
            raise
    return {request.key: found[request.key] for request in requests if request.key in found}


async def _look_first(state: State, run: Runtime, requests: Sequence[Request], timeout_ns: int | None) -> None:
    """Look up in the shared tier, together, what is neither at hand nor being loaded."""
    tier_ns = tier_of(state).timeout_ns
    looking = begin_looks(state, requests)
    for request in requests:
        request.tier_ns = tier_ns if timeout_ns is None else min(tier_ns, timeout_ns)
    if looking:
        await look_up(state, run, looking)


def _load(state: State, requests: Sequence[Request], loader: BatchCall) -> BatchLoad | SharedLoad:
    is_local = state.shared is None or not requests[0].keeps
    return BatchLoad(requests, loader) if is_local else SharedLoad(requests, loader)


def _board(
    state: State, run: Runtime, pending: Sequence[Request], loader: BatchCall, found: dict[Hashable, Any]
) -> list[Request]:
    """Serve what is at hand, begin one load for what nobody loads, and return what is to be waited for."""
    with state.lock:
        for request in pending:
            request.move = approach(state, request)
        leading = _crew([request for request in pending if request.move is LEAD])
        behind = _crew([request for request in pending if request.move is REFRESH])
    boarded = [request for request in pending if request.move in (LEAD, JOIN, WAIT)]
    try:
        if behind:
            start_behind(state, run, _load(state, behind, loader), behind)
        if leading:
            lead(state, run, _load(state, leading, loader), leading)
        for request in pending:
            if request not in boarded:
                with contextlib.suppress(NotFound):
                    found[request.key] = serve(state, request)
    except BaseException:
        _leave_all(state, boarded)
        raise
    return boarded


def _leave_all(state: State, boarded: Sequence[Request]) -> None:
    """Stop waiting for what a call that fails has boarded."""
    for request in boarded:
        if request.move is not WAIT:
            leave(state, request.flight)


def _crew(requests: list[Request]) -> list[Request]:
    """Let the flights of the requests know that they are one load."""
    flights = tuple(request.flight for request in requests)
    for flight in flights:
        flight.crew = flights
    return requests


class BatchLoad:
    """How the load of many keys runs, in either colour. Keys that the loader has no value for end with `NotFound`.

    Args:
        requests: what is asked for; their flights are one crew.
        loader: takes the list of keys.
    """

    __slots__ = ("_loader", "_requests")

    def __init__(self, requests: Sequence[Request], loader: BatchCall) -> None:
        self._requests = requests
        self._loader = loader

    def run_plain(self, state: State, run: Waiter, flight: Flight, request: Request) -> None:
        """Call a plain loader in this thread and end the flights; `run` is one that blocks."""
        loading.set(flight)
        try:
            if request.policy.max_concurrent_loads is not None and not block(take_turn(state, run, flight, request)):
                return
            result = self._loader(self._keys())
            if run.takes_over(state, self, flight, request, result):
                return
            self._land(state, _mapping(result))
        except BaseException as error:
            self._fail(state, error)
        finally:
            if flight.gate is not None and not request.is_async:
                flight.gate.leave(flight)

    def resume(self, request: Request, awaitable: Awaitable[Any]) -> None:  # Any: what the loader brings in the end
        """Let `run_async` await what the loader has returned, instead of calling it."""
        request.awaitable = awaitable
        self._loader = lambda keys: awaitable

    async def run_async(self, state: State, run: Runtime, flight: Flight, request: Request) -> None:
        """Await a loader and end the flights."""
        try:
            if request.policy.max_concurrent_loads is not None and not await take_turn(state, run, flight, request):
                drop_awaitable(request)
                return
            self._land(state, _mapping(await run.call(flight, self._loader, self._keys())))
        except BaseException as error:
            self._fail(state, error)
        finally:
            if flight.gate is not None:
                flight.gate.leave(flight)

    def _keys(self) -> list[Hashable]:
        return [request.key for request in self._requests]

    def _land(self, state: State, values: Mapping[Any, Any]) -> None:  # Any: keys and values of any type
        found = {request.key: values[request.key] for request in self._requests if request.key in values}
        for request in self._requests:
            if request.key in found:
                land(state, request.flight, found[request.key], request)
            else:
                missing = NotFound(f"the batch loader returned nothing for {request.key!r}").about(request.key)
                fail(state, request.flight, missing, request)

    def _fail(self, state: State, error: BaseException) -> None:
        for request in self._requests:
            fail(state, request.flight, error, request)
        if not isinstance(error, Exception):
            raise error


def _mapping(values: object) -> Mapping[Any, Any]:  # Any: keys and values of any type
    if not isinstance(values, Mapping):
        raise UsageError(f"a batch loader returns a mapping of keys to values, got {type(values).__qualname__}")
    return values
