"""A short run of bench.chaos: two levels keep their promise under faults, and the checker notices one that does not."""

import pytest
from bench.chaos.checker import Loss, Verdict, check
from bench.chaos.history import History, Write
from bench.chaos.plan import ARMS, CONTROLS, Arm
from bench.chaos.report import as_text
from bench.chaos.run import Outcome, run
from tests.support.servers import find_server

SECONDS = 3.0
STALENESS = 0.2
MS = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def server_binary() -> None:
    """Skip where there is no server."""
    find_server("redis")


def named(name: str) -> Arm:
    (arm,) = [arm for arm in (*ARMS, *CONTROLS) if name in arm.name]
    return arm


def shown(outcome: Outcome) -> str:
    return as_text([outcome], seed=0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "seed"), [("strict, with memory", 1), ("bounded, without memory", 2)])
def test_promise_is_kept_under_faults(name: str, seed: int) -> None:
    """No read of four processes is older than the level allows, while processes and the server are stopped and killed."""
    outcome = run(named(name), SECONDS, seed)
    assert outcome.is_as_promised, shown(outcome)
    assert outcome.verdict.reads > 100, shown(outcome)
    assert outcome.verdict.writes > 0, shown(outcome)
    assert outcome.faults, shown(outcome)


@pytest.mark.timeout(60)
def test_fence_that_is_lowered_too_early_is_noticed() -> None:
    """The same run with a broken writer has reads that the checker finds."""
    outcome = run(named("lowered before the commit"), SECONDS, 3)
    assert outcome.verdict.broken > 0, shown(outcome)
    assert outcome.errors == []


# The checker itself ---------------------------------------------------------------------------------------------------


def judge(
    level: str, reads: list[tuple[int, int, int]], *writes: Write, memory: bool = True, losses: tuple[Loss, ...] = ()
) -> Verdict:
    """Check a history of one row, whose times are in milliseconds."""
    history = History()
    history.reads[0] = [(begin * MS, end * MS, version) for begin, end, version in reads]
    history.writes[0] = list(writes)
    return check(history, Arm("made up", level, memory=memory), STALENESS, losses)


def write(version: int, begun: int, committed: int, ended: int, **fields: bool) -> Write:
    return Write("one", 0, begun * MS, version, committed * MS, ended * MS, **fields)


def test_checker_allows_either_value_while_a_write_is_under_way() -> None:
    """Between the beginning and the return of a write a reader may see what was before, or what is after."""
    verdict = judge("strict", [(11, 12, 1), (13, 14, 2), (21, 22, 2)], write(2, 10, 12, 20))
    assert (verdict.broken, verdict.missed, verdict.reads, verdict.writes) == (0, 0, 3, 1)


def test_checker_finds_a_read_that_misses_a_completed_write() -> None:
    """The lateness is the time from the return of the first missed write to the beginning of the read."""
    verdict = judge("strict", [(25, 26, 1)], write(2, 10, 12, 20), write(3, 21, 22, 23))
    assert (verdict.broken, verdict.missed, verdict.worst) == (1, 1, 0.005)
    assert "version 1" in verdict.examples[0]


def test_checker_finds_an_old_value_after_a_new_one() -> None:
    """Once one reader has seen a value, no later one may see the value before it, although the write has not returned."""
    reads = [(13, 14, 2), (15, 16, 1)]
    assert judge("strict", reads, write(2, 10, 12, 20)).broken == 1
    assert judge("bounded", reads, write(2, 10, 12, 20), memory=False).broken == 1
    assert judge("bounded", reads, write(2, 10, 12, 20)).broken == 0
    assert judge("invalidate", reads, write(2, 10, 12, 20), memory=False).broken == 0


def test_checker_forgives_what_is_younger_than_the_bound() -> None:
    """With a memory tier "bounded" may be late by `max_staleness`, and not by more; "invalidate" likewise."""
    for level in ("bounded", "invalidate"):
        assert judge(level, [(220, 221, 1)], write(2, 10, 12, 20)).broken == 0
        assert judge(level, [(221, 222, 1)], write(2, 10, 12, 20)).broken == 1
        assert judge(level, [(221, 222, 1)], write(2, 10, 12, 20), memory=False).broken == 1


def test_checker_holds_bounded_to_the_commit_of_a_killed_writer() -> None:
    """A write that never returned counts from its commit on if it was fenced, and the level includes killed writers."""
    killed = write(2, 10, 12, 0)
    assert judge("bounded", [(212, 213, 1)], killed).broken == 0
    assert judge("bounded", [(213, 214, 1)], killed).broken == 1
    assert judge("invalidate", [(213, 214, 1)], killed).broken == 0
    assert judge("bounded", [(213, 214, 1)], write(2, 10, 12, 0, is_fenced=False)).broken == 0


def test_checker_counts_apart_what_the_tier_has_lost() -> None:
    """A write during which the tier lost its memory, or the write's fence, is beyond the promise; the next one is not."""
    reads = [(25, 26, 1), (45, 46, 1)]
    writes = (write(2, 10, 12, 20), write(3, 30, 32, 40))
    for loss in (Loss(15 * MS, 16 * MS), Loss(15 * MS, 16 * MS, ":row:0"), Loss(15 * MS, 16 * MS, "#group:0")):
        verdict = judge("strict", reads, *writes, losses=(loss,))
        assert (verdict.broken, verdict.beyond, verdict.worst_beyond) == (1, 1, 0.005)
    for loss in (Loss(1 * MS, 2 * MS), Loss(15 * MS, 16 * MS, ":row:1")):
        assert judge("strict", reads, *writes, losses=(loss,)).broken == 2


def test_checker_counts_owed_writes_from_their_delivery_on() -> None:
    """What was committed while the tier was away is seen late, but not after the owed invalidation was delivered."""
    history = History()
    history.writes[0] = [write(2, 10, 12, 20, is_owed=True, is_fenced=False)]
    history.deliveries["one", 0] = [50 * MS]
    history.reads[0] = [(30 * MS, 31 * MS, 2), (32 * MS, 33 * MS, 1), (51 * MS, 52 * MS, 1)]
    verdict = check(history, Arm("made up", "bounded", memory=False), STALENESS, ())
    assert (verdict.broken, verdict.missed, verdict.beyond) == (1, 1, 1)


def test_checker_holds_ttl_to_the_age_of_what_was_loaded() -> None:
    """At "ttl" only the time since the value was brought from the source counts."""
    history = History()
    history.writes[0] = [write(2, 10, 12, 20)]
    history.loads[0] = [(0, 5 * MS, 1, "one")]
    history.reads[0] = [(2_005 * MS, 2_006 * MS, 1), (2_006 * MS, 2_007 * MS, 1)]
    verdict = check(history, Arm("made up", "ttl", memory=True), STALENESS, ())
    assert (verdict.missed, verdict.broken) == (2, 1)


def test_checker_counts_loads_at_the_same_time() -> None:
    """Loads that touch are one after the other; those that overlap are at once."""
    history = History()
    history.writes[0] = []
    history.loads[0] = [(0, 5, 1, "one"), (5, 9, 1, "two"), (8, 12, 1, "three")]
    assert check(history, Arm("made up", "strict", memory=True), STALENESS, ()).loads_at_once == 2
