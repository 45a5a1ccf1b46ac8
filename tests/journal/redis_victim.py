"""A process that writes to a journal on Redis and delivers until killed: `python -m tests.journal.redis_victim FOLDER URL NAME`.

As in `victim`: what a receipt acknowledged goes to a file of the process, `acknowledged-NAME`, with growing numbers for keys
of its own; what is delivered to the file `source`, which all processes append to. Before each batch it makes sure of its
lease, as write-behind does.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from tests.journal.victim import numbers_in

from credenza.errors import JournalError
from credenza.journal.base import Entry
from credenza.journal.redis import RedisJournal

THREADS, KEYS = 3, 5


def main(folder: Path, url: str, name: str) -> None:
    """Write and deliver until killed."""
    journal = RedisJournal(url, lease=0.5)
    said = os.open(folder / f"acknowledged-{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    start = max(numbers_in(folder / f"acknowledged-{name}").values(), default=0) + 1_000
    threads = [
        threading.Thread(target=write, args=(journal, said, f"{name}.{number}", start), daemon=True)
        for number in range(THREADS)
    ]
    threads.append(threading.Thread(target=deliver, args=(journal, folder), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write(journal: RedisJournal, said: int, name: str, number: int) -> None:
    """Put, wait for the receipt, and say so."""
    while True:
        number += 1
        key = f"{name}-{number % KEYS}"
        receipt = journal.append([Entry(key.encode(), str(number).encode())])
        assert receipt is not None
        kept = threading.Event()
        receipt.signal.listen(kept, kept.set)
        kept.wait()
        assert receipt.error is None, receipt.error
        os.write(said, f"{key} {number}\n".encode())


def deliver(journal: RedisJournal, folder: Path) -> None:
    """Deliver batches; some of what was delivered is not struck off the first time, some waits behind the others."""
    source = os.open(folder / "source", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        journal.wait(1_000_000_000)
        taken = journal.take(7)
        try:
            journal.identity_of(taken)
            for one in taken:
                if one.version % 13 == 0 and not one.failures:
                    journal.postpone(one, delay_ms=1, failures=1, error="refused")
                    continue
                os.write(source, b"%s %s\n" % (one.key, one.value or b""))
            if taken and taken[0].version % 5:
                journal.settle([one for one in taken if one.version % 13 or one.failures])
        except JournalError:
            continue  # somebody else has taken over


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
