"""What is run: which cache, under which promise, for how long."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

ROWS = 10
NAMESPACE = "chaos"
TTL = 2.0
"""Short enough to be seen, in the run of the level that promises nothing else."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One run of four processes.

    Attributes:
        name: for the report.
        cache: "credenza", or one of the controls: "naive", "unproved", "lowered early", "not waited".
        coherence: the level that is asked for, and that the checker holds the run to.
        memory: with a memory tier.
        is_control: the checker has to find that the promise is broken.
    """

    name: str
    coherence: str
    memory: bool
    cache: str = "credenza"
    is_control: bool = False


ARMS = (
    Arm("strict, with memory", "strict", memory=True),
    Arm("strict, without memory", "strict", memory=False),
    Arm("bounded, with memory", "bounded", memory=True),
    Arm("bounded, without memory", "bounded", memory=False),
    Arm("invalidate, with memory", "invalidate", memory=True),
    Arm("invalidate, without memory", "invalidate", memory=False),
    Arm("ttl, with memory", "ttl", memory=True),
)

CONTROLS = (
    Arm("control: GET, SETEX, and DEL after the commit", "invalidate", memory=False, cache="naive", is_control=True),
    Arm("control: memory without proof", "bounded", memory=True, cache="unproved", is_control=True),
    Arm("control: fence lowered before the commit", "bounded", memory=False, cache="lowered early", is_control=True),
    Arm("control: strict that does not wait", "strict", memory=True, cache="not waited", is_control=True),
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker process is told.

    Attributes:
        path: the file of its history; files beside it take its statistics, and say that it is ready.
        start: a file that appears when all may begin, and holds the moment when they end by themselves, of the monotonic
            clock in nanoseconds.
        kills_itself: writes may kill their own process in the middle.
    """

    arm: Arm
    tier_url: str
    database_url: str
    path: str
    start: str
    max_staleness: float
    seed: int
    kills_itself: bool = True

    def as_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Orders:
        fields = json.loads(text)
        return cls(arm=Arm(**fields.pop("arm")), **fields)
