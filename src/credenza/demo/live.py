"""The counters as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .following import command_to_try
from .service import ProfileService

_EVERY = 0.2
_SILENCE = 10.0  # after this long without news something is sent, so that proxies keep the line open


class Events:
    """An endpoint that sends the settings once and the counters whenever they change."""

    def __init__(self, service: ProfileService, is_stopping: Callable[[], bool]) -> None:
        self._service = service
        self._is_stopping = is_stopping

    async def answer(self, _: Request) -> Response:
        """Answer without an end; Starlette ends it when the client leaves."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=headers)

    async def _stream(self) -> AsyncIterator[str]:
        settings = self._service.settings
        yield "retry: 1000\n\n" + _event("settings", settings.facts())
        if settings.follow:
            yield _event("follow", {"command": command_to_try(settings.database)})
        last, silent = None, 0.0
        while not self._is_stopping():
            counters = self._service.counters()
            if counters != last or silent >= _SILENCE:
                yield _event("counters", counters)
                last, silent = counters, 0.0
            await asyncio.sleep(_EVERY)
            silent += _EVERY


def _event(name: str, content: object) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
