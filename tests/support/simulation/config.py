"""What one seed explores."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

TAGS = ("s", "t")


@dataclass
class Config:
    """The options of the cache, of the clients and of the faults of one simulation."""

    seed: int
    colours: str
    clients: int
    calls: int
    keys: tuple[str, ...]
    preempt_rate: float
    lag_rate: float
    fault_rate: float
    load_fault_rate: float
    load_errors: float
    hang_rate: float
    maxsize: int
    eviction: str
    uses_functions: bool
    is_through: bool
    nests: bool
    policy: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        policy = ", ".join(f"{name}={value}" for name, value in self.policy.items())
        return f"Cache(maxsize={self.maxsize}, eviction={self.eviction!r}, {policy}), {self.colours}, preempt {self.preempt_rate}"


WEIGHTS = {
    "load": 30, "fetch": 12, "get": 8, "many": 10, "set": 7, "invalidate": 8, "invalidate_tags": 6, "clear": 2,
    "writing": 9, "write_then_invalidate": 7, "put": 8, "delete": 2,
    "call": 14, "refresh": 8, "forget": 4, "forget_all": 2,
}  # fmt: skip
FUNCTION_ONLY = ("call", "refresh", "forget", "forget_all")


def make_config(seed: int) -> Config:
    """Return what `seed` stands for."""
    rng = random.Random(f"config {seed}")
    config = Config(
        seed=seed,
        colours=rng.choice(("tasks", "tasks", "tasks", "threads", "mixed")),
        clients=rng.choice((2, 3, 3, 4)),
        calls=rng.choice((2, 3, 4)),
        keys=("a", "b", "c")[: rng.choice((1, 2, 2, 3))],
        preempt_rate=rng.choice((0.0, 0.1, 0.3)),
        lag_rate=rng.choice((0.0, 0.1)),
        fault_rate=rng.choice((0.0, 0.05, 0.15)),
        load_fault_rate=rng.choice((0.0, 0.0, 0.05)),
        load_errors=rng.choice((0.0, 0.15, 0.4)),
        hang_rate=rng.choice((0.0, 0.0, 0.1)),
        maxsize=rng.choice((1, 2, 10)),
        eviction=rng.choice(("s3fifo", "s3fifo", "lru")),
        uses_functions=rng.random() < 0.4,
        is_through=rng.random() < 0.7,
        nests=rng.random() < 0.25,
    )
    config.policy = _policy(rng)
    config.weights = {
        kind: weight * rng.choice((0, 1, 1, 3))
        for kind, weight in WEIGHTS.items()
        if config.uses_functions or kind not in FUNCTION_ONLY
    }
    config.weights["load"] = config.weights["load"] or 30
    if rng.random() < 0.25:
        _look_at_stale_values(config, rng)
    return config


def _look_at_stale_values(config: Config, rng: random.Random) -> None:
    """Let the seed be about values that become stale: few keys, many reads, short ttls and loads that fail."""
    config.keys = config.keys[:1]
    config.calls += 3
    config.weights = {"load": 40, "fetch": 20, "many": 5, "write_then_invalidate": rng.choice((0, 2))}
    config.load_errors, config.maxsize = rng.choice((0.15, 0.5)), 10
    config.policy.pop("idle_ttl", None)
    config.policy.update(ttl=2, error_backoff=rng.choice((2, 4)), stale_if_error=rng.choice((0, 4, 10)))
    config.policy["stale_while_revalidate"] = rng.choice((0, 3, 10)) if config.policy["stale_if_error"] else 10
    if rng.random() < 0.5:
        config.policy.pop("load_timeout", None)
        config.policy["soft_timeout"], config.hang_rate = rng.choice((0.5, 1)), 0.3


def _policy(rng: random.Random) -> dict[str, Any]:
    policy: dict[str, Any] = {"ttl": rng.choice((2, 4, 10, 60)), "jitter": rng.choice((0.0, 0.0, 0.5))}

    def sometimes(name: str, *values: Any, rate: float = 0.25) -> None:
        if rng.random() < rate:
            policy[name] = rng.choice(values)

    sometimes("stale_while_revalidate", 2, 6)
    sometimes("stale_if_error", 2, 6)
    sometimes("negative_ttl", 1, 4)
    sometimes("load_timeout", 2, 5, rate=0.2)
    sometimes("max_concurrent_loads", 1, 2)
    sometimes("idle_ttl", 2, 5, rate=0.15)
    sometimes("early_refresh", 1.0, 3.0, rate=0.15)
    if "stale_while_revalidate" in policy or "stale_if_error" in policy:
        sometimes("soft_timeout", 0.5, 1, rate=0.4)
        policy["error_backoff"] = rng.choice((0.5, 2, 4))
    return policy
