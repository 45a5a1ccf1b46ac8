"""The page, in a real browser."""

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import URL
from tests.support.servers import running_redis

from credenza.demo.following import install_feed
from credenza.demo.population import Scale
from credenza.demo.service import ProfileService
from credenza.demo.settings import Settings

from .chromium import Page, chromium, find_chromium
from .conftest import SCALE, Browser
from .crews import crew, settings_for

Serve = Callable[[ProfileService], AbstractContextManager[Browser]]
MakeService = Callable[..., ProfileService]

pytestmark = [
    pytest.mark.skipif(
        find_chromium() is None,
        reason="CHROMIUM IS ABSENT, the page is not tested: install Debian's chromium or set CREDENZA_TEST_CHROMIUM",
    ),
    pytest.mark.timeout(120),
]

LOADED = "document.getElementById('profile').getAttribute('aria-busy') === 'false' && !!document.title.includes('·')"
CONNECTED = "document.getElementById('pulse').dataset.on === 'true'"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests of the module."""
    executable = find_chromium()
    assert executable is not None
    with chromium(executable, tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def visit(tab: Page) -> Callable[[Browser, str], Page]:
    """Open the service's page in a window as wide as a laptop's, and wait until it shows a profile."""

    def open_page(browser: Browser, path: str = "/") -> Page:
        tab.open("about:blank")  # the page of the last test complains that its service is gone
        tab.complaints.clear()
        tab.requests.clear()
        tab.size(1280, 900)
        tab.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
        tab.open(browser.address + path)
        tab.until(f"{LOADED} && {CONNECTED}")
        return tab

    return open_page


Visit = Callable[..., Page]


def picture(page: Page, name: str, folder: Path) -> None:
    """Keep a screenshot, where CREDENZA_SCREENSHOTS says, for somebody to look at."""
    target = Path(os.environ.get("CREDENZA_SCREENSHOTS", folder))
    target.mkdir(parents=True, exist_ok=True)
    page.screenshot(target / f"{name}.png")
    assert (target / f"{name}.png").stat().st_size > 10_000


def shown(selector: str) -> str:
    return f"Number(document.querySelector('{selector}').textContent.replaceAll(',', ''))"


def counter(name: str) -> str:
    return f"Number(document.querySelector('[data-counter={name}]').textContent)"


def test_profile_is_shown_with_its_time_and_where_it_came_from(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    """The first load is a miss that names the database, the next one a hit that does not; the counters follow."""
    page = visit(browser)
    profile = browser.get("/user?id=42").body
    assert page.text("#name") == profile["name"]
    assert page.text("#followers") == str(profile["followers"])
    assert page.text("#rank") == f"#{profile['rank']}"
    assert page.evaluate("document.querySelectorAll('#recent li').length") == len(profile["recent_posts"])
    assert page.evaluate("document.querySelectorAll('#mutuals button').length") == len(profile["mutuals"])
    assert page.text("#status") == "miss"
    assert page.text("#in-database").endswith("ms")
    picture(page, "fresh", tmp_path)

    page.click("#again")
    page.until("document.getElementById('status').textContent === 'hit'")
    assert page.text("#in-database") == "not asked"
    page.until(f"{counter('hits')} === 2 && {counter('misses')} === 1 && {counter('queries')} === 1")
    assert page.evaluate("document.querySelectorAll('#history li').length") == 2
    picture(page, "hit", tmp_path)
    assert page.complaints == []
    assert {url for url in page.requests if not url.startswith(browser.address)} == set()


def test_stampede_shows_both_counts_side_by_side(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    """One query on one side, 500 on the other, in numbers, in words, and for who cannot see the dots."""
    page = visit(browser)
    page.click("#stampede")
    page.until("document.getElementById('verdict').textContent !== ''")
    assert page.text("[data-side=on] [data-queries]") == "1"
    assert page.text("[data-side=on] [data-noun]") == "query reached the database"
    assert page.text("[data-side=off] [data-queries]") == "500"
    assert "1 query in" in page.text("#verdict")
    assert "500 in" in page.text("#verdict")
    assert page.evaluate("document.querySelector('[data-side=on] canvas').ariaLabel") == "1 miss, 499 joined"
    assert page.evaluate("document.querySelector('[data-side=off] canvas').ariaLabel") == "500 miss"
    page.until(f"{counter('joined')} === 499 && {counter('queries')} === 502")
    picture(page, "stampede", tmp_path)
    page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    page.until("document.documentElement.dataset.theme === 'dark'")
    picture(page, "dark", tmp_path)
    assert page.complaints == []


def test_page_over_several_workers_tells_them_apart(
    sqlite_url: URL, visit: Visit, tmp_path: Path, until: Callable[[Callable[[], bool], str], None]
) -> None:
    """It says which worker has answered, what came from the shared cache, and counts for all of them."""
    with crew(settings_for(sqlite_url, tmp_path / "cache.db", scale=SCALE, workers=3)) as running:
        page = visit(running.browser)
        facts = page.text("#facts")
        assert ("shared cache SQLite file" in facts, "workers 3" in facts) == (True, True)
        assert page.text("#sum") == "summed over 3 workers"
        assert page.evaluate("getComputedStyle(document.getElementById('worker')).display") != "none"
        users = itertools.count(43)

        def is_shared() -> bool:
            """Have another worker load somebody, then show them."""
            user, mine = next(users), page.text("#worker").removeprefix("from worker ")
            running.ask(next(name for name in ("1", "2") if name != mine), f"/user?id={user}")
            page.evaluate(f"document.getElementById('user-id').value = '{user}'")
            page.click("#again")
            page.until(f"{LOADED} && location.search === '?id={user}'")
            return page.text("#status") == "shared"

        until(is_shared, "the answer comes from the shared cache")
        assert "took it from the cache that all workers share" in page.text("#why")
        assert page.text("#worker").removeprefix("from worker ") in page.text("#why")
        picture(page, "workers-shared", tmp_path)
        page.click("#stampede")
        page.until("document.getElementById('verdict').textContent !== ''")
        assert page.text("[data-side=on] [data-queries]") == "1"
        queries = running.browser.get("/stats").body["queries"]
        page.until(f"{counter('queries')} === {queries}")
        picture(page, "workers-stampede", tmp_path)
        page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
        page.until("document.documentElement.dataset.theme === 'dark'")
        picture(page, "workers-dark", tmp_path)
        page.size(390, 844)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        picture(page, "workers-telephone", tmp_path)
        assert page.complaints == []


def test_page_says_when_the_shared_cache_is_away(sqlite_url: URL, visit: Visit, tmp_path: Path) -> None:
    """The pill of the shared cache changes its words and its colour while the server is stopped, and changes back."""
    stack = contextlib.ExitStack()
    cache_server = stack.enter_context(running_redis())
    with stack, crew(settings_for(sqlite_url, cache_server.url, scale=SCALE)) as running:
        page = visit(running.browser)
        assert page.text("#away") == ""
        cache_server.stop()
        answers = [running.browser.get(f"/user?id={user}") for user in range(44, 54)]
        assert {answer.status for answer in answers} == {200}
        page.until("document.getElementById('away').textContent === ', away: the database answers'")
        page.evaluate("document.getElementById('user-id').value = '60'")
        page.click("#again")
        page.until("document.getElementById('why').textContent.includes('not kept')")
        picture(page, "workers-away", tmp_path)
        cache_server.start()
        page.until("document.getElementById('away').textContent === ''")


def test_burst_shows_how_few_statements_reach_the_database(
    own_database: URL, make_service: MakeService, serve: Serve, visit: Visit, tmp_path: Path
) -> None:
    """Edits and statements are counted while it runs; the words say the same; the profile has its own name in the end."""
    service = make_service(database=own_database, scale=Scale(users=50), strategy="write-behind")
    with serve(service) as browser:
        page = visit(browser)
        name = page.text("#name")
        assert page.evaluate("getComputedStyle(document.querySelector('.outside')).display") == "none"
        page.click("#burst")
        page.until(f"{shown('[data-write=through] strong')} > 0")
        page.until(f"document.getElementById('name').textContent.startsWith({name + ' '!r})")
        picture(page, "burst-running", tmp_path)
        page.until("document.getElementById('burst-verdict').textContent !== ''")
        assert page.text("[data-write=through] strong") == "10,000"
        statements = int(page.text("[data-write=behind] strong"))
        assert 0 < statements <= 500
        assert page.text("#burst-verdict").startswith("10,000 edits were acknowledged in ")
        assert f": {statements} statements with " in page.text("#burst-verdict")
        page.until(f"{counter('pending')} === 0 && {shown('[data-counter=edits]')} === 10000")
        page.until(f"document.getElementById('name').textContent === {name!r}")
        assert page.evaluate("document.getElementById('burst').disabled") is False
        assert page.text("#recovered") == ""
        service.seat.put("recovered", 87)
        page.click("#again")
        page.until("document.getElementById('recovered').textContent.includes('the last edits of 87 users')")
        picture(page, "burst", tmp_path)
        page.prefer(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
        page.until("document.documentElement.dataset.theme === 'dark'")
        picture(page, "burst-dark", tmp_path)
        for width in (320, 390):
            page.size(width, 844)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture(page, "burst-telephone", tmp_path)
        assert page.complaints == []


def test_burst_that_fails_is_told_in_words(
    own_database: URL, make_service: MakeService, serve: Serve, visit: Visit
) -> None:
    """A burst that is refused leaves the button usable and says why."""
    service = make_service(database=own_database, scale=Scale(users=50), strategy="write-behind")
    with serve(service) as browser:
        page = visit(browser)
        service.seat.put("bursts", 1)
        page.click("#burst")
        page.until("document.getElementById('burst-verdict').textContent !== ''")
        assert page.text("#burst-verdict") == "The burst did not finish: a burst is running already."
        assert page.evaluate("document.getElementById('burst').disabled") is False


def test_change_by_another_program_is_shown_on_the_open_page(
    own_database: URL, make_service: MakeService, serve: Serve, visit: Visit, tmp_path: Path
) -> None:
    """Nobody clicks: the name is another, and the page says why it asked again. The command is for the user shown."""
    install_feed(Settings(database=own_database, follow=True))
    with serve(make_service(database=own_database, scale=Scale(users=50), follow=True)) as browser:
        page = visit(browser)
        page.until("document.getElementById('command').textContent.endsWith('WHERE id = 42\"')")
        assert page.evaluate("getComputedStyle(document.querySelector('.burst')).display") == "none"
        assert page.evaluate("document.getElementById('command').scrollHeight") < 60  # one line, which scrolls
        with contextlib.closing(sqlite3.connect(str(own_database.database), timeout=30)) as connection:
            connection.execute("UPDATE users SET name = 'Grace Hopper' WHERE id = 42")
            connection.commit()
        page.until("document.getElementById('name').textContent === 'Grace Hopper'")
        assert page.text("#why").startswith("Somebody has changed this user, so the page asked again.")
        assert page.text("#status") == "miss"
        picture(page, "followed", tmp_path)
        page.evaluate("document.getElementById('user-id').value = '7'")
        page.click("#goto button")
        page.until("document.getElementById('command').textContent.endsWith('WHERE id = 7\"')")
        assert page.complaints == []


@pytest.mark.parametrize("strategy", ["cache-aside", "write-through", "write-behind", "no-cache"])
def test_edit_by_another_visitor_is_shown_on_the_open_page(
    own_database: URL, make_service: MakeService, serve: Serve, visit: Visit, strategy: str
) -> None:
    """Whatever the strategy, an edit shows on every page of this process at once."""
    with serve(make_service(database=own_database, scale=Scale(users=50), strategy=strategy)) as browser:
        page = visit(browser)
        browser.send("PUT", "/user?id=42", {"name": "Ida Novak"})
        page.until("document.getElementById('name').textContent === 'Ida Novak'")


def test_edit_names_what_is_wrong_and_then_shows_the_new_name(
    own_database: URL, make_service: MakeService, serve: Serve, visit: Visit
) -> None:
    """A wrong address is explained beside its field; a right one is saved, and the page shows the new values."""
    with serve(make_service(database=own_database, scale=Scale(users=50))) as browser:
        page = visit(browser)
        page.click("#edit")
        page.evaluate("document.querySelector('[name=email]').value = 'nonsense'")
        page.click("#editor-form [type=submit]")
        page.until("document.getElementById('error-email').textContent !== ''")
        assert page.text("#error-email") == "email must look like name@example.org"
        assert page.evaluate("document.activeElement.name") == "email"
        page.evaluate("document.querySelector('[name=email]').value = 'ida@example.org'")
        page.evaluate("document.querySelector('dialog [name=name]').value = '<b>Ida</b> Novak'")
        page.click("#editor-form [type=submit]")
        page.until("!document.getElementById('editor').open")
        page.until("document.getElementById('name').textContent === '<b>Ida</b> Novak'")
        assert "ida@example.org" in page.text("#about")
        assert page.evaluate("document.querySelector('#name b')") is None


def test_keyboard_alone_is_enough(browser: Browser, visit: Visit) -> None:
    """Tab reaches every control in a sensible order, and Enter works them."""
    page = visit(browser)
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(7):
        page.press("Tab", code=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:5] == ["skip", "theme", "again", "edit", "user-id"]
    page.evaluate("document.getElementById('user-id').select()")
    page.evaluate("document.getElementById('user-id').focus()")
    page.call("Input.insertText", text="7")
    page.press("Enter", code=13, text="\r")
    page.until(f"document.getElementById('name').textContent === {browser.get('/user?id=7').body['name']!r}")
    assert page.evaluate("location.search") == "?id=7"


def test_unknown_user_and_wrong_id_are_told_in_words(browser: Browser, visit: Visit) -> None:
    """The page says what the service said, and that a 404 was remembered."""
    page = visit(browser)
    for asked, told in [
        ("301", "404: user not found."),
        ("301", "404: user not found. Remembered"),
        ("x", "400: id must be"),
    ]:
        page.evaluate(f"document.getElementById('user-id').value = '{asked}'")
        page.click("#goto button")
        page.until(f"document.getElementById('why').textContent.startsWith({told!r})")


def test_narrow_window_shows_everything_without_scrolling_sideways(
    browser: Browser, visit: Visit, tmp_path: Path
) -> None:
    """A telephone's width, and a very narrow one."""
    page = visit(browser)
    for width in (390, 320):
        page.size(width, 844)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.size(390, 844)
    picture(page, "telephone", tmp_path)


def test_controls_have_names_and_text_has_contrast(browser: Browser, visit: Visit) -> None:
    """Every control has a name for screen readers; text stands out from its ground by 4.5 to 1 in both themes."""
    page = visit(browser)
    nameless = """[...document.querySelectorAll('button, input')]
        .filter(control => !control.textContent.trim() && !control.labels?.length && !control.ariaLabel)
        .map(control => control.outerHTML)"""
    assert page.evaluate(nameless) == []
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        for text, ground in [
            ("ink", "panel"),
            ("dim", "panel"),
            ("dim", "ground"),
            ("dim", "sunk"),
            ("panel", "hit"),
            ("panel", "miss"),
            ("panel", "joined"),
            ("panel", "shared"),
            ("miss", "panel"),
            ("panel", "stale"),
            ("panel", "bypass"),
            ("on-accent", "accent"),
            ("miss", "sunk"),
            ("hit", "sunk"),
            ("ink", "sunk"),
        ]:
            dark, light = sorted((_luminance(page, text), _luminance(page, ground)))
            assert light / dark >= 4.5, f"{text} on {ground}, {theme}"


def _luminance(page: Page, colour: str) -> float:
    """Relative luminance of a named colour plus 0.05, as WCAG 2 defines it."""
    digits = str(page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{colour}')")).strip()
    parts = [int(digits[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
