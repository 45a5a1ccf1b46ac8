"""Ten thousand edits of a hundred users, and what reaches the database of them."""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .behind import Edits
from .people import Person

EDITS = 10_000
USERS = 100
_THREADS = 32
_FLUSH_SECONDS = 30.0
_NUMBERED = re.compile(r" \d+$")


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of the edits.

    Attributes:
        edits: how many were acknowledged: one statement for each is what write-through needs.
        users: how many users were edited.
        statements: that reached the database, for all edits together.
        rows: that these have written.
        pending: users with an edit that the database has not taken in the end.
        acknowledged_seconds: until the last edit was acknowledged.
        seconds: until the database had them all.
    """

    edits: int
    users: int
    statements: int
    rows: int
    pending: int
    acknowledged_seconds: float
    seconds: float


def burst(
    people: Sequence[Person],
    edits: Edits,
    total: Callable[[str], float],
    *,
    count: int = EDITS,
    goes_on: Callable[[], bool] = lambda: True,
) -> Burst:
    """Give the users one name after another, from several threads; in the end they have their own again.

    Each user is edited by one thread, so that the order is known. Blocks until the database has all.

    Args:
        people: the users, as they are.
        edits: takes the edits.
        total: tells a number of the board, summed over all workers.
        count: how many edits.
        goes_on: asked before each edit; when it says no, the burst is over, and the users keep what names they have.

    Raises:
        JournalError: one was not acknowledged.
    """
    before = {name: total(name) for name in ("edits", "statements", "rows")}
    mine: list[list[tuple[Person, int]]] = [[] for _ in range(_THREADS)]
    for number, person in enumerate(people):
        mine[number % _THREADS].append((person, len(range(number, count, len(people)))))
    started = time.perf_counter()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="burst") as threads:
        for written in [threads.submit(_write, share, edits, goes_on) for share in mine]:
            written.result()
    acknowledged = time.perf_counter()
    report = edits.flush(_FLUSH_SECONDS)
    after = {name: int(total(name) - number) for name, number in before.items()}
    return Burst(
        users=len(people),
        pending=report.pending,
        acknowledged_seconds=acknowledged - started,
        seconds=time.perf_counter() - started,
        **after,
    )


def without_number(name: str) -> str:
    """Return a user's own name, which a burst that was cut off has left with a number."""
    return _NUMBERED.sub("", name)


def _write(share: Sequence[tuple[Person, int]], edits: Edits, goes_on: Callable[[], bool]) -> None:
    """Edit users, each so often; the last edit gives them their own name."""
    for left in reversed(range(max((times for _, times in share), default=0))):
        for person, times in share:
            if not goes_on():
                return
            if left < times:
                name = without_number(person.name)
                edits.write_now(replace(person, name=f"{name} {left}" if left else name))
