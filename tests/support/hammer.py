"""Threads that use one small cache as hard as they can: `python -m tests.support.hammer --seconds 60`."""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.support.invariants import check_cache

from credenza import Cache, Loaded, NotFound

_PAUSES_PER_RUN = 4
_STEPS_PER_LOOK = 50
_KEYS = 60
_MOST_SECONDS_FOR_A_STEP = 30.0

Step = Callable[[random.Random], None]


class Hammer:
    """One small cache, the functions cached in it, and threads that use them until they are told to pause.

    Args:
        threads: how many.
        eviction: "s3fifo" or "lru".
        with_weights: values have weights, and their sum is bounded too.
    """

    def __init__(self, threads: int = 8, *, eviction: str = "s3fifo", with_weights: bool = False) -> None:
        self._threads = threads
        weights: dict[str, Any] = {"max_weight": 50, "weigher": _weigh} if with_weights else {}
        self.cache: Cache[Any, Any] = Cache(maxsize=24, eviction=eviction, ttl=0.005, stale_if_error=0.002, **weights)
        self._plain = self.cache.cached(ttl=0.01)(_value_of)
        self._quick = self.cache.cached(ttl=30, stale_if_error=0)(_value_of)
        self._tagged = self.cache.cached(tags=["even:{parity}"])(_tagged_value)
        self._pairs = self.cache.cached(stale_if_error=0)(_pair)
        self.steps = 0
        self.errors: list[BaseException] = []
        self._count = threading.Lock()  # guards steps

    def run(self, seconds: float) -> None:
        """Hammer for so long, and check the cache at pauses and at the end.

        Raises:
            AssertionError: a value is wrong, a thread hangs, or the cache does not add up.
        """
        for number in range(_PAUSES_PER_RUN):
            self._round(seconds / _PAUSES_PER_RUN, number)
            if self.errors:
                raise self.errors[0]
            check_cache(self.cache)
            self._check_bounds()

    def _check_bounds(self) -> None:
        stats = self.cache.stats()
        assert stats.size <= 24, stats
        assert stats.flights == 0, stats

    def _round(self, seconds: float, number: int) -> None:
        ends = time.monotonic() + seconds
        start = threading.Barrier(self._threads)
        threads = [
            threading.Thread(target=self._work, args=(start, ends, number * 1_000 + place), daemon=True)
            for place in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + _MOST_SECONDS_FOR_A_STEP)
            assert not thread.is_alive(), "a thread hangs"

    def _work(self, start: threading.Barrier, ends: float, seed: int) -> None:
        rng = random.Random(seed)
        steps = self._steps()
        done = 0
        try:
            start.wait(_MOST_SECONDS_FOR_A_STEP)
            while time.monotonic() < ends and not self.errors:
                for _ in range(_STEPS_PER_LOOK):
                    rng.choice(steps)(rng)
                done += _STEPS_PER_LOOK
        except BaseException as error:
            self.errors.append(error)
        with self._count:
            self.steps += done

    def _steps(self) -> list[Step]:
        """Return the kinds of steps, hits more often than the rest."""
        hits: list[Step] = [self._hit, self._call_quick, self._call_plain, self._call_pair, self._call_tagged]
        return hits * 3 + [
            self._insert,
            self._insert_tagged,
            self._load,
            self._invalidate,
            self._invalidate_tag,
            self._invalidate_call,
            self._write,
            self._look,
            self._clear,
        ]

    def _hit(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        value = self.cache.get(key)
        assert value is None or value[0] == key, (key, value)

    def _call_quick(self, rng: random.Random) -> None:
        key = rng.randrange(8)
        assert self._quick(key)[0] == key

    def _call_plain(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        assert self._plain(number=key)[0] == key

    def _call_pair(self, rng: random.Random) -> None:
        first, second = rng.randrange(6), rng.randrange(2)
        value = self._pairs(first, second) if second else self._pairs(first=first)
        assert value == ("pair", first, second)

    def _call_tagged(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        assert self._tagged(key, key % 2)[0] == key

    def _insert(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        self.cache.set(key, _value_of(key), ttl=rng.choice((0.001, 1, None)))

    def _insert_tagged(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        self.cache.set(key, _value_of(key), tags=[f"even:{key % 2}", f"own:{key}"])

    def _load(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        ttl, tags = rng.choice((0.001, 1)), [f"own:{key}"]
        value = self.cache.get_or_load(key, lambda: Loaded(_value_of(key), ttl=ttl, tags=tags))
        assert value[0] == key, (key, value)

    def _invalidate(self, rng: random.Random) -> None:
        self.cache.invalidate(rng.randrange(_KEYS), rng.randrange(_KEYS))

    def _invalidate_tag(self, rng: random.Random) -> None:
        self.cache.invalidate_tags(rng.choice(("even:0", "even:1", f"own:{rng.randrange(_KEYS)}")))

    def _invalidate_call(self, rng: random.Random) -> None:
        self._quick.invalidate(rng.randrange(8))
        self._tagged.invalidate(rng.randrange(_KEYS), 0)

    def _write(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        with self.cache.writing(key, tags=[f"own:{key}"]):
            self.cache.get(key)

    def _look(self, rng: random.Random) -> None:
        key = rng.randrange(_KEYS)
        value = self._plain.peek(key)
        assert value is None or value[0] == key, (key, value)
        try:
            self.cache.get_or_load(("none", key), _find_nothing)
        except NotFound:
            pass

    def _clear(self, rng: random.Random) -> None:
        if rng.random() < 0.02:
            self.cache.clear()
        elif rng.random() < 0.05:
            self._plain.cache_clear()


def _value_of(number: int) -> tuple[int, bytearray]:
    return number, bytearray(20)  # a new object each time, so that one that is freed too early shows


def _tagged_value(number: int, parity: int) -> tuple[int, int]:
    return number, parity


def _pair(first: int, second: int = 0) -> tuple[str, int, int]:
    return "pair", first, second


def _find_nothing() -> Any:
    raise NotFound


def _weigh(value: Any) -> int:
    return value[0] % 4 if isinstance(value[0], int) else 1


def main() -> int:
    """Hammer every kind of cache for a part of the time each, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    sys.setswitchinterval(1e-5)  # as many interleavings as there can be
    kinds = [(eviction, weights) for eviction in ("s3fifo", "lru") for weights in (False, True)]
    for eviction, with_weights in kinds:
        hammer = Hammer(options.threads, eviction=eviction, with_weights=with_weights)
        hammer.run(options.seconds / len(kinds))
        weights = "with" if with_weights else "without"
        told = f"{eviction} {weights} weights: {hammer.steps} steps of {options.threads} threads, all adds up"
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
