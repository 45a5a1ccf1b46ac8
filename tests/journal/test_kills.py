"""kill -9 at random moments: whatever was acknowledged is delivered, or pending."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.journal.victim import numbers_in
from tests.support.waiting import DEADLINE

from credenza.journal.sqlite import SqliteJournal

RUNS = int(os.environ.get("CREDENZA_KILLS", "30"))
MOST_SECONDS = 0.15

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")


def kill_one(folder: Path, durability: str, when: str, randomness: random.Random) -> None:
    """Run a victim until it is busy and a little longer."""
    command = [sys.executable, "-m", "tests.journal.victim", str(folder), durability, when]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(4 * DEADLINE, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "busy\n"
            watchdog.join(randomness.uniform(0, MOST_SECONDS))
        finally:
            process.kill()
            watchdog.cancel()
            watchdog.join()


def lost_writes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the keys of which less is delivered or pending than was acknowledged."""
    acknowledged, there = numbers_in(folder / "acknowledged"), numbers_in(folder / "source")
    journal = SqliteJournal(folder / "the.journal")
    try:
        assert journal.status().kept_aside == ()
        for one in journal.take(1_000_000):
            there[one.key.decode()] = max(there.get(one.key.decode(), 0), int(one.value or 0))
    finally:
        journal.close()
    return {key: (number, there.get(key, 0)) for key, number in acknowledged.items() if there.get(key, 0) < number}


def check_order(folder: Path) -> None:
    """Nothing older was delivered after something newer of the same key."""
    last: dict[str, int] = {}
    for line in (folder / "source").read_text("ascii").split("\n")[:-1]:
        key, number = line.split()
        assert int(number) >= last.get(key, 0), f"{key}: {number} after {last[key]}"
        last[key] = int(number)


@pytest.mark.timeout(20 + 4 * RUNS)
@pytest.mark.parametrize("durability", ["disk", "os"])
def test_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path, durability: str) -> None:
    """Over and over with one journal; each key is delivered in order."""
    randomness = random.Random(durability)
    for _ in range(RUNS // 2):
        kill_one(tmp_path, durability, "after", randomness)
        assert lost_writes(tmp_path) == {}
    check_order(tmp_path)


@pytest.mark.timeout(20 + 4 * RUNS)
def test_journal_that_acknowledges_before_it_commits_is_caught(tmp_path: Path) -> None:
    """The test above finds what it is there for."""
    randomness = random.Random(1)
    for run in range(3 * RUNS):
        folder = tmp_path / str(run)
        folder.mkdir()
        kill_one(folder, "disk", "before", randomness)
        if lost_writes(folder):
            return
    pytest.fail("no write was lost")
