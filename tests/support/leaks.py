"""A cache that is used in every way, a million times over, and what grows meanwhile: `python -m tests.support.leaks`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credenza import MISSING, Cache, Loaded, NotFound
from credenza.testing import FakeClock

_KEYS = 50
_ROUND = 2_000
_WARM_UP = 5
_MOST_NEW = 300
_OPERATIONS_FOR_ONE_MORE = 300
"""Python itself miscounts `None` by a few in a thousand coroutines and functions; a step that leaks does so each time."""

_MOST_NEW_KIB = 2_048
_IMMORTAL = 1 << 30
"""Counts from here on are not kept: `None` is immortal since Python 3.12."""

Step = Callable[[random.Random], object]


class Uses:
    """One cache of each kind, and every way to use it; nothing of what they do is to be left behind."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keys = [("key", number) for number in range(_KEYS)]
        self.value = object()
        self.loop = asyncio.new_event_loop()
        self.caches = [
            Cache[Any, Any](maxsize=20, clock=self.clock, ttl=5, jitter=0.5),
            Cache[Any, Any](maxsize=20, clock=self.clock, ttl=5, eviction="lru", stale_if_error=3),
            Cache[Any, Any](maxsize=None, max_weight=30, weigher=lambda value: 2, clock=self.clock, idle_ttl=3),
        ]
        self.functions = [function for cache in self.caches for function in self._functions(cache)]
        self.async_functions = [cache.cached(self._later) for cache in self.caches]
        self.async_functions += [cache.cached(tags=["t:{key}"])(self._later) for cache in self.caches[:1]]

    def close(self) -> None:
        """End what was begun."""
        self.loop.close()

    def _functions(self, cache: Cache[Any, Any]) -> list[Any]:
        def one(key: Any) -> Any:
            return self.value

        def some(key: Any, other: Any = 1, third: Any = 2) -> Any:
            return Loaded(self.value, ttl=2, tags=["t"]) if key[1] % 5 == 0 else self.value

        return [
            cache.cached(one),
            cache.cached(some),
            cache.cached(typed=True)(one),
            cache.cached(key="one:{key}")(one),
        ]

    async def _later(self, key: Any) -> Any:
        return self.value

    def key(self, rng: random.Random) -> Any:
        """Return a key, known or new; equal to one of few."""
        return rng.choice(self.keys) if rng.random() < 0.5 else ("key", rng.randrange(_KEYS))

    def steps(self) -> list[Step]:
        """Return every kind of step, hits and misses by hand and by call, and whatever ends an entry."""
        return [
            lambda rng: self.cache(rng).get(self.key(rng)),
            lambda rng: self.cache(rng).set(self.key(rng), self.value, tags=["t", f"own:{rng.randrange(9)}"]),
            lambda rng: self.cache(rng).set(self.key(rng), object(), ttl=rng.choice((1, None))),
            lambda rng: self.cache(rng).get_or_load(self.key(rng), object),
            lambda rng: self.key(rng) in self.cache(rng),
            self._call,
            self._call,
            self._call_by_name,
            self._call_wrongly,
            self._await,
            self._await,
            self._drop_hit,
            self._invalidate,
            lambda rng: self.cache(rng).invalidate_tags("t", f"own:{rng.randrange(9)}"),
            self._write,
            self._fail,
            self._ask_helpers,
            self._use_what_has_no_hash,
            self._come_and_go,
            lambda rng: self.clock.advance(0.05),
            lambda rng: self.cache(rng).clear() if rng.random() < 0.05 else None,
        ]

    def cache(self, rng: random.Random) -> Cache[Any, Any]:
        """Return one of the caches."""
        return rng.choice(self.caches)

    def _call(self, rng: random.Random) -> None:
        function, key = rng.choice(self.functions), self.key(rng)
        assert function(key) is function(key) is self.value

    def _call_by_name(self, rng: random.Random) -> None:
        rng.choice(self.functions)(key=self.key(rng))
        self.functions[1](self.key(rng), third=rng.randrange(3))
        self.functions[1](self.key(rng), 1, 2)

    def _call_wrongly(self, rng: random.Random) -> None:
        for arguments in ((), (1, 2, 3, 4)):
            try:
                rng.choice(self.functions)(*arguments)
            except TypeError:
                pass

    def _await(self, rng: random.Random) -> None:
        function = rng.choice(self.async_functions)

        async def main() -> None:
            key = self.key(rng)
            assert await function(key) is self.value
            await asyncio.gather(function(key), function(key=key), asyncio.create_task(function(key)))

        self.loop.run_until_complete(main())

    def _drop_hit(self, rng: random.Random) -> None:
        """Begin and end a coroutine by hand, in every way."""
        function, key = rng.choice(self.async_functions), self.key(rng)
        self.loop.run_until_complete(_await(function(key)))
        for end in (_close, _throw, _send, _send_too_much):
            awaitable = function(key)
            end(awaitable)
            awaitable.close()

    def _invalidate(self, rng: random.Random) -> None:
        self.cache(rng).invalidate(self.key(rng), self.key(rng))
        rng.choice(self.functions).invalidate(self.key(rng))

    def _write(self, rng: random.Random) -> None:
        key = self.key(rng)
        cache = self.cache(rng)
        with cache.writing(key, tags=["t"]):
            cache.set(key, 1)

    def _fail(self, rng: random.Random) -> None:
        for error in (KeyError("gone"), NotFound("gone")):
            try:
                self.cache(rng).get_or_load(self.key(rng), lambda error=error: _raise(error))
            except (KeyError, NotFound):
                pass

    def _ask_helpers(self, rng: random.Random) -> None:
        function = rng.choice(self.functions)
        for helper in (function.peek, function.key_for, function.refresh):
            helper(self.key(rng))
        for read_out in (function.cache_info, self.cache(rng).stats, function.__repr__):
            read_out()
        if rng.random() < 0.02:
            function.cache_clear()

    def _use_what_has_no_hash(self, rng: random.Random) -> None:
        cache = self.cache(rng)
        for use in (cache.get, cache.invalidate, rng.choice(self.functions), rng.choice(self.functions).peek):
            try:
                use([])
            except TypeError:
                pass

    def _come_and_go(self, rng: random.Random) -> None:
        """Make a cache and functions, a part of them in cycles, and drop them."""
        if rng.random() > 0.02:
            return
        cache: Cache[Any, Any] = Cache(maxsize=3)
        function = cache.cached(lambda key: [cache])
        for number in range(6):
            function(number)
            cache.set(number, [cache] if number % 2 else number, tags=["t"])
        self.cache(rng).cached(lambda key: object())(1)


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _raise(error: Exception) -> Any:
    raise error.with_traceback(None)


def _close(awaitable: Coroutine[Any, Any, Any]) -> None:
    awaitable.close()


def _send(awaitable: Coroutine[Any, Any, Any]) -> None:
    try:
        awaitable.send(None)
    except StopIteration:
        pass


def _send_too_much(awaitable: Coroutine[Any, Any, Any]) -> None:
    try:
        awaitable.send(1)
    except TypeError:
        pass


def _throw(awaitable: Coroutine[Any, Any, Any]) -> None:
    try:
        awaitable.throw(KeyError("thrown"))
    except KeyError:
        pass


@dataclass(frozen=True)
class Reading:
    """What may grow: the memory of the process, the objects of the collector, and references to what is always there."""

    kib: int
    objects: int
    references: dict[str, int]

    def growth_since(self, before: Reading, operations: int, *, watches_memory: bool) -> list[str]:
        """Return a line for each thing that grew by more than use explains, or whose references became fewer."""
        found = []
        most = _MOST_NEW + operations // _OPERATIONS_FOR_ONE_MORE
        if watches_memory and self.kib - before.kib > _MOST_NEW_KIB:
            found.append(f"memory grew from {before.kib} to {self.kib} KiB")
        if self.objects - before.objects > most:
            found.append(f"the collector saw {before.objects} objects, then {self.objects}")
        for name, count in self.references.items():
            earlier = before.references[name]
            if abs(count - earlier) > most and count < _IMMORTAL:
                found.append(f"references to {name} went from {earlier} to {count}")
        return found


def read(uses: Uses) -> Reading:
    """Return how much there is of everything, with the caches emptied."""
    for cache in uses.caches:
        cache.clear()
    for _ in range(3):
        gc.collect()
    watched: dict[str, Any] = {"None": None, "True": True, "the empty tuple": (), "a value": uses.value, "1": 1}
    watched["MISSING"] = MISSING
    watched |= {f"key {number}": uses.keys[number] for number in (0, 1, _KEYS - 1)}
    watched |= {f"the policy of cache {number}": cache.policy for number, cache in enumerate(uses.caches)}
    watched |= {f"the type {kind.__name__}": kind for kind in _kinds(uses)}
    return Reading(_kib(), len(gc.get_objects()), {name: sys.getrefcount(thing) for name, thing in watched.items()})


def _kinds(uses: Uses) -> Iterable[type]:
    """Return the types of the implementation, which each of their instances refers to."""
    entry = uses.caches[0]._engine.state
    return [type(entry.table), type(entry.tally), type(uses.functions[0]), type(uses.async_functions[0])]


def _kib() -> int:
    """Return the memory that the process has in use; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def search(operations: int, *, extra: Step | None = None, watches_memory: bool = True) -> list[str]:
    """Use the caches so many times, and return what grew; an empty list is what one hopes for.

    Args:
        operations: how many steps, those to warm up not counted.
        extra: one more step to take, for whoever wants to see a leak.
        watches_memory: in a process of its own the memory tells something, too.
    """
    uses = Uses()
    try:
        rng = random.Random(1)
        steps = uses.steps() + ([extra] if extra is not None else [])
        for _ in range(_WARM_UP):
            _use(steps, rng, _ROUND)
            read(uses)
        before = read(uses)
        _use(steps, rng, operations)
        return read(uses).growth_since(before, operations, watches_memory=watches_memory)
    finally:
        uses.close()


def _use(steps: list[Step], rng: random.Random, operations: int) -> None:
    for number in range(operations):
        steps[number % len(steps)](rng)


def main() -> int:
    """Say what grew, and return 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--pure", action="store_true", help="look at the pure implementation, as with CREDENZA_PURE=1")
    options = parser.parse_args()
    if options.pure and os.environ.get("CREDENZA_PURE", "0") in {"", "0"}:
        arguments = [sys.executable, "-m", "tests.support.leaks", "--operations", str(options.operations)]
        os.execve(sys.executable, arguments, {**os.environ, "CREDENZA_PURE": "1"})
    from credenza.memory.implementation import implementation

    found = search(options.operations)
    verdict = "something leaks" if found else "nothing grew"
    lines = [*found, f"{implementation()}: {options.operations} operations, {verdict}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
