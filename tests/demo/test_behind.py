"""Write-behind in the service: an edit is acknowledged by the journal, seen at once, and reaches the database later."""

import asyncio
import contextlib
import functools
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url
from tests.support.servers import running_redis

from credenza import WriteBehind
from credenza.demo import behind
from credenza.demo.behind import Edits
from credenza.demo.crash import crash
from credenza.demo.errors import DemoError
from credenza.demo.journals import is_shared, journal_of, journals_left, owed_in
from credenza.demo.people import Person
from credenza.demo.population import Scale
from credenza.demo.profile import Profile
from credenza.demo.recovery import recover
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings
from credenza.demo.source import BehindSource, UserSource

from .conftest import Browser, wait_until
from .crews import crew, settings_for
from .forgetting import forget_then_tell

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]

pytestmark = pytest.mark.timeout(60)  # ten thousand edits, and processes that are started and ended
SMALL = Scale(users=50)


@pytest.fixture
def make_behind(make_service: MakeService, own_database: URL) -> MakeService:
    """Make services with write-behind over a database of the test's own."""
    return functools.partial(make_service, database=own_database, scale=SMALL, strategy="write-behind")


def _path(url: URL) -> str:
    assert url.database is not None
    return url.database


def _name(url: URL, user_id: int) -> str:
    with contextlib.closing(sqlite3.connect(_path(url), timeout=30)) as connection:
        return str(connection.execute("SELECT name FROM users WHERE id = ?", (user_id,)).fetchone()[0])


@contextlib.contextmanager
def unwritable(url: URL) -> Iterator[None]:
    """Let nobody write to the database inside the block; reading goes on."""
    with contextlib.closing(sqlite3.connect(_path(url), timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_edit_is_seen_at_once_and_written_later(make_behind: MakeService, serve: Serve, own_database: URL) -> None:
    """While the database takes no writes an edit is answered, and every read shows it, also one that loads anew."""
    with serve(make_behind()) as browser:
        old = browser.get("/user?id=7").body["name"]
        with unwritable(own_database):
            assert browser.send("PUT", "/user?id=7", {"name": "Ida Novak"}).status == 200
            hit = browser.get("/user?id=7")
            browser.send("POST", "/expire?id=7")
            miss = browser.get("/user?id=7")
            assert [(answer.cache, answer.body["name"]) for answer in (hit, miss)] == [
                ("hit", "Ida Novak"),
                ("miss", "Ida Novak"),
            ]
            assert browser.get("/unprotected/user?id=7").body["name"] == "Ida Novak"
            assert browser.get("/stats").body["pending"] == 1
            assert _name(own_database, 7) == old
        assert browser.send("POST", "/settle").status == 204
        assert _name(own_database, 7) == "Ida Novak"
        assert browser.get("/stats").body["pending"] == 0


def test_edits_of_different_fields_do_not_undo_each_other(
    make_behind: MakeService, serve: Serve, own_database: URL
) -> None:
    """The second one starts from the first, though the database has neither; both reach it by one statement."""
    with serve(make_behind()) as browser:
        with unwritable(own_database):
            browser.send("PUT", "/user?id=7", {"name": "Ida Novak"})
            both = browser.send("PUT", "/user?id=7", {"email": "ida@example.org"}).body
            assert (both["name"], both["email"]) == ("Ida Novak", "ida@example.org")
        browser.send("POST", "/settle")
        shown = browser.get("/stats").body
        assert (shown["edits"], shown["rows"]) == (2, 1)
        browser.send("POST", "/expire?id=7")
        assert browser.get("/user?id=7").body == both


def test_burst_takes_few_statements_and_leaves_the_names(
    make_behind: MakeService, serve: Serve, own_database: URL
) -> None:
    """10,000 edits, at most 500 statements, nothing pending; every user has the name from before."""
    with contextlib.closing(sqlite3.connect(_path(own_database))) as connection:
        before = connection.execute("SELECT * FROM users ORDER BY id").fetchall()
        with serve(make_behind()) as browser:
            browser.get("/user?id=7")
            done = browser.send("POST", "/burst")
            assert done.status == 200
            assert (done.body["edits"], done.body["users"], done.body["pending"]) == (10_000, 50, 0)
            assert done.body["statements"] <= 500
            assert done.body["rows"] <= done.body["statements"] * 50
        assert connection.execute("SELECT * FROM users ORDER BY id").fetchall() == before


def test_profile_read_in_a_burst_is_not_kept(make_behind: MakeService, serve: Serve, own_database: URL) -> None:
    """Who asks meanwhile sees a late name, and in the end the page has the user's own."""
    with serve(make_behind()) as browser:
        own = browser.get("/user?id=1").body["name"]
        seen: list[tuple[str | None, str]] = []
        running = threading.Thread(target=lambda: browser.send("POST", "/burst"))
        running.start()
        wait_until(lambda: browser.get("/stats").body["edits"] > 0, "the burst begins")
        while running.is_alive():
            answer = browser.get("/user?id=1")
            seen.append((answer.cache, answer.body["name"]))
        running.join()
        assert any(re.fullmatch(rf"{re.escape(own)} \d+", name) for _, name in seen), seen
        assert browser.get("/user?id=1").body["name"] == own


def test_second_burst_and_burst_without_a_journal_are_refused(
    make_behind: MakeService, serve: Serve, browser: Browser
) -> None:
    """Both are answered with 409 and words."""
    refused = browser.send("POST", "/burst")
    assert (refused.status, "--strategy write-behind" in refused.body["error"]) == (409, True)
    service = make_behind()
    with serve(service) as other:
        service.seat.put("bursts", 1)
        assert other.send("POST", "/burst").body == {"error": "a burst is running already"}


def test_batch_is_one_statement(own_database: URL) -> None:
    """However many users wait, one upsert writes them."""
    noted: dict[str, float] = {}
    settings = Settings(database=own_database, scale=SMALL, strategy="write-behind")
    edits = Edits(settings, journal_of(settings, 0), note=noted.__setitem__)
    with unwritable(own_database):
        for person in _people(own_database):
            edits.write_now(replace(person, name="Same"))
    edits.close()
    assert noted == {"edits": 50, "statements": 1, "rows": 50}
    assert {person.name for person in _people(own_database)} == {"Same"}


def test_edit_that_is_given_up_is_shown_no_more(
    make_behind: MakeService, serve: Serve, own_database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses a name for good: then the page shows what the database has, from the cache, too."""
    monkeypatch.setattr(behind, "WriteBehind", functools.partial(WriteBehind, max_failures=1))
    with contextlib.closing(sqlite3.connect(_path(own_database))) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON users WHEN NEW.name = 'Poison' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        connection.commit()
    with serve(make_behind()) as browser:
        old = browser.get("/user?id=7").body["name"]
        browser.send("PUT", "/user?id=7", {"name": "Poison"})
        wait_until(lambda: browser.get("/user?id=7").body["name"] == old, "the edit is given up")
        assert browser.get("/stats").body["pending"] == 0


def test_edit_that_is_delivered_during_a_load_is_in_it(make_behind: MakeService, own_database: URL) -> None:
    """The database answers with the old row, then takes the edit, then the load ends: it shows the new name."""
    service = make_behind()
    edits = service.edits
    assert edits is not None

    class Slow(UserSource):
        async def load(self, key: int, /) -> Profile | None:
            profile = await super().load(key)
            blocked.close()  # only now may the database be written
            assert await asyncio.to_thread(edits.flush, 30)
            return profile

    async def scenario() -> Profile | None:
        with blocked:
            blocked.enter_context(unwritable(own_database))
            edits.write_now(replace(_people(own_database)[6], name="Ida Novak"))
            return await BehindSource(Slow(service.database), edits).load(7)

    blocked = contextlib.ExitStack()
    shown = asyncio.run(scenario())
    assert shown is not None
    assert shown.name == _name(own_database, 7) == "Ida Novak"


# Journals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "journal"),
    [
        (None, "{database}.edits-2.journal"),
        ("sqlite:////tmp/cache.db", "{database}.edits-2.journal"),
        ("redis://:secret@host/0", r"redis://:secret@host/0\?namespace=credenza-demo-[0-9a-f]{8}"),
        ("valkey://host/0?namespace=mine", r"valkey://host/0\?namespace=mine"),
    ],
)
def test_journal_is_a_file_for_each_worker_or_on_the_server(cache: str | None, journal: str) -> None:
    """Workers that share a server share the journal there; others have one each, beside the database."""
    settings = Settings(database=make_url("sqlite:////data/people.db"), strategy="write-behind", cache=cache)
    assert re.fullmatch(journal.replace("{database}", "/data/people.db"), journal_of(settings, 1))
    assert is_shared(settings) == (journal_of(settings, 0) == journal_of(settings, 1))
    assert "secret" not in str(settings.facts())


def test_what_more_workers_have_left_is_delivered(own_database: URL) -> None:
    """A run with one worker delivers what the third of an earlier run has acknowledged, and counts it."""
    settings = Settings(database=own_database, scale=SMALL, strategy="write-behind", workers=3)
    with unwritable(own_database):
        _write_and_die(settings, worker=2)
    alone = replace(settings, workers=1)
    assert [owed_in(journal) for journal in journals_left(alone)] == [1]
    assert recover(alone) == 1
    assert recover(alone) == 0
    assert _name(own_database, 7) == "Left"


def test_journal_in_use_is_refused_with_a_way_out(make_behind: MakeService, own_database: URL) -> None:
    """A second demo over one database would write it from two journals."""
    service = make_behind()
    with pytest.raises(
        DemoError, match=r"is in use by .*; stop the demo that runs over this database, or name another"
    ):
        recover(replace(service.settings))


def test_journal_that_cannot_be_made_is_said(own_database: URL) -> None:
    """The command ends with a message that names the place, and without a traceback."""
    Path(f"{_path(own_database)}.edits-1.journal").mkdir()
    options = ["--users", "50", "--port", "0", "--no-tour", "--database", own_database.render_as_string()]
    ended = subprocess.run(
        [sys.executable, "-m", "credenza", "demo", "--strategy", "write-behind", *options],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 2
    assert "edits-1.journal" in ended.stderr
    assert "Traceback" not in ended.stderr


# Kill -9 --------------------------------------------------------------------------------------------------------------


def test_killed_process_has_lost_no_acknowledged_edit() -> None:
    """What was acknowledged before SIGKILL is in the database after the next start."""
    found = crash()
    assert found.missing == 0
    assert found.acknowledged >= 1_000


def test_acknowledgement_before_the_journal_is_found_out() -> None:
    """Control: a process that answers first and keeps the edit later does lose some, and they are counted."""
    assert crash(forget_then_tell).missing > 0


def test_demo_killed_in_a_burst_says_what_it_recovered(own_database: URL) -> None:
    """The command and its page tell of the edits in the journal, and the database gets them."""
    options = ("--users", "50", "--port", "0", "--no-tour", "--database", own_database.render_as_string())
    with _demo(*options) as (process, browser, _):
        bursting = browser.begin("POST", "/burst")
        wait_until(lambda: browser.get("/stats").body["edits"] > 200, "the burst is under way")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        bursting.close()
    owed = owed_in(f"{_path(own_database)}.edits-1.journal")
    assert owed > 0
    with _demo(*options) as (_, browser, said):
        assert f"the last edits of {owed} users, acknowledged before the demo was killed" in said
        assert browser.get("/stats").body["recovered"] == owed
        browser.send("POST", "/settle")
        assert browser.get("/stats").body["pending"] == 0


def test_demo_interrupted_in_a_burst_ends_in_peace(own_database: URL) -> None:
    """Ctrl+C in the middle ends the command without a traceback, and what was acknowledged is delivered or kept."""
    options = ("--users", "50", "--port", "0", "--no-tour", "--database", own_database.render_as_string())
    with _demo(*options) as (process, browser, _):
        bursting = browser.begin("POST", "/burst")
        wait_until(lambda: browser.get("/stats").body["edits"] > 200, "the burst is under way")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=50)
        bursting.close()
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_worker_that_is_killed_leaves_its_edits_to_the_next(own_database: URL, tmp_path: Path) -> None:
    """Another worker shows the edit at once, and the worker in the dead one's place delivers it."""
    settings = settings_for(own_database, tmp_path / "cache.db", scale=SMALL, strategy="write-behind")
    with crew(settings) as running:
        with unwritable(own_database):
            assert running.send("1", "PUT", "/user?id=7", {"name": "Ida Novak"}).status == 200
            assert running.ask("2", "/user?id=7").body["name"] == "Ida Novak"
            running.workers.kill("1")
            wait_until(running.workers.are_ready, "another worker takes its place")
        wait_until(lambda: _name(own_database, 7) == "Ida Novak", "the edit is delivered")
        assert running.browser.get("/stats").body["recovered"] == 1


def test_worker_that_has_loaded_the_old_row_hears_of_its_delivery(own_database: URL, tmp_path: Path) -> None:
    """Workers see no journal but their own: one that loads anew keeps the old name, until the database has the edit."""
    settings = settings_for(own_database, tmp_path / "cache.db", scale=SMALL, strategy="write-behind")
    with crew(settings) as running:
        with unwritable(own_database):
            running.send("1", "PUT", "/user?id=7", {"name": "Ida Novak"})
            running.send("2", "POST", "/expire?id=7")
            assert running.ask("2", "/user?id=7").body["name"] != "Ida Novak"
        running.send("1", "POST", "/settle")
        assert [running.ask(worker, "/user?id=7").body["name"] for worker in ("2", "1")] == ["Ida Novak"] * 2


def test_journal_on_a_server_is_read_by_all_workers(own_database: URL) -> None:
    """A worker that loads the profile anew shows the edit that another one has acknowledged, and nobody has written."""
    stack = contextlib.ExitStack()
    cache_server = stack.enter_context(running_redis())
    settings = settings_for(own_database, cache_server.url, scale=SMALL, strategy="write-behind")
    with stack, crew(settings) as running:
        with unwritable(own_database):
            assert running.send("1", "PUT", "/user?id=7", {"name": "Ida Novak"}).status == 200
            assert running.send("2", "POST", "/expire?id=7").status == 204
            loaded = running.ask("2", "/user?id=7")
            assert (loaded.cache, loaded.body["name"]) == ("miss", "Ida Novak")
        wait_until(lambda: _name(own_database, 7) == "Ida Novak", "the edit is delivered")


def _people(url: URL) -> list[Person]:
    from credenza.demo.people import read_people
    from credenza.demo.seeding import open_engine

    engine = open_engine(url, connections=1)
    with engine.connect() as connection:
        people = read_people(connection, range(1, 51))
    engine.dispose()
    return people


def _write_and_die(settings: Settings, *, worker: int) -> None:
    """Have a process acknowledge an edit of user 7, and end it without a word."""
    program = f"""
import os, sys
from dataclasses import replace
from credenza.demo.behind import Edits
from credenza.demo.people import read_people
from credenza.demo.seeding import open_engine
from credenza.demo.settings import Settings
from credenza.demo.source import BehindSource, UserSource
from sqlalchemy import make_url
url = make_url(sys.argv[1])
with open_engine(url, connections=1).connect() as connection:
    person = read_people(connection, [7])[0]
Edits(Settings(database=url), {journal_of(settings, worker)!r}).write_now(replace(person, name="Left"))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program, settings.database.render_as_string()], check=True, timeout=50)


@contextlib.contextmanager
def _demo(*options: str) -> Iterator[tuple["subprocess.Popen[str]", Browser, str]]:
    """Run the command with write-behind; yield it, its page, and what it has said until that was there."""
    command = [sys.executable, "-u", "-m", "credenza", "demo", "--strategy", "write-behind", *options]
    environment: dict[str, Any] = {**os.environ}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(r"page is at (http://127\.0\.0\.1:\d+)", said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield process, Browser(found[1]), said
        finally:
            process.kill()


def test_service_over_both_databases_writes_behind(
    make_service: MakeService, postgres_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL, too, an edit is shown at once and reaches the database; its journal is in the cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    service = make_service(database=postgres_url, strategy="write-behind")

    async def scenario() -> list[str]:
        old = (await service.find(7)).profile
        assert old is not None
        await service.change(7, {"name": "Ida Novak"})
        names = [(await service.find(7)).profile]
        await service.settle()
        names.append(await UserSource(service.database).load(7))
        await service.change(7, {"name": old.name})
        await service.settle()
        return [profile.name for profile in names if profile is not None]

    assert asyncio.run(scenario()) == ["Ida Novak", "Ida Novak"]
    assert [path.name for path in (tmp_path / "credenza").glob("*.journal")] != []
