"""Time over processes: ttl, stale windows, negative entries, early refresh. The clocks of the processes differ."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.support.processes import TTL, Process, World, elsewhere
from tests.support.waiting import wait_until

from credenza import Loaded, NotFound
from credenza.testing import CountingLoader
from credenza.tiers.base import Lease

SLACK = 0.01  # a value is a few milliseconds older in the eyes of another process, never younger


def all_ended(*processes: Process) -> None:
    """Wait until no load is under way."""
    wait_until(lambda: not any(process.state.flights for process in processes), "all loads end")


# Ttl ------------------------------------------------------------------------------------------------------------------


def test_value_is_as_old_in_another_process_as_in_its_own(one: Process, two: Process, world: World) -> None:
    """F1: a value from the tier keeps its age; it is fresh until its ttl is over, and not a moment longer."""
    one.read("k", "old")
    world.advance(TTL - 1)
    fetched = two.do("fetch", "k", lambda: "other")
    assert fetched.value == "old"
    assert TTL - 1 <= fetched.age < TTL - 1 + SLACK
    world.advance(1 - SLACK)
    assert two.fetch("k", "new") == ("old", "hit")
    world.advance(SLACK)
    assert two.fetch("k", "new") == ("new", "miss")
    assert one.fetch("k", "newer") == ("new", "shared")


def test_expired_value_is_gone_from_the_tier(one: Process, two: Process, world: World) -> None:
    """A record lives as long as its value may be used; nothing is left for ever."""
    one.read("k", "old")
    world.clock.advance(TTL)
    assert world.record("k") == b""
    assert two.fetch("k", "new") == ("new", "miss")


TTLS: dict[str, tuple[dict[str, Any], Any]] = {
    "an option": ({"ttl": 10}, "value"),
    "a timedelta": ({"ttl": timedelta(seconds=10)}, "value"),
    "a callable": ({"ttl": lambda value: 10 if value == "value" else 99}, "value"),
    "Loaded": ({}, Loaded("value", ttl=10)),
}


@pytest.mark.parametrize("way", TTLS)
def test_ttl_of_one_value_holds_in_every_process(one: Process, two: Process, world: World, way: str) -> None:
    """However the ttl of a value was chosen, other processes are held to it, whatever their own options say."""
    options, result = TTLS[way]
    one.read("k", lambda: result, **options)
    world.advance(9)
    assert two.fetch("k", "new") == ("value", "shared")
    world.advance(1)
    assert two.fetch("k", "new") == ("new", "miss")


@pytest.mark.parametrize("ttl", [None, "1d"])
def test_long_ttl_travels(one: Process, two: Process, world: World, ttl: str | None) -> None:
    """A value that never expires is one in every process."""
    one.do("set", "k", "value", ttl=ttl)
    world.clock.advance(20 * 3600)
    world.keep_up()
    assert two.fetch("k", "other") == ("value", "shared")


def test_value_that_is_not_to_be_kept_is_kept_nowhere(one: Process, two: Process, world: World) -> None:
    """`Loaded(value, ttl=0)` leaves no record, and no lease for others to wait for."""
    assert one.read("k", lambda: Loaded("value", ttl=0)) == "value"
    assert world.record("k") == b""
    assert two.fetch("k", "other") == ("other", "miss")
    assert two.pauses == []


def test_value_that_is_not_to_be_kept_takes_the_older_one_away(one: Process, two: Process, world: World) -> None:
    """What is newer than a stale value and not to be kept leaves nothing of it in the tier, either."""
    one.do("set", "k", "old")
    function = two.cache.cached(key="k")(_coloured(two, lambda: Loaded("new", ttl=0)))
    assert two.run(function.refresh) == "new"
    assert world.record("k") == b""


def test_jitter_is_drawn_once(world: World) -> None:
    """The process that loads shortens the ttl; others take the value as it is."""
    one, two = world.pair(jitter=0.5)
    one.state.random = lambda: 0.5
    two.state.random = lambda: 1.0
    one.read("k", "value")
    world.advance(74)
    assert two.fetch("k", "new") == ("value", "shared")
    world.advance(1)
    assert two.fetch("k", "new") == ("new", "miss")


# Stale while one process refreshes ------------------------------------------------------------------------------------


@pytest.fixture
def stale(world: World) -> tuple[Process, Process]:
    """Two processes, one of which holds a stale value; the tier has it too."""
    one, two = world.pair(stale_while_revalidate=50, stale_if_error=50, error_backoff=1)
    one.read("k", "old")
    world.advance(TTL + 1)
    return one, two


@pytest.mark.parametrize("is_in_memory", [False, True], ids=["from the tier", "from memory"])
def test_stale_value_is_refreshed_once_in_all_processes(stale: tuple[Process, Process], is_in_memory: bool) -> None:
    """F3: readers of every process get the stale value at once, while one refresh runs for all of them."""
    one, two = stale
    if is_in_memory:
        assert two.do("get_many", ["k"]) == {}  # stale, and in memory from now on
    held = one.held("new")
    assert one.fetch("k", held) == ("old", "stale")
    held.wait_until_called()
    loader = CountingLoader("other")
    two.at_pause = lambda number: number == 2 and (held.release(), all_ended(one))
    assert two.fetch("k", loader) == ("old", "stale")
    all_ended(one, two)
    assert one.fetch("k", loader) == ("new", "hit")
    assert two.fetch("k", loader)[0] == "new"
    assert (held.calls, loader.calls) == (1, 0)


def test_stale_value_stays_readable_for_others_meanwhile(stale: tuple[Process, Process], world: World) -> None:
    """While it is refreshed, the stale value is in the tier for processes that come along; they are not kept waiting."""
    one, two = stale
    held = one.held("new")
    assert one.read("k", held) == "old"
    held.wait_until_called()
    three = world.process(stale_while_revalidate=50)
    three.at_pause = lambda number: number == 1 and (held.release(), all_ended(one))
    assert three.fetch("k", "other") == ("old", "stale")
    all_ended(one, three)
    assert two.fetch("k", "other") == ("new", "shared")


def test_refresh_reaches_the_others_when_they_look_again(stale: tuple[Process, Process]) -> None:
    """A process that holds the stale value looks in the tier before it loads, and finds what another one has refreshed."""
    one, two = stale
    assert two.read("k", "other") == "old"
    all_ended(two)
    loader = CountingLoader("newer")
    assert one.fetch("k", loader) == ("old", "stale")
    all_ended(one)
    assert one.fetch("k", loader) == ("other", "hit")
    assert loader.calls == 0


def test_failed_refresh_leaves_the_stale_value_to_all(stale: tuple[Process, Process], world: World) -> None:
    """A refresh that fails gives its lease back; the value stays, the process backs off, and others may try."""
    one, two = stale
    failing = CountingLoader("new", error=OSError("no database"))
    assert one.fetch("k", failing) == ("old", "stale")
    all_ended(one)
    assert one.fetch("k", failing) == ("old", "stale")
    assert failing.calls == 1
    assert two.fetch("k", "new") == ("old", "stale")
    all_ended(two)
    assert two.pauses == []
    assert two.fetch("k", "other") == ("new", "hit")


def test_stale_value_of_a_reader_without_windows_is_loaded_anew(stale: tuple[Process, Process], world: World) -> None:
    """Whether a stale value may be served is said by whoever reads it."""
    three = world.process()
    assert three.fetch("k", "new") == ("new", "miss")


def test_lease_outlives_the_value_that_it_replaces(world: World) -> None:
    """L1: the stale value's time ends while it is loaded anew: it is served no more, and nobody else begins a load."""
    one, two = world.pair(stale_if_error=2)
    one.read("k", "old")
    world.advance(TTL + 1)
    held = one.held("new")
    loading = one.begin_read("k", held)
    held.wait_until_called()
    for _ in range(4):
        world.advance(0.7)
        one.keep_up()
    assert two.do("get", "k") is None
    loader = CountingLoader("other")
    two.at_pause = lambda number: number == 1 and (held.release(), all_ended(one))
    assert two.fetch("k", loader)[0] == "new"
    assert (loading.result(), loader.calls) == ("new", 0)


def test_refresh_whose_process_is_killed_is_taken_over(stale: tuple[Process, Process], world: World) -> None:
    """The token of a refresh has a deadline: when its holder is killed, another process refreshes."""
    one, _ = stale
    record = world.record("k")
    seen = record[25:41]
    world.tier.perform([Lease(world.name("k"), b"somebody else's.", 2_000, seen, keeps=True)], 1)
    loader = CountingLoader("new")
    assert one.fetch("k", loader) == ("old", "stale")
    all_ended(one)
    assert sum(one.pauses) >= 1.9e9
    one.keep_up()
    assert one.fetch("k", loader) == ("new", "hit")
    assert loader.calls == 1


# Stale where the source fails -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxsize", [0, 100])
def test_stale_value_from_the_tier_stands_in_for_a_failed_load(world: World, maxsize: int) -> None:
    """`stale_if_error` serves the stale value of the tier to a process that never had it in memory, or has none."""
    one, two = world.pair(stale_if_error=50, maxsize=maxsize)
    one.read("k", "old")
    world.advance(TTL + 1)
    failing = CountingLoader("new", error=OSError("no database"))
    assert two.fetch("k", failing) == ("old", "stale")
    assert failing.calls == 1
    world.advance(50)
    with pytest.raises(OSError, match="no database"):
        two.read("k", failing)


def test_stale_value_that_was_invalidated_stands_in_for_nothing(world: World) -> None:
    """What a writer has invalidated is served by no window."""
    one, two = world.pair(stale_if_error=50, stale_while_revalidate=50)
    one.read("k", "old")
    world.advance(TTL + 1)
    two.do("invalidate", "k")
    one.keep_up()
    with pytest.raises(OSError, match="no database"):
        one.read("k", CountingLoader("new", error=OSError("no database")))


@pytest.mark.parametrize("maxsize", [0, 100])
def test_stale_value_from_the_tier_stands_in_for_a_slow_load(world: World, maxsize: int) -> None:
    """`soft_timeout` serves the stale value of the tier, and the load goes on behind its reader."""
    one, two = world.pair(stale_if_error=50, soft_timeout=0.02, maxsize=maxsize)
    one.read("k", "old")
    world.advance(TTL + 1)
    held = two.held("new")
    assert two.fetch("k", held) == ("old", "stale")
    held.release()
    all_ended(two)
    assert two.fetch("k", "other") == ("new", "hit" if maxsize else "shared")
    assert one.fetch("k", "other")[0] == "new"


# Nothing there --------------------------------------------------------------------------------------------------------


def test_not_found_is_remembered_by_every_process(world: World) -> None:
    """With `negative_ttl` a raised `NotFound` is shared: other processes raise it without a load, until it is over."""
    one, two = world.pair(negative_ttl=10)
    loader = CountingLoader("value", error=NotFound("no such user"))
    for process in (one, two, two):
        with pytest.raises(NotFound, match="no such user"):
            process.read("k", loader)
    assert loader.calls == 1
    assert two.cache.stats().shared_hits == 1
    assert two.do("get", "k") is None
    world.advance(10)
    assert two.fetch("k", "value") == ("value", "miss")


def test_not_found_is_not_stored_where_a_write_overtakes_it(world: World) -> None:
    """A record that is made while somebody finds out that it is not there is found by the next reader."""
    one, two = world.pair(negative_ttl=10)

    def load() -> str:
        elsewhere(lambda: two.cache.invalidate("k"))
        raise NotFound("no such user")

    with pytest.raises(NotFound):
        one.read("k", load)
    assert one.fetch("k", "value") == ("value", "miss")


def test_not_found_is_not_shared_without_negative_ttl(one: Process, two: Process, world: World) -> None:
    """A raised `NotFound` is kept nowhere by default, and leaves no lease."""
    with pytest.raises(NotFound):
        one.read("k", CountingLoader("value", error=NotFound("no such user")))
    assert world.record("k") == b""
    assert two.fetch("k", "value") == ("value", "miss")
    assert two.pauses == []


def test_none_is_a_value_like_any_other(one: Process, two: Process) -> None:
    """F4 over the tier."""
    loader = CountingLoader(None)
    assert one.fetch("k", loader) == (None, "miss")
    assert two.fetch("k", loader) == (None, "shared")
    assert two.do("get_many", ["k", "other"]) == {"k": None}
    assert loader.calls == 1


def test_none_lives_as_long_as_not_found_with_negative_ttl(world: World) -> None:
    """`None` counts as "not found" where `negative_ttl` is set, in other processes too, and is never served stale."""
    one, two = world.pair(negative_ttl=10, stale_while_revalidate=50)
    one.read("k", lambda: None)
    world.advance(9)
    assert two.fetch("k", "value") == (None, "shared")
    world.advance(1)
    assert two.fetch("k", "value") == ("value", "miss")


# Early ----------------------------------------------------------------------------------------------------------------


def test_early_refresh_runs_once_in_all_processes(world: World) -> None:
    """With `early_refresh` a hot value is refreshed by one process; the others are served the old one meanwhile."""
    one, two = world.pair(early_refresh=1e9)
    one.state.random = two.state.random = lambda: 0.5
    one.read("k", lambda: world.clock.advance(0.5) or "old")
    held = one.held("new")
    assert one.fetch("k", held) == ("old", "hit")
    held.wait_until_called()
    loader = CountingLoader("other")
    assert two.fetch("k", loader) == ("old", "shared")
    all_ended(two)
    held.release()
    all_ended(one)
    assert two.fetch("k", loader) == ("old", "hit")
    all_ended(two)
    one.state.random = two.state.random = lambda: 0.0
    assert (two.fetch("k", loader), one.fetch("k", loader)) == (("new", "hit"), ("new", "hit"))
    assert (held.calls, loader.calls) == (1, 0)


def _coloured(process: Process, function: Any) -> Any:
    async def coroutine() -> Any:
        return function()

    return coroutine if process.is_async else function
