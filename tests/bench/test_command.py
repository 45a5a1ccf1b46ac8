"""The command checks what it is asked for."""

import pytest
from bench.__main__ import main


def test_unknown_measure_is_refused(capsys):
    """The message lists what there is."""
    with pytest.raises(SystemExit):
        main(["--only", "P99"])
    assert "choose from P1" in capsys.readouterr().err


def test_place_without_traces_is_refused_before_anything_is_measured(tmp_path, capsys):
    """Nobody waits for minutes to read that a path was wrong."""
    with pytest.raises(SystemExit):
        main(["--traces", str(tmp_path)])
    captured = capsys.readouterr()
    assert "give a trace file" in captured.err
    assert "measuring" not in captured.err


def test_comparison_that_fails_is_named_and_fails_the_run(tmp_path, capsys):
    """The others would still be measured and shown; the exit status tells."""
    (tmp_path / "bad.txt").write_text("1 2\n3 4\n", encoding="utf-8")
    assert main(["--only", "H1", "--traces", str(tmp_path / "bad.txt")]) == 1
    assert "the comparison failed" in capsys.readouterr().out


def test_replay_of_one_trace_by_path_is_written(tmp_path, capsys):
    """A trace without reference figures is replayed; the goals over the reference are then not measured."""
    (tmp_path / "mine.txt").write_text("1\n2\n1\n2\n", encoding="utf-8")
    assert main(["--only", "h1", "--traces", str(tmp_path / "mine.txt"), "--output", str(tmp_path / "out")]) == 0
    assert "mine" in (tmp_path / "out" / "benchmarks.md").read_text(encoding="utf-8")
    assert "not measured" in capsys.readouterr().out
