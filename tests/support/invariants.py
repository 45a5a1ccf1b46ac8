"""What must hold of every cache once a test is over: sizes add up, nothing is under way, nothing was left behind."""

import gc
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from credenza.durations import FOREVER_NS
from credenza.memory.entry import DEAD, Entry
from credenza.memory.eviction import MAIN, SMALL, WINDOW, Lru, S3Fifo
from credenza.memory.expiry import Expiry
from credenza.memory.table import Table
from credenza.sentinel import MISSING
from credenza.state import State

_WORKER = "credenza-worker"
_SECONDS = 5.0


@contextmanager
def watching(*, holds_caches: bool = True, watches_threads: bool = True) -> Iterator[list[State]]:
    """Check whatever caches the block makes when it ends; does nothing more if the block raises.

    Args:
        holds_caches: keep the state of each cache until the check; False for tests about what the collector frees.
        watches_threads: threads that the block started must have ended, or be idle workers.
    """
    made: list[State] = []
    threads = set(threading.enumerate())
    failed_jobs = _FailedJobs()
    log = logging.getLogger("credenza")
    level = log.level
    log.addHandler(failed_jobs)
    original = State.__init__

    def noting(self: State, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if holds_caches:
            made.append(self)

    State.__init__ = noting  # type: ignore[method-assign]
    try:
        yield made
    finally:
        State.__init__ = original  # type: ignore[method-assign]
        log.removeHandler(failed_jobs)
    for state in made:
        check_state(state)
    if watches_threads:
        check_threads(threads)
    assert log.level == level, "what is logged was left changed, and later tests would miss it"
    assert not failed_jobs.messages, f"a job of the cache's own failed in a worker thread: {failed_jobs.messages}"


class _FailedJobs(logging.Handler):
    """Notes errors that a worker thread's job let out: whoever waited for it was not told."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "worker thread's job failed" in record.getMessage():
            self.messages.append(self.format(record))


def check_cache(cache: Any) -> None:
    """Check a cache, or `Flights`, in the middle of a test; nothing may be under way."""
    check_state(cache._engine.state)


def check_state(state: State) -> None:
    """Check that nothing is under way in a cache, and that its table adds up."""
    _come_to(lambda: not state.flights, lambda: f"open flights in {state.name!r}: {list(state.flights)}")
    _come_to(lambda: _gates_are_free(state), lambda: f"a turn to load was not given back in {state.name!r}")
    _come_to(lambda: not _left_in_tier(state), lambda: f"{_left_in_tier(state)} left in {state.name!r}")
    with state.lock:
        assert not state.fences, "a fence was left behind"
        check_table(state.table)
        assert state.snapshot().size == state.table.size


def _left_in_tier(state: State) -> str:
    """Say what is under way between the cache and its shared tier, "" for nothing."""
    shared = state.shared
    held = {
        "looks": state.looks,
        "leases": shared.leases if shared else (),
        "barriers": shared.barriers if shared else (),
    }
    return ", ".join(f"{what}: {list(things)}" for what, things in held.items() if things)


def _gates_are_free(state: State) -> bool:
    return all(gate._free == limit and not gate._queue for limit, gate in state.gates.items())


def busy_workers() -> int:
    """Return how many workers of caches are not idle."""
    return sum(thread.name == _WORKER for thread in _busy(set()))


def check_threads(before: set[threading.Thread]) -> None:
    """Check that threads started since `before` have ended; a worker of a cache may be there, but must be idle."""
    _come_to(lambda: not _busy(before), lambda: f"threads left over: {[thread.name for thread in _busy(before)]}")


def _busy(before: set[threading.Thread]) -> list[threading.Thread]:
    gc.disable()  # a collection inside the call deadlocks on Python 3.11 if a finalizer needs the list of threads
    try:
        frames = sys._current_frames()
    finally:
        gc.enable()
    busy = []
    for thread in set(threading.enumerate()) - before:
        frame = frames.get(thread.ident or 0)
        if thread.is_alive() and not (thread.name == _WORKER and frame is not None and frame.f_code.co_name == "_work"):
            busy.append(thread)
    return busy


def _come_to(condition: Any, message: Any) -> None:
    ends = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < ends, message()
        time.sleep(0.001)


# The table ------------------------------------------------------------------------------------------------------------


def check_table(table: Table) -> None:
    """Check that every part of a table says the same about what is in it; the compiled one shows less of itself."""
    is_pure = isinstance(table, Table)
    living = _check_eviction(table) if is_pure else table.living()
    assert len({id(entry) for entry in living}) == len(living), "an entry is queued twice"
    shelves = {id(entry.shelf): entry.shelf for entry in living}
    shelves[id(table.entries)] = table.entries
    shelved = [entry for shelf in shelves.values() for entry in shelf.values()]
    assert Counter(map(id, shelved)) == Counter(map(id, living)), "the queues hold other entries than the dictionaries"
    for entry in living:
        assert entry.shelf.get(entry.slot) is entry, f"{entry.key!r} is not where it says"
        assert table.find(entry.key) is entry
        assert entry.fast_ns != DEAD, f"a dead entry under {entry.key!r}"
        assert entry.value is not MISSING, f"an entry without a value under {entry.key!r}"
    assert table.size == len(living)
    assert table.weight == sum(entry.weight for entry in living)
    assert table.maxsize is None or table.size <= table.maxsize
    for entry in living:
        assert entry.queue, f"{entry.key!r} is in no queue"
        assert entry.tick or entry.deadline_ns() >= FOREVER_NS, f"{entry.key!r} is never reclaimed"
    for tag, count in Counter(tag for entry in living for tag in entry.tags).items():
        assert tag.count == count, f"the tag {tag.name!r} counts {tag.count} entries, and {count} carry it"
        assert tag.is_dead or table.count_of(tag.name) == count
    if is_pure:
        assert table.weight <= table._most_weight
        _check_tags(table, living)
        _check_expiry(table.expiry, living)


def _check_eviction(table: Table) -> list[Entry]:
    """Return the living entries, each of which is queued once."""
    eviction = table.eviction
    living = eviction.living()
    if isinstance(eviction, Lru):
        return living
    assert isinstance(eviction, S3Fifo)
    window = [entry for entry in eviction._window if entry.queue == WINDOW]
    small = [entry for entry in eviction._small if entry.queue == SMALL]
    main = [entry for entry in eviction._main if entry.queue == MAIN]
    assert len(window) + len(small) + len(main) == len(living), "an entry is in another queue than it says"
    assert eviction._window_count == len(window)
    assert eviction._small_count == len(window) + len(small)
    assert eviction._main_count == len(main)
    assert eviction._small_cost == sum(entry.weight for entry in window + small)
    assert eviction._least_share <= eviction._share <= eviction._most_share
    queued = len(eviction._window) + len(eviction._small) + len(eviction._main)
    assert eviction._dead == queued - len(living)
    stamps = [entry.stamp for entry in main]
    assert stamps == sorted(stamps), "the main queue is not in the order in which its entries were looked at"
    ghosts = eviction._ghosts
    assert all(-ghosts._main_clock <= when <= ghosts.clock for when in ghosts._seen.values())
    assert len(ghosts._seen) <= len(ghosts._order) + len(ghosts._long_order) + len(ghosts._main_order)
    return living


def _check_tags(table: Table, entries: list[Entry]) -> None:
    carried = {tag for entry in entries for tag in entry.tags}
    for name, tag in table.tags._living.items():
        assert tag in carried, f"the tag {name!r} is remembered, and nothing carries it"
        assert not tag.is_dead


def _check_expiry(expiry: Expiry, entries: list[Entry]) -> None:
    for entry in entries:
        assert not entry.tick or entry in expiry._buckets[entry.tick]
    assert sum(map(len, expiry._buckets.values())) == sum(bool(entry.tick) for entry in entries)
    assert sorted(expiry._ticks) == sorted(expiry._buckets)
