"""Several processes over one shared tier, under virtual time: each interleaving checked against the promise of DESIGN section 5.

A seed stands for two or three processes, each with its cache, its keeper and some clients in threads and tasks, over one
tier and one database. Messages are slow, lost, late, or performed twice; processes are paused and killed; lines are cut;
the tier evicts, refuses, and its clock jumps. A failing seed prints its interleaving, numbered, and what it breaks. To
see one again, in the environment of `make test`:

    .venv/bin/python -m tests.support.protocol 4711

With `--seeds 0 50000` it explores a range, with `--mutant NAME` a protocol that is broken on purpose (see
tests/support/protocol/mutants.py): that the simulation notices those is tested here too. A few of them hardly any seed
shows; they are looked for under a situation that they need (see tests/support/protocol/situations.py).
"""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.protocol.mutants import MUTANTS, NEEDS, mutated
from tests.support.protocol.run import carriers, failing, run_one
from tests.support.protocol.situations import SITUATIONS

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 3_000
SEEDS_UNDER_A_SITUATION = 50
MOST_SEEDS_FOR_A_MUTANT = 4_000
SECONDS = 280
"""When to give up. Two cores that have nothing else to do take about a minute."""

FIRST_SEEDS = {
    "clearing_raises_no_floor": 120,
    "failed_loads_keep_their_lease": 50,
    "fences_are_not_renewed": 170,
    "fences_fall_while_the_outcome_is_unknown": 90,
    "fences_that_expired_are_not_missed": 450,
    "fills_ignore_the_token": 240,
    "invalidations_leave_leases": 600,
    "memory_without_proof": 130,
    "no_generation_check": 1900,
    "nobody_waits_for_proofs": 460,
    "owed_keys_are_read_from_the_tier": 1050,
    "published_before_the_fence": 2150,
    "waiters_take_any_value": 500,
    "write_through_looks_at_nobody_else": 170,
}
"""Where to begin with mutants that few seeds show, so that the test takes seconds: none of the seeds before shows them."""


@pytest.mark.timeout(SECONDS + 10)
def test_interleavings_of_processes_keep_the_promise() -> None:
    """Each coherence level keeps what it promises in every interleaving, and everything ends."""
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
        [sys.executable, "-m", "tests.support.protocol", "--seeds", str(first), str(last)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.frees_caches
@pytest.mark.parametrize("situation", SITUATIONS)
def test_rare_situations_keep_the_promise(situation: str) -> None:
    """Without a mutant, seeds under a situation that some mutant needs break no promise."""
    with carriers() as lent:
        report = next(failing(range(SEEDS_UNDER_A_SITUATION), lent, situation), None)
    assert report is None, str(report)


@pytest.mark.frees_caches
@pytest.mark.timeout(200)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # mutants leave all kinds of things behind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_broken_protocol_is_caught(name: str) -> None:
    """Each mutant of the protocol breaks the promise in one of the first seeds, under the situation that it needs."""
    with carriers() as lent, mutated(name):
        first = FIRST_SEEDS.get(name, 0)
        report = next(failing(range(first, first + MOST_SEEDS_FOR_A_MUTANT), lent, NEEDS.get(name)), None)
    assert report is not None, f"{name} went unnoticed in {MOST_SEEDS_FOR_A_MUTANT} seeds"


@pytest.mark.frees_caches
def test_same_seed_of_processes_gives_the_same_history() -> None:
    """A failing seed can be replayed: processes, messages and faults do the same in the same order."""
    with carriers() as lent:
        for seed in range(20):
            assert str(run_one(seed, lent)) == str(run_one(seed, lent))


@pytest.mark.frees_caches
def test_report_of_processes_shows_the_interleaving_and_the_command() -> None:
    """Whoever reads a failure sees what the processes and the tier did, in order, and how to see it again."""
    with carriers() as lent:
        text = str(run_one(7, lent))
    assert "x Cache(maxsize=" in text
    assert "tier for P1" in text
    assert text.endswith("again: python -m tests.support.protocol 7")
