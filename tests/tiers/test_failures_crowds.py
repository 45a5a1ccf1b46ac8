"""Many processes, many tasks, many keys: one load each, few connections."""

import asyncio
import functools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.crowds import load_for_ever, read_together
from tests.support.servers import RedisServer, running_redis
from tests.support.troubles import said, until_proved
from tests.support.waiting import results, start_together, wait_until

from credenza import Cache

PROCESSES = 8
KEYS = 10_000
SPAWN = multiprocessing.get_context("spawn")


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


def end_all(processes: list[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.mark.timeout(90)
def test_cold_key_of_eight_processes_is_loaded_once(server: RedisServer) -> None:
    """1,600 tasks in eight processes ask for one cold key: one load, and all have its value."""
    start, loads, values = SPAWN.Barrier(PROCESSES), SPAWN.Value("i", 0), SPAWN.Queue()
    processes = [SPAWN.Process(target=read_together, args=(server.url, start, loads, values)) for _ in range(PROCESSES)]
    try:
        for process in processes:
            process.start()
        assert [values.get(timeout=60) for _ in processes] == [["value"]] * PROCESSES
        assert loads.value == 1
    finally:
        end_all(processes)
        values.close()
        values.join_thread()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_load_of_a_killed_process_is_done_once_more(server: RedisServer, colour: str) -> None:
    """Those who wait for a process that is killed elect one other, when its lease is over."""
    loads, is_loading = SPAWN.Value("i", 0), SPAWN.Event()
    loading = SPAWN.Process(target=load_for_ever, args=(server.url, loads, is_loading))
    with (
        Cache[str, str].from_url(server.url, tier_timeout=10) as one,
        Cache[str, str].from_url(server.url, tier_timeout=10) as other,
    ):

        def load() -> str:
            with loads.get_lock():
                loads.value += 1
            return "value"

        async def load_async() -> str:
            return load()

        async def ask() -> list[str]:
            asking = [each.aio.get_or_load("cold", load_async) for each in (one, other) for _ in range(5)]
            return list(await asyncio.gather(*asking))

        try:
            loading.start()
            assert is_loading.wait(30)
            if colour == "sync":
                calls = [
                    call
                    for each in (one, other)
                    for call in start_together(5, lambda e=each: e.get_or_load("cold", load))
                ]
                wait_until(lambda: one.stats().misses + other.stats().misses >= 2, "both processes wait")
                loading.kill()
                assert results(calls) == ["value"] * 10
            else:
                loading.kill()
                assert asyncio.run(ask()) == ["value"] * 10
            assert loads.value == 2
        finally:
            end_all([loading])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("maxsize", [2 * KEYS, 0], ids=["memory", "no memory"])
def test_ten_thousand_tasks_need_a_few_connections_and_load_each_cold_key_once(
    server: RedisServer, maxsize: int, caplog: pytest.LogCaptureFixture
) -> None:
    """10,000 tasks on as many cold keys, then on warm ones: no error, at most four connections, and the tier stays up."""
    loads: list[int] = []
    connections: list[int] = []

    async def load(number: int) -> int:
        loads.append(number)
        return number

    async def read_all() -> None:
        asking = [cache.aio.get_or_load(f"key:{number}", functools.partial(load, number)) for number in range(KEYS)]
        assert await asyncio.gather(*asking) == list(range(KEYS))
        with server.client() as client:
            connections.append(len(client.client_list(_type="normal")) - 1)

    async def main() -> None:
        await read_all()
        assert sorted(loads) == list(range(KEYS))
        await read_all()
        await cache.aio.close()

    with Cache[str, int].from_url(server.url, maxsize=maxsize, tier_timeout=10) as cache:
        assert cache.get_or_load("first", lambda: 1) == 1
        until_proved(cache)
        asyncio.run(main())
    assert said(caplog) == []
    assert 1 <= max(connections) <= 4


@pytest.mark.timeout(60)
def test_threads_need_a_few_connections_and_load_each_key_once(server: RedisServer) -> None:
    """64 threads that go through the same thousand keys: each is loaded once, over at most four connections."""
    loads: list[int] = []
    with Cache[str, int].from_url(server.url, maxsize=0, tier_timeout=10) as cache, server.client() as client:

        def load(number: int) -> int:
            loads.append(number)
            return number

        def walk() -> None:
            for number in range(200):
                assert cache.get_or_load(f"key:{number}", functools.partial(load, number)) == number

        results(start_together(64, walk))
        assert sorted(loads) == list(range(200))
        assert len(client.client_list(_type="normal")) - 1 <= 4
