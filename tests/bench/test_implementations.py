"""The pure table is measured in a process of its own, whatever runs here."""

import pytest
from bench.footprint import in_child
from bench.forms import hits_by_template, hits_of_methods, hits_over_a_tier
from bench.scale import Scale
from bench.threads import _elapsed

from bench import machine, ours, pure

TINY = Scale(rounds=1, entries=1_000, longest_trace=1)


def test_pure_table_is_measured_in_a_child_that_runs_it():
    """The child refuses to measure another one; its peers come back with it."""
    result = pure.pure_hits(TINY)
    assert any(pure.NAME in row for table in result.tables for row in table.rows)
    (outcome,) = result.outcomes
    if "not installed" not in outcome.note:
        assert outcome.implementation == "pure"
        assert "ns" in outcome.ours


def test_child_that_runs_another_table_measures_nothing(monkeypatch):
    """A figure never goes by the wrong name."""
    monkeypatch.setattr(ours, "implementation", lambda: "compiled")
    with pytest.raises(AssertionError, match="the compiled table runs"):
        pure.hits_here(1)


def test_machine_names_the_table_and_the_compiler():
    """Both decide the figures."""
    assert machine.describe()["table"].startswith(ours.implementation())
    assert "," in machine.describe()["python"]


@pytest.mark.parametrize(
    ("comparison", "number"), [(hits_by_template, "P1a"), (hits_of_methods, "P1b"), (hits_over_a_tier, "P1c")]
)
def test_forms_that_users_write_are_measured(comparison, number):
    """Template and tags, methods, and a tier below."""
    (outcome,) = comparison(TINY).outcomes
    assert outcome.goal.number == number
    assert outcome.value is not None


def test_threads_make_all_the_hits_between_them():
    """Eight make as many as one, however the stream divides."""
    asked = []
    for threads in (1, 8):
        assert _elapsed(asked.append, ["a", "b", "c"], 101, threads) > 0
    assert len(asked) == 2 * 101


def test_footprint_grows_with_the_entries():
    """Filled, and after evictions; in a process that has no freed memory to fill again."""
    filled, evicting = in_child("credenza", 100_000)
    assert filled > 0
    assert evicting > 0
