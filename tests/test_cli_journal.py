"""The commands that look after a journal: what they print, what they leave alone, and how they fail."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any  # Any: records of any type

import click.testing
import pytest
from tests.support.servers import RedisServer, free_port, running_redis
from tests.support.waiting import wait_until
from typer.testing import CliRunner

from credenza import Cache, Codec, Repository, WriteBehind
from credenza.cli import make_app
from credenza.commands import journal as commands
from credenza.commands.show import age_text, key_text, size_text
from credenza.testing import AsyncDictSource, DictSource

SECRET = "a value that nobody may see"


class Refusing(DictSource[Any, Any]):
    """A source that refuses some records, or is away altogether."""

    def __init__(self, *refused: object, is_away: bool = False) -> None:
        super().__init__()
        self.refused = set(refused)
        self.is_away = is_away

    def store_many(self, records: Mapping[Any, Any], /) -> None:
        """Write records, all or none."""
        if self.is_away:
            raise ConnectionError(SECRET)
        if self.refused & records.keys():
            raise ValueError(SECRET)
        super().store_many(records)


@pytest.fixture
def where(tmp_path: Path) -> str:
    """Where the journal of a test is."""
    return str(tmp_path / "orders.journal")


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands add the current directory to where modules are looked for; take that back after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user's program that can be imported as `shop`."""
    module = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", module)
    return module


def credenza(*words: str, answer: str | None = None) -> click.testing.Result:
    """Run `credenza journal` with these words; no end of it may show a traceback or a value."""
    ended = CliRunner().invoke(make_app(), ["journal", *words], input=answer)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    assert "Traceback" not in ended.output
    assert SECRET not in ended.output
    return ended


@contextlib.contextmanager
def service(where: str, source: Any, **options: Any) -> Iterator[Repository[Any, Any]]:
    """Yield a repository with write-behind, as a service has it, and close it with what it owes."""
    cache: Cache[Any, Any] = Cache()
    strategy = WriteBehind(
        journal=where, **{"backoff": 0, "max_delay": 0, "close_timeout": 0, "durability": "os", **options}
    )
    repository = cache.repository(source, strategy=strategy)
    try:
        yield repository
    finally:
        repository.close(timeout=0)
        cache.close()


def owe(where: str, *keys: object) -> None:
    """Leave a journal behind that owes the source these records."""
    with service(where, Refusing(is_away=True)) as repository:
        for key in keys:
            repository.put(key, SECRET)


def bury(where: str, *keys: object) -> None:
    """Leave a journal behind with these records as dead letters."""
    with service(where, Refusing(*keys), max_failures=1) as repository:
        for key in keys:
            repository.put(key, SECRET)
            assert repository.flush(timeout=10)


def in_order(text: str) -> dict[str, str]:
    """Read aligned names and what they stand for."""
    return dict(line.split("  ", 1) for line in text.splitlines())


# Looking --------------------------------------------------------------------------------------------------------------


def test_status_shows_what_the_journal_holds(where: str) -> None:
    """Each fact has a line, aligned."""
    bury(where, "poison")
    owe(where, 1, 2)
    ended = credenza("status", where)
    facts = {name: text.strip() for name, text in in_order(ended.stdout).items()}
    assert ended.exit_code == 0
    assert list(facts) == ["location", "pending", "dead", "oldest pending", "size", "owner", "put aside"]
    assert facts["location"] == where
    assert (facts["pending"], facts["dead"], facts["owner"], facts["put aside"]) == ("2", "1", "none", "none")
    assert facts["oldest pending"].endswith(" ago")
    assert len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in ended.stdout.splitlines()}) == 1


def test_status_as_json_has_the_fields_of_the_status(where: str) -> None:
    """Machines get the numbers as they are, under the names of `JournalStatus`."""
    owe(where, 1, 2, 3)
    found = json.loads(credenza("status", "--json", where).stdout)
    assert found["location"] == where
    assert (found["pending"], found["dead"], found["owner"], found["kept_aside"]) == (3, 0, None, [])
    assert found["oldest_ms"] > 0
    assert found["size_bytes"] > 0


def test_status_of_an_open_journal_names_its_owner(where: str) -> None:
    """A service that has the journal open is named, and goes on."""
    with service(where, source := DictSource[Any, Any]()) as repository:
        assert f"process {os.getpid()}" in credenza("status", where).stdout
        repository.put(1, "one")
        assert repository.flush(timeout=10)
    assert source.records == {1: "one"}


def test_journal_is_named_by_a_url_as_well(where: str) -> None:
    """`sqlite:///path` is the journal at the path."""
    owe(where, 1)
    assert json.loads(credenza("status", "--json", f"sqlite://{where}").stdout)["pending"] == 1


def test_status_shows_files_that_were_put_aside(where: str) -> None:
    """A journal that was found broken lies beside the one that took its place."""
    owe(where, 1)
    with open(where, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)
    owe(where, 2)
    ended = credenza("status", where)
    assert f"{where}.broken-1" in ended.stdout
    assert ended.exit_code == 0


@pytest.mark.parametrize("words", [["status"], ["dead"], ["retry"], ["discard", "1"], ["drain", "--to", "shop:users"]])
def test_command_makes_no_journal_where_there_is_none(tmp_path: Path, shop: ModuleType, words: list[str]) -> None:
    """Exit status 1, one line that names the path, and an empty directory."""
    shop.users = DictSource()
    ended = (
        credenza(*words, str(tmp_path / "none.journal"))
        if words[0] != "discard"
        else credenza("discard", str(tmp_path / "none.journal"), "1", "--yes")
    )
    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    assert "there is no journal" in ended.stderr
    assert "none.journal" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def _foreign(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")


def _text(path: str) -> None:
    Path(path).write_text("no database at all\n" * 100, "utf-8")


def _empty(path: str) -> None:
    Path(path).touch()


def _later(path: str) -> None:
    owe(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")


def _broken(path: str) -> None:
    owe(path, 1)
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 8000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_foreign, "not a journal"),
        (_text, "not a journal"),
        (_empty, "no journal yet"),
        (_later, "later version"),
        (_broken, "malformed"),
    ],
)
def test_file_that_is_no_journal_of_ours_is_left_alone(where: str, make: Callable[[str], None], message: str) -> None:
    """Exit status 1, one line that says what is wrong, and not a byte of the file has changed."""
    make(where)
    before = Path(where).read_bytes()
    for words in (["status"], ["dead"], ["retry", "--yes"]):
        ended = credenza(*words, where)
        assert ended.exit_code == 1
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert Path(where).read_bytes() == before


def test_url_of_an_unknown_kind_is_refused() -> None:
    """The message says what there is, and shows nothing of what may be a password."""
    ended = credenza("status", "mysql://root:hunter2@host/db")
    assert ended.exit_code == 1
    assert "redis://" in ended.stderr
    assert "hunter2" not in ended.stderr


# Dead letters ---------------------------------------------------------------------------------------------------------


def test_dead_lists_letters_without_their_values(where: str) -> None:
    """Number, key, failures, error, time, and whether a later write has overtaken it."""
    bury(where, "ann", 42)
    owe(where, 42)
    header, *rows = [line.split() for line in credenza("dead", where).stdout.splitlines()]
    assert header == ["number", "key", "failures", "error", "when", "superseded"]
    assert [row[:4] + row[-1:] for row in rows] == [
        ["1", "ann", "1", "ValueError", "no"],
        ["2", "42", "1", "ValueError", "yes"],
    ]


def test_dead_as_json_leaves_values_out(where: str) -> None:
    """The fields of `DeadLetter`, but for the value."""
    bury(where, "ann")
    (letter,) = json.loads(credenza("dead", "--json", where).stdout)
    assert letter.pop("died_ms") > 0
    assert letter == {
        "number": 1,
        "key": "ann",
        "failures": 1,
        "error": "ValueError",
        "is_superseded": False,
        "is_deletion": False,
    }


def test_dead_without_letters_says_so(where: str) -> None:
    """No table without rows; machines get an empty list."""
    owe(where, 1)
    assert credenza("dead", where).stdout == "There are no dead letters.\n"
    assert json.loads(credenza("dead", "--json", where).stdout) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"k:ann", "ann"),
        (b"k:order:7", "order:7"),
        (b"k:~i42", "42"),
        (b"k:42", "'42'"),
        (b"k:None", "'None'"),
        (b"k:~N", "None"),
        (b"k:(1, 2)", "'(1, 2)'"),
        (b"k:~(i1,i2)", "(1, 2)"),
        (b"k:b'x'", "\"b'x'\""),
        (b"k:~b1:x", "b'x'"),
        (b"k:", "''"),
        (b"k:a\x1b[2Jb\n", r"'a\x1b[2Jb\n'"),
        ("k:a\u202eb".encode(), r"'a\u202eb'"),
        (b"k:~i042", "b'k:~i042' (no key)"),
        (b"\xff\x00", r"b'\xff\x00' (no key)"),
    ],
)
def test_key_is_shown_as_it_was_given(name: bytes, text: str) -> None:
    """Two keys never look the same, and none moves the cursor."""
    assert key_text(name) == text


# Trying again ---------------------------------------------------------------------------------------------------------


def test_retry_makes_all_letters_pending_again(where: str, shop: ModuleType) -> None:
    """Without numbers all are meant; those that a later write has overtaken are counted, and stay."""
    bury(where, "a", "b", "c")
    owe(where, "b")
    ended = credenza("retry", where)
    assert ended.exit_code == 0
    assert "2 dead letters made pending again, 1 superseded." in ended.stdout
    shop.users = DictSource()
    assert credenza("drain", where, "--to", "shop:users").exit_code == 0
    assert shop.users.records == dict.fromkeys("abc", SECRET)


def test_retry_of_a_number_leaves_the_others(where: str) -> None:
    """Only what is named is pending again."""
    bury(where, "a", "b")
    assert "1 dead letter made pending again, 0 superseded." in credenza("retry", where, "2").stdout
    assert [letter["key"] for letter in json.loads(credenza("dead", "--json", where).stdout)] == ["a"]


def test_retry_reaches_a_service_that_has_the_journal_open(where: str) -> None:
    """The service delivers what was retried, without being started again."""
    source = Refusing("a")
    with service(where, source, max_failures=1) as repository:
        repository.put("a", SECRET)
        assert repository.flush(timeout=10).dead == 1
        source.refused.clear()
        ended = credenza("retry", where)
        assert f"process {os.getpid()}" in ended.stdout
        wait_until(lambda: "a" in source.records, "the retried letter to be delivered")


def test_unknown_number_changes_nothing(where: str) -> None:
    """One wrong number, and none of the others is retried or discarded."""
    bury(where, "a")
    for words in (["retry", where, "1", "7"], ["discard", where, "1", "7", "--yes"]):
        ended = credenza(*words)
        assert ended.exit_code == 1
        assert "no dead letter 7" in ended.stderr
    assert json.loads(credenza("status", "--json", where).stdout)["dead"] == 1


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2)])
def test_retry_of_all_asks_on_a_terminal(where: str, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    """People confirm how many; a no leaves the letters where they are."""
    bury(where, "a", "b")
    monkeypatch.setattr(commands, "is_on_terminal", lambda: True)
    ended = credenza("retry", where, answer=answer)
    assert "Retry 2 dead letters?" in ended.output
    assert ended.exit_code == (1 if left else 0)
    assert json.loads(credenza("status", "--json", where).stdout)["dead"] == left


def test_discard_forgets_letters_for_good(where: str) -> None:
    """Only those that are named, and only with a yes."""
    bury(where, "a", "b")
    ended = credenza("discard", where, "1")
    assert ended.exit_code == 1
    assert "--yes" in ended.stderr
    assert credenza("discard", where, "1", "--yes").stdout == "1 dead letter discarded.\n"
    assert [letter["key"] for letter in json.loads(credenza("dead", "--json", where).stdout)] == ["b"]


def test_discard_asks_on_a_terminal(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A no leaves the letter where it is."""
    bury(where, "a")
    monkeypatch.setattr(commands, "is_on_terminal", lambda: True)
    assert credenza("discard", where, "1", answer="n\n").exit_code == 1
    assert credenza("discard", where, "1", answer="y\n").exit_code == 0
    assert json.loads(credenza("dead", "--json", where).stdout) == []


# Delivering -----------------------------------------------------------------------------------------------------------


def test_drain_delivers_what_is_pending(where: str, shop: ModuleType) -> None:
    """The source has it all, the journal nothing any more, and the report says so."""
    owe(where, *range(1_200))
    shop.users = DictSource()
    ended = credenza("drain", where, "--to", "shop:users")
    assert ended.exit_code == 0
    assert ended.stdout.split() == ["delivered", "1,200", "left", "0", "dead", "0"]
    assert shop.users.records == dict.fromkeys(range(1_200), SECRET)
    assert json.loads(credenza("status", "--json", where).stdout)["pending"] == 0


@pytest.mark.parametrize("name", ["make", "Kind", "inner.users"])
def test_drain_takes_what_returns_a_source(where: str, shop: ModuleType, name: str) -> None:
    """A function, a class, or something within something."""
    owe(where, 1)
    source = DictSource[Any, Any]()
    shop.make, shop.Kind = lambda: source, lambda: source
    shop.Kind = type("Kind", (Refusing,), {"store_many": lambda self, records: source.store_many(records)})
    shop.inner = ModuleType("inner")
    shop.inner.users = source
    assert credenza("drain", where, "--to", f"shop:{name}").exit_code == 0
    assert source.records == {1: SECRET}


def test_drain_delivers_to_an_async_source(where: str, shop: ModuleType) -> None:
    """Its coroutines run in an event loop of the command."""
    owe(where, 1, 2)
    shop.users = AsyncDictSource()
    ended = credenza("drain", where, "--to", "shop:users", "--timeout", "10s")
    assert ended.exit_code == 0, ended.output
    assert shop.users.inner.records == {1: SECRET, 2: SECRET}


def test_drain_decodes_with_the_codec_that_is_named(where: str, shop: ModuleType) -> None:
    """What was written as JSON is a dead letter to the usual codec; retried, it is delivered with the right one."""
    with service(where, Refusing(is_away=True), codec=Codec("json")) as repository:
        repository.put(1, SECRET)
    shop.users, shop.codec = DictSource(), Codec("json")
    assert json.loads(credenza("drain", where, "--to", "shop:users", "--json").stdout)["dead"] == 1
    assert "unreadable" in credenza("dead", where).stdout
    credenza("retry", where)
    assert credenza("drain", where, "--to", "shop:users", "--codec", "shop:codec").exit_code == 0
    assert shop.users.records == {1: SECRET}


def test_drain_counts_what_the_source_refuses(where: str, shop: ModuleType) -> None:
    """One poisonous row does not stop the others; it is a dead letter in the end, which is said."""
    owe(where, "good", "bad")
    shop.users = Refusing("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credenza.commands.drain.WriteBehind", _impatient)
        ended = credenza("drain", where, "--to", "shop:users", "--json")
    assert json.loads(ended.stdout) == {"delivered": 1, "left": 0, "dead": 1}
    assert ended.exit_code == 0
    assert "1 dead letter" in ended.stderr
    assert shop.users.records == {"good": SECRET}


def _impatient(**options: Any) -> WriteBehind:
    return WriteBehind(max_failures=2, backoff=0, **options)


def test_drain_stops_when_its_time_is_over(where: str, shop: ModuleType) -> None:
    """The source is away: exit status 1, what is left is counted, and it stays in the journal."""
    owe(where, 1, 2)
    shop.users = Refusing(is_away=True)
    ended = credenza("drain", where, "--to", "shop:users", "--timeout", "0.3", "--json")
    assert ended.exit_code == 1
    assert json.loads(ended.stdout) == {"delivered": 0, "left": 2, "dead": 0}
    assert json.loads(credenza("status", "--json", where).stdout)["pending"] == 2


def test_drain_of_an_open_journal_is_refused(where: str, shop: ModuleType) -> None:
    """The message names the owner, and says what to do; the owner goes on."""
    shop.users = DictSource()
    with service(where, source := DictSource[Any, Any]()) as repository:
        ended = credenza("drain", where, "--to", "shop:users")
        assert ended.exit_code == 1
        assert "in use by this process" in ended.stderr
        assert "flush()" in ended.stderr
        repository.put(1, "one")
        assert repository.flush(timeout=10)
    assert source.records == {1: "one"}


def test_drain_invalidates_what_processes_share(where: str, shop: ModuleType, tmp_path: Path) -> None:
    """An older value that a process has loaded into the shared cache meanwhile is not served after the drain."""
    url = f"sqlite://{tmp_path / 'shared.db'}"
    owe(where, 1)
    shop.users = DictSource({1: "old"})
    with Cache[Any, Any].from_url(url) as other:
        reader = other.repository(shop.users, key="user:{}", ttl=None)
        assert reader.get(1) == "old"
        ended = credenza("drain", where, "--to", "shop:users", "--cache", url, "--key", "user:{}")
        assert ended.exit_code == 0, ended.output
        wait_until(lambda: reader.get(1) == SECRET, "the new value")


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("shop", "package.module:attribute"),
        ("shop:", "package.module:attribute"),
        (":users", "package.module:attribute"),
        ("nowhere.to_be_found:users", "No module named 'nowhere'"),
        ("shop:nobody", "no 'nobody' in 'shop'"),
        ("shop:number", "'int', no source"),
        ("shop:nothing", "returned 'NoneType', no source"),
        ("shop:failing", "raised ValueError at test_cli_journal.py:"),
        ("shop:coroutine", "coroutine function"),
        ("shop:half", "has no load"),
    ],
)
def test_drain_without_a_source_says_what_is_wrong(where: str, shop: ModuleType, to: str, message: str) -> None:
    """Exit status 1 and one line; the journal is as it was."""

    def failing() -> None:
        raise ValueError(SECRET)

    async def coroutine() -> None: ...

    owe(where, 1)
    shop.number, shop.nothing, shop.failing, shop.coroutine = 1, lambda: None, failing, coroutine
    shop.half = type("Half", (), {"store_many": lambda self, records: None})()
    ended = credenza("drain", where, "--to", to)
    assert ended.exit_code == 1
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert json.loads(credenza("status", "--json", where).stdout)["pending"] == 1


def test_drain_takes_no_codec_that_is_none(where: str, shop: ModuleType) -> None:
    """The message names what is needed."""
    owe(where, 1)
    shop.users, shop.codec = DictSource(), "json"
    ended = credenza("drain", where, "--to", "shop:users", "--codec", "shop:codec")
    assert ended.exit_code == 1
    assert "no credenza.Codec" in ended.stderr


# Beside the test ------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio
import threading
from credenza.testing import AsyncDictSource, DictSource

class Stuck(DictSource):
    def store_many(self, records):
        print("delivering", flush=True)
        threading.Event().wait()

class AsyncStuck(AsyncDictSource):
    async def store_many(self, records):
        print("delivering", flush=True)
        await asyncio.Event().wait()

class Away(DictSource):
    def store_many(self, records):
        raise ConnectionError("a value that nobody may see")

stuck, async_stuck, away, users = Stuck(), AsyncStuck(), Away(), DictSource()
"""


@contextlib.contextmanager
def beside(folder: Path, *words: str, **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `credenza journal` in a folder with a program; Python itself does not look for modules there."""
    (folder / "program.py").write_text(PROGRAM, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "credenza", "journal", *words],
        cwd=folder,
        text=True,
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("source", ["stuck", "async_stuck"])
def test_interrupted_drain_keeps_what_was_not_delivered(where: str, tmp_path: Path, source: str) -> None:
    """Ctrl+C while the source hangs: exit status 130, no traceback, and the journal can be opened again with all it owes."""
    owe(where, 1, 2)
    with beside(tmp_path, "drain", where, "--to", f"program:{source}") as process:
        assert process.stdout is not None
        assert "delivering" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=15)
    assert process.returncode == 130, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    found = json.loads(credenza("status", "--json", where).stdout)
    assert (found["pending"], found["owner"]) == (2, None)


def test_drain_says_in_a_line_why_nothing_moves(where: str, tmp_path: Path) -> None:
    """What the library logs is shown without a traceback, and without what the source said."""
    owe(where, 1)
    with beside(tmp_path, "drain", where, "--to", "program:away", "--timeout", "0.3") as process:
        shown, _ = process.communicate(timeout=15)
    assert process.returncode == 1, shown
    assert "WARNING: " in shown
    assert "the source takes no writes (ConnectionError)" in shown
    assert "Traceback" not in shown
    assert SECRET not in shown


def on_terminal(folder: Path, *words: str) -> str:
    """Run `credenza journal` on a terminal of its own, and return what that shows."""

    control, terminal = pty.openpty()
    shown = b""
    with beside(folder, *words, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # that is how a terminal ends
            while more := os.read(control, 10_000):
                shown += more
        os.close(control)
        assert process.wait(timeout=15) == 0, shown
    assert b"Traceback" not in shown
    return shown.decode()


def test_drain_shows_on_a_terminal_how_far_it_is(where: str, tmp_path: Path) -> None:
    """A bar with the rows a second and those that are left; the report below it."""
    owe(where, *range(50))
    shown = on_terminal(tmp_path, "drain", where, "--to", "program:users")
    assert "rows/s" in shown
    assert "left" in shown
    assert "delivered" in shown


def test_tables_have_lines_on_a_terminal(where: str, tmp_path: Path) -> None:
    """What looks like markup is shown as it is."""
    bury(where, "[red]ann[/red]")
    shown = on_terminal(tmp_path, "dead", where)
    assert "│" in shown
    assert "[red]ann[/red]" in shown
    assert SECRET not in shown


def test_locked_journal_is_reported(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that holds the file for itself alone is waited for, and then complained about in one line."""
    owe(where, 1)
    monkeypatch.setattr("credenza.journal.sqlite.files.BUSY_SECONDS", 0.01)
    with contextlib.closing(sqlite3.connect(where)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        ended = credenza("status", where)
    assert ended.exit_code == 1
    assert "locked" in ended.stderr
    assert ended.stderr.count("\n") == 1


# On a server ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis that keeps what it is given."""
    with running_redis(appendonly="yes") as running:
        yield running


@pytest.fixture
def url(server: RedisServer) -> str:
    """A journal on the server, which is empty."""
    with server.client() as client:
        client.flushall()
    return f"{server.url}?namespace=orders"


def test_command_makes_no_journal_on_a_server(url: str, server: RedisServer) -> None:
    """Exit status 1, one line, and not a key on the server."""
    for words in (["status"], ["dead"], ["retry", "--yes"]):
        ended = credenza(*words, url)
        assert ended.exit_code == 1
        assert "there is no journal" in ended.stderr
        assert ended.stderr.count("\n") == 1
    with server.client() as client:
        assert client.keys("*") == []


def test_server_that_is_away_is_reported_without_its_password() -> None:
    """Exit status 1 and one line that names the server."""
    ended = credenza("status", f"redis://ann:hunter2@127.0.0.1:{free_port()}/0?namespace=orders")
    assert ended.exit_code == 1
    assert "127.0.0.1" in ended.stderr
    assert "hunter2" not in ended.output
    assert ended.stderr.count("\n") == 1


def test_journal_on_a_server_is_looked_after_as_a_file_is(url: str, shop: ModuleType) -> None:
    """Status, dead letters and another try while a service has it open; a drain when none does."""
    with service(url, Refusing("bad"), max_failures=1, max_delay="1h") as repository:
        repository.put("bad", SECRET)
        assert repository.flush(timeout=10).dead == 1
        repository.put("good", SECRET)
        found = json.loads(credenza("status", url, "--json").stdout)
        assert (found["pending"], found["dead"]) == (1, 1)
        assert f"process {os.getpid()}" in found["owner"]
        (letter,) = json.loads(credenza("dead", url, "--json").stdout)
        assert (letter["key"], letter["error"]) == ("bad", "ValueError")
        assert "1 dead letter made pending again" in credenza("retry", url, str(letter["number"])).stdout
    shop.users = DictSource()
    ended = credenza("drain", url, "--to", "shop:users", "--timeout", "15s", "--json")
    assert json.loads(ended.stdout) == {"delivered": 2, "left": 0, "dead": 0}
    assert shop.users.records == {"good": SECRET, "bad": SECRET}


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (192, "3 min 12 s"),
        (3_600, "1 h 0 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_age_is_shown_in_two_units(seconds: float, text: str) -> None:
    """The largest two say enough; clocks that differ give no negative age."""
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (41_064, "41.1 kB"), (2_500_000_000_000, "2.5 TB")]
)
def test_size_has_a_unit(size: int, text: str) -> None:
    """Thousands, as disks are sold."""
    assert size_text(size) == text
