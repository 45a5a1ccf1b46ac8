"""Just enough of an HTTP client to have five hundred requests on the wire at the same moment."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any  # decoded JSON
from urllib.parse import urlsplit

from .errors import DemoError

_TIMEOUT = 600.0  # a stampede without protection may take that long on a slow machine
_CONNECTS_AT_ONCE = 50  # listen queues are short on some systems


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

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            async with slots:
                return await self._connect()

        connections = await asyncio.gather(*(connect() for _ in range(times)))
        request = self._request("GET", path, None)
        return await asyncio.gather(*(self._exchange(reader, writer, request) for reader, writer in connections))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asyncio.open_connection(self._host, self._port)
        except OSError as exc:
            raise DemoError(f"no service answers at {self._host}:{self._port}: {exc}") from exc

    def _request(self, method: str, path: str, body: Mapping[str, str] | None) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        host = f"[{self._host}]" if ":" in self._host else self._host
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{self._port}\r\nConnection: close\r\n"
        kind = "" if body is None else "Content-Type: application/json\r\n"
        return f"{head}{kind}Content-Length: {len(content)}\r\n\r\n".encode() + content

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Reply:
        try:
            async with asyncio.timeout(_TIMEOUT):
                writer.write(request)
                answer = await reader.read(-1)
        except OSError as exc:
            raise DemoError(f"{self._host}:{self._port} broke the connection: {exc}") from exc
        finally:
            writer.close()
        return _parse(answer)


def _parse(answer: bytes) -> Reply:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/1\.\d (\d{3})", first)
    if status is None:
        raise DemoError(f"that is no HTTP answer: {first[:60]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(status[1]), headers, _decoded(body, headers))


def _decoded(body: bytes, headers: Mapping[str, str]) -> Any:  # decoded JSON
    if not body or "json" not in headers.get("content-type", ""):
        return None
    return json.loads(body)
