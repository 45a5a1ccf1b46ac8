"""What is run: which broken or unbroken writer, with which orders, and when it is killed."""

from __future__ import annotations

import dataclasses
import json
import random
from dataclasses import dataclass
from typing import Final

THREADS: Final = 8
SHARED_KEYS: Final = 8
"""Keys that all threads write, so that only the order of writes that do not overlap is known."""

MOMENTS: Final = ("start", "load", "delivery", "close")
STEPS: Final = ("before commit", "after commit")
_LATEST: Final = {"start": 0.06, "load": 0.3, "close": 0.04}
_MOST_BATCHES: Final = 6


@dataclass(frozen=True, slots=True)
class Arm:
    """One run over a journal and a source of its own.

    Attributes:
        name: for the report.
        sabotage: what is broken on purpose; the ledger has to find it.
        exactly_once: the source takes batches with `apply`, and keeps the last place.
        finds: where a control is to show: an attribute of the verdict.
        moments: when the writer is killed.
    """

    name: str
    sabotage: str = ""
    exactly_once: bool = False
    finds: str = ""
    moments: tuple[str, ...] = MOMENTS

    @property
    def is_control(self) -> bool:
        return bool(self.sabotage)

    @property
    def delivery(self) -> str:
        """What the source asks for."""
        return "exactly once" if self.exactly_once else "at least once"


AT_LEAST_ONCE: Final = Arm("store_many, at least once")
EXACTLY_ONCE: Final = Arm("apply, exactly once", exactly_once=True)
ARMS: Final = (AT_LEAST_ONCE, EXACTLY_ONCE)

CONTROLS: Final = (
    Arm("control: acknowledged before the journal's commit", "early", finds="lost", moments=("load",)),
    Arm("control: settled before the source's commit", "hasty", finds="lost", moments=("delivery",)),
    Arm("control: a newer write dropped for a pending one", "drops", finds="lost", moments=("load",)),
    Arm("control: a start that forgets the journal", "forgets", finds="lost", moments=("load",)),
    Arm("control: an old batch delivered again", "repeats", finds="backwards", moments=("load",)),
    Arm(
        "control: places that the source does not keep",
        "placeless",
        exactly_once=True,
        finds="twice",
        moments=("delivery",),
    ),
)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a writer process is told. Durations are in seconds.

    Attributes:
        journal: a path or a URL.
        source: a path or a URL.
        first: its numbers begin here, above those of all writers before.
        keys: how many keys each thread has to itself.
        lasts: so long it writes before it closes; None until it is told.
        deletes: how many of its writes delete.
        drains: it writes nothing, has the journal delivered, and closes.
        dies_at: one of `STEPS` of the delivery, where it kills itself, from the `dies_in`-th batch on.
        trouble: how probable it is that the source raises, before the commit of a batch or after it.
        dawdles: the longest pause of the source in a transaction.
    """

    journal: str
    source: str
    first: int
    seed: int
    keys: int = 40
    lasts: float | None = None
    drains: bool = False
    deletes: float = 0.05
    sabotage: str = ""
    exactly_once: bool = False
    durability: str = "disk"
    max_delay: float = 0.01
    batch_size: int = 50
    max_pending: int = 100_000
    when_full: str = "block"
    dies_at: str = ""
    dies_in: int = 0
    trouble: float = 0.0
    dawdles: float = 0.0

    @property
    def all_keys(self) -> int:
        """How many keys there are; the shared ones are the last."""
        return THREADS * self.keys + SHARED_KEYS

    def as_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Orders:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Moment:
    """When a writer dies.

    Attributes:
        kind: one of `MOMENTS`.
        delay: seconds after the writer has come so far; of no use where it kills itself.
    """

    kind: str
    delay: float


def moment(chosen: random.Random, kinds: tuple[str, ...]) -> Moment:
    """Draw a moment."""
    kind = chosen.choice(kinds)
    return Moment(kind, chosen.uniform(0, _LATEST.get(kind, 0)))


def orders_until(moment: Moment, orders: Orders, chosen: random.Random) -> Orders:
    """Return the orders of a writer that is to die at a moment."""
    if moment.kind == "delivery":
        dies_in = chosen.randint(1, _MOST_BATCHES)
        return dataclasses.replace(orders, dies_at=chosen.choice(STEPS), dies_in=dies_in)
    if moment.kind == "close":
        return dataclasses.replace(orders, lasts=chosen.uniform(0, 0.1))
    return orders
