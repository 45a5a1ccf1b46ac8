"""What the tests of the table have in common: each runs on both implementations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.memory.implementations import COMPILED, PURE, WHY_SKIPPED, Implementation, chosen


@pytest.fixture(params=["pure", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    """Each implementation in turn; caches that the test makes are of it."""
    choice = PURE if request.param == "pure" else COMPILED
    if choice is None:
        pytest.skip(WHY_SKIPPED)
    with chosen(choice):
        yield choice
