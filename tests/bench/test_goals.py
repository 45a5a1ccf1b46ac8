"""A goal is judged by its figure, and a missed one is shown as missed."""

import json

import pytest
from bench.goals import GOALS, Goal, Outcome, Sense, Table, Verdict, compare, table_of
from bench.measure import Samples, Spread
from bench.report import Report, as_json, as_markdown, as_text, write


def samples(**per_operation):
    """Return samples with these figures."""
    return Samples(per_operation, dict.fromkeys(per_operation, "as it comes"), 10.0, 1_000)


def report(*outcomes):
    """Return a report of these outcomes and one small table."""
    table = Table("Hit", ("contender", "ns"), [("a|b", "12")], "A note.")
    return Report({"cores": "2"}, {"credenza": "0"}, {"run": "quick"}, outcomes, [table])


@pytest.mark.parametrize(
    ("sense", "below", "at", "above"),
    [(Sense.AT_MOST, True, True, False), (Sense.AT_LEAST, False, True, True), (Sense.ABOVE, False, False, True)],
)
def test_goal_of_each_sense_knows_its_side(sense, below, at, above):
    """The limit itself counts as reached, except for "above"."""
    goal = Goal("X", "m", "a", 1.0, sense)
    assert [goal.is_reached(0.9), goal.is_reached(1.0), goal.is_reached(1.1)] == [below, at, above]


def test_missed_goal_is_shown_as_missed():
    """Text, page and data all say that the goal was missed."""
    found = report(Outcome(GOALS["P8"], Spread(0.4, 0.3, 0.5), "400 ns", "1,000 ns"))
    assert "MISSED" in as_text(found)
    assert "| MISSED |" in as_markdown(found)
    assert json.loads(as_json(found))["goals"][0]["verdict"] == "missed"


def test_reached_goal_is_not_shown_as_missed():
    """The control of the test above."""
    found = report(Outcome(GOALS["P8"], Spread(0.1, 0.09, 0.11)))
    assert "MISSED" not in as_text(found)
    assert "| reached |" in as_markdown(found)


def test_absent_contender_is_not_measured():
    """Who is not installed is neither reached nor missed."""
    outcome = compare("P8", samples(credenza=[1.0]), "credenza", "cachetools.cached, lock")
    assert outcome.verdict is Verdict.UNMEASURED
    assert "not measured" in as_text(report(outcome))


def test_figure_without_a_goal_is_neither_reached_nor_missed():
    """It is shown for its own sake."""
    outcome = compare("P1a", samples(ours=[9.0], theirs=[1.0]), "ours", "theirs")
    assert outcome.verdict is Verdict.SHOWN
    assert not outcome.is_close
    assert "| no goal |" in as_markdown(report(outcome))


def test_report_says_which_table_ran():
    """A reader never takes the pure table's figure for the compiled one's."""
    found = report(Outcome(GOALS["P8"], Spread(0.1, 0.1, 0.1), implementation="pure"))
    assert "| pure |" in as_markdown(found)
    assert json.loads(as_json(found))["goals"][0]["table"] == "pure"


def test_quartiles_on_both_sides_are_called_close():
    """A reader sees where noise may have decided."""
    assert Outcome(GOALS["P8"], Spread(0.14, 0.12, 0.16)).is_close
    assert not Outcome(GOALS["P8"], Spread(0.14, 0.13, 0.15)).is_close


def test_comparison_divides_ours_by_theirs():
    """The figure is the median of the ratios of the rounds, not the ratio of the medians."""
    outcome = compare("P1", samples(ours=[10.0, 30.0, 40.0], theirs=[10.0, 10.0, 80.0]), "ours", "theirs")
    assert outcome.value is not None
    assert outcome.value.median == 1.0
    assert outcome.verdict is Verdict.MISSED


def test_table_lists_the_fastest_first():
    """Everybody is listed with the base divided by it."""
    table = table_of("t", samples(slow=[30.0], quick=[10.0]), base="quick")
    assert [row[0] for row in table.rows] == ["quick", "slow"]
    assert [row[3] for row in table.rows] == ["1.000", "0.333"]


def test_report_is_written_to_both_files(tmp_path):
    """Data and page go where they were asked to, and a bar in a cell does not break the page's table."""
    write(report(Outcome(GOALS["P1"], None)), results=tmp_path / "a" / "results.json", page=tmp_path / "b" / "page.md")
    assert json.loads((tmp_path / "a" / "results.json").read_text(encoding="utf-8"))["machine"] == {"cores": "2"}
    assert "a\\|b" in (tmp_path / "b" / "page.md").read_text(encoding="utf-8")
