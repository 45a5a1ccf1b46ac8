"""The SQLite journal's file: made, recognised, owned by one process, looked at by others, kept small, left by a fork."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.journal.places import FAR_MS, TIMEOUT_NS, entry, found, names_in, put, take_one, texts, wait_for
from tests.support.forking import Busy, in_child
from tests.support.waiting import DEADLINE, Call, HeldLoader, wait_until

from credenza.errors import ConfigurationError, JournalError, JournalInUse
from credenza.journal.base import NotedEntry
from credenza.journal.sqlite import SqliteJournal, schema
from credenza.journal.sqlite import draft as drafts
from credenza.journal.sqlite.draft import Draft, Numbers
from credenza.testing import FakeClock

Open = Callable[..., SqliteJournal]


def forking(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that forks while other threads run."""
    test = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")(test)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "the.journal"


@pytest.fixture
def open_(path: Path) -> Iterator[Open]:
    """Opens journals; they are closed after the test."""
    opened: list[SqliteJournal] = []

    def open_journal(**options: Any) -> SqliteJournal:
        opened.append(SqliteJournal(options.pop("path", path), **options))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


def meddle(path: Path, *statements: str) -> None:
    """Change the file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def pragma(path: Path, name: str) -> Any:
    """Read one of the file's properties."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


# Making and recognising -----------------------------------------------------------------------------------------------


def test_new_file_says_whose_it_is(open_: Open, path: Path) -> None:
    """In its header, where other programs look too; and it is a write-ahead-logged one."""
    open_()
    assert (pragma(path, "application_id"), pragma(path, "user_version")) == (schema.APPLICATION_ID, schema.FORMAT)
    assert pragma(path, "journal_mode") == "wal"


def test_empty_file_is_taken(open_: Open, path: Path) -> None:
    """One that `touch` or a temporary-file function made."""
    path.touch()
    put(open_(), ("a", "1"))


@pytest.mark.parametrize("where", ["", ":memory:", "folder", "a\x00b"])
def test_path_that_no_file_can_have_is_refused(tmp_path: Path, where: str) -> None:
    """The message says what is needed."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="path of a file"):
        SqliteJournal(tmp_path / where if where == "folder" else where)


@pytest.mark.parametrize("options", [{"durability": "ram"}, {"max_pending": 0}])
def test_wrong_option_is_refused(path: Path, options: Any) -> None:
    """Before anything is made."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SqliteJournal(path, **options)
    assert not path.exists()


def check_left_alone(path: Path, match: str) -> None:
    """The file is refused and not a byte of it is changed; attached as well."""
    before = path.read_bytes()
    for attempt in (SqliteJournal, SqliteJournal.attach):
        with pytest.raises(JournalError, match=match) as refused:
            attempt(path)
        assert str(path) in str(refused.value)
    assert path.read_bytes() == before
    assert names_in(path.parent) == ["the.journal", "the.journal-lock"]


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """It may be somebody's only copy of something."""
    path.write_bytes(content)
    check_left_alone(path, "not a journal")


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_database_of_another_program_is_left_alone(path: Path, statement: str) -> None:
    """Whether or not it says whose it is."""
    meddle(path, "CREATE TABLE orders (id INTEGER)", statement)
    check_left_alone(path, "not a journal")


def test_file_of_a_later_format_is_left_alone(open_: Open, path: Path) -> None:
    """The message names both formats."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.close()
    meddle(path, f"PRAGMA user_version = {schema.FORMAT + 1}", "PRAGMA journal_mode = DELETE")
    check_left_alone(path, f"format {schema.FORMAT + 1}.*format {schema.FORMAT}")


def test_leftovers_of_a_removed_file_are_not_taken_for_those_of_a_new_one(open_: Open, path: Path) -> None:
    """SQLite would read them into it."""
    path.with_name("the.journal-wal").write_bytes(b"7" * 5000)
    journal = open_()
    put(journal, ("a", "1"))
    assert found(journal, "a") == {"a": "1"}


def test_journal_keeps_its_name_where_it_is_moved(open_: Open, path: Path) -> None:
    """And another one has another name."""
    first = open_()
    put(first, ("a", "1"))
    name = first.identity_of([])
    first.close()
    path.rename(path.with_name("moved"))
    moved, other = open_(path=path.with_name("moved")), open_()
    assert moved.identity_of(moved.take(1)) == name
    assert other.identity_of([]) != name


def test_numbers_are_not_used_beyond_what_is_reserved_on_the_disk(
    open_: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With durability="os" the last commits may be lost with the machine; their places may have reached the source."""
    monkeypatch.setattr(Numbers, "BLOCK", 8)
    journal = open_(durability="os")
    for number in range(40):
        put(journal, (str(number), "1"))
        with closing(sqlite3.connect(path)) as connection:
            ((reserved,),) = connection.execute("SELECT value FROM about WHERE name = 'reserved'")
        assert take_one(journal, str(number)).place <= reserved
    journal.close()
    meddle(path, "DELETE FROM pending")
    again = open_()
    put(again, ("a", "1"))
    assert take_one(again, "a").place > reserved


@pytest.mark.parametrize("days", [-30, 30])
def test_wall_clock_that_was_set_neither_renews_nor_lengthens_a_delay(
    open_: Open, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the only one that outlasts the process."""
    clock = FakeClock()
    journal = open_(clock=clock)
    put(journal, ("a", "1"))
    journal.postpone(take_one(journal, "a"), delay_ms=60_000, failures=1, error="refused")
    journal.close()
    wall_ms = drafts.wall_ms()
    monkeypatch.setattr(drafts, "wall_ms", lambda: wall_ms + days * 86_400_000)
    again = open_(clock=clock)
    assert len(again.take(10)) == (days > 0)
    clock.advance(61)
    assert texts(again.take(10)) == [("a", "1")]


# One owner ------------------------------------------------------------------------------------------------------------


def test_second_opening_in_one_process_is_refused(open_: Open, path: Path) -> None:
    """By whatever name of the file; and it does no harm to the first."""
    journal = open_()
    (path.parent / "link").symlink_to(path)
    for name in (path, path.parent / "link", os.path.relpath(path)):
        with pytest.raises(JournalInUse, match="this process already"):
            SqliteJournal(name)
    put(journal, ("a", "1"))
    journal.close()
    put(open_(), ("b", "1"))


OWNER = """
import sys
from credenza.journal.sqlite import SqliteJournal
journal = SqliteJournal(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


def test_second_process_is_refused_until_the_first_is_killed(open_: Open, path: Path) -> None:
    """It learns the number of the first; the system frees the lock."""
    command = [sys.executable, "-c", OWNER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            with pytest.raises(JournalInUse, match=f"process {process.pid};"):
                SqliteJournal(path)
            assert SqliteJournal.attach(path).status().owner == f"process {process.pid}"
        finally:
            process.kill()
    assert SqliteJournal.attach(path).status().owner is None
    put(open_(), ("a", "1"))


def test_lock_file_without_an_owner_is_no_obstacle(open_: Open, path: Path) -> None:
    """What a killed process left in it is not believed."""
    path.with_name("the.journal-lock").write_text("1\n")
    open_()


# Attached -------------------------------------------------------------------------------------------------------------


def test_attached_journal_shows_what_the_owner_has(open_: Open, path: Path) -> None:
    """While it is open; also the dead letters."""
    journal = open_()
    put(journal, ("a", "1"), ("b", None), ("c", "1"))
    journal.bury(take_one(journal, "c"), error="refused")
    attached = SqliteJournal.attach(path)
    ours, theirs = journal.status(), attached.status()
    assert (theirs.pending, theirs.dead, theirs.oldest_ms) == (ours.pending, ours.dead, ours.oldest_ms) != (0, 0, None)
    assert theirs.owner == ours.owner == f"process {os.getpid()}"
    assert theirs.location == ours.location == str(path)
    assert attached.dead() == journal.dead()
    assert found(attached, "a", "b", "c") == {"a": "1", "b": None}
    assert (attached.count(), attached.owes(b"a"), attached.owes(b"c")) == (2, True, False)
    assert attached.identity_of([]) == journal.identity_of([])


def test_letter_that_an_operator_retries_reaches_the_owner(open_: Open, path: Path) -> None:
    """A `wait` that is under way ends."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.bury(take_one(journal, "a"), error="refused")
    attached = SqliteJournal.attach(path)
    call = Call(lambda: journal.wait(TIMEOUT_NS))
    assert (attached.retry(), attached.retry()) == (1, 0)
    assert (attached.dead(), attached.count()) == ([], 1)
    call.result()
    assert texts(journal.take(10)) == [("a", "1")]
    assert (journal.dead(), journal.count(), attached.count()) == ([], 1, 1)


def test_letter_that_is_retried_while_nobody_has_the_journal_open_is_pending_then(open_: Open, path: Path) -> None:
    """An operator need not wait for the service."""
    journal = open_()
    put(journal, ("a", "1"), ("b", "1"))
    journal.bury(take_one(journal, "a"), error="refused")
    journal.close()
    assert SqliteJournal.attach(path).retry([1]) == 1
    assert texts(open_().take(10)) == [("b", "1"), ("a", "1")]


def test_letter_that_is_superseded_before_the_owner_noticed_is_not_retried(open_: Open, path: Path) -> None:
    """The later write stands."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.bury(take_one(journal, "a"), error="refused")
    SqliteJournal.attach(path).retry()
    put(journal, ("a", "2"))
    journal.close()
    again = open_()
    assert texts(again.take(10)) == [("a", "2")]
    assert [letter.is_superseded for letter in again.dead()] == [True]


def test_operator_discards_letters_of_an_open_journal(open_: Open, path: Path) -> None:
    """At once."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.bury(take_one(journal, "a"), error="refused")
    assert SqliteJournal.attach(path).discard() == 1
    assert journal.dead() == []


def test_attached_journal_changes_nothing_else(open_: Open, path: Path) -> None:
    """It says what it is for."""
    journal = open_()
    put(journal, ("a", "1"))
    (taken,) = journal.take(1)
    attached = SqliteJournal.attach(path)
    calls = [
        lambda: attached.append([entry("a", "2")]),
        attached.has_room,
        lambda: attached.take(1),
        lambda: attached.settle([taken]),
        lambda: attached.postpone(taken, delay_ms=0, failures=1, error="refused"),
        lambda: attached.bury(taken, error="refused"),
        lambda: attached.wait(1),
        attached.wake,
        attached.mark,
        lambda: attached.is_past(0),
    ]
    for call in calls:
        with pytest.raises(JournalError, match="attached"):
            call()
    attached.close()


def test_attaching_makes_no_journal(path: Path) -> None:
    """Nor any other file."""
    with pytest.raises(JournalError, match="no journal at"):
        SqliteJournal.attach(path)
    path.touch()
    with pytest.raises(JournalError, match="no journal yet"):
        SqliteJournal.attach(path)
    assert names_in(path.parent) == ["the.journal"]


def test_rows_that_somebody_removed_by_hand_are_not_pending_any_more(open_: Open, path: Path) -> None:
    """Once the owner has noticed."""
    journal = open_()
    put(journal, ("a", "1"), ("b", "1"))
    journal.take(10)
    meddle(path, "DELETE FROM pending WHERE key = x'61'")
    call = Call(lambda: journal.wait(2_000_000_000))
    wait_until(lambda: journal.count() == 1, "the owner notices")
    journal.wake()
    call.result()
    assert texts(journal.take(10)) == [("b", "1")]


# Group commit ---------------------------------------------------------------------------------------------------------


def test_writes_that_come_during_a_commit_share_the_next_one(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are; and of each key only the last is written."""
    held, plans = HeldLoader(None), []
    plan = Draft.plan

    def noting(self: Draft, entries: Any) -> Any:
        given = list(entries)
        if not plans:
            held()
        plans.append(plan(self, given))
        return plans[-1]

    journal = open_()
    monkeypatch.setattr(Draft, "plan", noting)
    first = journal.append([entry("a", "1")])
    held.wait_until_called()
    receipts = [journal.append([entry(str(number % 100), str(number))]) for number in range(300)]
    held.release()
    for receipt in [first, *receipts]:
        assert wait_for(receipt).error is None
    assert [len(made.values) // 5 for made in plans] == [1, 100]
    assert found(journal, "99") == {"99": "299"}


def test_key_that_is_settled_while_it_is_queued_again_keeps_its_room(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment it is not pending, and yet nobody else may take its place."""
    journal = open_(max_pending=1)
    put(journal, ("a", "1"))
    (taken,) = journal.take(1)
    settle, plan, settling, planning = Draft.settle, Draft.plan, HeldLoader(None), HeldLoader(None)
    monkeypatch.setattr(Draft, "settle", lambda *given: settling() or settle(*given))
    monkeypatch.setattr(Draft, "plan", lambda *given: planning() or plan(*given))
    call = Call(lambda: journal.settle([taken]))
    settling.wait_until_called()
    receipt = journal.append([entry("a", "2")])
    settling.release()
    call.result()
    planning.wait_until_called()
    assert journal.append([entry("b", "1")]) is None
    planning.release()
    assert wait_for(receipt).error is None
    assert found(journal, "a", "b") == {"a": "2"}


def test_receipt_is_set_after_the_commit(open_: Open, path: Path) -> None:
    """Another process can read the write by then, and it is known here."""
    journal = open_()
    with closing(sqlite3.connect(path)) as other:
        for number in range(50):
            seen: list[Any] = []
            receipt = journal.append([entry(str(number), "1")])
            assert receipt is not None
            key = str(number).encode()
            receipt.signal.listen(
                "test", lambda key=key, seen=seen: seen.append((journal.owes(key), journal.find([key])))
            )
            wait_until(lambda seen=seen: seen, "the receipt is set")
            assert seen[0] == (True, {key: b"1"})
            assert other.execute("SELECT count(*) FROM pending").fetchone() == (number + 1,)


def test_follower_learns_what_was_kept_in_its_order(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it counts as pending, and before anybody is told; of what was refused, and has no note, nothing."""
    journal = open_()
    seen: list[tuple[list[Any], list[bool]]] = []
    receipts: list[Any] = []
    journal.follow(lambda notes: seen.append((list(notes), [journal.owes(b"a"), receipts[0].signal.is_set])))
    planning = HeldLoader(None)
    plan = Draft.plan

    def held_plan(draft: Draft, entries: Any) -> Any:
        if not receipts:
            planning()
        return plan(draft, entries)

    monkeypatch.setattr(Draft, "plan", held_plan)
    first = journal.append([noted("first", "first")])
    planning.wait_until_called()
    receipts += [journal.append([noted("a", number)]) for number in range(20)]
    receipts += [journal.append([entry("b", "1")]), first]
    planning.release()
    assert all(wait_for(receipt).error is None for receipt in receipts)
    assert seen[-1] == (list(range(20)), [True, False])
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "keep", _refused)
        assert wait_for(journal.append([noted("c", "refused")])).error is not None
    assert wait_for(journal.append([noted("d", "last")])).error is None
    notes = [note for told, _ in seen for note in told]
    assert notes == ["first", *range(20), "last"]


def noted(key: str, note: object) -> NotedEntry:
    """Return an entry with a note."""
    made = NotedEntry(*entry(key, "1"))
    made.note = note
    return made


def _refused(draft: Draft, plan: Any) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_waker_that_raises_concerns_nobody_else(open_: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Such as that of an event loop which is closed by now."""

    def fail() -> None:
        raise RuntimeError("the loop is closed")

    journal = open_()
    receipt = journal.append([entry("a", "1")])
    assert receipt is not None
    try:
        receipt.signal.listen("test", fail)
    except RuntimeError:
        pass  # it was set already
    put(journal, ("b", "1"))
    assert found(journal, "a", "b") == {"a": "1", "b": "1"}


def test_error_that_nobody_expects_does_not_end_the_writer(
    open_: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits is told, and the next write is kept."""
    journal = open_()
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "plan", lambda *_: 1 / 0)
        patch.setattr(Draft, "take", lambda *_: 1 / 0)
        with pytest.raises(JournalError, match="division by zero"):
            put(journal, ("a", "1"))
        with pytest.raises(JournalError, match="division by zero"):
            journal.take(1)
    put(journal, ("b", "1"))
    assert found(journal, "a", "b") == {"b": "1"}
    assert "failed unexpectedly" in caplog.text


def test_reads_see_every_acknowledged_write_while_others_write_and_deliver(open_: Open) -> None:
    """A key that is written all the time is pending all the time, wherever its row is moved."""
    journal = open_(durability="os")
    put(journal, ("a", "0"))
    last = [0]
    ends = threading.Event()

    def write() -> None:
        while not ends.is_set():
            put(journal, ("a", str(last[0] + 1)))
            last[0] += 1

    def deliver() -> None:
        while not ends.is_set():
            taken = journal.take(10)
            put(journal, ("b", "1"))
            journal.settle([one for one in taken if one.key == b"b"])

    calls = [Call(write), Call(deliver)]
    try:
        for _ in range(2000):
            before = last[0]
            assert int(found(journal, "a")["a"] or -1) >= before
    finally:
        ends.set()
        for call in calls:
            call.result()


# Space ----------------------------------------------------------------------------------------------------------------


def test_file_shrinks_after_a_large_backlog_was_delivered(open_: Open, path: Path) -> None:
    """Some pages at a time, while the journal is in use."""
    journal = open_(durability="os")
    for start in range(0, 3000, 500):
        receipt = journal.append([entry(str(number), "x" * 8000) for number in range(start, start + 500)])
        assert wait_for(receipt).error is None
    journal.close()
    largest = path.stat().st_size
    assert largest > 24_000_000
    journal = open_(durability="os")
    while taken := journal.take(500):
        journal.settle(taken)
    ends = time.monotonic() + DEADLINE
    while path.stat().st_size > largest // 2:
        assert time.monotonic() < ends, "the file stays large"
        put(journal, ("a", "y" * 200_000))
        journal.settle(journal.take(10))
    journal.close()
    assert open_().status().size_bytes < 1_000_000


def test_log_does_not_grow_for_ever(open_: Open, path: Path) -> None:
    """It is carried over to the file now and then."""
    journal = open_(durability="os")
    for number in range(150):
        put(journal, ("a", f"{number}" * 100_000))
    assert path.with_name("the.journal-wal").stat().st_size < 24_000_000


def test_closed_journal_is_one_file(open_: Open, path: Path) -> None:
    """Beside the lock file, which stays."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.close()
    assert names_in(path.parent) == ["the.journal", "the.journal-lock"]


# Forks ----------------------------------------------------------------------------------------------------------------


def errors_of(calls: list[Callable[[], object]]) -> list[str]:
    """Return what the calls raise."""
    said = []
    for call in calls:
        try:
            said.append(f"returned {call()!r}")
        except JournalError as error:
            said.append(str(error))
    return said


@forking
def test_forked_child_cannot_use_the_parents_journal(open_: Open, path: Path) -> None:
    """Each call says to open it after the fork; closing it is harmless, and the parent goes on."""
    journal = open_()
    put(journal, ("a", "1"))
    (taken,) = journal.take(1)

    def try_all() -> list[str]:
        said = errors_of(
            [
                lambda: journal.append([entry("a", "2")]),
                journal.has_room,
                lambda: journal.owes(b"a"),
                lambda: journal.find([b"a"]),
                lambda: journal.take(1),
                lambda: journal.settle([taken]),
                lambda: journal.postpone(taken, delay_ms=FAR_MS, failures=1, error="refused"),
                lambda: journal.bury(taken, error="refused"),
                lambda: journal.wait(1),
                journal.wake,
                journal.count,
                journal.mark,
                journal.status,
                journal.dead,
                journal.retry,
                journal.discard,
            ]
        )
        journal.close()
        return sorted({text if "after the fork" not in text else "right" for text in said})

    with Busy(lambda: put(journal, ("b", "1"))):
        for _ in range(5):
            assert in_child(try_all) == "['right']"
    put(journal, ("a", "2"))
    assert found(journal, "a") == {"a": "2"}
    with pytest.raises(JournalInUse):
        SqliteJournal(path)


@forking
def test_forked_child_cannot_open_what_its_parent_had_open(open_: Open, path: Path) -> None:
    """SQLite believes to hold the parent's locks there; the message says what to do."""
    journal = open_()
    put(journal, ("a", "1"))
    (said,) = eval(in_child(lambda: errors_of([lambda: SqliteJournal(path)])))
    assert "before the fork" in said
    journal.close()


@forking
def test_child_opens_a_journal_that_was_closed_before_the_fork(open_: Open, path: Path) -> None:
    """As the workers of a server do."""
    journal = open_()
    put(journal, ("a", "1"))
    journal.close()

    def use() -> object:
        child = SqliteJournal(path)
        put(child, ("b", "1"))
        values = found(child, "a", "b")
        child.close()
        return values

    assert eval(in_child(use)) == {"a": "1", "b": "1"}
    assert found(open_(), "a", "b") == {"a": "1", "b": "1"}


LEAVER = """
import os, sys, threading
from credenza.journal.base import Entry
from credenza.journal.sqlite import SqliteJournal
journal = SqliteJournal(sys.argv[1])
def put(value):
    kept = threading.Event()
    receipt = journal.append([Entry(b"a", value)])
    receipt.signal.listen(kept, kept.set)
    kept.wait()
put(b"1")
child = os.fork()
if not child:
    sys.exit(0)  # with all that an interpreter does at its end
os.waitpid(child, 0)
put(b"2")
print("still", flush=True)
sys.stdin.readline()
"""


@forking
def test_child_that_ends_takes_nothing_from_its_parent(open_: Open, path: Path) -> None:
    """Neither the lock nor the log, although its interpreter closes what it can."""
    command = [sys.executable, "-W", "ignore", "-c", LEAVER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "still\n"
            assert path.with_name("the.journal-wal").exists()
            with pytest.raises(JournalInUse):
                SqliteJournal(path)
        finally:
            process.send_signal(signal.SIGKILL)
    assert found(open_(), "a") == {"a": "2"}


@forking
def test_lock_is_free_when_the_parent_is_gone_and_a_child_lives(open_: Open, path: Path) -> None:
    """The child that inherited the open files does not hold the journal."""
    code = OWNER.replace('print("open"', 'import os\nif not os.fork(): sys.stdin.read(); os._exit(0)\nprint("open"')
    reader, writer = os.pipe()
    command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
        finally:
            process.kill()
            process.wait()
        wait_until(lambda: SqliteJournal.attach(path).status().owner is None, "the child has let go of the lock")
        put(open_(), ("a", "1"))
        os.close(writer)
        os.close(reader)
