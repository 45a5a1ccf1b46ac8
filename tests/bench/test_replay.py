"""A replay counts hits as anybody would by hand."""

from bench.replay import Row, hit_ratio


def test_replay_counts_the_hits():
    """Three of four requests for a key that fits are hits."""
    assert hit_ratio([1, 1, 1, 1], 10, "lru") == 75.0


def test_lru_replay_of_a_loop_that_does_not_fit_never_hits():
    """The classic worst case, which tells that the capacity is the one asked for."""
    assert hit_ratio(list(range(11)) * 5, 10, "lru") == 0.0
    assert hit_ratio(list(range(10)) * 5, 10, "lru") == 80.0


def test_gap_is_to_the_best_rival_and_not_to_the_optimum():
    """Belady knows the future and is no rival."""
    others = dict.fromkeys(("LRU", "Sieve", "S3FIFO", "WTinyLFU", "ARC", "LIRS", "Clock2QPlus"), 40.0)
    row = Row("t", "0.01", 10, {"s3fifo": 41.5, "lru": 30.0}, {**others, "LIRS": 42.0, "Belady": 60.0})
    assert row.gap == 0.5
