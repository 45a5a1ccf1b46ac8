"""The tour tells kept promises from broken ones, and the command says so with its exit status."""

import asyncio
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from typer.testing import CliRunner

from credenza.cli import make_app
from credenza.demo import tour_writing
from credenza.demo.burst import Burst
from credenza.demo.client import Client
from credenza.demo.crash import Crash
from credenza.demo.errors import DemoError
from credenza.demo.following import install_feed
from credenza.demo.population import Scale
from credenza.demo.profile import Profile
from credenza.demo.run import allow_open_files
from credenza.demo.server import address_of, listen
from credenza.demo.server import serve as serve_until
from credenza.demo.service import Found, ProfileService
from credenza.demo.settings import Settings, database_url
from credenza.demo.tour import Row, Tour

from .conftest import Browser

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]

pytestmark = pytest.mark.timeout(60)  # whole processes are started and ended

STRATEGIES = ["cache-aside", "write-through", "write-behind", "no-cache"]


def tour(service: ProfileService, *, requests: int = 60, knows: bool = False) -> dict[str, Row]:
    """Run service and tour in one event loop, as the command does; return the rows by what the table calls them.

    With `knows`, the tour is given the settings, as by the command.
    """
    settings = service.settings if knows else None
    allow_open_files()
    listener = listen("127.0.0.1", 0)
    rows: list[Row] = []

    async def first() -> bool:
        rows.extend(await Tour(Client(address_of(listener)), requests=requests, settings=settings).run())
        return False

    asyncio.run(serve_until(service, listener, first=first))
    return {row.step.removeprefix(f"{requests} "): row for row in rows}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_promise_is_kept(make_service: MakeService, strategy: str) -> None:
    """Under each strategy all rows are as promised, and the update is taken back at the end."""
    service = make_service(strategy=strategy)
    before = _name_in_database(service, 42)
    rows = tour(service)
    assert len(rows) == (9 if strategy == "write-behind" else 7)
    assert {step: row.broken for step, row in rows.items() if row.broken} == {}
    assert rows["at once, unprotected"].queries >= 10
    assert _name_in_database(service, 42) == before


def test_protected_stampede_is_one_query(make_service: MakeService) -> None:
    """500 requests over 500 connections: one load, all others join it or hit."""
    row = tour(make_service(), requests=500)["at once, protected"]
    assert row.queries == 1
    assert re.fullmatch(r"(\d+ (joined|hit), )+1 miss", row.cache)
    assert sum(map(int, re.findall(r"\d+", row.cache))) == 500


class NoProtection(ProfileService):
    """Loads for everybody who misses."""

    async def find(self, user_id: int) -> Found:
        return await self.find_unprotected(user_id)


class NoInvalidation(ProfileService):
    """Writes past the cache."""

    async def change(self, user_id: int, changes: Any) -> Profile:
        current = (await self.find(user_id)).profile
        assert current is not None
        await self.source.store(user_id, _renamed(current, changes["name"]))
        return current


class NoNegatives(ProfileService):
    """Asks about unknown users each time."""

    async def find(self, user_id: int) -> Found:
        found = await super().find(user_id)
        if found.profile is None:
            await self.users.aio.invalidate(user_id)
        return found


@pytest.mark.parametrize(
    ("kind", "step", "broken"),
    [
        (NoProtection, "at once, protected", r"\d+ queries"),
        (NoInvalidation, "update, then read", "the old name"),
        (NoNegatives, "unknown user again", "X-Cache 'miss'"),
    ],
)
def test_broken_promise_is_found(
    make_service: MakeService, own_database: URL, kind: type[ProfileService], step: str, broken: str
) -> None:
    """A service without protection, invalidation or negative caching does not pass."""
    rows = tour(make_service(kind=kind, database=own_database, scale=Scale(users=50)))
    assert re.search(broken, "; ".join(rows[step].broken))
    assert rows["first load"].broken == ()


class NoCoalescing(ProfileService):
    """Tells of as many statements as there were edits."""

    async def burst(self, goes_on: Callable[[], bool] = lambda: True) -> Burst:
        done = await super().burst(goes_on)
        return dataclasses.replace(done, statements=done.edits, pending=3)


class NoDelivery(ProfileService):
    """Shows another name than the last one that was acknowledged."""

    async def burst(self, goes_on: Callable[[], bool] = lambda: True) -> Burst:
        done = await super().burst(goes_on)
        await self.change(42, {"name": "Somebody Else"})
        return done


class NoFollowing(ProfileService):
    """Says that it follows, and does not."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(dataclasses.replace(settings, follow=False))
        self.settings = settings


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (NoCoalescing, "10,000 statements; 3 users are still to be written"),
        (NoDelivery, "the name 'Somebody Else'"),
    ],
)
def test_broken_burst_is_found(
    make_service: MakeService, own_database: URL, kind: type[ProfileService], broken: str
) -> None:
    """Too many statements, pending edits and a wrong name fail the row."""
    service = make_service(kind=kind, database=own_database, scale=Scale(users=50), strategy="write-behind")
    row = tour(service)["burst: 10,000 edits of 100 users"]
    assert "; ".join(row.broken) == broken


def test_lost_edit_fails_the_tour(
    make_service: MakeService, own_database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the killed process has acknowledged and nobody has is in the table; without the settings it is skipped."""
    monkeypatch.setattr(tour_writing, "crash", lambda: Crash(1_000, 90, 1, 2, 0.5))
    service = make_service(database=own_database, scale=Scale(users=50), strategy="write-behind")
    row = tour(service, knows=True)["kill -9 in the middle of edits"]
    assert (row.broken, row.queries, row.cache) == (("2 missing",), 1, "1,000 acknowledged, 90 recovered")
    service = make_service(database=own_database, scale=Scale(users=50), strategy="write-behind")
    assert tour(service)["kill -9 in the middle of edits"].skipped


@pytest.mark.parametrize("kind", [ProfileService, NoFollowing])
def test_update_that_is_not_followed_fails_the_tour(
    make_service: MakeService, own_database: URL, kind: type[ProfileService], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process changes the name: the service that follows shows it in time, the other one does not."""
    monkeypatch.setattr(tour_writing, "_PATIENCE", 1.2)
    install_feed(Settings(database=own_database, follow=True))
    service = make_service(kind=kind, database=own_database, scale=Scale(users=50), follow=True)
    rows = tour(service, knows=True)
    broken = rows["UPDATE by another program"].broken
    assert bool(broken) == (kind is NoFollowing), broken
    assert all(not row.broken for step, row in rows.items() if step != "UPDATE by another program")


def test_address_without_a_service_is_refused_with_a_way_out() -> None:
    """The messages say what is wrong with the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DemoError, match=rf"no service answers at 127\.0\.0\.1:{port}"):
        asyncio.run(Tour(Client(f"http://127.0.0.1:{port}")).run())
    with pytest.raises(DemoError, match=r"must look like http://127.0.0.1:8000, got 'ftp://x'"):
        Client("ftp://x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people.db", "must be a URL, got 'people.db'; write sqlite:///"),
        ("mysql://localhost/x", "knows no 'mysql'; write sqlite:///"),
        ("sqlite://", "needs a SQLite file"),
        ("sqlite:///:memory:", "needs a SQLite file"),
    ],
)
def test_wrong_database_is_refused_with_a_way_out(text: str, message: str) -> None:
    """Each message names the option and says what to write."""
    with pytest.raises(DemoError, match=message):
        database_url(text, Scale())


def test_default_database_is_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$XDG_CACHE_HOME if it is absolute, else ~/.cache, else, without a home, the temporary folder."""

    def default() -> str:
        return str(database_url(None, Scale()).database)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert default() == str(tmp_path / "caches" / "credenza" / "demo-20000.db")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default() == str(tmp_path / ".cache" / "credenza" / "demo-20000.db")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    assert default().endswith("credenza/demo-20000.db")
    assert os.path.isabs(default())


def test_short_postgres_urls_get_the_driver() -> None:
    """What one pastes from elsewhere works."""
    assert database_url("postgres://ann@db/people", Scale()).drivername == "postgresql+psycopg"
    assert database_url("postgresql://ann@db/people", Scale()).drivername == "postgresql+psycopg"


# The command itself ---------------------------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m credenza` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "credenza", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **environment},
    )


def test_tour_command_seeds_prints_and_exits_with_0(tmp_path: Path) -> None:
    """From nothing to the table in one command."""
    ended = command("demo", "--tour", "--users", "60", XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert f"{tmp_path}/credenza/demo-60.db is made now, 60 users and 1,500 rows in all" in ended.stdout
    for step in ("first load", "second load", "500 at once, protected", "update, then read", "unknown user again"):
        assert re.search(rf"{step} .* yes ", ended.stdout)


def test_tour_command_exits_with_1_when_a_promise_is_broken(
    make_service: MakeService, serve: Serve, own_database: URL
) -> None:
    """A running service that shows old names fails the tour, and the table says so."""
    allow_open_files()
    with serve(make_service(kind=NoInvalidation, database=own_database, scale=Scale(users=50))) as browser:
        ended = command("demo", "--tour", "--url", browser.address)
    assert ended.returncode == 1
    assert re.search(r"update, then read .* no: the old name", ended.stdout)
    assert "Broken: " in ended.stdout


def test_port_in_use_is_said_before_anything_is_done(tmp_path: Path) -> None:
    """No database is made for a service that cannot listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("demo", "--port", str(port), XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use; choose another with --port, or 0 for a free one" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ttl", "soon"), "ttl"),
        (("--ttl", "-3s"), "ttl"),
        (("--maxsize", "0"), "maxsize must be"),
        (("--strategy", "write-around"), "write-around"),
        (("--database", "people.db"), "must be a URL"),
        (("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--tour", "--no-tour"), "exclude each other"),
        (("--url", "http://127.0.0.1:1"), "--url needs --tour"),
        (("--users", "3"), "users"),
    ],
)
def test_wrong_option_is_refused_with_a_way_out(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exit status 2, a message that names the option, and no traceback."""
    database = ("--database", f"sqlite:///{tmp_path}/people.db", "--users", "60", "--port", "0")
    ended = CliRunner().invoke(make_app(), ["demo", *database, *arguments])
    assert ended.exit_code == 2
    assert message in re.sub(r"\s*│?\n│?\s*", " ", ended.stderr)


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `python -m credenza demo` beside the test."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "credenza", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_demo_goes_on_serving_after_the_tour_until_interrupted(own_database: URL) -> None:
    """What `make demo` does: table, address, page; Ctrl+C ends it at once, though a page is listening."""
    with running("--users", "50", "--port", "0", "--database", own_database.render_as_string()) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "The profile page is at" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", lines[-1])
        assert found, lines
        assert "as seeded before" in lines[0]
        assert any("unknown user again" in line for line in lines)
        browser = Browser(found[0])
        assert browser.get("/").status == 200
        listening = browser.begin("GET", "/events")
        assert listening.recv(100).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        listening.close()
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("word", ["Seeding", "Touring"])
def test_interrupted_tour_is_no_success(tmp_path: Path, word: str) -> None:
    """Ctrl+C before the table is there ends the command soon, with another status than 0, and without a traceback."""
    users = "20000" if word == "Seeding" else "60"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "FORCE_COLOR": "1", "TERM": "xterm"}
    with running("--tour", "--users", users, **environment) as process:
        assert process.stdout is not None
        seen = ""
        while word not in seen:  # by characters: what moves on a terminal ends no line
            seen += process.stdout.read(1)
            assert process.poll() is None, seen
        rest = interrupted(process)
    assert process.returncode in (1, 130), rest
    assert "Traceback" not in rest or "Exception ignored in" in rest


def interrupted(process: "subprocess.Popen[str]") -> str:
    """Press Ctrl+C, again if that was lost: Python drops what is raised while a weak reference is told of a death."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=8)[0]
        except subprocess.TimeoutExpired:
            continue
    return process.communicate(timeout=1)[0]


def test_missing_extra_is_named(tmp_path: Path) -> None:
    """Without the packages of the extra the command says which to install."""
    for package, extra in {
        "typer": "credenza[cli]",
        "starlette": "credenza[demo]",
        "sqlalchemy": "credenza[demo]",
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{package}.py").write_text(f"raise ModuleNotFoundError('none', name={package!r})")
        ended = command(
            "demo", "--tour", "--database", "postgresql://127.0.0.1:1/x", PYTHONPATH=str(tmp_path / package)
        )
        assert ended.returncode != 0
        assert f"pip install '{extra}'" in ended.stderr
        assert "Traceback" not in ended.stderr


def _renamed(profile: Profile, name: str) -> Profile:
    return dataclasses.replace(profile, name=name)


def _name_in_database(service: ProfileService, user_id: int) -> str:
    from sqlalchemy import select

    from credenza.demo.schema import users
    from credenza.demo.seeding import open_engine

    engine = open_engine(service.settings.database, connections=1)
    with engine.connect() as connection:
        name = connection.scalar(select(users.c.name).where(users.c.id == user_id))
    engine.dispose()
    return str(name)
