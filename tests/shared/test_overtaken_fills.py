"""Rules I1 and I2 over processes: a load that began before a write of any process is stored nowhere.

Every test has the same story. The source says "old". One process loads that, and is held. The source changes to "new",
and another process says so, in one of several ways. Whoever asks from now on gets "new", in every process.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.support.processes import TTL, Process, World, elsewhere
from tests.support.waiting import DEADLINE, until, wait_for_callers, wait_until

from credenza.testing import CountingLoader
from credenza.tiers.base import Fill, Lease

OVERTAKERS = ["invalidate", "invalidate_tags", "clear", "set", "set_many", "writing", "writing tags"]
GROUNDS = ["foreground", "with a timeout", "background", "early", "bulk", "bulk background", "refresh"]


class Source:
    """A source whose first reader is held after it has read; later ones pass."""

    def __init__(self, world: World) -> None:
        self.value = "old"
        self.reads = 0
        self._may_end = threading.Event()
        self.load: Any = self._load_async if world.colour == "async" else self._load
        self.load_many: Any = self._load_many_async if world.colour == "async" else self._load_many

    def _read(self) -> tuple[str, bool]:
        self.reads += 1
        return self.value, self.reads == 1

    def _load(self) -> str:
        value, is_held = self._read()
        assert not is_held or self._may_end.wait(DEADLINE)
        return value

    async def _load_async(self) -> str:
        value, is_held = self._read()
        if is_held:
            await until(self._may_end.is_set, "the held load is let go")
        return value

    def _load_many(self, keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, self._load())

    async def _load_many_async(self, keys: list[str]) -> dict[str, str]:
        return dict.fromkeys(keys, await self._load_async())

    def wait_until_read(self) -> None:
        """Return once the held load is under way."""
        wait_until(lambda: self.reads, "the source is read")

    def release(self) -> None:
        """Let the held load go on."""
        self._may_end.set()


@pytest.fixture
def source(world: World) -> Source:
    """The source of the story."""
    return Source(world)


def overtake(process: Process, source: Source, overtaker: str) -> None:
    """Change the source, and let one process say so."""
    source.value = "new"
    match overtaker:
        case "invalidate" | "clear":
            process.do(overtaker, *(["k"] if overtaker == "invalidate" else []))
        case "invalidate_tags":
            process.do("invalidate_tags", "other", "t")
        case "set":
            process.do("set", "k", "new", tags=["t"])
        case "set_many":
            process.do("set_many", {"k": "new", "beside": "new"}, tags=["t"])
        case "writing":
            with process.writing("k"):
                source.value = "new"
        case _:
            with process.writing(tags=["t"]):
                source.value = "new"


def begin(process: Process, source: Source, ground: str) -> list[Any]:
    """Begin the load that is held, and return the calls that wait for it."""
    world = process.world
    options: dict[str, Any] = {"tags": ["t"]}
    if ground in ("background", "bulk background"):
        process.do("set", "k", "older", tags=["t"])
        world.advance(TTL + 1)
    elif ground == "early":
        options["early_refresh"] = 1e9
        process.read("k", lambda: world.clock.advance(1.5) or "older", **options)
        world.keep_up()
    elif ground == "refresh":
        process.do("set", "k", "older", tags=["t"])
    match ground:
        case "background" | "early":
            assert process.do("get_or_load", "k", source.load, **options) == "older"
            calls = []
        case "bulk background":
            assert process.do("get_or_load_many", ["k"], source.load_many, **options) == {"k": "older"}
            calls = []
        case "bulk":
            calls = [process.begin("get_or_load_many", ["k", "beside"], source.load_many, **options)]
        case "refresh":
            calls = [process.start(process.cache.cached(key="k", tags=["t"])(source.load).refresh)]
        case "with a timeout":
            calls = [process.begin("get_or_load", "k", source.load, timeout=DEADLINE, **options)]
        case _:
            calls = [process.begin("get_or_load", "k", source.load, **options)]
    source.wait_until_read()
    return calls


@pytest.mark.parametrize("overtaker", OVERTAKERS)
@pytest.mark.parametrize("ground", GROUNDS)
def test_load_that_another_process_overtakes_is_not_stored(
    world: World, source: Source, ground: str, overtaker: str
) -> None:
    """The held load is stored in no tier; its leader gets the value, and whoever comes later gets the new one."""
    one, two = world.pair(stale_while_revalidate=50)
    calls = begin(one, source, ground)
    overtake(two, source, overtaker)
    source.release()
    for call in calls:
        assert call.result() in ("old", {"k": "old", "beside": "old"})
    wait_until(lambda: not one.state.flights, "the load ends")
    entry = one.state.table.find("k")
    assert entry is None or entry.value != "old"
    world.keep_up()
    for process in (two, one):
        assert process.read("k", source.load, tags=["t"]) == "new"


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_load_that_is_overtaken_right_before_its_fill_is_not_stored(
    world: World, source: Source, overtaker: str
) -> None:
    """1. A has loaded. 2. B writes. 3. A's fill arrives: it is refused."""
    one, two = world.pair()
    one.tier.before(Fill, lambda: elsewhere(lambda: overtake(two, source, overtaker)))
    source.release()
    assert one.do("get_or_load", "k", source.load, tags=["t"]) == "old"
    assert not one.has_in_memory("k")
    assert two.read("k", source.load, tags=["t"]) == "new"
    one.keep_up()
    assert one.read("k", source.load, tags=["t"]) == "new"


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_value_that_is_overtaken_after_its_fill_does_not_get_into_memory(
    world: World, source: Source, overtaker: str
) -> None:
    """1. A's fill is taken. 2. B writes. 3. A reads the news. 4. A hears of its fill, and does not keep the value."""
    one, two = world.pair()

    def write() -> None:
        overtake(two, source, overtaker)
        one.keep_up()

    one.tier.after(Fill, lambda: elsewhere(write))
    source.release()
    assert one.do("get_or_load", "k", source.load, tags=["t"]) == "old"
    assert not one.has_in_memory("k")
    assert one.read("k", source.load, tags=["t"]) == "new"


@pytest.mark.parametrize("overtaker", OVERTAKERS)
def test_load_that_is_overtaken_between_look_and_lease_sees_the_write(
    world: World, source: Source, overtaker: str
) -> None:
    """1. A looks: nothing. 2. B writes. 3. A takes the lease and loads, the new value."""
    one, two = world.pair()
    one.tier.before(Lease, lambda: elsewhere(lambda: overtake(two, source, overtaker)))
    source.release()
    assert one.do("get_or_load", "k", source.load, tags=["t"]) == "new"
    assert two.fetch("k", "other", tags=["t"])[0] == "new"


# Who may have a value that is stored nowhere --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"coherence": "strict", "max_staleness": 0.01}, {"maxsize": 0}], ids=["strict", "no memory"]
)
@pytest.mark.parametrize("later", [0.0, 0.001])
def test_waiters_of_a_refused_load_read_again(
    world: World, source: Source, options: dict[str, Any], later: float
) -> None:
    """Where nothing old may be read, only the leader uses the value of a load that was overtaken; its waiters read again."""
    one, two = world.pair(**options)
    leading = one.begin_read("k", source.load)
    source.wait_until_read()
    world.clock.advance(later)
    waiting = [one.begin_read("k", source.load) for _ in range(3)]
    wait_for_callers(one.cache, "k", 4)
    overtake(two, source, "writing")
    world.keep_up()
    late = one.begin_read("k", source.load)
    source.release()
    assert leading.result() == "old"
    assert [call.result() for call in [*waiting, late]] == ["new"] * 4


def test_waiters_share_a_refused_load_within_max_staleness(world: World, source: Source) -> None:
    """Under "bounded" a refused value is for those who joined soon enough after the load began; later ones read again."""
    one, two = world.pair()
    leading = one.begin_read("k", source.load)
    source.wait_until_read()
    world.clock.advance(0.9)
    soon = one.begin_read("k", source.load)
    wait_for_callers(one.cache, "k", 2)
    world.clock.advance(0.2)
    late = one.begin_read("k", source.load)
    wait_for_callers(one.cache, "k", 3)
    overtake(two, source, "writing")
    source.release()
    assert leading.result() == "old"
    assert soon.result() == "old"
    assert late.result() == "new"


def test_waiters_share_an_accepted_load_however_late_they_join(world: World, source: Source) -> None:
    """A fill that was taken shows that the value is current: all who joined before it may have it."""
    one = world.process(coherence="strict", max_staleness=0.5)
    leading = one.begin_read("k", source.load)
    source.wait_until_read()
    world.advance(1.5)
    late = one.begin_read("k", CountingLoader("other"))
    wait_for_callers(one.cache, "k", 2)
    source.release()
    assert (leading.result(), late.result()) == ("old", "old")


def test_callers_after_the_news_do_not_join_the_old_load(world: World, source: Source) -> None:
    """Once this process has read the news, newcomers begin a load of their own beside the old one."""
    one, two = world.pair()
    leading = one.begin_read("k", source.load)
    source.wait_until_read()
    overtake(two, source, "invalidate")
    one.keep_up()
    assert one.read("k", source.load) == "new"
    source.release()
    assert leading.result() == "old"
    assert one.read("k", "other") == "new"


# Replies that are lost ------------------------------------------------------------------------------------------------


def test_fill_whose_reply_is_lost_stays_out_of_memory(one: Process, world: World) -> None:
    """A process that does not hear whether its fill was taken keeps the value out of memory, and finds it in the tier."""
    one.tier.lose_reply(Fill)
    assert one.read("k", "value") == "value"
    assert not one.has_in_memory("k")
    world.clock.advance(0.2)
    world.keep_up()
    assert one.fetch("k", "other") == ("value", "shared")


def test_fill_that_never_arrives_leaves_a_lease_that_expires(one: Process, two: Process, world: World) -> None:
    """A fill that is lost on its way stores nothing; the others wait until the lease has expired, and load."""
    one.tier.lose_request(Fill)
    assert one.read("k", "old") == "old"
    assert not one.has_in_memory("k")
    assert two.fetch("k", "new") == ("new", "miss")
    assert sum(two.pauses) >= 1.9e9


def test_lease_whose_reply_is_lost_lets_its_process_load_without_storing(one: Process, two: Process) -> None:
    """A process that does not hear of its lease loads all the same, and stores nothing."""
    one.tier.lose_reply(Lease)
    assert one.read("k", "old") == "old"
    assert not one.has_in_memory("k")
    assert two.fetch("k", "new") == ("new", "miss")
