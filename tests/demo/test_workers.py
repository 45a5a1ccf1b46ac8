"""Several processes serve one page: what they promise together, and how they are kept running."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import URL
from tests.support.servers.fixtures import redis_server, shared_server
from tests.support.servers.redis_server import RedisServer
from typer.testing import CliRunner

from credenza.cli import make_app
from credenza.demo import seeding, server
from credenza.demo.board import Board
from credenza.demo.client import Client
from credenza.demo.database import Database
from credenza.demo.errors import DemoError
from credenza.demo.population import Scale
from credenza.demo.rows import Row
from credenza.demo.server import listen, listen_for
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings
from credenza.demo.several import Hand
from credenza.demo.source import UserSource
from credenza.demo.tour import Tour

from .conftest import DEADLINE, SCALE, Browser
from .crews import USERS, Crew, crew, settings_for, threads

__all__ = ["redis_server", "shared_server"]

Until = Callable[[Callable[[], bool], str], None]

pytestmark = pytest.mark.timeout(90)  # whole processes are started and ended, on a machine that may be busy


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> URL:
    """A small database that the tests of this module share, one after the other."""
    url = URL.create("sqlite", database=str(tmp_path_factory.mktemp("workers") / "people.db"))
    seeding.seed(url, Scale(users=USERS))
    return url


@pytest.fixture(scope="module")
def pair(people: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two workers over a SQLite file; no test ends them."""
    with crew(settings_for(people, tmp_path_factory.mktemp("pair") / "cache.db")) as running:
        yield running
    assert running.said == []


# What they promise together -------------------------------------------------------------------------------------------


def test_profile_that_one_worker_loads_is_shared_by_the_other(pair: Crew, until: Until) -> None:
    """The second worker takes it from the shared cache, then has it in memory; the types come through."""
    first, second = pair.ask("1", "/user?id=7"), pair.ask("2", "/user?id=7")
    assert [(answer.headers["x-worker"], answer.cache) for answer in (first, second)] == [
        ("1", "miss"),
        ("2", "shared"),
    ]
    until(lambda: pair.ask("2", "/user?id=7").cache == "hit", "the second worker has it in memory")
    assert first.body == second.body
    assert first.body["recent_posts"][0].keys() == {"id", "body", "created", "likes"}
    stats = pair.browser.get("/stats").body
    assert (stats["queries"], stats["unshared"]) == (1, 0)


def test_unknown_user_is_remembered_for_all_workers(pair: Crew) -> None:
    """The second worker does not ask the database for somebody whom the first has not found."""
    answers = [pair.ask(worker, "/user?id=9999") for worker in ("1", "2")]
    assert [(answer.status, answer.cache) for answer in answers] == [(404, "miss"), (404, "shared")]


def test_edit_on_one_worker_is_what_every_next_read_shows(pair: Crew) -> None:
    """With the old value in the memory of both, no read that starts after the edit has answered shows it."""

    async def scenario() -> None:
        client = Client(pair.address)
        lines = [await client.line(name.__eq__) for name in ("1", "2")]
        for turn in range(6):
            for line in [*lines, *lines]:
                await line.send("GET", "/user?id=3")
            put = await lines[turn % 2].send("PUT", "/user?id=3", {"name": f"Ida {turn}"})
            assert put.status == 200
            reads = await asyncio.gather(*(line.send("GET", "/user?id=3") for line in lines))
            assert [read.body["name"] for read in reads] == [f"Ida {turn}"] * 2
        for line in lines:
            line.close()

    asyncio.run(scenario())


def test_edit_is_seen_by_a_worker_that_slept_through_it(people: URL, tmp_path: Path) -> None:
    """A worker that was stopped while another one edited serves the new name from its first moment on."""

    async def scenario(running: Crew) -> None:
        client = Client(running.address)
        lines = [await client.line(name.__eq__) for name in ("1", "2")]
        for turn in range(10):
            for line in [*lines, *lines]:
                await line.send("GET", "/user?id=3")
            os.kill(running.pid(1), signal.SIGSTOP)
            try:
                put = await lines[0].send("PUT", "/user?id=3", {"name": f"Ida {turn}"})
                assert put.status == 200
                read = asyncio.create_task(lines[1].send("GET", "/user?id=3"))
                await lines[0].send("GET", "/stats")  # while that is answered, the read lies in the socket
            finally:
                os.kill(running.pid(1), signal.SIGCONT)
            assert (await read).body["name"] == f"Ida {turn}"
        for line in lines:
            line.close()

    with crew(settings_for(people, tmp_path / "cache.db")) as running:
        asyncio.run(scenario(running))


def test_edits_of_different_fields_on_different_workers_both_stay(pair: Crew) -> None:
    """One worker changes the name while the other changes the e-mail address: neither undoes the other."""

    async def scenario() -> None:
        client = Client(pair.address)
        first, second = [await client.line(name.__eq__) for name in ("1", "2")]
        for turn in range(5):
            want = {"name": f"Ida {turn}", "email": f"ida{turn}@example.org"}
            puts = await asyncio.gather(
                first.send("PUT", "/user?id=4", {"name": want["name"]}),
                second.send("PUT", "/user?id=4", {"email": want["email"]}),
            )
            assert [put.status for put in puts] == [200, 200]
            body = (await first.send("GET", "/user?id=4")).body
            assert {name: body[name] for name in want} == want
        first.close()
        second.close()

    asyncio.run(scenario())


def test_counters_are_those_of_all_workers(pair: Crew) -> None:
    """A worker comes to know what the others have done, though nobody asks those."""

    async def scenario() -> None:
        client = Client(pair.address)
        lines = [await client.line(name.__eq__) for name in ("1", "2")]
        before = (await lines[0].send("GET", "/stats")).body
        for line in [*lines, *lines]:
            await line.send("GET", "/user?id=11")
        wanted = {"requests": 4, "misses": 1, "queries": 1, "at hand": 3}
        async with asyncio.timeout(DEADLINE):
            gained: dict[str, int] = {}
            while gained != wanted:
                now = (await lines[0].send("GET", "/stats")).body
                gained = {name: now[name] - before[name] for name in ("requests", "misses", "queries")}
                gained["at hand"] = sum(now[name] - before[name] for name in ("shared", "hits"))
        for line in lines:
            line.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("protection", "most"), [("on", 1), ("off", 500)])
def test_stampede_of_the_page_reaches_all_workers(pair: Crew, protection: str, most: int) -> None:
    """The page's button lets 500 requests loose on all workers; with protection one of them asks the database once."""
    before = pair.browser.get("/stats").body["queries_by_worker"]
    answer = pair.browser.send("POST", f"/stampede?id=5&protection={protection}")
    after = pair.browser.get("/stats").body["queries_by_worker"]
    assert answer.status == 200
    assert sum(answer.body["outcomes"].values()) == 500
    assert answer.body["outcomes"].keys() <= {"miss", "joined", "shared", "hit"}
    assert (1 if most == 1 else 10) <= answer.body["queries"] <= most
    assert sum(after[worker] > before[worker] for worker in after) == min(most, 2)


def test_edit_is_refused_while_the_shared_cache_takes_nothing(people: URL, tmp_path: Path, until: Until) -> None:
    """Other workers could not be told, so nothing is written, and the answer says so; reads go on meanwhile."""
    cache = tmp_path / "cache.db"
    service = ProfileService(settings_for(people, cache, workers=1, tier_timeout=0.1))
    from .conftest import serving

    with serving(service) as browser:
        name = browser.get("/user?id=6").body["name"]
        with contextlib.closing(sqlite3.connect(cache, isolation_level=None)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            refused = browser.send("PUT", "/user?id=6", {"name": "Nobody"})
            meanwhile = browser.get("/user?id=6")
            lock.execute("ROLLBACK")
        until(lambda: browser.get("/stats").body["away"] == 0, "the shared cache is back")
        changed = browser.send("PUT", "/user?id=6", {"name": "Somebody"})
        afterwards = browser.get("/user?id=6").body["name"]
    assert (refused.status, refused.body["error"]) == (
        503,
        "the shared cache is away, and the change was not made; try again",
    )
    assert (meanwhile.status, meanwhile.body["name"]) == (200, name)
    assert (changed.status, afterwards) == (200, "Somebody")


# The tour over several workers ----------------------------------------------------------------------------------------


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `credenza demo` to its end."""
    words = [sys.executable, "-m", "credenza", "demo", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=80, check=False)


def test_tour_over_two_workers_keeps_every_promise(people: URL) -> None:
    """Without --cache a file of the command's own is shared, and said so; it is gone afterwards, as are the workers."""
    ended = command("--tour", "--workers", "2", "--users", str(USERS), "--database", people.render_as_string())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for step, kept in {
        "500 at once, protected": "yes",
        "1,000 at once over 2 workers": "yes",
        "edit on one, read on each worker": "yes",
        "worker killed while it loads": "yes",
        "shared cache stopped": "yes",
    }.items():
        assert re.search(rf"{step} .* {kept} ", ended.stdout), ended.stdout
    assert re.search(r"Worker [12] has ended, by SIGKILL; another is started in its place\.", ended.stdout)
    found = re.search(r"Shared cache: the file (\S+/cache\.db); name another with --cache", ended.stdout)
    assert found
    assert not Path(found[1]).parent.exists()
    assert "Traceback" not in ended.stderr


def test_tour_over_a_redis_server_keeps_every_promise(people: URL, redis_server: RedisServer) -> None:
    """A server that is somebody else's is not stopped: that row is skipped, and says why."""
    database = people.render_as_string()
    ended = command(
        *("--tour", "--workers", "2", "--users", str(USERS), "--database", database, "--cache", redis_server.url)
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for step in ("1,000 at once over 2 workers", "edit on one, read on each worker", "worker killed while it loads"):
        assert re.search(rf"{step} .* yes ", ended.stdout), ended.stdout
    assert re.search(r"shared cache stopped .* skipped: ", ended.stdout)
    assert ended.stderr == ""
    with redis_server.client() as client:
        assert all(key.lstrip(b"{").startswith(b"credenza-demo-") for key in client.scan_iter())


class Unshared(ProfileService):
    """Has a cache of its own that nobody else hears of."""

    def __init__(self, settings: Settings, seat: Any) -> None:
        from dataclasses import replace

        super().__init__(replace(settings, cache=None), seat)
        self.settings = settings


class NoKiller:
    """A control that does nothing to the workers."""

    def kill(self, worker: str) -> None:
        pass

    def are_ready(self) -> bool:
        return True

    def hold_database(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def hold_cache(self) -> None:
        return None


def tour(address: str, control: Any = None) -> dict[str, Row]:
    rows = asyncio.run(Tour(Client(address), requests=60, control=control).run())
    return {row.step: row for row in rows}


def test_workers_that_share_nothing_are_found_out(people: URL, tmp_path: Path) -> None:
    """Each loads for itself, and one goes on showing the old name: both rows say so."""
    settings = settings_for(people, tmp_path / "cache.db")
    with threads(lambda settings, board, number: Unshared(settings, board.seat(number)), settings) as address:
        rows = tour(address)
    assert rows["1,000 at once over 2 workers"].broken == ("2 queries",)
    assert "the old name on worker 2" in rows["edit on one, read on each worker"].broken
    assert rows["worker killed while it loads"].skipped == "not by the command that started the workers"


def test_killing_that_kills_nobody_is_no_proof(people: URL, tmp_path: Path) -> None:
    """The row of the killed worker is broken if that worker answers."""
    settings = settings_for(people, tmp_path / "cache.db")
    with threads(lambda settings, board, number: ProfileService(settings, board.seat(number)), settings) as address:
        rows = tour(address, NoKiller())
    assert "the killed worker has answered" in rows["worker killed while it loads"].broken
    assert rows["1,000 at once over 2 workers"].broken == ()
    assert rows["edit on one, read on each worker"].broken == ()


def test_held_database_answers_when_it_is_let_go(database_url: URL) -> None:
    """While the tour holds it no query comes to an end, on either database; afterwards all do."""
    settings = Settings(database=database_url, scale=SCALE, workers=2)
    hand = Hand(SimpleNamespace(kill=None, are_ready=None), settings, None)  # type: ignore[arg-type]

    async def scenario() -> None:
        database = Database(database_url)
        source = UserSource(database)
        assert await source.load(1) is not None
        with hand.hold_database():
            load = asyncio.create_task(source.load(1))
            done, _ = await asyncio.wait([load], timeout=0.2)
            assert not done
            assert database.queries == 2
        assert await load is not None
        database.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("strategy", ["write-through", "no-cache"])
def test_other_strategies_are_toured_by_their_own_promises(people: URL, tmp_path: Path, strategy: str) -> None:
    """Write-through costs no query after an edit; without a cache there is no stampede to hold off."""
    settings = settings_for(people, tmp_path / "cache.db", strategy=strategy)
    with threads(lambda settings, board, number: ProfileService(settings, board.seat(number)), settings) as address:
        rows = tour(address)
    # How many go past the protection depends on how fast sixty requests come in; what is promised here does not.
    assert {step: row.broken for step, row in rows.items() if row.broken and "unprotected" not in step} == {}
    assert rows["edit on one, read on each worker"].queries == {"write-through": 0, "no-cache": 2}[strategy]
    assert bool(rows["1,000 at once over 2 workers"].skipped) == (strategy == "no-cache")


# Keeping them running -------------------------------------------------------------------------------------------------


def test_killed_worker_is_replaced_and_nobody_is_turned_away(people: URL, tmp_path: Path, until: Until) -> None:
    """Connections that the dead worker would have taken wait for the next one; the sums do not fall."""
    with crew(settings_for(people, tmp_path / "cache.db")) as running:
        for worker in ("1", "2"):
            running.ask(worker, "/user?id=8")
        queries, pid = running.browser.get("/stats").body["queries"], running.pid(0)
        os.kill(pid, signal.SIGKILL)
        answers = [running.browser.get("/user?id=8") for _ in range(20)]
        until(lambda: running.pid(0) != pid and running.workers.are_ready(), "another worker answers")
        assert {answer.status for answer in answers} == {200}
        assert running.ask("1", "/user?id=8").cache in ("shared", "hit")
        assert running.browser.get("/stats").body["queries"] == queries
        assert running.said == ["Worker 1 has ended, by SIGKILL; another is started in its place."]


def test_worker_that_is_told_to_end_is_replaced_too(people: URL, tmp_path: Path, until: Until) -> None:
    """SIGTERM lets a worker end in order; the service goes on with another."""
    with crew(settings_for(people, tmp_path / "cache.db")) as running:
        pid = running.pid(1)
        os.kill(pid, signal.SIGTERM)
        until(lambda: running.pid(1) != pid and running.workers.are_ready(), "another worker answers")
        assert running.said == ["Worker 2 has ended, with status 0; another is started in its place."]


def test_worker_that_cannot_start_is_not_tried_for_ever(
    people: URL, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """After three attempts the service gives up, says so, and leaves no process behind."""
    settings, before = settings_for(people, tmp_path / "cache.db", ttl="soon"), children(os.getpid())
    with pytest.raises(DemoError, match=r"worker [12] cannot be started, with status 1"), crew(settings):
        pass
    assert "ttl" in capfd.readouterr().err
    assert children(os.getpid()) == before


def test_interrupt_ends_the_command_and_all_workers(people: URL, tmp_path: Path, until: Until) -> None:
    """Ctrl+C in a terminal goes to all of them; none complains, and none is started anew."""
    with serving_command(people, tmp_path, start_new_session=True) as (process, lines):
        workers = children(process.pid)
        assert len(workers) == 2
        browser = Browser(re.search(r"http://127\.0\.0\.1:\d+", lines[-1])[0])  # type: ignore[index]
        listening = browser.begin("GET", "/events")
        assert listening.recv(100).startswith(b"HTTP/1.1 200")
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        listening.close()
        until(lambda: not any(is_running(pid) for pid in workers), "the workers are gone")
    assert process.returncode == 0, rest
    assert rest == ""


def test_workers_end_when_the_command_is_killed(people: URL, tmp_path: Path, until: Until) -> None:
    """They notice that nobody supervises them any more."""
    with serving_command(people, tmp_path) as (process, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        until(lambda: not any(is_running(pid) for pid in workers), "the workers are gone")


@contextlib.contextmanager
def serving_command(people: URL, folder: Path, **options: Any) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Run `credenza demo --no-tour` with two workers until it has said where the page is."""
    words = ["--no-tour", "--workers", "2", "--users", str(USERS), "--port", "0"]
    words += ["--database", people.render_as_string(), "--cache", f"sqlite:///{folder}/cache.db"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "credenza", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "The profile page is at" in line:
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    """Return the workers below a process; not the helper that multiprocessing starts for itself."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    below = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [child for child in below if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Ports ----------------------------------------------------------------------------------------------------------------


def test_taken_port_is_refused_though_it_could_be_shared() -> None:
    """Neither a plain listener nor another demo's sockets are joined by ours."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DemoError, match="is in use; choose another"):
        listen_for(2, "127.0.0.1", taken.getsockname()[1])
    listeners = listen_for(2, "127.0.0.1", 0)
    port = listeners[0].getsockname()[1]
    for workers in (1, 2):
        with pytest.raises(DemoError, match=f"port {port} on 127.0.0.1 is in use"):
            listen_for(workers, "127.0.0.1", port)
    for listener in listeners:
        listener.close()
    listen("127.0.0.1", port).close()


def test_workers_share_one_socket_where_the_system_spreads_none(
    people: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answer under the address."""
    monkeypatch.setattr(server, "SPREADS_CONNECTIONS", False)
    with crew(settings_for(people, tmp_path / "cache.db")) as running:
        assert [running.ask(worker, "/user?id=9").cache for worker in ("1", "2")] == ["miss", "shared"]


# Wrong options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://somewhere", "the URL of a shared tier begins with one of sqlite, redis"),
        ("redis", "the URL of a shared tier begins with one of"),
        ("redis://:secret@127.0.0.1:1/0", "the shared cache at redis://127.0.0.1:1/0 does not answer"),
        ("sqlite:////no/such/folder/cache.db", "no/such/folder"),
        ("sqlite:///", "sqlite:///var/cache/shop.db"),
        ("sqlite:///{people}", "people.db"),
        ("redis://127.0.0.1:1/0?namespace=a%20b", "namespace"),
        ("sqlite:///{folder}/cache.db?codec=xml", "codec must be"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_wrong_cache_is_refused_with_a_way_out(
    people: URL, tmp_path: Path, url: str, message: str, workers: str
) -> None:
    """Exit status 2, a message that says what is wrong, no traceback, and no password."""
    words = ["--tour", "--workers", workers, "--users", str(USERS), "--database", people.render_as_string()]
    url = url.format(people=people.database, folder=tmp_path)
    ended = CliRunner().invoke(make_app(), ["demo", *words, "--cache", url])
    assert ended.exit_code == 2, ended.output
    assert message in ended.stderr
    assert "secret" not in ended.output


@pytest.mark.parametrize("workers", ["0", "65", "many"])
def test_wrong_number_of_workers_is_refused(workers: str) -> None:
    """The message names the option."""
    ended = CliRunner().invoke(make_app(), ["demo", "--workers", workers])
    assert ended.exit_code == 2
    assert "--workers" in ended.stderr


# The board ------------------------------------------------------------------------------------------------------------


def test_worker_that_takes_over_a_row_adds_to_its_sums() -> None:
    """What the last one counted stays; how it was does not."""
    board = Board(2)
    for worker, queries in ((0, 3), (1, 4)):
        seat = board.seat(worker)
        seat.put("queries", queries)
        seat.put("size", 10)
    assert (board.total("queries"), board.total("size")) == (7, 20)
    seat = board.seat(0)
    assert (board.total("queries"), board.total("size")) == (7, 10)
    seat.put("queries", 2)
    assert (board.read(0, "queries"), board.total("queries")) == (5, 9)
