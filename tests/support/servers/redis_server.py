"""One server process in a directory of its own."""

import atexit
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from .binaries import find_server

_SECONDS = 10.0
_running: dict[int, subprocess.Popen[bytes]] = {}


@atexit.register
def _end_all() -> None:
    for process in list(_running.values()):
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on.

    It is below those that the system hands out to clients, and so is the one 10,000 above, for the bus of a cluster.
    """
    while True:
        port = random.randrange(11_000, 22_700)
        try:
            for needed in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", needed))
        except OSError:
            continue
        return port


class RedisServer:
    """A Redis or Valkey server on the loopback interface and on a Unix socket, without persistence.

    Args:
        folder: its directory; a short path, for the sake of the socket's.
        binary: what to run; by default whatever `find_server("redis")` finds.
        options: of its configuration, `{"maxmemory": "2mb"}`.
        mode: further arguments of the command line, such as "--sentinel".
    """

    def __init__(
        self, folder: Path, *, binary: str | None = None, options: Mapping[str, str] | None = None, mode: str = ""
    ) -> None:
        self.folder = folder
        self.binary = binary or find_server("redis")
        self.options = dict(options or {})
        self.mode = mode
        self.port = free_port()
        self.socket_path = folder / f"{self.port}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def url(self) -> str:
        """The address, with the password if there is one."""
        password = self.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was never started"
        return self._process.pid

    def client(self, **options: Any) -> "redis.Redis":
        """Return a client of redis-py; close it, or use it in a `with` block."""
        return redis.Redis.from_url(self.url, **options)

    def start(self) -> None:
        """Start the process, on the same port as before, and return when it answers."""
        assert self._process is None or self._process.poll() is not None, "the server runs already"
        config = self.folder / f"{self.port}.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._settings().items()))
        command = [self.binary, str(config), *self.mode.split()]
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        _running[self._process.pid] = self._process
        self._come_up()

    def stop(self) -> None:
        """End the process, whatever state it is in; does nothing if it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        _running.pop(self._process.pid, None)

    def kill9(self) -> None:
        """End the process without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        _running.pop(self._process.pid, None)

    def pause(self) -> None:
        """Freeze the process; its port still takes connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _settings(self) -> dict[str, str]:
        mine = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
            "daemonize": "no",
        }
        if "--sentinel" not in self.mode:
            mine |= {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0"}
        return mine | self.options

    def _come_up(self) -> None:
        """Wait until the server answers anything, be it that it wants a password."""
        assert self._process is not None
        ends = time.monotonic() + _SECONDS
        while True:
            try:
                with socket.create_connection((self.host, self.port), timeout=1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(1):
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > ends:
                said = (self.folder / f"{self.port}.log").read_text(errors="replace")
                raise AssertionError(f"{self.binary} does not start: {said[-2000:]}")
            time.sleep(0.005)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A directory with a short name, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="credenza-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def running_redis(kind: str = "redis", **options: str) -> Iterator[RedisServer]:
    """A started server, ended with the block.

    Args:
        kind: "redis" or "valkey".
        **options: of its configuration, `maxmemory_policy="noeviction"`.

    Raises:
        NoServerError: there is no such server here.
    """
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    binary = find_server(kind)
    with temporary_folder() as folder:
        server = RedisServer(folder, binary=binary, options=settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
