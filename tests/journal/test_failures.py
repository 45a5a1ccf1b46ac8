"""A SQLite journal in trouble: what cannot be kept is not acknowledged, and what was acknowledged is there."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.journal.places import entry, found, names_in, put, take_one, texts, wait_for
from tests.support.waiting import DEADLINE, Call, wait_until

from credenza.errors import JournalError
from credenza.journal.sqlite import SqliteJournal, files

Open = Callable[..., SqliteJournal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "the.journal"


@pytest.fixture
def open_(path: Path) -> Iterator[Open]:
    """Opens journals; they are closed after the test."""
    opened: list[SqliteJournal] = []

    def open_journal(**options: Any) -> SqliteJournal:
        opened.append(SqliteJournal(path, **options))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


def log_of(path: Path) -> Path:
    """Return SQLite's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


def abandoned(path: Path, *puts: tuple[str, str], folder: str = "copy") -> Path:
    """Return a journal as a process leaves it that is killed after these puts."""
    journal = SqliteJournal(path)
    for key, value in puts:
        put(journal, (key, value))
    copy = path.parent / folder
    copy.mkdir()
    for name in (path, log_of(path)):
        shutil.copy(name, copy / name.name)
    journal.close()
    return copy / path.name


# The disk is full -----------------------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys, threading
from credenza.errors import JournalError
from credenza.journal.base import Entry
from credenza.journal.sqlite import SqliteJournal

def put(key, value):
    kept = threading.Event()
    receipt = journal.append([Entry(key, value)])
    receipt.signal.listen(kept, kept.set)
    assert kept.wait(10)
    return receipt.error

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
journal = SqliteJournal(sys.argv[1], durability=sys.argv[2])
put(b"first", b"1")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
kept, refused = [b"first"], []
for number in range(40):
    key = b"%d" % number
    error = put(key, b"x" * 100_000)
    (refused if error else kept).append(key)
print(type(error).__name__, error)
assert len(kept) > 3 and len(refused) > 3, (kept, refused)
assert all(journal.owes(key) for key in kept) and not any(journal.owes(key) for key in refused)
assert sorted(journal.find(kept + refused)) == sorted(kept)
assert journal.count() == len(kept)
taken = journal.take(5)
assert [one.key for one in taken] == kept[:5], taken
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert put(refused[0], b"now") is None
kept.append(refused[0])
journal.settle(taken)
assert [one.key for one in journal.take(1000)] == kept[5:]
journal.close()
journal = SqliteJournal(sys.argv[1])
assert [one.key for one in journal.take(1000)] == kept[5:]
print("good")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no such limit")
@pytest.mark.parametrize("durability", ["disk", "os"])
def test_full_disk_refuses_writes_and_loses_none(path: Path, durability: str) -> None:
    """Reading and delivering go on, and so do writes when there is room again."""
    command = [sys.executable, "-c", FULL, str(path), durability]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.stderr == ""
    said, good = done.stdout.splitlines()
    assert good == "good"
    assert said.startswith("JournalError the journal ")
    assert str(path) in said


def test_full_disk_is_named(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what happened and what to do, and nothing of the value."""
    journal = open_()
    put(journal, ("a", "1"))
    journal._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(JournalError, match="the disk is full") as refused:
        put(journal, ("b", "secret" * 100_000))
    assert "secret" not in str(refused.value)
    put(journal, ("c", "1"))
    assert found(journal, "a", "b", "c") == {"a": "1", "c": "1"}


def test_append_that_does_not_fit_is_refused_as_a_whole(open_: Open) -> None:
    """With all that were to be committed with it; each caller has an error of its own."""
    journal = open_()
    journal._connection.execute("PRAGMA max_page_count = 20")
    receipts = [
        journal.append([entry("a", "1"), entry("b", "x" * 1_000_000)]),
        journal.append([entry("c", "x" * 1_000_000)]),
    ]
    errors = [wait_for(receipt).error for receipt in receipts]
    assert all(isinstance(error, JournalError) for error in errors)
    assert errors[0] is not errors[1]
    assert (found(journal, "a", "b", "c"), journal.count(), texts(journal.take(10))) == ({}, 0, [])


def test_refused_write_gives_its_room_back(open_: Open) -> None:
    """Whoever waits for room is told."""
    journal = open_(max_pending=1)
    journal._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(JournalError):
        put(journal, ("a", "x" * 1_000_000))
    assert journal.has_room().is_set
    put(journal, ("b", "1"))


def test_write_that_is_refused_leaves_the_earlier_one_pending(open_: Open) -> None:
    """Whether or not that was taken."""
    journal = open_()
    put(journal, ("a", "1"), ("b", "1"))
    (taken,) = journal.take(1)
    journal._connection.execute("PRAGMA max_page_count = 20")
    for key in "ab":
        with pytest.raises(JournalError):
            put(journal, (key, "x" * 1_000_000))
    assert found(journal, "a", "b") == {"a": "1", "b": "1"}
    assert journal.take(1) == [taken]


def test_write_waits_for_another_program_that_writes(open_: Open, path: Path) -> None:
    """Such as an operator's."""
    journal = open_()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        call = Call(lambda: put(journal, ("a", "1")))
        other.execute("ROLLBACK")
    call.result()


def test_file_that_stays_locked_is_an_error(open_: Open, path: Path) -> None:
    """And it goes on afterwards."""
    journal = open_()
    journal._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program holds it locked"):
            put(journal, ("a", "1"))
        with pytest.raises(JournalError, match="another program holds it locked"):
            journal.take(1)
        other.execute("ROLLBACK")
    put(journal, ("b", "1"))
    assert texts(journal.take(10)) == [("b", "1")]


# Directories ----------------------------------------------------------------------------------------------------------


def test_journal_in_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message says what is needed."""
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        with pytest.raises(JournalError, match="its directory must exist and be writable"):
            SqliteJournal(tmp_path / folder / "the.journal")
    assert names_in(tmp_path) == ["file"]


READ_ONLY = """
import os, sys
from credenza.journal.sqlite import SqliteJournal
from credenza.errors import JournalError
if os.geteuid() == 0:  # whom no permission concerns
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for where in sys.argv[1:]:
    try:
        SqliteJournal(where)
    except JournalError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
def test_journal_in_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    """Whether or not it is there already, and whether its lock file is."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder != Path(folder.anchor) and "pytest" in folder.name:
            folder.chmod(0o755)
    bare, used = tmp_path / "bare", tmp_path / "used"
    bare.mkdir()
    used.mkdir()
    SqliteJournal(used / "the.journal").close()
    for name in names_in(used):
        (used / name).chmod(0o444)
    for folder in (bare, used):
        folder.chmod(0o555)
    paths = [str(folder / "the.journal") for folder in (bare, used)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", READ_ONLY, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment)
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert len(said) == 2
    for line, path in zip(said, paths, strict=True):
        assert line.startswith(f"JournalError cannot use the journal '{path}'")
        assert "its directory must exist and be writable" in line


# Removed, replaced, cut short -----------------------------------------------------------------------------------------


def check_refuses(journal: SqliteJournal, match: str) -> None:
    """No put is acknowledged from now on; what was pending is still delivered."""
    for attempt in range(3):
        with pytest.raises(JournalError, match=match):
            put(journal, ("new", str(attempt)))
    assert not journal.owes(b"new")
    assert found(journal, "old", "new") == {"old": "1"}
    (taken,) = journal.take(10)
    for keeps in (lambda: journal.bury(taken, error="refused"), journal.retry, journal.discard):
        with pytest.raises(JournalError, match=match):
            keeps()
    journal.settle([taken])
    assert (journal.count(), journal.take(10)) == (0, [])


@pytest.mark.parametrize("suffix", ["", "-wal", "-lock"])
@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.skipif(sys.platform == "win32", reason="this system does not let open files be removed")
def test_journal_whose_file_is_gone_acknowledges_nothing(open_: Open, path: Path, suffix: str, how: str) -> None:
    """Until it is opened again; the message says what happened."""
    journal = open_()
    put(journal, ("old", "1"))
    victim = path.with_name(f"{path.name}{suffix}")
    if how == "replaced":
        (path.parent / "other").write_bytes(victim.read_bytes())
        os.replace(path.parent / "other", victim)
    else:
        victim.unlink()
    journal._commits._watch._checked_ns = 0
    check_refuses(journal, f"{suffix or 'journal'} was {how}")
    journal.close()
    put(open_(), ("new", "again"))


def test_journal_that_was_moved_away_acknowledges_nothing(open_: Open, path: Path) -> None:
    """And closing it does not touch one that somebody else has begun at its path."""
    journal = open_()
    put(journal, ("old", "1"))
    for name in names_in(path.parent):
        (path.parent / name).rename(path.parent / f"moved-{name}")
    other = open_()
    put(other, ("other", "1"))
    check_refuses(journal, "was replaced")
    journal.close()
    put(other, ("other", "2"))
    assert log_of(path).exists()
    assert found(SqliteJournal.attach(path), "other") == {"other": "2"}


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_journal_that_was_cut_short_acknowledges_nothing(open_: Open, path: Path, suffix: str) -> None:
    """By a shell that wrote over it, for instance."""
    journal = open_()
    put(journal, ("old", "1"))
    victim = path.with_name(f"{path.name}{suffix}")
    size = victim.stat().st_size
    os.truncate(victim, 0)
    if suffix:
        os.truncate(victim, size)  # as the next commit makes it
    journal._commits._watch._checked_ns = 0
    for attempt in range(2):
        with pytest.raises(JournalError, match="was cut short"):
            put(journal, ("new", str(attempt)))


def test_log_that_another_program_carried_over_is_no_trouble(open_: Open, path: Path) -> None:
    """An orderly checkpoint leaves an empty log behind."""
    journal = open_()
    put(journal, ("old", "1"))
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    assert log_of(path).stat().st_size == 0
    journal._commits._watch._checked_ns = 0
    put(journal, ("new", "1"))
    assert found(journal, "old", "new") == {"old": "1", "new": "1"}


def test_what_was_acknowledged_before_the_log_was_removed_is_kept(open_: Open, path: Path) -> None:
    """It is carried over to the file as soon as that is noticed."""
    journal = open_()
    put(journal, ("old", "1"))
    log_of(path).unlink()
    journal._commits._watch._checked_ns = 0
    with pytest.raises(JournalError, match="was removed"):
        put(journal, ("new", "1"))
    copy = path.parent / "copy.journal"
    shutil.copy(path, copy)
    assert found(SqliteJournal.attach(copy), "old") == {"old": "1"}


# Broken files ---------------------------------------------------------------------------------------------------------


def test_torn_end_of_the_log_costs_nothing_before_it(path: Path) -> None:
    """What a loss of power leaves half written was not acknowledged; what was before it survives."""
    copy = abandoned(path, *[(str(number), "x" * 3000) for number in range(10)])
    log = log_of(copy)
    whole = log.read_bytes()
    for length in range(len(whole) - 1, 32, -1500):
        folder = copy.parent / str(length)
        folder.mkdir()
        shutil.copy(copy, folder / copy.name)
        (folder / log.name).write_bytes(whole[:length])
        journal = SqliteJournal(folder / copy.name)
        kept = [int(one.key) for one in journal.take(100)]
        assert kept == list(range(len(kept)))
        assert len(kept) < 10
        put(journal, ("new", "1"))
        journal.close()
        shutil.rmtree(folder)


def test_garbled_end_of_the_log_costs_nothing_before_it(path: Path) -> None:
    """Its checksums tell."""
    copy = abandoned(path, *[(str(number), "1") for number in range(10)])
    content = bytearray(log_of(copy).read_bytes())
    content[-100:] = bytes(100)
    log_of(copy).write_bytes(content)
    journal = SqliteJournal(copy)
    assert [int(one.key) for one in journal.take(100)] == list(range(9))
    assert journal.status().kept_aside == ()
    journal.close()


def break_header(content: bytearray) -> None:
    content[:16] = b"not SQLite at al"


def break_page(content: bytearray) -> None:
    content[8 * 4096 : 9 * 4096] = b"\xff" * 4096


def cut_in_half(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize("damage", [break_header, break_page, cut_in_half])
def test_broken_journal_is_put_aside_and_reported(
    open_: Open, path: Path, damage: Callable[[bytearray], None], caplog: pytest.LogCaptureFixture
) -> None:
    """With all that belongs to it; an empty one begins. Nothing is overwritten, however often it happens."""
    for times in (1, 2):
        journal = open_()
        for number in range(30):
            put(journal, (str(number), "x" * 2000))
        name = journal.identity_of([])
        journal.close()
        content = bytearray(path.read_bytes())
        damage(content)
        path.write_bytes(content)
        log_of(path).write_bytes(b"leftover")
        caplog.clear()
        with caplog.at_level(logging.ERROR, "credenza"):
            again = open_()
        asides = tuple(f"{path}.broken-{number}" for number in range(1, times + 1))
        assert again.status().kept_aside == asides
        assert SqliteJournal.attach(path).status().kept_aside == asides
        assert Path(asides[-1]).read_bytes() == content
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert asides[-1] in caplog.text
        assert (again.count(), again.dead()) == (0, [])
        assert again.identity_of([]) != name
        put(again, ("new", "1"))
        again.close()


def test_page_that_breaks_while_the_journal_is_open_is_an_error(open_: Open, path: Path) -> None:
    """Nothing more is acknowledged then."""
    journal = open_()
    for number in range(30):
        put(journal, (str(number), "x" * 2000))
    journal.close()
    journal = open_()
    content = path.read_bytes()
    with path.open("r+b") as file:
        for page in range(2, len(content) // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    for connection in (journal._connection, journal._reader.connection):
        connection.execute("PRAGMA cache_size = 0")
        connection.execute("PRAGMA shrink_memory")
    with pytest.raises(JournalError, match=r"broken|malformed"):
        journal.take(100)
    with pytest.raises(JournalError, match=r"broken|malformed"):
        journal.find([b"1"])
    for _ in range(2):
        with pytest.raises(JournalError, match="broken"):
            put(journal, ("new", "1"))
    journal.close()
    assert len(open_().status().kept_aside) == 1


def test_disk_that_cannot_be_waited_for_ends_the_journal(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the system may say next time that all is well, although it is not."""
    journal = open_()
    put(journal, ("old", "1"))
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("credenza.journal.sqlite.draft.Draft.keep", fail)
        with pytest.raises(JournalError, match="disk I/O error"):
            put(journal, ("new", "1"))
    for _ in range(2):
        with pytest.raises(JournalError, match="the disk failed"):
            put(journal, ("new", "2"))


# Many at once ---------------------------------------------------------------------------------------------------------


def test_nothing_is_acknowledged_after_the_file_is_gone_however_busy_it_is(open_: Open, path: Path) -> None:
    """Threads that write all the time all learn of it."""
    journal = open_(durability="os")
    busy = threading.Semaphore(0)

    def write(number: int) -> str:
        turn = 0
        while True:
            turn += 1
            try:
                put(journal, (f"{number}", str(turn)))
            except JournalError as error:
                return str(error)
            busy.release()

    calls = [Call(lambda number=number: write(number)) for number in range(8)]
    for _ in range(50):
        assert busy.acquire(timeout=DEADLINE)
    path.unlink()
    assert all("was removed" in call.result() for call in calls)


def test_closing_while_threads_write_leaves_each_with_an_answer(open_: Open) -> None:
    """Kept, or refused because it is closed; what was acknowledged is there afterwards."""
    journal = open_()
    last, said = [0] * 8, []

    def write(number: int) -> None:
        while True:
            try:
                put(journal, (str(number), str(last[number] + 1)))
            except JournalError as error:
                said.append(str(error))
                return
            last[number] += 1

    calls = [Call(lambda number=number: write(number)) for number in range(8)]
    wait_until(lambda: min(last) > 2, "all threads write")
    journal.close()
    for call in calls:
        call.result()
    assert all("closed" in text for text in said)
    again = open_()
    assert found(again, *map(str, range(8))) == {str(number): str(value) for number, value in enumerate(last)}
    assert take_one(again, "0")
    assert files.kept_aside(again.path) == ()
