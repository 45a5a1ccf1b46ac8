"""A process that writes and delivers until it is killed: `python -m tests.journal.victim FOLDER DURABILITY WHEN`.

Each writing thread has keys of its own, with growing numbers as values. What a receipt acknowledged goes to the file
`acknowledged`, what is delivered to the file `source`: both are appended to, one line per write, which a killed process leaves
behind as they are. WHEN is "after", or "before" for a journal that acknowledges before it commits.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from credenza.journal.base import Entry
from credenza.journal.sqlite import SqliteJournal
from credenza.journal.sqlite.commits import Commits
from credenza.journal.sqlite.jobs import Job, Put

THREADS, KEYS = 6, 5


def main(folder: Path, durability: Any, when: str) -> None:
    """Write until killed."""
    if when == "before":
        acknowledge_early()
    journal = SqliteJournal(folder / "the.journal", durability=durability)
    start = max(numbers_in(folder / "acknowledged").values(), default=0) + 1_000_000
    threads = [
        threading.Thread(target=write, args=(journal, folder, name, start), daemon=True) for name in range(THREADS)
    ]
    threads.append(threading.Thread(target=deliver, args=(journal, folder), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write(journal: SqliteJournal, folder: Path, name: int, number: int) -> None:
    """Put, wait for the receipt, and say so."""
    said = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        number += 1
        key = f"{name}-{number % KEYS}"
        receipt = journal.append([Entry(key.encode(), str(number).encode())])
        assert receipt is not None
        kept = threading.Event()
        receipt.signal.listen(kept, kept.set)
        kept.wait()
        assert receipt.error is None
        os.write(said, f"{key} {number}\n".encode())
        if number % 1000 == 20 and name == 0:
            os.write(sys.stdout.fileno(), b"busy\n")


def deliver(journal: SqliteJournal, folder: Path) -> None:
    """Deliver batches; some of what was delivered is not struck off the first time, some waits behind the others."""
    source = os.open(folder / "source", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        journal.wait(1_000_000_000)
        taken = journal.take(7)
        for one in taken:
            if one.version % 13 == 0 and not one.failures:
                journal.postpone(one, delay_ms=1, failures=1, error="refused")
                continue
            os.write(source, b"%s %s\n" % (one.key, one.value or b""))
        if taken and taken[0].version % 5:
            journal.settle([one for one in taken if one.version % 13 or one.failures])


def acknowledge_early() -> None:
    """Let receipts be set before the commit, as a journal must not."""
    commit = Commits.commit

    def early(self: Commits, group: list[Job]) -> None:
        for job in group:
            if isinstance(job, Put):
                job.receipt.signal.set()
        commit(self, group)

    Commits.commit = early  # type: ignore[method-assign]


def numbers_in(path: Path) -> dict[str, int]:
    """Return the last number of each key; the last line may not be complete."""
    numbers: dict[str, int] = {}
    if path.exists():
        for line in path.read_text("ascii").split("\n")[:-1]:
            key, number = line.split()
            numbers[key] = int(number)
    return numbers


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
