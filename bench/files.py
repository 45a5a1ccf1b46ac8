"""The shared tier in a SQLite file beside diskcache: S5."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.goals import Result, compare, table_of
from bench.measure import Contender, async_timer, measure, sync_timer
from bench.peers import MAXSIZE, is_installed
from bench.records import TTL, USERS, User, decoder, encoder, load_user
from bench.remote import new_cache, warm
from bench.scale import Scale
from bench.server import unmeasured
from bench.streams import hot_stream

HITS = 1_000


def hits_in_files(scale: Scale) -> Result:
    """Time hits one after another, our memory tier off."""
    if not is_installed("msgspec"):
        return unmeasured(("S5",), "not measured: msgspec not installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="credenza-bench-")))
        url = f"sqlite:///{folder / 'ours.db'}"
        bare = stack.enter_context(new_cache(url))
        whole = stack.enter_context(new_cache(url, maxsize=MAXSIZE))
        runner = stack.enter_context(asyncio.Runner())
        contenders = [
            Contender("credenza", sync_timer(lambda key: bare.get(key, type=User)), "cache.get, maxsize=0"),
            Contender("credenza @cached", sync_timer(warm(bare.cached(load_user))), "@cached, maxsize=0"),
            Contender(
                "credenza async",
                async_timer(lambda key: bare.aio.get(key, type=User), runner),
                "cache.aio.get, maxsize=0",
            ),
            Contender(
                "credenza with memory",
                sync_timer(lambda key: whole.get(key, type=User)),
                f"cache.get, maxsize={MAXSIZE}, as users run it",
            ),
            *_diskcache(folder, stack),
        ]
        stream = hot_stream(HITS)
        samples = measure(contenders, lambda _: stream, rounds=scale.slow_rounds)
        runner.run(bare.aio.close())
    theirs = samples.fastest(["diskcache, pickle", "diskcache, msgspec"])
    return Result(
        (compare("S5", samples, "credenza", theirs),),
        (table_of("Hits in a file", samples, base="credenza", note="Both files in the same directory."),),
    )


def _diskcache(folder: Path, stack: ExitStack) -> Iterator[Contender]:
    if not is_installed("diskcache"):
        return
    import diskcache

    pickled = stack.enter_context(diskcache.Cache(str(folder / "pickled")))
    encoded = stack.enter_context(diskcache.Cache(str(folder / "encoded")))
    encode, decode = encoder(), decoder()
    for key, user in USERS.items():
        pickled.set(key, user, expire=TTL)
        encoded.set(key, encode(user), expire=TTL)
    yield Contender("diskcache, pickle", sync_timer(pickled.get), "Cache.get, values as they are")
    yield Contender(
        "diskcache, msgspec", sync_timer(lambda key: decode(encoded.get(key))), "Cache.get of bytes, decoded by msgspec"
    )
