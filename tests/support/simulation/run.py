"""Runs seeds and judges them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from credenza.runtime.actors import Carriers

from .rules import violations
from .world import World

COMMAND = "python -m tests.support.simulation"


@dataclass(frozen=True, slots=True)
class Report:
    """What a seed came to: its interleaving, and what is wrong with it."""

    seed: int
    about: str
    history: str
    violations: tuple[str, ...]

    def __str__(self) -> str:
        wrong = "\n".join(self.violations) or "no rule is broken"
        return f"seed {self.seed}: {self.about}\n\n{self.history}\n\n{wrong}\n\nagain: {COMMAND} {self.seed}"


@contextlib.contextmanager
def carriers() -> Iterator[Carriers]:
    """Lend threads to simulations, and end them."""
    lent = Carriers()
    try:
        yield lent
    finally:
        lent.close()


def run_one(seed: int, lent: Carriers) -> Report:
    """Run one seed and tell all about it."""
    world, broken = _judge(seed, lent)
    return Report(seed, str(world.config), world.history.print(), broken)


def failing(seeds: Iterable[int], lent: Carriers) -> Iterator[Report]:
    """Run seeds and yield those that break a rule."""
    for seed in seeds:
        world, broken = _judge(seed, lent)
        if broken:
            yield Report(seed, str(world.config), world.history.print(), broken)


def _judge(seed: int, lent: Carriers) -> tuple[World, tuple[str, ...]]:
    world = World(seed, lent)
    history = world.run()
    return world, tuple(violations(history, world.config, world.function_keys))
