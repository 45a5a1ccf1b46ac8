"""Misses and stores: P5, P6 and P6a.

Every cache is full before the first round, so each miss also evicts, except where a table says that there is room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter_ns

from bench import ours
from bench.goals import SAME, Result, Table, compare, table_of, twins
from bench.measure import Contender, Timer, async_timer, measure, sync_timer, with_code_of_its_own
from bench.peers import ASYNC_PEERS, MAXSIZE, SYNC_PEERS, TTL, is_installed
from bench.scale import Scale
from bench.streams import filling, fresh_keys

INSERT = "cachebox.VTTLCache.insert"

Build = Callable[[Callable[[str], object]], Callable[[str], object]]


def _sync_builds() -> list[tuple[str, Build, str]]:
    return [
        (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
        (ours.TEMPLATE, ours.cached_by_template, 'the same with key="user:{key}"'),
        *((peer.name, peer.build, peer.setting) for peer in SYNC_PEERS if peer.is_installed()),
    ]


def sync_misses(scale: Scale) -> Result:
    """Time misses of decorated functions whose loader costs nothing."""
    contenders = []
    for name, build, setting in _sync_builds():
        function = build(ours.load)
        for key in filling(MAXSIZE):
            function(key)
        contenders.append(Contender(name, sync_timer(function), setting))
    samples = measure(contenders, fresh_keys(2_000), rounds=scale.rounds)
    theirs = samples.fastest([peer.name for peer in SYNC_PEERS if peer.module == "cachebox"])
    return Result(
        (compare("P6", samples, ours.NAME, theirs),),
        (
            table_of(
                "Miss of a decorated def, cache full",
                samples,
                base=ours.NAME,
                lines=[] if theirs is None else [("P6", theirs)],
            ),
            _with_room(scale),
        ),
    )


def _with_room(scale: Scale) -> Table:
    """Time the same misses while nothing is evicted, as in a process that has just started."""

    def in_a_new_cache(build: Build) -> Timer:
        def timer(keys: Sequence[str]) -> int:
            return sync_timer(build(ours.load))(keys)

        return timer

    shown = (ours.NAME, ours.TEMPLATE, "functools.lru_cache", "cachebox.cached", "moka_py.cached")
    contenders = [
        Contender(name, in_a_new_cache(build), setting) for name, build, setting in _sync_builds() if name in shown
    ]
    samples = measure(contenders, fresh_keys(2_000), rounds=max(5, scale.rounds // 3))
    return table_of("Miss of a decorated def, room left", samples, base=ours.NAME)


def async_misses(scale: Scale) -> Result:
    """Time awaited misses of decorated coroutine functions whose loader costs nothing."""
    with asyncio.Runner() as runner:
        builds = [
            (ours.NAME, ours.cached, f"Cache({MAXSIZE}).cached(ttl={TTL})"),
            *((peer.name, peer.build, peer.setting) for peer in ASYNC_PEERS if peer.is_installed()),
        ]
        contenders = []
        for name, build, setting in builds:
            function = build(ours.load_async)
            runner.run(ours.warm_up(function, filling(MAXSIZE)))
            contenders.append(Contender(name, async_timer(function, runner), setting))
        samples = measure(contenders, fresh_keys(1_000), rounds=scale.rounds)
    note = "In cachebox a cancelled caller fails everybody who waits."
    theirs = "moka_py.cached async"
    lines = [("P6a", theirs)] if theirs in samples.per_operation else []
    return Result(
        (compare("P6a", samples, ours.NAME, theirs),),
        (
            table_of(
                "Awaited miss of a decorated async def, cache full", samples, base=ours.NAME, note=note, lines=lines
            ),
        ),
    )


def stores(scale: Scale) -> Result:
    """Time stores with a ttl of their own into full caches."""
    cache = ours.new_cache()
    cache.set_many({key: key for key in filling(MAXSIZE)})
    contenders = [
        Contender("credenza set", _timer_by_name(cache.set), "Cache.set(key, value, ttl=300)"),
        *_peer_stores(),
    ]
    samples = measure(contenders, fresh_keys(2_000), rounds=scale.rounds)
    lines = [("P5", INSERT)] if INSERT in samples.per_operation else []
    note = twins(samples, INSERT, f"{INSERT} again")
    return Result(
        (compare("P5", samples, "credenza set", INSERT),),
        (table_of("Store with a ttl, cache full", samples, base="credenza set", note=note, lines=lines),),
    )


def _timer_by_name(store: Callable[..., object]) -> Timer:
    """Return a timer that stores each key with a ttl, which is passed by its name."""

    def store_each(keys: Sequence[str]) -> int:
        start = perf_counter_ns()
        for key in keys:
            store(key, key, ttl=TTL)
        return perf_counter_ns() - start

    return with_code_of_its_own(store_each)


def _timer_by_place(store: Callable[..., object]) -> Timer:
    """Return a timer that stores each key with a ttl as the third argument."""

    def store_each(keys: Sequence[str]) -> int:
        start = perf_counter_ns()
        for key in keys:
            store(key, key, TTL)
        return perf_counter_ns() - start

    return with_code_of_its_own(store_each)


def _peer_stores() -> list[Contender]:
    contenders = []
    if is_installed("cachebox"):
        import cachebox

        for name, setting in (
            (INSERT, "insert(key, value, 300)"),
            (f"{INSERT} again", SAME),
        ):
            vttl: cachebox.VTTLCache[str, str] = cachebox.VTTLCache(MAXSIZE)
            for key in filling(MAXSIZE):
                vttl.insert(key, key, TTL)
            contenders.append(Contender(name, _timer_by_place(vttl.insert), setting))
    if is_installed("moka_py"):
        import moka_py

        moka: moka_py.Moka[str, str] = moka_py.Moka(MAXSIZE)
        for key in filling(MAXSIZE):
            moka.set(key, key, TTL)
        contenders.append(Contender("moka_py.Moka.set", _timer_by_place(moka.set), "set(key, value, 300)"))
    return contenders
