"""Read traces of requested keys.

Formats, told apart by the file's name and its first line; each may be compressed with xz, gzip or Zstandard:

- `.u32`: little-endian unsigned 32-bit integers.
- one key a line, text or number. Blank lines, comments (`#`) and the `*` of the LIRS traces are skipped.
- `oracleGeneral` anywhere in the name, the binary format of libCacheSim: records of 24 bytes, of which the number of the
  object counts. Its size does not: every object is an entry.
- ARC (Megiddo and Modha, FAST 2003): four numbers a line, `first_block count ignored request`, which stand for the
  blocks `first_block` to `first_block + count - 1`.
"""

from __future__ import annotations

import array
import contextlib
import csv
import gzip
import io
import lzma
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ORACLE = "oracleGeneral"
SUFFIXES = (".u32", f".{ORACLE}", ".bin", ".txt", ".trace", ".trc", ".lis", ".lirs", ".arc")
COMPRESSED = (".xz", ".gz", ".zst")
REFERENCE = "REFERENCE.csv"
FRACTIONS = ("0.01", "0.05", "0.10", "0.20")

_ORACLE_RECORD = struct.Struct("<IQIq")

Requests = Sequence[int] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Reference:
    """What other policies reach on one trace at one capacity, in percent of the requests."""

    trace: str
    fraction: str
    capacity: int
    ratios: dict[str, float]


def find_traces(place: Path) -> list[Path]:
    """Return the traces in a directory, or the one file that was named.

    Raises:
        FileNotFoundError: there is no trace at `place`.
    """
    if place.is_file():
        return [place]
    found = sorted(path for path in place.glob("*") if path.is_file() and _bare_suffix(path) in SUFFIXES)
    if not found:
        known = ", ".join(SUFFIXES)
        raise FileNotFoundError(f"no trace in {str(place)!r}; give a trace file, or a directory of {known} files")
    return found


def name_of(path: Path) -> str:
    """Return a trace's name: its file's name without the suffixes that say how it is stored."""
    while path.suffix in COMPRESSED + SUFFIXES:
        path = path.with_suffix("")
    return path.name


def read_trace(path: Path) -> Requests:
    """Return the requested keys of a trace in their order.

    Raises:
        ValueError: the file is no trace of a known format.
    """
    if _bare_suffix(path) == ".u32":
        return _read_integers(path)
    if f".{ORACLE.lower()}" in path.name.lower():
        return _read_oracle(path)
    with contextlib.ExitStack() as stack:
        lines = _meaningful(line.decode() for line in stack.enter_context(_opened(path)))
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{path.name} holds no requests")
        everything = _chain(first, lines)
        if len(first.split()) == 4:
            return _read_arc(path, everything)
        return _read_keys(path, everything)


def read_reference(place: Path) -> list[Reference]:
    """Return the reference figures that lie beside the traces, none if there is no such file."""
    path = (place.parent if place.is_file() else place) / REFERENCE
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [_reference(row) for row in csv.DictReader(file)]


def capacities(requests: Requests) -> dict[str, int]:
    """Return the capacities at the usual fractions of the unique keys."""
    unique = len(set(requests))
    return {fraction: max(1, int(unique * float(fraction))) for fraction in FRACTIONS}


def _reference(row: dict[str, str]) -> Reference:
    trace, fraction, capacity = (row.pop(name) for name in ("trace", "fraction", "capacity"))
    return Reference(trace, fraction, int(capacity), {policy: float(ratio) for policy, ratio in row.items()})


def _bare_suffix(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix in COMPRESSED else path.suffix


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if path.suffix == ".zst":
        return _opened_zstd(path)
    return path.open("rb")


def _opened_zstd(path: Path) -> IO[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ValueError(f"{path.name}: a .zst file needs zstandard; pip install 'credenza[zstd]'") from None
    unpacked = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
    return io.BufferedReader(unpacked)


def _read_oracle(path: Path) -> Sequence[int]:
    """Return the objects of records of: time (32 bits), object (64), size (32), when it is asked for next (64)."""
    with _opened(path) as file:
        data = file.read()
    if not data or len(data) % _ORACLE_RECORD.size:
        raise ValueError(f"{path.name} holds {len(data)} bytes, which are not whole records of {_ORACLE_RECORD.size}")
    return array.array("Q", (number for _, number, _, _ in _ORACLE_RECORD.iter_unpack(data)))


def _read_integers(path: Path) -> Sequence[int]:
    with _opened(path) as file:
        data = file.read()
    requests = array.array("I")
    if requests.itemsize != 4 or len(data) % 4:
        raise ValueError(f"{path.name} holds {len(data)} bytes, which are not whole 32-bit integers")
    requests.frombytes(data)
    if sys.byteorder == "big":
        requests.byteswap()
    return requests


def _meaningful(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        text = line.strip()
        if text and text != "*" and not text.startswith("#"):
            yield text


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _read_arc(path: Path, lines: Iterator[str]) -> Sequence[int]:
    requests: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            first, count, _, _ = (int(word) for word in line.split())
        except ValueError as exc:
            raise ValueError(f"{path.name}, request {number}: four integers expected, got {line!r}") from exc
        requests.extend(range(first, first + count))
    return requests


def _read_keys(path: Path, lines: Iterator[str]) -> Requests:
    keys = list(lines)
    if any(" " in key or "\t" in key for key in keys):
        raise ValueError(f"{path.name}: one key a line expected, or the four numbers of the ARC format")
    return [int(key) for key in keys] if all(_is_integer(key) for key in keys) else keys


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
