"""Loading under a lease: once in all processes, and stored only if no write overtook the load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ..errors import NotFound, UsageError
from ..flight import Flight, Signal, loading
from ..runtime.base import Runtime, Waiter, block
from ..shared.shared import LEASE_MS, MILLISECOND
from ..state import State
from ..steps.appraisal import absence, appraise
from ..steps.landing import fail, settle
from ..steps.leaving import may_begin
from ..steps.request import Request
from .board import Berth, Boarding, Cargo, ask, release, seal, store
from .turns import drop_awaitable, take_turn

_FIRST_PAUSE_NS: Final = 1_000_000
_LONGEST_PAUSE_NS: Final = 25_000_000
_LONGEST_WAIT_NS: Final = 30 * LEASE_MS * MILLISECOND
"""So long a load waits for that of another process, which lives all the while: loads of two processes may wait for each
other, and nobody would know."""


class SharedLoad:
    """The load of one key or of many, in either colour: lease, load, fill.

    Args:
        requests: what is asked for; the flights of several are one crew.
        loader: for many keys, takes the list of them; None for the only request's own.
    """

    __slots__ = ("_loader", "_loading", "_waited_ns", "_waiting")

    def __init__(
        self,
        requests: Sequence[Request],
        loader: Callable[[Sequence[Any]], Any] | None = None,  # Any: keys and, in the async face, an awaitable
    ) -> None:
        self._loader = loader
        self._waiting = [Boarding(request) for request in requests]
        self._loading: list[Boarding] = []
        self._waited_ns = 0

    def run_plain(self, state: State, run: Waiter, flight: Flight, request: Request) -> None:
        """Call a plain loader in this thread and end the flights; `run` is one that blocks."""
        loading.set(flight)
        try:
            while self._waiting:
                block(self._board(state, run))
                if not self._loading or not block(self._take_turn(state, run, flight, request)):
                    return
                result = self._call(state)
                if run.takes_over(state, self, flight, request, result):
                    return
                block(self._land(state, run, result))
        except BaseException as error:
            block(self._fail(state, run, error))
            if not isinstance(error, Exception):
                raise
        finally:
            if flight.gate is not None and not request.is_async:
                flight.gate.leave(flight)

    def resume(self, request: Request, awaitable: Awaitable[Any]) -> None:  # Any: what the loader brings in the end
        """Let `run_async` await what the loader has returned, instead of calling it."""
        request.awaitable = awaitable
        if self._loader is None:
            request.loader = lambda: awaitable
        else:
            self._loader = lambda keys: awaitable

    async def run_async(self, state: State, run: Runtime, flight: Flight, request: Request) -> None:
        """Await a loader and end the flights."""
        try:
            while self._waiting or self._loading:
                if not self._loading:
                    await self._board(state, run)
                if not self._loading or not await self._take_turn(state, run, flight, request):
                    drop_awaitable(request)
                    return
                await self._land(state, run, await run.call(flight, self._call, state))
        except BaseException as error:
            await self._fail(state, run, error)
            if not isinstance(error, Exception):
                raise
        finally:
            if flight.gate is not None:
                flight.gate.leave(flight)

    async def _take_turn(self, state: State, run: Waiter, flight: Flight, request: Request) -> bool:
        """Queue for the source; give the leases back if nobody wants the load any more."""
        if request.policy.max_concurrent_loads is None or await take_turn(state, run, flight, request):
            return True
        await self._give_back(state, run, self._loading)
        return False

    def _call(self, state: State) -> Any:  # Any: what the user's loader returns
        """Call the loader for what is to be loaded now; who has joined until now may have what is never stored."""
        seal(state, self._loading)
        if self._loader is None:
            return self._loading[0].request.loader()
        return self._loader([boarding.request.key for boarding in self._loading])

    # Boarding ---------------------------------------------------------------------------------------------------------

    async def _board(self, state: State, run: Waiter) -> None:
        """Ask for leases until there is something to load, or everything is at hand; leave what is given up."""
        pause_ns = _FIRST_PAUSE_NS
        while self._waiting:
            await ask(state, run, self._waiting)
            ready = [boarding for boarding in self._waiting if boarding.berth in (Berth.LEASED, Berth.BYPASS)]
            self._waiting = [boarding for boarding in self._waiting if boarding.berth is Berth.WAITS]
            if ready or not self._waiting:
                self._loading = ready
                return
            await run.join(Signal(), None, pause_ns)
            if not may_begin(state, self._waiting[0].request.flight):
                self._waiting = []
                return
            self._waited_ns += pause_ns
            pause_ns = min(2 * pause_ns, _LONGEST_PAUSE_NS)
            if self._waited_ns > _LONGEST_WAIT_NS:
                self._loading, self._waiting = self._waiting, []
                return

    # Landing ----------------------------------------------------------------------------------------------------------

    async def _land(self, state: State, run: Waiter, result: Any) -> None:  # Any: what the user's loader returned
        """End the flights with what the loader returned, in the tier, then here."""
        landing, missing = self._loading, []
        values: dict[Boarding, Any] = {}  # Any: values of any type
        if self._loader is None:
            values[landing[0]] = result
        else:
            if not isinstance(result, Mapping):
                kind = type(result).__qualname__
                raise UsageError(f"a batch loader returns a mapping of keys to values, got {kind}")
            values = {each: result[each.request.key] for each in landing if each.request.key in result}
            missing = [each for each in landing if each not in values]
        cargo = []
        for boarding, value in values.items():
            try:
                cargo.append(Cargo(boarding, *appraise(state, boarding.request, value, state.clock_ns())))
            except Exception as error:
                await self._fail_some(state, run, [boarding], error)
        await store(state, run, cargo)
        self._loading = missing  # whatever stops this, what is left is ended
        for item in cargo:
            settle(state, item.boarding.request.flight, item.value, item.entry, item.tags)
        for each in missing:
            key = each.request.key
            await self._fail_some(
                state, run, [each], NotFound(f"the batch loader returned nothing for {key!r}").about(key)
            )
        self._loading = []

    async def _fail(self, state: State, run: Waiter, error: BaseException) -> None:
        failing = [*self._loading, *self._waiting]
        self._loading, self._waiting = [], []
        await self._fail_some(state, run, failing, error)

    async def _fail_some(self, state: State, run: Waiter, boardings: Sequence[Boarding], error: BaseException) -> None:
        """End flights with an error: give their leases back, or store that there is nothing."""
        cargo = []
        for boarding in boardings:
            request = boarding.request
            entry = absence(state, request, error, state.clock_ns()) if isinstance(error, NotFound) else None
            if entry is not None:
                cargo.append(Cargo(boarding, error, entry, request.tags))
        try:
            if isinstance(error, Exception):
                await store(state, run, cargo)
                await self._give_back(state, run, [each for each in boardings if each.token])
        finally:  # whatever stops this, nobody may wait for ever
            for boarding in boardings:
                fail(state, boarding.request.flight, error, boarding.request)
        if not isinstance(error, (Exception, GeneratorExit)):
            await self._give_back(state, run, [each for each in boardings if each.token])

    async def _give_back(self, state: State, run: Waiter, boardings: Sequence[Boarding]) -> None:
        """End leases without a value, so that others need not wait for them to expire."""
        await release(state, run, boardings, drops=False)
