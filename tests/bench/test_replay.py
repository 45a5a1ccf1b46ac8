"""A replay counts hits as anybody would by hand."""

import random

import pytest
from bench.replay import Row, hit_ratio

import credenza


def test_replay_counts_the_hits():
    """Three of four requests for a key that fits are hits."""
    assert hit_ratio([1, 1, 1, 1], 10, "lru") == 75.0


def test_lru_replay_of_a_loop_that_does_not_fit_never_hits():
    """The classic worst case, which tells that the capacity is the one asked for."""
    assert hit_ratio(list(range(11)) * 5, 10, "lru") == 0.0
    assert hit_ratio(list(range(10)) * 5, 10, "lru") == 80.0


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
def test_replay_agrees_with_the_cache_itself(eviction):
    """Driving the table directly leaves out what a cache does around it, and nothing that decides what is kept."""
    chooser = random.Random(3)
    requests = [int(chooser.paretovariate(0.6)) % 400 for _ in range(5_000)]
    misses = 0
    with credenza.Cache(maxsize=40, eviction=eviction, ttl=None) as cache:
        for key in requests:
            if cache.get(key) is None:
                misses += 1
                cache.set(key, True)
    assert 0 < misses < len(requests)
    assert hit_ratio(requests, 40, eviction) == 100 * (1 - misses / len(requests))


def test_gap_is_to_the_best_rival_and_not_to_the_optimum():
    """Belady knows the future and is no rival."""
    others = dict.fromkeys(("LRU", "Sieve", "S3FIFO", "WTinyLFU", "ARC", "LIRS", "Clock2QPlus"), 40.0)
    row = Row("t", "0.01", 10, {"s3fifo": 41.5, "lru": 30.0}, {**others, "LIRS": 42.0, "Belady": 60.0})
    assert row.gap == 0.5
