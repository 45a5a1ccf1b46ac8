"""What other programs change in the database is shown, with `--follow`."""

import contextlib
import json
import os
import re
import shlex
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, make_url

from credenza.demo import seeding
from credenza.demo.errors import DemoError
from credenza.demo.following import command_to_try, install_feed
from credenza.demo.population import Scale
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings

from .conftest import SCALE, Browser, wait_until
from .crews import crew, settings_for

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]

pytestmark = pytest.mark.timeout(60)  # servers are started and ended


def execute(url: URL, statement: str, *values: object) -> None:
    """Run a statement as another program would, with a connection of its own."""
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(url.database), timeout=30)) as connection:
            connection.execute(statement, values)
            connection.commit()
        return
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as server:
        server.execute(f"SET search_path TO {seeding.SCHEMA}")
        server.execute(statement.replace("?", "%s"), values)


@pytest.fixture
def following(make_service: MakeService, serve: Serve, database_url: URL) -> Iterator[Browser]:
    """A service that follows, over each database in turn."""
    install_feed(Settings(database=database_url, scale=SCALE, follow=True))
    with serve(make_service(database=database_url, follow=True)) as browser:
        yield browser


def test_update_by_another_program_is_shown(following: Browser, database_url: URL) -> None:
    """The name in the cache is forgotten, and the next read loads the new one; other profiles stay."""
    old = following.get("/user?id=7").body["name"]
    following.get("/user?id=8")
    try:
        execute(database_url, "UPDATE users SET name = ? WHERE id = 7", "Grace Hopper")
        wait_until(lambda: following.get("/user?id=7").body["name"] == "Grace Hopper", "the new name is shown")
    finally:
        execute(database_url, "UPDATE users SET name = ? WHERE id = 7", old)
    following.send("POST", "/settle")
    assert following.get("/user?id=7").body["name"] == old
    assert following.get("/user?id=8").cache == "hit"
    assert following.get("/stats").body["changes"] >= 2


def test_new_post_and_new_follower_are_shown(following: Browser, database_url: URL) -> None:
    """The profile is made of more tables than the one of users, and those are followed, too."""
    before = following.get("/user?id=7").body
    execute(database_url, "DELETE FROM follows WHERE follower_id = 9 AND followee_id = 7")
    try:
        execute(database_url, "INSERT INTO posts VALUES (999999, 7, 'Hello', '2030-01-01')")
        execute(database_url, "INSERT INTO follows VALUES (9, 7)")
        following.send("POST", "/settle")
        after = following.get("/user?id=7").body
        assert after["posts"] == before["posts"] + 1
        assert after["recent_posts"][0]["body"] == "Hello"
        assert following.get("/user?id=9").body["following"] >= 1
    finally:
        execute(database_url, "DELETE FROM posts WHERE id = 999999")


def test_own_edits_are_still_seen_at_once(following: Browser) -> None:
    """What comes back over the feed costs a load at most, and never an old name."""
    old = following.get("/user?id=7").body["name"]
    for name in ("Ida", "Ida Novak", old):
        following.send("PUT", "/user?id=7", {"name": name})
        assert [following.get("/user?id=7").body["name"] for _ in range(3)] == [name] * 3
        following.send("POST", "/settle")


def test_workers_hear_of_it_through_one_of_them(own_database: URL, tmp_path: Path) -> None:
    """With a shared cache one worker reads the log, and no worker shows the old name."""
    settings = settings_for(own_database, tmp_path / "cache.db", scale=Scale(users=50), follow=True)
    install_feed(settings)
    with crew(settings) as running:
        for worker in ("1", "2", "1", "2"):
            running.ask(worker, "/user?id=7")
        execute(own_database, "UPDATE users SET name = ? WHERE id = 7", "Grace Hopper")
        for worker in ("1", "2"):
            wait_until(
                lambda: running.ask(worker, "/user?id=7").body["name"] == "Grace Hopper", f"worker {worker} shows it"
            )


def test_triggers_that_are_there_already_do_no_harm(own_database: URL) -> None:
    """Installing again changes nothing, and the file is still one of the demo's own, to be filled anew."""
    settings = Settings(database=own_database, scale=Scale(users=50), follow=True)
    install_feed(settings)
    install_feed(settings)
    assert seeding.is_seeded(own_database, settings.scale)
    seeding.seed(own_database, Scale(users=60))
    assert seeding.is_seeded(own_database, Scale(users=60))
    install_feed(settings)


def test_command_on_the_page_works_in_a_shell(
    own_database: URL, make_service: MakeService, serve: Serve, tmp_path: Path
) -> None:
    """What the page offers to copy changes the name, also where the path needs quotes."""
    odd = own_database.set(database=str(Path(str(own_database.database)).rename(tmp_path / "it's $HOME.db")))
    install_feed(Settings(database=odd, follow=True))
    with serve(make_service(database=odd, scale=Scale(users=50), follow=True)) as browser:
        with browser.begin("GET", "/events") as listening:
            answer = b""
            while b"event: counters" not in answer:
                answer += listening.recv(4096)
        data = re.search(rb"event: follow\ndata: (.*)\n", answer)
        assert data
        command = json.loads(data[1])["command"].replace("{id}", "7")
        browser.get("/user?id=7")
        _run_in_shell(command, tmp_path)
        wait_until(lambda: browser.get("/user?id=7").body["name"] == "Grace Hopper", "the new name is shown")


def test_command_and_errors_show_no_password() -> None:
    """Neither what visitors see nor what the console says."""
    url = make_url("postgresql+psycopg://ann:secret@127.0.0.1:1/people?sslpassword=secret")
    shown = command_to_try(url)
    assert shlex.split(shown)[:2] == ["psql", "postgresql://ann@127.0.0.1:1/people"]
    assert "credenza_demo.users" in shown
    with pytest.raises(DemoError) as raised:
        install_feed(Settings(database=url, follow=True))
    assert "--follow cannot put its triggers into the database" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_service_without_follow_goes_on_with_what_it_has(
    own_database: URL, make_service: MakeService, serve: Serve
) -> None:
    """Control: without it the old name stays for its ttl."""
    with serve(make_service(database=own_database, scale=Scale(users=50))) as browser:
        old = browser.get("/user?id=7").body["name"]
        execute(own_database, "UPDATE users SET name = ? WHERE id = 7", "Grace Hopper")
        browser.send("POST", "/settle")
        assert browser.get("/user?id=7").body["name"] == old


def _run_in_shell(command: str, folder: Path) -> None:
    """Run it with a `sqlite3` that is there for certain: this interpreter's module under that name."""
    tool = folder / "bin" / "sqlite3"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\nexec python3 -c 'import sqlite3, sys\n"
        'with sqlite3.connect(sys.argv[3], timeout=5) as connection: connection.execute(sys.argv[4])\' "$@"\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    subprocess.run(
        command, shell=True, check=True, timeout=30, env={**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    )
