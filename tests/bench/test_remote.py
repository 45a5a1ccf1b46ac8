"""The comparisons of shared tiers run, and say so where they cannot."""

import asyncio
from time import perf_counter_ns

import pytest
from bench.crowds import crowd_of
from bench.goals import Verdict
from bench.records import HOT_KEYS, USERS, decoder, encoder, user_of
from bench.remote import crowd_timer, new_cache, sync_gets
from bench.scale import Scale
from tests.support.servers import NoServerError, running_redis

from bench import server
from credenza.testing import DictTier

ONE_ROUND = Scale(rounds=1, entries=1, longest_trace=1)


def test_machine_without_a_server_leaves_the_goals_unmeasured(monkeypatch):
    """That is no failure: the rows say what was missing."""

    def nowhere():
        raise NoServerError("no redis-server")

    monkeypatch.setattr("tests.support.servers.running_redis", nowhere)
    result = sync_gets(ONE_ROUND)
    assert [(outcome.goal.number, outcome.verdict) for outcome in result.outcomes] == [("S2", Verdict.UNMEASURED)]
    assert result.outcomes[0].note == "not measured: no redis-server"


def test_missing_client_leaves_the_goals_unmeasured(monkeypatch):
    """The note names the package."""
    monkeypatch.setattr(server, "is_installed", lambda package: package != "hiredis")
    result = sync_gets(ONE_ROUND)
    assert result.outcomes[0].note == "not measured: hiredis not installed"


def test_comparison_gets_a_server_of_its_own_that_is_ended():
    """What one comparison leaves behind disturbs no other."""
    urls = []

    @server.on_redis("S2")
    def comparison(scale, url):
        urls.append((url, server.version_of(url)))
        return server.unmeasured(("S2",), "seen")

    with running_redis():
        pass
    comparison(ONE_ROUND)
    ((url, version),) = urls
    assert version.startswith("Redis ")
    import redis

    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_records_survive_the_codec_that_redis_py_is_measured_with():
    """Both sides decode to the same typed record."""
    decode, encode = decoder(), encoder()
    assert all(decode(encode(user)) == user for user in USERS.values())
    assert [user_of(key).id for key in ("user:7", "fresh:12")] == [7, 12]


def test_cache_is_full_when_it_is_measured():
    """Every key is a hit in the tier, typed."""
    with new_cache(DictTier()) as cache:
        found = cache.get_many(HOT_KEYS, type=type(USERS["user:0"]))
    assert found == USERS


def test_cache_whose_hits_were_loads_spoils_the_comparison():
    """A figure of a loader must not pass for one of a hit."""
    with pytest.raises(AssertionError, match="loads where all should have been hits"), new_cache(DictTier()) as cache:
        for key in range(2 * len(HOT_KEYS)):
            cache.get_or_load(f"stranger:{key}", lambda: "loaded")


def test_crowd_asks_for_each_key_once_and_all_tasks_at_once():
    """The timer measures the crowd and nothing of its set-up."""
    asked, present, most = [], 0, 0

    async def ask(key):
        nonlocal present, most
        asked.append(key)
        present += 1
        most = max(most, present)
        await asyncio.sleep(0)
        present -= 1

    keys = [f"user:{number}" for number in range(10)]
    with asyncio.Runner() as runner:
        began_ns = perf_counter_ns()
        elapsed_ns = crowd_timer(ask, 5, runner)(keys)
        assert 0 < elapsed_ns <= perf_counter_ns() - began_ns
    assert sorted(asked) == sorted(keys)
    assert most == 5


@pytest.mark.timeout(60)
def test_processes_load_a_cold_key_once(tmp_path):
    """S6 in small, over a file."""
    crowd = crowd_of("credenza", f"sqlite:///{tmp_path / 'cold.db'}", processes=2, tasks=10)
    assert crowd.loads - crowd.lost <= 1 <= crowd.loads


@pytest.mark.timeout(60)
def test_process_that_fails_is_told_with_its_error():
    """A peer that fails its callers is shown, not counted."""
    with pytest.raises(RuntimeError, match="Error"):
        crowd_of("credenza", "redis://host:port", processes=1, tasks=1)
