"""A simulated shared tier, and the network before it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from credenza.errors import TierError
from credenza.flight import Signal
from credenza.runtime.simulation import Simulation
from credenza.shared.shared import FENCE_MS
from credenza.tiers import records
from credenza.tiers.base import (
    Announce,
    Clear,
    Drop,
    Fence,
    Lease,
    MarkTag,
    Operation,
    Put,
    Reply,
)
from credenza.tiers.shelf import Shelf

from .config import Config
from .history import MILLISECOND, SECOND, Call, History, Write
from .words import name_text, operation_text, record_text, reply_text

if TYPE_CHECKING:
    from .process import Process

CALL: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)
"""Whose call the running code belongs to, loaders included."""

NETWORK = "network"
NAMESPACE = "n"

_LATEST_NS = 3 * SECOND


class Batch:
    """Operations on their way, and back."""

    def __init__(self, line: Line, operations: Sequence[Operation]) -> None:
        self.line = line
        self.operations = operations
        self.answered = Signal()
        self.call = CALL.get()
        self._replies: list[Reply] | TierError = []

    def replies(self) -> list[Reply]:
        """Return the replies; who gets them knows that its fence is up."""
        if isinstance(self._replies, TierError):
            raise self._replies
        call = self.call
        if isinstance(call, Write) and not call.is_announced and isinstance(self.operations[-1], Announce):
            fences = any(
                isinstance(each, Fence) or (isinstance(each, MarkTag) and each.joins) for each in self.operations
            )
            failed = any(isinstance(reply, TierError) for reply in self._replies)
            call.is_announced = fences and not failed
        return self._replies

    def answer(self, replies: list[Reply] | TierError) -> None:
        self._replies = replies
        self.answered.set()


class Line:
    """What one process knows as its tier."""

    namespace = NAMESPACE
    max_bytes = 1_000_000

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.number = number

    def send(self, operations: Sequence[Operation]) -> Batch:
        """Send a batch, and do not wait."""
        batch = Batch(self, operations)
        for operation in operations:
            if isinstance(operation, Fence):
                self.network.writers.setdefault(operation.writer, batch.call)
            elif isinstance(operation, MarkTag) and operation.joins:
                self.network.writers.setdefault(operation.joins, batch.call)
        if self.network.is_closed:
            batch.answer(TierError("the simulation is over"))
        else:
            name = f"tier for P{self.number}"
            self.network.simulation.begin_task(self.network.deliver(batch), name=name, group=NETWORK)
        return batch

    def perform(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        raise AssertionError("a simulated tier is asked by simulated runtimes only")

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Reply]:
        raise AssertionError("a simulated tier is asked by simulated runtimes only")

    def watch(self, after: int, timeout_ns: int) -> None:
        raise AssertionError("a simulated keeper watches by itself")

    def forget_parent(self) -> None: ...

    def close(self) -> None: ...

    async def close_async(self) -> None: ...


class Network:
    """The one tier of a world, and all lines to it.

    Attributes:
        shelf: what the tier keeps.
        cut: the numbers of the processes whose line is cut.
        is_calm: nothing goes wrong any more.
        writers: who is behind a token in a fence.
    """

    def __init__(self, simulation: Simulation, history: History, config: Config) -> None:
        self.simulation = simulation
        self.shelf = Shelf(log_entries=config.log_entries)
        self.processes: list[Process] = []
        self.cut: set[int] = set()
        self.is_calm = self.is_closed = False
        self.jumped_ms = 0
        self.writers: dict[bytes, Call | None] = {}
        self._history = history
        self._config = config
        self._rng = simulation.random
        self._rate = config.rates[-1]
        self._news_rate = self._rng.choice((0.0, 0.8, 1.0))

    @property
    def now_ms(self) -> int:
        """The tier's clock."""
        return 1_000_000 + int(self.simulation.now_ns * self._rate) // MILLISECOND + self.jumped_ms

    def some_time(self, most: float) -> int:
        """Return how long a message takes: short delays are as likely as long ones."""
        if self._rng.random() < 0.3 or not most or self.is_calm:
            return 0
        return int(most * SECOND * 10 ** -self._rng.uniform(0, 2.5))

    # Messages ---------------------------------------------------------------------------------------------------------

    async def deliver(self, batch: Batch) -> None:
        """Carry a batch to the tier, perform it, and carry the replies back; as far as nothing goes wrong."""
        number = batch.line.number
        await self._travel()
        if number in self.cut:
            self._refuse(batch, "is cut off")
            return
        if self._goes_wrong(self._config.lost / 2):
            self._history.fault("lost", "on the way there:", *map(_text_of, batch.operations))
            return
        if self._goes_wrong(self._config.late):
            self._history.fault("late:", *map(_text_of, batch.operations))
            await self.simulation.suspend(self.simulation.now_ns + self._rng.randrange(_LATEST_NS))
        replies = await self._perform(batch)
        if self._goes_wrong(self._config.twice):
            self._history.fault("twice:", *map(_text_of, batch.operations))
            await self._travel()
            replies = await self._perform(batch)
        await self._travel()
        if number in self.cut or self._goes_wrong(self._config.lost):
            self._history.fault("lost", "on the way back")
            if self._rng.random() < 0.3:
                self._refuse(batch, "hung up")
            return
        batch.answer(replies)

    async def _travel(self) -> None:
        time_ns = self.some_time(self._config.slow)
        if time_ns:
            await self.simulation.suspend(self.simulation.now_ns + time_ns)

    def _refuse(self, batch: Batch, why: str) -> None:
        if self._rng.random() < 0.7:
            batch.answer(TierError(f"the simulated tier {why}"))

    def _goes_wrong(self, rate: float) -> bool:
        return bool(rate) and not self.is_calm and self._rng.random() < rate

    async def _perform(self, batch: Batch) -> list[Reply]:
        replies: list[Reply] = []
        for operation in batch.operations:
            if replies and self._rng.random() < 0.15:
                await self._travel()
            replies.append(self._perform_one(operation))
        return replies

    def _perform_one(self, operation: Operation) -> Reply:
        if isinstance(operation, self._config.refusable) and self._goes_wrong(self._config.refused):
            self._history.fault("refused", operation_text(operation))
            return TierError("the simulated tier is full")
        reply = self.shelf.apply(operation, self.now_ms)
        self._history.note(_text_of(operation), "->", _reply_of(operation, reply))
        self._note_fence(operation, reply)
        if isinstance(operation, Announce):
            for process in self.processes:
                if self._rng.random() < self._news_rate:
                    process.wake_keeper()
        self._note_upsets(operation)
        return reply

    def forget_all(self) -> None:
        """Lose everything, fences too."""
        self.shelf.forget_all()
        for call in self.writers.values():
            if isinstance(call, Write):
                call.fenced_ms = None

    # What the checker has to know -------------------------------------------------------------------------------------

    def _note_upsets(self, operation: Operation) -> None:
        """Note what may end a lease without its load having ended."""
        history = self._history
        if isinstance(operation, (Fence, Drop, Clear, Put)) or (isinstance(operation, Lease) and operation.forced):
            history.upset(operation.name.removeprefix(b"n:").decode())
        elif isinstance(operation, MarkTag) or (isinstance(operation, Announce) and operation.clears):
            history.upset(None)

    def _note_fence(self, operation: Operation, reply: Reply) -> None:
        """Note that a write's fence is up from now on, for as long as a fence lives."""
        if isinstance(operation, Fence):
            writer = b"" if operation.renews and not reply else operation.writer
        else:
            writer = operation.joins if isinstance(operation, MarkTag) else b""
        call = self.writers.get(writer)
        if isinstance(call, Write):
            call.fenced_ms = self.now_ms

    def is_due(self, write: Write) -> bool:
        """Tell whether the write's fence is too young to be gone."""
        return write.fenced_ms is not None and self.now_ms - write.fenced_ms < FENCE_MS

    def is_covered(self, write: Write, key: str) -> bool:
        """Tell whether the write's fence is up, over the key or over one of its tags."""
        return any(self.writers.get(token) is write for token in self._behind_fences(key))

    def is_fenced(self, key: str) -> bool:
        """Tell whether any fence is."""
        return any(True for _ in self._behind_fences(key))

    def _behind_fences(self, key: str) -> Iterator[bytes]:
        for name in (b"n:" + key.encode(), b"n#all", b"n#t" + key.encode()):
            record = self.shelf.record(name, self.now_ms)
            packed = record[2:] if record[:1] == b"B" else record[17:] if record[:1] == b"T" else b""
            for token, _ in records._writers(packed, self.now_ms):
                yield token

    def leftovers(self) -> list[str]:
        """Return the leases and the fences that there are."""
        now_ms = self.now_ms
        held = {name: self.shelf.record(name, now_ms) for name in list(self.shelf.held)}
        left = [
            f"{name_text(name)} {record_text(name, record)}"
            for name, record in held.items()
            if record[:1] in (b"L", b"B")
        ]
        return left + [f"a fence over {key}" for key in self._history.commits if self.is_fenced(key)]


def _text_of(operation: Operation) -> Callable[[], str]:
    return lambda: operation_text(operation)


def _reply_of(operation: Operation, reply: Reply) -> Callable[[], Any]:
    return lambda: reply_text(operation, reply)
