"""A process that acknowledges edits before they are kept, for a test that is to find that out."""

import queue
import threading

from credenza.demo.behind import Edits
from credenza.demo.people import Person

_waiting: "queue.SimpleQueue[tuple[Edits, Person]]" = queue.SimpleQueue()


def forget_then_tell(edits: Edits, person: Person) -> None:
    """Return at once; a thread takes the edit to the journal when it gets to it."""
    if not _is_running.is_set():
        _is_running.set()
        threading.Thread(target=_keep, daemon=True).start()
    _waiting.put((edits, person))


_is_running = threading.Event()


def _keep() -> None:
    while True:
        edits, person = _waiting.get()
        edits.write_now(person)
