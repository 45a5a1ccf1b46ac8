"""One run: processes over a server and a database, with faults, and its verdict."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import RedisServer, running_redis

from bench.chaos.checker import Verdict, check
from bench.chaos.database import open_database
from bench.chaos.faults import Faults
from bench.chaos.history import read_history
from bench.chaos.plan import ROWS, Arm, Orders

PROCESSES = 4
ROOT = Path(__file__).resolve().parent.parent.parent
_STALENESS = {"strict": (0.2, 0.3), "bounded": (0.2, 0.3, 0.5, 1.0), "invalidate": (0.2, 0.5), "ttl": (0.5,)}
_GRACE_SECONDS = 8.0
_LONGEST_START = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an arm.

    Attributes:
        errors: what a reader or a writer raised, and no fault explains.
        counted: what the caches of the processes that lived to the end have counted.
    """

    arm: Arm
    seconds: float
    max_staleness: float
    verdict: Verdict
    faults: Counter[str]
    errors: list[str]
    counted: Counter[str]

    @property
    def is_as_promised(self) -> bool:
        """Whether the promise held, or the checker has found that the control breaks it."""
        if self.arm.is_control:
            return self.verdict.broken > 0
        return self.verdict.broken == 0 and not self.errors and self.verdict.reads > 0


def run(arm: Arm, seconds: float, seed: int, *, postgres: str | None = None, has_faults: bool = True) -> Outcome:
    """Run an arm for so long; everything that is started is ended."""
    chosen = random.Random(seed)
    max_staleness = chosen.choice(_STALENESS[arm.coherence])
    with tempfile.TemporaryDirectory(prefix="credenza-chaos-") as name, running_redis() as server:
        folder = Path(name)
        with _database(folder, postgres, seed) as database_url:
            crew = _Crew(arm, server, database_url, folder, max_staleness, seconds, seed, kills_itself=has_faults)
            try:
                faults = crew.sail(has_faults=has_faults)
            finally:
                crew.end()
            verdict = check(read_history(folder), arm, max_staleness, list(faults.losses))
            counts = faults.counts + Counter({"SIGKILL in the middle of a write": crew.died})
            return Outcome(arm, seconds, max_staleness, verdict, +counts, crew.errors(), crew.counted())


@contextlib.contextmanager
def _database(folder: Path, postgres: str | None, seed: int) -> Iterator[str]:
    """A database with the rows of this run."""
    if postgres is None:
        url = str(folder / "rows.db")
        open_database(url).create(ROWS)
        yield url
        return
    import psycopg

    name = f"chaos_{seed}_{time.monotonic_ns()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = psycopg.conninfo.make_conninfo(postgres, dbname=name)
    open_database(f"postgresql://?{_as_query(url)}").create(ROWS)
    yield f"postgresql://?{_as_query(url)}"


def _as_query(conninfo: str) -> str:
    import urllib.parse

    import psycopg

    return urllib.parse.urlencode(psycopg.conninfo.conninfo_to_dict(conninfo))


class _Crew:
    """The processes of a run; those that die are replaced."""

    def __init__(
        self,
        arm: Arm,
        server: RedisServer,
        database_url: str,
        folder: Path,
        max_staleness: float,
        seconds: float,
        seed: int,
        *,
        kills_itself: bool,
    ) -> None:
        self._arm = arm
        self._server = server
        self._database_url = database_url
        self._folder = folder
        self._max_staleness = max_staleness
        self._seed = seed
        self._kills_itself = kills_itself
        self._seconds = seconds
        self._start_file = folder / "start"
        self._started = 0
        self._lock = threading.Lock()  # guards the two lists of processes
        self._all: list[subprocess.Popen[bytes]] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self.died = 0

    def sail(self, *, has_faults: bool) -> Faults:
        """Run until it is time; return what went wrong meanwhile."""
        self._workers.extend(self._start() for _ in range(PROCESSES))
        until = self._give_the_start()
        faults = Faults(
            self._server,
            self._workers,
            self._replace,
            max_staleness=self._max_staleness,
            seed=self._seed,
            has_losses=not self._arm.is_control,  # which would hide what a control does wrong
        )
        try:
            if has_faults:
                faults.start()
            while time.monotonic_ns() < until:
                time.sleep(0.05)
                self._replace_dead()
        finally:
            faults.stop()
        ends = time.monotonic() + _GRACE_SECONDS
        for worker in list(self._all):
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, ends - time.monotonic()))
        return faults

    def end(self) -> None:
        """End all processes, whatever state they are in."""
        for worker in self._all:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    def errors(self) -> list[str]:
        """Return what the processes complained about."""
        return [path.read_text() for path in sorted(self._folder.glob("*.errors"))]

    def counted(self) -> Counter[str]:
        """Return the sums of what the caches counted."""
        total: Counter[str] = Counter()
        for path in self._folder.glob("*.json"):
            total.update(json.loads(path.read_text()))
        return total

    def _give_the_start(self) -> int:
        """Wait until all processes have come up, and tell them when it is over."""
        ends = time.monotonic() + _LONGEST_START
        while len(list(self._folder.glob("*.ready"))) < PROCESSES and time.monotonic() < ends:
            time.sleep(0.02)
        until = time.monotonic_ns() + int(self._seconds * 1e9)
        draft = self._start_file.with_suffix(".draft")
        draft.write_text(str(until))
        draft.rename(self._start_file)
        return until

    def _start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        path = self._folder / f"{self._started:03}.history"
        orders = Orders(
            arm=self._arm,
            tier_url=self._server.url,
            database_url=self._database_url,
            path=str(path),
            start=str(self._start_file),
            max_staleness=self._max_staleness,
            seed=self._seed * 1000 + self._started,
            kills_itself=self._kills_itself,
        )
        with path.with_suffix(".log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "bench.chaos.worker", orders.as_text()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._all.append(worker)
        return worker

    def _replace(self, place: int) -> None:
        with self._lock:
            self._workers[place] = self._start()

    def _replace_dead(self) -> None:
        """Start others for those that killed themselves."""
        with self._lock:
            for place, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    self.died += 1
                    self._workers[place] = self._start()
