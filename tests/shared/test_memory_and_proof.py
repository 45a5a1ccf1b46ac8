"""Memory may be used only while the log of announcements is known; what others announce leaves it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.processes import STALENESS, Process, World, elsewhere
from tests.support.waiting import wait_until

from credenza.events import EventKind
from credenza.shared.proof import MOST_NEWS
from credenza.testing import CountingLoader
from credenza.tiers.base import Announce, Get, ReadLog

Write = Callable[[Process], object]

WRITES: dict[str, Write] = {
    "invalidate": lambda process: process.do("invalidate", "k"),
    "tags": lambda process: process.do("invalidate_tags", "t"),
    "clear": lambda process: process.do("clear"),
    "set": lambda process: process.do("set", "k", "set", tags=["t"]),
    "set_many": lambda process: process.do("set_many", {"beside": 1, "k": "set"}, tags=["t"]),
    "writing": lambda process: _write(process, "k"),
    "writing tags": lambda process: _write(process, tags=["t"]),
}


def _write(process: Process, *keys: str, tags: tuple[str, ...] | list[str] = ()) -> None:
    with process.writing(*keys, tags=tags):
        pass


# The proof ------------------------------------------------------------------------------------------------------------


def test_hit_in_memory_asks_nobody_while_the_proof_holds(one: Process, world: World) -> None:
    """With a proof a fresh value in memory is served without a round trip, in every way of asking."""
    one.read("k", "value")
    one.tier.batches.clear()
    world.clock.advance(STALENESS - 0.001)
    assert one.fetch("k", "other") == ("value", "hit")
    assert one.do("get", "k") == "value"
    assert one.do("get_many", ["k"]) == {"k": "value"}
    assert one.do("get_or_load_many", ["k"], lambda keys: {}) == {"k": "value"}
    assert one.tier.batches == []


def test_memory_is_bypassed_when_the_proof_is_over(one: Process, world: World) -> None:
    """Without a proof what is in memory is not used: reads go to the tier, and find the value there."""
    one.read("k", "value")
    world.clock.advance(STALENESS)
    assert one.has_in_memory("k")
    assert "k" not in one.cache
    assert not one.cache.health().is_proved
    loader = CountingLoader("other")
    assert one.fetch("k", loader) == ("value", "shared")
    assert one.fetch("k", loader) == ("value", "shared")
    assert one.do("get", "k") == "value"
    assert one.do("get_or_load_many", ["k"], lambda keys: {}) == {"k": "value"}
    assert loader.calls == 0
    one.keep_up()
    assert one.fetch("k", loader) == ("value", "hit")


def test_process_without_a_first_proof_uses_no_memory(world: World) -> None:
    """Before the log was read for the first time, everything comes from the tier or the source."""
    one = world.process(keeps_up=False)
    assert one.fetch("k", "value") == ("value", "miss")
    assert one.fetch("k", "other") == ("value", "shared")
    one.keep_up()
    assert one.fetch("k", "other") == ("value", "shared")
    assert one.fetch("k", "other") == ("value", "hit")


def test_proof_counts_from_before_the_log_was_read(one: Process, world: World) -> None:
    """A reading of the log that takes long proves less: 1. The clock is noted. 2. The log is read. 3. The reply is late."""
    one.read("k", "value")
    one.tier.after(ReadLog, lambda: world.clock.advance(STALENESS - 0.1))
    one.keep_up()
    assert one.fetch("k", "other") == ("value", "hit")
    world.clock.advance(0.1)
    assert one.fetch("k", "other") == ("value", "shared")


def test_process_that_was_paused_reads_what_was_written_meanwhile(one: Process, two: Process, world: World) -> None:
    """A process that did not run while another wrote does not serve its old values when it wakes."""
    one.read("k", "old")
    two.do("invalidate", "k")
    world.clock.advance(STALENESS)
    assert one.fetch("k", "new") == ("new", "miss")


def test_memory_needs_no_proof_under_ttl(world: World) -> None:
    """With `coherence="ttl"` memory serves until the ttl is over, whether the log was read or not."""
    one, two = world.process(coherence="ttl", keeps_up=False), world.process(coherence="ttl", keeps_up=False)
    one.read("k", "old")
    two.do("invalidate", "k")
    world.clock.advance(50)
    assert one.fetch("k", "new") == ("old", "hit")
    assert one.cache.health().is_proved


# News -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coherence", ["ttl", "invalidate", "bounded"])
@pytest.mark.parametrize("write", WRITES)
def test_news_drop_what_they_name(world: World, write: str, coherence: str) -> None:
    """What another process writes leaves memory with the next reading of the log, and nothing else does."""
    one, two = world.pair(coherence=coherence)
    one.read("k", "old", tags=["t"])
    one.read("other", "other", tags=["u"])
    WRITES[write](two)
    assert one.has_in_memory("k")
    world.keep_up()
    one.keep_up()  # under "ttl" what was written is announced by the writer's keeper
    assert not one.has_in_memory("k")
    assert one.has_in_memory("other") == (write != "clear")
    assert one.fetch("k", "new", tags=["t"])[0] in ("new", "set")


def test_news_of_keys_that_mean_nothing_here_are_passed_over(one: Process, world: World) -> None:
    """Names that no key of this process can have are ignored: another version of the program may have written them."""
    one.read("k", "value")
    names = (b"credenza:~fnonsense", b"elsewhere:k", b"credenza:~f3:a.b(", b"")
    world.tier.perform([Announce(b"another.", b"somebody", names, (b"elsewhere#t", b"credenza#\xff"))], 1)
    one.keep_up()
    assert one.fetch("k", "other") == ("value", "hit")


@pytest.mark.parametrize("write", WRITES)
def test_own_announcements_change_nothing_when_they_come_back(world: World, write: str) -> None:
    """A process has obeyed its own announcements when it made them; what it stored after that stays."""
    one = world.process()
    WRITES[write](one)
    if write == "writing tags":
        one.do("set", "k", "value", tags=["t"])
    else:
        one.read("k", "value", tags=["t"])
    assert one.has_in_memory("k")
    one.keep_up()
    assert one.has_in_memory("k")


@pytest.mark.parametrize("write", ["invalidate", "tags", "clear", "set", "writing", "writing tags"])
def test_own_write_is_obeyed_at_once(world: World, write: str) -> None:
    """In its own process a write holds when the call returns (I1), before the log was read."""
    one = world.process()
    one.read("k", "old", tags=["t"])
    WRITES[write](one)
    assert one.fetch("k", "new", tags=["t"])[0] == ("set" if write == "set" else "new")


# Gaps -----------------------------------------------------------------------------------------------------------------


def announce(world: World, count: int) -> None:
    """Announce something that concerns nobody."""
    for _ in range(count):
        world.tier.perform([Announce(b"another.", b"somebody", (b"credenza:beside",))], 1)


def lose_log(world: World) -> None:
    """Let the log be trimmed beyond what has been read."""
    announce(world, 3)
    while len(world.tier.shelf._log) > 2:
        world.tier.shelf._log.popleft()


def go_back(world: World) -> None:
    """Let the tier come back with an older state of the same epoch, as after a fail-over."""
    head = world.tier.shelf._head
    assert head is not None
    world.tier.shelf._head = head._replace(sequence=head.sequence - 1)
    world.tier.shelf._log.pop()


GAPS: dict[str, Callable[[World], object]] = {
    "too many news": lambda world: announce(world, MOST_NEWS + 1),
    "a trimmed log": lose_log,
    "another epoch": lambda world: world.tier.forget_all(),
    "an older state": go_back,
}


@pytest.mark.parametrize("gap", GAPS)
def test_gap_empties_the_memory(one: Process, world: World, gap: str) -> None:
    """What this process cannot know about may have been anything: it forgets everything, and says so."""
    announce(world, 2)
    one.keep_up()
    one.read("k", "old")
    one.events.clear()
    GAPS[gap](world)
    one.keep_up()
    assert not one.has_in_memory("k")
    assert len(one.told(EventKind.RESYNCED)) == 1
    assert one.cache.health().is_proved
    one.read("k", "value")
    one.keep_up()
    assert one.fetch("k", "other")[1] == "hit"
    assert len(one.told(EventKind.RESYNCED)) == 1


def test_as_many_news_as_one_reading_takes_are_applied(one: Process, world: World) -> None:
    """The most news that one reading of the log brings leave the rest of memory alone."""
    one.read("k", "value")
    announce(world, MOST_NEWS)
    one.keep_up()
    assert one.fetch("k", "other") == ("value", "hit")
    assert one.told(EventKind.RESYNCED) == []


def test_first_reading_of_the_log_is_no_gap(one: Process) -> None:
    """A process that has just begun has missed nothing."""
    assert one.told(EventKind.RESYNCED) == []


@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("is_first", [False, True])
def test_own_clear_holds_though_an_older_reading_of_the_log_comes_after_it(
    world: World, maxsize: int, is_first: bool
) -> None:
    """1. The keeper reads the log. 2. The process clears, and learns of the new floor. 3. The keeper's reply arrives.

    What it says of the head is older than what the process knows; it must not bring cleared values back.
    """
    one = world.process(maxsize=maxsize, keeps_up=not is_first)
    two = world.process(maxsize=maxsize)
    two.do("set", "k", "old")
    one.tier.after(ReadLog, lambda: elsewhere(one.cache.clear))
    one.keep_up()
    assert one.do("get", "k") is None
    assert one.read("k", "new") == "new"
    assert one.told(EventKind.RESYNCED) == []


def test_memory_that_is_lost_takes_the_load_under_way_with_it(one: Process, two: Process, world: World) -> None:
    """A load that began before the tier lost its memory is not stored after it."""

    def load() -> str:
        world.tier.forget_all()
        world.keep_up()
        return "old"

    assert one.read("k", lambda: elsewhere(load)) == "old"
    assert not one.has_in_memory("k")
    assert two.fetch("k", "new") == ("new", "miss")


# Look-ups that something overtakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_bulk", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("write", [*WRITES, "gap"])
def test_look_up_that_news_overtake_is_not_kept(world: World, write: str, is_bulk: bool) -> None:
    """1. A looks up the old value. 2. B writes. 3. A reads the news. 4. A's reply arrives: served, and not kept."""
    one, two = world.pair()
    two.read("k", "old", tags=["t"])

    def overtake() -> None:
        world.tier.forget_all() if write == "gap" else WRITES[write](two)
        one.keep_up()

    one.tier.after(Get, lambda: elsewhere(overtake))
    if is_bulk:
        assert one.do("get_many", ["k", "other"]) in ({"k": "old"}, {})
    else:
        assert one.fetch("k", "new", tags=["t"])[0] in ("old", "new")
    entry = one.state.table.find("k")
    assert entry is None or entry.value != "old"
    assert one.fetch("k", "new", tags=["t"])[0] in ("new", "set")


@pytest.mark.parametrize("write", WRITES)
def test_look_up_that_an_own_write_overtakes_is_not_kept(world: World, write: str) -> None:
    """The same for a write of the process's own: 1. A looks up. 2. A writes. 3. The reply arrives."""
    one, two = world.pair()
    two.read("k", "old", tags=["t"])
    one.tier.after(Get, lambda: elsewhere(lambda: _in_the_other_face(one, write)))
    assert one.read("k", "new", tags=["t"]) in ("old", "new", "set")
    assert one.fetch("k", "new", tags=["t"])[0] in ("new", "set")


def _in_the_other_face(process: Process, write: str) -> None:
    with process.in_the_other_face():
        WRITES[write](process)


def test_look_up_that_another_write_overtakes_unnoticed_goes_with_the_news(one: Process, two: Process) -> None:
    """1. A looks up the old value. 2. B writes. 3. A keeps the old value. 4. A reads the news, and drops it."""
    two.read("k", "old")
    one.tier.after(Get, lambda: elsewhere(lambda: two.do("invalidate", "k")))
    assert one.fetch("k", "new") == ("old", "shared")
    assert one.has_in_memory("k")
    one.keep_up()
    assert one.fetch("k", "new") == ("new", "miss")


def test_look_ups_of_one_key_are_all_struck_off(async_world: World) -> None:
    """1. A task looks the key up, and another one. 2. B writes, and A reads the news. 3. Neither keeps the old value."""
    one, two = async_world.pair()
    two.read("k", "old")
    hold = one.tier.hold(Get, after=True)
    calls = [one.begin_read("k", lambda: "new") for _ in range(2)]
    hold.wait_until_reached()
    two.do("invalidate", "k")
    one.keep_up()
    hold.release()
    assert calls[0].result() == "old"
    assert calls[1].result() in ("old", "new")
    assert one.fetch("k", "newer")[0] in ("new", "newer")


def test_look_up_whose_caller_is_cancelled_leaves_nothing(async_world: World) -> None:
    """A caller that is cancelled while it looks up is struck off; the invariants see whether it was."""
    one = async_world.process()
    hold = one.tier.hold(Get)
    calls = [one.begin_read("k", lambda: "value"), one.begin("get", "k"), one.begin("get_many", ["k", "other"])]
    hold.wait_until_reached()
    for call in calls:
        call.cancel()
    hold.release()
    wait_until(lambda: not one.state.looks, "nobody looks any more")
    assert one.fetch("k", "value") == ("value", "miss")
