"""What every tier keeps when several threads, tasks, tier objects and processes use one place."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.forking import in_child
from tests.support.waiting import DEADLINE, run
from tests.tiers.places import EPOCH, LONG_MS, TIMEOUT_NS, Caller, Place, open_tier, put, stamp, token

from credenza.tiers.base import (
    CLEARED,
    Announce,
    Clear,
    Fence,
    Fill,
    Get,
    Lease,
    MarkTag,
    Operation,
    ReadHead,
    ReadLog,
    Tier,
)
from credenza.tiers.records import stamp_of, value_record

A, B = token("a"), token("b")
SENDER = token("s")


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in threads that begin together; return what they returned, in order."""
    results: list[object] = [None] * count
    errors: list[BaseException] = []
    begin = threading.Barrier(count)

    def body(index: int) -> None:
        try:
            begin.wait(DEADLINE)
            results[index] = work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors, errors
    return results


def one(tier: Tier, operation: Operation) -> Any:  # Any: what the operation's reply is
    """Perform one operation, blocking."""
    return tier.perform([operation], TIMEOUT_NS)[0]


def test_two_tiers_on_one_place_see_each_other(place: Place, call: Caller) -> None:
    """Records, head and log are the same."""
    other, name = place.open(), place.name("record")
    call.one(put(name, b"1", LONG_MS))
    assert one(other, Get(name)) == value_record(b"1")
    assert one(other, Lease(name, B, LONG_MS, seen=b"1", keeps=True)) == b"L" + B
    assert call.one(Lease(name, A, LONG_MS, seen=b"1", keeps=True))[1:17] == B
    head = one(other, Announce(EPOCH, SENDER, (name,)))
    log = call.one(ReadLog(EPOCH, 0, 10, 0))
    assert (log.head.sequence, log.news[0].names) == (head.sequence, (name,))


def test_two_namespaces_do_not_meet_in_head_or_log(place: Place, call: Caller) -> None:
    """One server or file serves several caches."""
    if place.kind == "dict":
        pytest.skip("a dictionary serves one namespace")
    neighbour = Place(place.kind, place.address)
    try:
        other = neighbour.open()
        call.one(Announce(EPOCH, SENDER, clears=True))
        log = one(other, ReadLog(b"neighbor", 0, 10, 300))
        assert (log.head[:3], log.news) == ((b"neighbor", 0, 0), ())
        assert call.one(ReadHead(EPOCH))[:3] == (EPOCH, 1, 1)
    finally:
        neighbour.close()


def test_lease_that_many_threads_want_is_granted_to_one(place: Place) -> None:
    """The others see the winner's token."""
    tiers, name = [place.open(), place.open()], place.name("record")
    for round_ in range(5):
        wanted = [bytes([round_, index]) * 8 for index in range(8)]
        record = name + bytes([round_])
        replies = in_threads(8, lambda index: one(tiers[index % 2], Lease(record, wanted[index], LONG_MS)))
        winners = {bytes(reply)[:17] for reply in replies}  # type: ignore[call-overload]
        assert len(winners) == 1
        assert winners <= {b"L" + token for token in wanted}
        assert sum(len(bytes(reply)) == 17 for reply in replies) == 1  # type: ignore[call-overload]


def test_lease_that_many_tasks_want_is_granted_to_one(place: Place) -> None:
    """On one event loop."""
    tier, name = place.open(), place.name("record")

    async def main() -> list[Any]:
        wanted = [bytes([index]) * 16 for index in range(20)]
        batches = [tier.perform_async([Lease(name, token, LONG_MS)], TIMEOUT_NS) for token in wanted]
        try:
            return await asyncio.gather(*batches)
        finally:
            await tier.close_async()

    replies = run(main())
    assert len({reply[0][:17] for reply in replies}) == 1


def test_log_under_concurrent_announcers_is_contiguous(place: Place) -> None:
    """Each announcement has a number of its own, and none is missing."""
    tiers = [place.open(), place.open()]

    def announce(index: int) -> list[int]:
        return [one(tiers[index % 2], Announce(EPOCH, SENDER, (b"%d" % index,))).sequence for _ in range(25)]

    numbers = [number for numbers in in_threads(4, announce) for number in numbers]  # type: ignore[attr-defined]
    assert sorted(numbers) == list(range(1, 101))
    log = one(tiers[0], ReadLog(EPOCH, 0, 1000, 0))
    assert [news.sequence for news in log.news] == list(range(1, 101))
    assert sorted(news.names[0] for news in log.news) == sorted([b"0", b"1", b"2", b"3"] * 25)


def test_reader_beside_announcers_never_sees_a_head_without_its_news(place: Place) -> None:
    """Head and news are read in one step."""
    tiers = [place.open(), place.open()]
    ends = threading.Event()

    def work(index: int) -> int:
        if index == 0:
            for _ in range(150):
                one(tiers[0], Announce(EPOCH, SENDER, (b"n",)))
            ends.set()
            return 0
        readings = 0
        after = 0
        while not ends.is_set() and readings < 3000:
            log = one(tiers[1], ReadLog(EPOCH, after, 1000, 0))
            assert [news.sequence for news in log.news] == list(range(after + 1, log.head.sequence + 1))
            after, readings = log.head.sequence, readings + 1
        return readings

    assert in_threads(2, work)[1]


def test_fence_of_many_threads_stands_until_the_last_left(place: Place) -> None:
    """No writer is lost when all come and go at once."""
    tier, name = place.open(), place.name("record")
    writers = [bytes([index + 1]) * 16 for index in range(8)]
    in_threads(8, lambda index: one(tier, Fence(name, writers[index], LONG_MS)))
    record = one(tier, Get(name))
    assert sorted(record[start : start + 16] for start in range(2, len(record), 24)) == writers
    cleared = in_threads(8, lambda index: one(tier, Clear(name, writers[index], b"no", LONG_MS)))
    assert set(cleared) == {CLEARED}
    assert one(tier, Get(name)) == b""


def test_tag_marked_by_many_threads_has_the_latest_stamp(place: Place) -> None:
    """Whatever their order."""
    tier, tag = place.open(), place.name("tag")
    in_threads(8, lambda index: [one(tier, MarkTag(tag, stamp(8 * n + index))) for n in range(10)])
    assert stamp_of(one(tier, Get(tag))) == stamp(79)


def test_cancelled_batch_leaves_the_tier_usable(place: Place) -> None:
    """Whether or not it was performed, later ones get their own replies."""
    tier, name = place.open(), place.name("record")

    async def main() -> None:
        try:
            for number in range(20):
                batch = asyncio.ensure_future(tier.perform_async([put(name, b"%d" % number, LONG_MS)], TIMEOUT_NS))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                batch.cancel()
                await asyncio.wait([batch])
                other = place.name(f"other-{number}")
                replies = await tier.perform_async([put(other, other, LONG_MS), Get(other)], TIMEOUT_NS)
                assert replies == [True, value_record(other)]
        finally:
            await tier.close_async()

    run(main())


def test_both_colours_work_side_by_side(place: Place) -> None:
    """Threads and an event loop on one tier object."""
    tier, names = place.open(), [place.name(f"record-{index}") for index in range(40)]

    async def fill(name: bytes) -> Any:
        replies = await tier.perform_async([Lease(name, A, LONG_MS), Fill(name, A, name, LONG_MS)], TIMEOUT_NS)
        return replies[1]

    async def main() -> list[Any]:
        try:
            return await asyncio.gather(*(fill(name) for name in names))
        finally:
            await tier.close_async()

    def work(index: int) -> object:
        if index == 0:
            return run(main())
        return [one(tier, put(name + b"x", name, LONG_MS)) for name in names]

    assert in_threads(3, work) == [[True] * 40] * 3
    assert tier.perform([Get(name) for name in names], TIMEOUT_NS) == [value_record(name) for name in names]


# Other processes ------------------------------------------------------------------------------------------------------


def _in_another_process(kind: str, address: str, namespace: str, name: bytes, pipe: Any) -> None:  # Any: a Connection
    tier = open_tier(kind, address, namespace)
    try:
        pipe.send(one(tier, Get(name)))
        pipe.send(one(tier, Fence(name, B, LONG_MS)))
        pipe.send(one(tier, Announce(EPOCH, SENDER, (name,))).sequence)
        pipe.recv()
        pipe.send(one(tier, Get(name)))
    finally:
        tier.close()


@contextmanager
def another_process(place: Place, name: bytes) -> Iterator[Callable[[], Any]]:
    """Run `_in_another_process`; yields what receives its next word."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (place.kind, place.address, place.namespace, name, theirs)
    process = context.Process(target=_in_another_process, args=arguments, daemon=True)
    process.start()
    theirs.close()

    def receive() -> Any:
        assert ours.poll(DEADLINE), "the other process says nothing"
        return ours.recv()

    try:
        receive.send = ours.send  # type: ignore[attr-defined]
        yield receive
        process.join(DEADLINE)
        assert process.exitcode == 0
    finally:
        ours.close()
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def test_two_processes_see_each_other(place: Place) -> None:
    """Values, fences and the log."""
    if not place.is_shared:
        pytest.skip("a dictionary is not shared by processes")
    tier, name = place.open(), place.name("record")
    one(tier, put(name, b"1", LONG_MS))
    with another_process(place, name) as receive:
        assert receive() == value_record(b"1")
        assert receive() is False
        assert receive() == 1
        assert one(tier, Lease(name, A, LONG_MS))[:18] == b"B0" + B
        assert one(tier, ReadLog(EPOCH, 0, 10, 0)).news[0].names == (name,)
        assert tier.perform([Clear(name, B), put(name, b"2", LONG_MS)], TIMEOUT_NS) == [CLEARED, True]
        receive.send("go on")  # type: ignore[attr-defined]
        assert receive() == value_record(b"2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_uses_the_place_and_the_parent_goes_on(place: Place) -> None:
    """Neither disturbs the other's connections."""
    tier, names = place.open(), [place.name("parent"), place.name("child")]
    one(tier, put(names[0], b"1", LONG_MS))

    def child() -> object:
        tier.forget_parent()
        stored = one(tier, put(names[1], b"2", LONG_MS))
        found = tier.perform([Get(name) for name in names], TIMEOUT_NS)
        tier.close()
        return stored, found

    answer = in_child(child)
    seen = value_record(b"1") if place.is_shared else b""
    assert answer == repr((True, [seen, value_record(b"2")]))
    assert one(tier, Get(names[0])) == value_record(b"1")
    assert one(tier, Get(names[1])) == (value_record(b"2") if place.is_shared else b"")
