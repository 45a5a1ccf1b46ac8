"""The leak run finds nothing, and would find something: the long one is `python -m tests.support.leaks`."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.support.leaks import search

from credenza import MISSING

pytestmark = [pytest.mark.usefixtures("implementation"), pytest.mark.frees_caches]

_OPERATIONS = 8_000


@pytest.mark.timeout(60)
def test_thousands_of_operations_leave_nothing_behind() -> None:
    """Issue 5: objects and reference counts are flat after operations of every kind."""
    assert search(_OPERATIONS, watches_memory=False) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["an object of the collector", "a reference to MISSING"])
def test_leak_run_sees_a_leak(what: str) -> None:
    """Negative control: a step that keeps a little each time is found."""
    kept: list[Any] = []

    def leak(rng: random.Random) -> None:
        kept.append([None] if "object" in what else MISSING)  # None is immortal since Python 3.12

    found = search(_OPERATIONS, extra=leak, watches_memory=False)
    assert any(("objects" if "object" in what else "MISSING") in line for line in found), found
