"""The real flows under virtual time: thousands of interleavings, each checked against the rules of DESIGN section 3.

A seed stands for a cache with some options, a few clients in threads and tasks, and a schedule: who goes on at every
wait and at every edge of the lock, who is cancelled or interrupted there, which loads fail, hang or take how long. A
failing seed prints its interleaving, numbered, and the rules that it breaks. To see one again, in the environment of
`make test`:

    .venv/bin/python -m tests.support.simulation 4711

With two numbers it explores a range of seeds, and with the name of a mutant (tests/support/simulation/mutants.py)
behind them a cache that is broken on purpose: that the simulation notices those is tested here too.
"""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.simulation.mutants import MUTANTS, mutated
from tests.support.simulation.run import carriers, failing, run_one

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 20_000
MOST_SEEDS_FOR_A_MUTANT = 4_000
SECONDS = 240
"""When to give up. Two cores that have nothing else to do take less than a minute."""


@pytest.mark.timeout(SECONDS + 10)
def test_twenty_thousand_interleavings_break_no_rule() -> None:
    """L1-L5, L8, L9, F1, F3, I1-I3 and I5 hold in every interleaving, and every call ends."""
    processes = min(4, max(2, os.cpu_count() or 2))
    bounds = [SEEDS * number // processes for number in range(processes + 1)]
    ends = time.monotonic() + SECONDS
    explorers = [_explorer(*pair) for pair in itertools.pairwise(bounds)]
    try:
        outputs = [explorer.communicate(timeout=ends - time.monotonic())[0] for explorer in explorers]
    finally:
        for explorer in explorers:
            explorer.kill()
            explorer.wait()
    for explorer, output in zip(explorers, outputs, strict=True):
        assert explorer.returncode == 0, output


def _explorer(first: int, last: int) -> "subprocess.Popen[str]":
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.simulation", str(first), str(last)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.frees_caches
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # mutants leave all kinds of things behind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_broken_cache_is_caught(name: str) -> None:
    """Each mutant of the core breaks a rule in one of the first seeds."""
    with carriers() as lent, mutated(name):
        report = next(failing(range(MOST_SEEDS_FOR_A_MUTANT), lent), None)
    assert report is not None, f"{name} went unnoticed in {MOST_SEEDS_FOR_A_MUTANT} seeds"


@pytest.mark.frees_caches
def test_same_seed_gives_the_same_history() -> None:
    """A failing seed can be replayed: threads and tasks alike do the same in the same order."""
    with carriers() as lent:
        for seed in range(20):
            assert str(run_one(seed, lent)) == str(run_one(seed, lent))


@pytest.mark.frees_caches
def test_report_shows_the_interleaving_and_the_command() -> None:
    """Whoever reads a failure sees what happened, in order, and how to see it again."""
    with carriers() as lent:
        text = str(run_one(7, lent))
    assert "seed 7: Cache(maxsize=" in text
    assert "call 1 " in text
    assert text.endswith("again: python -m tests.support.simulation 7")
