"""The service over HTTP."""

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any  # decoded JSON

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from credenza import FenceLost, JournalError, NotFound, TierError

from .client import Client
from .disconnect import ClientGone, while_connected
from .edits import parse_edit, parse_id
from .errors import BadRequest, DatabaseFailed, DemoError, NoJournal
from .live import Events
from .service import Found, ProfileService
from .stampede import Herd, stampede, through_app, through_network

_log = logging.getLogger("credenza.demo")
_STATIC = Path(__file__).parent / "static"
_LARGEST_BODY = 16_384
_PUBLISH_EVERY = 0.1
_CLIENT_GONE = 499  # nobody reads it; access logs do
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Find = Callable[[int], Awaitable[Found]]


def make_app(
    service: ProfileService, *, address: str | None = None, is_stopping: Callable[[], bool] = lambda: False
) -> ASGIApp:
    """Return the ASGI application.

    Args:
        service: closed with the application.
        address: where all workers are reached, None if this is the only one.
        is_stopping: tells that the server wants to stop, so that endless answers end; a server that waits for them
            would wait for ever.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        publishing = asyncio.create_task(_keep_publishing(service))
        yield
        publishing.cancel()
        await asyncio.to_thread(service.close)

    handlers = _Handlers(service, address, is_stopping)
    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/user", handlers.get_user, methods=["GET"]),
            Route("/user", handlers.put_user, methods=["PUT"]),
            Route("/unprotected/user", handlers.get_user_unprotected, methods=["GET"]),
            Route("/expire", handlers.expire, methods=["POST"]),
            Route("/stampede", handlers.stampede, methods=["POST"]),
            Route("/burst", handlers.burst, methods=["POST"]),
            Route("/settle", handlers.settle, methods=["POST"]),
            Route("/stats", handlers.stats),
            Route("/events", Events(service, is_stopping).answer),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        exception_handlers={
            BadRequest: _bad_request,
            DatabaseFailed: _database_failed,
            NotFound: _not_found,
            ClientGone: _client_gone,
            DemoError: _stampede_failed,
            NoJournal: _no_journal,
            JournalError: _journal_failed,
            FenceLost: _cache_away,
            TierError: _cache_away,
            HTTPException: _http_exception,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )
    return _signed(app, service.seat.name)


def _signed(app: ASGIApp, worker: str) -> ASGIApp:
    """Let every answer say which worker it comes from."""

    async def signed(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Worker"] = worker
            await send(message)

        await app(scope, receive, send_signed)

    return signed


async def _keep_publishing(service: ProfileService) -> None:
    """Show this worker's counters to those who are asked for the sums."""
    while service.seat.board.workers > 1:
        service.publish()
        await asyncio.sleep(_PUBLISH_EVERY)


class _Handlers:
    """The endpoints, around one service."""

    def __init__(self, service: ProfileService, address: str | None, is_stopping: Callable[[], bool]) -> None:
        self._service = service
        self._address = address
        self._is_stopping = is_stopping

    async def get_user(self, request: Request) -> Response:
        return await self._answer(request, self._service.find)

    async def get_user_unprotected(self, request: Request) -> Response:
        return await self._answer(request, self._service.find_unprotected)

    async def put_user(self, request: Request) -> Response:
        """Change a user. It is not cancelled with the client: half of a write helps nobody."""
        user_id = parse_id(request.query_params.get("id"))
        changes = parse_edit(await _body(request))
        profile = await self._service.change(user_id, changes)
        return _json(profile.as_json())

    async def expire(self, request: Request) -> Response:
        user_id = parse_id(request.query_params.get("id"))
        await self._service.expire(user_id)
        self._service.forget_unprotected()
        return Response(status_code=204)

    async def stampede(self, request: Request) -> Response:
        user_id = parse_id(request.query_params.get("id"))
        protection = request.query_params.get("protection", "on")
        if protection not in ("on", "off"):
            raise BadRequest("protection must be on or off", field="protection")
        seat = self._service.seat
        if seat.board.total("stampedes"):
            raise HTTPException(409, "a stampede is running already")
        seat.put("stampedes", 1)
        try:
            if protection == "on":
                path = "/user"
                await self._service.expire(user_id)
            else:
                path = "/unprotected/user"
                self._service.forget_unprotected()
            run = stampede(
                self._herd(request.app), path, user_id=user_id, queries=lambda: int(seat.board.total("queries"))
            )
            return _json(dataclasses.asdict(await while_connected(request, run)))
        finally:
            seat.put("stampedes", 0)

    async def burst(self, _: Request) -> Response:
        """Write ten thousand edits. They are not cancelled with the client, as no edit is, but end with the server."""
        seat = self._service.seat
        if seat.board.total("bursts"):
            raise HTTPException(409, "a burst is running already")
        seat.put("bursts", 1)
        try:
            return _json(dataclasses.asdict(await self._service.burst(lambda: not self._is_stopping())))
        finally:
            seat.put("bursts", 0)

    async def settle(self, _: Request) -> Response:
        await self._service.settle()
        return Response(status_code=204)

    def _herd(self, app: ASGIApp) -> Herd:
        """Return what sends many requests: to all workers through the network, to a single one without sockets."""
        return through_app(app) if self._address is None else through_network(Client(self._address))

    async def stats(self, request: Request) -> Response:
        service = self._service
        return _json(
            {
                **service.counters(),
                "settings": service.settings.facts(),
                "workers": service.settings.workers,
                "queries_by_worker": service.queries_by_worker(),
            }
        )

    async def _answer(self, request: Request, find: Find) -> Response:
        user_id = parse_id(request.query_params.get("id"))
        found = await while_connected(request, _call(find, user_id))
        headers = {
            "X-Cache": found.status,
            "Age": str(int(found.age)),
            "Server-Timing": _server_timing(found),
        }
        if found.profile is None:
            return _json({"error": "user not found"}, status=404, headers=headers)
        return _json(found.profile.as_json(), headers=headers)


async def _call(find: Find, user_id: int) -> Found:
    return await find(user_id)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise HTTPException(413, f"body must have at most {_LARGEST_BODY} bytes")
    return body


def _server_timing(found: Found) -> str:
    parts = [f"cache;dur={found.cache_seconds * 1e3:.3f}"]
    if found.database_seconds:
        parts.append(f"db;dur={found.database_seconds * 1e3:.3f}")
    return ", ".join(parts)


def _json(content: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(body, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


async def _page(_: Request) -> Response:
    return FileResponse(_STATIC / "index.html", headers=_PAGE_HEADERS)


async def _bad_request(_: Request, exc: Exception) -> Response:
    field = getattr(exc, "field", None)
    return _json({"error": str(exc), **({"field": field} if field else {})}, status=400)


async def _database_failed(request: Request, exc: Exception) -> Response:
    _log.error("%s %s: %s", request.method, request.url.path, exc, exc_info=exc)
    return _json({"error": "database error"}, status=500)


async def _not_found(*_: object) -> Response:
    return _json({"error": "user not found"}, status=404)


async def _cache_away(request: Request, exc: Exception) -> Response:
    _log.warning("%s %s: %s", request.method, request.url.path, exc)
    return _json({"error": "the shared cache is away, and the change was not made; try again"}, status=503)


async def _no_journal(_: Request, exc: Exception) -> Response:
    return _json({"error": str(exc)}, status=409)


async def _journal_failed(request: Request, exc: Exception) -> Response:
    _log.error("%s %s: %s", request.method, request.url.path, exc)
    return _json({"error": "the journal cannot keep the change, and it was not made"}, status=503)


async def _stampede_failed(_: Request, exc: Exception) -> Response:
    return _json({"error": str(exc)}, status=503)


async def _client_gone(*_: object) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _http_exception(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    return _json({"error": exc.detail}, status=exc.status_code, headers=dict(exc.headers or {}))


async def _unexpected(*_: object) -> Response:
    return JSONResponse({"error": "internal error"}, 500)  # the server logs the exception itself
