"""What an earlier run has left in journals."""

from credenza import CacheError

from .behind import Edits
from .errors import DemoError
from .journals import journal_of, journals_left, owed_in
from .settings import Settings


def recover(settings: Settings) -> int:
    """Return how many users have an edit that was acknowledged and has not reached the database.

    The workers deliver those of their journals. What is in journals of workers that there are no more is delivered here.

    Raises:
        DemoError: a journal is in use, or cannot be used.
    """
    left = journals_left(settings)
    owed = {journal: owed_in(journal) for journal in (*own_journals(settings), *left)}
    for journal in left:
        if owed[journal]:
            try:
                Edits(settings, journal).close()
            except CacheError as exc:
                raise DemoError(f"{exc}; it holds edits of {owed[journal]} users") from exc
    return sum(owed.values())


def own_journals(settings: Settings) -> list[str]:
    """Return the journals of all workers, each once."""
    return sorted({journal_of(settings, worker) for worker in range(settings.workers)})
