"""Every trace format is read, and what is no trace is refused with a word why."""

import array
import gzip
import lzma
import struct

import pytest
from bench.traces import capacities, find_traces, name_of, read_reference, read_trace


def test_compressed_integers_are_read(tmp_path):
    """The u32 format, xz-compressed and plain."""
    data = array.array("I", [3, 1, 2, 3]).tobytes()
    (tmp_path / "a.u32").write_bytes(data)
    (tmp_path / "b.u32.xz").write_bytes(lzma.compress(data))
    assert list(read_trace(tmp_path / "a.u32")) == [3, 1, 2, 3]
    assert list(read_trace(tmp_path / "b.u32.xz")) == [3, 1, 2, 3]


def test_truncated_integers_are_refused(tmp_path):
    """Five bytes are no integers of four."""
    (tmp_path / "a.u32").write_bytes(b"12345")
    with pytest.raises(ValueError, match="5 bytes"):
        read_trace(tmp_path / "a.u32")


def test_oracle_records_are_read_by_their_objects(tmp_path):
    """libCacheSim's binary format, plain and compressed; time, size and the next request do not matter."""
    zstandard = pytest.importorskip("zstandard")
    numbers = [7, 2**40, 7, 9]
    data = b"".join(struct.pack("<IQIq", time, number, 512, -1) for time, number in enumerate(numbers))
    (tmp_path / "a.oracleGeneral").write_bytes(data)
    (tmp_path / "b.oracleGeneral.bin.xz").write_bytes(lzma.compress(data))
    (tmp_path / "c.oracleGeneral.zst").write_bytes(zstandard.compress(data))
    for path in find_traces(tmp_path):
        assert list(read_trace(path)) == numbers
    assert [name_of(path) for path in find_traces(tmp_path)] == ["a", "b", "c"]


def test_oracle_file_of_half_a_record_is_refused(tmp_path):
    """The message has the size of a record."""
    (tmp_path / "a.oracleGeneral").write_bytes(bytes(36))
    with pytest.raises(ValueError, match="whole records of 24"):
        read_trace(tmp_path / "a.oracleGeneral")


def test_text_is_read_one_key_a_line(tmp_path):
    """Comments, blank lines and the LIRS star are no keys; keys that are not all numbers stay text."""
    (tmp_path / "numbers.txt").write_text("# a comment\n5\n\n*\n7\n5\n", encoding="utf-8")
    (tmp_path / "names.txt.gz").write_bytes(gzip.compress(b"ann\nbob\n7\n"))
    assert read_trace(tmp_path / "numbers.txt") == [5, 7, 5]
    assert read_trace(tmp_path / "names.txt.gz") == ["ann", "bob", "7"]


def test_arc_lines_stand_for_ranges_of_blocks(tmp_path):
    """Four numbers a line: the first block, how many, and two that are not needed."""
    (tmp_path / "P1.lis").write_text("10 3 0 0\n4 1 0 1\n", encoding="utf-8")
    assert read_trace(tmp_path / "P1.lis") == [10, 11, 12, 4]


@pytest.mark.parametrize("text", ["", "# nothing\n", "1 2\n3 4\n", "10 3 0 0\n4 x 0 1\n"])
def test_what_is_no_trace_is_refused(tmp_path, text):
    """Empty files, two columns, and broken ARC lines."""
    (tmp_path / "bad.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.txt"):
        read_trace(tmp_path / "bad.txt")


def test_traces_of_a_directory_are_found_by_suffix(tmp_path):
    """The README and the reference beside the traces are no traces; a file may be named itself."""
    for name in ("b.u32.xz", "a.txt", "README.md", "REFERENCE.csv"):
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    assert [name_of(path) for path in find_traces(tmp_path)] == ["a", "b"]
    assert find_traces(tmp_path / "README.md") == [tmp_path / "README.md"]


def test_place_without_traces_is_refused(tmp_path):
    """The message says what to give."""
    with pytest.raises(FileNotFoundError, match="give a trace file"):
        find_traces(tmp_path)


def test_reference_is_read_beside_the_traces(tmp_path):
    """Capacities are whole numbers, ratios percent."""
    (tmp_path / "REFERENCE.csv").write_text("trace,fraction,capacity,LRU\na,0.01,7,12.50\n", encoding="utf-8")
    (row,) = read_reference(tmp_path)
    assert (row.trace, row.fraction, row.capacity, row.ratios) == ("a", "0.01", 7, {"LRU": 12.5})
    assert read_reference(tmp_path / "elsewhere") == []


def test_capacities_are_shares_of_the_unique_keys():
    """Never none at all."""
    assert capacities([1, 2, 3] * 100) == {"0.01": 1, "0.05": 1, "0.10": 1, "0.20": 1}
    assert capacities(range(1_000)) == {"0.01": 10, "0.05": 50, "0.10": 100, "0.20": 200}
