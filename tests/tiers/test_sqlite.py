"""The SQLite tier's file: how it is made, recognised, begun anew, broken, deleted, bounded, and left by killed processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.forking import Busy, in_child
from tests.support.waiting import DEADLINE, run, turns, wait_until
from tests.tiers.places import EPOCH, LONG_MS, OTHER_EPOCH, TIMEOUT_NS, put, token

from credenza import Cache
from credenza.errors import ConfigurationError
from credenza.tiers.base import (
    Announce,
    Fence,
    Get,
    Lease,
    Near,
    OpenTag,
    Operation,
    ReadHead,
    ReadLog,
    Stamp,
    TierError,
)
from credenza.tiers.records import value_record
from credenza.tiers.sqlite import SqliteTier, boot, files

A, B = token("a"), token("b")
N = b"name"
SOON_NS = 50_000_000
OpenTier = Callable[..., SqliteTier]


def forking(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that forks while other threads run."""
    test = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")(test)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file of a test is."""
    return tmp_path / "tier.db"


@pytest.fixture
def open_(path: Path) -> Iterator[OpenTier]:
    """Opens tiers on the file; they are closed after the test."""
    opened: list[SqliteTier] = []

    def open_tier(**options: Any) -> SqliteTier:
        opened.append(SqliteTier(options.pop("path", path), **options))
        return opened[-1]

    yield open_tier
    for tier in opened:
        tier.close()


def one(tier: SqliteTier, operation: Operation, timeout_ns: int = TIMEOUT_NS) -> Any:
    """Perform one operation."""
    return tier.perform([operation], timeout_ns)[0]


def meddle(path: Path, *statements: str) -> None:
    """Change the file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def pragma(path: Path, name: str) -> Any:
    """Read one of the file's properties."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the file's write lock, as a process does that was stopped in the middle of a batch."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


# Making and recognising -----------------------------------------------------------------------------------------------


def test_new_file_says_whose_it_is(open_: OpenTier, path: Path) -> None:
    """In its header, where other programs look too; and it is a write-ahead-logged one."""
    one(open_(), put(N, b"1", LONG_MS))
    assert pragma(path, "application_id") == files.APPLICATION_ID
    assert (pragma(path, "user_version"), pragma(path, "journal_mode")) == (files.FORMAT, "wal")


def test_file_outlives_the_processes_that_use_it(open_: OpenTier) -> None:
    """Closed and opened again, all is there."""
    first = open_()
    first.perform([put(N, b"1", LONG_MS), Announce(EPOCH, A)], TIMEOUT_NS)
    first.close()
    again = open_()
    assert one(again, Get(N)) == value_record(b"1")
    assert one(again, ReadHead(OTHER_EPOCH))[:2] == (EPOCH, 1)


def test_empty_file_is_taken(open_: OpenTier, path: Path) -> None:
    """One that `touch` or a temporary-file function made."""
    path.touch()
    assert open_().perform([put(N, b"1", LONG_MS), Get(N)], TIMEOUT_NS) == [True, value_record(b"1")]


@pytest.mark.parametrize("where", ["", ":memory:", "folder"])
def test_path_that_no_file_can_have_is_refused(tmp_path: Path, where: str) -> None:
    """The message says what is needed."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="path of a file"):
        SqliteTier(tmp_path / where if where == "folder" else where)


def test_file_bound_below_a_few_values_is_refused(path: Path) -> None:
    """It would hold nothing."""
    with pytest.raises(ConfigurationError, match="max_file_bytes"):
        SqliteTier(path, max_bytes=1000, max_file_bytes=2000)


def check_left_alone(tier: SqliteTier, path: Path, match: str) -> None:
    """The file is refused when it is inspected, an error of the tier later, and not a byte of it is changed."""
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=match) as refused:
        tier.inspect(TIMEOUT_NS)
    assert str(path) in str(refused.value)
    with pytest.raises(TierError, match=match):
        one(tier, Get(N))
    with pytest.raises(TierError, match=match):
        run(tier.perform_async([put(N, b"1", LONG_MS)], TIMEOUT_NS))
    assert path.read_bytes() == before
    assert sorted(found.name for found in path.parent.iterdir()) == ["tier.db", "tier.db-lock"]


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_file_that_is_no_database_is_left_alone(open_: OpenTier, path: Path, content: bytes) -> None:
    """It may be somebody's only copy of something."""
    path.write_bytes(content)
    check_left_alone(open_(), path, "not a cache file")


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_database_of_another_program_is_left_alone(open_: OpenTier, path: Path, statement: str) -> None:
    """Whether or not it says whose it is."""
    meddle(path, "CREATE TABLE orders (id INTEGER)", statement)
    check_left_alone(open_(), path, "not a cache file")


def test_file_of_a_later_format_is_left_alone(open_: OpenTier, path: Path) -> None:
    """A process that was not upgraded yet must not spoil it for the others."""
    first = open_()
    one(first, put(N, b"1", LONG_MS))
    first.close()
    meddle(path, f"PRAGMA user_version = {files.FORMAT + 1}", "PRAGMA journal_mode = DELETE")
    check_left_alone(open_(), path, "later version")


def test_many_processes_that_begin_at_once_share_one_file(path: Path) -> None:
    """Nobody makes the file twice, and no announcement is lost."""
    code = (
        "import sys; from credenza.tiers.sqlite import SqliteTier; from credenza.tiers.base import Announce\n"
        "tier = SqliteTier(sys.argv[1]); sys.stdin.readline()\n"
        "print(*[tier.perform([Announce(b'epoch--1', b'me')], 8 * 10**9)[0].sequence for _ in range(20)]); tier.close()"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=DEADLINE)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sorted(int(number) for numbers in said for number in numbers) == list(range(1, 81))


# Another run of the machine, and other losses -------------------------------------------------------------------------


def test_file_of_an_earlier_run_of_the_machine_is_begun_anew(open_: OpenTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times are those of another clock: nothing in it may be believed, and the epoch is another one."""
    first = open_()
    first.perform([put(N, b"1", LONG_MS), Announce(EPOCH, A, (N,))], TIMEOUT_NS)
    first.close()
    monkeypatch.setattr(boot, "boot_id", lambda: "another")
    again = open_()
    assert one(again, Get(N)) == b""
    assert one(again, ReadLog(OTHER_EPOCH, 0, 10, 0))[0][:2] == (OTHER_EPOCH, 0)
    again.close()
    assert one(open_(), ReadHead(EPOCH)).epoch == OTHER_EPOCH


def test_file_with_times_ahead_of_the_clock_is_begun_anew(open_: OpenTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock went back, so the machine was restarted, whatever it is called."""
    first = open_()
    one(first, put(N, b"1", LONG_MS))
    first.close()
    before = boot.now_ms
    monkeypatch.setattr(boot, "now_ms", lambda: before() - 3_600_000)
    assert one(open_(), Get(N)) == b""


@pytest.mark.parametrize(
    ("noted", "current", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("since 1000", "since 1059", True),
        ("since 1000", "since 1060", False),
        ("since x", "since 1060", False),
        ("since 1000", "a", False),
    ],
)
def test_runs_of_the_machine_are_told_apart(noted: str, current: str, *, same: bool) -> None:
    """By the system's name for it, or by when it began, within what a wall clock is corrected by."""
    assert boot.is_same_boot(noted, current) is same


def test_system_without_a_name_for_its_run_has_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which is the same one a moment later."""
    monkeypatch.setattr(boot, "_BOOT_ID", tmp_path / "nothing")
    assert boot.boot_id().startswith("since ")
    assert boot.is_same_boot(boot.boot_id(), boot.boot_id())


def test_broken_file_is_put_aside_and_begun_anew(open_: OpenTier, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The batch that met it fails, the next one has an empty file; one line in the log says where the old one is."""
    first = open_()
    first.perform([put(b"%d" % number, b"x" * 500, LONG_MS) for number in range(500)], TIMEOUT_NS)
    first.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\xa5" * (len(whole) - 200))
    tier = open_()
    with caplog.at_level(logging.WARNING, "credenza"):
        for _ in range(3):
            try:
                replies = tier.perform([Get(b"1"), put(N, b"1", LONG_MS), Get(N)], TIMEOUT_NS)
                break
            except TierError:
                continue
    assert replies == [b"", True, value_record(b"1")]
    assert [record.getMessage().count("corrupt-1") for record in caplog.records] == [1]
    assert Path(f"{path}.corrupt-1").stat().st_size == len(whole)


@pytest.mark.parametrize("where", ["everywhere", "records"])
def test_file_that_breaks_in_use_is_put_aside(
    open_: OpenTier, path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Of several tiers that have it open all find the new one; also if only looking a record up shows it."""
    tiers = [open_(), open_()]
    tiers[0].perform([put(b"%d" % number, b"x" * 500, LONG_MS) for number in range(500)], TIMEOUT_NS)
    meddle(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(sqlite3.connect(path)) as connection:
        pages = [row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'records'")]
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 8192 + 1) if where == "everywhere" else pages:
            file.seek(8192 * (page - 1))
            file.write(b"\xa5" * 8192)

    def is_well(tier: SqliteTier) -> bool:
        try:
            return tier.perform([put(N, b"1", LONG_MS), Get(N)], TIMEOUT_NS) == [True, value_record(b"1")]
        except TierError:
            return False

    wait_until(lambda: all(is_well(tier) for tier in tiers), "the tiers to find the new file")
    assert one(tiers[0], Fence(N, A, LONG_MS)) is False
    assert one(tiers[1], Fence(N, A, LONG_MS)) is True
    assert "corrupt-1" in caplog.text


def test_file_that_others_replaced_already_is_not_put_aside(open_: OpenTier, path: Path) -> None:
    """Who comes second must not take the new file away from the first."""
    tier = open_()
    one(tier, put(N, b"1", LONG_MS))
    files.put_aside(str(path), files.Identity(0, 0), time.monotonic_ns() + TIMEOUT_NS)
    assert one(open_(), Get(N)) == value_record(b"1")


def test_log_without_its_head_is_forgotten(open_: OpenTier, path: Path) -> None:
    """Numbers that begin again must not meet old ones."""
    tier = open_()
    one(tier, Announce(EPOCH, A, (N,)))
    meddle(path, "DELETE FROM heads")
    assert one(tier, Announce(OTHER_EPOCH, B))[:2] == (OTHER_EPOCH, 1)
    assert [news.sender for news in one(tier, ReadLog(EPOCH, 0, 10, 0)).news] == [B]


@pytest.mark.parametrize(
    "change", ["epoch = 'text'", "epoch = x'00'", "floor = -1", "floor = 1.5", "sequence = 'many'"]
)
def test_head_that_somebody_else_changed_is_begun_anew(open_: OpenTier, path: Path, change: str) -> None:
    """No reader meets a number that cannot be one."""
    tier = open_()
    one(tier, Announce(EPOCH, A, (N,)))
    meddle(path, f"UPDATE heads SET {change}")
    assert one(tier, ReadHead(OTHER_EPOCH))[:3] == (OTHER_EPOCH, 0, 0)
    assert one(tier, Announce(EPOCH, B))[:2] == (OTHER_EPOCH, 1)


def test_broken_files_do_not_pile_up(open_: OpenTier, path: Path) -> None:
    """A disk that breaks every file gets no more than three of them."""
    for _ in range(5):
        tier = open_()
        one(tier, put(N, b"1", LONG_MS))
        tier.close()
        whole = path.read_bytes()
        path.write_bytes(whole[:200] + b"\xa5" * (len(whole) - 200))
        with pytest.raises(TierError):
            for _ in range(2):
                open_().inspect(TIMEOUT_NS)
                one(open_(), put(N, b"1", LONG_MS))
            raise TierError
    aside = sorted(found.name for found in path.parent.iterdir() if "corrupt" in found.name and "wal" not in found.name)
    assert aside == [f"tier.db.corrupt-{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm"), ("", "-wal", "-shm", "-lock")])
def test_deleted_file_is_made_anew_by_all_who_have_it_open(
    open_: OpenTier, path: Path, suffixes: tuple[str, ...]
) -> None:
    """Nobody goes on with a file that others do not see."""
    tiers = [open_(), open_()]
    for tier in tiers:
        tier.perform([put(N, b"old", LONG_MS), Announce(EPOCH, A)], TIMEOUT_NS)
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert one(tiers[0], Announce(OTHER_EPOCH, A))[:2] == (OTHER_EPOCH, 1)
    assert one(tiers[1], ReadLog(EPOCH, 0, 10, 0)).head[:2] == (OTHER_EPOCH, 1)
    assert one(tiers[0], Lease(N, A, LONG_MS)) == b"L" + A
    for tier in tiers:
        wait_until(lambda tier=tier: one(tier, Get(N))[:17] == b"L" + A, "the old file to be left")
    assert pragma(path, "integrity_check") == "ok"


# Files that cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/proc/tier.db", "missing/tier.db"])
def test_directory_that_cannot_be_written_is_an_error_of_the_tier(open_: OpenTier, tmp_path: Path, where: str) -> None:
    """Named by its path, in both colours and while watching; nothing is raised when the tier is made."""
    tier = open_(path=tmp_path / where)
    for attempt in (
        lambda: one(tier, Get(N)),
        lambda: one(tier, put(N, b"1", LONG_MS)),
        lambda: run(tier.perform_async([Get(N)], TIMEOUT_NS)),
        lambda: tier.watch(0, TIMEOUT_NS),
        lambda: tier.inspect(TIMEOUT_NS),
    ):
        with pytest.raises(TierError, match=where):
            attempt()


def test_directory_that_appears_later_is_used_then(open_: OpenTier, path: Path, tmp_path: Path) -> None:
    """The tier comes back by itself."""
    tier = open_(path=tmp_path / "late" / "tier.db")
    with pytest.raises(TierError):
        one(tier, Get(N))
    (tmp_path / "late").mkdir()
    assert one(tier, put(N, b"1", LONG_MS)) is True


def test_file_locked_by_a_stopped_process_is_an_error_in_time(open_: OpenTier, path: Path) -> None:
    """Looking up goes on, writing is refused after its timeout and works again after the lock."""
    tier = open_()
    one(tier, put(N, b"1", LONG_MS))
    with writing(path):
        assert one(tier, Get(N)) == value_record(b"1")
        refused = one(tier, put(N, b"2", LONG_MS), SOON_NS)
        assert isinstance(refused, TierError)
        assert "locked" in str(refused)
        (refused,) = run(tier.perform_async([put(N, b"2", LONG_MS)], SOON_NS))
        assert isinstance(refused, TierError)
        assert run(tier.perform_async([Get(N)], TIMEOUT_NS)) == [value_record(b"1")]
    assert tier.perform([put(N, b"3", LONG_MS), Get(N)], TIMEOUT_NS) == [True, value_record(b"3")]


def test_file_that_even_readers_are_locked_out_of_is_waited_for(open_: OpenTier, path: Path) -> None:
    """As while the last connection of another process is closed; until the timeout."""
    tier, replies = open_(), []
    tier.inspect(TIMEOUT_NS)
    tier.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        open_first = connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TierError, match="locked"):
            one(tier, Get(N), SOON_NS)
        reader = threading.Thread(target=lambda: replies.append(one(tier, Get(N))))
        reader.start()
        wait_until(tier._links._gate.locked, "the reader to open the file")
        open_first.close()
    reader.join(DEADLINE)
    assert replies == [b""]


def test_writer_in_line_behind_another_thread_gives_up_in_time(open_: OpenTier, path: Path) -> None:
    """Its timeout counts while it waits for its turn."""
    tier = open_()
    one(tier, put(N, b"1", LONG_MS))

    def is_refused(timeout_ns: int) -> None:
        assert isinstance(one(tier, put(N, b"2", LONG_MS), timeout_ns), TierError)

    with writing(path):
        first = threading.Thread(target=is_refused, args=(10 * SOON_NS,))
        first.start()
        wait_until(tier._writing.locked, "the first writer to wait")
        assert "other threads" in str(one(tier, put(N, b"3", LONG_MS), SOON_NS // 10))
        first.join(DEADLINE)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_full_disk_is_an_error_of_the_tier_and_reading_goes_on(path: Path) -> None:
    """Nothing is half stored, and writing works again when there is room."""
    code = """
import resource, signal, sys
from credenza.tiers.base import Get, Put, TierError
from credenza.tiers.sqlite import SqliteTier
tier = SqliteTier(sys.argv[1])
put = lambda name: tier.perform([Put(name, b"x" * 100_000, 600_000, 1 << 52)], 8 * 10**9)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
put(b"first")
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
stored = 1
try:
    for stored in range(1, 1000):
        put(b"%d" % stored)
except TierError as error:
    print("refused", sys.argv[1] in str(error), 1 < stored < 30)
print(len(tier.perform([Get(b"first")], 8 * 10**9)[0]), tier.perform([Get(b"%d" % stored)], 8 * 10**9))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(put(b"later"))
tier.close()
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout.splitlines(), done.stderr) == (["refused True True", "100025 [b'']", "[True]"], "")


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_expired_records_are_removed_by_later_writes(open_: OpenTier, path: Path) -> None:
    """A few at a time, so that the file does not keep what nobody can read."""
    tier = open_()
    for start in range(0, 1000, 100):
        tier.perform([put(b"brief-%d" % number, b"x", 1) for number in range(start, start + 100)], TIMEOUT_NS)
    wait_until(lambda: one(tier, Get(b"brief-999")) == b"", "the records to expire")
    for number in range(500):
        one(tier, put(b"long-%d" % number, b"x", LONG_MS))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone()[0] <= 500


def test_file_does_not_outgrow_its_bound_and_keeps_what_is_no_value(open_: OpenTier, path: Path) -> None:
    """Values that expire first are evicted; fences, leases and tags stay, the newest values too."""
    tier = open_(max_bytes=100_000, max_file_bytes=4_000_000)
    tier.perform(
        [Fence(b"fence", A, 1000 * LONG_MS), Lease(b"lease", A, LONG_MS), OpenTag(b"tag", Stamp(EPOCH, 1))], TIMEOUT_NS
    )
    for number in range(1000):
        one(tier, put(b"value-%d" % number, b"x" * 10_000, LONG_MS + 1000 * number))
    meddle(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size <= 4_000_000
    kept = tier.perform([Get(name) for name in (b"fence", b"lease", b"tag", b"value-999")], TIMEOUT_NS)
    assert [record[:1] for record in kept] == [b"B", b"L", b"T", b"V"]
    assert one(tier, Get(b"value-0")) == b""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone()[0] > 100


def test_values_that_fill_the_file_at_once_make_room_for_themselves(open_: OpenTier) -> None:
    """Before the usual sweeping gets round to it."""
    tier = open_(max_bytes=600_000, max_file_bytes=4_000_000)
    for number in range(20):
        assert one(tier, put(b"%d" % number, b"x" * 500_000, LONG_MS + number)) is True
    assert tier.perform([Get(b"0"), Get(b"19")], TIMEOUT_NS) == [b"", value_record(b"x" * 500_000)]


def test_value_larger_than_the_file_is_an_error_of_the_tier(open_: OpenTier) -> None:
    """And the tier goes on."""
    tier = open_(max_bytes=100_000, max_file_bytes=1_000_000)
    with pytest.raises(TierError, match="full"):
        one(tier, put(N, b"x" * 2_000_000, LONG_MS))
    assert tier.perform([put(N, b"1", LONG_MS), Get(N)], TIMEOUT_NS) == [True, value_record(b"1")]


# Threads, loops, forks, killed processes ------------------------------------------------------------------------------


def test_more_threads_than_connections_all_get_their_replies(open_: OpenTier) -> None:
    """They wait for each other."""
    tier = open_()
    tier._links._most = 2
    writers = Busy(lambda: tier.perform([Get(N), put(N, b"1", LONG_MS)], TIMEOUT_NS), threads=2)
    with writers, Busy(lambda: one(tier, Get(N)), threads=5) as readers:
        wait_until(lambda: writers.rounds > 50 and readers.rounds > 200, "some rounds")
    assert len(tier._links._open) <= 2


def test_look_says_what_get_replies_or_nothing_at_all(open_: OpenTier, path: Path) -> None:
    """A record, or that there is none; and None where that takes more than a look: no connection, or another file."""
    tier = open_(max_bytes=1_000)
    assert isinstance(tier, Near)
    assert tier.look(N) is None  # nothing is open yet
    short, long = value_record(b"e" * 100), value_record(b"e" * 2_000)
    tier.perform([put(N, short[25:], LONG_MS), put(b"long", long[25:], LONG_MS)], TIMEOUT_NS)
    replies = tier.perform([Get(N), Get(b"long"), Get(b"absent")], TIMEOUT_NS)
    assert replies == [short, long[:1_025], b""]
    assert [tier.look(name) for name in (N, b"long", b"absent")] == replies
    tier.close()
    assert tier.look(N) is None
    assert tier.perform([Get(N)], TIMEOUT_NS) == [short]
    path.unlink()
    wait_until(lambda: tier.look(N) is None, "the file is found to be gone")
    assert tier.perform([Get(N)], TIMEOUT_NS) == [b""]


def test_closing_ends_the_threads_and_leaves_no_connection(open_: OpenTier) -> None:
    """Whatever the colour; and the tier may be used again."""
    tier = open_()
    before = threading.active_count()
    for close in (tier.close, lambda: run(tier.close_async())):
        run(tier.perform_async([put(N, b"1", LONG_MS)], TIMEOUT_NS))
        one(tier, Get(N))
        assert tier._links._open
        assert tier._writer._open
        close()
        assert not tier._links._open
        assert not tier._writer._open
        wait_until(lambda: threading.active_count() <= before, "the threads to end")


def test_closing_in_the_middle_of_a_batch_closes_its_connection_afterwards(open_: OpenTier) -> None:
    """Nobody's statement is interrupted."""
    tier = open_()
    link = tier._links.take(time.monotonic_ns() + TIMEOUT_NS)
    tier.close()
    assert link.execute("SELECT 1").fetchone() == (1,)
    tier._links.give_back(link)
    assert not tier._links._open
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        link.execute("SELECT 1")


def test_event_loop_goes_on_while_a_batch_waits(open_: OpenTier, path: Path) -> None:
    """A file that is locked holds up nobody else on the loop."""
    tier = open_()
    one(tier, put(N, b"1", LONG_MS))

    async def main() -> int:
        batch = asyncio.ensure_future(tier.perform_async([put(N, b"2", LONG_MS)], TIMEOUT_NS))
        turns = 0
        with writing(path):
            while turns < 100:
                await asyncio.sleep(0)
                turns += 1
            assert not batch.done()
        assert await batch == [True]
        await tier.close_async()
        return turns

    assert run(main()) == 100


@forking
@pytest.mark.parametrize("busy", [False, True])
def test_fork_leaves_parent_and_child_with_connections_of_their_own(open_: OpenTier, *, busy: bool) -> None:
    """Even in the middle of batches of other threads; the child needs not be told."""
    tier = open_()
    one(tier, put(N, b"1", LONG_MS))

    def child() -> object:
        replies = tier.perform([Get(N), Lease(b"child", A, LONG_MS), Announce(EPOCH, A)], TIMEOUT_NS)
        tier.close()
        return replies[:2]

    expected = repr([value_record(b"1"), b"L" + A])
    if not busy:
        assert in_child(child) == expected
    else:
        with Busy(lambda: tier.perform([put(b"busy", b"1", LONG_MS), Get(N)], TIMEOUT_NS)) as threads:
            wait_until(lambda: threads.rounds > 10, "some rounds")
            assert in_child(child) == expected
    assert one(tier, Get(b"child"))[:17] == b"L" + A
    assert one(tier, ReadHead(EPOCH)).sequence == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system does not kill")
def test_processes_killed_in_the_middle_of_writing_leave_a_whole_file(open_: OpenTier, path: Path) -> None:
    """A batch is there entirely or not at all, and nobody waits for the dead."""
    code = (
        "import sys; from credenza.tiers.sqlite import SqliteTier; from credenza.tiers.base import Put\n"
        "tier, number = SqliteTier(sys.argv[1]), 0\n"
        "while True:\n"
        "    number += 1; value = b'%d' % number * 3000\n"
        "    tier.perform([Put(b'left', value, 600000, 1 << 52), Put(b'right', value, 600000, 1 << 52)], 8 * 10**9)\n"
        "    if number == 20: print('go', flush=True)\n"
    )
    tier = open_()
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            try:
                assert process.stdout.readline() == "go\n"
            finally:
                process.kill()
                process.wait()
        left, right = tier.perform([Get(b"left"), Get(b"right")], TIMEOUT_NS)
        assert left == right != b""
        assert one(tier, put(N, b"1", LONG_MS)) is True
    assert pragma(path, "integrity_check") == "ok"


def test_clock_is_the_machines_and_counts_milliseconds() -> None:
    """Never the wall clock."""
    assert abs(boot.now_ms() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000) < 5000


class Counting:
    """A tier around another one, which it hands on what it does not know to."""

    def __init__(self, inner: SqliteTier) -> None:
        self._inner = inner
        self.batches = 0

    def perform(self, operations: Any, timeout_ns: int) -> Any:
        self.batches += 1
        return self._inner.perform(operations, timeout_ns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_tier_around_the_tier_sees_every_look_up(open_: OpenTier) -> None:
    """`look` is for who offers it, not for who happens to hand it on."""
    tier: Any = Counting(open_())
    with Cache[str, int](remote=tier, maxsize=0, ttl=60) as cache:
        cache.set("a", 1)
        before = tier.batches
        assert [cache.get("a") for _ in range(50)] == [1] * 50
        assert tier.batches >= before + 50


def test_task_that_reads_on_and_on_lets_others_go_on(path: Path) -> None:
    """A look at the file takes no waiting, and others wait for the loop."""

    async def main(cache: Cache[str, int]) -> int | None:
        await cache.aio.set("other", 1)
        while await cache.aio.get("other") == 1 and (found := await cache.aio.get("ready")) is None:
            pass
        return found

    async def both(cache: Cache[str, int]) -> int | None:
        reader = asyncio.create_task(main(cache))
        await turns(3)  # it reads
        await cache.aio.set("ready", 2)
        return await reader

    with Cache[str, int].from_url(f"sqlite:///{path}", maxsize=0, ttl=60) as cache:
        assert run(both(cache)) == 2
