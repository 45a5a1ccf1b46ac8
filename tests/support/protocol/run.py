"""Runs seeds and judges them."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from credenza.runtime.actors import Carriers

from .rules import violations
from .world import World

_SEEDS_PER_COLLECTION = 100

COMMAND = "python -m tests.support.protocol"


@dataclass(frozen=True, slots=True)
class Report:
    """What a seed came to: its interleaving, and what is wrong with it."""

    seed: int
    situation: str | None
    about: str
    history: str
    violations: tuple[str, ...]

    def __str__(self) -> str:
        wrong = "\n".join(self.violations) or "no promise is broken"
        under = f" --under {self.situation!r}" if self.situation else ""
        again = f"{COMMAND} {self.seed}{under}"
        return f"seed {self.seed}: {self.about}\n\n{self.history}\n\n{wrong}\n\nagain: {again}"


@contextlib.contextmanager
def carriers() -> Iterator[Carriers]:
    """Lend threads to simulations, and end them. The cache's warnings are not printed meanwhile."""
    log = logging.getLogger("credenza")
    level, lent = log.level, Carriers()
    log.setLevel(logging.CRITICAL)
    try:
        yield lent
    finally:
        log.setLevel(level)
        lent.close()


def run_one(seed: int, lent: Carriers, situation: str | None = None) -> Report:
    """Run one seed and tell all about it."""
    return _report(seed, situation, *_judge(seed, lent, situation))


def failing(seeds: Iterable[int], lent: Carriers, situation: str | None = None) -> Iterator[Report]:
    """Run seeds, under a situation if one is named, and yield those that break a promise."""
    for count, seed in enumerate(seeds):
        if not count % _SEEDS_PER_COLLECTION:
            gc.collect()  # every world is a circle, and old before it is over
        world, broken = _judge(seed, lent, situation)
        if broken:
            yield _report(seed, situation, world, broken)


def _report(seed: int, situation: str | None, world: World, broken: tuple[str, ...]) -> Report:
    return Report(seed, situation, str(world.config), world.history.print(), broken)


def _judge(seed: int, lent: Carriers, situation: str | None) -> tuple[World, tuple[str, ...]]:
    world = World(seed, lent, situation)
    return world, tuple(violations(world.run(), world.config))
