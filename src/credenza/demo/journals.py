"""Where the journals of write-behind are, and what earlier runs have left in them."""

import contextlib
import glob
import hashlib
import os
import re
from urllib.parse import parse_qs, urlsplit

from credenza import CacheError, attach_journal

from .errors import DemoError
from .settings import Settings, cache_folder

_ON_SERVERS = ("redis", "rediss", "valkey", "unix", "redis+sentinel", "redis+cluster")
_NUMBER = re.compile(r"-(\d+)\.journal")


def is_shared(settings: Settings) -> bool:
    """Tell whether all workers share one journal: they do where they share a server."""
    return urlsplit(settings.cache or "").scheme.lower() in _ON_SERVERS


def journal_of(settings: Settings, worker: int) -> str:
    """Return the path or the URL of a worker's journal: a file of its own beside the database, or the one on the server."""
    if not is_shared(settings):
        return f"{_stem(settings)}-{worker + 1}.journal"
    url = settings.cache or ""
    if "namespace" in parse_qs(urlsplit(url).query):
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}namespace=credenza-demo-{_digest(settings)}"


def journals_left(settings: Settings) -> list[str]:
    """Return the journal files of workers that there are no more, since an earlier run had more of them."""
    if is_shared(settings):
        return []
    files = glob.glob(f"{glob.escape(_stem(settings))}-*.journal")
    numbers = {file: _NUMBER.search(file, len(_stem(settings))) for file in files}
    return sorted(file for file, number in numbers.items() if number and int(number[1]) > settings.workers)


def owed_in(journal: str) -> int:
    """Return how many users have an edit in this journal that the database has not taken.

    Raises:
        DemoError: another process has the journal open.
    """
    try:
        with contextlib.closing(attach_journal(journal)) as attached:
            status = attached.status()
    except CacheError:  # there is none yet; if it is one that cannot be used, opening it says so
        return 0
    if status.owner is not None and "://" not in journal:
        raise DemoError(
            f"the journal {status.location} is in use by {status.owner}; stop the demo that runs over this database, "
            "or name another with --database"
        )
    return status.pending


def _stem(settings: Settings) -> str:
    if settings.database.get_backend_name() == "sqlite":
        return f"{os.path.abspath(settings.database.database or '')}.edits"
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"demo-{_digest(settings)}.edits")


def _digest(settings: Settings) -> str:
    return hashlib.sha256(settings.database.render_as_string(hide_password=True).encode()).hexdigest()[:8]
