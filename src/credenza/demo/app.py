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
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from credenza import NotFound

from .disconnect import ClientGone, while_connected
from .edits import parse_edit, parse_id
from .errors import BadRequest, DatabaseFailed
from .live import Events
from .service import Found, ProfileService
from .stampede import stampede

_log = logging.getLogger("credenza.demo")
_STATIC = Path(__file__).parent / "static"
_LARGEST_BODY = 16_384
_CLIENT_GONE = 499  # nobody reads it; access logs do
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Find = Callable[[int], Awaitable[Found]]


def make_app(service: ProfileService, *, is_stopping: Callable[[], bool] = lambda: False) -> Starlette:
    """Return the ASGI application.

    Args:
        service: closed with the application.
        is_stopping: tells that the server wants to stop, so that endless answers end; a server that waits for them
            would wait for ever.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(service.close)

    handlers = _Handlers(service)
    return Starlette(
        routes=[
            Route("/", _page),
            Route("/user", handlers.get_user, methods=["GET"]),
            Route("/user", handlers.put_user, methods=["PUT"]),
            Route("/unprotected/user", handlers.get_user_unprotected, methods=["GET"]),
            Route("/expire", handlers.expire, methods=["POST"]),
            Route("/stampede", handlers.stampede, methods=["POST"]),
            Route("/stats", handlers.stats),
            Route("/events", Events(service, is_stopping).answer),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        exception_handlers={
            BadRequest: _bad_request,
            DatabaseFailed: _database_failed,
            NotFound: _not_found,
            ClientGone: _client_gone,
            HTTPException: _http_exception,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )


class _Handlers:
    """The endpoints, around one service."""

    def __init__(self, service: ProfileService) -> None:
        self._service = service
        self._is_stampede_running = False

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
        await self._service.expire_unprotected(user_id)
        return Response(status_code=204)

    async def stampede(self, request: Request) -> Response:
        user_id = parse_id(request.query_params.get("id"))
        protection = request.query_params.get("protection", "on")
        if protection not in ("on", "off"):
            raise BadRequest("protection must be on or off", field="protection")
        if self._is_stampede_running:
            raise HTTPException(409, "a stampede is running already")
        self._is_stampede_running = True
        try:
            if protection == "on":
                path = "/user"
                await self._service.expire(user_id)
            else:
                path = "/unprotected/user"
                await self._service.expire_unprotected(user_id)
            run = stampede(request.app, path, user_id=user_id, database=self._service.database)
            return _json(dataclasses.asdict(await while_connected(request, run)))
        finally:
            self._is_stampede_running = False

    async def stats(self, request: Request) -> Response:
        return _json({**self._service.counters(), "settings": self._service.settings.facts()})

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


async def _client_gone(*_: object) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _http_exception(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    return _json({"error": exc.detail}, status=exc.status_code, headers=dict(exc.headers or {}))


async def _unexpected(*_: object) -> Response:
    return JSONResponse({"error": "internal error"}, 500)  # the server logs the exception itself
