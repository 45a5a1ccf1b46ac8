"""`credenza journal drain`: delivers what a journal holds where no service does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any  # Any: the user's source

import typer

from credenza import Cache, Codec, JournalInUse, JournalStatus, WriteBehind, attach_journal

from .attributes import attribute_at, source_at
from .complaints import CommandError, complain, complaining, log_in_lines
from .options import AsJson, Where
from .show import count_text, show_fields, show_json

_LOOK_SECONDS = 0.1

Watch = Callable[[JournalStatus], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be delivered where."""

    where: str
    source: Any  # Any: one of two protocols
    codec: Codec | None
    cache_url: str | None
    key: str
    timeout: str | float | None


def drain(
    where: Where,
    *,
    to: Annotated[str, typer.Option(help="The source, package.module:attribute, or a callable that returns one.")],
    codec: Annotated[
        str | None, typer.Option(help="The codec of the strategy, package.module:attribute, where it has one.")
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(help="The URL of the cache that processes share: what is delivered is invalidated there."),
    ] = None,
    key: Annotated[
        str, typer.Option(help='With --cache: the template of the repository\'s keys, as "user:{}".')
    ] = "{}",
    timeout: Annotated[
        str | None, typer.Option(help="Stop after this time: '30s', '5m'. Without it, when done.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write to the source what is pending. No service may have the journal open, but for one on a server.

    Prints what was delivered, what is left, and the dead letters; the exit status is 1 if something is left.
    """
    with complaining("journal drain"):
        log_in_lines()
        with closing(attach_journal(where)) as attached:
            before = attached.status()
        source = source_at(to)
        made = None if codec is None else _codec_at(codec)
        work = _Work(where, source, made, cache, key, _duration(timeout))
        _report(before, _delivered(work, before.pending), as_json=as_json)


def _delivered(work: _Work, total: int) -> JournalStatus:
    """Deliver, and show on a terminal how far it is; return what the journal holds then."""
    with _bar(total) as watch:
        try:
            return asyncio.run(_deliver(work, watch))
        except JournalInUse as error:
            raise CommandError(
                f"{error}; the service that has it open delivers by itself, or at once when it calls its repository's "
                "flush(): stop it to drain from here"
            ) from error


async def _deliver(work: _Work, watch: Watch) -> JournalStatus:
    """Deliver until nothing is left, the time is over, or this is cancelled."""
    cache: Cache[Any, Any] = Cache(maxsize=1) if work.cache_url is None else Cache.from_url(work.cache_url)
    async with cache.aio:
        strategy = WriteBehind(journal=work.where, codec=work.codec, close_timeout=0)
        repository = cache.repository(work.source, strategy=strategy, key=work.key)
        kept = repository.journal
        assert kept is not None
        flush = asyncio.create_task(repository.aio.flush(timeout=work.timeout))
        try:
            while not (await asyncio.wait({flush}, timeout=_LOOK_SECONDS))[0]:
                watch(await asyncio.to_thread(kept.status))
            await flush
            return await asyncio.to_thread(kept.status)
        finally:
            flush.cancel()


def _report(before: JournalStatus, after: JournalStatus, *, as_json: bool) -> None:
    delivered = max(0, before.pending + before.dead - after.pending - after.dead)
    if as_json:
        show_json({"delivered": delivered, "left": after.pending, "dead": after.dead})
    else:
        show_fields([("delivered", f"{delivered:,}"), ("left", f"{after.pending:,}"), ("dead", f"{after.dead:,}")])
    if after.dead:
        complain(f"journal drain: {count_text(after.dead, 'dead letter')} stay; `credenza journal dead` lists them")
    if after.pending:
        raise typer.Exit(1)


@contextmanager
def _bar(total: int) -> Generator[Watch]:
    """Show on a terminal how far it is."""
    if not sys.stderr.isatty():
        yield lambda status: None
        return
    from .progress import delivery_bar  # noqa: PLC0415  # slow to import, and for people only

    with delivery_bar(total) as watch:
        yield lambda status: watch(status.pending)


def _codec_at(name: str) -> Codec:
    found = attribute_at(name, option="--codec")
    if not isinstance(found, Codec):
        raise CommandError(f"{name} is {type(found).__qualname__!r}, no credenza.Codec")
    return found


def _duration(text: str | None) -> str | float | None:
    """Return what `flush` takes; it says what is wrong with it."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
