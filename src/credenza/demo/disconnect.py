"""Ends the work for a client that has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar  # Any: what a coroutine sends and receives

from starlette.requests import Request

T = TypeVar("T")


class ClientGone(Exception):
    """The client disconnected; there is nobody to answer."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await the work, and cancel it as soon as the client disconnects.

    ASGI servers do not cancel a handler whose client is gone; they only say so to whoever asks.

    Raises:
        ClientGone: the client disconnected first; the work has been cancelled and has ended.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait([task, gone])
        if not task.cancelled():
            task.exception()  # read, for a failure that came too late to be answered


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
