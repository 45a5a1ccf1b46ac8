"""What another client wrote under our names: a miss and an event, never an error for the reader, never a foreign value."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.servers import RedisServer, running_redis
from tests.support.troubles import Face

from credenza import Cache
from credenza.codec import Codec
from credenza.tiers.base import VALUE_HEADER_BYTES

NAME = b"credenza:key"
VALUE = {"name": "Ann", "numbers": [1, 2, 3]}


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


def unreadable(cache: Cache[Any, Any]) -> list[object]:
    """Collect the keys of records that could not be read from now on."""
    keys: list[object] = []
    cache.subscribe(lambda event: keys.append(event.key) if event.kind == "unreadable" else None)
    return keys


def valid_record(server: RedisServer) -> bytes:
    """Return the record of `VALUE` under `NAME` as a cache writes it."""
    with Cache[Any, Any].from_url(server.url, tier_timeout=5, jitter=0, ttl="1d") as writer:
        assert writer.get_or_load("key", lambda: VALUE) == VALUE
    with server.client() as client:
        record: Any = client.get(NAME)
    assert record[:1] == b"V"
    return bytes(record)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


# Records --------------------------------------------------------------------------------------------------------------

RUBBISH = {
    "text": b"hello",
    "one byte": b"V",
    "zeros": bytes(200),
    "a header and nothing": b"V" + bytes(VALUE_HEADER_BYTES - 1),
    "a header and rubbish": b"V" + bytes(VALUE_HEADER_BYTES - 1) + b"rubbish" * 30,
    "json": b'{"name": "Ann"}',
    "unknown state": b"Z" + bytes(64),
    "a refresh for ever": b"V" + b"\xff" * 24 + b"rubbish" * 30,
}


@pytest.mark.parametrize("rubbish", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_under_a_key_is_a_miss_and_replaced(
    cache: Cache[Any, Any], face: Face, server: RedisServer, rubbish: bytes
) -> None:
    """The value is loaded once, an event names the key, and the next process finds the value in the tier."""
    keys = unreadable(cache)
    with server.client() as client:
        client.set(NAME, rubbish)
    assert face.read(cache, "key", lambda: VALUE) == VALUE
    assert set(keys) == {"key"}
    with Cache[Any, Any].from_url(server.url, tier_timeout=5) as other:
        assert other.get_or_load("key", lambda: "loaded again") == VALUE


def test_bytes_that_look_like_a_lease_or_a_fence_delay_nobody_for_ever(
    cache: Cache[Any, Any], face: Face, server: RedisServer
) -> None:
    """A lease or a fence that nobody holds, and that would never expire, is loaded past."""
    with server.client() as client:
        client.set(NAME, b"B1" + bytes(24))
        assert face.read(cache, "key", lambda: VALUE) == VALUE
        client.set("credenza:fence", b"B1" + b"\xff" * 24)
        assert face.read(cache, "fence", lambda: VALUE) == VALUE
        client.set("credenza:lease", b"Lorem ipsum dolor")
        assert face.read(cache, "lease", lambda: VALUE) == VALUE
        client.set("credenza:torn", b"L")
        assert face.read(cache, "torn", lambda: VALUE) == VALUE
        client.set("credenza:torn fence", b"B")
        assert face.read(cache, "torn fence", lambda: VALUE) == VALUE


@pytest.mark.parametrize("kind", ["list", "hash", "set", "stream"])
def test_foreign_type_under_a_key_is_a_miss(cache: Cache[Any, Any], face: Face, server: RedisServer, kind: str) -> None:
    """A key that is no string is as good as absent: it is loaded, replaced, and invalidated as any other."""

    def spoil() -> None:
        with server.client() as client:
            client.delete(NAME)
            if kind == "list":
                client.rpush(NAME, "foreign")
            elif kind == "hash":
                client.hset(NAME, "a", "b")
            elif kind == "set":
                client.sadd(NAME, "a")
            else:
                client.xadd(NAME, {"a": "b"})

    spoil()
    assert face.read(cache, "key", lambda: VALUE) == VALUE
    with Cache[Any, Any].from_url(server.url, tier_timeout=5) as other:
        assert other.get_or_load("key", lambda: "loaded again") == VALUE
    spoil()
    face.invalidate(cache, "key")
    assert face.read(cache, "key", lambda: "new") == "new"
    spoil()
    face.write(cache, "key", spoil)
    assert face.read(cache, "key", lambda: "newest") == "newest"


@pytest.mark.timeout(60)
def test_truncated_record_is_a_miss(server: RedisServer) -> None:
    """Every beginning of a record, the empty one included, is loaded anew."""
    record = valid_record(server)
    with Cache[Any, Any].from_url(server.url, maxsize=0, tier_timeout=5) as cache, server.client() as client:
        keys = unreadable(cache)
        for length in range(1, len(record)):
            client.set(NAME, record[:length])
            assert cache.get_or_load("key", lambda: "loaded") == "loaded", length
        assert len(keys) >= len(record) - 1


@pytest.mark.timeout(60)
def test_record_with_a_flipped_bit_is_a_miss_or_right(server: RedisServer) -> None:
    """No bit of a record can turn a value into another one; one of each byte is tried."""
    record = valid_record(server)
    with Cache[Any, Any].from_url(server.url, maxsize=0, tier_timeout=5) as cache, server.client() as client:
        keys = unreadable(cache)
        seen = {"kept": 0, "loaded": 0}
        for place in range(1, len(record)):
            bit = 8 * place + place % 8
            spoilt = bytearray(record)
            spoilt[bit // 8] ^= 1 << bit % 8
            client.set(NAME, bytes(spoilt))
            value = cache.get_or_load("key", lambda: "loaded")
            assert value in (VALUE, "loaded"), bit
            seen["kept" if value == VALUE else "loaded"] += 1
        # The header, that of a refresh under way, is no part of the value; the envelope is.
        assert seen["kept"] <= VALUE_HEADER_BYTES - 1
        assert len(keys) >= len(record) - VALUE_HEADER_BYTES


def test_record_of_another_key_is_a_miss(cache: Cache[Any, Any], face: Face, server: RedisServer) -> None:
    """A record that was copied from one key to another does not give its value away."""
    record = valid_record(server)
    keys = unreadable(cache)
    with server.client() as client:
        client.set("credenza:victim", record)
    assert face.read(cache, "victim", lambda: "own") == "own"
    assert set(keys) == {"victim"}


@pytest.mark.parametrize("place", ["bare", "as a record", "as an envelope"])
@pytest.mark.parametrize("codec", [None, "json", "signed"])
def test_pickle_bomb_does_not_go_off(
    server: RedisServer, face: Face, tmp_path: Path, place: str, codec: str | None
) -> None:
    """A pickle of somebody else is not unpickled, by a cache that uses signed pickles neither."""
    trace = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(trace))
    record = valid_record(server)
    content = {
        "bare": bomb,
        "as a record": record[:VALUE_HEADER_BYTES] + bomb,
        "as an envelope": record[:-20] + bomb,
    }[place]
    chosen = signed() if codec == "signed" else codec
    with Cache[Any, Any].from_url(server.url, codec=chosen, tier_timeout=5) as cache, server.client() as client:
        keys = unreadable(cache)
        client.set(NAME, content)
        assert face.read(cache, "key", lambda: VALUE) == VALUE
        assert set(keys) == {"key"}
        assert not trace.exists()
        face.close(cache)


def test_pickle_of_a_stranger_with_another_secret_is_a_miss(server: RedisServer, tmp_path: Path) -> None:
    """Only who has the secret can make others unpickle something."""
    trace = tmp_path / "exploded"
    stranger: Cache[Any, Any]
    with Cache[Any, Any].from_url(
        server.url, codec=signed(b"a secret of somebody else, 32 b.."), tier_timeout=5
    ) as stranger:
        stranger.get_or_load("key", lambda: Bomb(trace))
    with Cache[Any, Any].from_url(server.url, codec=signed(), tier_timeout=5) as cache:
        keys = unreadable(cache)
        assert cache.get_or_load("key", lambda: VALUE) == VALUE
        assert set(keys) == {"key"}
    assert not trace.exists()


def signed(secret: bytes = b"a secret of our own, of 32 bytes..") -> Codec:
    from credenza.codec import Pickle

    return Codec(Pickle(secret))


def test_value_of_512_mb_is_a_miss_and_does_not_come_over_the_line(
    cache: Cache[Any, Any], face: Face, server: RedisServer
) -> None:
    """A giant record is cut off by the server, unreadable, and replaced."""
    keys = unreadable(cache)
    with server.client() as client:
        client.setrange(NAME, 536_870_911, "x")
        client.config_resetstat()
        assert face.read(cache, "key", lambda: VALUE) == VALUE
        assert set(keys) == {"key"}
        sent: Any = client.info("stats")["total_net_output_bytes"]
        assert sent < 20_000_000
        assert int(client.strlen(NAME)) < 10_000  # type: ignore[arg-type]
