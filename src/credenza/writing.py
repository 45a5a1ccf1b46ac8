"""Fences around a user's own write, in both colours."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Hashable
from contextlib import asynccontextmanager, contextmanager

from .engine import Engine
from .flow.write import Write
from .runtime.base import block


class WriteFence:
    """What a `writing` block is given."""

    __slots__ = ("_write",)

    def __init__(self, write: Write) -> None:
        self._write = write

    def confirm(self) -> None:
        """Make sure, right before a commit, that the fence outlives it. Costs a round trip only if half its life is gone.

        Raises:
            FenceLost: it is gone from the shared tier; roll back. Never without a shared tier.
        """
        block(self._write.confirm())


class AsyncWriteFence:
    """What an `async with cache.aio.writing` block is given."""

    __slots__ = ("_write",)

    def __init__(self, write: Write) -> None:
        self._write = write

    async def confirm(self) -> None:
        """See `WriteFence.confirm`."""
        await self._write.confirm()


@contextmanager
def writing(engine: Engine, keys: tuple[Hashable, ...], tags: tuple[str, ...]) -> Generator[WriteFence, None, None]:
    """See `Cache.writing`."""
    write = Write(engine.state, engine.threads, keys, tags)
    block(write.begin())
    try:
        yield WriteFence(write)
    except BaseException as error:
        block(write.end(error))
        raise
    block(write.end(None))


@asynccontextmanager
async def writing_async(
    engine: Engine, keys: tuple[Hashable, ...], tags: tuple[str, ...]
) -> AsyncGenerator[AsyncWriteFence]:
    """See `Cache.writing`."""
    write = Write(engine.state, engine.tasks, keys, tags)
    await write.begin()
    try:
        yield AsyncWriteFence(write)
    except BaseException as error:
        await write.end(error)
        raise
    await write.end(None)
