"""What the service answers, status by status."""

import json
import logging
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from sqlalchemy import URL, create_engine

from credenza.demo.population import Scale
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings

from .conftest import SCALE, Browser, serving

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]

pytestmark = pytest.mark.timeout(60)  # a stampede without protection is 500 queries


@pytest.fixture(scope="module")
def refusing(sqlite_url: URL) -> Iterator[Browser]:
    """One service for all requests that are refused at the door; in the end none of them has reached the database."""
    service = ProfileService(Settings(database=sqlite_url, scale=SCALE))
    with serving(service) as browser:
        yield browser
    assert service.database.queries == 0


def test_profile_is_loaded_once_then_a_hit(browser: Browser, service: ProfileService) -> None:
    """The first answer is a miss with one query, the second the same profile as a hit without one."""
    first, second = browser.get("/user?id=7"), browser.get("/user?id=7")
    assert (first.status, first.cache) == (200, "miss")
    assert (second.status, second.cache) == (200, "hit")
    assert first.body == second.body
    assert first.body["id"] == 7
    assert service.database.queries == 1


def test_answers_carry_timing_and_are_kept_by_nobody_else(browser: Browser) -> None:
    """`Server-Timing` names the database only where it was asked; browsers must not keep answers."""
    first, second = browser.get("/user?id=7"), browser.get("/user?id=7")
    assert first.headers["server-timing"].startswith("cache;dur=")
    assert "db;dur=" in first.headers["server-timing"]
    assert "db;dur=" not in second.headers["server-timing"]
    assert second.headers["age"].isdigit()
    assert second.headers["cache-control"] == "no-store"
    assert second.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/user", "/user?id=", "/user?name=ann"])
def test_missing_id_is_a_400_that_says_so(refusing: Browser, path: str) -> None:
    """The words are those that the documentation promises."""
    answer = refusing.get(path)
    assert (answer.status, answer.body) == (400, {"error": "missing id"})


@pytest.mark.parametrize(
    "text", ["ann", "4.2", "0x2a", "4%202", "%D9%A4%D9%A2", "1e3", "9" * 19, "9" * 5000, "+4", "42%00"]
)
def test_id_that_is_not_a_number_is_a_400(refusing: Browser, text: str) -> None:
    """Nothing but ASCII digits is a number here, and the database is not asked."""
    answer = refusing.get(f"/user?id={text}")
    assert answer.status == 400
    assert answer.body["field"] == "id"
    assert "id must be a number" in answer.body["error"]


@pytest.mark.parametrize("user_id", [301, 0, -1, 2**31, 10**17])
def test_unknown_user_is_a_404_remembered(browser: Browser, service: ProfileService, user_id: int) -> None:
    """The second answer comes from the cache; ids that no column holds do not even reach the database."""
    first, second = browser.get(f"/user?id={user_id}"), browser.get(f"/user?id={user_id}")
    assert (first.status, first.body, first.cache) == (404, {"error": "user not found"}, "miss")
    assert (second.status, second.body, second.cache) == (404, {"error": "user not found"}, "hit")
    assert service.database.queries == (1 if user_id == 301 else 0)


def test_unknown_user_is_forgotten_after_negative_ttl(make_service: MakeService, serve: Serve, until: Any) -> None:
    """A user who appears is seen once `negative_ttl` has passed."""
    service = make_service(negative_ttl="20ms")
    with serve(service) as browser:
        assert browser.get("/user?id=301").cache == "miss"
        until(lambda: browser.get("/user?id=301").cache == "miss", "the unknown user is asked for again")
        assert service.database.queries >= 2


def test_database_failure_is_a_500_without_the_inside(
    database_url: URL, make_service: MakeService, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The client reads `database error`, the log has the cause, nothing is cached, and afterwards all is well."""
    schema = "" if database_url.get_backend_name() == "sqlite" else "credenza_demo."
    with serve(make_service(database=database_url)) as browser, caplog.at_level(logging.ERROR, "credenza.demo"):
        _run_sql(database_url, f"ALTER TABLE {schema}likes RENAME TO hidden")
        try:
            failed = [browser.get("/user?id=1") for _ in range(2)]
        finally:
            _run_sql(database_url, f"ALTER TABLE {schema}hidden RENAME TO likes")
        healed = browser.get("/user?id=1")
    for answer in failed:
        assert (answer.status, answer.body) == (500, {"error": "database error"})
        assert b"likes" not in answer.content
    assert (healed.status, healed.cache) == (200, "miss")
    assert len(caplog.records) == 2
    assert re.search(r"no such table: likes|likes\" does not exist", caplog.text)


def test_failed_write_is_a_500_and_the_old_value_stays(
    own_database: URL, make_service: MakeService, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A `PUT` that the database refuses changes nothing, and its values do not get into the log."""
    service = make_service(database=own_database, scale=Scale(users=50))
    _execute(
        str(own_database.database), "CREATE TRIGGER no BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'closed'); END"
    )
    with serve(service) as browser:
        before = browser.get("/user?id=1").body
        answer = browser.send("PUT", "/user?id=1", {"name": "Secret Name"})
        assert (answer.status, answer.body) == (500, {"error": "database error"})
        assert browser.get("/user?id=1").body == before
    assert "closed" in caplog.text
    assert "Secret Name" not in caplog.text


@pytest.mark.parametrize("strategy", ["cache-aside", "write-through", "no-cache"])
def test_update_is_seen_by_every_later_read(
    own_database: URL, make_service: MakeService, serve: Serve, strategy: str
) -> None:
    """After the `PUT` has answered, each `GET` shows the new value; write-through has it at hand already."""
    with serve(make_service(database=own_database, scale=Scale(users=50), strategy=strategy)) as browser:
        old = [browser.get("/user?id=3") for _ in range(2)][-1]
        changed = browser.send("PUT", "/user?id=3", {"name": "  Ida Novak ", "email": "ida@example.org"})
        after = [browser.get("/user?id=3") for _ in range(2)]
    assert changed.status == 200
    assert (changed.body["name"], changed.body["email"]) == ("Ida Novak", "ida@example.org")
    expected = {"cache-aside": ["miss", "hit"], "write-through": ["hit", "hit"], "no-cache": ["bypass", "bypass"]}
    assert [answer.cache for answer in after] == expected[strategy]
    for answer in after:
        assert answer.body == {**old.body, "name": "Ida Novak", "email": "ida@example.org"}


def test_update_reaches_readers_without_protection_too(
    own_database: URL, make_service: MakeService, serve: Serve
) -> None:
    """The cache that the comparison uses does not show old names either."""
    with serve(make_service(database=own_database, scale=Scale(users=50))) as browser:
        assert [browser.get("/unprotected/user?id=3").cache for _ in range(2)] == ["miss", "hit"]
        browser.send("PUT", "/user?id=3", {"name": "Ida Novak"})
        assert browser.get("/unprotected/user?id=3").body["name"] == "Ida Novak"


@pytest.mark.parametrize("strategy", ["cache-aside", "write-through", "no-cache"])
def test_updates_of_different_fields_at_once_both_stay(
    own_database: URL, make_service: MakeService, serve: Serve, strategy: str
) -> None:
    """One changes the name while another changes the e-mail address: neither undoes the other, in database or cache."""
    with serve(make_service(database=own_database, scale=Scale(users=50), strategy=strategy)) as browser:
        for turn in range(5):
            changes = [{"name": f"Ida Novak {turn}"}, {"email": f"ida{turn}@example.org"}]
            threads = [threading.Thread(target=browser.send, args=("PUT", "/user?id=3", change)) for change in changes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            body = browser.get("/user?id=3").body
            assert (body["name"], body["email"]) == (f"Ida Novak {turn}", f"ida{turn}@example.org")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 10_000, "body"),
        (b"[]", "body"),
        (b"{}", "body"),
        (b'"name"', "body"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": 42}, "name"),
        ({"name": None}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "a\x00b"}, "name"),
        (b'{"name": "\\ud800"}', "name"),
        ({"name": "Ann", "email": "nonsense"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a b@example.org"}, "email"),
        ({"email": ["a@example.org"]}, "email"),
        ({"id": 5}, "id"),
        ({"name": "Ann", "rank": 1}, "rank"),
    ],
)
def test_wrong_body_is_a_400_that_names_the_field(refusing: Browser, body: object, field: str) -> None:
    """Whatever is wrong with a body, the answer says where, and the database hears nothing."""
    answer = refusing.send("PUT", "/user?id=1", body)
    assert (answer.status, answer.body["field"]) == (400, field)
    assert answer.body["error"]


def test_put_without_id_or_for_nobody_is_refused(browser: Browser) -> None:
    """The same words as for a read."""
    assert browser.send("PUT", "/user", {"name": "Ann"}).body == {"error": "missing id"}
    answer = browser.send("PUT", "/user?id=301", {"name": "Ann"})
    assert (answer.status, answer.body) == (404, {"error": "user not found"})


def test_body_without_end_is_refused(refusing: Browser) -> None:
    """Nobody needs a name of 20 kB."""
    assert refusing.send("PUT", "/user?id=1", b"x" * 20_000).status == 413


def test_other_methods_and_addresses_are_refused_in_json(refusing: Browser) -> None:
    """Errors of the framework look like the service's own."""
    answer = refusing.send("DELETE", "/user?id=1")
    assert (answer.status, answer.body["error"]) == (405, "Method Not Allowed")
    assert refusing.get("/nowhere").status == 404


@pytest.mark.parametrize(
    ("protection", "queries", "outcomes"), [("on", 1, {"miss": 1, "joined": 499}), ("off", 500, {"miss": 500})]
)
def test_stampede_reaches_the_database_once_with_protection(
    browser: Browser, protection: str, queries: int, outcomes: dict[str, int]
) -> None:
    """500 requests at once for an expired profile: one query with protection, all 500 without."""
    assert browser.get("/user?id=42").status == 200
    answer = browser.send("POST", f"/stampede?id=42&protection={protection}")
    assert answer.status == 200
    assert answer.body["queries"] == queries
    assert answer.body["outcomes"] == outcomes


def test_stampede_with_wrong_options_is_refused(refusing: Browser) -> None:
    """The message names the option."""
    assert refusing.send("POST", "/stampede").body == {"error": "missing id"}
    assert refusing.send("POST", "/stampede?id=1&protection=maybe").body["field"] == "protection"


def test_counters_arrive_as_events_when_something_happens(browser: Browser) -> None:
    """A listener gets the settings, then the counters, then those after a request."""
    import http.client

    connection = http.client.HTTPConnection(browser.host, browser.port, timeout=10)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.getheader("content-type", "").startswith("text/event-stream")
    assert _next_event(response)[0] == "settings"
    kind, counters = _next_event(response)
    assert (kind, counters["misses"]) == ("counters", 0)
    browser.get("/user?id=9")
    while (counters := _next_event(response)[1])["loads"] < 1:
        pass
    assert (counters["misses"], counters["queries"], counters["size"]) == (1, 1, 1)
    assert counters["mean_load_ms"] > 0
    connection.close()


def test_listening_page_does_not_keep_the_server_from_stopping(service: ProfileService, serve: Serve) -> None:
    """The end of the `with` fails if the server does not stop within its deadline."""
    import http.client

    with serve(service) as browser:
        connection = http.client.HTTPConnection(browser.host, browser.port, timeout=10)
        connection.request("GET", "/events")
        response = connection.getresponse()
        _next_event(response)
    connection.close()


def test_page_comes_with_all_that_it_names(refusing: Browser) -> None:
    """The page, its style, scripts and picture are served, and a policy forbids everything from elsewhere."""
    page = refusing.get("/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name, kind in {
        "page.css": "text/css",
        "page.js": "javascript",
        "dots.js": "javascript",
        "mark.svg": "svg",
    }.items():
        asset = refusing.get(f"/static/{name}")
        assert asset.status == 200
        assert kind in asset.headers["content-type"]
        assert b"//cdn" not in asset.content


def _run_sql(url: URL, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def _execute(path: str, statement: str) -> None:
    connection = sqlite3.connect(path, timeout=10)
    with connection:
        connection.execute(statement)
    connection.close()


def _next_event(response: Any) -> tuple[str, Any]:
    kind = ""
    while True:
        line = response.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            return kind, json.loads(line.removeprefix("data: "))
