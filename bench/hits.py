"""Hits: P1, P2, P3, P4 and P8."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench import ours
from bench.goals import Result, compare, table_of
from bench.measure import Contender, async_timer, measure, sync_timer
from bench.peers import ASYNC_PEERS, MAXSIZE, SYNC_PEERS, TTL, is_installed
from bench.scale import Scale
from bench.streams import HOT_KEYS, hot_stream

LRU = "functools.lru_cache"
TWIN = "functools.lru_cache again"
EMPTY = "empty async def"


def sync_hits(scale: Scale) -> Result:
    """Time hits of decorated functions with one text argument."""
    builds: list[tuple[str, Callable[..., Callable[[str], object]], str]] = [
        (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
        (ours.TEMPLATE, ours.cached_by_template, 'the same with key="user:{key}"'),
        *((peer.name, peer.build, peer.setting) for peer in SYNC_PEERS if peer.is_installed()),
        (TWIN, SYNC_PEERS[0].build, "the same as the other: how far noise goes"),
    ]
    contenders = [_warm(name, build(ours.load), setting) for name, build, setting in builds]
    stream = hot_stream(10_000)
    samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    rivals = [peer.name for peer in SYNC_PEERS if peer.stampede and peer.ttl]
    twin = samples.ratio(TWIN, LRU)
    control = f"Noise control, lru_cache / lru_cache: {twin.median:.3f} ({twin.low:.3f} - {twin.high:.3f})."
    return Result(
        (
            compare("P1", samples, ours.NAME, LRU),
            compare("P4", samples, ours.NAME, samples.fastest(rivals)),
            compare("P8", samples, ours.NAME, "cachetools.cached, lock"),
        ),
        (table_of("Hit of a decorated def", samples, base=ours.NAME, note=control),),
    )


def _warm(name: str, function: Callable[[str], object], setting: str) -> Contender:
    for key in HOT_KEYS:
        function(key)
    return Contender(name, sync_timer(function), setting)


def get_hits(scale: Scale) -> Result:
    """Time hits by hand."""
    cache = ours.new_cache()
    cache.set_many({key: key for key in HOT_KEYS})
    contenders = [
        Contender("credenza get", sync_timer(cache.get), "Cache.get(key)"),
        Contender(
            "credenza get_or_load",
            sync_timer(lambda key: cache.get_or_load(key, _unwanted)),
            "Cache.get_or_load(key, loader), called through a lambda",
        ),
        *_peer_gets(),
    ]
    stream = hot_stream(10_000)
    samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    return Result(
        (compare("P2", samples, "credenza get", "cachebox.VTTLCache.get"),),
        (table_of("Hit by hand", samples, base="credenza get"),),
    )


def _unwanted() -> str:
    raise AssertionError("a hit does not load")


def _peer_gets() -> list[Contender]:
    contenders = []
    if is_installed("cachebox"):
        import cachebox

        vttl: cachebox.VTTLCache[str, str] = cachebox.VTTLCache(MAXSIZE)
        for key in HOT_KEYS:
            vttl.insert(key, key, TTL)
        contenders.append(Contender("cachebox.VTTLCache.get", sync_timer(vttl.get), "ttl=300 for each entry"))
    if is_installed("moka_py"):
        import moka_py

        moka: moka_py.Moka[str, str] = moka_py.Moka(MAXSIZE, ttl=TTL)
        for key in HOT_KEYS:
            moka.set(key, key)
        contenders.append(Contender("moka_py.Moka.get", sync_timer(moka.get), "ttl=300"))
    if is_installed("cachetools"):
        import cachetools

        plain: cachetools.TTLCache[str, str] = cachetools.TTLCache(MAXSIZE, TTL)
        plain.update({key: key for key in HOT_KEYS})
        contenders.append(Contender("cachetools.TTLCache.get", sync_timer(plain.get), "no lock: not thread-safe"))
    return contenders


def async_hits(scale: Scale) -> Result:
    """Time awaited hits of decorated coroutine functions."""
    with asyncio.Runner() as runner:
        contenders = [
            Contender(EMPTY, async_timer(ours.load_async, runner)),
            *_async_contenders(runner),
        ]
        stream = hot_stream(1_000)
        samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    return Result(
        (compare("P3", samples, ours.NAME, EMPTY),),
        (table_of("Awaited hit of a decorated async def", samples, base=ours.NAME),),
    )


def _async_contenders(runner: asyncio.Runner) -> list[Contender]:
    builds = [
        (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
        *((peer.name, peer.build, peer.setting) for peer in ASYNC_PEERS if peer.is_installed()),
    ]
    contenders = []
    for name, build, setting in builds:
        function = build(ours.load_async)
        runner.run(ours.warm_up(function, HOT_KEYS))
        contenders.append(Contender(name, async_timer(function, runner), setting))
    return contenders
