"""What one seed explores."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from credenza.tiers.base import Announce, Fence, Fill, Lease, MarkTag, Put

STATIC_TAG = "all"
"""What every entry carries."""

READS = {"load": 40, "fetch": 8, "get": 6, "many": 6, "record": 10}
FENCED = {"writing": 10, "put": 8}
TAG_FENCED = {"writing_tags": 4}
UNFENCED = {"then_invalidate": 6, "then_invalidate_tags": 3, "then_clear": 1}
SET = {"then_set": 8}
REFRESH = {"function": 8, "refresh": 5}


@dataclass
class Config:
    """The caches, the clients, the network and the faults of one simulation. Times are in seconds, rates are shares.

    Attributes:
        writers: how many of the clients write, among other `calls`; the rest make so many `reads`.
        rates: how fast each process's clock runs; the last one is the tier's.
        think_pace, load_pace, write_pace: how slow clients, loaders and writers are, as factors.
        slow: how long a message takes at most, usually.
        lost, late, twice: how often a reply is lost, a batch is performed after its sender gave up, or performed again.
        refused: how often one operation that writes is refused, of those that may be (`refusable`).
        pauses, kills, cuts, jumps, evictions, losses: faults that may come up.
        log_entries: how many announcements the tier keeps; who lags behind further has a gap.
        has_tags: tags are fenced and invalidated, too; they are on the entries in any case.
    """

    seed: int
    coherence: str
    maxsize: int
    processes: int
    clients: int
    writers: int
    calls: int
    reads: int
    keys: tuple[str, ...]
    threads: float
    staleness: float
    ttl: float
    rates: tuple[float, ...]
    preempt_rate: float
    lag_rate: float
    think_pace: float
    load_pace: float
    write_pace: float
    fault_rate: float
    load_errors: float
    slow: float
    lost: float
    late: float
    twice: float
    refused: float
    pauses: float
    kills: float
    cuts: float
    jumps: float
    evictions: float
    losses: float
    log_entries: int
    has_tags: bool
    is_through: bool
    policy: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    refusable: tuple[type[Any], ...] = (Fill, Put, Lease, Fence, MarkTag, Announce)

    @property
    def has_faults(self) -> bool:
        """Something may keep a process from renewing what it holds."""
        network = self.lost or self.late or self.twice or self.refused
        return bool(network or self.pauses or self.kills or self.cuts or self.jumps or self.losses or self.fault_rate)

    def __str__(self) -> str:
        policy = ", ".join(f"{name}={value}" for name, value in self.policy.items())
        faults = " ".join(
            f"{name}={value}"
            for name in "lost late twice refused pauses kills cuts jumps evictions losses fault_rate load_errors".split()
            if (value := getattr(self, name))
        )
        return (
            f"{self.processes} x Cache(maxsize={self.maxsize}, coherence={self.coherence!r}, {policy}), "
            f"clocks at {self.rates}; faults: {faults or 'none'}"
        )


def make_config(seed: int) -> Config:
    """Return what `seed` stands for."""
    rng = random.Random(f"protocol {seed}")
    coherence = rng.choice(("strict", "strict", "bounded", "bounded", "bounded", "invalidate", "ttl"))
    staleness = rng.choice((1.0, 2.0, 4.0))
    is_calm = rng.random() < 0.3

    def fault(*values: float, rate: float = 0.3) -> float:
        return rng.choice(values) if not is_calm and rng.random() < rate else 0.0

    processes = rng.choice((2, 2, 2, 3))
    clients = rng.choice((2, 3, 3, 4, 5))
    config = Config(
        seed=seed,
        coherence=coherence,
        maxsize=rng.choice((0, 10, 10)),
        processes=processes,
        clients=clients,
        writers=min(clients, rng.choice((1, 1, 2, 2, 3))),
        calls=rng.choice((2, 3, 4, 6)),
        reads=rng.choice((3, 6, 30)),
        keys=("a", "b")[: rng.choice((1, 1, 1, 2))],
        threads=rng.choice((0.0, 0.0, 0.2, 0.5)),
        staleness=staleness,
        ttl=rng.choice((60, 60, 60, 3, 8)),
        rates=tuple(rng.choice((1.0, 1.0, 0.995, 1.005)) for _ in range(processes + 1)),
        preempt_rate=rng.choice((0.0, 0.1, 0.3)),
        lag_rate=rng.choice((0.0, 0.05)),
        think_pace=rng.choice((0.02, 0.3, 1.0)),
        load_pace=rng.choice((0.05, 1.0, 1.0)),
        write_pace=rng.choice((0.05, 0.3, 1.0)),
        fault_rate=fault(0.02, 0.05, rate=0.2),
        load_errors=fault(0.1, 0.3, rate=0.2),
        slow=rng.choice((0.0, 0.005, 0.05, 0.3)),
        lost=fault(0.03, 0.1),
        late=fault(0.03, 0.1),
        twice=fault(0.05, 0.2),
        refused=fault(0.05, 0.2, rate=0.15),
        pauses=fault(0.2, 0.5),
        kills=fault(0.3, rate=0.25),
        cuts=fault(0.2, 0.5),
        jumps=fault(0.2, rate=0.1),
        evictions=fault(0.3, 0.6),
        losses=fault(0.2, rate=0.08),
        log_entries=rng.choice((2, 10_000)),
        has_tags=rng.random() < 0.4,
        is_through=rng.random() < 0.6,
    )
    config.policy = _policy(config, rng)
    config.weights = _weights(config, rng)
    return config


def _policy(config: Config, rng: random.Random) -> dict[str, Any]:
    policy: dict[str, Any] = {"ttl": config.ttl, "jitter": rng.choice((0.0, 0.1)), "max_staleness": config.staleness}
    if config.slow > 0.1:
        policy["tier_timeout"] = 1
    if rng.random() < 0.25:
        policy["on_fence_failure"] = rng.choice(("raise", "owe"))
    if rng.random() < 0.15:
        policy["stale_while_revalidate"] = rng.choice((2, 10))
    if rng.random() < 0.1:
        policy["stale_if_error"] = rng.choice((2, 10))
    if rng.random() < 0.1:
        policy["early_refresh"] = 1.0
    if rng.random() < 0.1:
        policy["load_timeout"] = rng.choice((1, 3))
    return policy


def _weights(config: Config, rng: random.Random) -> dict[str, int]:
    """Return how often each kind of call comes. Where it is not said which kind of writes there is, each seed has one or two."""
    groups: dict[str, int] = {}
    if config.coherence in ("bounded", "strict"):
        kind = rng.choice(("fenced", "fenced", "fenced", "both", "unfenced"))
    else:
        kind = rng.choice(("fenced", "both", "unfenced"))
    if kind != "unfenced":
        groups |= FENCED | (TAG_FENCED if config.has_tags else {})
    if kind != "fenced":
        groups |= UNFENCED
        if not config.has_tags:
            groups.pop("then_invalidate_tags")
    if config.writers == 1 and kind != "fenced" and rng.random() < 0.3:
        groups |= SET
    if rng.random() < 0.2:
        groups |= REFRESH
    return {name: weight * rng.choice((1, 1, 3)) for name, weight in {**READS, **groups}.items()}
