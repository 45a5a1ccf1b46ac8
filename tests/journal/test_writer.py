"""The thread that commits in groups."""

from __future__ import annotations

import threading

import pytest
from tests.support.waiting import DEADLINE, HeldLoader

from credenza.flight import Signal
from credenza.journal.writer import GroupWriter, tell


def refuse(group: list[int], error: BaseException) -> None:
    raise error


def test_jobs_that_come_during_a_commit_are_the_next_group() -> None:
    """In their order."""
    groups: list[list[int]] = []
    held = HeldLoader(None)

    def commit(group: list[int]) -> None:
        groups.append(group)
        if group == [0]:
            held()

    writer = GroupWriter(commit, refuse, name="test")
    assert writer.put(0)
    held.wait_until_called()
    for number in range(1, 50):
        assert writer.put(number)
    held.release()
    writer.close()
    assert groups == [[0], list(range(1, 50))]


def test_closed_writer_takes_nothing_and_has_done_everything() -> None:
    """Whether or not its thread ever ran; and its thread has ended."""
    done: list[int] = []
    writer = GroupWriter(done.extend, refuse, name="ends here")
    assert all(writer.put(number) for number in range(100))
    writer.close()
    writer.close()
    assert done == list(range(100))
    assert not writer.put(100)
    assert "ends here" not in {thread.name for thread in threading.enumerate()}
    idle = GroupWriter(done.extend, refuse, name="test")
    idle.close()
    assert not idle.put(1)


def test_group_that_fails_is_refused_and_the_next_one_done(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever was raised, and even if refusing fails."""
    refused: list[int] = []
    done = threading.Semaphore(0)

    def commit(group: list[int]) -> None:
        if group[0] < 2:
            raise KeyboardInterrupt if group[0] else ValueError("no")
        done.release()

    def refuse(group: list[int], error: BaseException) -> None:
        refused.extend(group)
        done.release()
        raise RuntimeError("refusing failed, too")

    writer = GroupWriter(commit, refuse, name="test")
    for number in range(3):
        assert writer.put(number)
        assert done.acquire(timeout=DEADLINE)
    writer.close()
    assert refused == [0, 1]
    assert "failed unexpectedly" in caplog.text


def test_thread_that_cannot_be_started_is_started_by_a_later_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job that failed is not done behind its caller's back."""
    done: list[int] = []
    writer = GroupWriter(done.extend, refuse, name="test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot)
        with pytest.raises(RuntimeError, match="can't start"):
            writer.put(1)
    assert writer.put(2)
    writer.close()
    assert done == [2]


def _cannot(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_waker_that_raises_does_not_concern_whoever_tells(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the signal is set."""

    def fail() -> None:
        raise RuntimeError("the loop is closed")

    signal = Signal()
    signal.listen("test", fail)
    tell(signal)
    assert signal.is_set
    assert "the loop is closed" in caplog.text
