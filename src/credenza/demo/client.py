"""Just enough of an HTTP client to have five hundred requests on the wire at the same moment."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any  # decoded JSON
from urllib.parse import urlsplit

from .errors import DemoError, LineCut

_TIMEOUT = 600.0  # a stampede without protection may take that long on a slow machine
_CONNECTS_AT_ONCE = 50  # listen queues are short on some systems
_MOST_TRIES = 2_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its headers (lower-case names) and its decoded body."""

    status: int
    headers: Mapping[str, str]
    body: Any  # decoded JSON, None for an empty body

    @property
    def cache(self) -> str:
        """The `X-Cache` header, "" if there is none."""
        return self.headers.get("x-cache", "")


class Client:
    """Speaks HTTP/1.1 to one service, a connection for each request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        if parts.scheme != "http" or not parts.hostname:
            raise DemoError(f"the service's address must look like http://127.0.0.1:8000, got {url!r}")
        self._host, self._port = parts.hostname, parts.port or 80

    async def send(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Reply:
        """Send one request and return its answer."""
        reader, writer = await self._connect()
        return await self._exchange(reader, writer, self._request(method, path, body))

    async def send_at_once(self, path: str, times: int) -> list[Reply]:
        """Open that many connections first, then GET the path on all of them in one turn of the loop."""
        slots = asyncio.Semaphore(_CONNECTS_AT_ONCE)
        start = asyncio.Barrier(times)
        request = self._request("GET", path, None)

        async def visit() -> Reply:
            async with slots:
                reader, writer = await self._connect()
            try:
                await start.wait()
                return await self._exchange(reader, writer, request)
            finally:
                writer.close()

        visits = [asyncio.create_task(visit()) for _ in range(times)]
        try:
            return await asyncio.gather(*visits)
        finally:
            for task in visits:
                task.cancel()

    async def line(self, is_wanted: Callable[[str], bool]) -> "Line":
        """Return a connection to a worker that is wanted.

        Which worker takes a connection is not for the client to choose, so it connects until it has met one.

        Args:
            is_wanted: is given the name of the worker, as `X-Worker` has it.

        Raises:
            DemoError: it has not met one.
        """
        for _ in range(_MOST_TRIES):
            line = Line(*await self._connect(), self._host_header)
            try:
                line.worker = (await line.send("GET", "/stats")).headers.get("x-worker", "")
                if is_wanted(line.worker):
                    return line
            except BaseException:
                line.close()
                raise
            line.close()
        raise DemoError(f"{_MOST_TRIES} connections have not met the worker that was looked for")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.open_connection(self._host, self._port)
        except OSError as exc:
            raise DemoError(f"no service answers at {self._host}:{self._port}: {exc}") from exc

    def _request(self, method: str, path: str, body: Mapping[str, str] | None) -> bytes:
        return _request(method, path, body, f"{self._host_header}Connection: close\r\n")

    @property
    def _host_header(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"Host: {host}:{self._port}\r\n"

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Reply:
        try:
            async with asyncio.timeout(_TIMEOUT):
                writer.write(request)
                answer = await reader.read(-1)
        except OSError as exc:
            raise LineCut(f"{self._host}:{self._port} broke the connection: {exc}") from exc
        finally:
            writer.close()
        return _parse(answer)


class Line:
    """A connection that is kept open: whatever is sent over it reaches the same worker.

    Attributes:
        worker: the name of that worker.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str) -> None:
        self.worker = ""
        self._reader = reader
        self._writer = writer
        self._headers = headers

    async def send(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Reply:
        """Send a request and return its answer; one at a time.

        Raises:
            LineCut: the worker has ended, or has had enough of waiting.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._writer.write(_request(method, path, body, self._headers))
                head = await self._reader.readuntil(b"\r\n\r\n")
                status, headers = _parse_head(head.removesuffix(b"\r\n\r\n"))
                content = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (OSError, EOFError) as exc:
            raise LineCut(f"worker {self.worker} broke the connection") from exc
        return Reply(status, headers, _decoded(content, headers))

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def _request(method: str, path: str, body: Mapping[str, str] | None, headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    kind = "" if body is None else "Content-Type: application/json\r\n"
    return f"{method} {path} HTTP/1.1\r\n{headers}{kind}Content-Length: {len(content)}\r\n\r\n".encode() + content


def _parse(answer: bytes) -> Reply:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, headers = _parse_head(head)
    return Reply(status, headers, _decoded(body, headers))


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/1\.\d (\d{3})", first)
    if status is None:
        if not first:
            raise LineCut("the service broke the connection without an answer")
        raise DemoError(f"that is no HTTP answer: {first[:60]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status[1]), headers


def _decoded(body: bytes, headers: Mapping[str, str]) -> Any:  # decoded JSON
    if not body or "json" not in headers.get("content-type", ""):
        return None
    return json.loads(body)
