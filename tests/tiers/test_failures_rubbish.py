"""Rubbish in what a namespace knows of itself, the head and the log, and in tags: rebuilt, and invalidations go on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.servers import RedisServer, running_redis
from tests.support.troubles import Face, until_proved
from tests.support.waiting import wait_until

from credenza import Cache

HEAD, LOG = b"{credenza}~head", b"{credenza}~log"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """A server for this module."""
    with running_redis() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Both faces of a cache."""
    made = Face(request.param)
    yield made
    made.end()


@pytest.fixture(params=[100, 0], ids=["memory", "no memory"])
def cache(server: RedisServer, face: Face, request: pytest.FixtureRequest) -> Iterator[Cache[Any, Any]]:
    """A cache over the server, with and without a memory tier; a long timeout, since nothing here is about time."""
    with Cache[Any, Any].from_url(server.url, maxsize=request.param, tier_timeout=5, jitter=0) as made:
        yield made
        face.close(made)


def spoil_head(client: Any) -> None:
    client.delete(HEAD)
    client.set(HEAD, "rubbish")


def spoil_head_fields(client: Any) -> None:
    client.hset(HEAD, mapping={"sequence": "many", "epoch": "short"})


def spoil_log(client: Any) -> None:
    client.delete(LOG)
    client.rpush(LOG, "rubbish")


def spoil_entry(client: Any) -> None:
    sequence = int(client.hget(HEAD, "sequence") or 0)
    client.xadd(LOG, {"news": b"\xff\xfe rubbish"}, id=f"{sequence + 1}-0")
    client.hincrby(HEAD, "sequence", 1)


def spoil_fields(client: Any) -> None:
    sequence = int(client.hget(HEAD, "sequence") or 0)
    client.xadd(LOG, {"other": "field", "and": "more"}, id=f"{sequence + 1}-0")
    client.hincrby(HEAD, "sequence", 1)


SPOILING = [spoil_head, spoil_head_fields, spoil_log, spoil_entry, spoil_fields]


@pytest.mark.parametrize("spoil", SPOILING, ids=lambda spoil: spoil.__name__)
def test_spoilt_head_or_log_is_rebuilt_and_invalidations_go_on(
    face: Face, server: RedisServer, spoil: Callable[[Any], None]
) -> None:
    """Rubbish in the head or the log empties memory at worst; later invalidations reach the other process as ever."""
    options: dict[str, Any] = {"max_staleness": 0.2, "tier_timeout": 5}
    database = {"key": 0}
    with (
        Cache[Any, Any].from_url(server.url, **options) as one,
        Cache[Any, Any].from_url(server.url, **options) as other,
        server.client() as client,
    ):
        for number in range(1, 4):
            for each in (one, other):
                assert face.read(each, "key", lambda: database["key"]) == number - 1
                until_proved(each)
            spoil(client)
            face.write(one, "key", lambda number=number: database.update(key=number))
            assert face.read(one, "key", lambda: database["key"]) == number
            wait_until(
                lambda number=number: face.read(other, "key", lambda: database["key"]) == number,
                "the other process sees the write",
            )
            assert {one.health().tier, other.health().tier} == {"up"}
        for each in (one, other):
            until_proved(each)
            face.close(each)


@pytest.mark.parametrize("rubbish", [b"rubbish", b"T", b"T" + bytes(16) + b"torn", bytes(100)], ids=range(4))
def test_spoilt_tag_hides_no_invalidation(cache: Cache[Any, Any], server: RedisServer, rubbish: bytes) -> None:
    """What was invalidated by a tag is not served again when the record of the tag is spoilt, and the tag works again."""
    database = {"key": 0}

    def load() -> int:
        return database["key"]

    with Cache[Any, Any].from_url(server.url, tier_timeout=5) as other, server.client() as client:
        for number in range(1, 4):
            for each in (cache, other):
                assert each.get_or_load("key", load, tags=["tag"]) == number - 1
            client.set("credenza#tag", rubbish)
            assert other.get_or_load("key", load, tags=["tag"]) == number - 1
            database["key"] = number
            cache.invalidate_tags("tag")
            client.set("credenza#tag", rubbish)
            assert cache.get_or_load("key", load, tags=["tag"]) == number
            wait_until(
                lambda number=number: other.get_or_load("key", load, tags=["tag"]) == number,
                "the tag is invalidated everywhere",
            )


def test_spoilt_tag_of_a_list_does_not_stop_reads(cache: Cache[Any, Any], server: RedisServer) -> None:
    """A tag's record of a foreign type is made anew."""
    with server.client() as client:
        client.rpush("credenza#tag", "foreign")
    assert cache.get_or_load("key", lambda: 1, tags=["tag"]) == 1
    cache.invalidate_tags("tag")
    assert cache.get_or_load("key", lambda: 2, tags=["tag"]) == 2
