"""The figures about change feeds: who is told from whom, and how they are shown."""

import json
from pathlib import Path

import pytest
from bench.feeds import cost, lag
from bench.feeds.__main__ import main
from bench.feeds.report import Blown, storms_as_text
from bench.feeds.tally import Tally
from tests.feeds.places import place_of


def judged(*stale: str, control: str = "", compared: int = 1000, hits: int = 50) -> Blown:
    return Blown("sqlite", control, 1, Tally(checks=10, compared=compared, reads=100, hits=hits, stale=list(stale)))


def test_storm_that_leaves_something_stale_is_no_success() -> None:
    """The table says so, too."""
    assert judged().is_as_promised
    assert not judged("user:1").is_as_promised
    assert "BROKEN" in storms_as_text([judged("user:1")])


@pytest.mark.parametrize("storm", [judged(compared=10), judged(hits=1)], ids=["compared", "hits"])
def test_storm_that_could_have_found_nothing_is_no_success(storm: Blown) -> None:
    """Nothing is stale in a cache that is empty."""
    assert not storm.is_as_promised


def test_control_that_finds_nothing_is_no_success() -> None:
    """It is to be caught."""
    assert not judged(control="skips").is_as_promised
    assert judged("user:1", control="skips").is_as_promised
    assert "NOT CAUGHT" in storms_as_text([judged(control="skips")])


@pytest.mark.timeout(60)
def test_command_runs_a_storm_with_its_controls_and_writes_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status tells whether all is as promised."""
    path = tmp_path / "figures.json"
    assert main(["--storm", "--kind", "sqlite", "--changes", "2000", "--seed", "1", "--json", str(path)]) == 0
    assert "caught" in capsys.readouterr().out
    first, control = json.loads(path.read_text())["storms"]
    assert first["stale"] == []
    assert control["stale"]


@pytest.mark.parametrize("load", lag.LOADS)
def test_lag_is_taken_once_for_each_commit(tmp_path: Path, load: str) -> None:
    """At rest and with other writers beside it."""
    with place_of("sqlite", None, tmp_path) as place:
        lags = lag.measure(place, load, 10)
    assert len(lags.samples) == 10
    assert lags.percentile(0.5) <= lags.percentile(0.99) <= max(lags.samples)
    assert "sqlite" in lag.as_text([lags])


def test_cost_is_a_ratio_for_each_statement(tmp_path: Path) -> None:
    """Of a table with triggers to one without."""
    measured = cost.measure(lambda kind: place_of(kind, None, tmp_path), "sqlite", 1)
    assert len(measured.ratios) == 9
    assert all(ratio.median > 0 for ratio in measured.ratios.values())
    assert "one row" in cost.as_text([measured])
