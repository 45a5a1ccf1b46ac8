"""Hits: P1, P2, P3 and P4, and P8 in a process of the pure table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench import ours
from bench.goals import SAME, Result, compare, table_of, twins
from bench.measure import Contender, async_timer, measure, sync_timer
from bench.peers import ASYNC_PEERS, MAXSIZE, SYNC_PEERS, TTL, is_installed
from bench.scale import Scale
from bench.streams import HOT_KEYS, hot_stream

LRU = "functools.lru_cache"
LRU_AGAIN = "functools.lru_cache again"
EMPTY = "empty async def"
EMPTY_AGAIN = "empty async def again"
VTTL = "cachebox.VTTLCache.get"
VTTL_AGAIN = "cachebox.VTTLCache.get again"
SLOW_ONE_IN = 10


def sync_hits(scale: Scale) -> Result:
    """Time hits of decorated functions with one text argument."""
    builds: list[tuple[str, Callable[..., Callable[[str], object]], str]] = [
        (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
        (ours.TEMPLATE, ours.cached_by_template, 'the same with key="user:{key}"'),
        *((peer.name, peer.build, peer.setting) for peer in SYNC_PEERS if peer.is_installed()),
        (LRU_AGAIN, SYNC_PEERS[0].build, SAME),
    ]
    contenders = [warm(name, build(ours.load), setting) for name, build, setting in builds]
    stream = hot_stream(10_000)
    samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    rival = samples.fastest([peer.name for peer in SYNC_PEERS if peer.stampede and peer.ttl])
    control = twins(samples, LRU, LRU_AGAIN)
    lines = [("P1", LRU), *([] if rival is None else [("P4", rival)])]
    return Result(
        (compare("P1", samples, ours.NAME, LRU), compare("P4", samples, ours.NAME, rival)),
        (table_of("Hit of a decorated def", samples, base=ours.NAME, note=control, lines=lines),),
    )


def warm(name: str, function: Callable[[str], object], setting: str) -> Contender:
    """Return a contender whose hot keys are cached."""
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
        (compare("P2", samples, "credenza get", VTTL),),
        (
            table_of(
                "Hit by hand",
                samples,
                base="credenza get",
                note=twins(samples, VTTL, VTTL_AGAIN),
                lines=[("P2", VTTL)] if VTTL in samples.per_operation else [],
            ),
        ),
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
        contenders.append(Contender(VTTL, sync_timer(vttl.get), "ttl=300 for each entry"))
        contenders.append(Contender(VTTL_AGAIN, sync_timer(vttl.get), SAME))
        one_ttl: cachebox.TTLCache[str, str] = cachebox.TTLCache(MAXSIZE, TTL)
        one_ttl.update({key: key for key in HOT_KEYS})
        contenders.append(Contender("cachebox.TTLCache.get", sync_timer(one_ttl.get), "ttl=300 for all entries"))
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
            Contender(EMPTY, async_timer(ours.load_async, runner), "async def load(key): return key"),
            Contender(EMPTY_AGAIN, async_timer(ours.load_async, runner), SAME),
            *_async_contenders(runner),
        ]
        stream = hot_stream(10_000)
        samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    note = f"{twins(samples, EMPTY, EMPTY_AGAIN)} cashews and aiocache are asked for one in {SLOW_ONE_IN} of the keys."
    return Result(
        (compare("P3", samples, ours.NAME, EMPTY),),
        (table_of("Awaited hit of a decorated async def", samples, base=ours.NAME, note=note, lines=[("P3", EMPTY)]),),
    )


def _async_contenders(runner: asyncio.Runner) -> list[Contender]:
    builds = [
        (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})", 1),
        *(
            (peer.name, peer.build, peer.setting, SLOW_ONE_IN if peer.slow else 1)
            for peer in ASYNC_PEERS
            if peer.is_installed()
        ),
    ]
    contenders = []
    for name, build, setting, one_in in builds:
        function = build(ours.load_async)
        runner.run(ours.warm_up(function, HOT_KEYS))
        contenders.append(Contender(name, async_timer(function, runner), setting, one_in))
    return contenders
