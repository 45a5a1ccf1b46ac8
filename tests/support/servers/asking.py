"""A tier asked in either colour."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from credenza.tiers.base import Operation, Reply
from credenza.tiers.redis import RedisTier

SECOND_NS = 1_000_000_000
PATIENCE_NS = 8 * SECOND_NS
SHORTLY_NS = SECOND_NS // 5


class Asker:
    """Asks a tier from this thread, or from an event loop of its own."""

    def __init__(self, tier: RedisTier, colour: str) -> None:
        self.tier = tier
        self._runner = asyncio.Runner() if colour == "async" else None

    def __call__(self, *operations: Operation, timeout_ns: int = PATIENCE_NS) -> list[Reply]:
        if self._runner is None:
            return self.tier.perform(operations, timeout_ns)
        return self._runner.run(self.tier.perform_async(operations, timeout_ns))

    def shortly(self, *operations: Operation) -> list[Reply]:
        """Ask, and wait for a moment only."""
        return self(*operations, timeout_ns=SHORTLY_NS)

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self.tier.close_async())
        self.tier.close()


Asking = Callable[..., Asker]


@contextmanager
def askers(colour: str) -> Iterator[Asking]:
    """A function that makes askers of tiers, all of which are closed with the block."""
    made: list[Asker] = []

    def ask(target: Any, **options: Any) -> Asker:
        made.append(Asker(RedisTier(target, **options), colour))
        return made[-1]

    try:
        yield ask
    finally:
        for asker in made:
            asker.close()
