"""Hits in the forms that users write: with a template and tags, on a method, over a shared tier. P1a, P1b and P1c."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import credenza
from bench import ours
from bench.goals import GOALS, Outcome, Result, compare, table_of
from bench.measure import Contender, Key, Timer, measure, sync_timer, with_code_of_its_own
from bench.peers import MAXSIZE, TTL, is_installed
from bench.scale import Scale
from bench.streams import HOT_KEYS, hot_stream

LRU = "functools.lru_cache"
README = "credenza, template and tags"
METHOD, LRU_METHOD = "credenza method", "functools.lru_cache method"
WITHOUT, WITH = "credenza", "credenza, tier below"
FIRST_USER = 1_000
"""Beyond the small integers, of which there is one object each."""


def hits_by_template(scale: Scale) -> Result:
    """Time hits of the function in the README: an integer argument, a template and a tag."""
    cached = ours.new_cache().cached
    builds: list[tuple[str, Callable[..., Any], str]] = [
        ("credenza", cached(_user), f"Cache({MAXSIZE}, ttl={TTL}).cached"),
        ("credenza, template", cached(key="user:{user_id}")(_user), 'key="user:{user_id}"'),
        (README, cached(key="user:{user_id}", tags=["users"])(_user), 'key="user:{user_id}", tags=["users"]'),
        (LRU, functools.lru_cache(maxsize=MAXSIZE)(_user), f"maxsize={MAXSIZE}"),
    ]
    users = range(FIRST_USER, FIRST_USER + len(HOT_KEYS))
    for _, function, _ in builds:
        for user in users:
            function(user)
    stream: Any = random.Random(5).choices(users, k=10_000)  # Any: integers where other comparisons have text
    samples = measure(
        [Contender(name, sync_timer(f), setting) for name, f, setting in builds], lambda _: stream, rounds=scale.rounds
    )
    return Result(
        (compare("P1a", samples, README, LRU),),
        (table_of("Hit by a template, integer argument", samples, base=README),),
    )


def _user(user_id: int) -> str:
    return f"user {user_id}"


def hits_of_methods(scale: Scale) -> Result:
    """Time hits of a cached method, looked up on the instance for each call as a service does."""
    cache = ours.new_cache()

    class Service:
        @cache.cached
        def mine(self, key: str) -> str:
            return key

        @functools.lru_cache(maxsize=MAXSIZE)  # noqa: B019  # it is what is compared with
        def theirs(self, key: str) -> str:
            return key

    service = Service()
    for key in HOT_KEYS:
        service.mine(key)
        service.theirs(key)
    contenders = [
        Contender(METHOD, _timer_of_mine(service), "@cache.cached, keyed by the instance, held weakly"),
        Contender(LRU_METHOD, _timer_of_theirs(service), f"maxsize={MAXSIZE}; it keeps the instance alive"),
    ]
    stream = hot_stream(10_000)
    samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
    return Result(
        (compare("P1b", samples, METHOD, LRU_METHOD),),
        (table_of("Hit of a method", samples, base=METHOD),),
    )


def _timer_of_mine(service: Any) -> Timer:
    def ask_each(keys: Sequence[Key]) -> int:
        start = perf_counter_ns()
        for key in keys:
            service.mine(key)
        return perf_counter_ns() - start

    return with_code_of_its_own(ask_each)


def _timer_of_theirs(service: Any) -> Timer:
    def ask_each(keys: Sequence[Key]) -> int:
        start = perf_counter_ns()
        for key in keys:
            service.theirs(key)
        return perf_counter_ns() - start

    return with_code_of_its_own(ask_each)


def hits_over_a_tier(scale: Scale) -> Result:
    """Time hits in memory with a shared tier below, whose proof of freshness each hit has to look at."""
    if not is_installed("msgspec"):
        return Result((Outcome(GOALS["P1c"], None, note="not measured: msgspec not installed"),))
    with tempfile.TemporaryDirectory(prefix="credenza-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'below.db'}"
        with (
            ours.new_cache() as alone,
            credenza.Cache[str, Any](remote=url, maxsize=MAXSIZE, ttl=TTL, coherence="bounded") as shared,
        ):
            contenders = []
            for cache, name, setting in ((alone, WITHOUT, "no tier"), (shared, WITH, 'SQLite, coherence="bounded"')):
                function = cache.cached(ours.load)
                for key in HOT_KEYS:
                    function(key)
                    cache.set(key, key)
                contenders.append(Contender(name, sync_timer(function), f"@cached, {setting}"))
                contenders.append(Contender(f"{name}, get", sync_timer(cache.get), f"cache.get, {setting}"))
            stream = hot_stream(10_000)
            samples = measure(contenders, lambda _: stream, rounds=scale.rounds)
            stats = shared.stats()
    asked = f"The tier was asked for {stats.shared_hits + stats.misses - len(HOT_KEYS):,} of the hits."
    return Result(
        (compare("P1c", samples, WITH, WITHOUT),),
        (table_of("Hit in memory, a shared tier below", samples, base=WITH, note=asked, lines=[("P1c", WITHOUT)]),),
    )
