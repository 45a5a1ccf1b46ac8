"""Rounds of writers over one journal and one source: each is killed, the next one goes on from what it left."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers import RedisServer, find_server
from tests.support.servers.redis_server import temporary_folder

from bench.kills.database import Database, open_database
from bench.kills.ledger import Ledger, Verdict
from bench.kills.nursery import Child, Nursery
from bench.kills.plan import Arm, Moment, Orders, moment, orders_until
from bench.kills.records import Kind, Record
from bench.kills.rows import create, look

_NUMBERS_OF_A_WRITER = 1_000_000
_PATIENCE = 30.0
_LEASE = "100ms"
_CHECKS, _CHECKS_OF_CONTROLS = 0.2, 0.5
"""How probable it is that all is delivered and checked after a kill; otherwise the next writer starts at once."""

_LONGER_ON_SERVERS = 4
"""Deliveries begin when the leases of the dead have been noticed to be over."""

_KEYS_OF_CONTROLS = 2
_SERVER_DEATHS = 0.3
"""How probable it is that a server which keeps the journal is killed, too, before a writer is."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the journals and the rows of a run are kept.

    Attributes:
        postgres: the URL of a server, None for SQLite files.
        on_redis: journals in a server that each arm has to itself, instead of files.
    """

    postgres: str | None = None
    on_redis: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of an arm.

    Attributes:
        kills: by moment.
        server_kills: of the journal's server.
        rescued: pending writes that writers found at their start.
        checks: how often everything was delivered and compared.
        failures: what broke the run itself.
    """

    arm: Arm
    verdict: Verdict
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    server_kills: int = 0
    rescued: int = 0
    checks: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def is_as_promised(self) -> bool:
        """Whether nothing is against the promise, or the ledger has found what a control does."""
        if self.arm.is_control:
            return bool(getattr(self.verdict, self.arm.finds)) and not self.failures
        return not self.verdict.wrong(exactly_once=self.arm.exactly_once) and not self.failures and self.checks > 0


def run(arm: Arm, kills: int, seed: int, places: Places, nursery: Nursery) -> Outcome:
    """Kill so many writers; a control ends once it is found out. Everything else that is started is ended."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="credenza-kills-")))
        source = new_source(folder, places, seed)
        server = stack.enter_context(durable_redis()) if places.on_redis else None
        journal = new_journal(folder, server)
        database = open_database(source)
        stack.callback(database.close)
        rounds = Rounds(arm, Orders(journal, source, 0, seed), nursery, database, server)
        rounds.play(kills)
        rounds.outcome.seconds = time.monotonic() - began
        return rounds.outcome


def new_journal(folder: Path, server: RedisServer | None) -> str:
    """Return the address of a journal. On a server, those of the dead must be given up soon, as the next one waits."""
    return str(folder / "writes.journal") if server is None else f"{server.url}?namespace=kills&lease={_LEASE}"


def new_source(folder: Path, places: Places, seed: int) -> str:
    """Return the address of a new database with the tables."""
    if places.postgres is None:
        url = str(folder / "rows.db")
    else:
        url = _new_postgres(places.postgres, f"kills_{seed}_{time.monotonic_ns()}")
    database = open_database(url)
    create(database)
    database.close()
    return url


def _new_postgres(server: str, name: str) -> str:
    import urllib.parse

    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    parts = psycopg.conninfo.conninfo_to_dict(server, dbname=name)
    return f"postgresql://?{urllib.parse.urlencode(parts)}"


@contextlib.contextmanager
def durable_redis() -> Iterator[RedisServer]:
    """A server that has every write on the disk before it answers."""
    binary = find_server("redis")
    with temporary_folder() as folder:
        options = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        server = RedisServer(folder, binary=binary, options=options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class Rounds:
    """Writers of one arm, one after the other, and what they leave.

    Args:
        arm: what is run.
        orders: what all writers are told.
        nursery: starts them.
        database: the source.
        server: of the journal, if it has one.
    """

    def __init__(
        self, arm: Arm, orders: Orders, nursery: Nursery, database: Database, server: RedisServer | None
    ) -> None:
        is_steady = arm.is_control  # what is broken is to be found soon, and nothing else
        self._orders = dataclasses.replace(
            orders,
            sabotage=arm.sabotage,
            exactly_once=arm.exactly_once,
            trouble=0.0 if is_steady else 0.05,
            keys=_KEYS_OF_CONTROLS if is_steady else orders.keys,
            dawdles=0.005,
        )
        self._arm = arm
        self._nursery = nursery
        self._database = database
        self._server = server
        self._random = random.Random(orders.seed)
        self._ledger = Ledger()
        self._started = 0
        self.outcome = Outcome(arm, self._ledger.verdict)

    def play(self, kills: int) -> None:
        """Go on until so many writers were killed, or something is wrong with the run itself."""
        outcome = self.outcome
        while outcome.kills.total() < kills and not outcome.failures and not self._is_found_out():
            self._round(moment(self._random, self._arm.moments))
            if self._random.random() < (_CHECKS_OF_CONTROLS if self._arm.is_control else _CHECKS):
                self._check()
        if not outcome.failures and not self._is_found_out():
            self._check()

    def _is_found_out(self) -> bool:
        return self._arm.is_control and bool(getattr(self.outcome.verdict, self._arm.finds))

    def _round(self, when: Moment) -> None:
        """Start a writer and kill it."""
        orders = dataclasses.replace(
            orders_until(when, self._next_orders(), self._random), durability=self._durability()
        )
        child = self._nursery.start(orders)
        kills_server = self._server is not None and self._random.random() < _SERVER_DEATHS
        self._follow(child, when)
        if kills_server:
            assert self._server is not None
            self._server.kill9()
            self._note(child.records(self._random.uniform(0, 0.05)))
            self._server.start()
            self.outcome.server_kills += 1
            self._note(child.records(self._random.uniform(0, 0.2)))
        self._note(child.kill())
        self._ledger.end_process()
        if child.status == -9:
            self.outcome.kills[when.kind] += 1
        elif child.status:
            self.outcome.failures.append(f"a writer ended with status {child.status} by itself")

    def _follow(self, child: Child, when: Moment) -> None:
        """Listen to a writer until it is time to kill it."""
        if when.kind == "start":
            self._note(child.records(when.delay))
        elif when.kind == "load":
            self._note_until(child, Kind.OPENED)
            self._note(child.records(when.delay * (1 if self._server is None else _LONGER_ON_SERVERS)))
        elif when.kind == "close":
            self._note_until(child, Kind.CLOSING)
            self._note(child.records(when.delay))
        else:
            self._note(child.records(_PATIENCE))  # until it has killed itself
            if not child.has_ended:
                self.outcome.failures.append("nothing was delivered")

    def _check(self) -> None:
        """Have everything delivered, and compare."""
        child = self._nursery.start(dataclasses.replace(self._next_orders(), drains=True))
        closed = [record for record in self._heard(child.records(_PATIENCE * 2)) if record.kind is Kind.CLOSED]
        self._note(child.kill())
        self._ledger.end_process()
        if child.status or not closed:
            self.outcome.failures.append(f"a start that was to deliver everything ended with status {child.status}")
            return
        self.outcome.checks += 1
        verdict = self._ledger.verdict
        verdict.left += closed[-1].number
        found = look(self._database, all_keys=self._orders.all_keys)
        self._ledger.check(found.numbers)
        verdict.rows, verdict.backwards, verdict.twice = found.written, found.backwards, found.twice
        verdict.invented += found.strays

    def _next_orders(self) -> Orders:
        self._started += 1
        seed = self._random.randrange(1 << 30)
        return dataclasses.replace(self._orders, first=self._started * _NUMBERS_OF_A_WRITER, seed=seed)

    def _durability(self) -> str:
        """Neither may lose anything when a process dies."""
        return self._random.choice(("disk", "os"))

    def _heard(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            self._ledger.note(record)
            if record.kind is Kind.RESCUED:
                self.outcome.rescued += record.number
            elif record.kind is Kind.DEAD:
                self._ledger.verdict.dead = max(self._ledger.verdict.dead, record.number)
            yield record

    def _note(self, records: Iterator[Record]) -> None:
        for _ in self._heard(records):
            pass

    def _note_until(self, child: Child, kind: Kind) -> None:
        """Listen until the writer says that it has come so far, or has ended."""
        for record in self._heard(child.records(_PATIENCE)):
            if record.kind is kind:
                return
        if not child.has_ended:
            self.outcome.failures.append(f"a writer did not get to {kind.name} in {_PATIENCE:g} s")
