"""What holds for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.invariants import watching

from credenza.state import State

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this suite."""
    config.addinivalue_line(
        "markers", "frees_caches: the test is about what the collector frees; no cache is held for the check"
    )


@pytest.fixture(autouse=True)
def invariants(request: pytest.FixtureRequest) -> Iterator[list[State]]:
    """After each test: sizes add up, no open flight, no fence, no leaked thread. Yields the states of its caches."""
    holds = request.node.get_closest_marker("frees_caches") is None
    with watching(holds_caches=holds, watches_threads=request.path.parent == _HERE) as made:
        yield made
