"""A server in trouble, and a cache that is used in either face meanwhile."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pytest
from tests.support.servers import RedisServer, running_redis
from tests.support.servers.impostors import Proxy
from tests.support.waiting import DEADLINE, HeldAsyncLoader, HeldLoader, results, start_together, wait_until

from credenza import Cache

Colour = Literal["sync", "async"]

TIER_TIMEOUT = 0.5
STALENESS = 0.8


class Face:
    """Uses caches from threads, or from the tasks of an event loop. Every call must end before `DEADLINE`."""

    def __init__(self, colour: Colour) -> None:
        self.colour = colour
        self._runner = asyncio.Runner() if colour == "async" else None

    def read(self, cache: Cache[Any, Any], key: str, loader: Callable[[], Any]) -> Any:
        """Return the value of a key."""
        return self.crowd(cache, key, loader, 1)[0]

    def crowd(self, cache: Cache[Any, Any], key: str, loader: Callable[[], Any], count: int) -> list[Any]:
        """Return what as many callers get who ask at the same moment."""
        if self._runner is None:
            return results(start_together(count, lambda: cache.get_or_load(key, loader)))

        async def load() -> Any:
            return loader()

        async def main() -> list[Any]:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.gather(*[cache.aio.get_or_load(key, load) for _ in range(count)])

        return self._runner.run(main())

    def held_crowd(self, cache: Cache[Any, Any], key: str, count: int) -> int:
        """Let callers wait for one held load of a key; return how many loads there were."""
        if self._runner is None:
            held = HeldLoader()
            calls = start_together(count, lambda: cache.get_or_load(key, held))
            wait_until(lambda: callers(cache, key) == count, "all callers wait")
            held.release()
            assert results(calls) == ["value"] * count
            return held.calls
        loader = HeldAsyncLoader()

        async def main() -> list[Any]:
            async with asyncio.timeout(DEADLINE):
                tasks = [asyncio.create_task(cache.aio.get_or_load(key, loader)) for _ in range(count)]
                while callers(cache, key) != count:
                    await asyncio.sleep(0.001)
                loader.release()
                return await asyncio.gather(*tasks)

        assert self._runner.run(main()) == ["value"] * count
        return loader.calls

    def write(self, cache: Cache[Any, Any], key: str, action: Callable[[], object]) -> None:
        """Run `action` inside a fence around a key."""
        if self._runner is None:
            with cache.writing(key):
                action()
            return

        async def main() -> None:
            async with asyncio.timeout(DEADLINE), cache.aio.writing(key):
                action()

        self._runner.run(main())

    def invalidate(self, cache: Cache[Any, Any], key: str) -> None:
        """Forget a key."""
        if self._runner is None:
            cache.invalidate(key)
            return
        self._runner.run(cache.aio.invalidate(key))

    def close(self, cache: Cache[Any, Any]) -> None:
        """Close a cache as its users do; no task of it may be left."""
        if self._runner is None:
            cache.close()
            return

        async def main() -> set[asyncio.Task[Any]]:
            await cache.aio.close()
            return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

        assert self._runner.run(main()) == set()

    def end(self) -> None:
        """Close the event loop."""
        if self._runner is not None:
            self._runner.close()


def callers(cache: Cache[Any, Any], key: str) -> int:
    """Return how many callers wait for a load of the key."""
    flight = cache._engine.state.flights.get(key)
    return 0 if flight is None else flight.waiters


# Troubles -------------------------------------------------------------------------------------------------------------


class Unruly(Proxy):
    """A proxy that is slow, or answers rubbish.

    Attributes:
        delay: seconds that each part of an answer is kept back.
        rubbish: what is answered instead, if anything.
    """

    delay = 0.0
    rubbish = b""

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while part := server.recv(65_536):
                if self.delay:
                    time.sleep(self.delay)
                client.sendall(self.rubbish or part)
        except OSError:
            pass
        finally:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Trouble:
    """A server with one thing that can go wrong with it, and the way to it.

    Attributes:
        state: what `health().tier` says meanwhile.
    """

    state = "away"

    def __init__(self, stack: ExitStack) -> None:
        self.server: RedisServer = stack.enter_context(running_redis())
        self.url = self.server.url

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError


class Frozen(Trouble):
    def begin(self) -> None:
        self.server.pause()

    def end(self) -> None:
        self.server.resume()


class Refused(Trouble):
    def begin(self) -> None:
        self.server.kill9()

    def end(self) -> None:
        self.server.start()


class _Proxied(Trouble):
    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self.proxy = Unruly(self.server.port)
        stack.callback(self.proxy.close)
        self.url = self.proxy.url

    def end(self) -> None:
        self.proxy.delay, self.proxy.rubbish = 0.0, b""


class Slow(_Proxied):
    def begin(self) -> None:
        self.proxy.delay = 1.5 * TIER_TIMEOUT


class Garbage(_Proxied):
    def begin(self) -> None:
        self.proxy.rubbish = b"HTTP/1.1 400 Bad Request\r\n\r\n"


class WrongPassword(Trouble):
    def begin(self) -> None:
        with self.server.client() as client:
            client.config_set("requirepass", "another")
            client.client_kill_filter(_type="normal", skipme=True)

    def end(self) -> None:
        with self.server.client(password="another") as client:
            client.config_set("requirepass", "")


class Full(Trouble):
    state = "refusing"

    def begin(self) -> None:
        with self.server.client() as client:
            client.config_set("maxmemory", 1)

    def end(self) -> None:
        with self.server.client() as client:
            client.config_set("maxmemory", 0)


class ReadOnly(Trouble):
    state = "refusing"

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(stack)
        self._master: RedisServer = stack.enter_context(running_redis())

    def begin(self) -> None:
        with self.server.client() as client:
            client.config_set("replica-serve-stale-data", "yes")
            client.replicaof("127.0.0.1", 1)  # nobody is there, so it keeps its records

    def end(self) -> None:
        with self.server.client() as client:
            client.replicaof("NO", "ONE")


TROUBLES: dict[str, type[Trouble]] = {
    "frozen": Frozen,
    "refused": Refused,
    "slow": Slow,
    "garbage": Garbage,
    "wrong password": WrongPassword,
    "full": Full,
    "read-only": ReadOnly,
}


@contextmanager
def trouble(kind: str) -> Iterator[Trouble]:
    """A server that is well until `begin`; it is ended with the block."""
    with ExitStack() as stack:
        yield TROUBLES[kind](stack)


# What a cache says about it -------------------------------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library has logged about the tier as a whole: the changes of its state."""
    lines = [record.getMessage() for record in caplog.records if record.name == "credenza"]
    assert all(record.levelno == logging.WARNING for record in caplog.records if record.name == "credenza"), lines
    return [line for line in lines if "the shared tier" in line and "owed" not in line]


def until_tier(cache: Cache[Any, Any], state: str) -> None:
    """Return once the cache says so of its tier."""
    wait_until(lambda: cache.health().tier == state, f"the tier is {state}, now {cache.health()}")


def until_proved(cache: Cache[Any, Any]) -> None:
    """Return once memory may be used."""
    wait_until(lambda: cache.health().is_proved, f"the proof, now {cache.health()}")


def keepers(before: Sequence[threading.Thread]) -> list[str]:
    """Return the names of the threads of caches that have come since, but for idle workers."""
    new = set(threading.enumerate()) - set(before)
    return [thread.name for thread in new if thread.name.startswith("credenza-keeper")]
