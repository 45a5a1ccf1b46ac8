"""The shared tier on Redis beside redis-py itself: S1, S2 and S3.

Our memory tier is off, so that every read asks the server. redis-py reads the same records without anything around them and
decodes them with the same decoder.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

import credenza
from bench import ours
from bench.goals import Outcome, Result, Table, compare, table_of
from bench.measure import Contender, Timer, async_timer, measure, sync_timer
from bench.records import PLAIN, TTL, User, decoder, load_user, load_user_async
from bench.scale import Scale
from bench.server import keep_plain_records, on_redis, version_of
from bench.streams import HOT_KEYS, hot_stream

FEW, MANY = 50, 500
OPERATIONS = 1_000
THEIRS = ((FEW, "", FEW), (FEW, "Blocking", FEW), (FEW, "Blocking", 8), (MANY, "", MANY))
"""How many tasks of redis-py's, over which of its pools, of how many connections. In a blocking one tasks wait for one."""

BATCH = 100
PATIENCE_SECONDS = 5
"""How long our caches wait for the tier: a machine that is busy for a moment must not make a hit of the source's."""

FILLINGS = 2
"""How often each record is loaded: by hand, and by a decorated function, which has records of its own."""

Ask = Callable[[str], Awaitable[object]]


@contextmanager
def new_cache(remote: str, *, maxsize: int = 0, all_hit: bool = True) -> Iterator[credenza.Cache[str, User]]:
    """Return a cache over a shared tier that has all records; without `maxsize` it has no memory tier.

    `all_hit` says that there will be no other loads than those that fill it.

    Raises:
        AssertionError: what should have been hits were not.
    """
    cache: credenza.Cache[str, User] = credenza.Cache(
        remote=remote, maxsize=maxsize, ttl=TTL, tier_timeout=PATIENCE_SECONDS
    )
    try:
        for key in HOT_KEYS:
            cache.get_or_load(key, functools.partial(load_user, key), type=User)
        yield cache
        loads = cache.stats().loads
        assert not all_hit or loads <= FILLINGS * len(HOT_KEYS), f"{loads} loads where all should have been hits"
    finally:
        cache.close()


def warm(function: Callable[[str], object]) -> Callable[[str], object]:
    """Ask a decorated function for each key once."""
    for key in HOT_KEYS:
        function(key)
    return function


# S1 -------------------------------------------------------------------------------------------------------------------


@on_redis("S1")
def crowds_of_tasks(scale: Scale, url: str) -> Result:
    """Time hits of many tasks at once, per hit."""
    keep_plain_records(url)
    with new_cache(url) as cache, asyncio.Runner() as runner:
        contenders = [
            *_our_crowds(cache, runner),
            *(_their_crowd(url, tasks, kind, size, runner) for tasks, kind, size in THEIRS),
        ]
        stream = hot_stream(OPERATIONS)
        samples = measure(contenders, lambda _: stream, rounds=scale.slow_rounds)
        refused = runner.run(_singly(url))
        runner.run(cache.aio.close())
    theirs = samples.fastest([_name_of(tasks, kind, size) for tasks, kind, size in THEIRS if tasks == FEW])
    mine = (f"credenza, {FEW} tasks", f"credenza, {MANY} tasks")
    outcomes = {name: compare("S1", samples, name, theirs) for name in mine}
    slower = max(mine, key=lambda name: outcomes[name].value.median)  # type: ignore[union-attr]  # both took part
    faster = next(name for name in mine if name != slower)
    value = outcomes[faster].value
    assert value is not None
    worst = outcomes[slower]
    note = f"{slower}; {faster}: {value.median:.3g}"
    return Result(
        (Outcome(worst.goal, worst.value, worst.ours, worst.theirs, note),),
        (
            table_of("Hits of many tasks at once, memory tier off", samples, base=mine[0], note=version_of(url) + "."),
            Table(f"{MANY} tasks at once, redis-py's default pool", ("contender", "outcome"), [("redis-py", refused)]),
        ),
    )


def _our_crowds(cache: credenza.Cache[str, User], runner: asyncio.Runner) -> Iterator[Contender]:
    async def by_hand(key: str) -> object:
        return await cache.aio.get(key, type=User)

    decorated = cache.cached(load_user_async)
    runner.run(ours.warm_up(decorated, HOT_KEYS))
    yield Contender(f"credenza, {FEW} tasks", crowd_timer(by_hand, FEW, runner), "cache.aio.get, maxsize=0")
    yield Contender(f"credenza, {MANY} tasks", crowd_timer(by_hand, MANY, runner), "cache.aio.get, maxsize=0")
    yield Contender(f"credenza @cached, {FEW} tasks", crowd_timer(decorated, FEW, runner), "@cached, maxsize=0")


def _name_of(tasks: int, kind: str, size: int) -> str:
    return f"redis-py, {tasks} tasks, {size} connections{', blocking pool' if kind else ''}"


def _their_crowd(url: str, tasks: int, kind: str, size: int, runner: asyncio.Runner) -> Contender:
    import redis.asyncio

    kind_of_pool: Any = getattr(redis.asyncio, f"{kind}ConnectionPool")
    pool = kind_of_pool.from_url(url, max_connections=size)
    client: Any = redis.asyncio.Redis(connection_pool=pool)
    decode = decoder()

    async def ask(key: str) -> object:
        return decode(await client.get(PLAIN + key))

    setting = f"GET and decode, hiredis, {kind}ConnectionPool({size})"
    return Contender(_name_of(tasks, kind, size), crowd_timer(ask, tasks, runner), setting)


def crowd_timer(ask: Ask, tasks: int, runner: asyncio.Runner) -> Timer:
    """Return a timer that shares the keys out among tasks, each of which asks for its own one after another."""

    async def work(keys: Sequence[str]) -> None:
        for key in keys:
            await ask(key)

    async def crowd(keys: Sequence[str]) -> int:
        shares = [keys[number::tasks] for number in range(tasks)]
        start = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for share in shares:
                group.create_task(work(share))
        return perf_counter_ns() - start

    def timer(keys: Sequence[str]) -> int:
        elapsed: int = runner.run(crowd(keys))
        return elapsed

    return timer


async def _singly(url: str) -> str:
    """Tell what becomes of many tasks that ask one by one with the pool that redis-py makes by itself."""
    import redis.asyncio

    decode = decoder()
    async with redis.asyncio.Redis.from_url(url) as client:

        async def ask(key: str) -> object:
            return decode(await client.get(PLAIN + key))

        outcomes = await asyncio.gather(*map(ask, HOT_KEYS[:MANY]), return_exceptions=True)
    failures = [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, BaseException)]
    return f"{len(failures)} of {MANY} failed: {failures[0]}" if failures else "all answered"


# S2 -------------------------------------------------------------------------------------------------------------------


@on_redis("S2")
def sync_gets(scale: Scale, url: str) -> Result:
    """Time hits one after another."""
    import redis

    keep_plain_records(url)
    decode = decoder()
    with new_cache(url) as cache, redis.Redis.from_url(url) as client:
        decorated = warm(cache.cached(load_user))
        contenders = [
            Contender("credenza", sync_timer(lambda key: cache.get(key, type=User)), "cache.get, maxsize=0"),
            Contender("credenza @cached", sync_timer(decorated), "@cached, maxsize=0"),
            Contender("redis-py", sync_timer(lambda key: decode(client.get(PLAIN + key))), "GET and decode, hiredis"),
        ]
        stream = hot_stream(300)
        samples = measure(contenders, lambda _: stream, rounds=scale.slow_rounds)
    note = f"{version_of(url)}. Each but the decorated one is called through a lambda."
    return Result(
        (compare("S2", samples, "credenza", "redis-py"),),
        (table_of("Hits one after another, memory tier off", samples, base="credenza", note=note),),
    )


# S3 -------------------------------------------------------------------------------------------------------------------


@on_redis("S3")
def bulk_gets(scale: Scale, url: str) -> Result:
    """Time look-ups of a hundred keys at once, one after another, in both colours."""
    import redis
    import redis.asyncio

    keep_plain_records(url)
    batches = {str(number): HOT_KEYS[number : number + BATCH] for number in range(0, len(HOT_KEYS), BATCH)}
    names = {number: [PLAIN + key for key in keys] for number, keys in batches.items()}
    decode = decoder()
    with new_cache(url) as cache, redis.Redis.from_url(url) as client, asyncio.Runner() as runner:
        async_client: Any = redis.asyncio.Redis.from_url(url)

        def theirs(number: str) -> object:
            return dict(zip(batches[number], map(decode, client.mget(names[number])), strict=True))

        async def theirs_async(number: str) -> object:
            return dict(zip(batches[number], map(decode, await async_client.mget(names[number])), strict=True))

        async def ours_async(number: str) -> object:
            return await cache.aio.get_many(batches[number], type=User)

        contenders = [
            Contender(
                "credenza", sync_timer(lambda number: cache.get_many(batches[number], type=User)), "get_many, maxsize=0"
            ),
            Contender("redis-py", sync_timer(theirs), "MGET and decode into a dict, hiredis"),
            Contender("credenza async", async_timer(ours_async, runner), "aio.get_many, maxsize=0"),
            Contender("redis-py async", async_timer(theirs_async, runner), "the same, redis.asyncio"),
        ]
        samples = measure(contenders, lambda _: list(batches), rounds=scale.slow_rounds)
        runner.run(async_client.aclose())
        runner.run(cache.aio.close())
    in_tasks = samples.ratio("credenza async", "redis-py async").median
    return Result(
        (compare("S3", samples, "credenza", "redis-py", note=f"async: {in_tasks:.3g}"),),
        (table_of(f"{BATCH} keys at once, memory tier off", samples, base="credenza", note=version_of(url) + "."),),
    )
