"""Rounds are interleaved, ratios are taken inside a round, and the loop is subtracted."""

import asyncio

import pytest
from bench.measure import Contender, Samples, Spread, async_timer, measure, spread, sync_timer


def test_spread_is_median_and_quartiles():
    """The quartiles include the ends."""
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


def test_every_contender_gets_the_same_keys_in_every_round():
    """Nobody is asked more than anybody else, and the warm-up is not counted."""
    asked = {"a": [], "b": []}

    def timer_of(name):
        def timer(keys):
            asked[name].append(tuple(keys))
            return 1_000

        return timer

    found = measure([Contender(name, timer_of(name)) for name in asked], lambda number: [f"k{number}"] * 10, rounds=3)
    assert asked["a"] == asked["b"]
    assert [keys[0] for keys in asked["a"]] == ["k0", "k1", "k2", "k3"]
    assert [len(row) for row in found.per_operation.values()] == [3, 3]


def test_loop_is_subtracted():
    """What remains is the operation alone."""
    found = measure([Contender("a", lambda _: 1_000_000)], lambda _: ["k"] * 100, rounds=3)
    assert found.loop_ns > 0
    assert found.spread("a").median == pytest.approx(10_000 - found.loop_ns)


def test_slow_contender_is_asked_for_fewer_keys_and_compared_per_operation():
    """One in ten of the same keys; its figure is per key that it was asked for."""
    asked = []

    def timer(keys):
        asked.append(len(keys))
        return 1_000_000 * len(keys)

    found = measure([Contender("a", timer, one_in=10)], lambda _: ["k"] * 100, rounds=2)
    assert asked == [10, 10, 10]
    assert found.spread("a").median == pytest.approx(1_000_000 - found.loop_ns)


def test_ratio_is_taken_inside_each_round():
    """A round in which the machine was slow for both does not move the ratio."""
    found = Samples({"ours": [1.0, 50.0, 2.0], "theirs": [2.0, 100.0, 4.0]}, {}, 0.0, 1)
    assert found.ratio("ours", "theirs") == Spread(0.5, 0.5, 0.5)


def test_fastest_ignores_who_is_absent():
    """A peer that is not installed cannot be the fastest."""
    found = Samples({"a": [3.0], "b": [2.0]}, {}, 0.0, 1)
    assert found.fastest(["a", "b", "absent"]) == "b"
    assert found.fastest(["absent"]) is None


def test_timers_ask_for_each_key_once():
    """The sync and the async timer both walk over the keys."""
    asked = []

    async def ask(key):
        asked.append(key)

    assert sync_timer(asked.append)(["a", "b"]) > 0
    with asyncio.Runner() as runner:
        assert async_timer(ask, runner)(["c", "d"]) > 0
    assert asked == ["a", "b", "c", "d"]


def test_timers_share_no_code():
    """A call site that one contender has warmed up is not the next one's."""
    assert sync_timer(str).__code__ is not sync_timer(str).__code__
