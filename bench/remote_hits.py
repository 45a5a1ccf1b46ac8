"""Hits beside other caches over Redis: S4, with our memory tier, as users run it, and without. Misses are shown below."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import credenza
from bench import ours
from bench.goals import Result, Table, compare, table_of
from bench.measure import Contender, Samples, async_timer, measure, sync_timer
from bench.peers import MAXSIZE
from bench.records import User, load_user, load_user_async
from bench.remote import new_cache, warm
from bench.remote_peers import async_peers, sync_peers
from bench.scale import Scale
from bench.server import on_redis, version_of
from bench.streams import HOT_KEYS, fresh_keys, hot_stream

HITS = 200
MISSES = 50
MISS = "@cached: look, lease, load, fill"
MEMORY, BARE = "credenza", "credenza, memory off"
PROMISE = (
    "With its memory tier credenza keeps its default promise meanwhile: staleness at most 1 s after a write that returned. "
    "cashews with client_side=True answers from memory too; the others ask the server each time."
)


@on_redis("S4", "S4b")
def sync_hits_in_redis(scale: Scale, url: str) -> Result:
    """Time hits one after another, by hand and through decorated functions."""
    with new_cache(url, maxsize=MAXSIZE, all_hit=False) as whole, new_cache(url) as bare:
        contenders = [*_of_ours(MEMORY, whole), *_of_ours(BARE, bare)]
        missing = [Contender(MEMORY, contenders[1].timer, MISS)]
        for peer in sync_peers(url):
            contenders.append(Contender(peer.name, sync_timer(peer.get), peer.setting))
            decorated = warm(peer.decorate(load_user))
            missing.append(Contender(peer.name, sync_timer(decorated), peer.setting))
            contenders.append(Contender(f"{peer.name}, decorated", sync_timer(decorated), peer.setting))
        stream = hot_stream(HITS)
        samples = measure(contenders, lambda _: stream, rounds=scale.slow_rounds)
        misses = measure(missing, fresh_keys(MISSES), rounds=scale.slow_rounds)
    theirs = samples.fastest(["dogpile.cache"])
    note = f"{version_of(url)}. {PROMISE}"
    return Result(
        (compare("S4", samples, MEMORY, theirs), compare("S4b", samples, BARE, theirs)),
        (
            table_of("Hits one after another beside other caches", samples, base=MEMORY, note=note),
            _table_of_misses("Misses one after another", misses),
        ),
    )


def _table_of_misses(title: str, samples: Samples) -> Table:
    note = "Through decorated functions whose loader costs nothing; each makes sure that one process loads at a time."
    return table_of(title, samples, base=MEMORY, note=note)


def _of_ours(name: str, cache: credenza.Cache[str, User]) -> Iterator[Contender]:
    size = f"maxsize={0 if name == BARE else MAXSIZE}"
    yield Contender(name, sync_timer(lambda key: cache.get(key, type=User)), f"cache.get, {size}")
    yield Contender(f"{name}, decorated", sync_timer(warm(cache.cached(load_user))), f"@cached, {size}")


@on_redis("S4a", "S4c")
def async_hits_in_redis(scale: Scale, url: str) -> Result:
    """Time awaited hits one after another, by hand and through decorated functions."""
    with new_cache(url, maxsize=MAXSIZE, all_hit=False) as whole, new_cache(url) as bare, asyncio.Runner() as runner:
        contenders = [*_of_ours_async(MEMORY, whole, runner), *_of_ours_async(BARE, bare, runner)]
        missing = [Contender(MEMORY, contenders[1].timer, MISS)]
        peers = list(async_peers(url))
        for peer in peers:
            runner.run(peer.open())
            contenders.append(Contender(peer.name, async_timer(peer.get, runner), peer.setting))
            decorated = peer.decorate(load_user_async)
            runner.run(ours.warm_up(decorated, HOT_KEYS))
            if not peer.has_memory:
                missing.append(Contender(peer.name, async_timer(decorated, runner), peer.setting))
            contenders.append(Contender(f"{peer.name}, decorated", async_timer(decorated, runner), peer.setting))
        stream = hot_stream(HITS)
        samples = measure(contenders, lambda _: stream, rounds=scale.slow_rounds)
        misses = measure(missing, fresh_keys(MISSES), rounds=scale.slow_rounds)
        for peer in peers:
            runner.run(peer.close())
        for cache in (whole, bare):
            runner.run(cache.aio.close())
    note = f"{version_of(url)}. {PROMISE}"
    return Result(
        (
            compare("S4a", samples, MEMORY, samples.fastest([peer.name for peer in peers])),
            compare("S4c", samples, BARE, samples.fastest([peer.name for peer in peers if not peer.has_memory])),
        ),
        (
            table_of("Awaited hits one after another beside other caches", samples, base=MEMORY, note=note),
            _table_of_misses("Awaited misses one after another", misses),
        ),
    )


def _of_ours_async(name: str, cache: credenza.Cache[str, User], runner: asyncio.Runner) -> Iterator[Contender]:
    size = f"maxsize={0 if name == BARE else MAXSIZE}"
    decorated = cache.cached(load_user_async)
    runner.run(ours.warm_up(decorated, HOT_KEYS))
    yield Contender(name, async_timer(lambda key: cache.aio.get(key, type=User), runner), f"cache.aio.get, {size}")
    yield Contender(f"{name}, decorated", async_timer(decorated, runner), f"@cached, {size}")
