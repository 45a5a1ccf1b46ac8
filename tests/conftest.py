"""What holds for every test."""

import gc
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.support.invariants import watching
from tests.support.servers import NoServerError

from credenza.memory.implementation import implementation
from credenza.state import State

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this suite, and let Ctrl+C reach the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "frees_caches: the test is about what the collector frees; no cache is held for the check"
    )


def pytest_report_header() -> str:
    """Say which table the tests run on."""
    return f"credenza: {implementation()} table"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """Skip a test whose server is missing, and say which one it is, wherever it was asked for."""
    try:
        return (yield)
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Do the same where the test itself starts the server."""
    try:
        return (yield)
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True, scope="module")
def what_is_there_stays() -> None:
    """Let the collector pass over what was there before: tests that ask it to collect wait for it a hundred times less."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def invariants(request: pytest.FixtureRequest) -> Iterator[list[State]]:
    """After each test: sizes add up, no open flight, no fence, no leaked thread. Yields the states of its caches."""
    holds = request.node.get_closest_marker("frees_caches") is None
    with watching(holds_caches=holds, watches_threads=request.path.parent == _HERE) as made:
        yield made
