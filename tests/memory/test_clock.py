"""The clock that counts sleep, read from clocks that do not: `_clock.h` beside clocks that the test sets."""

import ctypes
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

HEADERS = Path(__file__).resolve().parents[2] / "src/credenza/memory"
SECOND = 1_000_000_000
SOURCE = """
#include "_common.h"
static long long clocks[16];
static int set_clock_gettime(clockid_t clock, struct timespec *now)
{
    now->tv_sec = clocks[clock] / 1000000000;
    now->tv_nsec = clocks[clock] % 1000000000;
    return 0;
}
#define clock_gettime set_clock_gettime
#include "_clock.h"
static sleep_t sleep_of_test;
void set_clocks(long long monotonic, long long of_day, long long booted)
{
    clocks[CLOCK_MONOTONIC] = clocks[CLOCK_MONOTONIC_COARSE] = monotonic;
    clocks[CLOCK_REALTIME_COARSE] = of_day;
    clocks[CLOCK_BOOTTIME] = booted;
}
long long counts_sleep(void) { return coarse_now_ns(CLOCK_COUNTS_SLEEP, &sleep_of_test); }
long long monotonic(void) { return coarse_now_ns(CLOCK_IS_MONOTONIC, &sleep_of_test); }
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the compiled clock, with `set_clocks` for what the system says."""
    compiler = shutil.which("cc")
    headers = Path(sysconfig.get_path("include"))
    if not sys.platform.startswith("linux") or compiler is None or not (headers / "Python.h").exists():
        pytest.skip("the coarse clocks are Linux's, and there is no C compiler with Python's headers here otherwise")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(SOURCE, "utf-8")
    options = ["-shared", "-fPIC", "-w", f"-I{HEADERS}", f"-I{headers}"]
    subprocess.run([compiler, *options, "clock.c", "-o", "clock.so"], cwd=folder, check=True, timeout=60)
    library = ctypes.CDLL(str(folder / "clock.so"))
    library.set_clocks.argtypes = [ctypes.c_longlong] * 3
    library.counts_sleep.restype = library.monotonic.restype = ctypes.c_longlong
    return library


def test_time_asleep_counts_as_soon_as_the_machine_wakes(clock: Any) -> None:
    """F2: the first hit after a sleep sees it, though no coarse clock counts it."""
    clock.set_clocks(100 * SECOND, 5_000 * SECOND, 130 * SECOND)
    assert clock.counts_sleep() == 130 * SECOND
    clock.set_clocks(101 * SECOND, 5_011 * SECOND, 141 * SECOND)  # ten seconds asleep, one awake
    assert clock.counts_sleep() == 141 * SECOND
    assert clock.monotonic() == 101 * SECOND


def test_time_goes_on_evenly_when_the_time_of_day_is_set(clock: Any) -> None:
    """F2: a clock that is set, forth or back, moves nothing."""
    clock.set_clocks(200 * SECOND, 6_000 * SECOND, 240 * SECOND)
    assert clock.counts_sleep() == 240 * SECOND
    for of_day in (9_000, 3_000, 6_002):
        clock.set_clocks(201 * SECOND, of_day * SECOND, 241 * SECOND)
        assert clock.counts_sleep() == 241 * SECOND


def test_naps_too_short_to_be_told_add_up_until_they_are(clock: Any) -> None:
    """F2: what goes unnoticed is never more than the margin that a hit keeps from the end of an entry."""
    clock.set_clocks(300 * SECOND, 7_000 * SECOND, 350 * SECOND)
    clock.counts_sleep()
    nap = SECOND // 50
    for naps in range(1, 10):
        slept = 350 * SECOND + naps * nap
        clock.set_clocks(300 * SECOND, 7_000 * SECOND + naps * nap, slept)
        assert 0 <= slept - clock.counts_sleep() <= SECOND // 40
