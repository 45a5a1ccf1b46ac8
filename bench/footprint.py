"""Memory: P7.

Each cache is filled in a process of its own, and the growth of that process's resident memory is divided by the
entries. That counts what the allocators take, whatever language the cache is written in. Keys and values exist before
the first reading.
"""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import ours
from bench.goals import GOALS, OURS, Outcome, Result, Table
from bench.measure import Spread
from bench.peers import TTL, is_installed
from bench.plots.bars import Bar, Bars, Line
from bench.pure import pure_environment
from bench.scale import Scale

STATM = Path("/proc/self/statm")
CHILD_SECONDS = 120


def _credenza(count: int) -> Callable[[str], object]:
    import credenza

    cache = credenza.Cache(maxsize=count)
    return lambda key: cache.set(key, key, ttl=TTL)


def _vttl(count: int) -> Callable[[str], object]:
    import cachebox

    cache: cachebox.VTTLCache[str, str] = cachebox.VTTLCache(count)
    return lambda key: cache.insert(key, key, TTL)


def _moka(count: int) -> Callable[[str], object]:
    import moka_py

    cache: moka_py.Moka[str, str] = moka_py.Moka(count)
    return lambda key: cache.set(key, key, TTL)


def _cachetools(count: int) -> Callable[[str], object]:
    import cachetools

    cache: cachetools.TTLCache[str, str] = cachetools.TTLCache(count, TTL)
    return lambda key: cache.__setitem__(key, key)


def _dict(_: int) -> Callable[[str], object]:
    plain: dict[str, str] = {}
    return lambda key: plain.__setitem__(key, key)


CACHES = {
    "credenza": ("credenza", _credenza),
    "cachebox.VTTLCache": ("cachebox", _vttl),
    "moka_py.Moka": ("moka_py", _moka),
    "cachetools.TTLCache": ("cachetools", _cachetools),
    "dict": ("builtins", _dict),
}


def footprint(scale: Scale) -> Result:
    """Fill each cache in a child process and compare what the entries cost."""
    taken = {name: in_child(name, scale.entries) for name, (module, _) in CACHES.items() if is_installed(module)}
    if ours.implementation() != "pure":
        taken["credenza, pure table"] = in_child("credenza", scale.entries, is_pure=True)
    table = _table(taken, scale.entries)
    if "cachebox.VTTLCache" not in taken:
        return Result((Outcome(GOALS["P7"], None, note="a contender is not installed"),), (table,))
    (mine, _), (other, _) = taken["credenza"], taken["cachebox.VTTLCache"]
    ratio = mine / other
    note = f"at {scale.entries:,} entries, one process each"
    outcome = Outcome(
        GOALS["P7"], Spread(ratio, ratio, ratio), f"{mine:,.0f} B", f"{other:,.0f} B (cachebox.VTTLCache)", note
    )
    return Result((outcome,), (table,))


def _table(taken: Mapping[str, tuple[float, float]], entries: int) -> Table:
    names = sorted(taken, key=taken.__getitem__)
    title = f"Bytes per entry at {entries:,} entries"
    rows = [(name, *(f"{figure:,.0f}" if figure else "-" for figure in taken[name])) for name in names]
    bars = [Bar(name, taken[name][0], name.startswith(OURS), ratio=taken[name][0] / taken[OURS][0]) for name in names]
    theirs = taken.get("cachebox.VTTLCache")
    lines = [Line(f"P7: {GOALS['P7']} x cachebox.VTTLCache", theirs[0])] if theirs else []
    note = (
        "Keys and values excluded. Evicting: after as many entries again have been stored, each in the place of another; "
        "with what a cache remembers of those that it evicted."
    )
    return Table(title, ("cache", "bytes", "evicting"), rows, note, Bars(title, "B", bars, OURS, lines))


def in_child(name: str, count: int, *, is_pure: bool = False) -> tuple[float, float]:
    """Return the bytes per entry of a cache that has just been filled, and of one that evicts; 0 if it cannot."""
    command = [sys.executable, "-m", "bench.footprint", name, str(count)]
    root = Path(__file__).resolve().parent.parent
    environment = pure_environment() if is_pure else None
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=CHILD_SECONDS, check=True
    )
    filled, evicting = map(float, done.stdout.split())
    return filled, evicting


def bytes_per_entry(name: str, count: int) -> tuple[float, float]:
    """Fill one cache in this process and return the growth of its memory per entry, and again after evictions."""
    keys = [f"user:{number}" for number in range(count)]
    others = [f"more:{number}" for number in range(count)]
    store = CACHES[name][1](count)
    _fill(store, keys[:100])
    gc.collect()
    before = _resident_bytes()
    _fill(store, keys)
    gc.collect()
    filled = (_resident_bytes() - before) / count
    if name == "dict":
        return filled, 0.0
    _fill(store, others)
    gc.collect()
    return filled, (_resident_bytes() - before) / count


def _fill(store: Callable[[str], object], keys: Sequence[str]) -> None:
    for key in keys:
        store(key)


def _resident_bytes() -> int:
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Elsewhere only the peak can be had, in bytes on macOS and in KiB on other systems.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(*bytes_per_entry(sys.argv[1], int(sys.argv[2])))
