"""Followers that are broken on purpose: what a storm must find."""

from __future__ import annotations

from typing import Any

from tests.feeds.places import Place

from bench.feeds.following import NAME, NewFeed
from credenza.feeds.postgres import PostgresFeed
from credenza.feeds.postgres.snapshot import Snapshot

SKIPS = "goes on behind the last transaction"
HURRIES = "keeps its position before it applies"
CONTROLS = {"triggers": (SKIPS, HURRIES), "logical": (HURRIES,), "sqlite": (HURRIES,)}
"""By kind. The others tell changes in the order of the commits, so that nothing is skipped."""


class _Skipping(PostgresFeed):
    """Reads `id > last`, as if transactions were committed in the order of their numbers."""

    def settle(self) -> None:
        super().settle()
        position = self._position
        if position is not None:
            self._position = self._seen = Snapshot(position.xmax, position.xmax, frozenset())


def sabotaged(place: Place, control: str) -> NewFeed:
    """Return what makes the broken feeds."""
    if control == SKIPS:
        return lambda: _Skipping(place.where, name=NAME)
    return lambda: _hurried(place)


def _hurried(place: Place) -> Any:
    feed = place.feed(NAME)
    read = feed.read

    def read_and_keep(timeout: float) -> Any:
        batch = read(timeout)
        feed.settle()
        if place.kind == "sqlite":
            feed._saved = -1e9  # a file is not written at each change
        feed.save(timeout)
        return batch

    feed.read = read_and_keep
    return feed
