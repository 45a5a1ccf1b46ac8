"""One process of a run: threads that put through a repository with write-behind, until it is killed or told to end."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from typing import Any, Literal

from bench.kills import sabotage
from bench.kills.database import open_database
from bench.kills.plan import SHARED_KEYS, THREADS, Orders
from bench.kills.records import Kind, Reporter
from bench.kills.rows import number_in, value_of
from credenza import Cache, JournalError, JournalFull, NotFound, WriteBehind
from credenza.journal.base import Journal
from credenza.journal.urls import open_journal

_READERS = 2
"""So many threads read as well, with a connection to the database each."""

_READS, _SHARED = 0.05, 0.1
_FIRST_READS = 5
_AFTER_REFUSAL = 0.005
_DRAIN_SECONDS = 60.0
_START_SECONDS = 10.0


class Writer:
    """Puts numbers that grow, and reports each one before and after."""

    def __init__(self, orders: Orders, reporter: Reporter) -> None:
        self._orders = orders
        self._tell = reporter.tell
        self._numbers = itertools.count(orders.first)
        self._ends = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._ends.set())
        self._cache: Cache[Any, Any] = Cache(maxsize=1_000)
        self._repository = self._open()

    def run(self) -> None:
        """Write until it is time, then close."""
        threads = [threading.Thread(target=self._guarded, args=(place,), daemon=True) for place in range(THREADS)]
        if not self._orders.drains:
            for thread in threads:
                thread.start()
            self._ends.wait(self._orders.lasts)
            self._ends.set()
            for thread in threads:
                thread.join()
        self._tell(Kind.CLOSING)
        report = self._repository.close(timeout=_DRAIN_SECONDS)
        self._tell(Kind.DEAD, number=report.dead)
        self._tell(Kind.CLOSED, number=report.pending)
        self._cache.close()

    def _open(self) -> Any:
        orders = self._orders
        if orders.sabotage == "forgets":
            sabotage.forget(orders.journal)
        strategy = WriteBehind(
            sabotage.broken_journal(self._open_journal(), orders.sabotage),
            batch_size=orders.batch_size,
            max_delay=orders.max_delay,
            max_pending=orders.max_pending,
            when_full="raise" if orders.when_full == "raise" else "block",
            max_failures=1_000,
            backoff=0.005,
            max_backoff=0.1,
        )
        source = sabotage.broken_rows(open_database(orders.source), orders)
        repository = self._cache.repository(source, strategy=strategy, key="row:{}")
        self._tell(Kind.RESCUED, number=repository.journal.count())
        self._tell(Kind.OPENED)
        return repository

    def _open_journal(self) -> Journal:
        """Open the journal; on a server that was killed a moment ago, when it is back."""
        orders = self._orders
        ends = time.monotonic() + (_START_SECONDS if "://" in orders.journal else 0)
        durability: Literal["disk", "os"] = "disk" if orders.durability == "disk" else "os"
        while True:
            try:
                return open_journal(orders.journal, durability=durability, max_pending=orders.max_pending)
            except JournalError:
                if time.monotonic() >= ends:
                    raise
                time.sleep(_AFTER_REFUSAL)

    def _guarded(self, place: int) -> None:
        try:
            self._write(place)
        except BaseException:
            traceback.print_exc()
            os._exit(3)

    def _write(self, place: int) -> None:
        chosen = random.Random(self._orders.seed * THREADS + place)
        mine = range(place * self._orders.keys, (place + 1) * self._orders.keys)
        shared = range(THREADS * self._orders.keys, THREADS * self._orders.keys + SHARED_KEYS)
        is_reader = place < _READERS
        for key in chosen.sample(mine, min(_FIRST_READS, len(mine))) if is_reader else ():
            self._read(key)
        while not self._ends.is_set():
            if is_reader and chosen.random() < _READS:
                self._read(chosen.choice(mine))
            key = chosen.choice(shared if chosen.random() < _SHARED else mine)
            self._put(key, deletes=chosen.random() < self._orders.deletes)

    def _put(self, key: int, *, deletes: bool) -> None:
        number = next(self._numbers)
        self._tell(Kind.DELETED if deletes else Kind.SENT, key, number)
        try:
            if deletes:
                self._repository.delete(key)
            else:
                self._repository.put(key, value_of(key, number))
        except JournalFull:
            self._tell(Kind.FULL, key, number)
            time.sleep(_AFTER_REFUSAL)
        except JournalError:
            self._tell(Kind.FAILED, key, number)
            time.sleep(_AFTER_REFUSAL)
        else:
            self._tell(Kind.KEPT, key, number)

    def _read(self, key: int) -> None:
        """Report what is read of a key that this thread alone writes."""
        try:
            value = self._repository.get(key)
        except NotFound:
            self._tell(Kind.READ, key, 0)
        except (JournalError, ConnectionError):
            pass  # the journal is away, so that nobody knows what is pending; or the source is
        else:
            number = number_in(key, value)
            self._tell(Kind.READ, key, sys.maxsize if number is None else number)


def work(orders: Orders, descriptor: int) -> None:
    """Do what the orders say, and report it to a pipe."""
    log = logging.getLogger("credenza")
    log.setLevel(logging.CRITICAL if orders.sabotage else logging.ERROR)
    log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], JournalError)))
    Writer(orders, Reporter(descriptor)).run()
