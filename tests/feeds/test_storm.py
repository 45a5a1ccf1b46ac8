"""Foreign writers in transactions that commit out of order, and a follower that is cut off and dies: nothing stale is left."""

import pytest
from bench.feeds.report import Blown, storms_as_text
from bench.feeds.sabotage import CONTROLS, HURRIES, SKIPS, sabotaged
from bench.feeds.storm import Storm
from tests.feeds.places import Place


def shown(place: Place, storm: Storm, control: str = "") -> str:
    return storms_as_text([Blown(place.kind, control, 1, storm.tally)])


@pytest.mark.timeout(60)
def test_storm_of_foreign_writes_leaves_nothing_stale(place: Place) -> None:
    """Every cached value is what the table holds whenever the follower has caught up."""
    storm = Storm(place, seed=1, changes=4000)
    assert storm.run() == [], shown(place, storm)
    tally = storm.tally
    assert tally.changes >= 4000
    assert tally.compared > 200, shown(place, storm)
    assert tally.hit_ratio > 0.05, shown(place, storm)
    assert tally.cuts + tally.crashes > 0
    assert tally.out_of_order > 0 or place.kind == "sqlite"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("control", [SKIPS, HURRIES])
def test_storm_finds_a_follower_that_is_broken_on_purpose(place: Place, control: str) -> None:
    """Controls: one skips late commits, the other one keeps its position before it applies and dies."""
    if control not in CONTROLS[place.kind]:
        pytest.skip("changes are told in the order of the commits")
    storm = Storm(place, seed=1, changes=20_000, checks=80, new_feed=sabotaged(place, control))
    assert storm.run(is_control=True), shown(place, storm, control)
    assert storm.tally.hits > 0
