"""Gathering: many callers, few exchanges; what one of them suffers is not the others' affair."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.processes import Process, StagedTier, World
from tests.support.waiting import DEADLINE, Call, results, run, turns, wait_until

from credenza import TierError
from credenza.runtime.gather import Gathers, LoopGather, ThreadGather
from credenza.testing import DictTier
from credenza.tiers.base import Get, Operation, Put, ReadHead

LONG_NS = 60_000_000_000
SHORT_NS = 50_000_000


def get(number: int) -> list[Operation]:
    """Return an operation that tells whose reply it is."""
    return [Get(b"k%d" % number)]


@pytest.fixture
def tier() -> StagedTier:
    """A tier with some records."""
    inner = DictTier()
    inner.perform([Put(b"k%d" % number, b"%d" % number, 600_000, 1 << 52) for number in range(2_000)], 1)
    return StagedTier(inner)


def reply_for(number: int) -> list[bytes]:
    """Return what `get` brings."""
    return [b"V" + bytes(24) + b"%d" % number]


# Threads --------------------------------------------------------------------------------------------------------------


def hold_first(gather: ThreadGather, tier: StagedTier) -> tuple[Any, Call[list[Any]]]:
    """Let one exchange be under way."""
    hold = tier.hold(ReadHead)
    first = Call(lambda: gather.exchange(tier, [ReadHead(b"epoch--1")], LONG_NS))
    hold.wait_until_reached()
    return hold, first


def queue(gather: ThreadGather, tier: StagedTier, numbers: Sequence[int]) -> list[Call[list[Any]]]:
    """Let callers queue behind it, in this order."""
    calls = []
    for count, number in enumerate(numbers, start=1):
        calls.append(Call(lambda number=number: gather.exchange(tier, get(number), LONG_NS)))
        wait_until(lambda count=count: gather._next is not None and len(gather._next.operations) == count, "it queues")
    return calls


def test_single_thread_waits_for_nobody(tier: StagedTier) -> None:
    """A thread that is alone asks at once, in its own exchange."""
    gather = ThreadGather()
    for number in range(3):
        assert gather.exchange(tier, get(number), LONG_NS) == reply_for(number)
    assert len(tier.batches) == 3


def test_threads_that_come_meanwhile_share_an_exchange(tier: StagedTier) -> None:
    """While one exchange is under way the next one collects; everybody gets replies of his own."""
    gather = ThreadGather()
    hold, first = hold_first(gather, tier)
    calls = queue(gather, tier, range(10))
    hold.release()
    assert results(calls) == [reply_for(number) for number in range(10)]
    assert len(first.result()) == 1
    assert [len(batch) for batch in tier.batches] == [1, 10]


def test_error_of_a_shared_exchange_reaches_all_its_threads(tier: StagedTier) -> None:
    """What fails fails for all that took part, and for nobody who comes later."""
    gather = ThreadGather()
    hold, first = hold_first(gather, tier)
    calls = queue(gather, tier, range(3))
    tier.lose_request(Get)
    hold.release()
    errors = [call.error() for call in calls]
    assert [(type(error), str(error)) for error in errors] == [(TierError, "staged")] * 3
    assert len({id(error) for error in errors}) == 3
    first.result()
    assert gather.exchange(tier, get(1), LONG_NS) == reply_for(1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_whoever_is_interrupted_while_it_asks_frees_the_others(tier: StagedTier, kind: type[BaseException]) -> None:
    """The thread that asks for all may be interrupted: the others get a `TierError`, and the next ones are asked for."""

    def interrupt() -> None:
        raise kind

    gather = ThreadGather()
    hold, first = hold_first(gather, tier)
    calls = queue(gather, tier, range(3))
    tier.before(Get, interrupt)
    hold.release()
    assert sorted(type(call.error()).__name__ for call in calls) == sorted([kind.__name__, "TierError", "TierError"])
    first.result()
    assert gather.exchange(tier, get(1), LONG_NS) == reply_for(1)


def test_interrupted_exchange_of_one_thread_frees_the_gather(tier: StagedTier) -> None:
    """The same where nobody else took part."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    gather = ThreadGather()
    tier.before(Get, interrupt)
    with pytest.raises(KeyboardInterrupt):
        gather.exchange(tier, get(1), LONG_NS)
    assert gather.exchange(tier, get(1), LONG_NS) == reply_for(1)


@pytest.mark.parametrize("count", [256, 257, 1_000])
def test_exchanges_of_threads_have_a_bound(tier: StagedTier, count: int) -> None:
    """Many operations go in several exchanges, each with the whole time; the replies keep their order."""
    operations = [Get(b"k%d" % number) for number in range(count)]
    replies = ThreadGather().exchange(tier, operations, LONG_NS)
    assert replies == [reply_for(number)[0] for number in range(count)]
    assert len(tier.batches) == -(-count // 256)
    assert max(map(len, tier.batches)) <= 256


# Tasks ----------------------------------------------------------------------------------------------------------------


def test_tasks_of_one_turn_share_an_exchange(tier: StagedTier) -> None:
    """What the tasks of a loop ask for in one turn goes in one exchange; everybody gets replies of his own."""

    async def main() -> list[list[Any]]:
        gather = LoopGather(tier)
        return await asyncio.gather(*[gather.exchange(get(number), LONG_NS) for number in range(50)])

    assert run(main()) == [reply_for(number) for number in range(50)]
    assert [len(batch) for batch in tier.batches] == [50]


def test_thousand_tasks_cost_a_few_exchanges(tier: StagedTier) -> None:
    """An exchange is bounded; a thousand tasks take four, whole parcels in each."""

    async def main() -> None:
        gather = LoopGather(tier)
        parcels = [gather.exchange([*get(number), *get(number + 1)], LONG_NS) for number in range(500)]
        found = await asyncio.gather(*parcels)
        assert found == [[*reply_for(number), *reply_for(number + 1)] for number in range(500)]

    run(main())
    assert [len(batch) for batch in tier.batches] == [256, 256, 256, 232]


def test_task_that_asks_for_more_than_one_exchange_takes_gets_all_of_it(tier: StagedTier) -> None:
    """One parcel may be larger than an exchange; others beside it lose nothing."""

    async def main() -> None:
        gather = LoopGather(tier)
        many = [Get(b"k%d" % number) for number in range(600)]
        large, small = await asyncio.gather(gather.exchange(many, LONG_NS), gather.exchange(get(7), LONG_NS))
        assert large == [reply_for(number)[0] for number in range(600)]
        assert small == reply_for(7)

    run(main())
    assert max(map(len, tier.batches)) <= 256


def test_cancelled_task_leaves_the_exchange_to_the_others(tier: StagedTier) -> None:
    """A task that is cancelled before or while its exchange is under way changes nothing for the rest."""

    async def main() -> None:
        gather = LoopGather(tier)
        hold = tier.hold(Get)
        tasks = [asyncio.create_task(gather.exchange(get(number), LONG_NS)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        while not hold.reached:
            await asyncio.sleep(0)
        tasks[1].cancel()
        hold.release()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in found[:2]] == [asyncio.CancelledError] * 2
        assert found[2:] == [reply_for(2), reply_for(3)]

    run(main())
    assert [len(batch) for batch in tier.batches] == [3]


def test_error_of_a_shared_exchange_reaches_all_its_tasks(tier: StagedTier) -> None:
    """As with threads: all that took part, and nobody who comes later."""

    async def main() -> None:
        gather = LoopGather(tier)
        tier.lose_request(Get)
        found = await asyncio.gather(
            *[gather.exchange(get(number), LONG_NS) for number in range(3)], return_exceptions=True
        )
        assert [(type(each), str(each)) for each in found] == [(TierError, "staged")] * 3
        assert await gather.exchange(get(1), LONG_NS) == reply_for(1)

    run(main())


def test_fault_of_a_tier_reaches_all_its_tasks(tier: StagedTier, caplog: pytest.LogCaptureFixture) -> None:
    """An error that no tier should raise is logged, and those who took part go on without the tier (E1)."""

    def fail() -> None:
        raise ZeroDivisionError("nobody thought of this")

    async def main() -> None:
        gather = LoopGather(tier)
        tier.before(Get, fail)
        found = await asyncio.gather(
            *[gather.exchange(get(number), LONG_NS) for number in range(3)], return_exceptions=True
        )
        assert [(type(each), str(each)) for each in found] == [
            (TierError, "the tier failed with ZeroDivisionError")
        ] * 3
        assert await gather.exchange(get(1), LONG_NS) == reply_for(1)

    run(main())
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_reply_that_does_not_come_is_given_up(tier: StagedTier) -> None:
    """An exchange that takes longer than it may fails for its tasks, and the next one is asked for."""

    async def main() -> None:
        gather = LoopGather(tier)
        hold = tier.hold(Get)
        with pytest.raises(TierError, match=r"no reply within tier_timeout=0.05 s"):
            await gather.exchange(get(1), SHORT_NS)
        hold.release()
        assert await gather.exchange(get(1), LONG_NS) == reply_for(1)

    run(main())


class DistantTier(StagedTier):
    """A tier whose replies another thread brings, while the event loop is busy."""

    def __init__(self, inner: DictTier) -> None:
        super().__init__(inner)
        self.is_asked = False
        self.loop_is_busy = threading.Event()

    async def perform_async(self, operations: Sequence[Operation], timeout_ns: int) -> list[Any]:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def reply() -> None:
            assert self.loop_is_busy.wait(DEADLINE)
            loop.call_soon_threadsafe(arrived.set_result, self.perform(operations, timeout_ns))

        threading.Thread(target=reply, daemon=True).start()
        self.is_asked = True
        return await arrived


def test_loop_that_is_late_is_not_held_against_the_tier(tier: StagedTier) -> None:
    """1. A task blocks the loop beyond the time. 2. The reply comes meanwhile. 3. The loop finds it, and does not give up."""

    async def main() -> None:
        distant = DistantTier(tier.inner)
        task = asyncio.create_task(LoopGather(distant).exchange(get(1), SHORT_NS))
        while not distant.is_asked:
            await asyncio.sleep(0)
        distant.loop_is_busy.set()
        time.sleep(2 * SHORT_NS / 1e9)  # a task that blocks the loop
        assert await task == reply_for(1)

    run(main())


def test_loop_that_stops_leaves_nobody_waiting(tier: StagedTier) -> None:
    """When the task that asks is cancelled with its loop, those who wait for it get an error."""

    async def main() -> None:
        gather = LoopGather(tier)
        hold = tier.hold(Get)
        asking = asyncio.create_task(gather.exchange(get(1), LONG_NS))
        while not hold.reached:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(gather.exchange(get(2), LONG_NS))
        await turns()
        assert gather._task is not None
        gather._task.cancel()
        found = await asyncio.gather(asking, waiting, return_exceptions=True)
        assert [type(each) for each in found] == [TierError] * 2
        hold.release()
        assert await gather.exchange(get(3), LONG_NS) == reply_for(3)

    run(main())


def test_every_loop_has_a_gather_of_its_own(tier: StagedTier) -> None:
    """Loops do not wait for each other, and a loop that is gone is forgotten."""
    gathers = Gathers()

    async def main() -> LoopGather:
        gather = gathers.of_running_loop(tier)
        assert gathers.of_running_loop(tier) is gather
        await gather.exchange(get(1), LONG_NS)
        return gather

    assert run(main()) is not run(main())


# Whole caches ---------------------------------------------------------------------------------------------------------


def test_loops_that_are_over_are_let_go(tier: StagedTier) -> None:
    """A process that makes a loop for each job keeps none of them, but for the latest."""
    gathers = Gathers()
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def ask() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await gathers.of_running_loop(tier).exchange(get(1), LONG_NS)

    for _ in range(5):
        asyncio.run(ask())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


def test_crowd_of_different_keys_costs_few_exchanges(world: World) -> None:
    """Callers of many keys at once share their exchanges, in threads as in tasks."""
    one, two = world.pair(maxsize=0)
    keys = [f"k{number}" for number in range(100)]
    one.do("set_many", dict.fromkeys(keys, "value"))
    hold = two.tier.hold(Get)
    first = two.begin("get", "none")
    hold.wait_until_reached()
    two.tier.batches.clear()
    calls = [two.begin("get", key) for key in keys]
    queued = _queued(two)
    wait_until(lambda: queued() == 100, "all have queued")
    hold.release()
    assert [call.result() for call in calls] == ["value"] * 100
    assert first.result() is None
    assert len(two.tier.batches) == 1


def _queued(process: Process) -> Any:
    """Return what counts the callers that wait for the next exchange."""
    engine = process.engine
    if process.is_async:
        gather = engine.tasks.gathers._loops[process.loop.loop]
        return lambda: len(gather._waiting)
    threads = engine.threads._gather
    return lambda: 0 if threads._next is None else len(threads._next.operations)


def test_plain_loaders_of_tasks_ask_from_their_threads(async_world: World) -> None:
    """A plain loader in the async face runs in a worker, which asks the tier with the threads' gather."""
    one, two = async_world.pair()
    seen = []

    def load() -> str:
        seen.append(threading.current_thread().name)
        return "value"

    async def read(process: Process) -> Any:
        return await process.cache.aio.get_or_load("k", load)

    assert one.loop.result(read(one)) == "value"
    assert two.loop.result(read(two)) == "value"
    assert seen == ["credenza-worker"]
