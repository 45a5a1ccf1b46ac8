"""kill -9 of processes that share a journal on Redis: whatever was acknowledged is delivered, in order, or pending."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.journal.test_kills import check_order
from tests.journal.victim import numbers_in
from tests.support.servers import RedisServer, running_redis
from tests.support.waiting import wait_until

from credenza.journal.redis import RedisJournal

RUNS = int(os.environ.get("CREDENZA_KILLS", "6"))

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")


@pytest.fixture
def durable_server() -> Iterator[RedisServer]:
    """A server that acknowledges what is on its disk."""
    with running_redis(appendonly="yes", appendfsync="always") as server:
        yield server


@contextmanager
def running(folder: Path, url: str, name: str) -> Iterator[None]:
    """A process that writes and delivers, killed with the block, or before."""
    command = [sys.executable, "-m", "tests.journal.redis_victim", str(folder), url, name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / f"stderr-{name}").open("ab") as errors:
        process = subprocess.Popen(command, env=environment, stderr=errors)
    try:
        yield
        assert process.poll() is None, (folder / f"stderr-{name}").read_text()
    finally:
        process.kill()
        process.wait()


def said(folder: Path, name: str) -> int:
    """Return how far the writes of a process have come."""
    return sum(numbers_in(folder / f"acknowledged-{name}").values())


def wait_for_writes(folder: Path, name: str, more: int) -> None:
    """Return when a process has written so many more times."""
    before = (folder / f"acknowledged-{name}").stat().st_size if said(folder, name) else 0
    wait_until(
        lambda: said(folder, name) and (folder / f"acknowledged-{name}").stat().st_size > before + 10 * more,
        f"{name} writes",
    )


@pytest.mark.timeout(30 + 6 * RUNS)
def test_killed_processes_lose_nothing_that_was_acknowledged(tmp_path: Path, durable_server: RedisServer) -> None:
    """One is killed over and over while another goes on; each key is delivered in order, whoever delivers it."""
    url = f"{durable_server.url}/0?partitions=4"
    randomness = random.Random(7)
    with running(tmp_path, url, "steady"):
        for _ in range(RUNS):
            with running(tmp_path, url, "killed"):
                wait_for_writes(tmp_path, "killed", randomness.randrange(60))
        wait_for_writes(tmp_path, "steady", 20)
    check_order(tmp_path)
    there = numbers_in(tmp_path / "source")
    journal = RedisJournal(url, lease=0.5)
    try:
        wait_until(lambda: (drain(journal, there), journal.status().pending == 0)[1], "the rest is delivered")
    finally:
        journal.close()
    acknowledged = numbers_in(tmp_path / "acknowledged-steady") | numbers_in(tmp_path / "acknowledged-killed")
    assert {key: number for key, number in acknowledged.items() if there.get(key, 0) < number} == {}
    assert len(acknowledged) == 30


def drain(journal: RedisJournal, there: dict[str, int]) -> None:
    """Deliver what can be taken."""
    while taken := journal.take(1000):
        for one in taken:
            number = int(one.value or 0)
            assert number >= there.get(one.key.decode(), 0)
            there[one.key.decode()] = number
        journal.settle(taken)
