"""Foreign writers in transactions that commit out of order, and a follower that is cut off at random: nothing stale is left."""

import pytest
from tests.feeds.places import Place
from tests.feeds.storm import Storm

from credenza.feeds.postgres import feed


@pytest.mark.timeout(60)
def test_storm_of_foreign_writes_leaves_nothing_stale(place: Place) -> None:
    """Every cached value is what the table holds once the follower has caught up."""
    storm = Storm(place, seed=1, changes=6000)
    assert storm.run() == []
    assert storm.written >= 6000
    assert storm.cuts >= 1


@pytest.mark.timeout(60)
def test_storm_finds_a_reader_that_skips_late_commits(triggers: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: going on behind the newest transaction that was seen leaves something stale."""
    broken = feed._READ.replace(
        "xid = ANY (%(running)s::text[]::xid8[])", "xid = ANY (%(running)s::text[]::xid8[]) AND false"
    )
    monkeypatch.setattr(feed, "_READ", broken)
    assert any(Storm(triggers, seed=seed, changes=1500).run() for seed in range(1, 2))
